"""tools/count_parameters.py: the published sizes, the parts of joint models, refusals."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import count_parameters
import pytest
from bench.joint import build_joint
from bench.parameters import encoder_counts, joint_counts, size
from bench.workloads import Setting, build_encoder
from bench_tiny import TINY, write_tiny

SIZES = Path(__file__).resolve().parents[2] / "egs" / "csj" / "conf" / "sizes"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def start(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["count_parameters.py", "--config", *map(str, arguments)])
        count_parameters.main()

    return start


def test_parts_sum_up(tmp_path: Path) -> None:
    setting = Setting(config=write_tiny(tmp_path), chunk=8, left=16, vocab_size=11)
    model, _ = build_joint(setting)
    counts = joint_counts(setting)
    assert sum(counts.values()) == size(model)
    assert counts["front end"] == size(model.streaming.subsampling)
    assert counts["ctc.full"] == 24 * 11 + 11
    assert counts["attention.full"] == size(model.head("attention", "full"))


def test_encoder_counts(tmp_path: Path) -> None:
    setting = Setting(config=write_tiny(tmp_path), chunk=8, left=16)
    counts = encoder_counts(setting, 500)
    assert counts.encoder == size(build_encoder(setting))
    assert counts.ctc_causal == counts.encoder + 25 * 500
    # A chunk-causal convolution has, beside the symmetric kernel and its bias, a causal kernel of
    # K // 2 + 1 with a bias, and two edges of K; two convolutions in each of the two layers.
    more = sum(2 * dim * ((7 // 2 + 1) + 1 + 2 * 7) for dim in (16, 24))
    assert counts.ctc_causal - counts.ctc_symmetric == more


@pytest.mark.parametrize(("name", "millions"), [("small", 22.1), ("medium", 64.3)])
def test_published_sizes(name: str, millions: float) -> None:
    counts = encoder_counts(Setting(config=SIZES / f"{name}.toml"), 500)
    assert counts.ctc_symmetric / 1e6 == pytest.approx(millions, rel=0.005)


def test_tables(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "small").mkdir()
    other = write_tiny(tmp_path / "small")
    path, report = write_tiny(tmp_path), tmp_path / "out.json"
    run(path, other, "--vocab-size", 11, "--json", report)
    out = capsys.readouterr().out
    names = [f"{tmp_path.name}/tiny", "small/tiny"]
    values = json.loads(report.read_text(encoding="utf-8"))
    assert list(values["encoders"]) == list(values["joint"]) == names
    assert values["joint"][names[0]] == values["joint"][names[1]]
    assert all(f"| {name} " in out for name in names)
    assert "| total " in out and "| attention.streaming " in out and "V = 11" in out


def test_encoder_alone_is_no_joint_model(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "small.toml"  # compared with the published model of that name
    path.write_text(TINY.partition("[[model.full]]")[0], encoding="utf-8")
    run(path)
    out = capsys.readouterr().out
    assert "Joint" not in out and "22.10" in out and "22.33" in out and "-99." in out


def test_one_branch_has_no_other_decoder(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(write_tiny(tmp_path), "--set", 'model.branches=["streaming"]')
    out = capsys.readouterr().out
    assert "attention.streaming" in out and "attention.full" not in out


def test_refusals(run: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read config file"):
        run(tmp_path / "no.toml")
    empty = tmp_path / "empty.toml"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must have \[\[model.streaming\]\] stacks"):
        run(empty)
    with pytest.raises(ValueError, match="did you mean 'heads'"):
        run(write_tiny(tmp_path), "--set", "model.head=3")
    with pytest.raises(
        ValueError, match=r"model\.decoder' is now the section model\.heads\.attention"
    ):
        run(write_tiny(tmp_path), "--set", "model.decoder.layers=3")
