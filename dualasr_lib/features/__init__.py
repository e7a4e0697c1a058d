"""Waveform to log-mel filterbank features: whole utterances and streams alike."""
