"""k2's beam search of a transducer: frame by frame through a graph of tokens, one token per frame.

`k2.RnntDecodingStreams` keeps, per utterance, states of (last tokens, state of the graph), joins
paths that agree in both, and gives a lattice: labels are tokens, 0 for blanks, one arc per frame.
Without a graph any token may follow any other. What k2 1.23.4 does not say of itself:

- The last frame it is given becomes the final arc and a token said there is lost, so every
  utterance gets a closing frame on which nothing but the blank is likely; with a graph, whose
  final scores would be lost, too, another one before it, on which only the end is.
- Labels of V or more read foreign memory, and arcs of label 0 are no epsilons but take a frame as
  a blank does: graphs with either are refused.
- States are pruned by score and graph cost together, against a best score without that cost: a
  token of a cost beyond `beam` is lost, so the beam is wider with a graph.

N utterances, S encoder frames, D channels of the joiner, K tokens of context, V vocabulary
(blank 0), M contexts of all utterances at a frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.options import FastBeamConfig
from dualasr_lib.lattice.path import Path

__all__ = ["Join", "check_graph", "fast_beam", "fast_beam_lattices"]

Join = Callable[[Tensor, Tensor], Tensor]
"""Frames (M, D), contexts (M, K) int64 -> natural log-probabilities (M, V) float32."""

_NEVER = -1e4  # of all but the blank on the closing frame
_WIDEST = 1000.0  # nats


def check_graph(graph: Any, vocab_size: int) -> None:
    """ValueError unless a k2.Fsa is an acceptor of tokens without epsilons."""
    labels = graph.labels
    if len(graph.shape) != 2:
        raise ValueError(f"a graph must be one acceptor with 2 axes, but has {len(graph.shape)}")
    if int(labels.max()) >= vocab_size or int(labels.min()) < -1:
        raise ValueError(
            f"labels of a graph must be tokens below {vocab_size}, but reach from "
            f"{int(labels.min())} to {int(labels.max())}: it was made for another vocabulary"
        )
    if epsilons := int((labels == 0).sum()):
        raise ValueError(
            f"a graph must have no epsilon arcs, but has {epsilons} of label 0: remove them "
            "(k2.remove_epsilon)"
        )


def fast_beam_lattices(
    frames: Sequence[Tensor], join: Join, vocab_size: int, context: int,
    config: FastBeamConfig, graph: Any = None,
) -> Any:  # fmt: skip
    """A lattice of each utterance (S_i, D), together a k2.Fsa with 3 axes.

    Args:
        context: K.
        graph: a k2.Fsa that `check_graph` accepts; None: any token may follow any other.
    """
    beam = config.beam or (4.0 if graph is None else 12.0)
    if graph is None:
        graph, ends = k2.trivial_graph(vocab_size - 1), False
    else:
        check_graph(graph, vocab_size)
        graph, ends = _with_end_token(graph, vocab_size), True
    settings = k2.RnntDecodingConfig(
        vocab_size + ends, context, beam, config.max_states, config.max_contexts
    )
    search = k2.RnntDecodingStreams([k2.RnntDecodingStream(graph) for _ in frames], settings)
    padded = torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    lens = torch.tensor([len(rows) for rows in frames])
    for frame in range(padded.shape[1] + 1 + ends):
        shape, contexts = search.get_contexts()
        owner = shape.row_ids(1).long()
        heard = lens[owner] > frame
        log_probs = torch.full((len(owner), vocab_size + ends), _NEVER)
        if bool(heard.any()):
            rows = padded[owner[heard], frame]
            log_probs[heard, :vocab_size] = join(rows, contexts[heard].long())
        is_end = (lens[owner] == frame) & ends
        log_probs[is_end, -1] = 0.0
        log_probs[~heard & ~is_end, 0] = 0.0
        search.advance(log_probs)
    search.terminate_and_flush_to_streams()
    lattice = search.format_output((lens + 1 + ends).tolist())
    if ends:
        lattice.labels[lattice.labels == vocab_size] = 0
    return lattice


def _with_end_token(graph: Any, vocab_size: int) -> Any:
    """The graph with the end of a text as a token V of its own, because k2 drops the scores of
    final arcs.
    """
    arcs = graph.arcs.values().clone()
    final = int(arcs[:, 1].max())
    arcs[arcs[:, 2] == -1, 2] = vocab_size
    last = torch.tensor([[final, final + 1, -1, 0]], dtype=torch.int32)
    return k2.arc_sort(k2.Fsa(torch.cat([arcs, last])))


def fast_beam(
    frames: Sequence[Tensor], join: Join, vocab_size: int, context: int,
    config: FastBeamConfig, graph: Any = None,
) -> list[Path]:  # fmt: skip
    """The best path of each utterance; see `fast_beam_lattices`. Where the costs of a graph put all
    paths beyond the beam, the search is repeated with twice the beam.

    Raises:
        ValueError: a graph that is refused, or through which there is no path.
    """
    beam = config.beam or (4.0 if graph is None else 12.0)
    found = _best(fast_beam_lattices(frames, join, vocab_size, context, config, graph))
    lost = [index for index, path in enumerate(found) if path is None]
    again: list[Path] = []
    if lost:
        if beam > _WIDEST:
            raise ValueError("an utterance has no path through the graph of the language model")
        wider = replace(config, beam=2 * beam)
        again = fast_beam([frames[i] for i in lost], join, vocab_size, context, wider, graph)
    more = iter(again)
    return [next(more) if path is None else path for path in found]


def _best(lattice: Any) -> list[Path | None]:
    """The best path of each lattice; None where there is none."""
    best = k2.shortest_path(lattice, use_double_scores=True)
    scores = best.get_tot_scores(use_double_scores=True, log_semiring=False).tolist()
    return [_read(best[index], score) for index, score in enumerate(scores)]


def _read(fsa: Any, score: float) -> Path | None:
    if not fsa.num_arcs:
        return None
    emitted = [(frame, label) for frame, label in enumerate(fsa.labels.tolist()) if label > 0]
    return Path(tuple(label for _, label in emitted), tuple(frame for frame, _ in emitted), score)
