"""Meter, loss scale, seeding, signals: the small parts of the loop."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dualasr_lib.core.device import local_device
from dualasr_lib.training.contract import Term
from dualasr_lib.training.distributed import World
from dualasr_lib.training.meter import Meter
from dualasr_lib.training.precision import LossScale
from dualasr_lib.training.randomness import seed_all
from dualasr_lib.training.signals import Interrupted, StopSignal

_ROOT = Path(__file__).parents[2]


def test_a_meter_gives_weighted_means_and_starts_again() -> None:
    meter = Meter()
    meter.add({"ctc": Term(torch.tensor(6.0, requires_grad=True), 3.0), "n": Term(1, 1.0)})
    meter.add({"ctc": Term(torch.tensor(2.0), 5.0), "late": Term(0.5, 2.0), "none": Term(0.0, 0.0)})
    assert meter.take(World()) == {"ctc": 1.0, "n": 1.0, "late": 0.25}
    assert meter.take(World()) == {}


def test_a_meter_adds_in_double_precision() -> None:
    meter = Meter()
    for _ in range(10):
        meter.add({"x": Term(torch.tensor(2.0**24), 0.0)})
    meter.add({"x": Term(torch.tensor(1.0), 1.0)})
    assert meter.take(World())["x"] == 10 * 2.0**24 + 1


def test_the_loss_scale_halves_on_overflow_and_doubles_after_a_while() -> None:
    scale = LossScale("float16")
    assert scale.adapt(finite=False)
    assert scale.value == 2.0**14
    for _ in range(2000):
        assert not scale.adapt(finite=True)
    assert scale.value == 2.0**15
    for _ in range(31):  # scales below 1 are sound for a sum over thousands of tokens
        assert scale.adapt(finite=False)
    assert scale.value == 2.0**-16
    assert not scale.adapt(finite=False)  # below that: not the fault of the scale
    other = LossScale("float16")
    other.load_state_dict(scale.state_dict())
    assert other.value == scale.value == 2.0**-17


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_types_need_no_loss_scale(dtype: str) -> None:
    scale = LossScale(dtype)
    assert not scale.adapt(finite=False)
    assert scale.value == 1.0


def test_seeding_reaches_all_generators() -> None:
    numpy = pytest.importorskip("numpy")

    def draw() -> tuple[float, float, float]:
        return random.random(), float(torch.rand(())), float(numpy.random.rand())

    seed_all(0, 5, "step")
    first = draw()
    assert all(a != b for a, b in zip(draw(), first))
    seed_all(0, 5, "step")
    assert draw() == first
    seed_all(0, 6, "step")
    assert all(a != b for a, b in zip(draw(), first))


def test_a_signal_is_remembered_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(Interrupted), stop.interruptible():
            raise AssertionError("must not be reached")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_forked_worker_ignores_the_signal() -> None:
    """A data worker must outlive the signal that a whole process group gets."""
    program = (
        "import os, signal\n"
        "from dualasr_lib.training.signals import StopSignal\n"
        "with StopSignal() as stop:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os._exit(3 + stop.requested)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert found.stdout.decode().strip() == "3", found.stderr.decode()


def test_local_device() -> None:
    assert local_device("cpu") == torch.device("cpu")
    assert local_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs a GPU"):
            local_device("cuda")
