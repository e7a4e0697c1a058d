"""Blocks of samples: what is accepted, how it is scaled, and what is refused in one line."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dualasr_lib.core.levels import LOUDEST
from dualasr_lib.decoding.samples import as_mono, as_samples

VALUES = [0.0, 0.5, -0.25, 1.0, -1.0]
HALF = np.array(VALUES, np.float32)


@pytest.mark.parametrize(
    "block",
    [
        torch.tensor(VALUES),
        torch.tensor(VALUES, dtype=torch.float64),
        torch.tensor(VALUES, dtype=torch.float16),
        torch.tensor(VALUES, requires_grad=True),
        HALF,
        HALF.astype(np.float64),
        HALF.astype(np.longdouble),
        HALF.astype(">f4"),
        HALF[::-1].copy()[::-1],
        np.repeat(HALF, 2)[::2],
        np.frombuffer(HALF.tobytes(), np.float32),
    ],
)
def test_floats(block: Any) -> None:
    samples = as_samples(block)
    assert isinstance(samples, np.ndarray) and samples.dtype == np.float32
    assert samples.tolist() == VALUES


@pytest.mark.parametrize("dtype", ["<i2", ">i2"])
def test_samples_of_16_bits_are_scaled(dtype: str) -> None:
    block = np.array([0, 16384, -8192, 32767, -32768], dtype)
    expected = [0.0, 0.5, -0.25, 32767 / 32768, -1.0]
    assert as_samples(block).tolist() == expected
    assert as_samples(torch.from_numpy(block.astype(np.int16))).tolist() == expected


def test_no_samples_are_a_block() -> None:
    assert as_samples(np.zeros(0, np.int16)).shape == (0,)
    assert as_samples(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (torch.zeros(1, 5), r"is \(1, 5\) float32"),
        (np.zeros((5, 2)), r"is \(5, 2\) float64"),
        (np.zeros(()), r"is \(\) float64"),
        (torch.zeros(5, dtype=torch.int32), "int32"),
        (np.zeros(5, np.int64), "int64"),
        (np.zeros(5, np.uint8), "uint8 array"),
        (np.zeros(5, bool), "bool array"),
        (np.zeros(5, complex), "complex128 array"),
        (np.array(["a"]), "<U1 array"),
        ([0.0, 0.1], "list: numpy.asarray"),
        (b"\0\0", "bytes: numpy.frombuffer"),
        (None, "NoneType"),
        ("a.wav", "str"),
        (3.5, "float"),
    ],
)
def test_what_is_no_block(block: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        as_samples(block)
    assert "\n" not in str(error.value)
    assert "float" in str(error.value) and "int16" in str(error.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_numbers(bad: float) -> None:
    block = torch.zeros(16000)
    block[4000] = bad
    with pytest.raises(ValueError, match=r"NaN or infinity at 10\.250 s"):
        as_samples(block, 10.0, 16000)


def test_samples_of_16_bits_cast_to_float_are_no_speech() -> None:
    block = np.zeros(16000, np.float32)
    block[8000] = -12000.0
    with pytest.raises(ValueError, match=r"-12000 at 0\.500 s: divide samples of 16 bits by 32768"):
        as_samples(block)


def test_a_little_beyond_full_scale_is_no_error() -> None:
    loud: Tensor = torch.tensor([1.4, -LOUDEST, LOUDEST])
    assert np.array_equal(as_samples(loud), loud.numpy())


def test_channels_are_averaged() -> None:
    both = np.stack([HALF, -HALF / 2])
    assert as_mono(both).tolist() == (HALF / 4).tolist()
    assert as_mono(torch.from_numpy(both)).tolist() == (HALF / 4).tolist()
    assert as_mono(HALF).tolist() == VALUES
    assert as_mono(np.full((2, 1), 16384, np.int16)).tolist() == [0.5]
    assert as_mono(np.zeros((2, 0))).shape == (0,)


@pytest.mark.parametrize("shape", [(16000, 2), (9, 5), (0, 5)])
def test_channels_that_are_none(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"\(channels, samples\) .*: transpose it"):
        as_mono(np.zeros(shape))
