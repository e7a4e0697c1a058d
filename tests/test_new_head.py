"""Adding a head: one file and one line of a registry. A head that only this test knows trains, is
logged, distilled, drawn and validated, and scores n-best lists by its name.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from test_experiment import CPU, batch, config, data_dir  # noqa: F401  (a fixture)

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.core.picture import Picture
from dualasr_lib.decoding.hypothesis import ScoredText
from dualasr_lib.decoding.rescoring import NbestCandidates, Scales
from dualasr_lib.experiment import Experiment
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.contract import Head, HeadSizes, NbestTexts, Targets
from dualasr_lib.model.heads.registry import HEADS
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.pairing import Sequences
from dualasr_lib.model.similarity import mean_over_time
from dualasr_lib.model.zipformer.scheduled import Scheduled
from dualasr_lib.recognition.decode_config import parse_scales
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.training.distributed import World

STEPS = 4


class BagReading(NamedTuple):
    state: Tensor
    log_probs: Tensor
    targets: Targets
    joined_with: int = 0


class BagHead(Head):
    """A bag of tokens: each has the same probability wherever it stands in the text."""

    name: ClassVar[str] = "bag"

    def __init__(self, options: None, sizes: HeadSizes) -> None:
        super().__init__(options, sizes)
        self.output = nn.Linear(sizes.dim, sizes.vocab_size)
        self.state_dim = sizes.dim
        self.rise = Scheduled((0, 0.5), (STEPS, 1.0))

    def forward(self, states: Encoded, targets: Targets) -> BagReading:
        state = mean_over_time(states.h, states.lens)
        return BagReading(state, self.output(state).log_softmax(dim=1), targets)

    @classmethod
    def joined(cls, heads: Any, readings: Any) -> dict[Any, Any]:
        return {branch: r._replace(joined_with=len(heads)) for branch, r in readings.items()}

    def loss(self, reading: BagReading, criterion: Callable[..., Tensor] | None = None) -> Tensor:
        assert criterion is None and reading.joined_with == 2
        tokens, lens = reading.targets
        inside = torch.arange(tokens.shape[1])[None, :] < lens[:, None]
        nll = -reading.log_probs.gather(1, tokens).masked_fill(~inside, 0.0).sum()
        return self.rise.now() * nll

    def impossible(self, reading: BagReading) -> Tensor:
        return reading.targets.lens > 3

    def view(self, reading: BagReading) -> Sequences:
        lens = torch.ones_like(reading.targets.lens)
        return Sequences(reading.state[:, None], reading.log_probs[:, None], lens)

    def pictures(self, reading: BagReading) -> dict[str, Picture]:
        words = ("bag, first utterance", "token (id)", "utterance (place)", "share (probability)")
        return {"bag": Picture(reading.log_probs[:1].exp(), *words, 0.0, 1.0)}

    def texts(self, states: Encoded) -> list[tuple[int, ...]]:
        best = self.output(mean_over_time(states.h, states.lens)).argmax(dim=1)
        return [(token,) for token in best.tolist()]

    def score(self, states: Encoded, texts: NbestTexts) -> Tensor:
        log_probs = self.output(mean_over_time(states.h, states.lens)).log_softmax(dim=1)
        own = log_probs[texts.owner].gather(1, texts.tokens)
        inside = torch.arange(own.shape[1])[None, :] < texts.lens[:, None]
        return own.masked_fill(~inside, 0.0).sum(dim=1)


@pytest.fixture
def bag(monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    """A configuration with the new head; nothing but the registry is told."""
    monkeypatch.setitem(HEADS, BagHead.name, BagHead)
    values = to_dict(config(("streaming", "full")))
    values["model"]["heads"] |= {"streaming": ["bag"], "full": ["ctc", "bag"]}
    values["loss"]["heads"] = {"ctc": 0.5, "bag": 0.5}
    values["loss"]["distillation"]["head_weights"] = {"bag": 2.0}
    values["training"]["max_steps"] = STEPS
    return from_dict(ExperimentConfig, values)


def test_it_trains_and_is_logged(data_dir: Path, bag: ExperimentConfig) -> None:  # noqa: F811
    found = Experiment(bag, data_dir)
    assert found.fit(found.run(data_dir / "exp", World()), CPU).finished
    lines = [json.loads(line) for line in (data_dir / "exp" / "log.jsonl").read_text().splitlines()]
    logged: dict[str, float] = {name: value for line in lines for name, value in line.items()}
    for name in ("bag_streaming", "bag_full", "ctc_full", "distillation_bag"):
        assert logged[f"train/{name}"] > 0
    assert "train/ctc_streaming" not in logged and "train/attention_full" not in logged
    assert 0 < logged["train/loss_share/distillation_bag"] < 1
    assert logged["valid/similarity_gap_bag_utterance"] > 0
    assert {"valid/cer_streaming", "valid/cer_full"} <= logged.keys()


def test_it_is_drawn_and_validated(data_dir: Path, bag: ExperimentConfig) -> None:  # noqa: F811
    found = Experiment(bag, data_dir)
    model = build_model(bag, found.tokenizer).eval()
    with torch.no_grad():
        validation = found.validate(model)
    pictures = {f"bag_{branch}/bag" for branch in ("streaming", "full")}
    assert pictures <= validation.images.keys()
    assert {"similarity/bag_teacher", "similarity/bag_student"} <= validation.images.keys()
    lines = validation.texts["examples_streaming"].splitlines()[2:]
    said = [line.split("|")[-2].strip() for line in lines]
    assert said and all(len(text) <= 1 for text in said)  # its own texts: one token each


def test_its_schedule_and_its_gradients(data_dir: Path, bag: ExperimentConfig) -> None:  # noqa: F811
    found = Experiment(bag, data_dir)
    model = build_model(bag, found.tokenizer).eval()
    losses = []
    for step in (0, STEPS):
        model.set_step(step)
        torch.manual_seed(0)  # the same chunk
        losses.append(float(found.objective(model, batch(2, 1)).terms["bag_full"].sum))
    assert losses[1] == pytest.approx(2 * losses[0])
    found.objective(model, batch(2, 1)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_it_scores_n_best_lists_by_its_name(data_dir: Path, bag: ExperimentConfig) -> None:  # noqa: F811
    tokenizer = Experiment(bag, data_dir).tokenizer
    model: JointModel = build_model(bag, tokenizer).eval()
    trained = TrainedModel(bag, model, tokenizer, CPU, "")
    heard = trained.hear(batch(2, 1), "full", bag.chunk.decoding)
    assert heard.score.keys() == {"ctc", "bag"} and heard.frames.keys() == {"ctc"}
    texts = [(4, 5), (5,), (4, 4, 4)]
    (scores, others) = heard.scorer("bag")([texts, texts[:1]])
    assert len(scores) == 3 and len(others) == 1
    listed = [ScoredText(t, {"ctc": -1.0}).scored("bag", s) for t, s in zip(texts, scores)]
    best = NbestCandidates(listed, lambda tokens: tokens).best(Scales(bag=2.0))
    assert best.tokens == texts[max(range(3), key=scores.__getitem__)]
    assert best.score == pytest.approx(-1.0 + 2.0 * max(scores))
    with pytest.raises(ValueError, match="there is no scale 'bag'"):  # no method weighs it
        parse_scales(["bag=2"])
    with pytest.raises(ValueError, match=r"by the attention head needs .* this one has ctc, bag"):
        heard.scorer("attention")


def test_its_weight_must_be_said(bag: ExperimentConfig) -> None:
    values = to_dict(bag)
    values["loss"]["heads"] = {"ctc": 0.5}
    with pytest.raises(ValueError, match=r"loss\.heads must have a weight .* but 'bag' has none"):
        from_dict(ExperimentConfig, values)
