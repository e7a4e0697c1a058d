"""Stages 5 and 6: sentencepiece model and tokens.txt; n-gram language models of tokens and words.

All see the training text only (each utterance once, not its speed copies). N-grams are ARPA files
(`kneser_ney.py`); k2's graphs are made of them where they are used (`lattice/ngram.py`). The
lexicon and the n-gram of words need a corpus that knows its words.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.recipe.corpus import Corpus, O, Split
from dualasr_lib.recipe.given_words import take_arpas, take_vocabulary
from dualasr_lib.recipe.kneser_ney import write_ngram
from dualasr_lib.recipe.stage import Folders, read_jsonl
from dualasr_lib.recipe.utterances import read_units, utterances

__all__ = ["run_lm", "run_tokenizer", "training_split", "training_words"]


def run_tokenizer(corpus: Corpus[O], options: O, folders: Folders) -> None:
    """Writes `lang/{sentencepiece.model,tokens.txt,text.txt}`."""
    split = training_split(corpus, options)
    copies = tuple(f"_sp{speed}" for speed in corpus.speeds)
    texts = {
        cut["id"]: cut["supervisions"][0]["text"]
        for cut in read_jsonl(options.data_dir / "utterances" / corpus.cuts_file(split.name))
        if not cut["id"].endswith(copies)
    }
    lines = [texts[key] for key in sorted(texts)]
    kind, size = options.vocab_type, options.vocab_size
    tokenizer = Tokenizer.train(lines, kind, size, spaces=corpus.has_spaces)
    tokenizer.save(folders.out / "lang")
    text = "".join(f"{line}\n" for line in lines)
    (folders.out / "lang" / "text.txt").write_text(text, encoding="utf-8")
    print(f"  {len(lines)} utterances, {tokenizer.vocab_size} tokens")


def run_lm(corpus: Corpus[O], options: O, folders: Folders) -> None:
    """Writes n-grams of tokens, `lang/G_<order>gram.arpa` and `lang/G_<rescoring order>gram.arpa`,
    and, if the corpus knows its words, of words, `lang/words_<order>gram.arpa` and
    `lang/lexicon.txt`; those of words are taken from the corpus if it has some.
    """
    lang = options.data_dir / "lang"
    tokenizer = Tokenizer.load(lang)
    target = folders.out / "lang"
    target.mkdir(exist_ok=True)
    pieces = folders.scratch / "pieces.txt"
    with open(lang / "text.txt", encoding="utf-8") as lines:
        _write_lines(pieces, (_spell(line.rstrip("\n"), tokenizer) for line in lines))
    for order in sorted({options.order, options.rescoring_order}):
        write_ngram(pieces, order, target / f"G_{order}gram.arpa")
    if (given := corpus.given_words(options)).arpas:
        arpas = take_arpas(given, corpus.normaliser(options), target)
        known = take_vocabulary(given, corpus.normaliser(options), next(iter(arpas.values())))
        _write_lexicon(known, tokenizer, target / "lexicon.txt")
        return
    text = folders.scratch / "words.txt"
    if vocabulary := _write_words_text(training_words(corpus, options), text):
        _write_lexicon(vocabulary, tokenizer, target / "lexicon.txt")
        write_ngram(text, options.order, target / f"words_{options.order}gram.arpa")


def training_split(corpus: Corpus[O], options: O) -> Split:
    """The split for training."""
    return next(split for split in corpus.splits(options) if split.use == "train")


def training_words(corpus: Corpus[O], options: O) -> Iterator[list[str]]:
    """The words of each training utterance, in the order of `lang/text.txt`: the units of stage 2,
    joined as in stage 3, without those that stage 3 leaves out. None if the corpus does not know
    words.
    """
    words_of = corpus.words_of(options)
    if words_of is None:
        return
    units = read_units(corpus, options.data_dir, training_split(corpus, options).parts)
    for utterance in utterances(corpus, options, units):
        if words := words_of(utterance):
            yield words


def _write_words_text(utterances: Iterable[list[str]], path: Path) -> set[str]:
    """A line of words for each utterance; the words."""
    vocabulary: set[str] = set()

    def lines() -> Iterator[str]:
        for words in utterances:
            vocabulary.update(words)
            yield " ".join(words)

    _write_lines(path, lines())
    return vocabulary


def _write_lexicon(vocabulary: set[str], tokenizer: Tokenizer, path: Path) -> None:
    known = [w for w in sorted(vocabulary) if tokenizer.unk_id not in tokenizer.encode(w)]
    _write_lines(path, (f"{word} {_spell(word, tokenizer)}" for word in known))
    print(f"  lexicon with {len(known)} of {len(vocabulary)} words")


def _spell(text: str, tokenizer: Tokenizer) -> str:
    return " ".join(tokenizer.tokens[i] for i in tokenizer.encode(text))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            print(line, file=file)
