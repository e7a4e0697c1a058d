"""tools/bench_streaming.py: complete output, targets scaled by the machine's speed, refusals."""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import bench_streaming
import pytest
import torch
from bench import streaming
from bench.streaming import Load, Measured, measure_loads, percentile, target_ms
from bench.timing import Gemm, Rate, Time
from bench.workloads import Setting, build_encoder
from bench_tiny import write_tiny
from torch import Tensor

from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs the program on the tiny model, with small matrix products."""
    monkeypatch.setattr(streaming, "Gemm", functools.partial(Gemm, sides=(64,)))
    options = ["--config", write_tiny(tmp_path), "--left", 32, "--rounds", 2, "--steps", 3]

    def start(*arguments: object) -> None:
        words = ["bench_streaming.py", *map(str, options), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        bench_streaming.main()

    return start


def test_every_load_has_its_line(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run("--chunks", 8, 32, "--streams", 1, 3, "--json", tmp_path / "out.json")
    lines = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["loads"]
    assert [(line["chunk"], line["streams"]) for line in lines] == [
        (8, 1),
        (8, 3),
        (32, 1),
        (32, 3),
    ]
    assert [line["algorithmic_ms"] for line in lines] == [160, 160, 640, 640]
    for line in lines:
        assert 0 < line["p50_ms"] <= line["p99_ms"]
        assert line["cpu_p50_ms"] > 0 and line["rtf_per_stream"] > 0 and line["gemm_gflops"] > 0
        assert line["passed"] is None, "targets are for the published size"
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4 and len({len(line) for line in table}) == 1


def test_lookahead_is_part_of_the_latency(run: Callable[..., None], tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    future = [1] * len(SubsamplingConfig().future)
    override = f"model.subsampling.future={future}"
    run("--chunks", 8, "--streams", 1, "--set", override, "--json", report)
    (line,) = json.loads(report.read_text(encoding="utf-8"))["loads"]
    setting = Setting(config=write_tiny(tmp_path), overrides=(override,), chunk=8, left=16)
    lookahead = build_encoder(setting).lookahead
    assert lookahead > 0
    assert line["algorithmic_ms"] == 160 + 10 * lookahead


def test_summary_and_verdict() -> None:
    steps = [Time(wall / 1000, cpu / 1000) for wall, cpu in ((80, 70), (64, 60), (100, 90))]
    measured = Measured(Load(32, 1), steps, [Rate(100e9, 45e9)])
    line = bench_streaming.summary(measured, 13, judged=True)
    assert line == {
        "chunk": 32,
        "streams": 1,
        "algorithmic_ms": 770,
        "p50_ms": pytest.approx(80.0),
        "p99_ms": pytest.approx(100.0),
        "cpu_p50_ms": pytest.approx(70.0),
        "rtf_per_stream": pytest.approx(0.125),
        "gemm_gflops": pytest.approx(100.0),
        "target_cpu_ms": pytest.approx(76.0),  # 38 ms at 90 GF/s
        "passed": True,
    }
    late = measured._replace(rates=[Rate(100e9, 90e9)])
    assert bench_streaming.summary(late, 0, judged=True)["passed"] is False
    assert bench_streaming.summary(late, 0, judged=False)["passed"] is None
    assert "MISS" in bench_streaming.table([bench_streaming.summary(late, 0, judged=True)])


def test_targets_are_for_two_loads() -> None:
    rates = [Rate(1.0, 90e9)]
    assert target_ms(Measured(Load(32, 8), [], rates)) == pytest.approx(110.0)
    for load in (Load(16, 1), Load(32, 32), Load(64, 8)):
        assert target_ms(Measured(load, [], rates)) is None


def test_percentile() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_steps_are_the_encoder_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """States go on from step to step, no gradient is kept, and every load gets its turns."""
    monkeypatch.setattr(streaming, "Gemm", functools.partial(Gemm, sides=(64,)))
    setting = Setting(config=write_tiny(tmp_path), chunk=8, left=16)
    encoder = build_encoder(setting).eval()
    own, seen = encoder.step, []

    def step(*arguments: object) -> object:
        h, state = own(*arguments)  # type: ignore[arg-type]
        seen.append((tuple(h.shape[:2]), h.requires_grad, int(state.stacks.processed[0])))
        return h, state

    monkeypatch.setattr(encoder, "step", step)
    found = measure_loads(encoder, setting, [Load(8, 1), Load(16, 2)], rounds=2, steps=2)
    assert [len(item.steps) for item in found] == [4, 4]
    assert [len(item.rates) for item in found] == [2, 2]
    small = [item for item in seen if item[0] == (1, 4)]
    large = [item for item in seen if item[0] == (2, 8)]
    assert len(small) == len(large) == 2 * (3 + 2)
    assert [item[2] for item in large] == [16 * (k + 1) for k in range(10)]
    assert not any(item[1] for item in seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), "--steps must be at least 1, but is 0"),
        (("--rounds", -1), "--rounds must be at least 1"),
        (("--streams", 0), "--streams must be at least 1"),
        (("--chunks", 8, 5), "left context must be"),
        (("--chunks", 2, 1), "multiple of"),
        (("--threads", 0), "must be positive"),
        (("--config", "no.toml", "--chunks", 8), "cannot read config file"),
        (("--device", "abacus"), "device must be cpu or cuda"),
    ],
)
def test_refusals(run: Callable[..., None], arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(*arguments)


def test_help_names_the_targets(
    capsys: pytest.CaptureFixture[str], run: Callable[..., None]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("--help")
    assert stopped.value.code == 0
    assert "38 ms" in capsys.readouterr().out


def test_random_features_are_not_all_alike(tmp_path: Path) -> None:
    """Work of a step must not shrink because the input is trivial (denormals, zeros)."""
    setting = Setting(config=write_tiny(tmp_path), chunk=8, left=16)
    encoder = build_encoder(setting).eval()
    outputs: list[Tensor] = []
    with torch.no_grad():
        stream = streaming.RunningStream(encoder, setting, Load(8, 2))
        outputs.extend(stream.step() for _ in range(2))
    assert all(bool(h.isfinite().all()) and float(h.std()) > 0 for h in outputs)
