"""Graphs that are not what torch is are refused, and nothing is left of them."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")

import onnx
from onnx import numpy_helper
from small_models import CHUNK, small_model
from torch import Tensor, nn

from dualasr_lib.export import folder
from dualasr_lib.export.ctc import full_ctc, streaming_ctc
from dualasr_lib.export.graph import Signature, quantised, traced, with_fixed_sizes
from dualasr_lib.export.probe import Graph, Probe, check_as_module, check_int8
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

MODEL = small_model()


@pytest.fixture(scope="module", params=[streaming_ctc, full_ctc])
def graph(request: pytest.FixtureRequest) -> Graph:
    made: Graph = request.param(MODEL, CHUNK)
    return made


def spoilt(model: onnx.ModelProto, change: Callable[["np.ndarray"], "np.ndarray"]) -> bytes:
    """`model` with its largest weight changed."""
    wrong = copy.deepcopy(model)
    largest = max(wrong.graph.initializer, key=lambda init: len(init.raw_data))
    largest.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(largest)), largest.name))
    return wrong.SerializeToString()


def test_right_graphs_pass_and_wrong_ones_do_not(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(graph.model, path)
    assert 0.0 < check_as_module(graph, path) < 2e-3
    small = tmp_path / "small.onnx"
    onnx.save(quantised(graph.model), small)
    assert check_int8(graph, small) > 0.0
    assert check_int8(graph, path) < 1e-4, "nothing is rounded there"
    path.write_bytes(spoilt(graph.model, lambda x: x * np.float32(1.2)))
    with pytest.raises(ValueError, match=r"model.onnx must give what torch gives, but they differ"):
        check_as_module(graph, path)
    path.write_bytes(spoilt(graph.model, lambda x: np.full_like(x, np.nan)))
    with pytest.raises(ValueError, match="but they differ by nan"):
        check_as_module(graph, path)
    with pytest.raises(ValueError, match=r"model.onnx must give .* no finite numbers"):
        check_int8(graph, path)


class PadsToEight(nn.Module):
    """Frames (1, T) up to a multiple of 8, and 100 of them at most: both are sizes that a few runs
    may agree on.
    """

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, -x.shape[1] % 8))
        return padded.reshape(1, -1, 8).sum(dim=2)


def padding(lengths: list[int], tmp_path: Path) -> float:
    module = PadsToEight()
    signature = Signature(("x",), ("y",), {"x": {1: "T"}, "y": {1: "S"}})
    fresh = traced(module, (torch.zeros(1, 21),), signature, {})
    model = with_fixed_sizes(fresh, [{"x": np.zeros((1, n), np.float32)} for n in lengths])
    probes = tuple(Probe(((torch.ones(1, n),),)) for n in (8, 11, 13, 30))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return check_as_module(Graph(model, module, probes), path)


def test_a_size_on_which_too_few_lengths_agree_is_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.onnx must give what torch gives, but it fails"):
        padding([5, 13, 21, 805], tmp_path)
    assert padding(list(range(1, 18)), tmp_path) == 0.0


def test_nothing_is_left_of_an_export_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: TrainedModel, chunk: ChunkSpec) -> Graph:
        good = full_ctc(model, chunk)
        doubled = onnx.ModelProto.FromString(spoilt(good.model, lambda x: 2 * x))
        return good._replace(model=doubled)

    monkeypatch.setitem(folder._MAKERS, ("full", "ctc"), wrong)
    with pytest.raises(ValueError, match=r"^full-ctc.onnx must give .* nothing was written"):
        folder.write_export(MODEL, CHUNK, tmp_path / "out")
    assert not list(tmp_path.iterdir())
