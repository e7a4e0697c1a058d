"""tools/run_matrix.py: the matrix file, and runs that are done once, go on, fail and are stopped.

The commands of steps are small programs here; what they are in truth is compared as text.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

import run_matrix
from analysis.matrix import runner
from analysis.matrix.folder import data_fingerprint, read_record, record_file
from analysis.matrix.plan import MatrixConfig, Run, plan, runs
from analysis.matrix.runner import Runner
from analysis.matrix.steps import Step, Workplace, steps

CONF = Path(__file__).parents[2] / "egs/csj/conf"
DATA = {"tokens": "89ab", "train": "0123", "valid": "4567"}


@pytest.fixture(scope="module")
def matrix() -> tuple[MatrixConfig, list[Run]]:
    config, cells = plan(CONF / "matrix.toml", None, [])
    return config, runs(cells, [0, 1], [], [])


def test_the_matrix_of_the_repository(matrix: tuple[MatrixConfig, list[Run]]) -> None:
    """All that the paper's comparison needs is there, and each cell is another configuration."""
    config, found = matrix
    main = [cell.name for cell in config.cell if cell.group == "main"]
    assert main == [
        "standalone-streaming",
        "standalone-full",
        "shared-decoder",
        "multi-decoder",
        "sp-kd-encoder",
        "sp-kd-decoder",
        "sp-kd",
    ]
    groups = {cell.group for cell in config.cell}
    assert groups == {
        *("main", "weights", "items", "direction", "rivals", "integration", "depth", "heads"),
        "learning",
    }
    values = [json.dumps(run.values(), sort_keys=True) for run in found]
    assert len(set(values)) == len(values)
    assert {run.cell.config.name for run in found if run.seed == 1} == {
        cell.name for cell in config.cell if not cell.seeds
    }


@pytest.mark.parametrize("name", ["decision", "decision_transducer"])
def test_the_matrices_of_the_plan(name: str) -> None:
    """One primary comparison; all cells of it begin with the same weights and train as long."""
    config, cells = plan(CONF / f"{name}.toml", None, [])
    decided = [cell for cell in cells if cell.config.group == "decision"]
    assert [cell.config.name for cell in decided if cell.config.primary] == ["sp-kd"]
    assert {cell.config.start for cell in decided} == {"warm"}
    lengths = {cell.experiment(0).training.max_steps for cell in decided}
    seconds = {cell.experiment(0).data.max_duration for cell in decided}
    assert (lengths, len(seconds)) == ({1200}, 1)
    assert config.corpus.preset == "noisy-long"
    found = runs(cells, [0, 1], ["decision"], [])
    assert [run.seed for run in found if run.cell.config.name == "warm"] == [0, 1]


@pytest.mark.parametrize("base", ["small", "csj"])
def test_other_sizes(base: str) -> None:
    _, cells = plan(CONF / "matrix.toml", CONF / f"{base}.toml", ["training.max_steps=7"])
    for cell in cells:
        assert cell.experiment(3).training.max_steps == 7
        assert cell.experiment(3).training.seed == 3


def test_runs_go_seed_by_seed(matrix: tuple[MatrixConfig, list[Run]]) -> None:
    _, cells = plan(CONF / "matrix.toml", None, [])
    found = runs(cells, [5, 4], ["integration"], ["sp-kd"])
    names = ["sp-kd", "parallel", "one-encoder"]
    assert [run.name for run in found] == [f"{n}/seed-{seed}" for seed in (5, 4) for n in names]
    for groups, names, text in ((["x"], [], "group 'x'"), ([], ["y"], "cell 'y'")):
        with pytest.raises(ValueError, match=f"no {text}"):
            runs(cells, [0], groups, names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ('[[cell]]\nname = "a"\nconfig = "sp_kd.toml"\n' * 2, "its own name"),
        ('[[cell]]\nname = "../a"\nconfig = "sp_kd.toml"', "its own name"),
        ('[[cell]]\nname = "a"\nconfig = "sp_kd.toml"\nagainst = ["b"]', "'b', which is no cell"),
        ('[[cell]]\nname = "a"\nconfig = "sp_kd.toml"\nagainst = ["a-{c}"]', "which is no cell"),
        ('splits = ["eval1", "eval1"]\n[[cell]]\nname = "a"\nconfig = "b"', "different ones"),
        ('splits = ["valid"]\n[[cell]]\nname = "a"\nconfig = "b"', "different ones"),
        ('[[cell]]\nname = "a"\nconfig = "none.toml"', "cell 'a' of .*cannot read"),
        ('[[cell]]\nname = "a"\nconfig = "sp_kd.toml"\nset = ["x=1"]', "cell 'a' of .*'x'"),
        (
            '[[cell]]\nname = "a"\nconfig = "sp_kd.toml"\nagainst = ["a"]\nprimary = "b"',
            r"must be one of its `against`, \['a'\], but is 'b'",
        ),
        (
            "".join(
                f'[[cell]]\nname = "{x}"\nconfig = "sp_kd.toml"\nagainst = ["a"]\nprimary = "a"\n'
                for x in "ab"
            ),
            "one primary comparison, but 'a' and 'b'",
        ),
        (
            '[[cell]]\nname = "a"\nconfig = "sp_kd.toml"\nstart = "b"',
            "must start from a cell .* start is 'b'",
        ),
        (
            '[[cell]]\nname = "a"\nconfig = "sp_kd.toml"\nstart = "a"',
            "that itself starts from none",
        ),
        ('methods = ["best"]\n[[cell]]\nname = "a"\nconfig = "sp_kd.toml"', "methods must be"),
    ],
)
def test_a_wrong_matrix_is_refused(text: str, message: str, tmp_path: Path) -> None:
    lists, _, tables = text.partition("[[")
    head = f'base = "demo.toml"\n{lists}corpus = {{ preset = "demo" }}\n'
    for name in ("demo", "csj", "sp_kd"):
        (tmp_path / f"{name}.toml").write_text((CONF / "demo.toml").read_text())
    (tmp_path / "m.toml").write_text(f"{head}{'[[' if tables else ''}{tables}")
    with pytest.raises(ValueError, match=message):
        plan(tmp_path / "m.toml", None, [])


def test_steps_are_the_programs_of_the_users(
    matrix: tuple[MatrixConfig, list[Run]], tmp_path: Path
) -> None:
    config, found = matrix
    place = Workplace(tmp_path, Path("/data"), "cpu", "cpu")
    by_name = {run.name: steps(run, config, place) for run in found}
    joint = by_name["sp-kd/seed-1"]
    assert [step.name for step in joint] == ["train", "decode", "stream", "similarity"]
    train = joint[0].command
    assert train[1].endswith("egs/csj/train.py")
    assert train[train.index("--base") + 1] == str(CONF / "noisy.toml")
    assert train[train.index("--exp-dir") + 1] == str(tmp_path / "sp-kd/seed-1")
    assert "training.seed=1" in train
    decode = joint[1].command
    start = decode.index("--branch")
    assert decode[start : start + 6] == (
        *("--branch", "streaming", "full"),
        *("--method", "1best", "attention"),
    )
    assert [step.name for step in by_name["standalone-full/seed-0"]] == ["train", "decode"]
    alone = by_name["standalone-streaming/seed-0"]
    assert [step.name for step in alone] == ["train", "decode", "stream"]


def started(folder: Path) -> list[Run]:
    """Runs of a cell that begins with the weights of another, which is listed after it."""
    (folder / "m.toml").write_text(
        f'base = "{CONF}/noisy.toml"\ncorpus = {{ preset = "noisy" }}\n'
        f'[[cell]]\nname = "joint"\nconfig = "{CONF}/sp_kd.toml"\nstart = "warm"\n'
        f'[[cell]]\nname = "warm"\nconfig = "{CONF}/standalone_streaming.toml"\n'
    )
    return runs(plan(folder / "m.toml", None, [])[1], [3], [], ["joint"])


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    warm, joint = started(tmp_path)  # what it begins with is run although only "joint" was asked
    assert (warm.name, joint.name) == ("warm/seed-3", "joint/seed-3")
    place = Workplace(tmp_path, Path("/data"), "cpu", "cpu")
    config, _ = plan(CONF / "matrix.toml", None, [])
    folder = tmp_path / warm.name
    folder.mkdir(parents=True)
    for name in ("epoch-2.pt", "epoch-10-step-300.pt", "epoch-10.pt"):
        (folder / name).touch()
    train = steps(joint, config, place)[0]
    assert train.command[train.command.index("--init-from") + 1] == str(
        folder / "epoch-10-step-300.pt"
    )
    assert train.asked == {"start": "warm/seed-3"}
    assert "--init-from" not in steps(warm, config, place)[0].command


class Desk:
    """Runs two runs whose steps are small programs that note that they ran."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out, self.notes = folder / "out", folder / "notes"
        self.programs: dict[str, str] = {"train": "", "decode": ""}
        self.asked: dict[str, dict[str, Any]] = {}
        self.place = Workplace(self.out, folder, "cpu", "a cpu")
        monkeypatch.setattr(runner, "steps", self._steps)
        monkeypatch.setattr(Runner, "_trained", lambda *_: 7)

    def _steps(self, run: Run, matrix: MatrixConfig, place: Workplace) -> list[Step]:
        return [
            Step(
                name,
                (sys.executable, "-c", self._program(run, name, text)),
                self.asked.get(name, {}),
            )
            for name, text in self.programs.items()
        ]

    def _program(self, run: Run, name: str, text: str) -> str:
        note = f"open({str(self.notes)!r}, 'a').write('{run.name} {name}\\n')"
        return f"name = {run.name!r}\n{note}\n{text}"

    def runner(self, found: list[Run], wanted: tuple[str, ...] = ("train", "decode")) -> Runner:
        config, _ = plan(CONF / "matrix.toml", None, [])
        return Runner(config, self.place, wanted, DATA, found)

    def noted(self) -> list[str]:
        lines = self.notes.read_text().splitlines() if self.notes.is_file() else []
        self.notes.unlink(missing_ok=True)
        return sorted(lines)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def two_runs(*assignments: str) -> list[Run]:
    _, cells = plan(CONF / "matrix.toml", None, assignments)
    return runs(cells, [0], [], ["multi-decoder", "sp-kd"])


BOTH = [
    "multi-decoder/seed-0 decode",
    "multi-decoder/seed-0 train",
    "sp-kd/seed-0 decode",
    "sp-kd/seed-0 train",
]


def test_what_is_done_is_not_done_again(desk: Desk) -> None:
    assert desk.runner(two_runs()).execute(2) == []
    assert desk.noted() == BOTH
    assert desk.runner(two_runs()).execute(1) == []
    assert desk.noted() == []
    record = read_record(record_file(desk.out, "sp-kd/seed-0"))
    assert record is not None
    assert (record.cell, record.seed) == ("sp-kd", 0)
    assert record.steps["train"]["parameters"] == 7
    assert record.steps["decode"]["device"] == "a cpu"
    assert set(record.spent) == {"train", "decode"} and min(record.spent.values()) > 0
    assert record.config["loss"]["distillation"]["method"] == "sp_kd"
    desk.asked["decode"] = {"splits": ["eval1"]}  # results of other splits are asked for
    assert desk.runner(two_runs()).execute(2) == []
    assert desk.noted() == [BOTH[0], BOTH[2]]
    desk.asked["train"] = {"other": 1}  # what was decoded are other weights
    assert desk.runner(two_runs()).execute(2) == []
    assert desk.noted() == BOTH


def test_steps_can_be_done_apart(desk: Desk) -> None:
    """Training on one machine, decoding on another."""
    problems = desk.runner(two_runs(), ("decode",)).execute(1)
    assert len(problems) == 2 and "step train is not done" in problems[0]
    assert desk.runner(two_runs(), ("train",)).execute(1) == []
    assert desk.runner(two_runs(), ("decode",)).execute(1) == []
    assert desk.noted() == BOTH


def test_what_others_begin_with_is_run_first(desk: Desk, tmp_path: Path) -> None:
    desk.programs["train"] = "exit('warm' in name)"
    problems = desk.runner(started(tmp_path)).execute(2)
    assert len(problems) == 2 and "starts from warm/seed-3, which is not trained" in problems[1]
    assert desk.noted() == ["warm/seed-3 train"]
    desk.programs["train"] = ""
    assert desk.runner(started(tmp_path)).execute(2) == []
    names = ["joint/seed-3", "warm/seed-3"]
    assert desk.noted() == [f"{n} {step}" for n in names for step in ("decode", "train")]


def test_a_failure_ends_its_run_only(desk: Desk) -> None:
    desk.programs["train"] = "print('no ' + 'memory')\nif 'multi' in name: exit(3)"
    (problem,) = desk.runner(two_runs()).execute(2)
    assert "multi-decoder/seed-0: train ended with exit code 3" in problem
    assert "no memory" in problem and "train.log" in problem
    assert desk.noted() == BOTH[1:]
    desk.programs["train"] = ""
    assert desk.runner(two_runs()).execute(2) == []
    assert desk.noted() == BOTH[:2]


def test_a_folder_of_another_configuration_is_refused(desk: Desk) -> None:
    desk.runner(two_runs()).execute(2)
    with pytest.raises(ValueError, match=r"max_steps: 600, now 5\): move it away"):
        desk.runner(two_runs("training.max_steps=5"))
    path = record_file(desk.out, "sp-kd/seed-0")
    path.write_text(path.read_text().replace("4567", "89ab"))
    with pytest.raises(ValueError, match=r"data\.valid: '89ab', now '4567'"):
        desk.runner(two_runs())
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        desk.runner(two_runs())


def test_a_folder_that_nobody_knows_is_refused(desk: Desk) -> None:
    (desk.out / "sp-kd/seed-0").mkdir(parents=True)
    (desk.out / "sp-kd/seed-0/epoch-0-step-3.pt").touch()
    with pytest.raises(ValueError, match=r"no run\.json that says of what"):
        desk.runner(two_runs())


def test_further_splits_are_no_other_configuration(desk: Desk) -> None:
    desk.runner(two_runs()).execute(2)
    DATA["eval9"] = "cdef"
    try:
        desk.asked["decode"] = {"splits": ["eval9"]}
        assert desk.runner(two_runs()).execute(2) == []
        assert desk.noted()[-1] == BOTH[-1]
        record = read_record(record_file(desk.out, "sp-kd/seed-0"))
        assert record is not None and record.data == DATA
    finally:
        del DATA["eval9"]


def test_an_error_of_a_run_is_no_error_of_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(_: Runner, run: Run) -> int:
        if run.cell.config.name == "sp-kd":
            raise ValueError("another configuration")
        return 7

    monkeypatch.setattr(Runner, "_trained", trained)
    assert desk.runner(two_runs()).execute(1) == ["sp-kd/seed-0: another configuration"]
    assert desk.noted() == [BOTH[0], BOTH[1], BOTH[3]]
    record = read_record(record_file(desk.out, "sp-kd/seed-0"))
    assert record is not None and record.steps == {}


def test_a_signal_stops_everything_and_what_was_begun_is_known(desk: Desk) -> None:
    desk.programs["train"] = "import time\ntime.sleep(60)"

    def stop() -> None:
        while not (desk.notes.is_file() and desk.notes.stat().st_size):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), run_matrix.interrupts():
        desk.runner(two_runs()).execute(1)
    thread.join()
    assert time.monotonic() - begun < 30
    assert signal.getsignal(signal.SIGTERM) is before
    assert desk.noted() == [BOTH[1]]  # the second run was never begun
    record = read_record(record_file(desk.out, "multi-decoder/seed-0"))
    assert record is not None and record.steps == {} and record.spent["train"] > 0
    with pytest.raises(ValueError, match="max_steps: 600, now 5"):
        desk.runner(two_runs("training.max_steps=5"))


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.json' is missing"):
        data_fingerprint(tmp_path, ("eval1",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--matrix M --jobs 0", "--jobs must be at least 1"),
        ("--matrix M --report-only --cell sp-kd", "--report-only takes no"),
        ("--from-json F --set a=1", "--from-json takes --out only"),
        ("--matrix none.toml", "cannot read"),
    ],
)
def test_wrong_options_are_one_line(
    options: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = options.replace("M ", f"{CONF / 'matrix.toml'} ").split()
    monkeypatch.setattr(sys, "argv", ["run_matrix.py", *words])
    with pytest.raises(ValueError, match=message):
        run_matrix.main()
