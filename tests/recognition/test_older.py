"""Checkpoints of before heads were a mapping give the model that they gave then."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.recognition.older import current_config, current_weights

STACK = {
    "layers": 1,
    "layer": {
        "dim": 16, "feedforward": 16, "kernel": 7,
        "attention": {"heads": 2, "query_head_dim": 8, "value_head_dim": 4, "position_dim": 8},
    },
}  # fmt: skip


def older(sharing: str) -> dict[str, Any]:
    """As a checkpoint had it."""
    return {
        "model": {
            "subsampling": {"channels": [2, 3, 4]}, "streaming": [STACK], "full": [STACK],
            "decoder": {"layers": 1, "dim": 16, "heads": 2, "feedforward": 16},
            "ctc_dropout": 0.2, "decoder_sharing": sharing,
        },
        "loss": {"ctc": 0.25, "distillation": {"method": "mse", "decoder_weight": 3.0}},
        "training": {"max_steps": 3},
    }  # fmt: skip


def under_old_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in weights.items():
        name = name.replace("heads.ctc.", "ctc.").replace(".decoder.", ".", 1)
        name = name.replace("distiller.heads.attention.", "distiller.decoder.")
        renamed[name.replace("heads.attention.", "decoders.")] = value
    return renamed


@pytest.mark.parametrize("sharing", ["separate", "shared"])
def test_an_older_checkpoint(sharing: str) -> None:
    config = from_dict(ExperimentConfig, current_config(older(sharing)))
    heads = config.model.heads
    assert heads.attention.dim == 16 and heads.ctc.dropout == 0.2
    assert heads.shared == (("ctc", "attention") if sharing == "shared" else ())
    assert config.loss.heads == {"ctc": 0.25, "attention": 0.75}
    assert config.loss.distillation.head_weights == {"attention": 3.0}
    assert config.loss.distillation.method == "mse"
    tokenizer = Tokenizer.train(["あいう"])
    model, other = (build_model(config, tokenizer) for _ in range(2))
    weights = under_old_names(model.state_dict())
    assert {name.split(".")[0] for name in weights} == {"encoders", "ctc", "decoders", "distiller"}
    owner = "shared" if sharing == "shared" else "full"
    assert f"decoders.{owner}.embedding.weight" in weights
    other.load_state_dict(current_weights(weights))
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_todays_are_left_alone() -> None:
    config = to_dict(from_dict(ExperimentConfig, current_config(older("shared"))))
    assert current_config(config) == config
    assert current_config({}) == {}
    model = build_model(from_dict(ExperimentConfig, config), Tokenizer.train(["あいう"]))
    assert current_weights(model.state_dict()).keys() == model.state_dict().keys()
