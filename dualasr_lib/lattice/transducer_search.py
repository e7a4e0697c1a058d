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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.fallback import Found
from dualasr_lib.lattice.options import FastBeamConfig
from dualasr_lib.lattice.path import Path

__all__ = [
    "Join",
    "Network",
    "best_arcs",
    "check_graph",
    "fast_beam",
    "fast_beam_lattices",
    "fast_beam_lists",
    "fast_beam_paths",
]

Join = Callable[[Tensor, Tensor], Tensor]
"""Frames (M, D), contexts (M, K) int64 -> natural log-probabilities (M, V) float32."""

_WIDEST = 1000.0  # beam, nats
_NEVER = -1e4  # of all but the blank on the closing frame


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


class Network(NamedTuple):
    """What a search goes through: a graph, its closing frames, and who knows the outcomes."""

    join: Join
    graph: Any
    settings: Any
    vocab_size: int
    """V, without the token that ends a text."""
    ends: bool
    """Whether the graph has that token, V."""

    @classmethod
    def of(
        cls, join: Join, vocab_size: int, context: int, config: FastBeamConfig, graph: Any = None
    ) -> "Network":
        """Of a graph that `check_graph` accepts; without one any token may follow any other."""
        beam, ends = _beam(config, graph), graph is not None
        if ends:
            check_graph(graph, vocab_size)
            graph = _with_end_token(graph, vocab_size)
        else:
            graph = k2.trivial_graph(vocab_size - 1)
        settings = k2.RnntDecodingConfig(
            vocab_size + ends, context, beam, config.max_states, config.max_contexts
        )
        return cls(join, graph, settings, vocab_size, ends)

    def opened(self, streams: Sequence[Any]) -> Any:
        """k2.RnntDecodingStreams of k2's streams of any ages."""
        return k2.RnntDecodingStreams(list(streams), self.settings)

    def outcomes(self, frames: Tensor, contexts: Tensor) -> Tensor:
        """Log-probabilities (M, V or V + 1); no text ends on a frame that was heard."""
        log_probs = torch.full((len(frames), self.vocab_size + self.ends), _NEVER)
        if len(frames):
            log_probs[:, : self.vocab_size] = self.join(frames, contexts.long())
        return log_probs

    def closing(self) -> list[Tensor]:
        """Outcomes (V or V + 1,) of the frames behind an utterance: its end, then a blank."""
        size = self.vocab_size + self.ends
        blank = torch.full((size,), _NEVER)
        blank[0] = 0.0
        if not self.ends:
            return [blank]
        end = torch.full((size,), _NEVER)
        end[-1] = 0.0
        return [end, blank]

    def fed(self, streams: Sequence[Any], rows: Tensor) -> Any:
        """Feeds k2's streams their next frames (N, S, D), S >= 1; returns who can format them."""
        search = self.opened(streams)
        for frame in rows.unbind(dim=1):
            shape, contexts = search.get_contexts()
            search.advance(self.outcomes(frame[shape.row_ids(1).long()], contexts))
        search.terminate_and_flush_to_streams()
        return search

    def formatted(self, search: Any, num_frames: list[int], partial: bool = False) -> Any:
        """The lattices, a k2.Fsa with 3 axes; partial: they may end in any state of the graph."""
        lattice = search.format_output(num_frames, allow_partial=partial)
        if self.ends:
            lattice.labels[lattice.labels == self.vocab_size] = 0
        return lattice


def fast_beam_lattices(
    frames: Sequence[Tensor], join: Join, vocab_size: int, context: int,
    config: FastBeamConfig, graph: Any = None,
) -> Any:  # fmt: skip
    """A lattice of each utterance (S_i, D), together a k2.Fsa with 3 axes.

    Args:
        context: K.
        graph: a k2.Fsa that `check_graph` accepts; None: any token may follow any other.
    """
    network = Network.of(join, vocab_size, context, config, graph)
    search = network.opened([k2.RnntDecodingStream(network.graph) for _ in frames])
    padded = torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    lens = torch.tensor([len(rows) for rows in frames])
    closing = network.closing()
    for frame in range(padded.shape[1] + len(closing)):
        shape, contexts = search.get_contexts()
        owner = shape.row_ids(1).long()
        heard = lens[owner] > frame
        log_probs = closing[-1].repeat(len(owner), 1)
        if bool(heard.any()):
            log_probs[heard] = network.outcomes(padded[owner[heard], frame], contexts[heard])
        log_probs[lens[owner] == frame] = closing[0]
        search.advance(log_probs)
    search.terminate_and_flush_to_streams()
    return network.formatted(search, (lens + len(closing)).tolist())


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
    """The best path of each utterance: the first one of `fast_beam_lists`."""
    found = fast_beam_lists(frames, join, vocab_size, context, config, graph, 0)
    return [paths[0] for paths in found.results]


def fast_beam_lists(
    frames: Sequence[Tensor], join: Join, vocab_size: int, context: int,
    config: FastBeamConfig, graph: Any, num_paths: int,
) -> Found[list[Path]]:  # fmt: skip
    """The best path of each of the texts of each utterance (S_i, D), the best text first: that of
    the best path, and those of `num_paths` drawn from the lattice. If no path within the beam
    reaches an end of the graph, the utterance is searched again with a beam twice as wide,
    which counts as a fall-back.

    Raises:
        ValueError: as `check_graph`; or no text of the graph fits, however wide the beam.
    """
    found: list[list[Path]] = [[] for _ in frames]
    beam, widened = _beam(config, graph), 0
    while missing := [index for index, paths in enumerate(found) if not paths]:
        if beam > _WIDEST:
            raise ValueError(
                f"no text of the graph fits {len(missing)} utterances, not even within a beam of "
                f"{beam / 2:g}: is it a graph of this language, of tokens of this model?"
            )
        lattice = fast_beam_lattices(
            [frames[index] for index in missing], join, vocab_size, context,
            replace(config, beam=beam), graph,
        )  # fmt: skip
        best = fast_beam_paths(lattice)
        for index, path, drawn in zip(missing, best, _drawn(lattice, best, num_paths)):
            found[index] = [] if path is None else [path, *drawn]
        beam *= 2
        widened += best.count(None)
    return Found(found, widened)


def _drawn(lattice: Any, best: Sequence[Path | None], num_paths: int) -> list[list[Path]]:
    """Other texts than the best of each lattice, each with the best of its paths that were
    drawn in proportion to their probability.
    """
    if not num_paths or None in best:  # k2 draws nothing from an empty lattice, but fails
        return [[] for _ in best]
    paths = k2.random_paths(lattice, use_double_scores=True, num_paths=num_paths)
    labels = k2.ragged.index(lattice.labels.contiguous(), paths).tolist()
    scores = k2.ragged.index(lattice.scores.detach().contiguous(), paths).tolist()
    lists = []
    for path, *drawn in zip(best, labels, scores):
        texts: dict[tuple[int, ...], Path] = {}
        for arcs in sorted(zip(*drawn), key=lambda arcs: -sum(arcs[1])):
            read = _read(list(zip(*arcs)))
            if path is not None and read.tokens != path.tokens:
                texts.setdefault(read.tokens, read)
        lists.append(list(texts.values()))
    return lists


def _beam(config: FastBeamConfig, graph: Any) -> float:
    return config.beam or (4.0 if graph is None else 12.0)


def fast_beam_paths(lattice: Any) -> list[Path | None]:
    """The best path of each lattice; None where there is none."""
    return [None if arcs is None else _read(arcs) for arcs in best_arcs(lattice)]


def best_arcs(lattice: Any) -> list[list[tuple[int, float]] | None]:
    """The best path of each lattice: label and score of each arc, one per frame and the final
    one; None where there is none.
    """
    best = k2.shortest_path(lattice, use_double_scores=True)
    paths = [best[index] for index in range(best.shape[0])]
    return [list(zip(p.labels.tolist(), p.scores.tolist())) if p.num_arcs else None for p in paths]


def _read(arcs: Sequence[tuple[int, float]]) -> Path:
    emitted = [(frame, label) for frame, (label, _) in enumerate(arcs) if label > 0]
    tokens, frames = tuple(t for _, t in emitted), tuple(f for f, _ in emitted)
    return Path(tokens, frames, sum(score for _, score in arcs))
