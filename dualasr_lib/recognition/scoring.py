"""How the texts of a split are scored: what its data folder says, in the words of summaries."""

from dualasr_lib.data.folder import DataFolder
from dualasr_lib.decoding.summary import Scoring
from dualasr_lib.metrics.units import UNITS

__all__ = ["scoring_of"]


def scoring_of(folder: DataFolder, split: str, data: str) -> Scoring:
    """For the `RunInfo` of a decoded split.

    Args:
        data: `identity` of the folder.

    Raises:
        ValueError: the folder has no such split.
    """
    units = tuple(UNITS[name] for name in folder.units)
    return Scoring(units, folder.normaliser, folder.split(split).pooled, data)
