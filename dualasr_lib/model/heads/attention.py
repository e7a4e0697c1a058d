"""The attention head: a Transformer decoder (`attention_decoder`) as a head of a branch.

Letters: N batch, S encoder frames (25 Hz), U tokens, P texts of all utterances.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.attention_decoder import (
    AttentionDecoder,
    DecoderConfig,
    DecoderOutput,
    smoothed_nll,
)
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.contract import Head, HeadSizes, NbestTexts, Targets
from dualasr_lib.model.pairing import Sequences

__all__ = ["AttentionHead", "AttentionReading"]


class AttentionReading(NamedTuple):
    """What the decoder says of the right texts."""

    output: DecoderOutput
    num_states: Tensor
    """(N,) valid positions, U_n + 1."""


class AttentionHead(Head):
    """Smoothed cross-entropy of the next token; distillation sees the states before the output
    layer.
    """

    name: ClassVar[str] = "attention"

    def __init__(self, options: DecoderConfig, sizes: HeadSizes) -> None:
        super().__init__(options, sizes)
        self.decoder = AttentionDecoder(options, sizes.vocab_size, sizes.dim, sizes.sos_eos)
        self.state_dim, self.state_log_probs = options.dim, True

    def forward(self, states: Encoded, targets: Targets) -> AttentionReading:
        output: DecoderOutput = self.decoder(states.h, states.lens, targets.tokens, targets.lens)
        return AttentionReading(output, targets.lens + 1)

    def loss(
        self, reading: AttentionReading, criterion: Callable[..., Tensor] | None = None
    ) -> Tensor:
        del criterion  # there is one way to compute it
        smoothing = self.decoder.config.label_smoothing
        return smoothed_nll(reading.output.log_probs, reading.output.targets, smoothing).sum()

    def view(self, reading: AttentionReading) -> Sequences:
        output = reading.output
        return Sequences(output.hidden, output.log_probs, reading.num_states)

    def texts(self, states: Encoded) -> list[tuple[int, ...]]:
        """The most probable token at each step; at most one token per encoder frame."""
        sos_eos = self.decoder.sos_eos
        state = self.decoder.init_state(states.h, states.lens)
        tokens = torch.full_like(states.lens, sos_eos)
        said: list[Tensor] = []
        going = states.lens > 0
        while len(said) < states.h.shape[1] and bool(going.any()):
            log_probs, state = self.decoder.step(tokens, state)
            tokens = log_probs[:, 1:].argmax(dim=1) + 1  # never the blank, which no text has
            going = going & (tokens != sos_eos) & (states.lens > len(said))
            said.append(tokens.where(going, torch.zeros_like(tokens)))
        rows = torch.stack(said, dim=1).tolist() if said else [[]] * len(states.lens)
        return [tuple(token for token in row if token) for row in rows]

    def score(self, states: Encoded, texts: NbestTexts) -> Tensor:
        """The end included."""
        return self.decoder.score_nbest(states.h, states.lens, *texts)
