"""A tiny model as a set for the runtime, and as torch hears it."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "export"))

from pairs import Pair

ENDPOINT = {"pause_seconds": 0.2, "silence_seconds": 0.4, "max_seconds": 1.6}
"""Sentences end often, by each of the rules."""


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from small_models import CHUNK, small_model

    from dualasr_lib.decoding.confidence import ConfidentSearch, confident
    from dualasr_lib.decoding.endpoint import EndpointConfig
    from dualasr_lib.decoding.events import LiveConfig
    from dualasr_lib.decoding.greedy import OnlineGreedy, greedy_search
    from dualasr_lib.decoding.live import Rules
    from dualasr_lib.decoding.one_head import OneHead
    from dualasr_lib.export.runtime import SetOptions, write_runtime_set
    from dualasr_lib.recognition.recogniser import Recogniser

    trained = small_model()
    folder = tmp_path_factory.mktemp("runtime") / "set"
    write_runtime_set(trained, CHUNK, SetOptions(endpoint=ENDPOINT), folder)
    rules = Rules(
        trained.streaming(CHUNK),
        ConfidentSearch(OneHead(OnlineGreedy())),
        trained.detokenise,
        LiveConfig(endpoint=EndpointConfig(**ENDPOINT)),
        trained.second_pass(confident(greedy_search)),
    )
    return Pair(folder, Recogniser.load(folder), Recogniser(rules))
