"""How time is counted: the frame rates of all models, said once.

    features     a frame every 10 ms (100 Hz)
    front end    a frame every 20 ms  (50 Hz)    2 feature frames; chunks are counted in these
    encoder      a frame every 40 ms  (25 Hz)    2 frames of the front end; heads speak in these

An utterance of T feature frames has ceil(ceil(T / 2) / 2) encoder frames.
"""

__all__ = [
    "ENCODER_MS",
    "ENCODER_STRIDE",
    "FEATURES_PER_ENCODER_FRAME",
    "FRAME_SHIFT_MS",
    "FRONT_END_MS",
    "FRONT_END_STRIDE",
    "encoder_frames",
]

FRAME_SHIFT_MS = 10
"""From one feature frame to the next."""
FRONT_END_STRIDE = 2
"""Feature frames for each frame of the convolutional front end."""
ENCODER_STRIDE = 2
"""Frames of the front end for each encoder frame."""

FRONT_END_MS = FRAME_SHIFT_MS * FRONT_END_STRIDE
"""From one frame of the front end to the next."""
ENCODER_MS = FRONT_END_MS * ENCODER_STRIDE
"""From one encoder frame to the next."""
FEATURES_PER_ENCODER_FRAME = FRONT_END_STRIDE * ENCODER_STRIDE


def encoder_frames(num_features: int) -> int:
    """Encoder frames of an utterance of so many feature frames."""
    # no floor of a negative number: graphs of other runtimes cut towards zero
    return (num_features + FEATURES_PER_ENCODER_FRAME - 1) // FEATURES_PER_ENCODER_FRAME
