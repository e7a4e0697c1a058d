"""The program behind every prepare.sh: reads the options of a corpus and prepares it."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dualasr_lib.core.program import INTERRUPTED, is_users_error, one_line

if TYPE_CHECKING:
    from dualasr_lib.recipe.corpus import Corpus, O

__all__ = ["main"]


def main(corpus: "Corpus[O]", arguments: Sequence[str] | None = None) -> int:
    """Command line (default: the program's); returns the exit code."""
    from dualasr_lib.recipe.options import read_options

    try:
        wanted = read_options(corpus.options, corpus.description, arguments)
        # What is heavy, after the options are read:
        from dualasr_lib.recipe.dry_run import dry_run
        from dualasr_lib.recipe.prepare import prepare

        if wanted.options.dry_run:
            dry_run(corpus, wanted.options)
        else:
            prepare(corpus, *wanted)
    except Exception as error:
        if not is_users_error(error):
            raise
        print(f"prepare.sh: error: {one_line(error, 'data')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare.sh: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0
