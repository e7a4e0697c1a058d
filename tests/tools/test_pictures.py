"""Every picture that a program makes says what it shows, and nothing of it is cut off."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("k2")
pytest.importorskip("lhotse")
pytest.importorskip("matplotlib")
pytest.importorskip("sentencepiece")

import bench_long_stream
import similarity
from analysis import calibration
from analysis.latency.drawing import draw as draw_latency
from analysis.matrix.drawing import draw as draw_matrix
from analysis.matrix.results import read_results
from analysis.matrix.statistics import Table
from analysis.power_picture import draw as draw_powers
from figure_faults import figure_faults
from matplotlib.figure import Figure
from test_latency_curve import points

from dualasr_lib.core.picture import Picture
from dualasr_lib.recipe import dry_run_plot, report
from dualasr_lib.recipe.sound_checks import Sound
from dualasr_lib.recipe.text_checks import Utterance
from dualasr_lib.training.drawing import drawn

ROOT = Path(__file__).parents[2]


def long_stream(folder: Path) -> None:
    rows = [
        bench_long_stream.Row(5.0 * i, 30, [20.0, 35.0 + i], [19.0, 34.0], [52.0], 0.06, 440.0 + i)
        for i in range(1, 13)
    ]
    bench_long_stream.draw(rows, folder / "hour.png", "one stream of eval1, model exp")


def similarities(folder: Path) -> None:
    torch.manual_seed(1)
    found = [
        similarity.Measured({}, {side: torch.rand(13, 13) for side in ("streaming", "full")})
        for _ in range(2)
    ]
    names = ["multi-decoder/seed-0", "sp-kd/seed-0"]
    similarity.draw(names, found, folder / "similarity.png", "valid")


def durations(folder: Path) -> None:
    splits = {"train": [1.0, 2.0, 4.0, 9.5], "valid": [2.0, 3.0], "empty": []}
    report._plot(splits, "csj", folder)


def matrix(folder: Path) -> None:
    results = read_results(ROOT / "egs/csj/figures/matrix-noisy.json")
    draw_matrix(Table(results), folder / "matrix.png")


def of_the_log(folder: Path) -> None:
    words = ("similarity\nencoder, teacher", "utterance (place)", "utterance (place)")
    drawn(Picture(torch.rand(13, 13), *words, "similarity (no unit)", -1.0, 1.0))


def reliability(folder: Path) -> None:
    tokens = calibration.Tokens(
        [0.2, 0.6, 0.9] * 20, [0.3, 0.6, 0.8] * 20, [False, True, True] * 20
    )
    splits = [calibration.Split("full-1best", n, tokens, 20, 0) for n in ("valid", "eval1")]
    calibration.draw(splits, folder / "reliability.png")


def doubts(folder: Path) -> None:
    utterances = [
        Utterance(f"u{n}", split, "あいう" * (n + 1), 1.0 + n, "s", "r", 0, 0.0)
        for n, split in enumerate(("train", "train", "valid", "eval"))
    ]
    sounds = [Sound(f"u{n}", -20.0 - n, "", ()) for n in range(4)]
    kinds = {"too-long": [{"id": "u3"}], "slow-speech": [{"id": "u1"}]}
    dry_run_plot.plot(utterances, sounds, kinds, folder / "doubts.png")


def powers(folder: Path) -> None:
    rows = [[0.1 * n * (row + 1) / 4 for n in range(1, 4)] for row in range(4)]
    found = {(branch, part): rows for branch in ("streaming", "full") for part in (1.0, 0.1)}
    gains = {"streaming": 0.04, "full": 0.06}
    draw_powers(found, gains, (6000, 12000, 25000, 50000), (3, 8, 16), folder / "power.png")


PICTURES: dict[str, Callable[[Path], None]] = {
    "tools/bench_long_stream.py": long_stream,
    "tools/analysis/latency/drawing.py": lambda f: draw_latency(points(f), f / "latency.png"),
    "tools/analysis/matrix/drawing.py": matrix,
    "tools/analysis/power_picture.py": powers,
    "tools/analysis/calibration.py": reliability,
    "tools/similarity.py": similarities,
    "dualasr_lib/recipe/dry_run_plot.py": doubts,
    "dualasr_lib/recipe/report.py": durations,
    "dualasr_lib/training/drawing.py": of_the_log,
}
"""The file that draws -> one picture of it."""


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test draws."""
    found: list[Figure] = []
    draw = Figure.draw

    def remember(self: Figure, *arguments: object) -> None:
        if not any(figure is self for figure in found):
            found.append(self)
        draw(self, *arguments)

    monkeypatch.setattr(Figure, "draw", remember)
    return found


@pytest.mark.parametrize("place", PICTURES)
def test_a_picture_says_all(place: str, figures: list[Figure], tmp_path: Path) -> None:
    PICTURES[place](tmp_path)
    [figure] = figures
    assert figure_faults(figure) == []


def makes_figures(path: Path) -> bool:
    """Whether a file calls `Figure`."""
    calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    return any("Figure" in (getattr(c.func, "id", ""), getattr(c.func, "attr", "")) for c in calls)


def test_no_other_file_draws() -> None:
    paths = [path for top in ("dualasr_lib", "egs", "tools") for path in (ROOT / top).rglob("*.py")]
    drawing = {str(path.relative_to(ROOT)) for path in paths if makes_figures(path)}
    assert drawing - {"tools/setup/check_setup.py"} == set(PICTURES)


def bare() -> Figure:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot(title="title")
    axes.plot([0, 1], [0, 1])
    axes.set(xlabel="time (s)", ylabel="speed (m/s)")
    return figure


def change(what: str) -> Figure:
    figure = bare()
    [axes] = figure.axes
    if what == "unit":
        axes.set_xlabel("time")
    elif what == "label":
        axes.set_ylabel("")
    elif what == "title":
        axes.set_title("")
    elif what == "bar":
        axes.imshow([[1, 2]])
    elif what == "bar's name":
        figure.colorbar(axes.imshow([[1, 2]]), ax=axes)
    elif what == "edge":
        axes.set_ylim(0, 0.9)
    elif what == "outside":
        figure.set_layout_engine("none")
        axes.set_position((0.0, 0.0, 1.0, 1.0))
    elif what == "small":
        axes.set_title("title", fontsize=5)
    elif what == "over":
        figure.text(0.5, 0.5, "this")
        figure.text(0.5, 0.5, "that")
    return figure


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("unit", "has no unit"),
        ("label", "y axis has no name"),
        ("title", "has no title"),
        ("bar", "image without a colour bar"),
        ("bar's name", "colour bar is called ''"),
        ("edge", "is cut off"),
        ("outside", "outside of the figure"),
        ("small", "pixels high"),
        ("over", "written over 'this'"),
    ],
)
def test_a_planted_fault_is_found(what: str, fault: str) -> None:
    assert figure_faults(bare()) == []
    assert any(fault in found for found in figure_faults(change(what)))
