"""An export: a folder of graphs, the token table, what they are, how to run them. Written whole or
not at all, and only if each graph gives what torch gives (`probe`).

    BRANCH-ctc.onnx                  streaming: online zipformer2 CTC; full: offline zipformer CTC
    BRANCH-transducer-encoder.onnx   online zipformer2 transducer, offline transducer; with
                                     -decoder.onnx and -joiner.onnx
    *.int8.onnx                      if asked for, beside each but decoders, which look rows up
    tokens.txt                       symbol and id, one a line
    export.json, README.md
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from dualasr_lib.core.files import check_new_folder, file_hash, new_folder
from dualasr_lib.export.contract import NUM_FEATURES, contract_of
from dualasr_lib.export.ctc import full_ctc, streaming_ctc
from dualasr_lib.export.graph import quantised
from dualasr_lib.export.names import DECODER, TOKENS, graph_name
from dualasr_lib.export.probe import Graph, check_as_module, check_int8
from dualasr_lib.export.readme import readme
from dualasr_lib.export.transducer import TransducerGraphs, full_transducer, streaming_transducer
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["check_features", "token_table", "write_export"]

_Maker = Callable[[TrainedModel, ChunkSpec], Graph | TransducerGraphs]
_MAKERS: dict[tuple[Branch, str], _Maker] = {
    ("streaming", "ctc"): streaming_ctc,
    ("streaming", "transducer"): streaming_transducer,
    ("full", "ctc"): full_ctc,
    ("full", "transducer"): full_transducer,
}


def write_export(
    trained: TrainedModel,
    chunk: ChunkSpec,
    out: Path,
    int8: bool = False,
    heads: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Writes the folder `out`; returns what `export.json` says.

    Args:
        heads: those to be exported, of each branch that has them; None: all that can be.

    Raises:
        ValueError: the model or its features cannot be run by the client, it has none of `heads`,
            a graph does not give what torch gives, or `out` is in use.
        OSError: it cannot be written.
    """
    check_new_folder(out)
    check_features(trained.config.features)
    tokens = token_table(trained.tokenizer.tokens)
    makers = _wanted(trained, heads)
    about = {"model_author": "dualasr", "comment": f"{trained.source} {trained.fingerprint}"}
    facts = _facts(trained, chunk)
    with new_folder(out) as folder:
        (folder / TOKENS).write_text(tokens, encoding="utf-8")
        for (branch, head), make in makers.items():
            for name, graph in _named(branch, head, make(trained, chunk)):
                if branch not in facts and branch == "streaming":
                    facts[branch] = _of_streams(trained, chunk, graph.model)
                differs = _write(graph, folder / f"{name}.onnx", about, int8)
                facts["differs"] |= differs
        facts["files"] = {
            path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)}
            for path in sorted(folder.iterdir())
        }
        (folder / "export.json").write_text(_json(facts), encoding="utf-8")
        (folder / "README.md").write_text(readme(facts), encoding="utf-8")
    return facts


def check_features(config: FbankConfig) -> None:
    """ValueError unless the client computes these features: it does at its defaults only."""
    usual = FbankConfig()
    for name in ("sample_rate", "num_mel_bins", "frame_length_ms", "low_freq", "high_freq"):
        if getattr(config, name) != getattr(usual, name):
            raise ValueError(
                f"sherpa-onnx computes features with {name} = {getattr(usual, name)}, but the "
                f"model was trained with {getattr(config, name)}"
            )
    assert config.num_mel_bins == NUM_FEATURES


def token_table(tokens: tuple[str, ...]) -> str:
    """The client's table; ValueError if a token cannot stand in it."""
    for number, token in enumerate(tokens):
        if len(token.split()) != 1:
            raise ValueError(
                f"a token must be one word without spaces, but token {number} is {token!r}"
            )
    return "".join(f"{token} {number}\n" for number, token in enumerate(tokens))


def _wanted(trained: TrainedModel, heads: Sequence[str] | None) -> dict[tuple[Branch, str], _Maker]:
    """What makes the graphs of each branch and head."""
    listed = trained.model.config.heads
    there = {
        (branch, head): make
        for (branch, head), make in _MAKERS.items()
        if branch in trained.model.branches and head in listed.of(branch)
    }
    asked = {head for _, head in _MAKERS} if heads is None else set(heads)
    for head in sorted(asked) if heads is not None else ():
        if head not in {name for _, name in there}:
            raise ValueError(
                f"--head {head} must be a head of the model, but it has "
                f"{', '.join(sorted({name for _, name in there})) or 'none that can be exported'}"
            )
    if not there:
        raise ValueError(
            "an export needs a CTC or a transducer head, but the model has "
            f"{list(trained.model.branches)} with neither"
        )
    return {key: make for key, make in there.items() if key[1] in asked}


def _named(
    branch: Branch, head: str, made: Graph | TransducerGraphs
) -> Iterator[tuple[str, Graph]]:
    parts = made._asdict() if isinstance(made, TransducerGraphs) else {"": made}
    for part, graph in parts.items():
        yield graph_name(branch, head, part), graph


def _write(graph: Graph, path: Path, about: Mapping[str, str], int8: bool) -> dict[str, float]:
    """Writes and compares; what came of it, by file."""
    onnx.save(_described(graph.model, about), path)
    differs = {path.name: check_as_module(graph, path)}
    if int8 and not path.stem.endswith(DECODER):
        small = path.with_suffix(".int8.onnx")
        onnx.save(quantised(graph.model), small)
        differs[small.name] = check_int8(graph, small)
    return {name: float(f"{found:.2g}") for name, found in differs.items()}


def _facts(trained: TrainedModel, chunk: ChunkSpec) -> dict[str, Any]:
    return {
        "format": 2,
        "source": trained.source,
        "weights": trained.fingerprint,
        "sample_rate": trained.config.features.sample_rate,
        "vocab_size": trained.tokenizer.vocab_size,
        "chunk_ms": chunk.ms,
        "left_frames": chunk.left,
        "differs": {},
    }


def _of_streams(trained: TrainedModel, chunk: ChunkSpec, model: onnx.ModelProto) -> dict[str, Any]:
    contract = contract_of({entry.key: entry.value for entry in model.metadata_props})
    return {
        **contract.metadata(),
        "algorithmic_ms": trained.describe("streaming", chunk)["algorithmic_ms"],
        "first_result_ms": contract.first_result_ms,
        "tail_ms": contract.tail_ms,
    }


def _described(model: onnx.ModelProto, about: Mapping[str, str]) -> onnx.ModelProto:
    for key, value in {**about, "version": "1"}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
