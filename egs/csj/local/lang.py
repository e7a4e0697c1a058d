"""Stages 5 and 6: sentencepiece model and tokens.txt; token n-gram language model for k2.

Both see the training text only (each utterance once, not its speed copies). The n-gram is trained
by kaldingram (ARPA) and turned by kaldilm into the text form of an FST, which
`k2.Fsa.from_openfst` reads. Its labels are the ids of tokens.txt; `#0` on back-off arcs is the
next id (`symbols.txt` lists all).
"""

import sys

from dualasr_lib.data.tokenizer import TOKENS_FILE, Tokenizer
from egs.csj.local.options import Options
from egs.csj.local.process import run_program
from egs.csj.local.stage import Folders, read_jsonl

__all__ = ["run_lm", "run_tokenizer"]


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
    """Writes `lang/G_<order>gram.{arpa,fst.txt}` and `lang/symbols.txt`."""
    lang = options.data_dir / "lang"
    tokenizer = Tokenizer.load(lang)
    target = folders.out / "lang"
    target.mkdir(exist_ok=True)
    pieces = folders.scratch / "pieces.txt"
    with (
        open(lang / "text.txt", encoding="utf-8") as lines,
        open(pieces, "w", encoding="utf-8") as file,
    ):
        for line in lines:
            ids = tokenizer.encode(line.rstrip("\n"))
            print(" ".join(tokenizer.tokens[i] for i in ids), file=file)
    symbols = target / "symbols.txt"
    table = (lang / TOKENS_FILE).read_text(encoding="utf-8")
    symbols.write_text(f"{table}#0 {tokenizer.vocab_size}\n", encoding="utf-8")
    arpa = target / f"G_{options.order}gram.arpa"
    train = ["kaldingram.cli", "train", "--ngram-order", str(options.order)]
    run_program([sys.executable, "-m", *train, "--text", str(pieces), "--lm", str(arpa)])
    convert = ["kaldilm", "--disambig-symbol=#0", f"--read-symbol-table={symbols}"]
    fst = run_program([sys.executable, "-m", *convert, str(arpa)])
    arpa.with_suffix(".fst.txt").write_text(fst, encoding="utf-8")
    print(f"  {options.order}-gram with {fst.count(chr(10))} arcs and final states")
