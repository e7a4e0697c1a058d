"""A bundle of an experiment: every method gives the experiment's texts, with the scales that were
tuned there; what is not of the model is refused or left out.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sentencepiece")

from random_model import Home, trained_model, write_home

from dualasr_lib.core.checkpoint import file_name, load, save
from dualasr_lib.data.batch import Batch, Example, collate
from dualasr_lib.data.folder import DataFolder
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.programs import bundle as program
from dualasr_lib.recognition.bundle import Bundle, read_bundle, write_bundle
from dualasr_lib.recognition.bundling import BundleJob, make_bundle
from dualasr_lib.recognition.card import describe_bundle
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.decode_setup import DecodeSetup
from dualasr_lib.recognition.methods.registry import METHODS
from dualasr_lib.recognition.recogniser import Recogniser
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.recognition.tuning import NoScalesError

CPU = torch.device("cpu")
BRANCHES = ("streaming", "full")


def batch(seed: int, num: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    texts = ("あいう", "かき", "くけこお", "え", "あか")
    examples = [
        Example(str(n), texts[n], 1.0, torch.randn(60 + 17 * n, 80, generator=generator), (3,))
        for n in range(num)
    ]
    return collate(examples)


class Valid:
    """A split to tune on."""

    def fingerprint(self, split: str) -> str:
        return f"of {split}"

    def size(self, split: str) -> int:
        return 4

    def valid_batches(self) -> Iterable[Batch]:
        return [batch(11)]


def open_valid(trained: TrainedModel, data_dir: Path | None) -> Valid:
    return Valid()


def nothing_to_tune_on(trained: TrainedModel, data_dir: Path | None) -> Valid:
    raise ValueError("no data")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return write_home(tmp_path, trained_model(heads=("ctc", "attention", "transducer")))


def job(home: Home, **options: Any) -> BundleJob:
    return BundleJob(exp_dir=home.exp, data_dir=home.data, **options)


def written(bundle: Bundle, path: Path) -> Path:
    write_bundle(bundle, path)
    return path


def from_exp(home: Home, **options: Any) -> DecodeConfig:
    return DecodeConfig(exp_dir=home.exp, data_dir=home.data, device="cpu", **options)


def from_bundle(path: Path, **options: Any) -> DecodeConfig:
    return DecodeConfig(bundle=path, device="cpu", **options)


def texts(setup: DecodeSetup, branch: Any, method: str) -> list[str]:
    search = setup.offline(branch, method).search
    return [
        setup.trained.detokenise(path.tokens) for path in search(setup.hear(branch)(batch(3))).paths
    ]


def test_calibrations_of_confidence_travel(home: Home) -> None:
    exp = DecodeSetup(from_exp(home), open_valid)
    heard = [
        Hypothesis(f"u{n}", "あい", "あう", TokenPath((3, 4), (0, 2), 0.0, (0.9, 0.4)), 1.0)
        for n in range(9)
    ]
    calibrator = exp.offline("streaming", "greedy").calibrator
    made = calibrator.settle(heard, exp.trained.detokenise, is_valid=True).calibration
    path = written(make_bundle(job(home)), home.exp / "x.dualasr")
    setup = DecodeSetup(from_bundle(path), nothing_to_tune_on)
    assert made is not None
    assert setup.offline("streaming", "greedy").calibrator.kept() == made
    assert setup.online("greedy").calibrator.kept() == made
    assert setup.offline("full", "greedy").calibrator.kept() is None
    assert Recogniser.load(path, method="greedy", two_pass=False).calibration == made
    (calibrator.path or home.exp).write_text(json.dumps({"made_for": {}, "calibration": None}))
    with pytest.raises(ValueError, match="is damaged: it has no 'calibration'"):
        make_bundle(job(home))


def test_every_method_gives_the_texts_of_the_experiment(home: Home) -> None:
    """With n-grams and scales from the file, where there are no data."""
    pytest.importorskip("k2")
    lang = home.data / "lang"
    exp = DecodeSetup(from_exp(home), open_valid)
    expected = {(b, m): texts(exp, b, m) for b in BRANCHES for m in METHODS}
    lms = (lang / "G_1gram.arpa", lang / "G_2gram.arpa")
    path = written(make_bundle(job(home, lms=lms)), home.exp / "x.dualasr")
    setup = DecodeSetup(from_bundle(path), nothing_to_tune_on)
    for (branch, method), wanted in expected.items():
        assert texts(setup, branch, method) == wanted, (branch, method)
        before, after = (side.offline(branch, method) for side in (exp, setup))
        assert before.params.get("lm") == after.params.get("lm")
        assert before.params["weights"] == after.params["weights"]
        assert (before.scales, before.name) == (after.scales, after.name)
        if "scales" in before.params:
            assert after.params["scales_from"] == "of the bundle, tuned on valid"
    assert len(set(map(tuple, expected.values()))) > 4
    assert all(any(found) for found in expected.values())


def test_the_scales_of_a_second_pass_come_along(home: Home) -> None:
    pytest.importorskip("k2")
    options: dict[str, Any] = {"methods": ("greedy",), "streams": True, "two_pass": True}
    tuned = DecodeSetup(from_exp(home, **options), open_valid).second_pass()
    path = written(make_bundle(job(home)), home.exp / "x.dualasr")
    kept = DecodeSetup(from_bundle(path, **options), nothing_to_tune_on).second_pass()
    assert kept.params["scales"] == tuned.params["scales"]
    assert kept.params["scales_from"] == "of the bundle, tuned on valid"
    other = from_bundle(path, **options, second_beam=("num_paths=7",))
    with pytest.raises(NoScalesError, match=r"the bundle holds none .* --second-scales"):
        DecodeSetup(other, nothing_to_tune_on).second_pass()
    tuned_here = DecodeSetup(replace(other, out_dir=home.exp / "out"), open_valid).second_pass()
    assert tuned_here.params["scales_from"] == "tuned on valid"
    assert [file.name for file in (home.exp / "out/scales").iterdir()] == [
        "full-two-pass-num_paths=7.json"
    ]


def test_words_of_a_lexicon(home: Home) -> None:
    pytest.importorskip("k2")
    lang = home.data / "lang"
    exp = from_exp(home, methods=("hlg",), lexicon=lang / "lexicon.txt")
    expected = texts(DecodeSetup(exp, open_valid), "full", "hlg")
    words = job(home, lms=(lang / "words_1gram.arpa",), lexicon=lang / "lexicon.txt")
    path = written(make_bundle(words), home.exp / "x.dualasr")
    setup = DecodeSetup(from_bundle(path), nothing_to_tune_on)
    assert texts(setup, "full", "hlg") == expected
    assert setup.offline("full", "hlg").name.text == "full-hlg-words"


def test_averages_and_their_scales(home: Home) -> None:
    """Weights are those of the mean; its scales stand under a name without epochs."""
    first = load(home.exp / file_name(1))
    mean = {name: value.double() + 0.01 for name, value in first.model.items()
            if value.is_floating_point()}  # fmt: skip
    save(first._replace(average=mean, average_count=3), home.exp / file_name(1))
    averaged = TrainedModel.from_checkpoint(home.exp, home.data, CPU, 1, 1)
    scales = home.exp / "scales"
    scales.mkdir()
    for name, weights, value in (
        ("full-attention-epoch1-avg1", averaged.fingerprint, 0.7),
        ("full-attention", "of other weights", 5.0),
    ):
        made_for = {"model": "m", "weights": weights, "num_paths": 100, "valid": "v"}
        kept = {"scales": {"attention": value}, "made_for": made_for, "grid": []}
        (scales / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")
    bundle = make_bundle(job(home, epoch=1, avg=1))
    assert bundle.source == "epoch-1.pt, mean over steps (0, 1], since the start"
    assert list(bundle.scales) == ["full-attention"]
    found = bundle.scales["full-attention"]
    assert found["scales"] == {"attention": 0.7}
    assert (found["branch"], found["method"]) == ("full", "attention")
    assert found["made_for"] == {"num_paths": 100, "valid": "v"}
    path = written(bundle, home.exp / "x.dualasr")
    loaded = TrainedModel.from_bundle(read_bundle(path), CPU)
    assert loaded.fingerprint == averaged.fingerprint


def test_no_folder_of_the_trainer_travels(home: Home) -> None:
    """Not even of checkpoints that name some: their `initial.path` was absolute once."""
    began = {"path": str(home.exp / "first.pt"), "hash": "0123"}
    checkpoint = load(home.exp / file_name(1))
    config = {**checkpoint.config, "initial": {**checkpoint.config["initial"], **began}}
    augment = {**config["data"]["augment"], "noise_cuts": str(home.data / "noise/cuts.jsonl.gz")}
    config["data"] = {**config["data"], "augment": augment}
    save(checkpoint._replace(config=config), home.exp / file_name(1))
    weights = TrainedModel.from_checkpoint(home.exp, home.data, CPU).fingerprint
    summary(home, "a", weights)
    lms = (home.data / "lang/words_1gram.arpa",)
    words = job(home, lms=lms, lexicon=home.data / "lang/lexicon.txt", results={"b": home.exp})
    path = written(make_bundle(words), home.exp / "x.dualasr")
    assert str(home.exp.parent).encode() not in path.read_bytes()
    found = read_bundle(path).config
    assert found["initial"] == {**config["initial"], "path": "first.pt"}
    assert found["data"]["augment"]["noise_cuts"] == "cuts.jsonl.gz"
    assert TrainedModel.from_bundle(read_bundle(path), CPU).fingerprint == weights


def test_half_precision(home: Home) -> None:
    """Half the bytes, nearly the same log-probabilities, computed in float32."""
    whole = written(make_bundle(job(home)), home.exp / "x.dualasr")
    half = written(make_bundle(job(home, dtype="float16")), home.exp / "y.dualasr")
    models = [TrainedModel.from_bundle(read_bundle(path), CPU) for path in (whole, half)]
    assert {p.dtype for p in models[1].model.parameters()} == {torch.float32}
    assert models[1].source == "epoch-1.pt, float16"
    assert models[0].fingerprint != models[1].fingerprint
    chunk = models[0].chunk()
    exact, near = (model.hear(batch(5), "full", chunk).log_probs for model in models)
    assert 0 < (exact - near).abs().nan_to_num().max() < 0.05
    sizes = [sum(v.numel() * v.element_size() for v in read_bundle(path).weights.values())
             for path in (whole, half)]  # fmt: skip
    assert sizes[1] < 0.51 * sizes[0]
    checkpoint = load(home.exp / file_name(1))
    name = next(name for name, value in checkpoint.model.items() if value.dim() > 1)
    checkpoint.model[name][0] = 1e6
    save(checkpoint, home.exp / file_name(1))
    with pytest.raises(ValueError, match="numbers that float16 cannot hold: use float32"):
        make_bundle(job(home, dtype="float16"))


def summary(home: Home, folder: str, weights: str, **fields: Any) -> None:
    path = home.exp / "decode" / folder / "summary-eval1.json"
    path.parent.mkdir(parents=True)
    content = {
        "split": "eval1", "branch": "full", "method": "attention", "variant": "",
        "unit": "character", "num_utterances": 24, "cer": 0.0236, "cer_ci95": [0.0146, 0.033],
        "ins": 1, "del": 1, "sub": 1, "params": {"weights": weights}, **fields,
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_card_has_the_errors_of_these_weights(home: Home) -> None:
    weights = TrainedModel.from_checkpoint(home.exp, home.data, CPU).fingerprint
    summary(home, "a", weights, variant="epoch1-avg1-num_texts=4")
    summary(home, "b", "of other weights", cer=0.9)
    bundle = make_bundle(job(home, licence="CC-BY-4.0", limits="no music"))
    assert bundle.card["results"] == [{
        "split": "eval1", "branch": "full", "method": "attention", "variant": "num_texts=4",
        "unit": "character", "utterances": 24, "rate": 0.0236, "interval": [0.0146, 0.033],
    }]  # fmt: skip
    assert bundle.card["data"]["splits"] == {"train": "train", "valid": "valid"}
    text = describe_bundle(written(bundle, home.exp / "x.dualasr"))
    for part in ("2.36 (1.46-3.30)", "CC-BY-4.0", "no music", "streaming and full, cascaded",
                 "320 ms", "toy; ja", "13 char"):  # fmt: skip
        assert part in text, text
    assert len(text.splitlines()) < 24
    others = {"noisy": home.exp}  # what decode.py --out-dir fills
    assert [row["split"] for row in make_bundle(job(home, results=others)).card["results"]] == [
        "eval1", "noisy-eval1",
    ]  # fmt: skip
    half = written(make_bundle(job(home, dtype="float16")), home.exp / "half.dualasr")
    kept = TrainedModel.from_bundle(read_bundle(half), CPU).fingerprint
    assert kept != weights
    summary(home, "c", kept, cer=0.03)  # what decode.py --bundle half.dualasr makes
    rates = [
        [row["rate"] for row in make_bundle(job(home, dtype=dtype)).card["results"]]
        for dtype in ("float32", "float16")
    ]
    assert rates == [[0.0236], [0.0236, 0.03]]
    with pytest.raises(ValueError, match=r"none/decode must have results of these weights"):
        make_bundle(job(home, results={"none": home.exp / "none"}))
    (home.exp / "decode/b/summary-eval1.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"b/summary-eval1\.json must be a summary-<split>\.json of decode\.py"
    ):
        make_bundle(job(home))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": ("pause_second=1",)}, "did you mean 'pause_seconds'"),
        ({"lexicon": Path("lexicon.txt")}, "--lexicon is for n-grams of words"),
        ({"lms": (Path("a/G.arpa"), Path("b/G.arpa"))}, "must have different names"),
        ({"lms": (Path("none.arpa"),)}, r"none\.arpa' must be a file, but is missing"),
        ({"lms": (Path(),)}, r"'\.' must be a file, but is a folder"),
        ({"epoch": 7}, r"epoch-7\.pt is wanted"),
    ],
)
def test_refused_jobs(home: Home, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_bundle(job(home, **options))


def test_nothing_is_mixed(home: Home) -> None:
    """Tokens, n-grams and features must be the model's."""
    lang = home.data / "lang"
    with pytest.raises(ValueError, match=r"words_1gram\.arpa.*あい"):
        make_bundle(job(home, lms=(lang / "words_1gram.arpa",)))
    (lang / "other.arpa").write_bytes((lang / "G_2gram.arpa").read_bytes())
    with pytest.raises(ValueError, match=r"of different orders, but .*G_2gram.* and .*other"):
        make_bundle(job(home, lms=(lang / "G_2gram.arpa", lang / "other.arpa")))
    folder = DataFolder.read(home.data)
    replace(folder, features={**folder.features, "num_mel_bins": 40}).write(home.data)
    with pytest.raises(ValueError, match=r"features of the model must be those of .*'num_mel_bins"):
        make_bundle(job(home))
    folder.write(home.data)
    (home.exp / "scales").mkdir()
    (home.exp / "scales/full-attention.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"scales/full-attention\.json is damaged"):
        make_bundle(job(home))
    Tokenizer.train(["あいうえおか"]).save(lang)
    with pytest.raises(ValueError, match="was trained with other tokens than those"):
        make_bundle(job(home))


def test_data_of_other_features_are_refused(home: Home) -> None:
    """Before anything is decoded: what is stored there would mean something else to the model."""
    path = written(make_bundle(job(home)), home.exp / "x.dualasr")
    DecodeSetup(from_bundle(path, data_dir=home.data), open_valid)
    folder = DataFolder.read(home.data)
    replace(folder, features={**folder.features, "low_freq": 60.0}).write(home.data)
    for config in (from_bundle(path, data_dir=home.data), from_exp(home)):
        with pytest.raises(ValueError, match=r"features in .*data must be those of the model"):
            DecodeSetup(config, open_valid)


def test_the_program_makes_and_shows(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (home.exp / "card.txt").write_text("quiet rooms\nonly", encoding="utf-8")
    out = home.exp / "new" / "x.dualasr"
    arguments = [home.exp, "--data-dir", home.data, "--out", out, "--card", home.exp / "card.txt"]
    arguments += ["--lm", home.data / "lang/G_1gram.arpa", home.data / "lang/G_2gram.arpa"]
    program.main([*map(str, arguments), "--endpoint", "pause_seconds=0.5"])
    made = capsys.readouterr().out
    assert "limits     quiet rooms only" in made and "G_1gram.arpa, G_2gram.arpa" in made
    assert "endpoints  pause_seconds=0.5" in made
    program.main(["--show", str(out)])
    assert capsys.readouterr().out == made
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    before = out.read_bytes()
    with pytest.raises(ValueError, match="is wanted"):
        program.main([*map(str, arguments), "--epoch", "4"])
    assert out.read_bytes() == before
