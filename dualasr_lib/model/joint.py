"""The joint model: two branches, each with heads of its own choice, trained together.

`losses` says what is minimised, `heads` what a head is.

Letters: N batch, T feature frames, S encoder frames, U tokens, V vocabulary, C channels.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.core.picture import Picture
from dualasr_lib.model.distillation import (
    METHODS,
    BranchDims,
    BranchView,
    DistillationConfig,
    Distilled,
    Distiller,
    Widths,
    build_distiller,
)
from dualasr_lib.model.encoder import Encoded, StreamingEncoder
from dualasr_lib.model.heads.contract import Criteria, Head, HeadSizes, NbestTexts, Targets
from dualasr_lib.model.heads.registry import HEADS
from dualasr_lib.model.integration import build_integration
from dualasr_lib.model.losses import LossConfig, Losses, total_loss
from dualasr_lib.model.model_config import BRANCHES, Branch, ModelConfig
from dualasr_lib.model.pairing import Sequences
from dualasr_lib.model.zipformer.scheduled import set_step
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.training_aids import PUBLISHED_WARM_UP

__all__ = [
    "BRANCHES",
    "Branch",
    "JointModel",
    "LossConfig",
    "Losses",
    "ModelConfig",
    "NbestTexts",
    "Reading",
    "Targets",
    "total_loss",
]


class Reading(NamedTuple):
    """What the branches make of a batch whose texts are known."""

    encoded: Mapping[Branch, Encoded]
    heads: Mapping[str, Mapping[Branch, Any]]
    """Head name -> branch -> the head's reading."""


class JointModel(nn.Module):
    """Features in, texts of both branches out."""

    def __init__(
        self, config: ModelConfig, distillation: DistillationConfig, vocab_size: int, sos_eos: int
    ) -> None:
        super().__init__()
        self.config = config
        self.branches: tuple[Branch, ...] = tuple(b for b in BRANCHES if config.has(b))
        self.encoders = build_integration(config)
        dims = self.encoders.output_dims
        self.heads = nn.ModuleDict()
        for name, kind in HEADS.items():  # the order is that of random numbers
            owners = _owners(config, name, dims)
            options = getattr(config.heads, name, None)
            made = {o: kind(options, HeadSizes(vocab_size, d, sos_eos)) for o, d in owners.items()}
            if made:
                self.heads[name] = nn.ModuleDict(made)
        self.distiller = self._distiller(distillation)

    @property
    def streaming(self) -> StreamingEncoder:
        """The encoder that runs chunk by chunk.

        Raises:
            ValueError: the model has no streaming branch.
        """
        self.require("streaming")
        assert isinstance(self.encoders.streaming, StreamingEncoder)
        return self.encoders.streaming

    def require(self, branch: Branch) -> None:
        """ValueError unless the model has `branch`."""
        if branch not in self.branches:
            raise ValueError(
                f"this needs a model with a {branch} branch, but this one was made with "
                f"model.branches = {list(self.branches)}"
            )

    def head(self, name: str, branch: Branch) -> Head:
        """A head of a branch.

        Raises:
            ValueError: the model has no such branch, or the branch no such head.
        """
        self.require(branch)
        if name not in self.config.heads.of(branch):
            raise ValueError(
                f"this needs a {branch} branch with a head {name}, but this model was made with "
                f"model.heads.{branch} = {list(self.config.heads.of(branch))}"
            )
        owners = self.heads[name]
        assert isinstance(owners, nn.ModuleDict)
        head = owners[self.config.heads.owner(name, branch)]
        assert isinstance(head, Head)
        return head

    def heads_of(self, branch: Branch) -> dict[str, Head]:
        """The heads of a branch by name, in the order of `HEADS`."""
        return {name: self.head(name, branch) for name in self.config.heads.of(branch)}

    def encode(
        self,
        features: Tensor,
        lens: Tensor,
        chunk: ChunkSpec,
        branches: tuple[Branch, ...] | None = None,
    ) -> dict[Branch, Encoded]:
        """Hidden states of `branches` (None: all there are) from features (N, T, 80) of lens (N,)
        frames.
        """
        wanted = self.branches if branches is None else branches
        for branch in wanted:
            self.require(branch)
        encoded: dict[Branch, Encoded] = self.encoders(features, lens, chunk, wanted)
        return encoded

    def frames(self, h: Tensor, branch: Branch) -> dict[str, Tensor]:
        """What searches read of hidden states (N, S, C): head name -> (N, S, ...), e.g. "ctc" ->
        log-probabilities (N, S, V). Heads that say nothing frame by frame are missing.
        """
        said = {name: head.frames(h) for name, head in self.heads_of(branch).items()}
        return {name: frames for name, frames in said.items() if frames is not None}

    def read(self, features: Tensor, lens: Tensor, targets: Targets, chunk: ChunkSpec) -> Reading:
        """What encoders and heads of all branches make of a batch."""
        encoded = self.encode(features, lens, chunk)
        readings: dict[str, dict[Branch, Any]] = {name: {} for name in self.heads}
        for branch, states in encoded.items():
            # Backwards: the order in which heads have always drawn their random numbers.
            for name, head in reversed(self.heads_of(branch).items()):
                readings[name][branch] = head(states, targets)
        joined = {
            name: HEADS[name].joined({b: self.head(name, b) for b in mine}, mine)
            for name, mine in readings.items()
        }
        return Reading(encoded, joined)

    def views(self, reading: Reading) -> dict[Branch, BranchView]:
        """All that distillation sees of each branch."""
        return {branch: self._view(branch, reading) for branch in reading.encoded}

    def pictures(self, reading: Reading) -> dict[str, Picture]:
        """Pictures of the first utterance, "<head>_<branch>/<name>" -> what the head draws."""
        return {
            f"{name}_{branch}/{title}": picture
            for name, mine in reading.heads.items()
            for branch, its in mine.items()
            for title, picture in self.head(name, branch).pictures(its).items()
        }

    def forward(
        self,
        features: Tensor,
        lens: Tensor,
        targets: Targets,
        chunk: ChunkSpec,
        criteria: Criteria = MappingProxyType({}),
    ) -> Losses:
        """All terms of the training loss for one batch.

        Args:
            criteria: who computes the loss of a head in a branch, where it is not the head itself.
        """
        reading = self.read(features, lens, targets, chunk)
        losses = self.losses(reading, targets, criteria)
        return losses._replace(distilled=self._distilled(reading))

    def losses(
        self, reading: Reading, targets: Targets, criteria: Criteria = MappingProxyType({})
    ) -> Losses:
        """The terms of the heads; exchanges nothing with other ranks. Args as of `forward`."""
        return Losses(
            heads={
                name: {
                    branch: self.head(name, branch).loss(its, criteria.get(name, {}).get(branch))
                    for branch, its in mine.items()
                }
                for name, mine in reading.heads.items()
            },
            distilled=None,
            num_tokens=(targets.lens + 1).sum(),
            impossible=self._impossible(reading, targets),
        )

    def set_step(self, step: int, credit: int = 0, anew: Collection[str] = ()) -> None:
        """Tells all schedules how many optimiser steps have been done; the encoders' aids, and
        heads that say so, count them as published steps (`ModelConfig.warm_up`).

        Args:
            credit: steps that count as done before the first one, where weights were trained.
            anew: names of modules that began with random weights all the same.
        """
        self._tell("", step + credit)
        for name in anew:
            self._tell(name, step)

    def _tell(self, name: str, step: int) -> None:
        """Tells the module of a name; the empty one is the whole model's."""
        part = self.get_submodule(name)
        published = round(step * PUBLISHED_WARM_UP / self.config.warm_up)
        set_step(part, published if f"{name}.".startswith("encoders.") else step)
        if not name:
            set_step(self.encoders, published)
        for module in part.modules():
            if isinstance(module, Head) and module.counts_published_steps:
                set_step(module, published)

    def _impossible(self, reading: Reading, targets: Targets) -> Tensor:
        found = torch.zeros_like(targets.lens, dtype=torch.bool)
        for name, mine in reading.heads.items():
            for branch, its in mine.items():
                mask = self.head(name, branch).impossible(its)
                found = found if mask is None else found | mask
        return found

    def _view(self, branch: Branch, reading: Reading) -> BranchView:
        states, by_frame, heads = reading.encoded[branch], None, {}
        for name, head in self.heads_of(branch).items():
            its = reading.heads[name][branch]
            by_frame = head.frame_log_probs(its) if by_frame is None else by_frame
            view = head.view(its)
            if view is not None:
                heads[name] = view
        return BranchView(Sequences(states.h, by_frame, states.lens), heads)

    def _distilled(self, reading: Reading) -> Distilled | None:
        if self.distiller is None:
            return None
        views = self.views(reading)
        losses: Distilled = self.distiller(views["full"], views["streaming"])
        return losses

    def _distiller(self, config: DistillationConfig) -> Distiller | None:
        """None where a branch has no other to learn from."""
        if len(self.branches) < 2:
            return None
        full, streaming = self.heads_of("full"), self.heads_of("streaming")
        if config.encoder_weight and METHODS[config.method].on_log_probs:
            for branch, heads in (("full", full), ("streaming", streaming)):
                if not any(head.speaks_by_frame for head in heads.values()):
                    raise ValueError(
                        f"distillation method {config.method!r} compares what is said of each "
                        f"frame, but no head of the {branch} branch says that: it has "
                        f"{', '.join(heads)}, and would need ctc"
                    )
        on_log_probs = METHODS[config.method].on_log_probs
        dims = self.encoders.output_dims
        widths = {}
        for name in full.keys() & streaming.keys():
            if config.head_weights.get(name) and on_log_probs and not full[name].state_log_probs:
                raise ValueError(
                    f"distillation method {config.method!r} compares what is said, but the "
                    f"{name} heads show hidden states: it needs model.heads.transducer.states = "
                    f"'outcomes', or head_weights.{name} = 0"
                )
            pair = full[name].state_dim, streaming[name].state_dim
            if pair[0] is not None and pair[1] is not None:
                widths[name] = Widths(full=pair[0], streaming=pair[1])
        ordered = {name: widths[name] for name in HEADS if name in widths}
        encoder = Widths(full=dims["full"], streaming=dims["streaming"])
        return build_distiller(config, BranchDims(encoder=encoder, heads=ordered))


def _owners(config: ModelConfig, head: str, dims: Mapping[Branch, int]) -> dict[str, int]:
    """Owner of each set of weights of a head (a branch, or "shared") -> channels that it reads."""
    wanted = {b: dims[b] for b in BRANCHES if config.has(b) and head in config.heads.of(b)}
    owners = {branch: config.heads.owner(head, branch) for branch in wanted}
    if "shared" in owners.values() and len(set(wanted.values())) > 1:
        raise ValueError(
            "model.heads.shared needs encoder outputs of one width (that of the widest "
            f"stack), but streaming has {wanted['streaming']} channels and full {wanted['full']}: "
            "give the widest stack of each the same layer.dim, or keep separate heads"
        )
    return {owners[branch]: dim for branch, dim in wanted.items()}
