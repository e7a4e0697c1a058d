"""Random branches, and the losses of distillation item by item in float64 (for tests)."""

from typing import Any

import torch
from torch import Tensor

from dualasr_lib.model.distillation import (
    BranchDims,
    BranchView,
    DistillationConfig,
    Distilled,
    Distiller,
    Widths,
    build_distiller,
)
from dualasr_lib.model.pairing import Sequences

FULL_LENS = torch.tensor([7, 3, 1, 5])
STREAMING_LENS = torch.tensor([6, 3, 2, 5])
NUM_STATES = torch.tensor([2, 4, 1, 3])
DIMS = BranchDims(Widths(full=6, streaming=4), {"attention": Widths(full=5, streaming=3)})
VOCAB = 5


def random_view(seed: int, lens: Tensor, widths: tuple[int, int], scale: float = 2.0) -> BranchView:
    """One branch in float64, with gradients asked for and noise behind every end."""
    generator = torch.Generator().manual_seed(seed)

    def states(frames: int, width: int, *, normalised: bool) -> Tensor:
        shape = (len(lens), frames, width)
        x = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        return (x.log_softmax(dim=2) if normalised else x).requires_grad_()

    frames, states_of_text = int(lens.max()) + 1, int(NUM_STATES.max()) + 1
    encoder = Sequences(
        states(frames, widths[0], normalised=False), states(frames, VOCAB, normalised=True), lens
    )
    decoder = Sequences(
        states(states_of_text, widths[1], normalised=False),
        states(states_of_text, VOCAB, normalised=True),
        NUM_STATES,
    )
    return BranchView(encoder, {"attention": decoder})


def decoder_of(view: BranchView) -> Sequences:
    """The states of the only head that has some."""
    return view.heads["attention"]


def random_views(seed: int = 0) -> tuple[BranchView, BranchView]:
    """(full, streaming) of unequal widths and lengths."""
    attention = DIMS.heads["attention"]
    full = random_view(2 * seed, FULL_LENS, (DIMS.encoder.full, attention.full))
    widths = (DIMS.encoder.streaming, attention.streaming)
    return full, random_view(2 * seed + 1, STREAMING_LENS, widths)


def make(dims: BranchDims = DIMS, **settings: Any) -> Distiller:
    """A distiller in float64; both weights 1 unless told."""
    weights: dict[str, Any] = {"encoder_weight": 1.0, "head_weights": {"attention": 1.0}}
    config = DistillationConfig(**(weights | settings))
    return build_distiller(config, dims).double()


def both(losses: Distilled) -> tuple[Tensor, Tensor]:
    """Between the encoders, and between the decoders."""
    return losses.encoder, losses.heads["attention"]


def changed(
    view: BranchView, encoder: Tensor | None = None, decoder: Tensor | None = None
) -> BranchView:
    """A copy with leaves of its own, with other hidden states if they are given."""

    def copy(side: Sequences, hidden: Tensor | None) -> Sequences:
        kept = side.hidden if hidden is None else hidden
        leaves = [x.detach().clone().requires_grad_() for x in (kept, side.said)]
        return Sequences(leaves[0], leaves[1], side.lens.clone())

    return BranchView(copy(view.encoder, encoder), {"attention": copy(decoder_of(view), decoder)})


def damaged(view: BranchView, value: float) -> BranchView:
    """A copy with `value` behind every end."""

    def damage(side: Sequences) -> Sequences:
        behind = torch.arange(side.hidden.shape[1])[None, :, None] >= side.lens[:, None, None]
        hurt = [x.detach().masked_fill(behind, value) for x in (side.hidden, side.said)]
        return Sequences(hurt[0].requires_grad_(), hurt[1].requires_grad_(), side.lens)

    return BranchView(damage(view.encoder), {"attention": damage(decoder_of(view))})


def tensors(view: BranchView) -> list[Tensor]:
    """The four that can have gradients."""
    return [x for side in (view.encoder, decoder_of(view)) for x in (side.hidden, side.said)]


def gradients(loss: Tensor, *views: BranchView) -> list[Tensor]:
    """d loss / d each tensor of the views; zeros where there is no connection."""
    wanted = [x for view in views for x in tensors(view)]
    found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found)]


def pairs(teacher: Sequences, student: Sequences, lag: int) -> list[list[tuple[int, int]]]:
    """Per utterance the frames (t, t + lag) that both exist."""
    return [
        [(t, t + lag) for t in range(int(a)) if 0 <= t + lag < int(b)]
        for a, b in zip(teacher.lens, student.lens)
    ]


def slow_similarity(teacher: list[Tensor], student: list[Tensor], centre: bool) -> Tensor:
    """||G_T - G_S||_F^2 / b^2 of b items, each a vector."""

    def rows(items: list[Tensor]) -> Tensor:
        mean = sum(items) / len(items) if centre else torch.zeros_like(items[0])
        centred = [item - mean for item in items]
        gram = torch.stack([torch.stack([x @ y for y in centred]) for x in centred])
        return torch.stack([row / row.norm() for row in gram])

    return (rows(teacher) - rows(student)).pow(2).sum() / len(teacher) ** 2


def slow_utterances(teacher: Sequences, student: Sequences, centre: bool) -> Tensor:
    """sp-KD between the utterances of a batch."""
    pooled = [
        [side.hidden[n, : int(end)].mean(0) for n, end in enumerate(side.lens)]
        for side in (teacher, student)
    ]
    return slow_similarity(*pooled, centre)


def slow_frames(teacher: Sequences, student: Sequences, centre: bool, lag: int) -> Tensor:
    """sp-KD between the frames of each utterance, averaged over those that have any."""
    losses = []
    for n, paired in enumerate(pairs(teacher, student, lag)):
        if len(paired) == 1:
            losses.append(teacher.hidden.new_zeros(()))
        elif paired:
            items = [teacher.hidden[n, t] for t, _ in paired]
            losses.append(slow_similarity(items, [student.hidden[n, t] for _, t in paired], centre))
    return torch.stack(losses).mean()


def slow_kl(p: Tensor, q: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(P || Q) T^2 of two log-probability vectors, term by term."""
    p, q = ((x / temperature).exp() for x in (p, q))
    p, q = p / p.sum(), q / q.sum()
    return temperature**2 * sum(a * (a.log() - b.log()) for a, b in zip(p, q))


def slow_logit_kl(
    teacher: Sequences, student: Sequences, lag: int, temperature: float = 1.0
) -> Tensor:
    """Mean over all pairs of frames of the batch."""
    losses = [
        slow_kl(teacher.said[n, t], student.said[n, u], temperature)
        for n, paired in enumerate(pairs(teacher, student, lag))
        for t, u in paired
    ]
    return torch.stack(losses).mean()
