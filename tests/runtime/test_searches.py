"""Transducers and the choosing second pass of the runtime, beside torch."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")
from small_models import CHUNK, noise, transducer_model

from dualasr_lib.core.ctc_scores import ctc_alignment
from dualasr_lib.decoding.ctc_nbest import PrefixConfig, prefix_nbest
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import Final, LiveConfig
from dualasr_lib.decoding.live import Rules
from dualasr_lib.decoding.offline import Heard, OfflineSearch, Searched
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals, Scales, rescored
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.decoding.transducer.options import GreedyConfig
from dualasr_lib.export.runtime import SetOptions, write_runtime_set
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.joint import Branch, NbestTexts
from dualasr_lib.recognition.recogniser import Recogniser
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.runtime.layout import ATTENTION
from dualasr_lib.runtime.model import session
from dualasr_lib.runtime.opening import Wanted, open_rules
from dualasr_lib.runtime.rescoring import scorer

ENDPOINT = {"pause_seconds": 0.2, "silence_seconds": 0.4, "max_seconds": 1.6}
SCALES = {"attention": 0.7}
BEAM = 6.0


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return transducer_model()


@pytest.fixture(scope="module")
def folder(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searches") / "set"
    options = SetOptions(endpoint=ENDPOINT, scales=SCALES, text_beam=BEAM)
    write_runtime_set(trained, CHUNK, options, folder)
    return folder


def by_torch(trained: TrainedModel, search: OfflineSearch) -> Recogniser:
    """The transducer in the first pass, `search` in the second."""
    rules = Rules(
        trained.streaming(CHUNK),
        OneHead(greedy_of(trained, "streaming"), "transducer"),
        trained.detokenise,
        LiveConfig(endpoint=EndpointConfig(**ENDPOINT)),
        trained.second_pass(search),
    )
    return Recogniser(rules)


def greedy_of(trained: TrainedModel, branch: Branch) -> TransducerGreedy:
    return TransducerGreedy(trained.tables("transducer", branch), GreedyConfig())


def said(finals: list[Final]) -> list[tuple[object, ...]]:
    return [
        (f.text, f.first_pass_text, f.second_pass, tuple((t.text, t.seconds) for t in f.tokens))
        for f in finals
    ]


def test_transducers_of_both_branches_say_what_torch_says(
    trained: TrainedModel, folder: Path
) -> None:
    full = greedy_of(trained, "full")

    def whole(heard: Heard) -> Searched:
        rows = heard.rows("transducer")
        steps = full.step(rows, [full.open()] * len(rows))
        return Searched([full.finish(step.state) for step in steps])

    wanted = Wanted(True, "transducer-greedy", "transducer-greedy")
    ours = Recogniser(*open_rules(folder, wanted)[:1])
    theirs = by_torch(trained, whole)
    texts = set()
    for length in (3000, 16000, 50001, 96000):
        samples = noise(length)[0].numpy()
        found, expected = (r.transcribe(samples, 16000).segments for r in (ours, theirs))
        assert said(found) == said(expected), length
        texts |= {part for final in found for part in (final.text, final.first_pass_text)}
    assert len(texts) > 8


def test_scores_of_given_texts_are_those_of_torch(trained: TrainedModel, folder: Path) -> None:
    hidden = torch.randn(1, 37, trained.model.encoders.output_dims["full"])
    texts = [(), (3,), (4, 5, 5, 6), tuple(range(3, 10)) * 3]
    head = trained.model.head("attention", "full")
    with torch.no_grad():
        expected = head.score(
            Encoded(hidden, torch.tensor([37])), NbestTexts.padded(texts, [0] * len(texts))
        )
    score = scorer(session(folder / ATTENTION).run)
    found = score(hidden[0].numpy(), texts)
    assert found == pytest.approx(expected.tolist(), abs=1e-3)
    assert score(hidden[0].numpy(), texts[2:3]) == pytest.approx(found[2:3], abs=1e-4)


def choosing(heard: Heard) -> Proposals:
    """As the runtime, with torch's scores."""
    (rows,) = heard.rows("ctc")
    texts = prefix_nbest(rows, PrefixConfig(text_beam=BEAM))
    (scores,) = heard.scorer("attention")([[text.tokens for text in texts]])
    scored = [text.scored("attention", score) for text, score in zip(texts, scores)]
    return Proposals([NbestCandidates(scored, partial(ctc_alignment, rows))], 0)


def test_the_second_pass_chooses_as_torch(trained: TrainedModel, folder: Path) -> None:
    theirs = by_torch(trained, rescored(choosing, Scales(**SCALES)))
    ours = Recogniser(*open_rules(folder, Wanted(method="transducer-greedy"))[:1])
    greedily = Recogniser(*open_rules(folder, Wanted(second="greedy"))[:1])
    samples = noise(120000)[0].numpy()
    found = ours.transcribe(samples, 16000).segments
    assert said(found) == said(theirs.transcribe(samples, 16000).segments)
    assert len(found) > 3
    others = greedily.transcribe(samples, 16000).segments
    assert [f.text for f in found] != [f.text for f in others]


def test_without_time_the_first_pass_stands(folder: Path) -> None:
    opened = open_rules(folder, Wanted(budget_seconds=1e-9))
    assert math.isfinite(opened.rules.config.early_seconds)
    samples = noise(60000)[0].numpy()
    finals = Recogniser(*opened).transcribe(samples, 16000).segments
    late = [final for final in finals if final.second_pass == "late"]
    assert late and all(final.text == final.first_pass_text for final in late)
    free = Recogniser(*open_rules(folder, Wanted())).transcribe(samples, 16000).segments
    assert all(final.second_pass == "done" and not final.left_out for final in free)


def test_searches_that_a_set_has_no_head_for(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"--method must be one of greedy, transducer-greedy"):
        open_rules(folder, Wanted(method="1best"))
    with pytest.raises(ValueError, match=r"--second-method must be one of attention, greedy"):
        open_rules(folder, Wanted(second="fast-beam"))


def test_frames_that_are_not_finite_are_refused(folder: Path) -> None:
    search = open_rules(folder, Wanted(method="transducer-greedy", two_pass=False)).rules.search
    bad = np.full((3, 24), np.nan, np.float32)
    frames = {"transducer": bad, "ctc": np.zeros((3, 9), np.float32)}
    with pytest.raises(ValueError, match="finite"):
        search.step([frames], [search.open()])
