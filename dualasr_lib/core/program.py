"""What every command line program shares: errors of the user in one line, exit codes.

Imports nothing heavy: programs read their options first.
"""

import errno
import json
import logging
import os
import pickle
import re
import sys
import zipfile
import zlib
from collections.abc import Callable

from dualasr_lib.core.extras import remedy
from dualasr_lib.core.memory import is_memory_error

__all__ = [
    "INTERRUPTED",
    "USERS_ERRORS",
    "is_users_error",
    "one_line",
    "run_program",
    "told_by",
    "what_is_wrong",
]

INTERRUPTED = 130
"""Exit code of a program that a signal stopped: what shells give for SIGINT."""

USERS_ERRORS: tuple[type[Exception], ...] = (
    ValueError,  # a value that cannot be; those of JSON, TOML and Unicode are of this kind
    OSError,  # a file that cannot be read or written, no space left, a gzip file that is none
    ImportError,  # an optional library that is not installed
    EOFError,  # a compressed or pickled file that was cut short
    zlib.error,  # one that is damaged
    zipfile.BadZipFile,  # a checkpoint or bundle that is damaged
    pickle.UnpicklingError,  # a checkpoint that is none
    RecursionError,  # JSON or TOML nested without end
)
"""All that a user's file or option can cause, beside want of memory. Readers make ValueErrors with
file, line and remedy of them where they can; this is the net below. Libraries that raise others
(AssertionError, KeyError, RuntimeError) are caught where they are called."""

_TRACEBACK = "DUALASR_TRACEBACK"
_LONGEST = 300
"""Characters of a message; libraries put whole file listings into theirs."""
_NAMED_ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt|Warning)\b")
_NO_SPACE = "make room there, or write elsewhere, and run it again"
_WHAT_TO_DO = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "no file may be that large here (ulimit -f)",
    errno.EROFS: "write elsewhere",
    errno.EACCES: "its owner must allow it (chmod), or name another one",
}
"""Where what is wrong is the machine, not the file."""
_DUMP = "[extra info]"
"""How lhotse begins the line with all arguments of the call that failed."""


def run_program(main: Callable[[], None], extra: str = "") -> None:
    """Runs `main`; an error of the user's becomes one line on stderr and exit code 1.

    Such errors are `USERS_ERRORS` and memory. `extra` is what pyproject.toml calls that which the
    program needs; it is named where a library is missing.

    With the environment variable DUALASR_TRACEBACK=1 the traceback is shown instead.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    try:
        main()
    except Exception as error:
        if os.environ.get(_TRACEBACK) or not is_users_error(error):
            raise
        print(f"{os.path.basename(sys.argv[0])}: error: {one_line(error, extra)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def is_users_error(error: Exception) -> bool:
    """Whether a file, an option or the machine is to blame, not the program."""
    return isinstance(error, USERS_ERRORS) or is_memory_error(error)


def one_line(error: BaseException, extra: str = "") -> str:
    """The message of an error in one line; its name where it has none; of a library that is missing
    what to install (`extra` as in `run_program`).
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if name and (install := remedy(name, extra)):
        return f"the library {name} is needed here, but is not installed: {install}"
    text = str(error)
    if isinstance(error, OSError) and error.errno in _WHAT_TO_DO:
        where = f"{error.filename}: " if error.filename is not None else ""
        text = f"{where}{error.strerror}: {_WHAT_TO_DO[error.errno]}"
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line) or type(error).__name__


def what_is_wrong(error: BaseException) -> str:
    """With a file that a reader expected to be of another form, in words for who has the file:
    not the names of Python's exceptions.
    """
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing" if error.args else "a field is missing"
    if isinstance(error, OSError):
        return error.strerror or one_line(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON: {error}"
    if isinstance(error, (TypeError, AttributeError, IndexError, StopIteration)):
        return "what it holds has another form"
    return one_line(error)


def told_by(message: str) -> str:
    """What a message of any length says, in one line: of a traceback its error, else the last
    line; shortened if need be.
    """
    lines = [line.strip() for line in message.split(_DUMP)[0].splitlines() if line.strip()]
    named = [line for line in lines if _NAMED_ERROR.match(line)]
    line = " ".join((named or lines or ["no message"])[-1].split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
