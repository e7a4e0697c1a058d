"""Names of results: what is not default stands in them, so that results of different models,
chunks, options, language models and scales do not overwrite each other.

    EXP/decode/<branch>-<method>[-<variant>]/summary-<split>.json
    EXP/scales/<branch>-<method>[-<variant>].json
    EXP/calibration/<branch>-<method>[-<variant>].json

Method and variant are fields of each summary: nobody has to take a name apart.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import flatten, to_dict

__all__ = ["ResultName", "option_parts", "scale_parts", "without_model_parts"]

_NAME = re.compile(
    r"(?P<branch>streaming|full)-(?P<method>[a-z0-9-]+?)"
    r"(?:-epoch\d+)?(?:-avg\d+(?:-step\d+)?)?"
    r"(?:-(?P<variant>(?:chunk\d|left\d|realtime|streams\d|[\w.]+=).*))?"
)
_SAME_TEXTS = {"greedy": "1best"}
_LONGEST = 200  # characters of a folder's name; file systems allow 255 bytes


class ResultName(NamedTuple):
    """What results are called."""

    branch: str
    method: str
    """Search method; `online-` before it in streams, `-lm` or `-words` behind it if it has got a
    language model or lexicon that it can do without."""
    variant: tuple[str, ...] = ()
    """What is not default, part by part."""

    @property
    def text(self) -> str:
        """All of it; also the name of the folder."""
        text = "-".join((self.branch, self.method, *self.variant)).replace("/", "_")
        if len(text) <= _LONGEST:
            return text
        return f"{text[: _LONGEST - 13]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def directory(self, exp_dir: Path) -> Path:
        """Where the results go."""
        return exp_dir / "decode" / self.text

    def scales_file(self, exp_dir: Path) -> Path:
        """Where tuned scales are kept."""
        return exp_dir / "scales" / f"{self.text}.json"

    def calibration_file(self, exp_dir: Path) -> Path:
        """Where the calibration of confidence is kept; searches of the same texts share it."""
        return exp_dir / "calibration" / f"{self.of_whole_utterances.text}.json"

    @property
    def of_whole_utterances(self) -> "ResultName":
        """The name of a search that does not run in a stream and gives the same texts; that of the
        best path for greedy search, too.
        """
        method = self.method.removeprefix("online-")
        return self._replace(method=_SAME_TEXTS.get(method, method))


def without_model_parts(text: str) -> ResultName:
    """The name of results as a file or folder has it, checkpoint and average left out: in a bundle
    there is one model only. What stands behind them is one part.

    Raises:
        ValueError: it is no such name.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} must be a name of results: <branch>-<method>[-<variant>]")
    variant = (found["variant"],) if found["variant"] else ()
    return ResultName(found["branch"], found["method"], variant)


def option_parts(config: Any, default: Any, prefix: str = "") -> tuple[str, ...]:
    """`key=value` of each option in which two dataclasses differ. If they are of two classes (two
    engines of one method), what only `config` has is compared with what it is by itself.
    """
    values, usual = flatten(to_dict(config)), flatten(to_dict(default))
    if type(config) is not type(default):
        own = {**flatten(to_dict(type(config)())), **usual}
        usual = {name: value for name, value in own.items() if name in values}
    different = (name for name in {**usual, **values} if values.get(name) != usual.get(name))
    return tuple(f"{prefix}{name}={_short(values.get(name))}" for name in different)


def scale_parts(given: Mapping[str, float] | None, prefix: str = "") -> tuple[str, ...]:
    """`lm_scale=0.3` of each scale that the user gives."""
    return tuple(f"{prefix}{name}_scale={value:g}" for name, value in sorted((given or {}).items()))


def _short(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
