"""A set for our own runtime without torch (`dualasr_lib.runtime`): both branches, the full one from
the streaming one's hidden states, tokens, options. Each graph has been compared with torch.

    streaming.onnx        a chunk of features and the states of streams -> what heads say, hidden
                          states, next states
    full.onnx             hidden states of a sentence -> what the full branch's heads say
    sentencepiece.model, tokens.txt, runtime.json

Letters: N streams, T feature frames, S encoder frames, C channels, V vocabulary.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from torch import Tensor, nn

from dualasr_lib.core.config import to_dict
from dualasr_lib.core.files import check_new_folder, file_hash, new_folder
from dualasr_lib.core.rates import ENCODER_STRIDE, FRONT_END_STRIDE, encoder_frames
from dualasr_lib.core.tree import leaves, unflatten
from dualasr_lib.data.tokenizer import TOKENS_FILE
from dualasr_lib.export.encoders import sizes_that_matter
from dualasr_lib.export.graph import Signature, quantised, traced, with_fixed_sizes
from dualasr_lib.export.probe import Graph, Noise, Probe, check_as_module, check_int8
from dualasr_lib.export.step import EncoderStep, relaid
from dualasr_lib.features.quiet import TOLERANCE
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.model.encoder import Encoded, EncoderState
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.bundle import read_contents
from dualasr_lib.recognition.decode_setup import DecodeSetup
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.runtime.layout import DESCRIPTION, FORMAT, FULL, STREAMING, TOKENIZER

__all__ = ["SetOptions", "options_of", "write_runtime_set"]

_BATCHES = (1, 2, 3)
_PROBED = (60, 250, 500, 900, 1300)
"""Feature frames of the sentences whose hidden states the second pass is compared on."""


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


class _Reference(nn.Module):
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

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.encoders = trained.model.encoders
        self.reads = _Says(trained, "full", hidden=False)

    def forward(self, hidden: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoders.second_pass(Encoded(hidden, lens))
        return self.reads(encoded.h), encoded.lens * 1


class SetOptions(NamedTuple):
    """What stands in a set beside the model."""

    endpoint: Mapping[str, Any] = {}
    """Options of `EndpointConfig` that are not its own."""
    calibration: Mapping[Branch, Calibration | None] = {}
    """Of the greedy search, by branch."""
    card: Mapping[str, Any] = {}
    """What the bundle says of the model."""


def options_of(setup: DecodeSetup) -> SetOptions:
    """What came with a model that searches greedily."""
    calibration: dict[Branch, Calibration | None] = {
        "streaming": setup.online("greedy").calibrator.kept()
    }
    if _can_rewrite(setup.trained):
        calibration["full"] = setup.second_pass("greedy").calibrator.kept()
    bundle = setup.config.bundle
    card = {} if bundle is None else read_contents(bundle).plain["card"]
    return SetOptions(setup.origin.endpoint, calibration, card)


def write_runtime_set(
    trained: TrainedModel, chunk: ChunkSpec, options: SetOptions, out: Path, int8: bool = False
) -> dict[str, Any]:
    """Writes the folder `out`, whole or not at all; returns its description.

    Args:
        int8: the weights of matrix products, in 8 bits.

    Raises:
        ValueError: the model cannot stream or has no CTC head, a graph does not give what torch
            gives, or `out` is in use.
        OSError: it cannot be written.
    """
    check_new_folder(out)
    graphs, facts = _graphs(trained, chunk), _facts(trained, chunk, options)
    with new_folder(out) as folder:
        (folder / TOKENIZER).write_bytes(trained.tokenizer.model)
        (folder / TOKENS_FILE).write_text(trained.tokenizer.tokens_txt(), encoding="utf-8")
        for name, graph in graphs.items():
            found = _write(graph, folder / name, int8)
            facts["differs"][name] = float(f"{found:.2g}")
        facts["precision"] = "int8" if int8 else "float32"
        facts["files"] = {
            path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)}
            for path in sorted(folder.iterdir())
        }
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    return facts


def _write(graph: Graph, path: Path, int8: bool) -> float:
    onnx.save(graph.model, path)
    found = check_as_module(graph, path)
    if int8:
        onnx.save(quantised(graph.model), path)
        found = check_int8(graph, path)
    return found


def _graphs(trained: TrainedModel, chunk: ChunkSpec) -> dict[str, Graph]:
    graphs = {STREAMING: _streaming(trained, chunk)}
    if _can_rewrite(trained):
        graphs[FULL] = _full(trained, chunk)
    return graphs


def _can_rewrite(trained: TrainedModel) -> bool:
    try:
        trained.model.encoders.check_second_pass()
        trained.model.head("ctc", "full")
    except ValueError:
        return False
    return True


def _streaming(trained: TrainedModel, chunk: ChunkSpec) -> Graph:
    trained.model.head("ctc", "streaming")
    module, step = _Reference(trained, chunk).eval(), _Step(trained, chunk).eval()
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
    model = traced(step, example, signature, {"model_author": "dualasr"})
    noise, chunks = Noise(), 2 + (chunk.left or 0) // chunk.frames  # until all caches are full
    probes = [
        Probe(
            tuple((noise.features(batch, window),) for _ in range(chunks)),
            tuple(module.initial(batch)),
        )
        for batch in _BATCHES
    ]
    return Graph(with_fixed_sizes(model, feeds), module, tuple(probes))


def _full(trained: TrainedModel, chunk: ChunkSpec) -> Graph:
    module = _Second(trained).eval()
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
    model = traced(module, example(2, longest), signature, {"model_author": "dualasr"})
    noise, probes = Noise(), []
    for number, frames in enumerate(_PROBED):
        x, lens = noise.utterances(1 + number % 3, frames)
        lens = lens.clamp(min=8)
        with torch.no_grad():
            heard = trained.model.encode(x, lens, chunk, ("streaming",))["streaming"]
        probes.append(Probe(((heard.h, heard.lens),)))
    return Graph(with_fixed_sizes(model, feeds), module, tuple(probes))


def _facts(trained: TrainedModel, chunk: ChunkSpec, options: SetOptions) -> dict[str, Any]:
    step = _Reference(trained, chunk)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "source": trained.source,
        "weights": trained.fingerprint,
        "features": to_dict(trained.config.features),
        "chunk_ms": chunk.ms,
        "left_frames": chunk.left,
        "streaming": {
            "widths": _widths(trained, "streaming", hidden=True),
            "states": [
                [list(leaf.shape[1:]), str(leaf.dtype).removeprefix("torch.")]
                for leaf in step.initial(1)
            ],
            "chunk_frames": chunk.frames // ENCODER_STRIDE,
            "chunk_features": FRONT_END_STRIDE * chunk.frames,
            "lookahead_features": step.encoder.lookahead,
        },
        "quiet": {"frame": trained.quiet.tolist(), "tolerance": TOLERANCE},
        "endpoint": dict(options.endpoint),
        "calibration": {
            branch: to_dict(kept) for branch, kept in options.calibration.items() if kept
        },
        "card": dict(options.card),
        "differs": {},
    }
    if _can_rewrite(trained):
        facts["full"] = {"widths": _widths(trained, "full", hidden=False)}
    return facts


def _widths(trained: TrainedModel, branch: Branch, hidden: bool) -> dict[str, int]:
    channels = trained.model.encoders.output_dims[branch]
    with torch.no_grad():
        said = _Says(trained, branch, hidden).parts(torch.zeros(1, 1, channels))
    return {name: each.shape[-1] for name, each in said.items()}
