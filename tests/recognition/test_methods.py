"""Every search by its name, on short log-probabilities; what a method refuses."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sentencepiece")  # `language` knows tokenizers
pytest.importorskip("k2")

from short_cases import (
    ARPA,
    LABELS,
    TOKENIZER,
    A,
    C,
    V,
    frames,
    given,
    heard,
    merged,
    transducer_frames,
)

from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.rescoring import Scales
from dualasr_lib.decoding.transducer.beam import TransducerBeam
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.lattice.graph_search import GraphSearch
from dualasr_lib.lattice.intersecter import OnlineIntersecter
from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.lm import text_score
from dualasr_lib.model.heads.registry import HEADS
from dualasr_lib.recognition.language import Language, default_lm, load_language
from dualasr_lib.recognition.methods import registry
from dualasr_lib.recognition.methods.method import OfflineMethod, OnlineMethod
from dualasr_lib.recognition.methods.registry import METHODS, find, listing, names

LM_METHODS = {"hlg", "nbest-lm", "lattice-lm"}
WEIGHTED = LM_METHODS | {"attention", "rescore", "transducer-beam", "fast-beam"}
ONLINE_METHODS = names(lambda method: method.stream is not None)
FOLDER = Path(registry.__file__).parent


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA, encoding="utf-8")
    return path


@pytest.fixture
def language(arpa: Path) -> Language:
    return load_language(TOKENIZER, arpa)


def offline_method(method: str, options: Sequence[str], language: Language) -> OfflineMethod:
    return find(method).offline(options, given(language))


def online_method(
    method: str, options: Sequence[str], vocab_size: int, language: Language, scales: Scales
) -> OnlineMethod:
    return find(method).online(options, given(language, vocab_size), scales)


BY_CTC = [merged(labels) for labels in LABELS]
OTHERWISE = [(*text[:-1], C) for text in BY_CTC]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_searches(method: str, language: Language) -> None:
    """Scales of 0 give what CTC says; those of others, and the oracle, what they prefer."""
    made = offline_method(method, [], language)
    paths = made.search(Scales())(heard()).paths
    wanted = OTHERWISE if method == "nbest-oracle" else BY_CTC
    assert [path.tokens for path in paths] == wanted
    first = {tuple(path.frames) for path in paths}
    assert first == {(0, 3), (1, 3, 4)}
    assert (made.propose is not None) == bool(made.grid) == (method in WEIGHTED)
    if method in WEIGHTED:
        scales = Scales(attention=1.0) if method == "attention" else Scales(lm=1.0)
        paths = made.search(scales)(heard()).paths
        assert [path.tokens for path in paths] == OTHERWISE
    assert Scales() in made.grid or method not in WEIGHTED


@pytest.mark.parametrize("method", sorted(WEIGHTED - {"transducer-beam", "fast-beam"}))
@pytest.mark.parametrize("words", ["う う\n", "い い\nあい あ い\n", "ああ あ あ\n"])
def test_only_words_of_the_lexicon_are_said(
    method: str, words: str, arpa: Path, tmp_path: Path
) -> None:
    """With every method and weight; also where list and lattice have no text of such words."""
    (tmp_path / "lexicon.txt").write_text(words, encoding="utf-8")
    language = load_language(TOKENIZER, arpa, tmp_path / "lexicon.txt")
    assert language.lm is not None
    made = offline_method(method, [], language)
    for scale in (0.0, 0.3, 3.0):
        paths = made.search(Scales(lm=scale))(heard()).paths
        assert len(paths) == len(LABELS)
        for path in paths:
            # What a stream of `hlg` has committed stays, even a word that never ends.
            cut = method == "hlg" and words.startswith("ああ") and path.tokens[-1:] == (A,)
            assert cut or math.isfinite(text_score(language.lm, path.tokens)), path
            assert len(path.frames) == len(path.tokens)
    if words.startswith("う"):
        assert [path.tokens for path in paths] == [(C,)] * 2


def test_the_registry() -> None:
    """Every method has a file of its own, in which its name stands; --help lists them all."""
    assert set(ONLINE_METHODS) == {"greedy", "1best", "hlg", "transducer-greedy", "transducer-beam"}
    assert set(names(lambda method: method.lm == "required")) == LM_METHODS
    assert set(names(lambda method: bool(method.grid))) == WEIGHTED
    assert registry.DEFAULT in METHODS
    assert METHODS[registry.SECOND_PASS].second_pass is not None
    files = {path.stem for path in FOLDER.glob("*.py")} - {
        "__init__",
        "method",
        "registry",
        "lists",
    }
    assert len(files) == len(METHODS)
    for name, method in METHODS.items():
        assert name == method.name
        assert set(method.grid) <= {"lm", *method.heads}
        assert ("lm" in method.grid) == (method.lm != "none")
        assert method.heads and set(method.heads) <= HEADS.keys()
        assert (method.heads[0] == "transducer") == (
            name.startswith("transducer") or name == "fast-beam"
        )
    assert [line.split()[0] for line in listing().splitlines()] == list(METHODS)


def test_a_name_that_is_none_is_corrected() -> None:
    with pytest.raises(ValueError, match="no search method 'nbest_lm'; did you mean 'nbest-lm'"):
        find("nbest_lm")
    with pytest.raises(ValueError, match=r"'viterbi'; there are greedy, 1best"):
        find("viterbi")


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_names_the_method(method: str, language: Language) -> None:
    with pytest.raises(ValueError, match=rf"method {method}: unknown config key 'beem'"):
        offline_method(method, ["beem=3"], language)


@pytest.mark.parametrize("method", ONLINE_METHODS)
def test_an_unknown_option_names_the_online_method(method: str, language: Language) -> None:
    with pytest.raises(ValueError, match=rf"method {method}: unknown config key 'beem'"):
        online_method(method, ["beem=3"], V, language, Scales())


@pytest.mark.parametrize("method", METHODS)
def test_without_a_language_model(method: str) -> None:
    if method in LM_METHODS:
        with pytest.raises(ValueError, match=f"method {method} needs a language model"):
            offline_method(method, [], Language())
    else:
        made = offline_method(method, [], Language())
        assert len(made.search(Scales())(heard()).paths) == 2
        assert {scales.weight("lm") for scales in made.grid} <= {0.0}


def test_attention_with_a_language_model_weighs_both(language: Language) -> None:
    made = offline_method("attention", [], language)
    lm, attention = ({s.weight(name) for s in made.grid} for name in ("lm", "attention"))
    assert len(made.grid) == len(lm) * len(attention)
    assert len(lm) > 1 < len(attention)
    (text, *_), _ = made.search(Scales(lm=0.5, attention=1.0))(heard()).nbest
    assert text.scores.keys() == {"ctc", "lm", "attention"}
    assert text.scores["attention"] == 2.0
    with pytest.raises(ValueError, match="by the attention head needs a branch that has one"):
        made.search(Scales())(heard()._replace(score={}))


@pytest.mark.parametrize("method", METHODS)
def test_a_branch_without_its_head_is_refused(method: str, language: Language) -> None:
    """By each search, whole utterances and streams alike."""
    head = find(method).heads[0]
    search = offline_method(method, [], language).search(Scales())
    with pytest.raises(
        ValueError, match=f"reads the {head} head of a branch, but this branch has att"
    ):
        search(heard()._replace(frames={"attention": torch.zeros(2, 5, 3)}))
    if method in ONLINE_METHODS:
        online = online_method(method, [], V, language, Scales()).search
        with pytest.raises(ValueError, match="but this branch has no head that it could search"):
            online.step([{}], [online.open()])


def test_only_the_oracle_reads_the_texts(language: Language) -> None:
    class Forbidden(tuple[str, ...]):
        """References that fail when somebody looks."""

        __slots__ = ()

        def __iter__(self) -> Any:
            raise AssertionError("the references were read")

        __getitem__ = __len__ = __iter__

    for method in METHODS:
        search = offline_method(method, [], language).search(Scales())
        question = heard()._replace(texts=Forbidden(("あう", "ああう")))
        if method == "nbest-oracle":
            with pytest.raises(AssertionError, match="were read"):
                search(question)
        else:
            assert [path.tokens for path in search(question).paths] == BY_CTC


def test_options_reach_the_search_and_the_report(language: Language) -> None:
    options = ["num_texts=1", "lattice.output_beam=0.1"]
    made = offline_method("attention", options, language)
    assert made.params["num_texts"] == 1
    assert made.params["lattice"]["output_beam"] == 0.1
    assert made.params["lm"].startswith("lm.arpa ")
    assert [len(texts) for texts in made.search(Scales())(heard()).nbest] == [1, 1]
    with pytest.raises(ValueError, match=r"method 1best: .*output_beam"):
        offline_method("1best", ["output_beam=-1"], language)
    with pytest.raises(ValueError, match=r"method nbest: .*num_texts"):
        offline_method("nbest", ["num_texts=many"], language)


@pytest.mark.parametrize(
    ("method", "options", "kind"),
    [
        ("greedy", [], OnlineGreedy),
        ("1best", [], OnlineGreedy),
        ("1best", ["engine=k2"], OnlineIntersecter),
        ("1best", ["engine=k2", "output_beam=4"], OnlineIntersecter),
        ("hlg", ["beam=5"], GraphSearch),
        ("transducer-greedy", ["temperature=2"], TransducerGreedy),
        ("transducer-beam", ["beam=3"], TransducerBeam),
        ("transducer-beam", ["recombine=text", "beam=7"], TransducerBeam),
    ],
)
def test_online_methods(
    method: str, options: list[str], kind: type[Any], language: Language
) -> None:
    """The same text as the whole-utterance search of the same name."""
    made = online_method(method, options, V, language, Scales(lm=1.0))
    assert isinstance(made.search, OneHead) and isinstance(made.search.search, kind)
    offline = offline_method(method, [], language).search(Scales(lm=1.0))
    expected = [path.tokens for path in offline(heard()).paths]
    for labels, tokens in zip(LABELS, expected):
        state = made.search.open()
        for rows, others in zip(frames(labels).split(2), transducer_frames(labels).split(2)):
            said = {"ctc": rows, "transducer": others}
            state = made.search.step([said], [state])[0].state
        assert made.search.finish(state).tokens == tokens
    for option in options:
        name, value = option.split("=")
        assert str(made.params[name]).removesuffix(".0") == value


def test_online_refusals(language: Language) -> None:
    for method in METHODS:
        if method not in ONLINE_METHODS:
            with pytest.raises(ValueError, match=rf"{method} needs whole utterances"):
                online_method(method, [], V, language, Scales())
    with pytest.raises(ValueError, match="method hlg needs a language model"):
        online_method("hlg", [], V, Language(), Scales())
    with pytest.raises(ValueError, match="max_vocab=512, but is 3000"):
        online_method("1best", ["engine=k2"], 3000, language, Scales())
    with pytest.raises(ValueError, match=r"method 1best: engine must be one of \['frames'\]"):
        online_method("1best", ["engine=rerun"], V, language, Scales())


def test_the_language_model_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no G_<order>gram\.arpa"):
        default_lm(tmp_path, words=False, highest=True)
    for name in ("G_3gram.arpa", "G_10gram.arpa", "G_5gram.arpa", "words_3gram.arpa"):
        (tmp_path / name).write_text(ARPA, encoding="utf-8")
    names = [
        default_lm(tmp_path, words, highest).name
        for words, highest in ((False, False), (False, True), (True, False), (True, True))
    ]
    assert names == ["G_3gram.arpa", "G_10gram.arpa", "words_3gram.arpa", "words_3gram.arpa"]


def test_language_names_its_files_and_their_content(arpa: Path, tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("あ い う\n", encoding="utf-8")
    tokens, words = load_language(TOKENIZER, arpa), load_language(TOKENIZER, arpa, lexicon)
    assert isinstance(words.lm, LexiconLm) and not isinstance(tokens.lm, LexiconLm)
    assert words.params["lm"] == tokens.params["lm"]
    assert words.params["lexicon"].startswith("lexicon.txt ")
    assert load_language(TOKENIZER, arpa).params == tokens.params
    arpa.write_text(ARPA.replace("-2.0", "-2.1"), encoding="utf-8")
    assert load_language(TOKENIZER, arpa).params != tokens.params
    for missing in ((tmp_path / "no.arpa",), (arpa, tmp_path / "no.txt")):
        with pytest.raises(ValueError, match=r"no\.\w+' .*is missing"):
            load_language(TOKENIZER, *missing)
