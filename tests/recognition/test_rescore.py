"""`rescore`: lists and scores of all heads against one text at a time; what it has in common with
`attention`; scales that are kept.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("sentencepiece")
pytest.importorskip("k2")

from random_model import BIGRAM, trained_model
from short_cases import heard as short_heard

from dualasr_lib.core.ctc_scores import ctc_scores
from dualasr_lib.data.batch import Example, collate
from dualasr_lib.decoding.budget import Budget, Pace
from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.hypothesis import ScoredText
from dualasr_lib.decoding.offline import Heard
from dualasr_lib.decoding.rescoring import Scales
from dualasr_lib.lattice.lm import text_score
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.recognition.language import Language, load_language
from dualasr_lib.recognition.methods.method import Ingredients, OfflineMethod
from dualasr_lib.recognition.methods.registry import find
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.recognition.tuning import TuningData, scales_for

HEADS = ("ctc", "attention", "transducer")
BOTH = 'lists=["nbest","transducer-beam"]'
QUICK = "nbest.text_beam=100", "nbest.num_texts=8"
LENGTHS = (90, 57, 120)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return trained_model(heads=HEADS)


@pytest.fixture(scope="module")
def heard(model: TrainedModel) -> Heard:
    return hear(model, "full")


def hear(model: TrainedModel, branch: Any) -> Heard:
    generator = torch.Generator().manual_seed(3)
    examples = [
        Example(f"u{i}", "あい", 1.0, 2.0 * torch.randn(length, 80, generator=generator) - 6.0, ())
        for i, length in enumerate(LENGTHS)
    ]
    return model.hear(collate(examples), branch, model.chunk())


def build(
    model: TrainedModel, method: str, *options: str, lm: Language | None = None
) -> OfflineMethod:
    given = Ingredients(
        lm or Language(),
        model.detokenise,
        model.tokenizer.vocab_size,
        tables=lambda head: model.tables(head, "full"),
    )
    return find(method).offline(options, given)


@pytest.fixture
def bigram(model: TrainedModel, tmp_path: Path) -> Language:
    (tmp_path / "lm.arpa").write_text(BIGRAM, encoding="utf-8")
    return load_language(model.tokenizer, tmp_path / "lm.arpa")


@pytest.mark.parametrize("attention", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("with_lm", [False, True])
def test_attention_is_a_special_case(
    model: TrainedModel, heard: Heard, bigram: Language, attention: float, with_lm: bool
) -> None:
    """The same paths, times and lists to the bit."""
    lm, scales = (
        (bigram, Scales(attention=attention, lm=0.5))
        if with_lm
        else (None, Scales(attention=attention))
    )
    old = build(model, "attention", "text_beam=6", lm=lm).search(scales)(heard)
    two = build(model, "rescore", 'scores=["ctc","attention"]', "nbest.text_beam=6", lm=lm)
    new = two.search(scales)(heard)
    assert new == old
    assert any(len(texts) > 1 for texts in new.nbest)


def test_texts_of_both_lists_with_scores_of_all_heads(
    model: TrainedModel, heard: Heard, bigram: Language
) -> None:
    """Each once, each score that of the text asked about alone."""
    made = build(model, "rescore", BOTH, *QUICK, lm=bigram)
    lists = made.search(Scales())(heard).nbest
    of_lattice = build(model, "nbest", "text_beam=100", "num_texts=8").search(Scales())(heard).nbest
    beam = build(model, "transducer-beam", "beam=8", "recombine=text").search(Scales())(heard).nbest
    more = 0
    for index, (texts, lattice, listed) in enumerate(zip(lists, of_lattice, beam)):
        found = [text.tokens for text in texts]
        assert len(set(found)) == len(found)
        assert set(found) == {t.tokens for t in lattice} | {t.tokens for t in listed}
        more += len(found) - len(lattice)
        for text in texts:
            assert list(text.scores) == ["ctc", "transducer", "attention", "lm"]
            assert bigram.lm is not None
            assert text.scores["lm"] == pytest.approx(text_score(bigram.lm, text.tokens))
            rows = heard.rows("ctc")[index]
            assert text.scores["ctc"] == pytest.approx(ctc_scores(rows, [text.tokens])[0], abs=1e-3)
            for head in ("transducer", "attention"):
                alone = [[text.tokens] if i == index else [()] for i in range(len(LENGTHS))]
                assert text.scores[head] == pytest.approx(
                    heard.scorer(head)(alone)[index][0], abs=1e-3
                )
        assert [t.scores["ctc"] for t in texts] == sorted(
            (t.scores["ctc"] for t in texts), reverse=True
        )
    assert more > 0  # the beam has texts that the lattice's list has not


def test_a_weighted_mix_chooses(model: TrainedModel, heard: Heard) -> None:
    """Of every mix the path is the text of the highest sum, at frames that rise."""
    made = build(model, "rescore", BOTH, *QUICK)
    chosen = set()
    for scales in (
        Scales(),
        Scales(transducer=1.0, ctc=0.0),
        Scales(attention=3.0),
        Scales(attention=1.0, transducer=1.0),
        Scales(attention=1.0, ctc=0.0),
    ):
        found = made.search(scales)(heard)
        for path, texts in zip(found.paths, found.nbest):
            weights = {name: scales.weight(name) for name in texts[0].scores}
            sums = [sum(w * t.scores[n] for n, w in weights.items() if w) for t in texts]
            assert path.score == pytest.approx(max(sums))
            assert path.tokens == texts[0].tokens
            assert len(path.frames) == len(path.tokens)
            assert list(path.frames) == sorted(set(path.frames))
        chosen.add(tuple(path.tokens for path in found.paths))
    assert len(chosen) > 2


def test_a_branch_of_one_head_is_rescored_by_its_own_sum(heard: Heard) -> None:
    """Without CTC: lists and times are the beam's, no k2 is asked."""
    model = trained_model(heads=("transducer",))
    own = hear(model, "full")
    made = build(model, "rescore", 'lists=["transducer-beam"]', 'scores=["transducer"]')
    assert (made.propose, made.grid) == (None, ())
    found = made.search(Scales())(own)
    beam = build(model, "transducer-beam", "beam=8", "recombine=text").search(Scales())(own)
    for path, texts, listed in zip(found.paths, found.nbest, beam.nbest):
        times = {text.tokens: text.frames for text in listed}
        assert path.frames == times[path.tokens] and len(path.frames) == len(path.tokens)
        assert {t.tokens for t in texts} == times.keys()
        assert path.score == max(t.scores["transducer"] for t in texts)


def test_what_options_need() -> None:
    def heads(*options: str) -> tuple[tuple[str, ...], list[str]]:
        found = find("rescore").of(options)
        return found.heads, list(found.grid)

    assert heads() == (("ctc", "transducer", "attention"), ["lm", "ctc", "transducer", "attention"])
    assert heads('scores=["ctc","attention"]') == (("ctc", "attention"), ["lm", "ctc", "attention"])
    assert heads('lists=["transducer-beam"]', 'scores=["ctc"]') == (("transducer", "ctc"), ["lm"])
    assert heads('lists=["fast-beam"]', 'scores=["transducer","attention"]')[1] == [
        "lm",
        "attention",
    ]
    for option, message in (
        ("lists=[]", "`lists` must have one name or more"),
        ('scores=["ctc","ctc"]', "each once"),
        ('lists=["first-pass"]', "must have another one beside first-pass"),
        ('lists=["hlg"]', r"lists\[0\] must be one of"),
        ("beam.beam=0", "at least 1 hypothesis, but is 0"),
        ("nbest.num_texts=0", "`num_texts` must be at least 1"),
        ("transducer_scale=1", "give --scales transducer="),
    ):
        with pytest.raises(ValueError, match=message):
            find("rescore").of([option])
    with pytest.raises(ValueError, match="for ctc, attention, which method rescore weighs"):
        find("rescore").of(['scores=["ctc","attention"]']).check_scales(["transducer"], False)


def test_an_empty_utterance_and_frames_that_are_not_finite(model: TrainedModel) -> None:
    made = build(model, "rescore", BOTH)
    nothing = hear(model, "full")._replace(lens=torch.tensor([0, 5, 0]))
    found = made.search(Scales(attention=1.0, transducer=1.0))(nothing)
    assert [path.tokens for path in found.paths][::2] == [(), ()]
    for head in ("ctc", "transducer"):
        broken = hear(model, "full")
        said: Tensor = broken.frames[head]
        said[1, 3, 0] = torch.nan
        with pytest.raises(ValueError, match="NaN"):
            made.search(Scales())(broken)


def test_scales_are_kept_with_their_axes(model: TrainedModel, tmp_path: Path) -> None:
    """Read again for the same axes; tuned again for others."""
    reads = []

    def batches() -> list[Any]:
        reads.append(1)
        return [short_heard()]

    def data() -> TuningData:
        return TuningData(batches, lambda batch: batch, lambda tokens: "うあ"[: len(tokens)], "v")

    short = find("rescore").offline([], Ingredients(Language(), model.detokenise, 6))
    path = tmp_path / "full-rescore.json"
    first = scales_for(short, path, {"model": "m"}, data())
    again = scales_for(short, path, {"model": "m"}, data())
    assert first.scales == again.scales and len(reads) == 1
    assert first.source == "tuned on valid" and again.source.endswith("tuned on valid")
    other = short._replace(axes={**short.axes, "attention": (0.0, 1.0)})
    scales_for(other, path, {"model": "m"}, data())
    assert len(reads) == 2


def test_texts_of_a_first_pass(model: TrainedModel, heard: Heard) -> None:
    """They join the list with scores of this branch, not their own; without any nothing changes."""
    options = 'lists=["nbest","first-pass"]', *QUICK
    search = build(model, "rescore", *options).search(Scales())
    alone = build(model, "rescore", *QUICK).search(Scales())(heard)
    assert search(heard) == alone
    listed = {text.tokens for text in alone.nbest[0]}
    assert (3, 4, 5) not in listed
    given = ScoredText((3, 4, 5), {"transducer": 7.0}, (0, 4, 9)), alone.nbest[0][-1]
    found = search(heard._replace(proposed=[given, (), ()]))
    assert {text.tokens for text in found.nbest[0]} == listed | {(3, 4, 5)}
    assert found.nbest[1:] == alone.nbest[1:]
    (new,) = (text for text in found.nbest[0] if text.tokens == (3, 4, 5))
    own = heard.scorer("transducer")([[new.tokens], [()], [()]])[0][0]
    assert new.scores["transducer"] == pytest.approx(own, abs=1e-3)
    with_lists = build(model, "rescore", *options).search(Scales(attention=50.0, ctc=0.0))
    path = with_lists(heard._replace(proposed=[given, (), ()])).paths[0]
    if path.tokens == (3, 4, 5):
        assert path.frames == (0, 4, 9)


def test_a_budget_leaves_out_heads_from_the_end(model: TrainedModel, heard: Heard) -> None:
    """What remains decides; with time enough all is as without a budget, to the bit."""
    made = build(model, "rescore", BOTH, *QUICK)
    search = made.search(Scales(attention=3.0, transducer=1.0))
    whole = search(heard)
    pace = Pace()
    ample = Budget(math.inf, pace)
    assert search(heard._replace(budget=ample)) == whole and ample.left_out == ()
    pace.learn("attention", 1e-9, 1e9)
    short = Budget(60.0, pace)
    found = search(heard._replace(budget=short))
    assert short.left_out == ("attention",)
    expected = build(model, "rescore", BOTH, *QUICK, 'scores=["ctc","transducer"]')
    assert found == expected.search(Scales(transducer=1.0))(heard)
    nothing = Budget(-1.0, pace)
    found = search(heard._replace(budget=nothing))
    assert nothing.left_out == ("transducer-beam", "transducer", "attention")
    assert found == build(model, "nbest", *(o.removeprefix("nbest.") for o in QUICK)).search(
        Scales()
    )(heard)


def test_a_second_pass_within_a_budget(model: TrainedModel) -> None:
    """With time enough: stacks and search, nothing else. Without: what the pace allows."""
    cascaded = trained_model(heads=HEADS, integration="cascaded")
    search = build(cascaded, "rescore", *QUICK).search(Scales(attention=1.0))
    rewrite = cascaded.second_pass(search)
    hidden = torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoded = cascaded.model.encoders.second_pass(Encoded(hidden[None], torch.tensor([30])))
    slow = search(cascaded._heard(encoded, "full", ()))
    found = rewrite(Sentence(hidden))
    assert found.left_out == () and found.path is not None
    assert (found.path.tokens, found.path.frames) == (slow.paths[0].tokens, slow.paths[0].frames)
    assert rewrite(Sentence(hidden, seconds=-1.0)) == Rewritten(None, 0, ("stacks",))
    again = rewrite(Sentence(hidden, seconds=60.0))
    assert again.path == found.path
