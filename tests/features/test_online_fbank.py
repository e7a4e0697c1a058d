"""Online filterbank: chunk by chunk it gives what the offline one gives, and streams stay apart."""

import pytest
import torch

from dualasr_lib.core.silence import LOG_MEL_SILENCE
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.features.online import FbankState, OnlineFbank

CONFIG = FbankConfig()
AHEAD = OnlineFbank(CONFIG).lookahead_samples


def _noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(num_samples, generator=generator)


def _reference_windows(samples: torch.Tensor) -> torch.Tensor:
    """Kaldi's definition, sample by sample: index i of the audio, reflected at both ends."""
    n = len(samples)
    rows = []
    for t in range(CONFIG.num_frames(n)):
        begin = t * 160 + 80 - 200
        indices = [i if 0 <= i < n else (-i - 1 if i < 0 else 2 * n - 1 - i) for i in
                   range(begin, begin + 400)]  # fmt: skip
        rows.append(samples[indices])
    return torch.stack(rows)


def _completed(samples: torch.Tensor, chunk: int) -> torch.Tensor:
    """The audio with the reflection of its end, as long as its last step needs it."""
    n = len(samples)
    steps = -(-CONFIG.num_frames(n) * 160 // chunk)
    index = torch.arange(steps * chunk + AHEAD) % (2 * n)
    return samples[torch.where(index < n, index, 2 * n - 1 - index)]


def _stream_windows(samples: torch.Tensor, chunk: int) -> torch.Tensor:
    """All windows of one stream, its tail reflected, in steps of `chunk` new samples."""
    online = OnlineFbank(CONFIG)
    state = online.init_state(1)
    padded = _completed(samples, chunk)
    parts = []
    for begin in range(0, len(padded) - AHEAD, chunk):
        windows, state = online.windows(padded[None, begin : begin + chunk + AHEAD], state)
        parts.append(windows[0])
    return torch.cat(parts)[: CONFIG.num_frames(len(samples))]


@pytest.mark.parametrize("chunk", [160, 320, 640, 5120, 10240, 20480])
@pytest.mark.parametrize("num_samples", [200, 239, 240, 300, 1600, 5121, 20559, 20560, 23456])
def test_windows_are_kaldis(chunk: int, num_samples: int) -> None:
    samples = _noise(num_samples)
    assert torch.equal(_stream_windows(samples, chunk), _reference_windows(samples))


@pytest.mark.parametrize("chunk", [160, 480, 5120, 20480])
def test_online_equals_offline(chunk: int) -> None:
    pytest.importorskip("_kaldifeat")
    samples = _noise(20600)
    online = OnlineFbank(CONFIG)
    state = online.init_state(1)
    padded = _completed(samples, chunk)
    parts = []
    for begin in range(0, len(padded) - AHEAD, chunk):
        features, state = online.step(padded[None, begin : begin + chunk + AHEAD], state)
        assert features.shape == (1, chunk // 160, 80)
        parts.append(features[0])
    offline = Fbank(CONFIG)(samples)
    torch.testing.assert_close(torch.cat(parts)[: len(offline)], offline, atol=1e-4, rtol=0)


def test_streams_of_different_age_share_a_batch() -> None:
    """Three streams join at steps 0, 1 and 3; each sees what it would see alone, to the bit."""
    online = OnlineFbank(CONFIG)
    chunk, starts, steps = 640, (0, 1, 3), 6
    audio = [_noise(steps * chunk + AHEAD, seed) for seed in range(3)]
    fresh = online.init_state(1)
    states = [fresh, fresh, fresh]
    got: list[list[torch.Tensor]] = [[], [], []]
    for step in range(steps):
        live = [i for i in range(3) if step >= starts[i]]
        begins = [(step - starts[i]) * chunk for i in live]
        batch = [audio[i][b : b + chunk + AHEAD] for i, b in zip(live, begins, strict=True)]
        joined = FbankState(
            torch.cat([states[i].left for i in live]), torch.cat([states[i].age for i in live])
        )
        windows, after = online.windows(torch.stack(batch), joined)
        for row, i in enumerate(live):
            got[i].append(windows[row])
            states[i] = FbankState(after.left[row : row + 1], after.age[row : row + 1])
    for i in range(3):
        produced = torch.cat(got[i])
        assert int(states[i].age) == len(produced) == (steps - starts[i]) * 4
        # Frames of the whole audio that no reflected tail reaches.
        assert torch.equal(produced, _reference_windows(audio[i])[: len(produced)])


def test_nan_in_one_stream_changes_no_other() -> None:
    pytest.importorskip("_kaldifeat")
    online = OnlineFbank(CONFIG)
    samples = torch.stack([_noise(760, 1), _noise(760, 2), _noise(760, 3)])
    broken = samples.clone()
    broken[1] = float("nan")
    state = online.init_state(3)
    poisoned = FbankState(state.left.clone().fill_(float("nan")), state.age)  # unused at age 0
    clean, clean_state = online.step(samples, state)
    dirty, dirty_state = online.step(broken, poisoned)
    others = [0, 2]
    assert torch.equal(clean[others], dirty[others])
    assert torch.equal(clean_state.left[others], dirty_state.left[others])
    assert dirty[1].isnan().all()


def test_step_changes_neither_its_input_nor_the_state() -> None:
    online = OnlineFbank(CONFIG)
    samples = _noise(440)[None]
    _, state = online.windows(samples, online.init_state(1))
    before = FbankState(state.left.clone(), state.age.clone())
    kept = samples.clone()
    online.windows(samples, state)
    assert torch.equal(samples, kept)
    assert torch.equal(state.left, before.left)
    assert torch.equal(state.age, before.age)


def test_silence_online_has_the_pad_value() -> None:
    pytest.importorskip("_kaldifeat")
    online = OnlineFbank(CONFIG)
    features, _ = online.step(torch.zeros(2, 440), online.init_state(2))
    torch.testing.assert_close(features, torch.full((2, 2, 80), LOG_MEL_SILENCE))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(2, 160), "positive multiple of 160"),
        (torch.zeros(2, 330), "holds 330"),
        (torch.zeros(2, 120), "holds 120"),
        (torch.zeros(3, 280), "each of the 2 streams"),
        (torch.zeros(280), "float32 of shape"),
        (torch.zeros(2, 280, dtype=torch.int16), "int16"),
    ],
)
def test_wrong_windows_are_a_clear_error(samples: torch.Tensor, message: str) -> None:
    online = OnlineFbank(CONFIG)
    with pytest.raises(ValueError, match=message):
        online.windows(samples, online.init_state(2))
