"""A training run so small that a test can make it: the streaming branch with CTC alone reads
made-up speech (`learnable`), with the optimiser, schedule and training aids of the recipes.

Run as a program it prints the final loss of seeds with all aids of the front end, with none, and
with each left out:    python tests/model/golden_run.py [--seeds 0 1 2] [--steps 120] [NAME ...]
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import fields, replace

import torch
from learnable import BINS, TOKENS, Speech

from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.losses import LossConfig, total_loss
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig
from dualasr_lib.model.zipformer.training_aids import FrontAids
from dualasr_lib.training.clipping import ClippingConfig
from dualasr_lib.training.scaled_adam import ScaledAdam, ScaledAdamConfig
from dualasr_lib.training.schedule import ScheduleConfig, learning_rate

__all__ = ["BEFORE", "STEPS", "final_loss"]

STEPS = 120
LAST = 25
"""Steps whose mean loss is the final one."""
BEFORE = FrontAids(**{field.name: False for field in fields(FrontAids)})
"""The front end as it was when the model learned slowly."""


def final_loss(seed: int, aids: FrontAids | None = None, steps: int = STEPS) -> float:
    """Mean CTC loss (nats per token) of the last `LAST` of `steps` updates; every batch is new."""
    model = _model(seed, aids or FrontAids(), steps)
    optimiser = ScaledAdam(model.named_parameters(), ScaledAdamConfig(), ClippingConfig())
    schedule = ScheduleConfig(lr_epochs=0.0, warmup_batches=steps // 10, decay_fraction=0.6)
    speech, weights = Speech(seed), LossConfig(heads={"ctc": 1.0, "attention": 0.0})
    losses = []
    for step in range(steps):
        model.set_step(step)
        model.zero_grad(set_to_none=True)
        heard = speech.batch()
        torch.manual_seed(100_000 * seed + step)
        parts = model(heard.features, heard.lens, heard.targets, _CHUNK)
        loss = total_loss(parts.parts(weights))
        loss.backward()
        optimiser.step(learning_rate(step, 0.0, schedule, steps))
        losses.append(float(loss.detach()))
    return statistics.mean(losses[-LAST:])


_CHUNK = ChunkSpec(frames=16, left=64)


def _model(seed: int, aids: FrontAids, steps: int) -> JointModel:
    attention = AttentionConfig(heads=4, query_head_dim=16, value_head_dim=12)

    def stack(downsampling: int, dim: int) -> StackConfig:
        layer = LayerConfig(
            dim=dim, feedforward=2 * dim, kernel=15, dropout=0.0, attention=attention
        )
        return StackConfig(layers=1, downsampling=downsampling, layer=layer)

    torch.manual_seed(seed)
    config = ModelConfig(
        num_features=BINS,
        branches=("streaming",),
        subsampling=SubsamplingConfig(channels=(8, 16, 24), dropout=0.0, aids=aids),
        streaming=(stack(1, 48), stack(2, 64)),
        heads=HeadsConfig(attention=DecoderConfig(layers=1, dim=16, heads=2, feedforward=16)),
        warm_up=steps,
    )
    return JointModel(config, DistillationConfig(), TOKENS, sos_eos=1).train()


def _kinds() -> Mapping[str, FrontAids]:
    names = [field.name for field in fields(FrontAids) if field.name != "early_dropout"]
    left_out = {f"no {name}": replace(FrontAids(), **{name: False}) for name in names}
    start = replace(BEFORE, identity_start=True)
    return {"all": FrontAids(), "none": BEFORE, "identity_start only": start, **left_out}


def _main() -> None:
    kinds = _kinds()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(kinds))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    for name in arguments.names or kinds:
        begun = time.process_time()
        found = [final_loss(seed, kinds[name], arguments.steps) for seed in arguments.seeds]
        spent = (time.process_time() - begun) / len(found)
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        each = " ".join(f"{loss:.3f}" for loss in found)
        print(f"{name:28} {statistics.mean(found):.3f} +- {spread:.3f}   {each}   {spent:.0f} s",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    _main()
