"""The graphs of a set for our own runtime: the streaming branch chunk by chunk, the full branch on
a sentence's hidden states, and what the attention decoder thinks of given texts.

N streams, T feature frames, S encoder frames, C channels, P texts, U tokens, V vocabulary.
"""

import torch
from torch import Tensor, nn

from dualasr_lib.core.rates import FRONT_END_STRIDE, encoder_frames
from dualasr_lib.core.tree import leaves, unflatten
from dualasr_lib.export.encoders import sizes_that_matter
from dualasr_lib.export.graph import Signature, traced, with_fixed_sizes
from dualasr_lib.export.probe import Graph, Noise, Probe
from dualasr_lib.export.step import EncoderStep, relaid
from dualasr_lib.model.encoder import Encoded, EncoderState
from dualasr_lib.model.heads.attention import AttentionHead
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["StreamingReference", "attention_scores", "full_pass", "streaming_pass", "widths"]

_BATCHES = (1, 2, 3)
_PROBED = (60, 250, 500, 900, 1300)
"""Feature frames of the sentences whose hidden states the second pass is compared on."""
_LISTS = ((1, 4, 1), (3, 20, 7), (8, 61, 13))
"""Texts, encoder frames and tokens of the lists that scores are compared on."""
_ABOUT = {"model_author": "dualasr"}


def widths(trained: TrainedModel, branch: Branch, hidden: bool) -> dict[str, int]:
    """Of what stands side by side in a graph's first output, by head; the hidden state last."""
    channels = trained.model.encoders.output_dims[branch]
    with torch.no_grad():
        said = _Says(trained, branch, hidden).parts(torch.zeros(1, 1, channels))
    return {name: each.shape[-1] for name, each in said.items()}


class _Says(nn.Module):
    """Encoder frames (N, S, C) -> what heads say of each, and itself if wanted, side by side."""

    def __init__(self, trained: TrainedModel, branch: Branch, hidden: bool) -> None:
        super().__init__()
        self.model, self._branch, self._hidden = trained.model, branch, hidden

    def parts(self, h: Tensor) -> dict[str, Tensor]:
        """By name; the hidden state last."""
        own = {"hidden": h} if self._hidden else {}
        return {**self.model.frames(h, self._branch), **own}

    def forward(self, h: Tensor) -> Tensor:
        return torch.cat(list(self.parts(h).values()), dim=-1)


class StreamingReference(nn.Module):
    """A chunk x (N, T, F) and the states' tensors, batch axis first, without empty ones, as the
    encoder itself hears it.
    """

    def __init__(self, trained: TrainedModel, chunk: ChunkSpec) -> None:
        super().__init__()
        self.encoder, self._chunk = trained.model.streaming, chunk
        self.reads = _Says(trained, "streaming", hidden=True)
        self._like = self.encoder.init_state(1, chunk, torch.device("cpu"))
        with torch.no_grad():
            self._prepared = self.encoder.prepare(chunk, torch.device("cpu"))

    def initial(self, batch: int) -> list[Tensor]:
        """Of streams that have not begun: zeros."""
        found = [leaf for leaf in relaid(list(leaves(self._like))) if leaf.numel()]
        assert not any(leaf.any() for leaf in found), "the runtime begins with zeros"
        return [torch.zeros(batch, *leaf.shape[1:], dtype=leaf.dtype) for leaf in found]

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        rest, names = iter(states), [name for name, _ in leaves(self._like)]
        given = [next(rest) if leaf.numel() else leaf for _, leaf in leaves(self._like)]
        state: EncoderState = unflatten(self._like, relaid(list(zip(names, given))))
        h, state = self.encoder.advance(x, state, self._prepared)
        after = relaid(list(leaves(state)))
        kept = [leaf for (_, like), leaf in zip(leaves(self._like), after) if like.numel()]
        return (self.reads(h), *kept)


class _Step(nn.Module):
    """The same in fewer operations, to be traced."""

    def __init__(self, trained: TrainedModel, chunk: ChunkSpec) -> None:
        super().__init__()
        self.step = EncoderStep(trained.model.streaming, chunk)
        self.reads = _Says(trained, "streaming", hidden=True)

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        h, after = self.step(x, *states)
        return (self.reads(h), *after)


class _Second(nn.Module):
    """Hidden states (N, S, C) of lens (N,) -> what the full branch's heads say of them."""

    def __init__(self, trained: TrainedModel, hidden: bool) -> None:
        super().__init__()
        self.encoders = trained.model.encoders
        self.reads = _Says(trained, "full", hidden)

    def forward(self, hidden: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoders.second_pass(Encoded(hidden, lens))
        return self.reads(encoded.h), encoded.lens * 1


class _Scores(nn.Module):
    """Hidden states (1, S, C) of the full branch, texts (P, U) of (P,) tokens -> (P,) natural
    log-probabilities, the end included.
    """

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        head = trained.model.head("attention", "full")
        assert isinstance(head, AttentionHead)
        self.decoder = head.decoder

    def forward(self, hidden: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
        lens = torch.full_like(token_lens[:1], hidden.shape[1])
        output = self.decoder(hidden, lens, tokens, token_lens)
        targets = output.targets[:, :, None]
        scores = output.log_probs.gather(2, targets.clamp(min=0)).masked_fill(targets < 0, 0.0)
        return scores.sum(dim=(1, 2))


def streaming_pass(trained: TrainedModel, chunk: ChunkSpec) -> Graph:
    """A chunk and the states of streams -> what heads say, hidden states, next states.

    Raises:
        ValueError: no streaming branch, or a chunk that does not suit the model.
    """
    module, step = StreamingReference(trained, chunk).eval(), _Step(trained, chunk).eval()
    names = [f"state_{number}" for number, _ in enumerate(module.initial(1))]
    outputs = ("said", *(f"new_{name}" for name in names))
    free = {name: {0: "N"} for name in ("x", *names, *outputs)}
    signature = Signature(("x", *names), outputs, free)
    window = FRONT_END_STRIDE * chunk.frames + module.encoder.lookahead
    bins = trained.config.features.num_mel_bins
    feeds = []
    for batch in _BATCHES:
        tensors = (torch.zeros(batch, window, bins), *module.initial(batch))
        feeds.append({name: each.numpy() for name, each in zip(signature.inputs, tensors)})
    example = (torch.zeros(2, window, bins), *module.initial(2))
    model = traced(step, example, signature, _ABOUT)
    noise, chunks = Noise(), 2 + (chunk.left or 0) // chunk.frames  # until all caches are full
    probes = [
        Probe(
            tuple((noise.features(batch, window),) for _ in range(chunks)),
            tuple(module.initial(batch)),
        )
        for batch in _BATCHES
    ]
    return Graph(with_fixed_sizes(model, feeds), module, tuple(probes))


def full_pass(trained: TrainedModel, chunk: ChunkSpec, hidden: bool) -> Graph:
    """Hidden states of sentences and their numbers -> what the full branch's heads say.

    Args:
        hidden: whether its own hidden states come with it.
    """
    module = _Second(trained, hidden).eval()
    axes = {"hidden": {0: "N", 1: "S"}, "lens": {0: "N"}, "said": {0: "N", 1: "S"}}
    signature = Signature(("hidden", "lens"), ("said", "said_len"), {**axes, "said_len": {0: "N"}})
    sizes = dict.fromkeys((n, encoder_frames(t)) for n, t in sizes_that_matter(trained, chunk))
    channels = trained.model.encoders.output_dims["streaming"]

    def example(batch: int, frames: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, frames, channels), torch.full((batch,), frames)

    feeds = [
        dict(zip(signature.inputs, (each.numpy() for each in example(*size))))
        for size in sizes
        if size[1]
    ]
    longest = max(frames for _, frames in sizes)
    model = traced(module, example(2, longest), signature, _ABOUT)
    noise, probes = Noise(), []
    for number, frames in enumerate(_PROBED):
        x, lens = noise.utterances(1 + number % 3, frames)
        lens = lens.clamp(min=8)
        with torch.no_grad():
            heard = trained.model.encode(x, lens, chunk, ("streaming",))["streaming"]
        probes.append(Probe(((heard.h, heard.lens),)))
    return Graph(with_fixed_sizes(model, feeds), module, tuple(probes))


def attention_scores(trained: TrainedModel) -> Graph:
    """Hidden states of a sentence and texts -> the attention decoder's scores of these.

    Raises:
        ValueError: the full branch has no such decoder.
    """
    module = _Scores(trained).eval()
    channels = trained.model.encoders.output_dims["full"]
    generator = torch.Generator().manual_seed(1)
    probes = []
    for texts, frames, most in _LISTS:
        hidden = torch.randn(1, frames, channels, generator=generator)
        tokens = torch.randint(1, trained.tokenizer.vocab_size, (texts, most), generator=generator)
        lens = torch.randint(0, most + 1, (texts,), generator=generator)
        probes.append((hidden, tokens, lens))
    axes = {"hidden": {1: "S"}, "tokens": {0: "P", 1: "U"}, "token_lens": {0: "P"}}
    signature = Signature(tuple(axes), ("scores",), {**axes, "scores": {0: "P"}})
    model = traced(module, probes[1], signature, _ABOUT)
    return Graph(model, module, tuple(Probe((probe,)) for probe in probes))
