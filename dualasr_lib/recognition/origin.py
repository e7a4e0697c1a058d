"""Where a trained model comes from, and what came with it: an experiment and its data folder, or a
bundle.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from dualasr_lib.core.program import one_line
from dualasr_lib.metrics.units import UNITS, Unit
from dualasr_lib.recognition.bundle import read_bundle
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.language import Language, default_lm, load_language
from dualasr_lib.recognition.methods.method import SearchMethod
from dualasr_lib.recognition.naming import ResultName
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["FromBundle", "FromExperiment", "Origin", "arpa_order", "open_origin"]


class Origin(Protocol):
    """A model and what belongs to it."""

    @property
    def trained(self) -> TrainedModel:
        """The model."""

    @property
    def unit(self) -> Unit | None:
        """What its errors are counted in; None: the data say it."""

    @property
    def endpoint(self) -> Mapping[str, Any]:
        """When sentences end: what is not `EndpointConfig`'s own."""

    def scales(self, name: ResultName) -> Sequence[Mapping[str, Any]]:
        """Tuned scales that came with it, for searches like that one."""

    def calibrations(self, name: ResultName) -> Sequence[Mapping[str, Any]]:
        """Calibrations of confidence that came with it, for searches like that one."""

    def language(self, method: SearchMethod) -> Language:
        """The language model that the user names, or else the one that came with the model;
        ValueError if there is none, or it does not fit.
        """

    def is_usual(self, arpa: Path | None, lexicon: Path | None, method: SearchMethod) -> bool:
        """Whether a file that the user names is the one that would be taken anyway."""


class FromExperiment:
    """A checkpoint of EXP with the tokens and n-grams of DATA/lang.

    Raises:
        ValueError: as `TrainedModel.from_checkpoint`.
    """

    unit: Unit | None = None

    def __init__(self, config: DecodeConfig, device: torch.device) -> None:
        assert config.exp_dir is not None and config.data_dir is not None
        self.trained = TrainedModel.from_checkpoint(
            config.exp_dir, config.data_dir, device, config.epoch, config.avg
        )
        self.endpoint: Mapping[str, Any] = {}
        self._config, self._lang = config, config.data_dir / "lang"
        self._loaded: dict[Path, Language] = {}

    def scales(self, name: ResultName) -> Sequence[Mapping[str, Any]]:
        """None: they are in EXP/scales."""
        del name
        return ()

    def calibrations(self, name: ResultName) -> Sequence[Mapping[str, Any]]:
        """None: they are in EXP/calibration."""
        del name
        return ()

    def language(self, method: SearchMethod) -> Language:
        """As `Origin` says."""
        arpa = self._config.lm or self._default_lm(method)
        if arpa not in self._loaded:
            lexicon = self._config.lexicon
            self._loaded[arpa] = load_language(self.trained.tokenizer, arpa, lexicon)
        return self._loaded[arpa]

    def is_usual(self, arpa: Path | None, lexicon: Path | None, method: SearchMethod) -> bool:
        """As `Origin` says."""
        try:
            usual = self._lang / "lexicon.txt" if arpa is None else self._default_lm(method)
        except ValueError:  # DATA/lang has none
            return False
        named = lexicon if arpa is None else arpa
        return named is not None and usual.resolve() == named.resolve()

    def _default_lm(self, method: SearchMethod) -> Path:
        words = self._config.lexicon is not None
        return default_lm(self._lang, words=words, highest=method.lm_order == "highest")


class FromBundle:
    """A model in one file.

    Raises:
        ContainerError: no such file, none, a damaged or a newer one.
        ValueError: its parts do not fit each other, or not this version of the program.
    """

    def __init__(self, config: DecodeConfig, device: torch.device) -> None:
        assert config.bundle is not None
        self._config, self._bundle = config, read_bundle(config.bundle)
        try:
            self.trained = TrainedModel.from_bundle(self._bundle, device)
            names = [name for name in UNITS if name == self._bundle.units[0]]
            self.unit: Unit | None = UNITS[names[0]]
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"{config.bundle} does not fit this version of the program: {one_line(error)}"
            ) from None
        self.endpoint = self._bundle.endpoint
        self._loaded: dict[str, Language] = {}

    def scales(self, name: ResultName) -> Sequence[Mapping[str, Any]]:
        """As `Origin` says."""
        return _alike(self._bundle.scales, name)

    def calibrations(self, name: ResultName) -> Sequence[Mapping[str, Any]]:
        """As `Origin` says; streams have those of whole utterances."""
        return _alike(self._bundle.calibration, name.of_whole_utterances)

    def language(self, method: SearchMethod) -> Language:
        """As `Origin` says; files of the bundle are there only while they are read."""
        config, bundle, tokenizer = self._config, self._bundle, self.trained.tokenizer
        name = str(config.lm) if config.lm else self._own_lm(method)
        if name in self._loaded:
            return self._loaded[name]
        with TemporaryDirectory(prefix="dualasr-") as temporary:
            arpa, lexicon = config.lm, config.lexicon
            if arpa is None:
                arpa = Path(temporary) / name
                arpa.write_bytes(bundle.lms[name])
                if lexicon is None and bundle.lexicon is not None:
                    lexicon = Path(temporary) / bundle.lexicon[0]
                    lexicon.write_bytes(bundle.lexicon[1])
            self._loaded[name] = load_language(tokenizer, arpa, lexicon)
        return self._loaded[name]

    def is_usual(self, arpa: Path | None, lexicon: Path | None, method: SearchMethod) -> bool:
        """A bundle's own files are never named by the user."""
        del arpa, lexicon, method
        return False

    def _own_lm(self, method: SearchMethod) -> str:
        path, bundle = self._config.bundle, self._bundle
        if not bundle.lms:
            raise ValueError(
                f"method {method.name} needs a language model, but {path} has none: give --lm"
            )
        if self._config.lexicon is not None and bundle.lexicon is None:
            raise ValueError(f"--lexicon needs an n-gram of words, but {path} has none: give --lm")
        by_order = sorted(bundle.lms, key=lambda name: arpa_order(bundle.lms[name]))
        return by_order[-1 if method.lm_order == "highest" else 0]


def _alike(kept: Mapping[str, Mapping[str, Any]], name: ResultName) -> Sequence[Mapping[str, Any]]:
    wanted = (name.branch, name.method)
    return [each for each in kept.values() if (each.get("branch"), each.get("method")) == wanted]


def open_origin(config: DecodeConfig, device: torch.device) -> Origin:
    """The model that a configuration names.

    Raises:
        ValueError: as `FromExperiment` and `FromBundle`.
    """
    return FromExperiment(config, device) if config.bundle is None else FromBundle(config, device)


def arpa_order(content: bytes) -> int:
    """The order of an n-gram, by the head of its ARPA file; 0 if there is none."""
    found = re.findall(rb"^ngram\s+(\d+)\s*=", content[:4096], re.MULTILINE)
    return max(map(int, found), default=0)
