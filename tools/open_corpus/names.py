"""The names of the presets; they stand apart, so that --help comes at once."""

__all__ = ["PRESET_NAMES"]

PRESET_NAMES = ("demo", "large", "noisy", "noisy-long", "quick", "shipped", "small")
