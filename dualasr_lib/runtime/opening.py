"""A set checked and opened: what a `Recogniser` needs, made without torch.

The first pass searches greedily: the best token, or the transducer's best outcome, of each frame.
The second one chooses among texts that CTC proposes, if the set has the scales for that; else it
searches greedily, too.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dualasr_lib.core.config import from_dict, override
from dualasr_lib.core.files import AnyPath
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.confidence import ConfidentSearch, confident
from dualasr_lib.decoding.ctc_nbest import PrefixConfig
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import live_config
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy_search
from dualasr_lib.decoding.live import Rules
from dualasr_lib.decoding.offline import OfflineSearch
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.rescoring import Scales
from dualasr_lib.features.options import FbankConfig
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.runtime.layout import (
    ATTENTION,
    FULL,
    SEARCHES,
    STREAMING,
    TOKENIZER,
    read_description,
    search_name,
    tables_file,
)
from dualasr_lib.runtime.model import OnnxStreaming, second_pass, session
from dualasr_lib.runtime.rescoring import rescoring_search, scorer
from dualasr_lib.runtime.transducer import TransducerGreedy

__all__ = ["Opened", "Wanted", "open_rules"]

_CHOOSES = "attention"


class Wanted(NamedTuple):
    """How a set is to be heard."""

    two_pass: bool | None = None
    """Whether the full branch rewrites each sentence; None: if the set has it."""
    method: str | None = None
    """Search of the first pass; None: greedy by CTC, or else by the transducer."""
    second: str | None = None
    """Search of the second pass; None: by attention if the set has scales, or else as above."""
    endpoint: Sequence[str] = ()
    """When a sentence ends, `key=value`; the set's own are the defaults."""
    budget_seconds: float = math.inf
    """Time that the second pass has."""


class Opened(NamedTuple):
    """What a `Recogniser` is made of."""

    rules: Rules
    weights: str
    """Which weights it has, for the reader."""
    calibration: Calibration | None
    """Of the confidence of final texts."""


def open_rules(path: AnyPath, wanted: Wanted) -> Opened:
    """Opens the set in the folder `path`.

    Raises:
        ValueError: as `read_description`, no full branch although it is wanted, an option that
            cannot be, or a search that the set has no head for.
    """
    folder, described = Path(path), read_description(path)
    if wanted.two_pass and "full" not in described:
        raise ValueError(f"{folder} has no full branch that reads the streaming one: no two-pass")
    config = from_dict(EndpointConfig, override(dict(described["endpoint"]), wanted.endpoint))
    tokenizer = Tokenizer((folder / TOKENIZER).read_bytes())
    features = from_dict(FbankConfig, described["features"])
    opening = _Opening(folder, described)
    method = opening.method("streaming", wanted.method, "--method")
    calibration = opening.calibration("streaming", method)
    weights, second = f"weights: {described['source']}", None
    search = ConfidentSearch(opening.online(method), calibration)
    if wanted.two_pass is not False and "full" in described:
        by = opening.method("full", wanted.second, "--second-method")
        weights += f"; two-pass: {by}"
        calibration = opening.calibration("full", by)
        rewrites = confident(opening.whole(by), calibration)
        second = second_pass(folder / FULL, described["full"]["widths"], rewrites)
    rules = Rules(
        model=OnnxStreaming(folder / STREAMING, described, features),
        search=search,
        detokenise=lambda tokens: tokenizer.decode(list(tokens)),
        config=live_config(config, wanted.budget_seconds),
        second_pass=second,
    )
    return Opened(rules, weights, calibration)


class _Opening(NamedTuple):
    """A set whose searches are being built."""

    folder: Path
    described: Mapping[str, Any]

    def method(self, branch: str, wanted: str | None, option: str) -> str:
        """The search that is wanted of a branch; ValueError if the set has no head for it."""
        heads = self.described[branch]["widths"]
        able = [method for method, head in SEARCHES.items() if head in heads]
        if branch == "full" and _CHOOSES in self.described:
            able.insert(0, _CHOOSES)
        if wanted is not None and wanted not in able:
            raise ValueError(
                f"{option} must be one of {', '.join(able)}, which {self.folder} has the heads "
                f"for, but is {wanted}; other searches need a bundle and torch"
            )
        return wanted or able[0]

    def calibration(self, branch: str, method: str) -> Calibration | None:
        """What is known of a search's confidence."""
        kept = self.described["calibration"].get(search_name(branch, method))
        return None if kept is None else from_dict(Calibration, kept)

    def online(self, method: str) -> OneHead:
        """The search of running streams."""
        if method == "greedy":
            return OneHead(OnlineGreedy())
        return OneHead(self._transducer("streaming"), SEARCHES[method])

    def whole(self, method: str) -> OfflineSearch:
        """The search of whole sentences."""
        if method == "greedy":
            return greedy_search
        if method != _CHOOSES:
            return self._transducer("full").whole
        about = self.described[_CHOOSES]
        score = scorer(session(self.folder / ATTENTION).run)
        config = PrefixConfig(text_beam=about["text_beam"])
        return rescoring_search(score, Scales(**about["scales"]), config)

    def _transducer(self, branch: str) -> TransducerGreedy:
        with np.load(self.folder / tables_file(branch)) as tables:
            return TransducerGreedy(dict(tables))
