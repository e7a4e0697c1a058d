"""The options of CSJ's prepare.sh, beside those of every corpus."""

from dataclasses import dataclass
from pathlib import Path

from dualasr_lib.recipe.options import Options, option
from egs.csj.local.csj_text import Mode

__all__ = ["CsjOptions"]


@dataclass(frozen=True, kw_only=True)
class CsjOptions(Options):
    """What prepare.sh is called with."""

    csj_dir: Path = option(what="the corpus: the folder of MORPH/ and WAV/")
    mode: Mode = option(
        "disfluent", what="text to train on: with fillers and fragments, or not", stage=3
    )
    open: bool = option(False, what="the corpus is the open one: attach its word times", stage=1)
    max_length: float = option(
        10.0, metavar="S", what="join units up to S seconds (default 10)", stage=3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length <= 0:
            raise ValueError(f"--max-length must be positive, is {self.max_length}")

    @property
    def source(self) -> Path:
        """The folder of the corpus."""
        return self.csj_dir
