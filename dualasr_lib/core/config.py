"""Strict configuration: TOML files and `key=value` overrides become frozen dataclasses.

A configuration is a tree of frozen dataclasses, each beside the class it configures. Loading is
strict: an unknown key, a wrong type or a value outside a `Literal` is an error that names the path
and suggests the nearest known key. A TOML file may start from another one with `include =
"base.toml"` (relative to itself), or from several, of which later ones win (`["base.toml",
"step.toml"]`); whoever loads it may put another base in the place of the first one.
"""

import dataclasses
import difflib
import json
import re
import sys
import tomllib
import types
import typing
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dualasr_lib.core.files import AnyPath
from dualasr_lib.core.text import read_text

__all__ = [
    "ConfigError",
    "flatten",
    "from_dict",
    "from_options",
    "load",
    "override",
    "read_toml",
    "to_dict",
]

C = TypeVar("C")


class ConfigError(ValueError):
    """A configuration that cannot be, and the key or section that is to blame."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key
        """Its path, as in an override (`"model.encoder.dim"`); "" for the whole."""


def from_dict(cls: type[C], values: Mapping[str, Any], path: str = "") -> C:
    """Builds dataclass `cls` from plain values.

    Args:
        values: what a TOML file holds: tables, arrays, strings, numbers, booleans.
        path: where `values` sits in the whole configuration, for messages (`"encoder."`).

    A class attribute `MOVED` may say of keys that are no more what is written in their place.

    Raises:
        ConfigError: an unknown key, a wrong type, a missing field, or a check of `__post_init__`
            that failed.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            moved = getattr(cls, "MOVED", {}).get(key)
            if moved is not None:
                raise ConfigError(f"config key '{path}{key}' is now {moved}", f"{path}{key}")
            raise ConfigError(
                f"unknown config key '{path}{key}'{_suggestion(key, fields)}", f"{path}{key}"
            )
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"config key '{path}{name}' is required but missing", path + name)
    made = {key: _value(hints[key], value, path + key) for key, value in values.items()}
    try:
        return cls(**made)
    except ValueError as error:
        section = path.rstrip(".")
        named = next((name for name in fields if re.search(rf"\b{name}\b", str(error))), None)
        raise ConfigError(
            f"config section '{section}': {error}" if section else str(error),
            section if named is None else path + named,
        ) from None


def from_options(
    cls: type[C],
    name: str,
    given: Sequence[str],
    values: Mapping[str, Any] = types.MappingProxyType({}),
) -> C:
    """`cls` from plain values and what a user says otherwise, as `key=value`.

    Args:
        name: of the option by which users say it, for messages.

    Raises:
        ValueError: as `override` and `from_dict`; the message begins with the option.
    """
    try:
        return from_dict(cls, override(dict(values), given))
    except ValueError as error:
        raise ValueError(f"{name} {' '.join(given)}: {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a configuration; `from_dict(type(config), to_dict(config)) == config`."""
    return {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if getattr(config, field.name) is not None
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `{"a.b": value}`; a tuple becomes the list that a file would hold."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def load(
    cls: type[C],
    path: AnyPath,
    overrides: Sequence[str] = (),
    base: Path | None = None,
    option: str = "--set",
) -> C:
    """Reads TOML file `path` as `read_toml` does, applies `key=value` overrides, and builds `cls`.

    Args:
        option: how a user gives overrides, for messages.

    Raises:
        ValueError: as `read_toml` and `from_dict`; the message names the file, of those that are
            included, or the override that says the value.
    """
    files = _read_files(Path(path).resolve(), (), base)
    values = override(_merged(files), overrides)
    try:
        return from_dict(cls, values)
    except ConfigError as error:
        said = [(f"{option} {one}", override({}, [one])) for one in overrides]
        sources = [*((str(file), found) for file, found in files), *said]
        raise ConfigError(f"{_to_blame(sources, error.key)}: {error}", error.key) from None


def _to_blame(sources: Sequence[tuple[str, Mapping[str, Any]]], key: str) -> str:
    """The last of the sources that says something at this path, or else at that of its section."""
    names = re.sub(r"\[\d+\]", "", key).split(".") if key else []
    for length in range(len(names), 0, -1):
        for name, values in reversed(sources):
            if _has(values, names[:length]):
                return name
    return next(name for name, _ in reversed(sources) if not name.startswith("--"))


def _has(values: Any, names: Sequence[str]) -> bool:
    """Whether there is something at this path; of an array, in any of its elements."""
    if not names:
        return True
    if isinstance(values, (list, tuple)):
        return any(_has(value, names) for value in values)
    return isinstance(values, Mapping) and names[0] in values and _has(values[names[0]], names[1:])


def read_toml(path: AnyPath, base: Path | None = None) -> dict[str, Any]:
    """Plain values of a TOML file merged over those of the file it includes.

    Args:
        base: this file in place of the one that `path` includes first.

    Raises:
        ValueError: the file (or one it includes) is missing, is no TOML, or includes itself.
    """
    return _merged(_read_files(Path(path).resolve(), (), base))


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b.c=value` assigned; values are JSON, else strings."""
    result = _merge({}, values)
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"an override must look like key=value, but is {assignment!r}")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"override {assignment!r}: '{parent}' is a value, not a section")
        try:
            node[leaf] = json.loads(text)
        except json.JSONDecodeError:
            node[leaf] = text
    return result


_Files = list[tuple[Path, dict[str, Any]]]
"""Files and what each says itself, in the order in which they are merged."""


def _read_files(path: Path, seen: tuple[Path, ...], base: Path | None = None) -> _Files:
    """A file after all that it includes."""
    if path in seen:
        raise ValueError(f"config file {path} includes itself")
    values, included = _parse_toml(path)
    if base is not None:
        included = [base.resolve(), *included[1:]]
    before = [each for file in included for each in _read_files(file, (*seen, path))]
    return [*before, (path, values)]


def _merged(files: _Files) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for _, values in files:
        merged = _merge(merged, values)
    return merged


def _parse_toml(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """The values of one file, and the files that it includes."""
    try:
        text = read_text(path)
        values = tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"cannot read config file {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        hint = _space_hint(text, str(error))
        raise ValueError(f"config file {path} is not valid TOML: {error}{hint}") from None
    except RecursionError:
        raise ValueError(f"config file {path} is not valid TOML: nested without end") from None
    given = values.pop("include", [])
    included = [given] if isinstance(given, str) else given
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise ValueError(
            f"config file {path}: include must be a file name or several, but is {given!r}"
        )
    return values, [(path.parent / name).resolve() for name in included]


def _space_hint(text: str, error: str) -> str:
    """What to say of white space that nobody sees, in the line that an error names."""
    found = re.search(r"at line (\d+)", error)
    lines = text.splitlines()
    if not found or int(found[1]) > len(lines):
        return ""
    odd = sorted({char for char in lines[int(found[1]) - 1] if char not in " \t" and _hidden(char)})
    names = ", ".join(f"U+{ord(char):04X}" for char in odd)
    return f"; the line has white space other than plain spaces: {names}" if odd else ""


def _hidden(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) == "Cf"


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key, {})
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = _merge(old, value) if both else value
    return result


def _value(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return None if value is None else _value(members[0], value, path)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{path} must be one of {list(choices)}, but is {value!r}", path)
        return value
    if origin is tuple:
        return _sequence(hint, value, path)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a section, but is {value!r}", path)
        kind = typing.get_args(hint)[1]
        return {str(key): _value(kind, item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a section, but is {value!r}", path)
        return from_dict(typing.cast(type, hint), value, f"{path}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise ConfigError(f"{path} must be float, but has {len(str(value))} digits", path)
        return float(value)
    if hint is float and value in ("inf", "-inf"):  # TOML knows them, JSON does not
        return float(value)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
        raise ConfigError(f"{path} must be {hint.__name__}, but is {value!r}", path)
    return value


def _sequence(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path} must be an array, but is {value!r}", path)
    element = typing.get_args(hint)[0]
    return tuple(_value(element, item, f"{path}[{i}]") for i, item in enumerate(value))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _suggestion(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(known), 1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known keys here: {', '.join(sorted(known))}"
