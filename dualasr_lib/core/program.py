"""What every command line program shares: errors of the user in one line, exit codes.

Imports nothing heavy: programs read their options first.
"""

import logging
import os
import sys
from collections.abc import Callable

from dualasr_lib.core.memory import is_memory_error

__all__ = ["INTERRUPTED", "run_program"]

INTERRUPTED = 130
"""Exit code of a program that a signal stopped: what shells give for SIGINT."""

_TRACEBACK = "DUALASR_TRACEBACK"


def run_program(main: Callable[[], None]) -> None:
    """Runs `main`; an error of the user's becomes one line on stderr and exit code 1.

    Such errors are ValueError, OSError, a missing optional library (ImportError), and memory.

    With the environment variable DUALASR_TRACEBACK=1 the traceback is shown instead.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    try:
        main()
    except Exception as error:
        if os.environ.get(_TRACEBACK) or not _is_users(error):
            raise
        print(f"{os.path.basename(sys.argv[0])}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _is_users(error: Exception) -> bool:
    return isinstance(error, (ValueError, OSError, ImportError)) or is_memory_error(error)
