"""Two short utterances as all heads hear them, and the tokenizer and n-gram for them."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.offline import Heard
from dualasr_lib.model.heads.contract import NbestTexts
from dualasr_lib.model.heads.ctc import ctc_text_scores
from dualasr_lib.recognition.language import Language
from dualasr_lib.recognition.methods.method import Ingredients

__all__ = [
    "ARPA",
    "LABELS",
    "TOKENIZER",
    "A",
    "B",
    "C",
    "V",
    "detokenise",
    "frames",
    "given",
    "heard",
    "merged",
    "transducer_frames",
]

TOKENIZER = Tokenizer.train(["あいう"])
V = TOKENIZER.vocab_size
A, B, C = (TOKENIZER.tokens.index(token) for token in "あいう")

ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t0
-1.0\t</s>
-0.5\tあ\t0
-0.5\tい\t0
-0.5\tう\t0

\\2-grams:
-0.1\tあ う
-2.0\tあ い

\\end\\
"""


def detokenise(tokens: Sequence[int]) -> str:
    return TOKENIZER.decode(list(tokens))


def given(language: Language, vocab_size: int = V) -> Ingredients:
    return Ingredients(language, detokenise, vocab_size, tables=tables)


def tables(head: str) -> dict[str, Tensor]:
    """A transducer whose outcomes are the frames' own, see `transducer_frames`."""
    assert head == "transducer"
    return {
        "contexts": torch.zeros(2, V, 4),
        "prediction": torch.zeros(V, 4),
        "prediction_bias": torch.zeros(V),
        "output": 60.0 * torch.eye(V),
        "output_bias": torch.zeros(V),
    }


def transducer_frames(labels: Sequence[int]) -> Tensor:
    """(S, V): as `frames`, with a token where it is said first and a blank where it goes on."""
    starts = [b if a != b else 0 for a, b in pairwise([0, *labels])]
    return torch.atanh(frames(starts) / 60.0)


def frames(labels: Sequence[int]) -> Tensor:
    """(S, V): one label per frame, surely; the last one is い or, a little less likely, う."""
    log_probs = torch.full((len(labels), V), -30.0)
    log_probs[range(len(labels)), list(labels)] = 0.0
    log_probs[-1, C] = -0.5
    return log_probs


LABELS = ((A, A, 0, B), (0, A, 0, A, B))


def heard() -> Heard:
    """Two utterances whose words are あい and ああい by CTC; their reference ends in う."""
    rows = torch.full((2, 5, V), torch.nan)
    heard_too = rows.clone()
    for row, other, labels in zip(rows, heard_too, LABELS):
        row[: len(labels)] = frames(labels)
        other[: len(labels)] = transducer_frames(labels)

    def score(texts: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """An attention decoder that likes う."""
        return [[2.0 * (text[-1:] == (C,)) for text in own] for own in texts]

    def by_ctc(texts: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The sum over all alignments."""
        flat = [text for own in texts for text in own]
        owners = [owner for owner, own in enumerate(texts) for _ in own]
        lens = torch.tensor([4, 5])
        scores = iter(ctc_text_scores(rows, lens, NbestTexts.padded(flat, owners)).tolist())
        return [[next(scores) for _ in own] for own in texts]

    def by_length(texts: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """A transducer that likes short texts."""
        return [[-float(len(text)) for text in own] for own in texts]

    said = {"ctc": rows, "transducer": heard_too}
    scores = {"ctc": by_ctc, "attention": score, "transducer": by_length}
    return Heard(said, torch.tensor([4, 5]), scores, ("あう", "ああう"))


def merged(labels: Sequence[int]) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(labels) if label)
