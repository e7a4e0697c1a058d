"""The streaming law over every streaming module of the model, and over the whole encoder."""

import functools
from pathlib import Path

import pytest
import torch
from joint_cases import stir
from streaming_contract import (
    Module,
    attended,
    convolved,
    verify_context,
    verify_streaming,
)

from dualasr_lib.core.config import from_dict, read_toml
from dualasr_lib.model.encoder import StreamingEncoder
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig, Zipformer
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import ConvSubsampling, SubsamplingConfig

CPU = torch.device("cpu")
SIZES = Path(__file__).parents[2] / "egs/csj/conf/sizes"


def stacks(*shape: tuple[int, int, int]) -> tuple[StackConfig, ...]:
    """(layers, downsampling, dim) of each stack."""
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)
    return tuple(
        StackConfig(
            layers=layers,
            downsampling=factor,
            layer=LayerConfig(dim=dim, feedforward=16, kernel=7, attention=attention),
        )
        for layers, factor, dim in shape
    )


def untrained(module: torch.nn.Module) -> torch.nn.Module:
    """Weights far from their initial values, so that no path is hidden behind a small scale."""
    torch.manual_seed(0)  # inputs that are drawn next
    stir(module)
    return module.eval()


def heard_by_front_end(frames: int, lookahead: int) -> torch.Tensor:
    """(T / 2, T + E): three convolutions of 3 frames and one of 7, the last two at half the rate,
    reach over 19 frames and their own, of which E are behind the output's.
    """
    first, inputs = 2 * torch.arange(frames), torch.arange(2 * frames + lookahead)
    after = inputs[None, :] - first[:, None]
    return (after >= lookahead - 19) & (after <= lookahead + 1)


def heard_by_stack(config: StackConfig, frames: int, chunk: ChunkSpec) -> torch.Tensor:
    """(T, T): the modules of its layers, one after the other, at the rate of the stack."""
    factor = config.downsampling
    local, size = chunk.downsampled(factor), frames // factor
    sees = attended(size, local.frames, local.left or 0)
    hears = convolved(size, local.frames, config.layer.kernel)
    heard = torch.eye(size, dtype=torch.bool)
    for _ in range(config.layers):
        for module in (sees, sees, hears, sees, hears):  # non-linear attention comes first
            heard = then(module, heard)
    group = torch.arange(frames) // factor
    return heard[group][:, group]


def then(module: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """What is heard through one module behind others."""
    return (module.float() @ before.float()) > 0


@pytest.mark.parametrize("future", [(0, 0, 0, 0), (2, 1, 2, 3), (2, 0, 0, 1)])
@pytest.mark.parametrize("chunk", [2, 16, 32])
def test_subsampling(future: tuple[int, ...], chunk: int) -> None:
    config = SubsamplingConfig(channels=(2, 3, 4), future=future)
    front = untrained(ConvSubsampling(config, num_features=20, dim=6))
    assert isinstance(front, ConvSubsampling)
    assert front.lookahead == future[0] + future[1] + 2 * (future[2] + future[3])

    def forward(x: torch.Tensor) -> torch.Tensor:
        return front.step(x, front.init_state(x.shape[0], CPU))[0]

    module = Module(
        forward, front.step, lambda n: front.init_state(n, CPU), chunk, front.lookahead,
        weights=tuple(front.parameters()), several=True,
    )  # fmt: skip
    verify_streaming(module, torch.randn(3, 6 * chunk + front.lookahead, 20), 1e-4)
    if chunk == 2:
        x = torch.randn(2, 40 + front.lookahead, 20)
        verify_context(module, x, heard_by_front_end(20, front.lookahead))


@pytest.mark.parametrize("frames", [8, 16, 32, 64])
@pytest.mark.parametrize("left_chunks", [1, 2, 4])
def test_zipformer_stacks(frames: int, left_chunks: int) -> None:
    chunk = ChunkSpec(frames=frames, left=frames * left_chunks)
    encoder = untrained(Zipformer(stacks((1, 1, 16), (2, 4, 24), (1, 2, 16)), causal=True))
    assert isinstance(encoder, Zipformer)
    prepared = encoder.prepare(chunk, CPU)
    module = Module(
        lambda x: encoder.forward_chunks(x, chunk),
        lambda x, state: encoder.step(x, state, prepared),
        lambda n: encoder.init_state(n, chunk, CPU),
        frames,
        weights=tuple(encoder.parameters()),
    )
    verify_streaming(module, torch.randn(2, 6 * frames, 16), 1e-4)


@pytest.mark.parametrize("left_chunks", [1, 2])
@pytest.mark.parametrize("shape", [((1, 1, 16),), ((1, 4, 16),), ((2, 1, 16), (1, 2, 24))])
def test_zipformer_stacks_hear_what_is_declared(
    shape: tuple[tuple[int, int, int], ...], left_chunks: int
) -> None:
    """Of the past as much as the left context of each layer gives, and no more."""
    chunk = ChunkSpec(frames=4, left=4 * left_chunks)
    configs = stacks(*shape)
    encoder = untrained(Zipformer(configs, causal=True))
    assert isinstance(encoder, Zipformer)
    x = torch.randn(1, 4 * (4 + 7 * left_chunks * sum(config.layers for config in configs)), 16)
    heard = torch.eye(x.shape[1], dtype=torch.bool)
    for config in configs:
        heard = then(heard_by_stack(config, x.shape[1], chunk), heard)
    assert not heard[-1, 0], "the utterance is too short to tell"
    forward = functools.partial(encoder.forward_chunks, chunk=chunk)
    verify_context(Module(forward, encoder.step, lambda n: None, 4), x, heard)


@pytest.mark.parametrize("future", [(0, 0, 0, 0), (2, 1, 2, 3)])
@pytest.mark.parametrize("frames", [8, 16])
def test_streaming_encoder(future: tuple[int, ...], frames: int) -> None:
    chunk = ChunkSpec(frames=frames, left=2 * frames)
    config = SubsamplingConfig(channels=(2, 3, 4), future=future)
    encoder = untrained(StreamingEncoder(config, stacks((1, 1, 16), (1, 4, 24)), 20))
    assert isinstance(encoder, StreamingEncoder)
    extra, prepared = encoder.lookahead, encoder.prepare(chunk, CPU)

    def forward(x: torch.Tensor) -> torch.Tensor:
        # all frames are valid here: x ends with the look-ahead of the last chunk
        lens = torch.full((x.shape[0],), x.shape[1])
        return encoder(x, lens, chunk).h[:, : (x.shape[1] - extra) // 4]

    def step(x: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        left = torch.full((x.shape[0],), x.shape[1])
        return encoder.step(x, left, state, prepared)  # type: ignore[arg-type]

    weights = tuple(encoder.parameters())
    start = functools.partial(encoder.init_state, chunk=chunk, device=CPU)
    module = Module(forward, step, start, 2 * frames, extra, weights)
    verify_streaming(module, torch.randn(2, 5 * 2 * frames + extra, 20), 1e-4)


@pytest.mark.parametrize("future", [(0, 0, 0, 0), (2, 1, 2, 3)])
def test_any_length_and_nan_padding(future: tuple[int, ...]) -> None:
    """Utterances of any length in one batch equal their own chunk-by-chunk run; padding may hold
    NaN.
    """
    chunk = ChunkSpec(frames=8, left=16)
    config = SubsamplingConfig(channels=(2, 3, 4), future=future)
    encoder = untrained(StreamingEncoder(config, stacks((1, 1, 16), (1, 4, 24)), 20))
    assert isinstance(encoder, StreamingEncoder)
    lens = torch.tensor([1, 15, 16, 17, 50, 99, 128])
    x = torch.randn(len(lens), 131, 20)
    for i, length in enumerate(lens.tolist()):
        x[i, length:] = float("nan")
    with torch.no_grad():
        whole = encoder(x, lens, chunk)
        assert whole.lens.tolist() == [(n + 3) // 4 for n in lens.tolist()]
        for i, length in enumerate(lens.tolist()):
            state, outputs = encoder.init_state(1, chunk, CPU), []
            prepared = encoder.prepare(chunk, CPU)
            for start in range(0, length, 16):
                window = torch.zeros(1, 16 + encoder.lookahead, 20)
                part = x[i : i + 1, start : start + window.shape[1]]
                window[:, : part.shape[1]] = part
                y, state = encoder.step(window, torch.tensor([length - start]), state, prepared)
                outputs.append(y)
            chunked = torch.cat(outputs, 1)[0, : whole.lens[i]]
            torch.testing.assert_close(chunked, whole.h[i, : whole.lens[i]], rtol=1e-4, atol=1e-4)


def test_nan_in_unused_caches_changes_nothing() -> None:
    chunk = ChunkSpec(frames=8, left=16)
    encoder = untrained(Zipformer(stacks((1, 1, 16), (1, 4, 24)), causal=True))
    assert isinstance(encoder, Zipformer)
    x = torch.randn(2, 8, 16)
    start, prepared = encoder.init_state(2, chunk, CPU), encoder.prepare(chunk, CPU)
    dirty = start._replace(
        layers=tuple(
            tuple(
                layer._replace(
                    **{
                        name: torch.full_like(getattr(layer, name), float("nan"))
                        for name in ("key", "nonlinear", "value1", "value2")
                    }
                )
                for layer in stack
            )
            for stack in start.layers
        )
    )
    with torch.no_grad():
        expected, state = encoder.step(x, start, prepared)
        got, other = encoder.step(x, dirty, prepared)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(
            encoder.step(x, other, prepared)[0], encoder.step(x, state, prepared)[0]
        )


@pytest.mark.parametrize("frames", [8, 16, 32, 64])
def test_the_published_small_encoder(frames: int) -> None:
    """Six stacks, kernels of 31, 8-fold downsampling: exact up to rounding, here that of float64;
    in float32 the same errors are some 1e-5 of the largest output.
    """
    values = read_toml(SIZES / "small.toml")["model"]
    config = from_dict(ModelConfig, values)
    made = StreamingEncoder(config.subsampling, config.streaming, config.num_features)
    encoder = untrained(made).double()
    assert isinstance(encoder, StreamingEncoder)
    chunk = ChunkSpec(frames=frames, left=2 * frames)
    lens = torch.tensor([6 * frames, 6 * frames - 5])
    x = torch.randn(2, 6 * frames, 80, dtype=torch.float64)
    prepared, state = encoder.prepare(chunk, CPU), encoder.init_state(2, chunk, CPU)
    with torch.no_grad():
        whole, outputs = encoder(x, lens, chunk), []
        for start in range(0, 6 * frames, 2 * frames):
            window = x[:, start : start + 2 * frames]
            y, state = encoder.step(window, lens - start, state, prepared)
            outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), whole.h, rtol=1e-9, atol=1e-9)


def test_contract_catches_a_leak() -> None:
    """A module that looks one frame ahead without saying so must fail."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + torch.roll(x, -1, dims=1)

    def step(x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + torch.roll(x, -1, dims=1), state

    with pytest.raises(AssertionError, match="chunks differ"):
        verify_streaming(
            Module(forward, step, lambda n: torch.zeros(n, 1), 4), torch.randn(2, 16, 3)
        )
