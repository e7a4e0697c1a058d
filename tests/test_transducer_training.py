"""A run with a transducer beside CTC and attention on both branches: its loss falls, all is logged,
and k2 can sum over the alignments.
"""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from test_experiment import BRANCHES, CPU, config, data_dir  # noqa: F401  (a fixture)

from dualasr_lib.configuration import ExperimentConfig
from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.experiment import Experiment
from dualasr_lib.training.distributed import World

STEPS = 30
HEADS = ["ctc", "attention", "transducer"]


def logged(data: Path, implementation: str) -> list[dict[str, Any]]:
    """The log of a run."""
    values = to_dict(config(BRANCHES[0]))
    heads = values["model"]["heads"]
    heads |= {"streaming": HEADS, "full": HEADS}
    heads["transducer"]["sizes"] = {"dim": 16, "joiner_dim": 16}
    heads["transducer"]["loss"]["implementation"] = implementation
    values["loss"]["heads"] = {"ctc": 0.2, "attention": 0.8, "transducer": 1.0}
    values["training"] |= {"max_steps": STEPS, "validate_every": STEPS}
    values["training"]["schedule"] |= {"base_lr": 0.03, "warmup_batches": 1.0}
    found = Experiment(from_dict(ExperimentConfig, values), data)
    folder = data / f"exp-{implementation}"
    assert found.fit(found.run(folder, World()), CPU).finished
    return [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]


def test_it_trains_beside_the_others_whoever_sums(data_dir: Path) -> None:  # noqa: F811
    pytest.importorskip("k2")
    first = {}
    for implementation in ("own", "k2"):
        lines = logged(data_dir, implementation)
        said = set().union(*lines)
        for branch in ("streaming", "full"):
            name = f"train/transducer_{branch}"
            values = [line[name] for line in lines if name in line]
            assert len(values) == STEPS
            # The weight of the pruned loss rises meanwhile, and the loss falls all the same.
            assert sum(values[-5:]) < 0.8 * sum(values[:5])
            first[implementation, branch] = values[0]
            assert {f"train/ctc_{branch}", f"train/attention_{branch}"} <= said
            assert f"valid/cer_{branch}" in said
    for branch in ("streaming", "full"):
        assert first["k2", branch] == pytest.approx(first["own", branch], rel=1e-4)
