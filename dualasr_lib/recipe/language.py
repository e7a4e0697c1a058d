"""Stages 5 and 6: sentencepiece model and tokens.txt; n-gram language models of tokens and words.

All see the training text only (each utterance once, not its speed copies). N-grams are trained by
kaldingram (ARPA). kaldilm turns that of tokens into the text form of an FST as well, which
`k2.Fsa.from_openfst` reads; its labels are the ids of tokens.txt, `#0` on back-off arcs is the next
id (`symbols.txt` lists all). Words are CSJ's short units, one to a row of an SDB file, so none
need a morphological analyser.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dualasr_lib.data.tokenizer import TOKENS_FILE, Tokenizer
from dualasr_lib.recipe.options import TRAINING, Options
from dualasr_lib.recipe.process import run_program
from dualasr_lib.recipe.stage import Folders, PrepareError, read_jsonl
from dualasr_lib.recipe.utterances import join_units
from egs.csj.local.csj_text import Mode, parse_surface, raw_surfaces

__all__ = ["run_lm", "run_tokenizer", "training_words", "words_of"]

_BOUNDARY = "\uffff"
"""Stands between words while their tags are read; Unicode promises that no text has it."""


def run_tokenizer(options: Options, folders: Folders) -> None:
    """Writes `lang/{sentencepiece.model,tokens.txt,text.txt}`."""
    texts = {
        cut["id"]: cut["supervisions"][0]["text"]
        for cut in read_jsonl(options.data_dir / "utterances" / "csj_cuts_train.jsonl.gz")
        if "_sp" not in cut["id"]
    }
    lines = [texts[key] for key in sorted(texts)]
    tokenizer = Tokenizer.train(lines, options.vocab_type, options.vocab_size)
    tokenizer.save(folders.out / "lang")
    text = "".join(f"{line}\n" for line in lines)
    (folders.out / "lang" / "text.txt").write_text(text, encoding="utf-8")
    print(f"  {len(lines)} utterances, {tokenizer.vocab_size} tokens")


def run_lm(options: Options, folders: Folders) -> None:
    """Writes n-grams of tokens, `lang/G_<order>gram.{arpa,fst.txt}`, `lang/symbols.txt` and
    `lang/G_<rescoring order>gram.arpa`, and of words, `lang/words_<order>gram.arpa` and
    `lang/lexicon.txt`.
    """
    lang = options.data_dir / "lang"
    tokenizer = Tokenizer.load(lang)
    target = folders.out / "lang"
    target.mkdir(exist_ok=True)
    table = (lang / TOKENS_FILE).read_text(encoding="utf-8")
    symbols = f"{table}#0 {tokenizer.vocab_size}\n"
    (target / "symbols.txt").write_text(symbols, encoding="utf-8")
    pieces = folders.scratch / "pieces.txt"
    with open(lang / "text.txt", encoding="utf-8") as lines:
        _write_lines(pieces, (_spell(line.rstrip("\n"), tokenizer) for line in lines))
    for order in sorted({options.order, options.rescoring_order}):
        _train(pieces, order, target / f"G_{order}gram.arpa")
    _write_fst(target / f"G_{options.order}gram.arpa", target / "symbols.txt")
    _write_words(options, tokenizer, target, folders.scratch / "words.txt")


def training_words(data_dir: Path, mode: Mode, max_length: float) -> Iterator[list[str]]:
    """The words of each training utterance, in the order of `lang/text.txt`: the units of stage 2,
    joined as in stage 3, without those that stage 3 leaves out.
    """
    units = [
        {key: unit[key] for key in ("id", "speaker", "start", "duration", "custom")}
        for part in TRAINING
        for unit in read_jsonl(data_dir / "text" / f"csj_supervisions_{part}.jsonl.gz")
    ]
    units.sort(key=lambda unit: str(unit["id"]))
    for utterance in join_units(units, max_length):
        if words := words_of(utterance, mode):
            yield words


def words_of(unit: dict[str, Any], mode: Mode) -> list[str]:
    """The words of a unit or utterance in a mode, by the surfaces in `custom.raw`.

    Tags may reach over several words, so all are read at once. Where a tag has alternatives, the
    one that is kept has the boundaries that stand in it. Words of which nothing is left are
    skipped.

    Raises:
        PrepareError: together they are not the unit's text.
    """
    surface = raw_surfaces(unit["custom"]["raw"]).replace(" ", _BOUNDARY)
    words = [word for word in parse_surface(surface, mode).text.split(_BOUNDARY) if word]
    spelt, text = "".join(words), unit["custom"][mode]
    if spelt != text:
        raise PrepareError(f"unit {unit['id']}: its words spell '{spelt}', its text is '{text}'")
    return words


def _write_words(options: Options, tokenizer: Tokenizer, target: Path, text: Path) -> None:
    vocabulary: set[str] = set()

    def lines() -> Iterator[str]:
        for words in training_words(options.data_dir, options.mode, options.max_length):
            vocabulary.update(words)
            yield " ".join(words)

    _write_lines(text, lines())
    known = [w for w in sorted(vocabulary) if tokenizer.unk_id not in tokenizer.encode(w)]
    _write_lines(target / "lexicon.txt", (f"{word} {_spell(word, tokenizer)}" for word in known))
    _train(text, options.order, target / f"words_{options.order}gram.arpa")
    print(f"  lexicon with {len(known)} of {len(vocabulary)} words")


def _spell(text: str, tokenizer: Tokenizer) -> str:
    return " ".join(tokenizer.tokens[i] for i in tokenizer.encode(text))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            print(line, file=file)


def _train(text: Path, order: int, arpa: Path) -> None:
    train = ["kaldingram.cli", "train", "--ngram-order", str(order)]
    run_program([sys.executable, "-m", *train, "--text", str(text), "--lm", str(arpa)])


def _write_fst(arpa: Path, symbols: Path) -> None:
    convert = ["kaldilm", "--disambig-symbol=#0", f"--read-symbol-table={symbols}"]
    fst = run_program([sys.executable, "-m", *convert, str(arpa)])
    arpa.with_suffix(".fst.txt").write_text(fst, encoding="utf-8")
    print(f"  {arpa.stem} with {fst.count(chr(10))} arcs and final states")
