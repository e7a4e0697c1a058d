"""CSJ as the shared recipe sees it: splits, joining, text; the program behind prepare.sh.

Units are joined as published CSJ recipes do (pause below 1.0 s, together below 10 s unless
--max-length says otherwise); units with a masked name (×) are dropped and break a join.
"""

import sys

from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.corpus import Corpus, Item, Join, Split
from egs.csj.local import manifests, text
from egs.csj.local.options import CsjOptions

__all__ = ["CSJ", "SPLITS"]

_EVALUATION = tuple(f"eval{number}" for number in (1, 2, 3))
SPLITS = (
    Split("train", parts=("core", "noncore"), use="train"),
    Split("valid", parts=("valid",), use="valid"),
    *(Split(name, parts=(name,), use="eval", pooled=True) for name in _EVALUATION),
    Split("excluded", parts=("excluded",), use="other"),
)


def _refuse(_: CsjOptions, unit: Item) -> str | None:
    return "units with a masked name (×)" if "×" in unit["custom"]["raw"] else None


def _join(options: CsjOptions) -> Join:
    return Join(options.max_length, gap=1.0, between={"raw": " ", "disfluent_tag": ","})


def _supervision(options: CsjOptions, unit: Item) -> Item:
    """Text and tier `word` of the mode."""
    custom = {key: value for key, value in unit["custom"].items() if key != "raw"}
    plain = unit | {"text": unit["custom"][options.mode], "custom": custom}
    if "alignment" in unit:
        tier = "word" if options.mode == "disfluent" else f"word_{options.mode}"
        plain["alignment"] = {"word": unit["alignment"][tier]}
    return plain


CSJ = Corpus(
    name="csj",
    description="A CSJ tree -> features, tokens, n-grams and a report, in seven stages.",
    language="ja",
    units=("character",),
    options=CsjOptions,
    splits=lambda _: SPLITS,
    manifests=manifests.run,
    normaliser=lambda options: f"csj-{options.mode}",
    converter=text.converter,
    refuse=_refuse,
    join=_join,
    supervision=_supervision,
    words=lambda options, utterance: text.words_of(utterance, options.mode),
)

if __name__ == "__main__":
    sys.exit(main(CSJ))
