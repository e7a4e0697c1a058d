"""What a decoding run is asked for: model, search method, language model, scales.

All checks that need neither model nor data are made here, and nothing heavy is imported: a program
refuses an option before it loads anything.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualasr_lib.core.config import override
from dualasr_lib.core.files import require_paths
from dualasr_lib.recognition.methods.method import SearchMethod
from dualasr_lib.recognition.methods.registry import DEFAULT, SECOND_PASS, find, names

__all__ = ["DecodeConfig", "parse_scales"]


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """The options that all decoding programs share.

    Raises:
        ValueError: not exactly one model, an unknown method or option, options that would be
            ignored, or scales other than those that the methods weigh.
    """

    exp_dir: Path | None = None
    """What train.py wrote."""
    data_dir: Path | None = None
    """What prepare.sh wrote; only a bundle can do without it."""
    bundle: Path | None = None
    """A model in one file, in place of `exp_dir`."""
    out_dir: Path | None = None
    """Where results go and tuned scales are kept; None: `exp_dir`, or nowhere."""
    methods: tuple[str, ...] = (DEFAULT,)
    """Search methods, one after the other."""
    every: bool = False
    """Methods that the model has not the heads for are left out, not refused."""
    streams: bool = False
    """The methods search running streams, not whole utterances."""
    beam: tuple[str, ...] = ()
    """Options of the methods, `key=value`."""
    scales: Mapping[str, float] | None = None
    """Weights of the scores that the methods weigh; None: tuned on valid, kept."""
    lm: Path | None = None
    """n-gram of tokens, or with a lexicon of words; None: the one of DATA/lang."""
    lexicon: Path | None = None
    """Words and their tokens; None: no lexicon."""
    two_pass: bool = False
    """The full branch rewrites each sentence of a stream at its end."""
    second_method: str = SECOND_PASS
    """Search method of that second pass."""
    second_beam: tuple[str, ...] = ()
    """Options of that second pass."""
    second_scales: Mapping[str, float] | None = None
    """Its scales; None: tuned on valid, kept."""
    second_budget_ms: float | None = None
    """Time that it has from the end of a sentence on; None: as long as it takes."""
    epoch: int | None = None
    """Checkpoint; None: the newest."""
    avg: int = 0
    """Epochs to average; 0: none."""
    chunk_ms: int | None = None
    """Chunk of the streaming stacks; None: the one of the model's configuration."""
    left_ms: int | None = None
    """Their left context, likewise."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        require_paths(
            exp_dir=self.exp_dir,
            data_dir=self.data_dir,
            bundle=self.bundle,
            lm=self.lm,
            lexicon=self.lexicon,
        )
        self._check_model()
        if not self.methods:
            raise ValueError("at least one search method must be given")
        for name, value, least in (
            ("--epoch", self.epoch, 1), ("--avg", self.avg, 0),
            ("--chunk-ms", self.chunk_ms, 1), ("--left-ms", self.left_ms, 1),
        ):  # fmt: skip
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, but is {value}")
        self._check_second_pass()
        self._check_used()
        for method in map(find, self.methods):
            (method.stream_options if self.streams else method.whole_options)(self.beam)
            if self.scales is not None:
                method.of(self.beam).check_scales(tuple(self.scales), self.uses_lm(method))

    @property
    def home(self) -> Path | None:
        """Where results go and what was tuned is kept; None of a bundle without `out_dir`."""
        return self.out_dir or self.exp_dir

    @property
    def results_dir(self) -> Path:
        """`home`; ValueError if there is none."""
        found = self.home
        if found is None:
            raise ValueError("--bundle needs --out-dir, the folder for results and tuned scales")
        return found

    @property
    def second(self) -> SearchMethod:
        """The method of the second pass."""
        return find(self.second_method)

    @property
    def second_options(self) -> tuple[str, ...]:
        """Options of the second pass, its own defaults first."""
        return (*(self.second.second_pass or ()), *self.second_beam)

    @property
    def budget_seconds(self) -> float:
        """Time that the second pass has."""
        return math.inf if self.second_budget_ms is None else self.second_budget_ms / 1000

    def uses_lm(self, method: SearchMethod) -> bool:
        """Whether `method` gets a language model."""
        named = self.lm is not None or self.lexicon is not None
        return method.lm == "required" or (method.lm == "optional" and named)

    def _check_model(self) -> None:
        if (self.exp_dir is None) == (self.bundle is None):
            raise ValueError(
                "the model must be given by --exp-dir (with --data-dir) or by --bundle, but "
                f"{'neither is' if self.bundle is None else 'both are'} given"
            )
        if self.bundle is None and self.data_dir is None:
            raise ValueError("--exp-dir needs --data-dir, with whose tokens the model was trained")
        if self.bundle is not None and (self.epoch is not None or self.avg):
            raise ValueError("--epoch and --avg are for --exp-dir: a bundle has one set of weights")

    def _check_second_pass(self) -> None:
        if self.two_pass and len(self.methods) > 1:
            raise ValueError(
                f"--two-pass follows one first pass, but {len(self.methods)} methods are given"
            )
        given = {
            "--second-method": self.second_method != SECOND_PASS,
            "--second-beam": self.second_beam,
            "--second-scales": self.second_scales,
            "--second-budget-ms": self.second_budget_ms is not None,
        }
        if self.second_budget_ms is not None and not 0 < self.second_budget_ms < math.inf:
            raise ValueError(
                "--second-budget-ms must be finite and greater than 0, but is "
                f"{self.second_budget_ms:g}"
            )
        for name, value in given.items():
            if value and not self.two_pass:
                raise ValueError(f"{name} is for --two-pass, which was not given")
        if self.second.second_pass is None:
            able = names(lambda method: method.second_pass is not None)
            raise ValueError(
                f"--second-method must be one of {', '.join(able)}, but is {self.second_method}"
            )
        if self.two_pass:
            self.second.whole_options(self.second_options)
            fitted = self.second.of(self.second_options)
            if self.second_scales is not None:
                fitted.check_scales(tuple(self.second_scales), self.uses_lm(fitted))

    def _check_used(self) -> None:
        """ValueError for options that one of the methods would ignore."""
        weighing = names(lambda method: bool(method.grid))
        reading = names(lambda method: method.lm != "none")
        no_scales = [name for name in self.methods if name not in weighing]
        no_lm = [name for name in self.methods if name not in reading and not self.two_pass]
        for option, value, idle, able in (
            ("scales", self.scales, no_scales, weighing),
            ("lm", self.lm, no_lm, reading),
            ("lexicon", self.lexicon, no_lm, reading),
        ):
            if value is not None and idle:
                raise ValueError(
                    f"--{option} is for methods that weigh scores ({', '.join(able)}), "
                    f"but the method is {', '.join(idle)}"
                )


def parse_scales(options: Sequence[str] | None) -> dict[str, float] | None:
    """`["lm=0.3", "attention=1"]` -> scales by name; None stays None.

    Raises:
        ValueError: an unknown name, or something that is no finite number >= 0.
    """
    if options is None:
        return None
    known = sorted({scale for name in names() for scale in find(name).grid})
    found = {}
    for name, value in override({}, options).items():
        if name not in known:
            raise ValueError(f"there is no scale {name!r}; there are {', '.join(known)}")
        found[name] = _number(name, value)
    return found


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"scale {name} must be a number, but is {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"scale {name} must be finite and not negative, but is {value}")
    return float(value)
