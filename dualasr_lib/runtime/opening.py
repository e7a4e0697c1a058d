"""A set checked and opened: what a `Recogniser` needs, made without torch.

Both passes search greedily: the best token of each frame.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import from_dict, from_options
from dualasr_lib.core.files import AnyPath
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.confidence import ConfidentSearch, confident
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import LiveConfig
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy_search
from dualasr_lib.decoding.live import Rules
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.features.options import FbankConfig
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.runtime.layout import FULL, STREAMING, TOKENIZER, read_description
from dualasr_lib.runtime.model import OnnxStreaming, second_pass

__all__ = ["Opened", "open_rules"]


class Opened(NamedTuple):
    """What a `Recogniser` is made of."""

    rules: Rules
    weights: str
    """Which weights it has, for the reader."""
    calibration: Calibration | None
    """Of the confidence of final texts."""


def open_rules(path: AnyPath, two_pass: bool | None, endpoint: Sequence[str]) -> Opened:
    """Opens the set in the folder `path`.

    Args:
        two_pass: whether the full branch rewrites each sentence; None: if the set has it.
        endpoint: when a sentence ends, `key=value`; the set's own are the defaults.

    Raises:
        ValueError: as `read_description`, no full branch although it is wanted, an option that
            cannot be.
    """
    folder, described = Path(path), read_description(path)
    if two_pass and "full" not in described:
        raise ValueError(f"{folder} has no full branch that reads the streaming one: no two-pass")
    config = from_options(EndpointConfig, "endpoint", endpoint, described["endpoint"])
    tokenizer = Tokenizer((folder / TOKENIZER).read_bytes())
    features = from_dict(FbankConfig, described["features"])
    first, final = (_calibration(described, branch) for branch in ("streaming", "full"))
    weights, second = f"weights: {described['source']}", None
    if two_pass is not False and "full" in described:
        weights += "; two-pass: greedy"
        search = confident(greedy_search, final)
        second = second_pass(folder / FULL, described["full"]["widths"], search)
    rules = Rules(
        model=OnnxStreaming(folder / STREAMING, described, features),
        search=ConfidentSearch(OneHead(OnlineGreedy()), first),
        detokenise=lambda tokens: tokenizer.decode(list(tokens)),
        config=LiveConfig(endpoint=config),
        second_pass=second,
    )
    return Opened(rules, weights, first if second is None else final)


def _calibration(described: Mapping[str, Any], branch: str) -> Calibration | None:
    kept = described["calibration"].get(branch)
    return None if kept is None else from_dict(Calibration, kept)
