"""The joint model: two branches, each with a CTC head and an attention decoder, trained together.

    L = w_s [a L_ctc(s) + (1 - a) L_att(s)] + w_f [a L_ctc(f) + (1 - a) L_att(f)]
        + b_enc L_spkd(h_f -> h_s) + b_dec L_spkd(d_f -> d_s)              (after arXiv 2405.13514)

CTC and attention losses are sums over the batch divided by its number of tokens (the end counts as
one), so that `a` weighs like against like.

Letters: N batch, T feature frames, S encoder frames, U tokens, V vocabulary, C channels.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.model.attention_decoder import (
    AttentionDecoder,
    DecoderConfig,
    DecoderOutput,
    smoothed_nll,
)
from dualasr_lib.model.ctc import CtcHead, CtcLoss, min_ctc_frames
from dualasr_lib.model.distillation import DistillationConfig, similarity_loss
from dualasr_lib.model.encoder import Encoded, FullEncoder, StreamingEncoder
from dualasr_lib.model.scheduled import Scheduled, set_step
from dualasr_lib.model.streaming import ChunkSpec
from dualasr_lib.model.subsampling import SubsamplingConfig
from dualasr_lib.model.zipformer import StackConfig

__all__ = ["BRANCHES", "Branch", "JointModel", "LossConfig", "Losses", "ModelConfig", "Targets"]

Branch = Literal["streaming", "full"]
BRANCHES: tuple[Branch, ...] = ("streaming", "full")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms of the training loss."""

    streaming: float = 1.0
    """w_s, weight of the streaming branch."""
    full: float = 1.0
    """w_f, weight of the full-context branch."""
    ctc: float = 0.3
    """a, share of CTC in each branch; the rest is the attention decoder's."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """The sp-KD terms."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.ctc <= 1.0:
            raise ValueError(f"the CTC share must lie in [0, 1], but is {self.ctc}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of everything."""

    num_features: int = 80
    """Mel bins of a feature frame."""
    subsampling: SubsamplingConfig = field(default_factory=SubsamplingConfig)
    """Convolutional front end."""
    streaming: tuple[StackConfig, ...] = (StackConfig(),)
    """Chunk-masked stacks at 50 Hz."""
    full: tuple[StackConfig, ...] = (StackConfig(),)
    """Full-context stacks at 25 Hz, on top of the streaming ones."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Attention decoder of each branch."""
    ctc_dropout: float = 0.1
    """Dropout before each CTC head."""


class Targets(NamedTuple):
    """What should have been recognised."""

    tokens: Tensor
    """(N, U) int64, padded with 0."""
    lens: Tensor
    """(N,) int64."""


class Losses(NamedTuple):
    """The terms of the loss, before weighting; scalars."""

    ctc_streaming: Tensor
    """Sum over the batch of CTC negative log-likelihoods of the streaming branch, nats."""
    attention_streaming: Tensor
    """Sum over the batch of the attention decoder's smoothed negative log-likelihoods."""
    ctc_full: Tensor
    """The same for the full-context branch."""
    attention_full: Tensor
    """The same for the full-context branch."""
    distillation_encoder: Tensor
    """sp-KD between h_f and h_s."""
    distillation_decoder: Tensor
    """sp-KD between the decoders' hidden states."""
    num_tokens: Tensor
    """Tokens of the batch, each text's end included."""
    num_impossible: Tensor
    """Utterances without any CTC alignment; their CTC terms are left out."""

    def weighted(self, config: LossConfig) -> Tensor:
        """The loss to differentiate."""
        distillation = config.distillation
        a = config.ctc
        streaming = a * self.ctc_streaming + (1.0 - a) * self.attention_streaming
        full = a * self.ctc_full + (1.0 - a) * self.attention_full
        loss = (config.streaming * streaming + config.full * full) / self.num_tokens
        loss = loss + distillation.encoder_weight * self.distillation_encoder
        return loss + distillation.decoder_weight * self.distillation_decoder


class _Distilled(NamedTuple):
    encoder: Tensor
    decoder: Tensor


class JointModel(nn.Module):
    """Features in, texts of both branches out."""

    def __init__(
        self, config: ModelConfig, distillation: DistillationConfig, vocab_size: int, sos_eos: int
    ) -> None:
        super().__init__()
        self.config, self.distillation = config, distillation
        self.distilling = Scheduled((distillation.warm_up - 1, 0.0), (distillation.warm_up, 1.0))
        self.streaming = StreamingEncoder(config.subsampling, config.streaming, config.num_features)
        self.full = FullEncoder(config.full)
        dims = {"streaming": self.streaming.output_dim, "full": self.full.output_dim}
        self.ctc = nn.ModuleDict(
            {name: CtcHead(dim, vocab_size, config.ctc_dropout) for name, dim in dims.items()}
        )
        self.decoders = nn.ModuleDict(
            {
                name: AttentionDecoder(config.decoder, vocab_size, dim, sos_eos)
                for name, dim in dims.items()
            }
        )

    def encode(self, features: Tensor, lens: Tensor, chunk: ChunkSpec) -> dict[Branch, Encoded]:
        """Hidden states of both branches from features (N, T, 80) of lens (N,) frames."""
        streaming = self.streaming(features, lens, chunk)
        return {"streaming": streaming, "full": self.full(streaming)}

    def log_probs(self, h: Tensor, branch: Branch) -> Tensor:
        """CTC log-probabilities (N, S, V) of hidden states (N, S, C)."""
        result: Tensor = self.ctc[branch](h)
        return result

    def forward(
        self, features: Tensor, lens: Tensor, targets: Targets, chunk: ChunkSpec, ctc_loss: CtcLoss
    ) -> Losses:
        """All terms of the training loss for one batch."""
        encoded = self.encode(features, lens, chunk)
        needed = min_ctc_frames(targets.tokens, targets.lens)
        possible = needed <= encoded["streaming"].lens
        decoded = {branch: self._decode(encoded[branch], targets, branch) for branch in BRANCHES}
        teacher, student = decoded["full"], decoded["streaming"]
        distilled = self._distil(encoded, teacher, student, targets.lens + 1)
        return Losses(
            ctc_streaming=self._ctc(encoded["streaming"], targets, "streaming", possible, ctc_loss),
            attention_streaming=self._attention(student),
            ctc_full=self._ctc(encoded["full"], targets, "full", possible, ctc_loss),
            attention_full=self._attention(teacher),
            distillation_encoder=distilled.encoder,
            distillation_decoder=distilled.decoder,
            num_tokens=(targets.lens + 1).sum(),
            num_impossible=(~possible).sum(),
        )

    def set_step(self, step: int) -> None:
        """Tells all schedules inside the model how many optimiser steps have been done."""
        set_step(self, step)

    def _distil(
        self,
        encoded: dict[Branch, Encoded],
        teacher: DecoderOutput,
        student: DecoderOutput,
        num_states: Tensor,
    ) -> "_Distilled":
        """sp-KD terms; 0, and not computed, where their weight is 0 or their time has not come."""
        config, zero = self.distillation, teacher.hidden.new_zeros((), dtype=torch.float32)
        begun = self.distilling.now() > 0
        full, streaming = encoded["full"], encoded["streaming"]
        return _Distilled(
            similarity_loss(full.h, streaming.h, full.lens, config)
            if begun and config.encoder_weight
            else zero,
            similarity_loss(teacher.hidden, student.hidden, num_states, config)
            if begun and config.decoder_weight
            else zero,
        )

    def _decode(self, encoded: Encoded, targets: Targets, branch: Branch) -> DecoderOutput:
        result: DecoderOutput = self.decoders[branch](
            encoded.h, encoded.lens, targets.tokens, targets.lens
        )
        return result

    def _ctc(
        self, encoded: Encoded, targets: Targets, branch: Branch, possible: Tensor, loss: CtcLoss
    ) -> Tensor:
        nll = loss(self.log_probs(encoded.h, branch), encoded.lens, targets.tokens, targets.lens)
        return torch.where(possible, nll, torch.zeros_like(nll)).sum()

    def _attention(self, output: DecoderOutput) -> Tensor:
        smoothing = self.config.decoder.label_smoothing
        return smoothed_nll(output.log_probs, output.targets, smoothing).sum()
