"""Tokenizer: special ids, round trips without spaces, deterministic training, checks on loading."""

import pickle
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece")

from dualasr_lib.data.tokenizer import TOKENS_FILE, PieceType, Tokenizer

TEXTS = ["えーそれ二千だです人が", "一・々〆ＡＢそれは人です", "それ二千人だです"] * 4


def test_special_tokens_come_first() -> None:
    tokenizer = Tokenizer.train(TEXTS)
    assert tokenizer.tokens[:3] == ("<blk>", "<sos/eos>", "<unk>")
    assert (tokenizer.blank_id, tokenizer.sos_eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert tokenizer.vocab_size == 3 + len(set("".join(TEXTS)))


@pytest.mark.parametrize(("kind", "size"), [("char", 0), ("unigram", 24), ("bpe", 24)])
def test_text_survives_a_round_trip(kind: PieceType, size: int) -> None:
    tokenizer = Tokenizer.train(TEXTS, kind, size)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert min(ids) > tokenizer.unk_id
        if kind == "char":
            assert len(ids) == len(text)


def test_unknown_characters_become_one_sign() -> None:
    tokenizer = Tokenizer.train(TEXTS)
    ids = tokenizer.encode("それ髙﨑人")
    assert ids.count(tokenizer.unk_id) == 1
    assert tokenizer.decode([0, *ids, 1]) == "それ⁇人"


@pytest.mark.parametrize(("kind", "size"), [("char", 0), ("unigram", 24), ("bpe", 24)])
def test_training_is_deterministic(tmp_path: Path, kind: PieceType, size: int) -> None:
    first, second = (Tokenizer.train(TEXTS, kind, size) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != Tokenizer.train([*TEXTS, "別"], kind, size).fingerprint


def test_loading_gives_the_same_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXTS)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert pickle.loads(pickle.dumps(loaded)).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    lines = (tmp_path / TOKENS_FILE).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "<blk> 0"
    assert [int(line.rsplit(" ", 1)[1]) for line in lines] == list(range(tokenizer.vocab_size))


def test_a_changed_token_table_is_refused(tmp_path: Path) -> None:
    Tokenizer.train(TEXTS).save(tmp_path)
    table = tmp_path / TOKENS_FILE
    table.write_text(table.read_text(encoding="utf-8").replace("人", "髙"), encoding="utf-8")
    with pytest.raises(ValueError, match="must list the pieces"):
        Tokenizer.load(tmp_path)
    table.unlink()
    with pytest.raises(ValueError, match=r"tokens.txt' is missing"):
        Tokenizer.load(tmp_path)


def test_too_little_text_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="needs training text"):
        Tokenizer.train(["", ""])
    with pytest.raises(ValueError, match=r"sentencepiece \(bpe, 500 pieces\)"):
        Tokenizer.train(["あい"], "bpe", 500)


ENGLISH = ["the cat sat", "a cat can't", "that hat is the one", "cats and hats sat"] * 4


@pytest.mark.parametrize(("kind", "size"), [("char", 0), ("unigram", 20), ("bpe", 30)])
def test_words_survive_where_there_are_spaces(kind: PieceType, size: int) -> None:
    tokenizer = Tokenizer.train(ENGLISH, kind, size, spaces=True)
    for text in ENGLISH:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert sum(tokenizer.tokens[i].startswith("▁") for i in ids) == len(text.split())
        assert min(ids) > tokenizer.unk_id
    assert not any("▁" in token[1:] for token in tokenizer.tokens)
    assert pickle.loads(pickle.dumps(tokenizer)).decode(ids) == text
    assert tokenizer.decode([]) == ""
