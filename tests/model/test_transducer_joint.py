"""A joint model with transducer heads: it trains, distils and counts published steps."""

import pytest
import torch
from joint_cases import model_config

from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.contract import Targets
from dualasr_lib.model.heads.transducer import TransducerHead
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.zipformer.streaming import ChunkSpec


@pytest.mark.parametrize("shared", [(), ("transducer",)])
def test_joint_model_with_transducers(shared: tuple[str, ...]) -> None:
    both = ("ctc", "transducer")
    heads = {"streaming": both, "full": both, "shared": shared}
    config = model_config(heads=heads, warm_up=200)
    torch.manual_seed(0)
    distillation = DistillationConfig(head_weights={"transducer": 1.0})
    model = JointModel(config, distillation, vocab_size=11, sos_eos=1)
    model.set_step(5)  # 500 published ones
    head = model.head("transducer", "full")
    assert isinstance(head, TransducerHead)
    assert head.simple_weight.now() == pytest.approx(0.875)
    features = torch.randn(2, 100, config.num_features)
    targets = Targets(torch.randint(2, 11, (2, 3)), torch.tensor([3, 2]))
    losses = model(features, torch.tensor([100, 80]), targets, ChunkSpec(frames=8, left=16))
    assert set(losses.heads["transducer"]) == {"streaming", "full"}
    assert losses.distilled is not None and not losses.impossible.any()
    sum(losses.heads["transducer"].values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
