"""The modules of a stateless transducer: prediction network, joiner, and the cheap joiner's halves.

The prediction network sees the last two tokens only, so that any text is a row of small tables and
search needs no state but those tokens. Before a text stands blank, for every position that has no
token, in training and in every search alike; the embedding of blank is trained like any other.
Left out of what is published: balancers around the prediction network's convolution.

N utterances, T frames, U tokens, W = U + 1 texts begun, V vocabulary (blank 0), C channels of the
encoder, P of the prediction network, D of the joiner, K tokens of context.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.pairing import valid_frames
from dualasr_lib.model.transducer.additive import Affine, Text
from dualasr_lib.model.transducer.loss import AS_IT_COMES, Early, View
from dualasr_lib.model.transducer.settings import TransducerConfig
from dualasr_lib.model.zipformer.attention import scaled_linear

__all__ = ["BLANK", "Joiner", "PredictionNetwork", "Transducer"]

BLANK = 0
_GROUP = 4  # channels that a token's embedding mixes
_SMALL = 0.25  # published initial scale of what is added up in the two joiners


class PredictionNetwork(nn.Module):
    """The last K tokens -> P channels: embedding, grouped convolution, ReLU."""

    def __init__(self, vocab_size: int, dim: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocab_size, dim)
        self.conv = nn.Conv1d(dim, dim, context, groups=dim // _GROUP, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, U), ids below 0 are taken for blank -> states (N, W, P): number u has read
        tokens[:, :u].
        """
        before = F.pad(tokens.clamp(min=BLANK), (self.context, 0), value=BLANK)
        # (N, K + U, P) -> (N, P, K + U) -> (N, W, P)
        return self.conv(self.embedding(before).transpose(1, 2)).relu().transpose(1, 2)

    def of_contexts(self, contexts: Tensor) -> Tensor:
        """Contexts (M, K), the latest token last -> states (M, P)."""
        embedded = self.embedding(contexts.clamp(min=BLANK)).transpose(1, 2)
        return self.conv(embedded)[:, :, 0].relu()

    def fold(self) -> Tensor:
        """(K, V, P): `of_contexts(y)` is the ReLU of the sum over k of `fold()[k, y[:, k]]`.

        Embedding and convolution are linear, so that each position's part of them is a table.
        """
        vocab_size, dim = self.embedding.weight.shape
        inputs = self.embedding.weight.view(vocab_size, dim // _GROUP, _GROUP)
        # (P, group, K) -> (P / group, outputs of it, inputs of it, K)
        kernel = self.conv.weight.view(dim // _GROUP, _GROUP, _GROUP, self.context)
        return torch.einsum("vgi,goik->kvgo", inputs, kernel).flatten(2)


class Joiner(nn.Module):
    """Frame and text -> logits of the next outcome."""

    def __init__(self, encoder_dim: int, vocab_size: int, config: TransducerConfig) -> None:
        super().__init__()
        self.encoder = scaled_linear(encoder_dim, config.joiner_dim, _SMALL)
        self.prediction = scaled_linear(config.dim, config.joiner_dim, _SMALL)
        self.output = nn.Linear(config.joiner_dim, vocab_size)

    def forward(self, encoder: Tensor, prediction: Tensor) -> Tensor:
        """Projected frames and texts (..., D), broadcast -> logits (..., V)."""
        return self.output(torch.tanh(encoder + prediction))


class Transducer(nn.Module):
    """All that one branch's transducer is made of; `view` is what its loss is computed from."""

    def __init__(self, encoder_dim: int, vocab_size: int, config: TransducerConfig) -> None:
        super().__init__()
        self.config = config
        self.prediction = PredictionNetwork(vocab_size, config.dim, config.context)
        self.joiner = Joiner(encoder_dim, vocab_size, config)
        self.simple_acoustic = scaled_linear(encoder_dim, vocab_size, _SMALL)
        """Of the cheap joiner, which only training needs."""
        self.simple_language = scaled_linear(config.dim, vocab_size, _SMALL)

    def view(self, h: Tensor, text: Text, early: Early = AS_IT_COMES) -> View:
        """What is heard (N, T, C) and what is to be said; padding, NaN too, has no effect."""
        valid = valid_frames(text.lens, h.shape[1])
        states = self.states(text)
        clean = h.masked_fill(~valid[:, :, None], 0.0)
        simple = self.simple_acoustic, self.simple_language
        return View(
            acoustic=Affine(clean, simple[0].weight, simple[0].bias),
            language=Affine(states, simple[1].weight, simple[1].bias),
            encoder=self.joiner.encoder(clean),
            prediction=self.joiner.prediction(states),
            output=(self.joiner.output.weight, self.joiner.output.bias),
            early=early,
        )

    def states(self, text: Text) -> Tensor:
        """States of the prediction network (N, W, P); of blanks behind a text's end."""
        said = valid_frames(text.token_lens, text.tokens.shape[1])
        return self.prediction(text.tokens.masked_fill(~said, BLANK))
