"""tools/bench_training.py: complete output, targets and verdicts, what it refuses. Times are only
looked at where a fake clock makes them.
"""

import functools
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_training
import pytest
import torch
from bench import breakdown, training
from bench.breakdown import OTHER, break_down, parts_of
from bench.memory import Peak, peak_memory
from bench.names import CASE_NAMES
from bench.report import HEADER, Row, announce, cells
from bench.timing import Gemm, Rate, Work, run_rounds, single_product
from bench.training import PartRow, efficiencies, part_rows
from bench.workloads import Setting, build_encoder, is_yardstick, train_encoder
from bench_tiny import write_tiny
from torch import Tensor, nn

from dualasr_lib.core.table import markdown

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "egs" / "csj" / "conf" / "sizes" / "small.toml"


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1.0

    def __call__(self) -> float:
        return self.now


class _Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: "Slow") -> Tensor:
        ctx.module = module
        module.clock.now += module.ahead
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.module.clock.now += ctx.module.back
        return grads[0], None


class Slow(nn.Module):
    """Identity that takes `ahead` seconds forward and `back` seconds backward."""

    def __init__(self, clock: Clock, ahead: float, back: float) -> None:
        super().__init__()
        self.clock, self.ahead, self.back = clock, ahead, back

    def forward(self, x: Tensor) -> Tensor:
        return _Slow.apply(x, self)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Another public method, with a state that gets no gradient."""
        return self.forward(x), state + x


class Chain(nn.Module):
    """A U-Net of three slow parts, one of them used twice and one called by another method."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.first, self.second = Slow(clock, 1.0, 2.0), Slow(clock, 4.0, 8.0)
        self.loose = Slow(clock, 16.0, 32.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z, _ = self.second.step(y, torch.zeros(3))
        return self.loose(self.second(y + z) + y)


def test_breakdown_gives_each_part_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(breakdown.time, "process_time", clock)
    chain = Chain(clock)
    x = torch.ones(3, requires_grad=True)
    parts = parts_of(chain, Chain)
    assert list(parts) == ["first", "second", "loose"]
    del parts["loose"]
    work = Work(
        name="chain",
        seconds=1.0,
        forward=lambda: chain(x).sum(),
        backward=lambda loss: loss.backward(),
        clear=lambda: None,
        parts=parts,
    )
    (times,) = break_down(work, CPU, rounds=1)
    assert times["first"] == {"forward": 1.0, "backward": 2.0}
    assert times["second"] == {"forward": 8.0, "backward": 16.0}
    assert times[OTHER] == {"forward": 16.0, "backward": 32.0}
    assert "forward" not in vars(chain.first), "the wrappers must be gone"


def test_parts_are_stacks_and_whole_modules(tmp_path: Path) -> None:
    encoder = build_encoder(Setting(config=write_tiny(tmp_path), chunk=8, left=16))
    names = list(parts_of(encoder, type(encoder.stacks)))
    assert {"subsampling", "stacks.0", "stacks.1", "downsample"} <= set(names)


def test_part_rows_are_medians_per_second_of_audio() -> None:
    found = [
        {OTHER: {"forward": 0.5, "backward": 0.0}, "a": {"forward": t, "backward": 2 * t}}
        for t in (1.0, 3.0, 2.0)
    ]
    assert part_rows(found, 10.0) == [PartRow("a", 200.0, 400.0), PartRow(OTHER, 50.0, 0.0)]


def test_rounds_take_turns_from_the_same_seeds() -> None:
    log: list[tuple[str, float]] = []

    def work(name: str) -> Work:
        return Work(
            name=name,
            seconds=1.0,
            forward=lambda: log.append((name, float(torch.rand(())))) or torch.zeros(()),
            backward=lambda value: None,
            clear=lambda: log.append((f"clear {name}", 0.0)),
            parts={},
        )

    found = run_rounds([work("a"), work("b")], 2, CPU)
    names = [name for name, _ in log]
    turns = ["a", "b", "a", "b", "b", "a"]  # one to warm up, two rounds
    assert names == [word for name in turns for word in (f"clear {name}", name)]
    drawn = [value for name, value in log if not name.startswith("clear")]
    assert drawn[2] == drawn[3] != drawn[4] == drawn[5]
    assert [len(steps) for steps in found.steps.values()] == [2, 2]
    assert found.square == []


def test_gemm_rates_are_of_this_world() -> None:
    gemm = Gemm(CPU, torch.float32, sides=(64, 128))
    single = single_product(CPU, torch.float32, side=64)
    for rate in (gemm.square(), gemm.narrow(), single):
        assert 1e7 < rate.wall < 1e14 and 1e7 < rate.cpu < 1e14


def test_efficiency() -> None:
    # 3.9 GF in 39 ms are 100 GF/s.
    assert efficiencies([39.0, 78.0], [100e9, 100e9]) == pytest.approx([1.0, 0.5])


def test_peak_memory_is_that_of_the_other_process() -> None:
    here = bytearray(600_000_000)  # must not count over there
    small, large = (peak_memory(bytearray, size) for size in (1, 100_000_000))
    assert small.peak < len(here)
    assert 0.9e8 < large.net - small.net < 1.5e8
    assert large.peak == large.base + large.net


def test_failures_in_the_other_process_are_told() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        peak_memory(int, "no number")
    with pytest.raises(ValueError, match="killed or crashed"):
        peak_memory(os._exit, 3)


def test_a_training_step_has_a_peak(tmp_path: Path) -> None:
    setting = Setting(
        config=write_tiny(tmp_path), utterances=2, seconds=1.0, chunk=8, left=16, threads=1
    )
    peak = peak_memory(train_encoder, setting)
    assert 0 < peak.net < peak.peak


def test_verdicts_and_table() -> None:
    rows = [
        Row("a", "b", 1.5, "GB", at_most=3.0),
        Row("a", "b", 0.64, at_least=0.65),
        Row("a", "b", 1234.5),
        Row("a", "b", math.nan),
    ]
    assert [row.passed for row in rows] == [True, False, None, None]
    assert [cells(row)[2:] for row in rows] == [
        ("1.50 GB", "<= 3.00 GB", "pass"),
        ("0.64", ">= 0.65", "MISS"),
        ("1234", "", ""),
        ("-", "", ""),
    ]
    lines = markdown([HEADER, *map(cells, rows)]).splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert set(lines[1]) == set("| -")


def test_settings_are_told_and_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "THP_MEM_ALLOC_ENABLE")
    malloc = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    for name in (*names, *malloc):
        monkeypatch.setenv(name, "1")
    assert announce(1, "cpu")["env"]["THP_MEM_ALLOC_ENABLE"] == "1"
    out, err = capsys.readouterr()
    assert "MALLOC_TRIM_THRESHOLD_: 1" in out and torch.__version__ in out and err == ""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    announce(1, "cpu")
    err = capsys.readouterr().err
    assert "MALLOC_TRIM_THRESHOLD_ not set" in err and "tools/env.sh" in err


@pytest.mark.parametrize(("half", "target"), [(180e9, 0.70), (1.5e9, None)])
def test_bf16_is_judged_where_the_machine_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, half: float, target: float | None
) -> None:
    rates = {torch.bfloat16: Rate(half, half), torch.float32: Rate(90e9, 90e9)}
    monkeypatch.setattr(training, "single_product", lambda device, dtype: rates[dtype])
    setting = Setting(config=write_tiny(tmp_path), utterances=2, seconds=1.0, chunk=8, left=16)
    bench = training.Bench(setting, setting, rounds=1, breakdown=False, clock="cpu")
    rows = {row.what: row for row in training.bf16_case(bench).rows}
    assert rows["bfloat16 / float32"].at_most == target
    assert rows["bfloat16 GEMM, one of 512"].value == pytest.approx(half / 1e9)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs the program on the tiny model, with small matrix products."""
    monkeypatch.setattr(training, "Gemm", functools.partial(Gemm, sides=(64,)))
    config = write_tiny(tmp_path)
    options = ["--config", config, "--joint-config", config, "--chunk", 8, "--left", 16]
    options += ["--utterances", 2, "--seconds", 1.0, "--rounds", 2, "--vocab-size", 11]

    def start(*arguments: object) -> None:
        words = ["bench_training.py", *map(str, options), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        bench_training.main()

    return start


def test_all_cases(
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    asked: list[tuple[int, float]] = []

    def peak(work: Callable[[Setting], None], setting: Setting) -> Peak:
        asked.append((setting.utterances, setting.seconds))
        return Peak(10**9 + round(1e8 * setting.seconds), 10**9)

    monkeypatch.setattr(training, "peak_memory", peak)
    run("--json", tmp_path / "out.json")
    out = capsys.readouterr().out
    has_k2 = importlib.util.find_spec("k2") is not None
    assert asked == [(1, 2.5), (1, 5.0), (1, 10.0), *[(2, 1.0)] * (5 if has_k2 else 4)]
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    values = {(row["case"], row["what"]): row["value"] for row in report["rows"]}
    assert all(map(math.isfinite, values.values()))
    differences = {"transducer V=11 memory"}  # of made-up peaks
    assert all(value > 0 for (case, _), value in values.items() if case not in differences)
    cases = {case.split()[0] for case, _ in values}
    expected = {"encoder", "joint", "long", "memory", "transducer", "heads"}
    assert cases == (expected | {"bf16"} if torch.__version__ >= "2" else expected)
    assert ("joint float32", "both branches / streaming branch alone") in values
    assert ("heads V=11 tiny.toml", "3 heads per branch / 2 heads per branch") in values
    growth = [row for row in report["rows"] if "second doubling" in row["what"]]
    assert growth[0]["value"] == pytest.approx(2.0) and growth[0]["passed"] is True
    parts = {row["part"] for row in report["parts"]["joint float32"]}
    assert {"ctc loss", "heads.ctc.full", "heads.attention.streaming", OTHER} <= parts
    assert {row["part"] for row in report["parts"]["encoder float32"]} >= {
        "subsampling",
        "stacks.1",
    }
    assert "case gpu left out: it needs --device cuda" in out
    assert out.count("| verdict |") == 1 and "| (rest)" in out


def test_no_efficiency_of_another_encoder(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run("--case", "encoder", "--no-breakdown")
    out = capsys.readouterr().out
    assert "efficiency" not in out and "by part" not in out and "5000x192x512" in out


def test_efficiency_of_the_published_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(Setting(config=SMALL))
    assert is_yardstick(encoder) and encoder.training
    monkeypatch.setattr(training, "Gemm", functools.partial(Gemm, sides=(64,)))
    setting = Setting(config=SMALL, utterances=1, seconds=1.0)
    bench = training.Bench(setting, setting, rounds=1, breakdown=False, clock="cpu")
    rows = {row.what: row for row in training.encoder_case(bench).rows}
    assert rows["arithmetic efficiency (cpu)"].at_least == training.EFFICIENCY
    assert rows["arithmetic efficiency (wall)"].passed is None


def test_gpu_case_reports_what_a_gpu_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The case's own steps on the CPU; the GPU's memory counters and products are made up."""
    float32 = Gemm(CPU, torch.float32, sides=(64,))  # bfloat16 takes minutes on some CPUs
    monkeypatch.setattr(training, "Gemm", lambda device, dtype: float32)
    monkeypatch.setattr(training, "_GPU_BATCH", (3, 1.0))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 * 10**9)
    setting = Setting(config=write_tiny(tmp_path), chunk=8, left=16)
    bench = training.Bench(setting, setting, rounds=2, breakdown=False, clock="wall")
    rows = {row.what: row for row in training.gpu_case(bench).rows}
    assert rows["peak memory of a 3 s batch"].value == 7.0
    milliseconds = rows["forward + backward, median (wall)"].value  # per second of audio
    assert rows["encoder, forward + backward: audio hours per second"].value == pytest.approx(
        1 / (3.6 * milliseconds)
    )
    assert rows["bfloat16 GEMM, best square (wall)"].value > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", 0), "--rounds must be at least 1, but is 0"),
        (("--utterances", 0), "must be positive"),
        (("--case", "gpu"), "case gpu cannot run: it needs --device cuda"),
        (("--case", "joint", "--joint-config", "no.toml"), "no.toml does not exist"),
        (("--config", "no.toml", "--case", "encoder"), "cannot read config file"),
        (("--chunk", 7, "--left", 14, "--case", "encoder"), "multiple of"),
        (("--left", 15), "left context must be"),
        (("--device", "abacus"), "device must be cpu or cuda, but is 'abacus'"),
        (("--set", "model.streaming=[]", "--case", "encoder"), "has none"),
        (("--set", "model.streeming=3", "--case", "joint"), "did you mean 'streaming'"),
    ],
)
def test_refusals(run: Callable[..., None], arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(*arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cases_are_those_that_help_lists() -> None:
    assert tuple(training.CASES) == CASE_NAMES


def test_an_error_is_one_line() -> None:
    program = [sys.executable, str(ROOT / "tools" / "bench_training.py"), "--device", "cuda"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "bench_training.py: error: device cuda needs a GPU that torch can use; there is none"
    ]


def test_rates_between_rounds() -> None:
    class Fake:
        def __init__(self) -> None:
            self.rates = iter((1.0, 3.0, 7.0))

        def square(self) -> Rate:
            value = next(self.rates)
            return Rate(value, 2 * value)

        def narrow(self) -> Rate:
            return Rate(1.0, 1.0)

    work = Work(
        name="a",
        seconds=1.0,
        forward=lambda: torch.zeros(()),
        backward=lambda value: None,
        clear=lambda: None,
        parts={},
    )
    found = run_rounds([work], 2, CPU, Fake())  # type: ignore[arg-type]
    assert found.square == [Rate(2.0, 4.0), Rate(5.0, 10.0)]
