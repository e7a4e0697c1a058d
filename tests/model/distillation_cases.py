"""Random branches, and the losses of distillation item by item in float64 (for tests)."""

from typing import Any

import torch
from torch import Tensor

from dualasr_lib.model.distillation import (
    BranchDims,
    BranchView,
    DistillationConfig,
    Distiller,
    Widths,
    build_distiller,
)
from dualasr_lib.model.pairing import Sequences

FULL_LENS = torch.tensor([7, 3, 1, 5])
STREAMING_LENS = torch.tensor([6, 3, 2, 5])
NUM_STATES = torch.tensor([2, 4, 1, 3])
DIMS = BranchDims(Widths(full=6, streaming=4), Widths(full=5, streaming=3))
VOCAB = 5


def random_view(seed: int, lens: Tensor, widths: tuple[int, int], scale: float = 2.0) -> BranchView:
    """One branch in float64, with gradients asked for and noise behind every end."""
    generator = torch.Generator().manual_seed(seed)

    def states(frames: int, width: int, *, normalised: bool) -> Tensor:
        shape = (len(lens), frames, width)
        x = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        return (x.log_softmax(dim=2) if normalised else x).requires_grad_()

    frames, states_of_text = int(lens.max()) + 1, int(NUM_STATES.max()) + 1
    return BranchView(
        hidden=states(frames, widths[0], normalised=False),
        lens=lens,
        ctc_log_probs=states(frames, VOCAB, normalised=True),
        decoder_hidden=states(states_of_text, widths[1], normalised=False),
        decoder_log_probs=states(states_of_text, VOCAB, normalised=True),
        num_states=NUM_STATES,
    )


def random_views(seed: int = 0) -> tuple[BranchView, BranchView]:
    """(full, streaming) of unequal widths and lengths."""
    full = random_view(2 * seed, FULL_LENS, (DIMS.encoder.full, DIMS.decoder.full))
    widths = (DIMS.encoder.streaming, DIMS.decoder.streaming)
    return full, random_view(2 * seed + 1, STREAMING_LENS, widths)


def make(dims: BranchDims = DIMS, **settings: Any) -> Distiller:
    """A distiller in float64; both weights 1 unless told."""
    weights = {"encoder_weight": 1.0, "decoder_weight": 1.0}
    config = DistillationConfig(**(weights | settings))
    return build_distiller(config, dims).double()


def changed(view: BranchView, **fields: Tensor) -> BranchView:
    """A copy with leaves of its own, in which `fields` are replaced."""
    values = view._replace(**fields)._asdict()
    copies = {name: value.detach().clone() for name, value in values.items()}
    return BranchView(
        **{n: x.requires_grad_() if x.is_floating_point() else x for n, x in copies.items()}
    )


def damaged(view: BranchView, value: float) -> BranchView:
    """A copy with `value` behind every end."""
    frames = torch.arange(view.hidden.shape[1])[None, :, None] >= view.lens[:, None, None]
    states = torch.arange(view.decoder_hidden.shape[1])[None, :, None]
    states = states >= view.num_states[:, None, None]
    return changed(
        view,
        hidden=view.hidden.detach().masked_fill(frames, value),
        ctc_log_probs=view.ctc_log_probs.detach().masked_fill(frames, value),
        decoder_hidden=view.decoder_hidden.detach().masked_fill(states, value),
        decoder_log_probs=view.decoder_log_probs.detach().masked_fill(states, value),
    )


def tensors(view: BranchView) -> list[Tensor]:
    """The four that can have gradients."""
    return [view.hidden, view.ctc_log_probs, view.decoder_hidden, view.decoder_log_probs]


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
        slow_kl(teacher.log_probs[n, t], student.log_probs[n, u], temperature)
        for n, paired in enumerate(pairs(teacher, student, lag))
        for t, u in paired
    ]
    return torch.stack(losses).mean()
