"""Searches of a transducer: whole utterances and streams by the same code; no k2."""
