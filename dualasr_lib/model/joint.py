"""The joint model: two branches, each with a CTC head and an attention decoder, trained together.

    L = w_s [a L_ctc(s) + (1 - a) L_att(s)] + w_f [a L_ctc(f) + (1 - a) L_att(f)]
        + b_enc L_kd(h_f -> h_s) + b_dec L_kd(d_f -> d_s)              (after arXiv 2405.13514)

CTC and attention losses are sums over the batch divided by its number of tokens (the end counts as
one), so that `a` weighs like against like. A model of one branch has the terms of that branch only.

Letters: N batch, T feature frames, S encoder frames, U tokens, V vocabulary, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.model.attention_decoder import AttentionDecoder, DecoderOutput, smoothed_nll
from dualasr_lib.model.ctc import CtcHead, CtcLoss, has_no_alignment
from dualasr_lib.model.distillation import (
    BranchDims,
    BranchView,
    DistillationConfig,
    Distilled,
    Distiller,
    Widths,
    build_distiller,
)
from dualasr_lib.model.encoder import Encoded, StreamingEncoder
from dualasr_lib.model.integration import build_integration
from dualasr_lib.model.model_config import BRANCHES, Branch, ModelConfig
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
    "Targets",
    "total_loss",
]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms of the training loss; those of a branch that is not there are unused."""

    streaming: float = 1.0
    """w_s, weight of the streaming branch."""
    full: float = 1.0
    """w_f, weight of the full-context branch."""
    ctc: float = 0.3
    """a, share of CTC in each branch; the rest is the attention decoder's."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """The distillation terms."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.ctc <= 1.0:
            raise ValueError(f"the CTC share must lie in [0, 1], but is {self.ctc}")


class Targets(NamedTuple):
    """What should have been recognised."""

    tokens: Tensor
    """(N, U) int64, padded with 0."""
    lens: Tensor
    """(N,) int64."""


class NbestTexts(NamedTuple):
    """Texts of several utterances, to be scored."""

    tokens: Tensor
    """(P, U) int64, padded with anything."""
    lens: Tensor
    """(P,) int64, 0 allowed."""
    owner: Tensor
    """(P,) int64 utterance of each."""

    @staticmethod
    def padded(texts: Sequence[Sequence[int]], owners: Sequence[int]) -> "NbestTexts":
        """P texts, at least one, and the utterance of each."""
        width = max(map(len, texts))
        return NbestTexts(
            tokens=torch.tensor([[*text, *[0] * (width - len(text))] for text in texts]).long(),
            lens=torch.tensor([len(text) for text in texts]),
            owner=torch.tensor(owners),
        )


class Losses(NamedTuple):
    """The terms of the loss before weighting, scalars."""

    ctc: Mapping[Branch, Tensor]
    """Sum over the batch of each branch's CTC negative log-likelihoods, nats."""
    attention: Mapping[Branch, Tensor]
    """Sum over the batch of each attention decoder's smoothed negative log-likelihoods, nats."""
    distilled: Distilled | None
    """Between the branches; None where there is only one."""
    num_tokens: Tensor
    """Tokens of the batch, each text's end included."""
    impossible: Tensor
    """(N,) bool, True for utterances without any CTC alignment; they have no CTC loss."""

    def parts(self, config: LossConfig) -> dict[str, Tensor]:
        """What the loss to differentiate is the sum of: a part per branch ("streaming", "full"),
        and "distillation_encoder", "distillation_decoder" where there are two.
        """
        weights: dict[Branch, float] = {"streaming": config.streaming, "full": config.full}
        parts = {}
        for branch, ctc in self.ctc.items():
            term = config.ctc * ctc + (1.0 - config.ctc) * self.attention[branch]
            parts[str(branch)] = weights[branch] * term / self.num_tokens
        if self.distilled is not None:
            distillation = config.distillation
            parts["distillation_encoder"] = distillation.encoder_weight * self.distilled.encoder
            parts["distillation_decoder"] = distillation.decoder_weight * self.distilled.decoder
        return parts

    def weighted(self, config: LossConfig) -> Tensor:
        """The loss to differentiate."""
        return total_loss(self.parts(config))


def total_loss(parts: Mapping[str, Tensor]) -> Tensor:
    """The loss to differentiate, from `Losses.parts`; at least float32."""
    start = next(iter(parts.values())).new_zeros((), dtype=torch.float32)
    return sum(parts.values(), start)


class JointModel(nn.Module):
    """Features in, texts of both branches out."""

    def __init__(
        self, config: ModelConfig, distillation: DistillationConfig, vocab_size: int, sos_eos: int
    ) -> None:
        super().__init__()
        self.config = config
        self.branches: tuple[Branch, ...] = tuple(b for b in BRANCHES if config.has(b))
        self.encoders = build_integration(config)
        widths = _decoder_widths(config, self.encoders.output_dims)
        self.ctc = nn.ModuleDict(
            {name: CtcHead(dim, vocab_size, config.ctc_dropout) for name, dim in widths.items()}
        )
        self.decoders = nn.ModuleDict(
            {
                name: AttentionDecoder(config.decoder, vocab_size, dim, sos_eos)
                for name, dim in widths.items()
            }
        )
        self.distiller = _distiller(config, distillation, self.encoders.output_dims)

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

    def log_probs(self, h: Tensor, branch: Branch) -> Tensor:
        """CTC log-probabilities (N, S, V) of hidden states (N, S, C)."""
        result: Tensor = self.ctc[_decoder_name(self.config, branch)](h)
        return result

    def score_texts(self, encoded: Encoded, branch: Branch, texts: NbestTexts) -> Tensor:
        """(P,) float32 log-probabilities of texts by the attention decoder of `branch`."""
        decoder = self.decoders[_decoder_name(self.config, branch)]
        assert isinstance(decoder, AttentionDecoder)
        return decoder.score_nbest(encoded.h, encoded.lens, *texts)

    def views(
        self, features: Tensor, lens: Tensor, targets: Targets, chunk: ChunkSpec
    ) -> dict[Branch, BranchView]:
        """All that each branch makes of a batch, as distillation sees it."""
        return {b: heard.view for b, heard in self._hear(features, lens, targets, chunk).items()}

    def forward(
        self,
        features: Tensor,
        lens: Tensor,
        targets: Targets,
        chunk: ChunkSpec,
        ctc_loss: CtcLoss,
        streaming_ctc_loss: CtcLoss | None = None,
    ) -> Losses:
        """All terms of the training loss for one batch.

        Args:
            ctc_loss: of both branches, or of the full one only if there is a
                `streaming_ctc_loss`: emitting early is a matter of the streaming branch.
        """
        heard = self._hear(features, lens, targets, chunk)
        encoder_frames = next(iter(heard.values())).view.lens
        impossible = has_no_alignment(encoder_frames, targets.tokens, targets.lens)
        ctc_losses = {"full": ctc_loss, "streaming": streaming_ctc_loss or ctc_loss}
        return Losses(
            ctc={b: _ctc(h.view, targets, impossible, ctc_losses[b]) for b, h in heard.items()},
            attention={b: self._attention(h) for b, h in heard.items()},
            distilled=self._distilled(heard),
            num_tokens=(targets.lens + 1).sum(),
            impossible=impossible,
        )

    def set_step(self, step: int) -> None:
        """Tells all schedules how many optimiser steps have been done; the encoders' aids count
        them as published steps (`ModelConfig.warm_up`).
        """
        set_step(self, step)
        set_step(self.encoders, round(step * PUBLISHED_WARM_UP / self.config.warm_up))

    def _hear(
        self, features: Tensor, lens: Tensor, targets: Targets, chunk: ChunkSpec
    ) -> dict[Branch, "_Heard"]:
        encoded = self.encode(features, lens, chunk)
        return {branch: self._branch(branch, states, targets) for branch, states in encoded.items()}

    def _branch(self, branch: Branch, encoded: Encoded, targets: Targets) -> "_Heard":
        decoder = self.decoders[_decoder_name(self.config, branch)]
        output: DecoderOutput = decoder(encoded.h, encoded.lens, targets.tokens, targets.lens)
        view = BranchView(
            hidden=encoded.h,
            lens=encoded.lens,
            ctc_log_probs=self.log_probs(encoded.h, branch),
            decoder_hidden=output.hidden,
            decoder_log_probs=output.log_probs,
            num_states=targets.lens + 1,
        )
        return _Heard(view, output.targets)

    def _attention(self, heard: "_Heard") -> Tensor:
        smoothing = self.config.decoder.label_smoothing
        return smoothed_nll(heard.view.decoder_log_probs, heard.next_tokens, smoothing).sum()

    def _distilled(self, heard: Mapping[Branch, "_Heard"]) -> Distilled | None:
        if self.distiller is None:
            return None
        losses: Distilled = self.distiller(heard["full"].view, heard["streaming"].view)
        return losses


class _Heard(NamedTuple):
    view: BranchView
    next_tokens: Tensor  # (N, U + 1) what the decoder should say, -1 behind the end


def _ctc(view: BranchView, targets: Targets, impossible: Tensor, loss: CtcLoss) -> Tensor:
    nll = loss(view.ctc_log_probs, view.lens, targets.tokens, targets.lens)
    return nll.masked_fill(impossible, 0.0).sum()


def _decoder_name(config: ModelConfig, branch: Branch) -> str:
    return "shared" if config.decoder_sharing == "shared" else branch


def _decoder_widths(config: ModelConfig, dims: Mapping[Branch, int]) -> dict[str, int]:
    """Name of each CTC head and attention decoder -> channels that it reads."""
    wanted = {branch: dims[branch] for branch in BRANCHES if config.has(branch)}
    if config.decoder_sharing == "shared" and len(set(wanted.values())) > 1:
        raise ValueError(
            'decoder_sharing = "shared" needs encoder outputs of one width (that of the widest '
            f"stack), but streaming has {wanted['streaming']} channels and full {wanted['full']}: "
            "give the widest stack of each the same layer.dim, or keep separate decoders"
        )
    return {_decoder_name(config, branch): dim for branch, dim in wanted.items()}


def _distiller(
    config: ModelConfig, distillation: DistillationConfig, dims: Mapping[Branch, int]
) -> Distiller | None:
    """None where a branch has no other to learn from."""
    if not (config.has("streaming") and config.has("full")):
        return None
    encoder = Widths(full=dims["full"], streaming=dims["streaming"])
    decoder = Widths(full=config.decoder.dim, streaming=config.decoder.dim)
    return build_distiller(distillation, BranchDims(encoder=encoder, decoder=decoder))
