"""Training of the joint model on made-up features and texts."""

import torch
from torch import Tensor, nn

from bench.breakdown import parts_of
from bench.timing import Work
from bench.workloads import (
    Setting,
    clear_gradients,
    features_of,
    generator,
    model_values,
    ready,
    three_steps,
)
from dualasr_lib.core.config import from_dict
from dualasr_lib.model.heads.ctc import torch_ctc_loss
from dualasr_lib.model.joint import JointModel, LossConfig, ModelConfig, Targets, total_loss
from dualasr_lib.model.zipformer.stacks import Zipformer

__all__ = ["build_joint", "joint_work", "train_joint"]

_TOKENS_PER_SECOND = 6.3  # characters, as in spontaneous Japanese


def build_joint(setting: Setting) -> tuple[JointModel, LossConfig]:
    """The joint model of a configuration with fresh weights, ready to train, and its loss."""
    values = model_values(setting)
    config = from_dict(ModelConfig, values["model"], "model.")
    loss = from_dict(LossConfig, values.get("loss", {}), "loss.")
    torch.manual_seed(0)
    model = JointModel(config, loss.distillation, setting.vocab_size, sos_eos=1)
    return ready(model, setting), loss


class _CtcLoss(nn.Module):
    """A module, so that its time can be told from the rest."""

    def forward(
        self, log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor
    ) -> Tensor:
        return torch_ctc_loss(log_probs, lens, tokens, token_lens)


def joint_work(model: JointModel, loss: LossConfig, setting: Setting, name: str) -> Work:
    """One training step of all branches, decoders and losses."""
    features, lens = features_of(setting)
    count = max(1, round(_TOKENS_PER_SECOND * setting.seconds))
    shape = (setting.utterances, count)
    tokens = torch.randint(2, setting.vocab_size, shape, generator=generator())
    token_lens = torch.full((setting.utterances,), count)
    ctc_loss = _CtcLoss()
    criteria = {"ctc": dict.fromkeys(model.branches, ctc_loss)}
    targets = Targets(tokens.to(setting.device), token_lens.to(setting.device))

    def forward() -> Tensor:
        with setting.autocast():
            losses = model(features, lens, targets, setting.spec, criteria)
        return total_loss(losses.parts(loss))

    return Work(
        name=name,
        seconds=setting.audio_seconds,
        forward=forward,
        backward=lambda value: value.backward(),
        clear=lambda: clear_gradients(model),
        parts={**parts_of(model, Zipformer), "ctc loss": ctc_loss},
    )


def train_joint(setting: Setting) -> None:
    """Three steps of the joint model, for `peak_memory`."""
    torch.set_num_threads(setting.threads)
    three_steps(joint_work(*build_joint(setting), setting, "joint"))
