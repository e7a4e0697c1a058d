#!/usr/bin/env python3
"""What cuts of live recognition cost: characters lost and doubled per cut, over joined talks.

    source tools/env.sh; tools/analysis/cuts.py --exp-dir EXP --data-dir DATA [--minutes 60]
        [--split eval1 eval2 eval3] [--two-pass] [OPTIONS OF dualasr-transcribe]

Utterances of the splits are joined without a pause, again and again in the same order, to talks of
five minutes. Each is recognised without a cut, by the rules as given, by length only, and with
hard cuts: each `max_seconds` as a recording of its own, which is what no look back for a gap and
no state carried over would give. Texts of the first pass are compared with those without a cut:
all that differs is the cuts' doing. Final texts are compared with the transcripts: characters lost
and doubled within two characters of a cut, beside what the same number of characters has elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.core.program import run_program
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.programs.transcribe import add_engine_arguments, engine_config, load_engine

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.data.datamodule import Utterance
    from dualasr_lib.decoding.live import Rules

_TALK_SECONDS = 300.0
_NEAR = 2
_RULES = ("silence_seconds", "pause_seconds", "long_seconds", "max_seconds")
_NEVER = EndpointConfig(**dict.fromkeys(_RULES, math.inf))


class Texts(NamedTuple):
    """Of a segment."""

    first: str
    """Of the first pass."""
    final: str


class Damage(NamedTuple):
    """Differences of two texts."""

    lost: int = 0
    doubled: int = 0
    changed: int = 0

    def plus(self, other: Damage) -> Damage:
        """Both together."""
        return Damage(*(a + b for a, b in zip(self, other)))


class NearCuts(NamedTuple):
    """Characters lost and doubled near cuts and elsewhere, and how many characters are there."""

    near: int = 0
    near_chars: int = 0
    far: int = 0
    far_chars: int = 0

    def plus(self, other: NearCuts) -> NearCuts:
        """Both together."""
        return NearCuts(*(a + b for a, b in zip(self, other)))


def damage(uncut: str, joined: str) -> Damage:
    """What the text of a stream with cuts has lost, doubled or changed."""
    from dualasr_lib.metrics.alignment import align

    pairs = [pair for pair in align(uncut, joined) if pair.ref != pair.hyp]
    lost = sum(pair.hyp is None for pair in pairs)
    doubled = sum(pair.ref is None for pair in pairs)
    return Damage(lost, doubled, len(pairs) - lost - doubled)


def near_cuts(ref: str, pieces: Sequence[str]) -> NearCuts:
    """Deletions and insertions of joined `pieces` near their borders and elsewhere."""
    from dualasr_lib.metrics.alignment import align

    borders = list(itertools.accumulate(map(len, pieces)))[:-1]
    near = near_chars = far = far_chars = position = 0
    for pair in align(ref, "".join(pieces)):
        is_near = any(-_NEAR <= position - border < _NEAR for border in borders)
        is_error = pair.ref is None or pair.hyp is None
        near, far = near + (is_near and is_error), far + (not is_near and is_error)
        near_chars, far_chars = near_chars + is_near, far_chars + (not is_near)
        position += pair.hyp is not None
    return NearCuts(near, near_chars, far, far_chars)


def talks(utterances: Sequence[Utterance], minutes: float) -> Iterator[tuple[Tensor, str]]:
    """Samples and transcript of each talk."""
    import torch

    left = 60 * minutes
    endless = itertools.cycle(utterances)
    while left > 0:
        taken, seconds = [], 0.0
        while seconds < min(_TALK_SECONDS, left):
            taken.append(next(endless))
            seconds += taken[-1].duration
        left -= seconds
        yield torch.cat([item.audio() for item in taken]), "".join(item.text for item in taken)


def recognised(samples: Tensor, rules: Rules, endpoint: EndpointConfig) -> list[Texts]:
    """Texts of each segment."""
    from dualasr_lib.decoding.events import Final
    from dualasr_lib.decoding.live import listen

    rules = replace(rules, config=replace(rules.config, endpoint=endpoint))
    events = listen(samples.split(rules.model.chunk_samples), rules)
    finals = [event for event in events if isinstance(event, Final)]
    return [Texts(final.first_pass_text, final.text) for final in finals if final.text]


def hard_cut(samples: Tensor, rules: Rules) -> list[Texts]:
    """Texts of each `max_seconds`, heard as a recording of its own."""
    size = int(rules.config.endpoint.max_seconds * rules.model.sample_rate)
    return [texts for piece in samples.split(size) for texts in recognised(piece, rules, _NEVER)]


def measured(
    joined: Sequence[tuple[Tensor, str]],
    uncut: Sequence[str],
    hear: Callable[[Tensor], list[Texts]],
) -> tuple[str, ...]:
    """A row: cuts, damage of the first pass per cut, errors of the final text near cuts.

    Args:
        uncut: what the first pass makes of each talk without a cut.
    """
    cuts, total, around = 0, Damage(), NearCuts()
    for (samples, ref), whole in zip(joined, uncut, strict=True):
        pieces = hear(samples)
        cuts += max(0, len(pieces) - 1)
        total = total.plus(damage(whole, "".join(piece.first for piece in pieces)))
        around = around.plus(near_cuts(ref, [piece.final for piece in pieces]))
    number = max(1, cuts)
    expected = around.far / max(1, around.far_chars) * around.near_chars
    return (
        *(str(cuts), f"{total.lost / number:.3f}", f"{total.doubled / number:.3f}"),
        f"{total.changed / number:.3f}",
        *(f"{around.near / number:.3f}", f"{expected / number:.3f}"),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_engine_arguments(parser)
    parser.add_argument("--minutes", type=float, default=60.0, help="of audio; default: 60")
    parser.add_argument("--split", nargs="+", default=["eval1", "eval2", "eval3"],
                        help="default: eval1 eval2 eval3")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.data_dir is None:
        raise ValueError("--data-dir must be given: its utterances are heard")
    from dualasr_lib.data.data_config import DataConfig  # what is heavy, after the options
    from dualasr_lib.data.datamodule import DataModule
    from dualasr_lib.data.tokenizer import Tokenizer

    rules = load_engine(engine_config(arguments)).rules
    tokenizer = Tokenizer.load(arguments.data_dir / "lang")
    data = DataModule(DataConfig(), arguments.data_dir, tokenizer)
    utterances = [item for split in arguments.split for item in data.split_cuts(split)]
    joined = list(talks(utterances, arguments.minutes))
    as_given = rules.config.endpoint
    by_length = replace(
        as_given, silence_seconds=math.inf, pause_seconds=math.inf, long_seconds=math.inf
    )
    first_pass = replace(rules, second_pass=None)
    uncut = ["".join(t.first for t in recognised(talk, first_pass, _NEVER)) for talk, _ in joined]
    print("rules       cuts  first pass, per cut: lost doubled changed  final: near  elsewhere")
    ways: dict[str, Callable[[Tensor], list[Texts]]] = {
        "as given": lambda samples: recognised(samples, rules, as_given),
        "by length": lambda samples: recognised(samples, rules, by_length),
        "hard cuts": lambda samples: hard_cut(samples, rules),
    }
    for name, hear in ways.items():
        print(name, *measured(joined, uncut, hear), sep="\t", flush=True)


if __name__ == "__main__":
    run_program(main)
