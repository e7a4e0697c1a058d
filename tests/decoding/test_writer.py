"""Result files: their text to the letter, reading back, and never half a file."""

import json
import math
from pathlib import Path

import pytest

from dualasr_lib.decoding.errs import format_errs
from dualasr_lib.decoding.hypothesis import Hypothesis, ScoredText, TokenPath
from dualasr_lib.decoding.recogs import Recognised, format_recogs, read_recogs
from dualasr_lib.decoding.writer import write_nbest, write_results

ITEMS = [
    Recognised("a", list("今日は晴れ"), list("今日晴れた")),
    Recognised("b", list("明日"), list("赤い日")),
    Recognised("c", [], []),
]

ERRS = """\
%WER = 57.14
Errors: 2 insertions, 1 deletions, 1 substitutions, over 7 reference words (5 correct)
Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, \
INSERTIONS:, PER-WORD STATS:

PER-UTT DETAILS: corr or (ref->hyp)\x20\x20
a:\t今 日 (は->*) 晴 れ (*->た)
b:\t(明->赤 い) 日
c:\t

SUBSTITUTIONS: count ref -> hyp
1   明 -> い

DELETIONS: count ref
1   は

INSERTIONS: count hyp
1   た
1   赤

PER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp
い   0 1 0 1
た   0 1 0 1
は   0 1 1 0
明   0 1 1 0
赤   0 1 0 1
れ   1 0 1 1
今   1 0 1 1
日   2 0 2 2
晴   1 0 1 1
"""


def hypothesis(id_: str, ref: str, text: str) -> Hypothesis:
    return Hypothesis(id_, text, ref, TokenPath((), (), 0.0), 1.0)


def test_errs() -> None:
    assert format_errs(ITEMS) == ERRS


def test_recogs_and_back(tmp_path: Path) -> None:
    odd = [*ITEMS, Recognised("id:\tref=['x']", ["'", '"', "\\", "[", "\u2028"], ["𠮷"])]
    text = format_recogs(odd)
    assert text.startswith("a:\tref=['今', '日', 'は', '晴', 'れ']\na:\thyp=['今',")
    path = tmp_path / "recogs-x.txt"
    path.write_text(text, encoding="utf-8")
    assert read_recogs(path) == odd


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\tref=['x']\n", "1 lines"),
        ("a:\tref=['x']\nb:\thyp=['x']\n", ":1 must hold"),
        ("a:\thyp=['x']\na:\tref=['x']\n", ":1 must hold"),
        ("a:\tref=[]\na:\thyp=[]\nb:\tref=['x]\nb:\thyp=[]\n", ":3 must hold a list"),
        ("a:\tref=[]\na:\thyp=[1]\n", ":2 must hold a list"),
    ],
)
def test_bad_recogs_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recogs-x.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_recogs(path)
    with pytest.raises(ValueError, match="does not exist"):
        read_recogs(tmp_path / "no.txt")


def test_write_results(tmp_path: Path) -> None:
    summary = {"split": "eval1", "cer": math.nan, "params": {"a": (1, math.inf)}, "text": "あ"}
    summary |= {"unit": "character"}
    hypotheses = [hypothesis("b", "明日", "赤い日"), hypothesis("a", "今 日は", "今日")]
    files = write_results(tmp_path / "new" / "folder", hypotheses, summary)
    assert sorted(path.name for path in files.summary.parent.iterdir()) == [
        "errs-eval1.txt",
        "recogs-eval1.txt",
        "summary-eval1.json",
    ]
    assert json.loads(files.summary.read_text(encoding="utf-8")) == {
        "split": "eval1",
        "cer": None,
        "unit": "character",
        "params": {"a": [1, None]},
        "text": "あ",
    }
    assert [item.id for item in read_recogs(files.recogs)] == ["a", "b"]
    assert read_recogs(files.recogs)[0].ref == list("今日は")
    assert files.errs.read_text(encoding="utf-8") == format_errs(read_recogs(files.recogs))


def test_words_are_written_whole(tmp_path: Path) -> None:
    summary = {"split": "test", "unit": "word"}
    files = write_results(tmp_path, [hypothesis("a", "the cat  sat", "the bat")], summary)
    assert files.recogs.read_text() == "a:\tref=['the', 'cat', 'sat']\na:\thyp=['the', 'bat']\n"
    errs = files.errs.read_text().splitlines()
    assert errs[0] == "%WER = 66.67"
    assert "a:\tthe (cat sat->bat)" in errs


def test_a_failed_write_leaves_no_summary(tmp_path: Path) -> None:
    write_results(tmp_path, [hypothesis("a", "あ", "あ")], {"split": "x", "unit": "word", "n": 1})
    with pytest.raises(TypeError):
        write_results(
            tmp_path, [hypothesis("a", "い", "い")], {"split": "x", "unit": "word", "n": object()}
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errs-x.txt", "recogs-x.txt"]


def test_twice_the_same_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a' came twice"):
        write_results(tmp_path, [hypothesis("a", "", "")] * 2, {"split": "x", "unit": "word"})


LISTED = (
    ScoredText((1,), {"ctc": -1.0, "lm": -3.0, "attention": -2.0}),
    ScoredText((1, 2), {"ctc": -2.0, "lm": -math.inf}),
)


def test_write_nbest(tmp_path: Path) -> None:
    hypotheses = [
        hypothesis("b", "い", "い")._replace(nbest=LISTED[:1]),
        hypothesis("a", "あ", "あ")._replace(nbest=LISTED),
        hypothesis("c", "", ""),
    ]
    path = write_nbest(
        tmp_path / "new",
        "eval1",
        hypotheses,
        lambda tokens: "x" * len(tokens),
        lambda t: 2 * t.scores["ctc"],
    )
    assert path == tmp_path / "new" / "nbest-eval1.json"
    lists = json.loads(path.read_text(encoding="utf-8"))
    assert list(lists) == ["a", "b", "c"]
    assert lists["c"] == []
    first, second = lists["a"]
    assert first == {
        "text": "x", "tokens": [1], "total": -2.0,
        "posterior": pytest.approx(1 / (1 + math.exp(-2))),
        "ctc": -1.0, "lm": -3.0, "attention": -2.0,
    }  # fmt: skip
    assert first["posterior"] + second["posterior"] == pytest.approx(1.0)
    assert (second["text"], second["lm"], "attention" in second) == ("xx", None, False)
    assert [item.name for item in path.parent.iterdir()] == ["nbest-eval1.json"]


def test_the_best_of_a_list_has_its_confidences(tmp_path: Path) -> None:
    item = hypothesis("a", "あ", "あ")._replace(
        nbest=LISTED, path=TokenPath((1,), (0,), -1.0, (0.5,), (0.75,))
    )
    path = write_nbest(tmp_path, "x", [item], str, lambda text: text.scores["ctc"])
    first, second = json.loads(path.read_text(encoding="utf-8"))["a"]
    assert (first["confidence"], first["confidences"]) == (0.75, [0.75])
    assert "confidence" not in second


def test_no_lists_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="makes no n-best lists"):
        write_nbest(tmp_path, "x", [hypothesis("a", "", "")], str, lambda text: 0.0)
    assert list(tmp_path.iterdir()) == []
    assert json.loads(write_nbest(tmp_path, "x", [], str, lambda text: 0.0).read_text()) == {}
