"""The data folder of a decoding run; lhotse is imported when it is opened."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualasr_lib.data.datamodule import DataModule
    from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["identity_of", "open_data"]


def open_data(trained: "TrainedModel", data_dir: Path | None) -> "DataModule":
    """`data_dir` in batches as the model was configured for; ValueError if there is none."""
    data_dir = _given(data_dir)
    from dualasr_lib.configuration import extractor
    from dualasr_lib.data.datamodule import DataModule

    extract = extractor(trained.config)
    return DataModule(trained.config.data, data_dir, trained.tokenizer, extract=extract)


def identity_of(data_dir: Path | None) -> str:
    """What tells the evaluation data of `data_dir` from others; ValueError as for `open_data`."""
    from dualasr_lib.data.folder import identity

    return identity(_given(data_dir))


def _given(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise ValueError("--data-dir must be given: it has the utterances")
    return data_dir
