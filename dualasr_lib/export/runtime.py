"""A set for our own runtime without torch (`dualasr_lib.runtime`): both branches, the full one from
the streaming one's hidden states, tokens, options. Each graph has been compared with torch.

    streaming.onnx        a chunk of features and the states of streams -> what heads say, hidden
                          states, next states
    full.onnx             hidden states of a sentence -> what the full branch's heads say
    attention.onnx        its hidden states and given texts -> their scores
    *-transducer.npz      what a transducer's search needs beside its frames, by branch
    sentencepiece.model, tokens.txt, runtime.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from dualasr_lib.core.config import to_dict
from dualasr_lib.core.files import check_new_folder, file_hash, new_folder
from dualasr_lib.core.rates import ENCODER_STRIDE, FRONT_END_STRIDE
from dualasr_lib.data.tokenizer import TOKENS_FILE
from dualasr_lib.export.graph import quantised
from dualasr_lib.export.passes import (
    StreamingReference,
    attention_scores,
    full_pass,
    streaming_pass,
    widths,
)
from dualasr_lib.export.probe import Graph, check_as_module, check_int8
from dualasr_lib.features.quiet import TOLERANCE
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.bundle import read_contents
from dualasr_lib.recognition.decode_setup import DecodeSetup, ReadySecondPass
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.recognition.tuning import NoScalesError
from dualasr_lib.runtime.layout import (
    ATTENTION,
    DESCRIPTION,
    FORMAT,
    FULL,
    SEARCHES,
    STREAMING,
    TOKENIZER,
    search_name,
    tables_file,
)

__all__ = ["SetOptions", "options_of", "write_runtime_set"]


class SetOptions(NamedTuple):
    """What stands in a set beside the model."""

    endpoint: Mapping[str, Any] = {}
    """Options of `EndpointConfig` that are not its own."""
    calibration: Mapping[str, Calibration | None] = {}
    """Of each search, by `runtime.layout.search_name`."""
    card: Mapping[str, Any] = {}
    """What the bundle says of the model."""
    scales: Mapping[str, float] | None = None
    """Weights of the scores of the second pass that chooses; None: it only searches greedily."""
    text_beam: float = 3.0
    """Of its list of texts, as `decoding.ctc_nbest.PrefixConfig` has it."""


def options_of(setup: DecodeSetup) -> SetOptions:
    """What came with a model."""
    trained = setup.trained
    calibration: dict[str, Calibration | None] = {
        search_name("streaming", method): setup.online(method).calibrator.kept()
        for method in _methods(trained, "streaming")
    }
    options = SetOptions(setup.origin.endpoint)
    if _can_rewrite(trained):
        for method in _methods(trained, "full"):
            ready = setup.second_pass(method)
            calibration[search_name("full", method)] = ready.calibrator.kept()
        chooses = _choosing(setup)
        if chooses is not None:
            calibration[search_name("full", "attention")] = chooses.calibrator.kept()
            beam, scales = chooses.params["text_beam"], chooses.params["scales"]
            options = options._replace(scales=scales, text_beam=beam)
    bundle = setup.config.bundle
    card = {} if bundle is None else read_contents(bundle).plain["card"]
    return options._replace(calibration=calibration, card=card)


def _choosing(setup: DecodeSetup) -> ReadySecondPass | None:
    """The second pass that weighs CTC and attention, if the model can and has scales for it."""
    if not {"ctc", "attention"} <= setup.trained.model.heads_of("full").keys():
        return None
    try:
        return setup.second_pass()
    except NoScalesError:
        return None


def write_runtime_set(
    trained: TrainedModel, chunk: ChunkSpec, options: SetOptions, out: Path, int8: bool = False
) -> dict[str, Any]:
    """Writes the folder `out`, whole or not at all; returns its description.

    Args:
        int8: the weights of matrix products, in 8 bits.

    Raises:
        ValueError: the model cannot stream or has neither CTC nor a transducer, a graph does not
            give what torch gives, or `out` is in use.
        OSError: it cannot be written.
    """
    check_new_folder(out)
    graphs, facts = _graphs(trained, chunk, options), _facts(trained, chunk, options)
    with new_folder(out) as folder:
        (folder / TOKENIZER).write_bytes(trained.tokenizer.model)
        (folder / TOKENS_FILE).write_text(trained.tokenizer.tokens_txt(), encoding="utf-8")
        for branch, tables in _tables(trained).items():
            np.savez(folder / tables_file(branch), **tables)
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


def _graphs(trained: TrainedModel, chunk: ChunkSpec, options: SetOptions) -> dict[str, Graph]:
    if not _methods(trained, "streaming"):
        heads = ", ".join(trained.model.heads_of("streaming"))
        raise ValueError(
            f"a set for the runtime needs CTC or a transducer on the streaming branch, but that "
            f"has {heads}"
        )
    chooses = options.scales is not None
    graphs = {STREAMING: streaming_pass(trained, chunk)}
    if _can_rewrite(trained):
        graphs[FULL] = full_pass(trained, chunk, hidden=chooses)
        if chooses:
            graphs[ATTENTION] = attention_scores(trained)
    return graphs


def _tables(trained: TrainedModel) -> dict[str, dict[str, "np.ndarray[Any, Any]"]]:
    """Of each branch that the runtime searches, what its transducer has."""
    branches: tuple[Branch, ...] = (
        ("streaming", "full") if _can_rewrite(trained) else ("streaming",)
    )
    return {
        branch: {name: x.numpy() for name, x in trained.tables("transducer", branch).items()}
        for branch in branches
        if "transducer" in trained.model.heads_of(branch)
    }


def _methods(trained: TrainedModel, branch: Branch) -> list[str]:
    """Searches of the runtime that the branch has the head for."""
    heads = trained.model.heads_of(branch)
    return [method for method, head in SEARCHES.items() if head in heads]


def _can_rewrite(trained: TrainedModel) -> bool:
    try:
        trained.model.encoders.check_second_pass()
    except ValueError:
        return False
    return bool(_methods(trained, "full"))


def _facts(trained: TrainedModel, chunk: ChunkSpec, options: SetOptions) -> dict[str, Any]:
    step = StreamingReference(trained, chunk)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "source": trained.source,
        "weights": trained.fingerprint,
        "features": to_dict(trained.config.features),
        "chunk_ms": chunk.ms,
        "left_frames": chunk.left,
        "streaming": {
            "widths": widths(trained, "streaming", hidden=True),
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
        "calibration": {name: to_dict(kept) for name, kept in options.calibration.items() if kept},
        "card": dict(options.card),
        "differs": {},
    }
    if _can_rewrite(trained):
        chooses = options.scales is not None
        facts["full"] = {"widths": widths(trained, "full", hidden=chooses)}
        if options.scales is not None:
            facts["attention"] = {"scales": dict(options.scales), "text_beam": options.text_beam}
    return facts
