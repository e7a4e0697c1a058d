"""The value of silence in features."""

import math

__all__ = ["LOG_MEL_SILENCE"]

LOG_MEL_SILENCE = math.log(1.1920929e-07)
"""Log-mel energy of digital silence: Kaldi floors each mel energy at float32's epsilon before the
logarithm. Frames after the end of an utterance are filled with it."""
