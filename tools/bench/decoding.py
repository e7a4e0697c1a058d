"""Decoding piece by piece: lattices beside k2's own search and a well-known library, streams beside
whole utterances, an hour of stream, rescoring and the second pass beside the encoder.

Times are CPU time of one thread, medians over rounds in which compared things take turns.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.joint import build_joint
from bench.posteriors import log_probs, write_bigram
from bench.report import Row
from bench.timing import median
from bench.turns import in_turns
from bench.workloads import Setting, features_of
from dualasr_lib.decoding.confidence import ConfidentSearch
from dualasr_lib.decoding.contract import OnlineSearch
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.offline import Heard
from dualasr_lib.decoding.one_head import OneHead, OneHeadSearch
from dualasr_lib.decoding.rescoring import Scales, rescored
from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.ctc_lattice import ctc_lattices
from dualasr_lib.lattice.graph_search import GraphSearch
from dualasr_lib.lattice.lm_lattice import lm_lattices
from dualasr_lib.lattice.nbest import nbest
from dualasr_lib.lattice.ngram import NgramLm
from dualasr_lib.lattice.options import GraphConfig, LmLatticeConfig, NbestConfig
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.lattice.search import one_best
from dualasr_lib.lattice.topology import dense, full_topology
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.inference import prepare_for_inference
from dualasr_lib.model.joint import JointModel, NbestTexts
from dualasr_lib.recognition.methods.attention import METHOD as ATTENTION
from dualasr_lib.recognition.methods.lists import from_lattice, propose_mix

__all__ = ["hour_rows", "lattice_rows", "online_rows", "random_lm", "second_pass_rows"]

_CHUNK = 8  # encoder frames of 320 ms
_WHOLE = GraphConfig()
_KNOWN = Calibration(slope=0.7, offset=-0.5, mean=0.99, floor=0.94)


def lattice_rows(vocab_size: int, rounds: int) -> Iterator[Row]:
    """Lattices of a 10 s utterance."""
    frames = log_probs(250, vocab_size, seed=0)
    batch, lens, config = frames[None], torch.tensor([250]), SearchConfig()
    lm = random_lm(vocab_size)
    modified = k2.ctc_topo(vocab_size - 1, modified=True)
    works: dict[str, Callable[[], object]] = {
        "lattice": lambda: ctc_lattices(batch, lens, config),
        "1best": lambda: one_best(batch, lens, config),
        "nbest, 50 texts with CTC scores": lambda: nbest(batch, lens, NbestConfig()),
        "lattice-lm, bigram": lambda: _rescored(batch, lens, lm),
        "k2, modified topology (text may be wrong)": lambda: _k2_lattice(modified, batch, lens),
    }
    if vocab_size <= 500:
        full = full_topology(vocab_size)
        works["k2, full topology"] = lambda: _k2_lattice(full, batch, lens)
    flashlight = _flashlight(frames)
    if flashlight is not None:
        works["flashlight-text, lexicon-free, beam 8 of top 10"] = flashlight
    limits = {"lattice": 12.0, "1best": 12.0} if vocab_size >= 3000 else {}
    for name, milliseconds in in_turns(works, rounds).items():
        yield Row(f"V={vocab_size}, 10 s", name, milliseconds, "ms", at_most=limits.get(name))
    yield from _arc_rows(frames, vocab_size)


def _arc_rows(frames: Tensor, vocab_size: int) -> Iterator[Row]:
    """Our arcs against k2's search on the full topology of the tokens that are kept."""
    size = 250 if vocab_size <= 500 else 50
    piece, lens, config = frames[:size], torch.tensor([size]), SearchConfig(max_tokens=vocab_size)
    ours = ctc_lattices(piece[None], lens, config)
    kept = sorted({0, *ours.labels[ours.labels > 0].tolist()})
    theirs = _k2_lattice(full_topology(len(kept)), piece[None][:, :, kept], lens)
    case = f"V={vocab_size}, {size} frames"
    yield Row(case, f"arcs (k2, full topology of {len(kept)} kept tokens)", theirs.num_arcs)
    difference = abs(ours.num_arcs - theirs.num_arcs)
    yield Row(case, "arcs, difference", difference, at_most=0.0)
    totals = [fsa.get_tot_scores(True, True).item() for fsa in (ours, theirs)]
    yield Row(case, "total score, difference", abs(totals[0] - totals[1]), "nat", at_most=1e-3)


def _rescored(batch: Tensor, lens: Tensor, lm: NgramLm) -> object:
    lattice = lm_lattices(batch, lens, LmLatticeConfig(), lm).results[0]
    return None if lattice is None else lattice.best(0.3)


def _k2_lattice(graph: Any, batch: Tensor, lens: Tensor) -> Any:
    return k2.intersect_dense_pruned(graph, dense(batch, lens), 20.0, 8.0, 30, 10000)


def _flashlight(frames: Tensor) -> Callable[[], object] | None:
    """flashlight-text's decoder if it is installed (`pip install flashlight-text==0.0.7`)."""
    try:
        from flashlight.lib.text import decoder
    except ImportError:
        return None
    size = frames.shape[1]
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=8, beam_size_token=10, beam_threshold=50.0, lm_weight=0.0, sil_score=0.0,
        log_add=False, criterion_type=decoder.CriterionType.CTC,
    )  # fmt: skip
    # no silence token: an index that no token has would be read, so the last one stands for it
    search = decoder.LexiconFreeDecoder(options, decoder.ZeroLM(), size - 1, 0, [])
    rows = frames.contiguous()
    return lambda: search.decode(rows.data_ptr(), *frames.shape)


def random_lm(vocab_size: int) -> NgramLm:
    """A bigram of 20 followers per token."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bigram.arpa"
        symbols = write_bigram(path, vocab_size, per_token=20, seed=0)
        return NgramLm.load(path, symbols)


def online_rows(vocab_size: int, rounds: int) -> Iterator[Row]:
    """Streams in chunks of 320 ms beside the same frames at once."""
    frames = log_probs(250, vocab_size, seed=1)
    lens = torch.tensor([250])
    graph = GraphSearch(random_lm(vocab_size), _WHOLE)
    works: dict[str, Callable[[], object]] = {
        "1best at once": lambda: one_best(frames[None], lens, SearchConfig()),
        "1best in chunks": lambda: _stream(OnlineGreedy(), frames),
        "hlg at once": lambda: graph.whole(frames),
        "hlg in chunks": lambda: _stream(graph, frames),
        "1best in chunks, each read": lambda: _read_stream(OneHead(OnlineGreedy()), frames),
        "the same with confidence": lambda: _read_stream(
            ConfidentSearch(OneHead(OnlineGreedy()), _KNOWN), frames
        ),
    }
    case = f"V={vocab_size}, 10 s"
    found = in_turns(works, rounds)
    for name, milliseconds in found.items():
        yield Row(case, name, milliseconds, "ms")
    for name in ("1best", "hlg"):
        ratio = found[f"{name} in chunks"] / found[f"{name} at once"]
        yield Row(case, f"{name}, chunks / at once", ratio, at_most=1.5)
    more = found["the same with confidence"] - found["1best in chunks, each read"]
    yield Row(case, "confidence, a chunk", more * _CHUNK / len(frames), "ms", at_most=0.5)


def _read_stream(search: OnlineSearch, frames: Tensor) -> object:
    """A stream of which somebody reads the path after each chunk, as users do."""
    state = search.open()
    for chunk in frames.split(_CHUNK):
        step = search.step([{"ctc": chunk}], [state])[0]
        assert step.partial is not None
        state = step.state
    return search.finish(state)


def _stream(search: OneHeadSearch, frames: Tensor) -> object:
    state = search.open()
    for chunk in frames.split(_CHUNK):
        state = search.step([chunk], [state])[0].state
    return search.finish(state)


def hour_rows(vocab_size: int, minutes: int) -> Iterator[Row]:
    """One stream without any endpoint: its last tenth beside its first."""
    for name, search in (
        ("1best", OnlineGreedy()),
        ("hlg", GraphSearch(random_lm(vocab_size), _WHOLE)),
    ):
        times = _chunk_times(search, vocab_size, minutes)
        tenth = len(times) // 10
        first, last = median(times[:tenth]), median(times[-tenth:])
        case = f"V={vocab_size}, {minutes} min stream"
        yield Row(case, f"{name}, chunk of 320 ms at the start", first, "ms")
        yield Row(case, f"{name}, chunk of 320 ms at the end", last, "ms")
        yield Row(case, f"{name}, end / start", last / first, at_most=1.2)


def _chunk_times(search: OneHeadSearch, vocab_size: int, minutes: int) -> list[float]:
    """Milliseconds of each chunk of one stream."""
    state, times = search.open(), []
    for second in range(0, 60 * minutes, 8):
        for chunk in log_probs(200, vocab_size, seed=second % 400).split(_CHUNK):
            begun = time.process_time()
            step = search.step([chunk], [state])[0]
            times.append(1000 * (time.process_time() - begun))
            state = step.state
    return times


def second_pass_rows(setting: Setting, rounds: int) -> Iterator[Row]:
    """The second pass of one 10 s sentence: stacks, n-best list, attention; and its parts.

    Weights are random, so the lattice is that of made-up posteriors; all else is computed.
    """
    model = build_joint(setting)[0].eval()
    prepare_for_inference(model)
    features, lens = features_of(setting)
    with torch.inference_mode():
        streamed = model.encode(features, lens, setting.spec, ("streaming",))["streaming"]
    frames = log_probs(streamed.h.shape[1], setting.vocab_size, seed=2)[None]
    quick = ATTENTION.whole_options(ATTENTION.second_pass or ())
    texts = nbest(frames, streamed.lens, NbestConfig(text_beam=100.0)).results[0]
    assert texts is not None
    heard = _Heard(model, streamed, frames)
    works: dict[str, Callable[[], object]] = {
        "encoder of both branches": lambda: heard.encode(features, lens, setting),
        "full-context stacks and CTC head": heard.stacks,
        "n-best list": lambda: nbest(frames, streamed.lens, quick),
        f"attention, {len(texts)} texts": lambda: heard.score([[text.tokens for text in texts]]),
        "second pass in all": lambda: heard.second_pass(quick),
    }
    found = in_turns(works, rounds)
    limits = {"second pass in all": 150.0}
    case = f"{setting.config.stem}, {setting.seconds:g} s"
    for name, milliseconds in found.items():
        yield Row(case, name, milliseconds, "ms", at_most=limits.get(name))
    attention = found[f"attention, {len(texts)} texts"] / found["encoder of both branches"]
    yield Row(case, "attention / encoder", attention, at_most=2.0)


class _Heard:
    """A model of random weights with posteriors that are not random."""

    def __init__(self, model: JointModel, streamed: Encoded, frames: Tensor) -> None:
        self._model, self._streamed, self._frames = model, streamed, frames

    def encode(self, features: Tensor, lens: Tensor, setting: Setting) -> object:
        with torch.inference_mode():
            return self._model.encode(features, lens, setting.spec)

    def stacks(self) -> Encoded:
        with torch.inference_mode():
            encoded = self._model.encoders.second_pass(self._streamed)
            self._model.frames(encoded.h, "full")
        return encoded

    def score(self, lists: Any, encoded: Encoded | None = None) -> list[list[float]]:
        texts = NbestTexts.padded(lists[0], [0] * len(lists[0]))
        with torch.inference_mode():
            head = self._model.head("attention", "full")
            scores = head.score(encoded or self._streamed, texts)
        return [scores.tolist()]

    def second_pass(self, config: NbestConfig) -> object:
        encoded = self.stacks()
        score = {"attention": lambda lists: self.score(lists, encoded)}
        heard = Heard({"ctc": self._frames}, encoded.lens.clone(), score)
        search = rescored(
            propose_mix({"nbest": from_lattice(config)}, ("ctc", "attention")),
            Scales(attention=1.0),
        )
        return search(heard)
