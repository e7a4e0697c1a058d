"""tools/latency_curve.py: cells are decoded once, points pool their splits, the curve is drawn."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_tiny import TINY

pytest.importorskip("k2")
pytest.importorskip("_kaldifeat")
pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from analysis.latency.cells import Cell, Made, obtain
from analysis.latency.curve import Curve, Plan, shown_at_the_end
from analysis.latency.emissions import emissions_file, read_emissions, write_emissions
from analysis.latency.report import Point, pool, table

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.core.checkpoint import Checkpoint, file_name, save
from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.data.batch import Batch, Example, collate
from dualasr_lib.data.datamodule import Utterance, Word
from dualasr_lib.data.folder import DataFolder, SplitInfo, SplitUse, TokensInfo
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.hypothesis import Emission, Hypothesis, TokenPath
from dualasr_lib.decoding.offline import Decoded
from dualasr_lib.decoding.summary import RunInfo, offline_summary
from dualasr_lib.features.fbank import Fbank
from dualasr_lib.metrics.bootstrap import Interval
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.decode_setup import DecodeSetup
from dualasr_lib.recognition.trained_model import weights_fingerprint

ROOT = Path(__file__).parents[2]
REFS = {"a": "あいう", "b": "かきくけこ"}
INFO = RunInfo("eval1", "streaming", "online-1best", {"model": "x.pt", "chunk_ms": 320})


def hypotheses() -> list[Hypothesis]:
    """One correct text and one with two deletions, shown in two pieces."""
    return [
        Hypothesis(
            id=id_,
            text=ref[:3],
            ref=ref,
            path=TokenPath((1,), (0,), -1.0),
            duration=2.0,
            words=(Word(ref[:2], 0.5, 1.0), Word(ref[2:], 1.0, 1.5)),
            emissions=(Emission(ref[:1], 0.6, 0.1, 0.6), Emission(ref[:3], 1.6, 0.1, 1.6)),
            step_seconds=(0.1, 0.1),
        )
        for id_, ref in REFS.items()
    ]


class Decoder:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, info: RunInfo) -> Made:
        self.calls += 1
        return Made(hypotheses(), offline_summary(info, Decoded(hypotheses(), 4.0, 1.0, 0, 1)))


def cell(folder: Path, split: str = "eval1") -> Cell:
    return obtain(folder, INFO._replace(split=split), REFS, Decoder())


def test_emissions_come_back(tmp_path: Path) -> None:
    path = emissions_file(tmp_path, "eval1")
    write_emissions(path, hypotheses())
    placeholder = TokenPath((), (), 0.0)
    expected = [item._replace(path=placeholder) for item in hypotheses()]
    assert read_emissions(path) == expected
    path.write_text("[{}]", encoding="utf-8")
    with pytest.raises(ValueError, match="must be an emissions file"):
        read_emissions(path)


def test_a_finished_cell_is_reused(tmp_path: Path) -> None:
    decoder = Decoder()
    cells = [obtain(tmp_path, INFO, REFS, decoder) for _ in range(2)]
    assert decoder.calls == 1
    assert cells[0] == cells[1]


@pytest.mark.parametrize(
    ("info", "refs"),
    [
        (INFO._replace(params={**INFO.params, "model": "y.pt"}), REFS),
        (INFO._replace(params={**INFO.params, "chunk_ms": 640}), REFS),
        (INFO._replace(method="online-greedy"), REFS),
        (INFO, {"a": REFS["a"]}),
    ],
)
def test_another_model_chunk_method_or_set_is_not_reused(
    info: RunInfo, refs: dict[str, str], tmp_path: Path
) -> None:
    cell(tmp_path)
    decoder = Decoder()
    obtain(tmp_path, info, refs, decoder)
    assert decoder.calls == 1


@pytest.mark.parametrize("name", ["emissions-eval1.json", "recogs-eval1.txt", "summary-eval1.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_a_damaged_cell_is_decoded_again(
    name: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    first = cell(tmp_path)
    damage(tmp_path / name)
    decoder = Decoder()
    assert obtain(tmp_path, INFO, REFS, decoder) == first
    assert decoder.calls == 1


def test_an_interrupted_cell_is_not_whole(tmp_path: Path) -> None:
    """Whatever was there before: its summary does not vouch for files of the new run."""
    cell(tmp_path)

    def stop(_: RunInfo) -> Made:
        return Made(
            [*hypotheses(), *hypotheses()], {"split": "eval1", "unit": "character"}
        )  # the writer refuses twins

    with pytest.raises(ValueError, match="came twice"):
        obtain(tmp_path, INFO._replace(method="online-greedy"), REFS, stop)
    assert not (tmp_path / "summary-eval1.json").exists()


def latency(algorithmic_ms: float | None) -> dict[str, Any]:
    return {
        "algorithmic_ms": algorithmic_ms, "first_token_ms": 250.0, "num_streams": 8,
        "emission_ms": {"p50": 100.4, "p90": 200.0, "p99": 300.0},
        "partial_revision_rate": 0.0125, "chunk_compute_ms": {"p50": None, "p99": None},
    }  # fmt: skip


def points(folder: Path) -> list[Point]:
    cells = [cell(folder, split) for split in ("eval1", "eval2")]
    return [
        pool(cells, latency(167.5), 160),
        pool(cells, latency(487.5), 480, trained=False),
        pool(cells, latency(None)),
    ]


def test_table(tmp_path: Path) -> None:
    lines = table(points(tmp_path)).splitlines()
    rows = [[item.strip() for item in line.strip("|").split("|")] for line in lines[:5]]
    assert (rows[0][3], rows[0][5:7]) == ("CER %", ["eval1", "eval2"])
    words = table([point._replace(label="WER") for point in points(tmp_path)])
    assert "| WER % |" in words and "WER: of eval1" in words and "CER" not in words
    assert rows[2][:4] == ["160", "167.5", "87.5", "25.00"]
    assert rows[2][5:] == ["25.00", "25.00", "250", "100/200/300", "0.013", "-", "0.250"]
    assert rows[3][:3] == ["480 *", "487.5", "247.5"]
    assert rows[4][:3] == ["full", "end of sentence", "-"]
    notes = "\n".join(lines[6:])
    assert "not trained with" in notes and "when the sentence has ended" in notes
    assert "not trained with" not in table(points(tmp_path)[:1])


def test_drawing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from analysis.latency.drawing import draw

    made = points(tmp_path)
    nothing = Interval(None, None, None)
    silent = {**latency(327.5), "emission_ms": {"p50": None, "p90": None, "p99": None}}
    for number, chosen in enumerate((made, made[:1], [made[0]._replace(cer=nothing)])):
        path = tmp_path / f"{number}.png"
        draw([*chosen, made[0]._replace(latency=silent)], path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_offline_texts_are_shown_at_the_end() -> None:
    plain = [item._replace(words=(), emissions=()) for item in hypotheses()]
    plain[1] = plain[1]._replace(text="")
    words = {item.id: item.words for item in hypotheses()}
    utterances = [Utterance(id_, "", 2.0, lambda: torch.zeros(0), words[id_]) for id_ in "ba"]
    first, second = shown_at_the_end(plain, utterances)
    assert first.words == words["a"] and second.words == words["b"]
    assert [emission.shown for emission in first.emissions] == [(REFS["a"], 2.0)]
    assert second.emissions == ()


USES: tuple[SplitUse, ...] = ("train", "valid", "other")


class Recordings:
    """A stand-in for the data module: noise of some lengths as every split."""

    def __init__(self, config: ExperimentConfig) -> None:
        self._fbank = Fbank(config.features)
        splits = [SplitInfo(name=use, use=use, cuts="") for use in USES]
        splits.append(SplitInfo(name="eval1", use="eval", cuts="", pooled=True))
        self.folder = DataFolder(
            corpus="tiny", language="ja", normaliser="none", units=("character",),
            features=to_dict(config.features),
            splits=tuple(splits), tokens=TokensInfo(kind="char", vocab_size=13),
        )  # fmt: skip

    def split_cuts(self, split: str) -> list[Utterance]:
        generator = torch.Generator().manual_seed(len(split))
        audio = [0.1 * torch.randn(n, generator=generator) for n in (16000, 5121, 23456)]
        return [
            Utterance(
                f"{split}-{i}", "あいう", len(x) / 16000, lambda x=x: x, (Word("あ", 0, 0.1),)
            )
            for i, x in enumerate(audio)
        ]

    def split_batches(self, split: str) -> Iterator[Batch]:
        for item in self.split_cuts(split):
            features = self._fbank(item.audio())
            yield collate([Example(item.id, item.text, item.duration, features, ())])


@pytest.fixture
def setup(tmp_path: Path) -> DecodeSetup:
    """A tiny checkpoint of random weights."""
    options = {"features": {"num_mel_bins": 20}, "training": {"num_epochs": 1}}
    config = from_dict(ExperimentConfig, {**tomllib.loads(TINY), **options})
    tokenizer = Tokenizer.train(["あいうえお", "かきくけこ"])
    tokenizer.save(tmp_path / "lang")
    model = build_model(config, tokenizer)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    checkpoint = Checkpoint(
        step=1, epoch=1, model=model.state_dict(), average={}, average_count=0,
        config=to_dict(config), training={}, fingerprints={"tokenizer": tokenizer.fingerprint},
    )  # fmt: skip
    save(checkpoint, tmp_path / file_name(1, None))
    Recordings(config).folder.write(tmp_path)  # what it is; the utterances are made up
    wanted = DecodeConfig(
        exp_dir=tmp_path, data_dir=tmp_path, methods=("greedy",), streams=True, device="cpu"
    )
    return DecodeSetup(wanted, lambda recogniser, folder: Recordings(config))


@pytest.fixture
def data(setup: DecodeSetup) -> Any:
    """Instead of a data folder."""
    return Recordings(setup.trained.config)


def test_a_curve_goes_on_where_it_was_interrupted(
    setup: DecodeSetup, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(["eval1", "other"], [320, 160, 160], 2, None)
    found = Curve(setup, data, plan._replace(chunks_ms=[480]), tmp_path / "out").points()
    assert [(point.chunk_ms, point.trained) for point in found] == [(480, False), (None, True)]
    found = Curve(setup, data, plan, tmp_path / "out").points()
    assert [point.chunk_ms for point in found] == [160, 320, None]
    assert [point.worst_ms for point in found] == [167.5, 327.5, None]
    assert list(found[0].split_cers) == ["eval1", "other"]
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert folders == ["full", "streaming-160ms", "streaming-320ms", "streaming-480ms"]
    pooled = json.loads((tmp_path / "out/streaming-160ms/summary-eval1.json").read_text())
    summary = json.loads((tmp_path / "out/streaming-160ms/summary-other.json").read_text())
    assert (pooled["pooled"], summary["pooled"], summary["unit"]) == (True, False, "character")
    assert summary["params"]["chunk_ms"] == 160 and summary["params"]["left_frames"] == 128
    monkeypatch.setattr("analysis.latency.curve.decode_streams", None)
    monkeypatch.setattr("analysis.latency.curve.decode_batches", None)
    assert Curve(setup, data, plan, tmp_path / "out").points() == found
    with torch.no_grad():
        next(setup.trained.model.parameters()).add_(1.0)
    del setup.trained.__dict__["fingerprint"]  # as if they had been loaded
    with pytest.raises(TypeError):  # other weights under the same name: to be decoded again
        Curve(setup, data, plan, tmp_path / "out").points()


def test_what_cannot_run_is_found_first(setup: DecodeSetup, data: Any, tmp_path: Path) -> None:
    for chunk_ms, message in ((150, "multiple of 20 ms"), (180, "downsampling")):
        with pytest.raises(ValueError, match=message):
            Curve(setup, data, Plan(["eval1"], [160, chunk_ms], 2, None), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fingerprint_is_of_the_weights() -> None:
    models = [torch.nn.Linear(2, 2) for _ in range(2)]
    assert weights_fingerprint(models[0].state_dict()) != weights_fingerprint(
        models[1].state_dict()
    )
    models[1].load_state_dict(models[0].state_dict())
    assert weights_fingerprint(models[0].state_dict()) == weights_fingerprint(
        models[1].state_dict()
    )


def test_an_error_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/latency_curve.py"), "--split", "eval1"]
    command += ["--exp-dir", str(tmp_path), "--data-dir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("latency_curve.py: error: ")
    assert len(result.stderr.splitlines()) == 1
