"""The program behind every prepare.sh: reads the options of a corpus and prepares it."""

import sys
from collections.abc import Sequence

from dualasr_lib.core.program import INTERRUPTED, is_users_error, one_line
from dualasr_lib.recipe.corpus import Corpus, O
from dualasr_lib.recipe.options import read_options
from dualasr_lib.recipe.prepare import prepare

__all__ = ["main"]


def main(corpus: Corpus[O], arguments: Sequence[str] | None = None) -> int:
    """Command line (default: the program's); returns the exit code."""
    try:
        wanted = read_options(corpus.options, corpus.description, arguments)
        prepare(corpus, *wanted)
    except Exception as error:
        if not is_users_error(error):
            raise
        print(f"prepare.sh: error: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare.sh: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0
