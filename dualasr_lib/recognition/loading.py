"""How a recogniser with torch hears: from a bundle, or from what training wrote."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import from_dict, override
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import live_config
from dualasr_lib.decoding.live import Rules
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.recognition.bundle import is_bundle
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.decode_setup import DecodeSetup, OpenData, ReadySecondPass, ValidData
from dualasr_lib.recognition.methods.registry import DEFAULT
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.recognition.tuning import NoScalesError

__all__ = ["Loaded", "build_rules", "greedy_setup", "load_rules"]

_LOG = logging.getLogger(__name__)

_GREEDY = "greedy"
"""The search that needs neither k2 nor scales."""


class Loaded(NamedTuple):
    """What a `Recogniser` is made of."""

    rules: Rules
    weights: str
    calibration: Calibration | None


def load_rules(
    path: Path,
    data_dir: str | PathLike[str] | None,
    method: str | None,
    two_pass: bool | None,
    chunk_ms: int | None,
    endpoint: Sequence[str],
    device: str,
) -> Loaded:
    """As `Recogniser.load`, of a bundle or of EXP."""
    source: dict[str, Any] = {"bundle": path}
    if path.is_dir():
        if data_dir is None:
            raise ValueError(f"{path} is a folder: give its data_dir, too, or load a bundle")
        source = {"exp_dir": path, "data_dir": Path(data_dir)}
    elif data_dir is not None and is_bundle(path):
        raise ValueError(f"{path} is a bundle: it needs no data_dir")
    method = method or _usual_method()
    config = DecodeConfig(
        **source, methods=(method,), streams=True, chunk_ms=chunk_ms, device=device
    )
    setup = DecodeSetup(config, _no_data)
    return _ready(setup, endpoint, _chosen_second_pass(setup, two_pass))


def build_rules(
    config: DecodeConfig, endpoint: Sequence[str], open_data: OpenData | None
) -> Loaded:
    """As `Recogniser.build`."""
    setup = DecodeSetup(config, open_data or _no_data)
    return _ready(setup, endpoint, setup.second_pass() if config.two_pass else None)


def greedy_setup(config: DecodeConfig) -> DecodeSetup:
    """What a model needs for the searches that need nothing else."""
    return DecodeSetup(replace(config, methods=(_GREEDY,), streams=True), _no_data)


def _no_data(trained: TrainedModel, data_dir: Path | None) -> ValidData:
    raise ValueError("nothing is tuned here")


def _has_lattices() -> bool:
    try:
        import dualasr_lib.lattice.backend  # noqa: F401
    except ImportError:
        return False
    return True


def _usual_method() -> str:
    if _has_lattices():
        return DEFAULT
    _LOG.warning("k2 is not installed: both passes search greedily")
    return _GREEDY


def _chosen_second_pass(setup: DecodeSetup, wanted: bool | None) -> ReadySecondPass | None:
    """The second pass that is wanted, or that the model can have."""
    if wanted is False:
        return None
    try:
        setup.trained.model.encoders.check_second_pass()
    except ValueError:
        if wanted:
            raise
        return None
    heads = setup.trained.model.heads_of("full")
    if not _has_lattices() or set(setup.config.second.heads) - heads.keys():
        return setup.second_pass(_GREEDY)
    try:
        return setup.second_pass()
    except NoScalesError:
        _LOG.warning("no scales came with the model: the second pass searches greedily")
        return setup.second_pass(_GREEDY)


def _ready(setup: DecodeSetup, endpoint: Sequence[str], second: ReadySecondPass | None) -> Loaded:
    weights = f"weights: {setup.trained.source}"
    if second is not None:
        params = second.params
        scales = f"{params['scales']} ({params['scales_from']})" if "scales" in params else _GREEDY
        weights += f"; two-pass: {scales}"
    config = from_dict(EndpointConfig, override(dict(setup.origin.endpoint), endpoint))
    first = setup.online(setup.config.methods[0])
    rules = Rules(
        model=setup.trained.streaming(setup.chunk),  # last: tuning hears whole utterances
        search=first.search,
        detokenise=setup.trained.detokenise,
        config=live_config(config, setup.config.budget_seconds),
        second_pass=None if second is None else second.run,
    )
    calibrator = first.calibrator if second is None else second.calibrator
    return Loaded(rules, weights, calibrator.kept())
