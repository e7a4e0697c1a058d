"""An export: a folder of graphs, the token table, what they are, how to run them. Written whole or
not at all.

    streaming-ctc.onnx    online zipformer2 CTC; beside it .int8.onnx if asked for
    full-ctc.onnx         offline zipformer CTC, if the model has a full branch
    tokens.txt            symbol and id, one a line
    export.json, README.md
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from dualasr_lib.core.files import check_new_folder, file_hash, new_folder
from dualasr_lib.export.contract import NUM_FEATURES, contract_of
from dualasr_lib.export.ctc import full_ctc, streaming_ctc
from dualasr_lib.export.graph import quantised
from dualasr_lib.export.readme import readme
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = [
    "FULL",
    "STREAMING",
    "TOKENS",
    "check_features",
    "token_table",
    "write_export",
]

STREAMING, FULL, TOKENS = "streaming-ctc", "full-ctc", "tokens.txt"


class _Made(NamedTuple):
    models: dict[str, onnx.ModelProto]
    facts: dict[str, Any]


def write_export(
    trained: TrainedModel, chunk: ChunkSpec, out: Path, int8: bool = False
) -> dict[str, Any]:
    """Writes the folder `out`; returns what `export.json` says.

    Raises:
        ValueError: the model or its features cannot be run by the client, or `out` is in use.
        OSError: it cannot be written.
    """
    check_new_folder(out)
    check_features(trained.config.features)
    tokens = token_table(trained.tokenizer.tokens)
    made = _make(trained, chunk, int8)
    with new_folder(out) as folder:
        (folder / TOKENS).write_text(tokens, encoding="utf-8")
        for name, model in made.models.items():
            onnx.save(model, folder / f"{name}.onnx")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)}
            for path in sorted(folder.iterdir())
        }
        facts = {**made.facts, "files": files}
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


def _make(trained: TrainedModel, chunk: ChunkSpec, int8: bool) -> _Made:
    branches = trained.model.branches
    facts: dict[str, Any] = {
        "format": 1,
        "source": trained.source,
        "weights": trained.fingerprint,
        "sample_rate": trained.config.features.sample_rate,
        "vocab_size": trained.tokenizer.vocab_size,
        "chunk_ms": chunk.ms,
        "left_frames": chunk.left,
    }
    models = {}
    if "streaming" in branches:
        model = streaming_ctc(trained, chunk)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        models[STREAMING] = model
        facts[STREAMING] = {
            **metadata,
            "algorithmic_ms": trained.describe("streaming", chunk)["algorithmic_ms"],
            "first_result_ms": contract_of(metadata).first_result_ms,
        }
    if "full" in branches:
        models[FULL] = full_ctc(trained, chunk)
    if int8:
        models |= {f"{name}.int8": quantised(model) for name, model in models.items()}
    about = {"model_author": "dualasr", "comment": f"{trained.source} {trained.fingerprint}"}
    return _Made({name: _described(model, about) for name, model in models.items()}, facts)


def _described(model: onnx.ModelProto, about: Mapping[str, str]) -> onnx.ModelProto:
    for key, value in {**about, "version": "1"}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
