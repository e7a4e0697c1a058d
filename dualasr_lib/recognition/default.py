"""The model that comes with the package: a bundle beside this file. Imports nothing heavy."""

from pathlib import Path

__all__ = ["default_bundle"]

_BUNDLE = Path(__file__).with_name("default.dualasr")
"""Made by `egs/csj/ship.sh`; part of the wheel."""


def default_bundle() -> Path:
    """The bundle that is heard with where nobody names a model.

    Raises:
        ValueError: it is not there.
    """
    if not _BUNDLE.is_file():
        raise ValueError(
            f"the model that comes with dualasr must be {_BUNDLE}, but it is not there: install "
            "dualasr anew, or name a model of your own (--bundle FILE; Recogniser.load(FILE))"
        )
    return _BUNDLE
