"""Training that begins with a trained model: what it takes, what it says, and how it goes on."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from test_experiment import CPU, Data, batch, config, describe

from dualasr_lib import experiment
from dualasr_lib.configuration import ExperimentConfig
from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.checkpoint import Checkpoint
from dualasr_lib.core.config import from_dict, override, to_dict
from dualasr_lib.core.files import file_hash
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.experiment import Experiment
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.zipformer.training_aids import SkipRates
from dualasr_lib.recognition.bundle import Bundle, write_bundle
from dualasr_lib.recognition.initial import read_trained
from dualasr_lib.training.distributed import World

TEXTS = ["あいうえお", "かきくけこ"]


class Positioned:
    """Two batches an epoch, which can be taken up in between."""

    def __init__(self) -> None:
        self._done = 0

    def set_epoch(self, epoch: int) -> None:
        self._done = 0

    def __iter__(self) -> Iterator[Batch]:
        while self._done < 2:
            self._done += 1
            yield batch(2, self._done)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._done = state["done"]


class Resumable(Data):
    """In place of the DataModule."""

    def train_batches(self, seed: int) -> Any:
        return Positioned()


@pytest.fixture(autouse=True)
def _small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "DataModule", Resumable)


def data_dir(folder: Path, texts: list[str]) -> Path:
    Tokenizer.train(texts).save(folder / "lang")
    describe(folder, FbankConfig())
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fine_tuning")


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    return data_dir(place / "data", TEXTS)


@pytest.fixture(scope="module")
def trained(place: Path, data: Path) -> Path:
    """The checkpoint of a model that has seen its batches often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "DataModule", Resumable)
        fit(place / "trained", data, "training.max_steps=40")
    path = checkpoints.newest(place / "trained")
    assert path is not None
    return path


@pytest.fixture(scope="module")
def bundle(place: Path, data: Path, trained: Path) -> Path:
    """The same as a bundle."""
    found = checkpoints.load(trained)
    lang = data / "lang"
    write_bundle(
        Bundle(
            weights=found.model, config=found.config, source=trained.name,
            tokenizer=(lang / "sentencepiece.model").read_bytes(),
            tokens=(lang / "tokens.txt").read_text(encoding="utf-8"),
        ),
        place / "x.dualasr",
    )  # fmt: skip
    return place / "x.dualasr"


def settings(*changes: str) -> ExperimentConfig:
    values = to_dict(config(("streaming", "full")))
    values["training"] |= {"max_steps": 10, "save_every": 1, "keep_last": 99}
    return from_dict(ExperimentConfig, override(values, changes))


def fit(exp: Path, data: Path, *changes: str, **patches: Any) -> Checkpoint:
    """The last checkpoint of a run."""
    made = Experiment(settings(*changes), data, read_trained)
    for name, value in patches.items():
        setattr(made, name, value)
    made.fit(made.run(exp, World()), CPU)
    path = checkpoints.newest(exp)
    assert path is not None
    return checkpoints.load(path)


def losses(exp: Path) -> list[str]:
    """Of each step: what was logged, but for times."""
    lines = (exp / "log.jsonl").read_text().splitlines()
    return [line.split('"train/loss": ')[1].split(",")[0] for line in lines if "train/loss" in line]


def is_same(ours: Checkpoint, theirs: Checkpoint, *prefixes: str) -> bool:
    names = [name for name in theirs.model if name.startswith(prefixes or "")]
    assert names
    return all(torch.equal(ours.model[name], theirs.model[name]) for name in names)


def test_it_begins_where_the_other_ended(
    data: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path / "scratch", data)
    with caplog.at_level(logging.INFO, logger="dualasr_lib.experiment"):
        last = fit(tmp_path / "tuned", data, f"initial.path={trained}")
    scratch, tuned = losses(tmp_path / "scratch"), losses(tmp_path / "tuned")
    assert len(scratch) == len(tuned) == 10
    assert float(tuned[0]) < 0.8 * float(scratch[0])
    count = sum(value.is_floating_point() for value in last.model.values())
    assert f"{trained.name}: took {count} of {count} tensors, 0.0 of 0.0 M values" in caplog.text
    assert "anew" not in caplog.text
    recorded = last.config["initial"]
    assert (recorded["path"], recorded["hash"]) == (trained.name, file_hash(trained))
    assert recorded["anew"] == []


def test_bundle_and_checkpoint_are_the_same_start(
    data: Path, trained: Path, bundle: Path, tmp_path: Path
) -> None:
    changes = ("training.max_steps=3",)
    one = fit(tmp_path / "one", data, f"initial.path={trained}", *changes)
    two = fit(tmp_path / "two", data, f"initial.path={bundle}", *changes)
    assert is_same(one, two) and losses(tmp_path / "one") == losses(tmp_path / "two")
    assert not is_same(one, checkpoints.load(trained))


@pytest.mark.parametrize("as_bundle", [False, True])
def test_another_vocabulary_of_the_same_size_makes_new_heads(
    trained: Path, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, as_bundle: bool
) -> None:
    other = data_dir(tmp_path / "other", ["さしすせそ", "たちつてと"])
    source = bundle if as_bundle else trained
    seen = {}

    def objective(self: JointModel, *_: Any) -> Any:
        seen.update({name: value.clone() for name, value in self.state_dict().items()})
        raise InterruptedError

    with caplog.at_level(logging.INFO), pytest.raises(InterruptedError):
        fit(tmp_path / "exp", other, f"initial.path={source}", objective=objective)
    before = checkpoints.load(trained).model
    for name, value in before.items():
        is_drawn = name.startswith("heads.") and "norm" not in name and "bias" not in name
        if value.is_floating_point() and not (name.startswith("heads.") and not is_drawn):
            assert torch.equal(seen[name], value) != is_drawn, name
    reason = "the vocabulary is another one" if as_bundle else "the tokenizer is another one"
    assert f"starts anew: heads ({58} tensors): {reason}" in caplog.text


def test_a_bundle_knows_that_another_tokenizer_has_the_same_tokens(
    bundle: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As `prepare.sh` on other data with the same characters makes it."""
    same = data_dir(tmp_path / "same", ["あいうえお" * 3, "かきくけこ" * 3])
    model = tmp_path / "same/lang/sentencepiece.model"
    tokens = model.with_name("tokens.txt").read_text(encoding="utf-8")
    if tokens != read_tokens(bundle):
        pytest.skip("sentencepiece has ordered them in another way")
    with caplog.at_level(logging.INFO):
        fit(tmp_path / "exp", same, f"initial.path={bundle}", "training.max_steps=1")
    assert "anew" not in caplog.text


def read_tokens(bundle: Path) -> str:
    from dualasr_lib.recognition.bundle import read_bundle

    return read_bundle(bundle).tokens


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_a_resume_is_exact_and_needs_the_file_no_more(
    data: Path, trained: Path, tmp_path: Path, stop_at: int
) -> None:
    source = tmp_path / "source.pt"
    source.write_bytes(trained.read_bytes())
    changes = (f"initial.path={source}", 'training.freeze=["encoders.streaming.subsampling"]')
    whole = fit(tmp_path / "whole", data, *changes)
    parts = tmp_path / "parts"
    fit(parts, data, *changes, f"training.max_steps={stop_at}")
    source.unlink()
    again = changes if stop_at % 2 else changes[1:]  # with and without --init-from
    last = fit(parts, data, *again)
    assert is_same(last, whole) and losses(parts) == losses(tmp_path / "whole")
    assert last.config["initial"] == whole.config["initial"]
    assert last.average_count == whole.average_count == 5
    assert is_same(last, checkpoints.load(trained), "encoders.streaming.subsampling")
    assert all(torch.equal(last.average[name], whole.average[name]) for name in whole.average)


def test_a_resume_with_other_weights_is_refused(
    data: Path, trained: Path, bundle: Path, tmp_path: Path
) -> None:
    fit(tmp_path / "scratch", data, "training.max_steps=1")
    fit(tmp_path / "tuned", data, f"initial.path={trained}", "training.max_steps=1")
    with pytest.raises(ValueError, match=r"began with random weights, not with those of .*dualasr"):
        fit(tmp_path / "scratch", data, f"initial.path={bundle}")
    with pytest.raises(ValueError, match=r"began with those of .*\.pt \(hash .*not with those of"):
        fit(tmp_path / "tuned", data, f"initial.path={bundle}")
    assert fit(tmp_path / "tuned", data, "training.max_steps=2").step == 2


def aids(model: JointModel) -> tuple[float, float, float]:
    """How strongly the aids of both encoders act, and whether distillation has begun."""
    parts = (model.encoders.streaming, model.encoders.full)
    rates = [next(m for m in part.modules() if isinstance(m, SkipRates)) for part in parts]
    assert model.distiller is not None
    return rates[0].attention.now(), rates[1].attention.now(), model.distiller.started.now()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), (0.0, 0.0, 1.0)),
        (("initial.warm_up_done=0",), (0.2, 0.2, 0.0)),
        (("initial.warm_up_done=0.2",), (0.05, 0.05, 1.0)),
        (('initial.anew=["encoders.full"]',), (0.0, 0.2, 0.0)),
        (("initial.path=",), (0.2, 0.2, 0.0)),
    ],
)
def test_what_was_trained_does_not_warm_up_again(
    data: Path, trained: Path, tmp_path: Path, changes: tuple[str, ...], expected: Any
) -> None:
    """Attention is left out at a rate of 0.2, falling to 0.05 at 4000 of 20000 published steps, and
    to 0.
    """
    common = ("model.warm_up=100", "loss.distillation.warm_up=10", f"initial.path={trained}")
    made = Experiment(settings(*common, *changes), data, read_trained)
    seen = []

    def objective(model: JointModel, *_: Any) -> Any:
        seen.append(aids(model))
        raise InterruptedError

    made.objective = objective  # type: ignore[method-assign, assignment]
    with pytest.raises(InterruptedError):
        made.fit(made.run(tmp_path, World()), CPU)
    assert seen == [pytest.approx(expected)]


def test_frozen_encoders_are_those_of_recognition(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    """Nothing is drawn in them: their states are the same twice, while the heads' are not."""
    freeze = 'training.freeze=["encoders"]'
    made = Experiment(settings(freeze, f"initial.path={trained}"), data, read_trained)
    states = []

    def objective(model: JointModel, batch: Any) -> Any:
        chunk = made.config.chunk.decoding
        for _ in range(2):
            found = model.encode(batch.features, batch.feature_lens, chunk)
            states.append({branch: its.h.clone() for branch, its in found.items()})
            assert not any(its.h.requires_grad for its in found.values())
        return Experiment.objective(made, model, batch)

    made.objective = objective  # type: ignore[method-assign]
    made.fit(made.run(tmp_path, World()), CPU)
    for one, two in zip(states[::2], states[1::2]):
        assert all(torch.equal(one[branch], two[branch]) for branch in one)
    path = checkpoints.newest(tmp_path)
    assert path is not None
    last, before = checkpoints.load(path), checkpoints.load(trained)
    assert is_same(last, before, "encoders") and not is_same(last, before, "heads")
    names = {n for b in last.training["optimizer"]["batches"] for n in b["names"]}
    assert names and all(name.startswith("heads.") for name in names)


FROZEN = ("encoders.full", "heads", "encoders.streaming.subsampling")


def gradients(exp: Path, data: Path, trained: Path, by_configuration: bool) -> dict[str, Any]:
    """Of a batch: with parts frozen, or just in evaluation mode."""
    freeze = FROZEN if by_configuration else ()
    changes = (f"initial.path={trained}", "initial.warm_up_done=0")
    made = Experiment(
        settings(*changes, f"training.freeze={json.dumps(freeze)}"), data, read_trained
    )
    found: dict[str, Any] = {}

    def objective(model: JointModel, first: Batch) -> Any:
        for name in () if by_configuration else FROZEN:
            model.get_submodule(name).eval()
        torch.manual_seed(3)
        Experiment.objective(made, model, first).loss.backward()
        found.update({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        raise InterruptedError

    made.objective = objective  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        made.fit(made.run(exp, World()), CPU)
    return found


def test_gradients_pass_through_what_is_frozen(data: Path, trained: Path, tmp_path: Path) -> None:
    """They are those of recognition: nothing pushes them, nothing is dropped."""
    some = gradients(tmp_path / "frozen", data, trained, True)
    every = gradients(tmp_path / "evaluated", data, trained, False)
    assert some and all(name.startswith("encoders.streaming") for name in some)
    assert len(every) > len(some)
    for name, gradient in some.items():
        torch.testing.assert_close(gradient, every[name], rtol=1e-4, atol=1e-6)
