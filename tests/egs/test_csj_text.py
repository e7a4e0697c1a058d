"""Rules of CSJ's surface tags: each example of the table, errors, and equality with lhotse's
parser.
"""

import random

import pytest

from egs.csj.local.csj_text import (
    MARKS,
    RULES,
    Rule,
    TextError,
    clean_surface,
    parse_surface,
    raw_surfaces,
)

# The tags of reference documents on CSJ, each in a sentence, nested and spread over words.
SENTENCES = [
    "(F_えー) それ",
    "(A_二千;２０００) (D_だ) です",
    "(M_(F_えー) それ だっ たら) と いう",
    "(F_まー) 彼 は (D_く) 苦難 に",
    "(A_二 十;２０) 人",
    "(A_シーディー;ＣＤ) を",
    "(A_(F_えー)シーディー;ＣＤ)",
    "(K_たち(F_えー)ばな;橘) さん",
    "(W_ギーツ;ギジュツ) (W_(F_うう);(F_うーん))",
    "(B_シブタイ;ジュータイ)",
    "(?) それ (?_字数) (?_次数,実数) (?_次数,実数,実在)",
    "(笑_それ(D2_が) は) (泣_あの) (咳_この) (L_その) (笑)",
    "(F_笑い) 笑い",
    "(O_ザッツファイン) (R_××) (X_よみ)",
    "(D2_が) が (D_(?_が))",
    "(えー) そう",
    "ＡＢ CD (F_えー)",
    "(A_．五;．５) (A_ゼロ;０) (A_零;０)",
    "(W_あ)",
    "",
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.tag)
def test_each_rule_of_the_table_gives_its_example(rule: Rule) -> None:
    surface = clean_surface(rule.example)
    assert parse_surface(surface, "disfluent").text == rule.disfluent_text
    assert parse_surface(surface, "fluent").text == rule.fluent_text


def _lhotse_parse(surface: str) -> tuple[str, list[str]]:
    csj = pytest.importorskip("lhotse.recipes.csj")
    parser = csj.CSJSDBParser()
    raw = " ".join(f"{word}+名詞+ヨミ" for word in surface.split(" "))
    marked = parser.parse(raw, sep="", with_tags=True)
    return "".join(char for char, _ in marked), [tag for _, tag in marked]


@pytest.mark.parametrize("surface", SENTENCES)
def test_disfluent_is_lhotse(surface: str) -> None:
    text, tags = _lhotse_parse(surface)
    parsed = parse_surface(surface)
    assert parsed.text == text
    assert list(parsed.tags) == tags


def _random_surface(rng: random.Random, depth: int = 0) -> str:
    """A nest of known tags over a small alphabet; words are separated by spaces."""
    parts = []
    for _ in range(rng.randint(1, 3)):
        if depth < 3 and rng.random() < 0.5:
            tag = rng.choice([rule.tag for rule in RULES if rule.tag not in ("A_num", "?,")])
            inner = [_random_surface(rng, depth + 1) for _ in range(rng.choice([1, 2]))]
            separator = "," if tag == "?" else ";"
            parts.append(f"({tag}_{separator.join(inner)})")
        else:
            parts.append("".join(rng.choice("あ二笑の") for _ in range(rng.randint(1, 3))))
    return rng.choice(["", " "]).join(parts)


def test_disfluent_is_lhotse_on_random_nests() -> None:
    rng = random.Random(0)
    surfaces = [_random_surface(rng) for _ in range(500)]
    assert sum("(" in surface for surface in surfaces) > 300
    for surface in surfaces:
        text, tags = _lhotse_parse(surface)
        parsed = parse_surface(surface)
        assert (parsed.text, list(parsed.tags)) == (text, tags), surface


def test_cleaning_is_lhotse() -> None:
    csj = pytest.importorskip("lhotse.recipes.csj")
    fields = ["んーー", "ンーン", "一・", "(F え<H>ー)", "あ(D い)<笑>", "・", "お の"]
    fields += [f"あ<{mark}>い" for mark in MARKS]
    for field in fields:
        line = f"1\t\tA01M0097\t0001 00000.000-00001.000 L:-001-001\t\t{field}\t"
        assert clean_surface(field) == csj._CSJSDBWord.from_line(line).surface


def test_raw_of_lhotse_gives_the_surfaces() -> None:
    assert raw_surfaces("(F_えー)+感動詞+(F_エー) +名詞+ヨミ それ+代名詞+ソレ") == "(F_えー) それ"


def test_fluent_marks_say_which_characters_stay() -> None:
    parsed = parse_surface("(M_(F_えー)それ) (D_だ) です (D2_が)")
    fluent = "".join(c for c, keep in zip(parsed.text, parsed.spoken_fluently, strict=True) if keep)
    assert (
        fluent == parse_surface("(M_(F_えー)それ) (D_だ) です (D2_が)", "fluent").text == "それです"
    )


@pytest.mark.parametrize(
    ("surface", "message", "position"),
    [
        ("あ (Z_い)", "unknown tag 'Z'", 2),
        ("あ (F_い", "never closed", 2),
        ("あ) い", "without an opening", 1),
        ("一,二", "',' outside a tag", 1),
        ("(F_あ) 一;二", "';' outside a tag", 7),
        ("(A_シーディー;CD)", "unknown tag 'ACD'", 0),
    ],
)
def test_broken_surfaces_are_named(surface: str, message: str, position: int) -> None:
    with pytest.raises(TextError, match=message.replace("'", ".")) as caught:
        parse_surface(surface)
    assert caught.value.position == position
