"""tools/analysis/power.py: planted variance components, and the power of the real test."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from analysis.matrix.results import read_results
from analysis.power_model import Noise, budget, components, power

from dualasr_lib.metrics.bootstrap import BootstrapConfig, p_over_seeds

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "egs/csj/figures/matrix-noisy.json"


def made_up(
    rng: np.random.Generator, utterances: int, seeds: int, noise: Noise, gain: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of a baseline with 10 errors in each utterance of 20 characters, and of a system."""
    size = (utterances, seeds)
    share = (
        noise.utterance / 20**0.5 * rng.standard_normal((utterances, 1))
        + noise.seed * rng.standard_normal((1, seeds))
        + noise.both / 20**0.5 * rng.standard_normal(size)
    )
    baseline = np.full(size, 10.0)
    return baseline, baseline * (1 - gain - share)


def test_planted_components_are_found() -> None:
    noise = Noise(utterance=2.0, seed=0.05, both=1.0)
    baseline, system = made_up(np.random.default_rng(1), 2000, 40, noise, gain=0.1)
    found = components(baseline, system, 40_000)
    assert found.noise.utterance == pytest.approx(2.0, rel=0.05)
    assert found.noise.both == pytest.approx(1.0, rel=0.02)
    assert found.noise.seed == pytest.approx(0.05, rel=0.25)
    low, high = found.seed_range
    assert low < 0.05 < high and high < 2 * low
    assert found.gain == pytest.approx(0.1, abs=0.03)


def test_parts_add_up_and_shrink_with_their_own_size() -> None:
    noise = Noise(utterance=2.0, seed=0.05, both=1.0)
    small, more_text, more_seeds = noise.errors(100, 4), noise.errors(400, 4), noise.errors(100, 16)
    assert small[:3] == pytest.approx((0.2, 0.025, 0.05))
    assert small.all == pytest.approx((0.2**2 + 0.025**2 + 0.05**2) ** 0.5)
    assert more_text[:3] == pytest.approx((0.1, 0.025, 0.025))
    assert more_seeds[:3] == pytest.approx((0.2, 0.0125, 0.025))
    assert noise.with_seeds(0.25) == Noise(2.0, 0.025, 1.0)


def test_power_is_that_of_the_test_which_the_tables_make() -> None:
    """A slow way: made-up errors of every utterance, and the bootstrap's own p-value."""
    noise, gain, utterances, seeds = Noise(1.0, 0.05, 1.0), 0.08, 150, 4
    rng = np.random.default_rng(2)
    config = BootstrapConfig(num_draws=300)
    hits = 0
    for _ in range(250):
        sides = made_up(rng, utterances, seeds, noise, gain)
        p = p_over_seeds(*(np.rint(100 * side).astype(int).T.tolist() for side in sides), config)
        hits += p is not None and p < 0.05
    fast = power(noise, gain, 20 * utterances, seeds, 4000)
    assert 0.2 < fast < 0.9
    assert hits / 250 == pytest.approx(fast, abs=0.1)


def test_power_of_nothing_much_and_of_everything() -> None:
    noise = Noise(1.0, 0.05, 1.0)
    assert power(noise, 1e-9, 10_000, 5, 4000) < 0.05
    assert power(noise, 0.9, 10_000, 5, 1000) == 1.0
    powers = [power(noise, 0.04, 10_000, seeds, 4000) for seeds in (3, 6, 12, 24)]
    assert powers == sorted(powers)


def test_the_runs_on_record() -> None:
    results = read_results(RECORD)
    found = budget(results, "sp-kd", "standalone-{branch}", "streaming", "1best")
    assert found.characters == sum(sum(results.lengths[s]) for s in results.splits)
    assert found.seeds == 3
    parts = found.noise.errors(found.characters, found.seeds)
    assert parts.seeds > 3 * max(parts.utterances, parts.both)  # more text alone decides nothing
    with pytest.raises(ValueError, match="needs two seeds of sp-kd and none"):
        budget(results, "sp-kd", "none", "full", "1best")


def test_the_program(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    program = [sys.executable, str(ROOT / "tools/analysis/power.py"), "--results", str(RECORD)]
    picture = tmp_path / "a.png"
    options = ["--trials", "50", "--effects", "full=0.06", "--picture", str(picture)]
    done = subprocess.run([*program, *options], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| full")]
    assert [cell.strip() for cell in line.split("|")[2:5]] == ["11,799", "3", "+12.3"]
    assert "### Power, full: a gain of 6 %, variance of seeds x 0.25" in done.stdout
    assert picture.stat().st_size > 1000
    wrong = subprocess.run([*program, "--effects", "full=2"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "must be streaming=GAIN or full=GAIN" in wrong.stderr
    assert "Traceback" not in wrong.stderr
