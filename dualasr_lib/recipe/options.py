"""The options of prepare.sh, and the names of parts and splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["PARTS", "SPLITS", "TRAINING", "Options"]

EVALUATION = ("valid", "eval1", "eval2", "eval3", "excluded")
TRAINING = ("core", "noncore")
PARTS = (*TRAINING, *EVALUATION)
"""As lhotse's recipe names them; core and noncore together are the training talks."""
SPLITS = ("train", *EVALUATION)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What prepare.sh was called with."""

    csj_dir: Path
    """The corpus: the folder that holds MORPH/ and WAV/."""
    data_dir: Path
    """Where everything is written."""
    mode: Literal["disfluent", "fluent"] = "disfluent"
    """Which text to train on: with fillers and fragments, or without."""
    open: bool = False
    """The corpus is our open one: attach the word times of its folder WORDS/."""
    allow_bad: int = 0
    """Talks (stage 1) or utterances (stage 4) with defects that may be left out."""
    max_length: float = 10.0
    """Seconds that joined units may last together; a single unit may be longer."""
    jobs: int = 2
    """Processes."""
    vocab_type: Literal["char", "unigram", "bpe"] = "char"
    """Kind of sentencepiece model."""
    vocab_size: int = 500
    """Pieces, for unigram and bpe."""
    order: int = 3
    """Order of the n-gram language models of tokens and of words that a search uses."""
    rescoring_order: int = 5
    """Order of a second one of tokens, for rescoring."""

    def __post_init__(self) -> None:
        # kaldingram trains a 1-gram on the first word of each line only
        for name, least in (("allow_bad", 0), ("jobs", 1), ("vocab_size", 1), ("order", 2)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} must be at least {least}, is {getattr(self, name)}")
        if self.max_length <= 0:
            raise ValueError(f"--max-length must be positive, is {self.max_length}")
        if not self.order <= self.rescoring_order <= 5:  # kaldingram's limit
            raise ValueError(
                f"--rescoring-order must be at least --order ({self.order}) and at most 5,"
                f" is {self.rescoring_order}"
            )
