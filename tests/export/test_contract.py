"""The contract: what metadata promise, what a lint refuses, what int8 keeps."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")

import onnx
from small_models import CHUNK, PUBLISHED, small_model, transducer_model

from dualasr_lib.core.tree import leaves, map_tree
from dualasr_lib.export.contract import EMBED_SIZE, StackShape, StreamingContract, contract_of
from dualasr_lib.export.ctc import full_ctc, streaming_ctc
from dualasr_lib.export.encoders import initial_states
from dualasr_lib.export.graph import quantised, session
from dualasr_lib.export.lint import check_decoder, check_full, check_joiner, check_streaming
from dualasr_lib.export.probe import Graph
from dualasr_lib.export.states import layout_of
from dualasr_lib.export.transducer import TransducerGraphs, streaming_transducer

MODEL = small_model(PUBLISHED)
VOCABULARY = MODEL.tokenizer.vocab_size


@pytest.fixture(scope="module")
def graph() -> Graph:
    return streaming_ctc(MODEL, CHUNK)


@pytest.fixture(scope="module")
def streaming(graph: Graph) -> onnx.ModelProto:
    return graph.model


@pytest.fixture(scope="module")
def full() -> onnx.ModelProto:
    return full_ctc(MODEL, CHUNK).model


@pytest.fixture(scope="module")
def transducer() -> TransducerGraphs:
    return streaming_transducer(transducer_model(), CHUNK)


def test_metadata_say_the_contract() -> None:
    layers = (StackShape(2, 192, 4, 32, 12, 31, 128), StackShape(1, 256, 8, 16, 12, 15, 64))
    contract = StreamingContract(45, 32, layers)
    assert contract_of(contract.metadata()) == contract
    assert contract.output_frames == 8
    shapes = {state.name: (state.shape, state.batch_axis) for state in contract.states()}
    assert len(shapes) == 6 * 3 + 2
    assert shapes["cached_key_2"] == ((64, 1, 128), 1)
    assert shapes["cached_nonlin_attn_0"] == ((1, 1, 128, 144), 1)
    assert shapes["cached_val2_2"] == ((64, 1, 96), 1)
    assert shapes["cached_conv1_2"] == ((1, 256, 7), 0)
    assert shapes["embed_states"] == ((1, 128, 3, 19), 0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("T", None, "must have `T`"),
        ("num_heads", "4,x", "whole numbers"),
        ("num_heads", "4,-8", "must not be negative"),
        ("num_heads", "4", "a number for each stack"),
    ],
)
def test_wrong_metadata_are_refused(key: str, value: str | None, message: str) -> None:
    shape = StackShape(1, 16, 2, 8, 4, 7, 16)
    metadata = StreamingContract(45, 32, (shape, shape)).metadata()
    metadata.pop(key)
    with pytest.raises(ValueError, match=message):
        contract_of(metadata if value is None else {**metadata, key: value})


@pytest.mark.parametrize(
    ("future", "channels", "surplus"),
    [
        ((0, 0, 0, 0), (2, 3, 4), 0),
        (PUBLISHED, (8, 32, 128), 0),
        ((0, 0, 0, 0), (8, 32, 128), 160 + 640 + 2496 + 14592 - EMBED_SIZE),
    ],
)
def test_a_state_comes_back_from_the_clients_tensors(
    future: tuple[int, ...], channels: tuple[int, ...], surplus: int
) -> None:
    encoder = small_model(future, channels).model.streaming
    layout = layout_of(encoder, CHUNK)
    own = len(encoder.stacks.configs)
    assert [stack.query_head_dim for stack in layout.contract.stacks[own:]] == [surplus] * bool(
        surplus
    )
    empty = encoder.init_state(3, CHUNK, torch.device("cpu"))
    state = map_tree(lambda leaf: torch.randn(leaf.shape).to(leaf.dtype), empty)
    unused = [torch.randn_like(x) for x in initial_states(layout.contract, 3)[-7:-2]]
    packed = layout.pack(state, unused)
    assert [x.shape for x in packed] == [x.shape for x in initial_states(layout.contract, 3)]
    again, through = layout.unpack(packed)
    for (name, x), (_, y) in zip(leaves(state), leaves(again)):
        assert torch.equal(x, y.expand(x.shape)), name
    assert all(torch.equal(x, y) for x, y in zip(through, unused))


def test_every_state_follows_torchs(graph: Graph, streaming: onnx.ModelProto) -> None:
    """Not only what is heard: each of the client's tensors, over more chunks than are cached."""
    module = graph.module
    contract = layout_of(MODEL.model.streaming, CHUNK).contract
    names = [value.name for value in streaming.graph.input]
    states = initial_states(contract, 2)
    running, graph_states = session(streaming), [x.numpy() for x in states]
    for _ in range(5):
        x = 3.5 * torch.randn(2, contract.window, 80) - 6
        with torch.no_grad():
            expected, *states = module(x, *states)
        found, *graph_states = running.run(None, dict(zip(names, [x.numpy(), *graph_states])))
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
        for name, ours, theirs in zip(names[1:], states, graph_states):
            torch.testing.assert_close(
                torch.from_numpy(theirs),
                ours,
                rtol=1e-4,
                atol=1e-4,
                msg=lambda m, n=name: f"{n}: {m}",
            )


def without(model: onnx.ModelProto, change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    changed = copy.deepcopy(model)
    change(changed)
    return changed


def set_size(value: onnx.ValueInfoProto, axis: int, size: int) -> None:
    value.type.tensor_type.shape.dim[axis].dim_value = size


def test_the_lint_finds_what_the_client_would_die_of(streaming: onnx.ModelProto) -> None:
    check_streaming(streaming, VOCABULARY)
    for message, change in {
        "must have `T`": lambda m: m.metadata_props.pop(1),
        "there must be 21 outputs": lambda m: m.graph.output.append(m.graph.output[0]),
        "there must be 21 inputs": lambda m: m.graph.input.pop(),
        "output 0 must be frames": lambda m: set_size(m.graph.output[0], 1, 3),
        "input 1 must be cached_key_0": lambda m: set_size(m.graph.input[1], 1, 1),
        "opset must be at most 17": lambda m: setattr(m.opset_import[0], "version", 18),
    }.items():
        with pytest.raises(ValueError, match=message):
            check_streaming(without(streaming, change), VOCABULARY)
    with pytest.raises(ValueError, match="output 0 must be frames"):
        check_streaming(streaming, VOCABULARY + 3)


def test_the_lint_of_whole_utterances(full: onnx.ModelProto) -> None:
    check_full(full, VOCABULARY)
    with pytest.raises(ValueError, match="there must be 2 outputs"):
        check_full(without(full, lambda m: m.graph.output.pop()), VOCABULARY)
    with pytest.raises(ValueError, match="input 0 must be x"):
        check_full(without(full, lambda m: set_size(m.graph.input[0], 1, 99)), VOCABULARY)


def test_the_lint_of_decoder_and_joiner(transducer: TransducerGraphs) -> None:
    vocabulary = MODEL.tokenizer.vocab_size
    decoder, joiner = transducer.decoder.model, transducer.joiner.model
    check_streaming(transducer.encoder.model, 24)
    check_decoder(decoder, 24)
    check_joiner(joiner, 24, vocabulary)
    with pytest.raises(ValueError, match="whole number `context_size`, but have nothing"):
        check_decoder(without(decoder, lambda m: m.metadata_props.pop()), 24)
    with pytest.raises(ValueError, match="output 0 must be decoder_out"):
        check_decoder(decoder, 23)
    with pytest.raises(ValueError, match="input 0 must be y"):
        check_decoder(without(decoder, lambda m: set_size(m.graph.input[0], 1, 3)), 24)
    with pytest.raises(ValueError, match="there must be 2 inputs"):
        check_joiner(without(joiner, lambda m: m.graph.input.pop()), 24, vocabulary)
    with pytest.raises(ValueError, match="output 0 must be logit"):
        check_joiner(joiner, 24, vocabulary + 3)


def test_int8_keeps_the_contract_and_stays_near(
    streaming: onnx.ModelProto, full: onnx.ModelProto
) -> None:
    small = quantised(streaming), quantised(full)
    check_streaming(small[0], VOCABULARY)
    check_full(small[1], VOCABULARY)
    for model in small:
        products = [node.op_type for node in model.graph.node]
        assert products.count("MatMulInteger") > 30
    feeds = {"x": (3 * torch.randn(1, 200, 80) - 6).numpy(), "x_lens": torch.tensor([200]).numpy()}
    exact, rounded = (
        torch.from_numpy(session(model).run(None, feeds)[0])[..., 3:] for model in (full, small[1])
    )
    correlation = torch.corrcoef(torch.stack([exact.flatten(), rounded.flatten()]))[0, 1]
    assert 0.9 < float(correlation) < 1.0, correlation
