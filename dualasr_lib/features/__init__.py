"""Waveform to log-mel filterbank features by kaldifeat: whole utterances and streams alike."""
