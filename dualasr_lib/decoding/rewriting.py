"""A second pass within its time: the full branch on a sentence's hidden states, then a search."""

from collections.abc import Callable

from dualasr_lib.core.arrays import Array
from dualasr_lib.decoding.budget import Budget, Pace
from dualasr_lib.decoding.contract import Rewritten, SecondPass, Sentence
from dualasr_lib.decoding.offline import Heard, OfflineSearch

__all__ = ["rewriting"]


def rewriting(stacks: Callable[[Array], Heard], search: OfflineSearch) -> SecondPass:
    """`search` on what `stacks` makes of a stream's hidden states (S, C), one utterance; without
    the time for both there is no result.
    """
    pace = Pace()

    def rewrite(sentence: Sentence) -> Rewritten:
        hidden, budget = sentence.hidden, Budget(sentence.seconds, pace)
        work, listing = len(hidden), pace.expected("least", len(hidden))
        heard = budget.run("stacks", work, lambda: stacks(hidden), then=listing)
        if heard is None:
            pace.doubt("least")
            return Rewritten(None, left_out=budget.left_out)
        found = search(heard._replace(proposed=[sentence.proposed], budget=budget))
        pace.learn("least", work, budget.must_seconds)
        return Rewritten(found.paths[0], found.fallbacks, budget.left_out)

    return rewrite
