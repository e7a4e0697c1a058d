"""Commands of documents: found in their text, and tried on the programs' own parsers.

Capitals stand for what a user fills in (DATA, EXP, N); `[...]` is optional, `a|b` a choice, `...`
whatever else the program takes.
"""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

__all__ = ["Command", "commands", "fault", "python_blocks"]

ROOT = Path(__file__).parents[1]
_FOREIGN = {"apt-get", "ffmpeg", "tensorboard", "lhotse", "pip", "git"}
_STARTERS = {"python", "bash", "source", "dualasr-transcribe", *_FOREIGN}
_CAPITALS = re.compile(r"[A-Z][A-Z-]*")
_ENVIRONMENT = re.compile(r"[A-Z_]+=\S*")


class Command(NamedTuple):
    """One command of a document."""

    document: str
    line: int
    words: tuple[str, ...]
    open: bool
    """It is a synopsis, or says "...": what it must have may be missing."""


def commands(text: str, document: str) -> Iterator[Command]:
    """Those of indented and fenced blocks, and of code inside of sentences."""
    for number, line in _blocks(text):
        for part in re.split(r"\s+&&\s+|;\s|(?<!\S)\|(?=\s+[a-z])(?![^[]*\])", line):
            yield from _command(part, document, number, False)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("    "):
            for code in re.findall(r"`([^`]+)`", line):
                yield from _command(code, document, number, True)


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Lines of blocks, with those joined to them that go on (8 spaces, or behind a backslash)."""
    fenced, held = False, (0, "")
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.startswith("```"):
            fenced = not fenced
            continue
        inside = fenced or line.startswith("    ")
        goes_on = inside and held[1] and (line.startswith("        ") or held[1].endswith("\\"))
        if goes_on:
            held = (held[0], f"{held[1].rstrip(chr(92))} {line.strip()}")
            continue
        if held[1]:
            yield held
        held = (number, line.strip()) if inside else (0, "")
    if held[1]:
        yield held


def _command(part: str, document: str, line: int, inside: bool) -> Iterator[Command]:
    synopsis = bool(re.search(r"\[-|\.\.\.", part)) or inside
    plain = re.sub(r"\S*\{[\w,]+\}\S*", lambda found: _expanded(found[0]), part)
    plain = re.sub(r"\[(-[^\]|]*?)\s\|\s[^\]]*\]", r"\1", plain) if synopsis else plain
    plain = re.sub(r"(?<!\S)\[(?=-)|(?<=[\w.])\](?=\s|\]|$)", " ", plain) if synopsis else plain
    try:
        words = shlex.split(plain, comments=True)
    except ValueError:
        return
    while words and _ENVIRONMENT.fullmatch(words[0]):
        words = words[1:]
    words = [re.sub(r"^([\w.-]+)(\|[\w.-]+)+$", r"\1", word) for word in words if word != "..."]
    if not words:
        return
    is_program = words[0] in _STARTERS or bool(re.search(r"/(torchrun|[\w-]+\.(py|sh))$", words[0]))
    has_options = any(word.startswith("--") for word in words[1:]) and "=" not in words[0]
    looks = re.fullmatch(r"[\w./-]+", words[0]) and "/" in words[0] and has_options
    if (is_program and (not inside or len(words) > 1)) or looks:
        yield Command(document, line, tuple(words), synopsis)


def _expanded(word: str) -> str:
    """What a shell makes of `a{b,c}d`."""
    before, inner, after = re.split(r"[{}]", word, maxsplit=2)
    return " ".join(f"{before}{item}{after}" for item in inner.split(","))


class _Parsed(Exception):
    """A parser took its options."""


class _Refused(Exception):
    """A parser did not."""


def fault(command: Command, root: Path = ROOT) -> str | None:
    """What is wrong with a command, or None."""
    words = list(command.words)
    if words[0].endswith("/torchrun"):
        words = words[1:]
        while words and words[0].startswith("--"):  # its options have a value each
            words = words[2:]
    if words[0] in _FOREIGN:
        return None
    if words[0] in ("dualasr-transcribe", "dualasr-serve"):
        name = words[0].removeprefix("dualasr-")
        return _try_module(f"dualasr_lib.programs.{name}", words[1:], command.open)
    if words[0] == "python" and words[1] == "-m":
        return _try_module(words[2], words[3:], command.open)
    if words[0] in ("python", "bash", "source"):
        words = words[1:]
    missing = [word for word in words if _is_path(word) and not (root / word).exists()]
    if missing:
        return f"{missing[0]} is not there"
    path = root / words[0]
    if not path.is_file():
        return f"the program {words[0]} is not there"
    if path.suffix == ".sh":
        return _try_shell(path, words[1:], command.open)
    with patch.object(sys, "path", [str(path.parent), *sys.path]):
        return _try(lambda: runpy.run_path(str(path), run_name="__main__"), words, command.open)


def _is_path(word: str) -> bool:
    """Whether a word names a file of the repository."""
    ours = word.startswith(("egs/", "tools/", "tests/", "dualasr_lib/", "conf/"))
    return ours and not re.search(r"[*<>]|\b[A-Z]+\b", word)


def _try_shell(path: Path, given: list[str], is_open: bool) -> str | None:
    text = path.read_text(encoding="utf-8")
    module = re.search(r"^exec \"\$python\" -m ([\w.]+) ", text, re.MULTILINE)
    if module:
        return _try_module(module[1], given, is_open)
    recipe = re.search(r"^exec bash .*/prepare_corpus\.sh\" (\w+) ", text, re.MULTILINE)
    if recipe:
        return _try_module(f"egs.{recipe[1]}.local.corpus", given, is_open)
    for word in given:
        if word.startswith("--") and word not in text:
            return f"{path.name} has no option {word}"
    return None


def _try_module(name: str, given: list[str], is_open: bool) -> str | None:
    return _try(lambda: runpy.run_module(name, run_name="__main__"), [name, *given], is_open)


def _try(start: Any, words: list[str], is_open: bool) -> str | None:
    """Starts a program as far as its parser."""
    parse = argparse.ArgumentParser.parse_known_args

    def stop(
        self: argparse.ArgumentParser, args: Any = None, namespace: Any = None, strict: bool = True
    ) -> NoReturn:
        if is_open:
            for action in self._actions:
                action.required = False
            for group in self._mutually_exclusive_groups:
                group.required = False
        given = [_filled(self, words, place) for place in range(1, len(words))]
        _, others = parse(self, given, namespace)
        if strict and others:
            raise _Refused(f"unrecognized arguments: {' '.join(others)}")
        raise _Parsed

    lenient = partialmethod(stop, strict=False)  # for programs that pass options on

    def refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise _Refused(message)

    with (
        patch.object(argparse.ArgumentParser, "parse_args", stop),
        patch.object(argparse.ArgumentParser, "parse_known_args", lenient),
        patch.object(argparse.ArgumentParser, "error", refuse),
        patch.object(sys, "argv", words),
    ):
        try:
            start()
        except _Parsed:
            return None
        except (ImportError, OSError, SystemExit) as error:
            return f"{words[0]} does not start: {error!r}"
        except _Refused as error:
            return f"{words[0]}: {error}"
    return f"{words[0]} reads no options"


def _filled(parser: argparse.ArgumentParser, words: list[str], place: int) -> str:
    """A value of the kind that the option before it takes, where the word is a place for one."""
    word = words[place]
    if not _CAPITALS.fullmatch(word):
        return word
    option = next((w for w in reversed(words[:place]) if w.startswith("--")), "")
    action = parser._option_string_actions.get(option)
    if action is not None and action.choices:
        return str(next(iter(action.choices)))
    return "1" if action is not None and action.type in (int, float) else word


def python_blocks(text: str) -> list[str]:
    """Fenced blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
