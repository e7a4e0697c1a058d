"""Nothing is lost without a name: what goes into a stage comes out of it or is named as left out.

Each stage checks this of its units or utterances when it ends. A difference is a fault of the
program, not of the corpus, and stops it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from dualasr_lib.recipe.stage import PrepareError

__all__ = ["check_balance"]

_SHOWN = 5


def check_balance(
    stage: str, given: Iterable[str], kept: Iterable[str], named: Mapping[str, Iterable[str]]
) -> None:
    """Checks that each id given was kept or named with a reason, once.

    Args:
        stage: for the message.
        given: ids of what the stage read.
        kept: ids of what it wrote.
        named: ids of what it left out, by reason.

    Raises:
        PrepareError: some were lost, doubled, or came from nowhere; the message shows the first.
    """
    before = Counter(given)
    after = Counter(kept)
    for ids in named.values():
        after.update(ids)
    if before == after:
        return
    lost, added = sorted((before - after).elements()), sorted((after - before).elements())
    what = [
        f"{len(ids)} {verb} ({', '.join(ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''})"
        for ids, verb in ((lost, "lost"), (added, "doubled or from nowhere"))
        if ids
    ]
    raise PrepareError(
        f"{stage}: all units that go in must come out or be named, but {' and '.join(what)};"
        " please report this"
    )
