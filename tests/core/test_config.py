"""Strict configuration: what is accepted, and what each mistake is answered with."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from dualasr_lib.core.config import flatten, from_dict, load, override, read_toml, to_dict


@dataclass(frozen=True, kw_only=True)
class Inner:
    dim: int = 8
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.dim % 2:
            raise ValueError(f"dim must be even, but is {self.dim}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "a"
    kind: Literal["x", "y"] = "x"
    flag: bool = False
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)
    list: tuple[Inner, ...] = ()


def test_round_trip() -> None:
    config = Outer(kind="y", limit=2.0, inner=Inner(dim=4), list=(Inner(), Inner(rate=1.0)))
    assert from_dict(Outer, to_dict(config)) == config
    assert from_dict(Outer, to_dict(Outer())) == Outer()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("innr.dim=2", r"unknown config key 'innr'; did you mean 'inner'\?"),
        ("inner.foo=2", "unknown config key 'inner.foo'; known keys here: dim, rate"),
        ("inner.dim=true", "inner.dim must be int, but is True"),
        ("flag=1", "flag must be bool, but is 1"),
        ("kind=z", r"kind must be one of \['x', 'y'\], but is 'z'"),
        ("inner.dim=3", "config section 'inner': dim must be even, but is 3"),
        ('list=[{"dim": 2}, {"dims": 2}]', r"unknown config key 'list\[1\].dims'"),
        ("list=3", "list must be an array, but is 3"),
        ("inner=3", "inner must be a section, but is 3"),
        ("name.x=3", "'name' is a value, not a section"),
        ("name", "must look like key=value, but is 'name'"),
    ],
)
def test_mistakes_are_named(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, override({"name": "n"}, [change]))


def test_flattened_values_have_dotted_names() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": (1, 2)}, "e": [3], "f": {}}) == {
        "a.b.c": 1,
        "a.d": [1, 2],
        "e": [3],
    }


def test_includes_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('name = "base"\n[inner]\ndim = 4\nrate = 3\n')
    (tmp_path / "run.toml").write_text('include = "base.toml"\n[inner]\ndim = 6\n')
    config = load(Outer, tmp_path / "run.toml", ["inner.rate=0.5", "name=x y", "limit=1"])
    assert config == Outer(name="x y", inner=Inner(dim=6, rate=0.5), limit=1.0)


def test_another_base_takes_the_place_of_the_included_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "a"\nkind = "y"\n')
    (tmp_path / "b.toml").write_text('include = "c.toml"\nname = "b"\n')
    (tmp_path / "c.toml").write_text("flag = true\n")
    (tmp_path / "run.toml").write_text('include = "a.toml"\n[inner]\ndim = 6\n')
    run = tmp_path / "run.toml"
    assert load(Outer, run) == Outer(name="a", kind="y", inner=Inner(dim=6))
    swapped = load(Outer, run, base=tmp_path / "b.toml")
    assert swapped == Outer(name="b", flag=True, inner=Inner(dim=6))
    with pytest.raises(ValueError, match="includes itself"):
        read_toml(run, base=run)


def test_of_several_included_files_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('name = "base"\n[inner]\ndim = 4\nrate = 3\n')
    (tmp_path / "step.toml").write_text("[inner]\ndim = 6\n")
    (tmp_path / "run.toml").write_text('include = ["base.toml", "step.toml"]\nlimit = 1\n')
    run = tmp_path / "run.toml"
    assert load(Outer, run) == Outer(name="base", inner=Inner(dim=6, rate=3), limit=1.0)
    (tmp_path / "other.toml").write_text('name = "other"\n[inner]\ndim = 5\n')
    swapped = load(Outer, run, base=tmp_path / "other.toml")
    assert swapped == Outer(name="other", inner=Inner(dim=6), limit=1.0)
    run.write_text("include = 3\n")
    with pytest.raises(ValueError, match="a file name or several, but is 3"):
        read_toml(run)


@pytest.mark.parametrize(
    ("base", "changes", "blamed", "message"),
    [
        ("dim = 4", ["nam=1"], "--set nam=1", "unknown config key 'nam'; did you mean 'name'"),
        ("dim = 4", ["inner.dim=x"], "--set inner.dim=x", "inner.dim must be int, but is 'x'"),
        ("dim = 4", ["inner.rate=2", "inner.dim=3"], "--set inner.dim=3", "dim must be even"),
        ("dim = 4", ["inner.dim=3", "inner.rate=2"], "--set inner.dim=3", "dim must be even"),
        ("dim = 4", ["limit=1" + 400 * "0"], "--set limit=10", "must be float, but has 401 digits"),
        ('dim = "4"', [], "base.toml", "inner.dim must be int, but is '4'"),
        ("rat = 4", ["inner.dim=4"], "base.toml", "unknown config key 'inner.rat'"),
        ("dim = 3", ["inner.rate=2"], "base.toml", "dim must be even, but is 3"),
        ("dim = 4", [], "run.toml", "unknown config key 'knd'"),
    ],
)
def test_who_said_what_cannot_be(
    tmp_path: Path, base: str, changes: list[str], blamed: str, message: str
) -> None:
    """The message begins with the override, or with that of the merged files that says it."""
    (tmp_path / "base.toml").write_text(f'name = "base"\n[inner]\n{base}\n')
    wrong = 'knd = "x"' if blamed == "run.toml" else 'kind = "x"'
    (tmp_path / "run.toml").write_text(f'include = "base.toml"\n{wrong}\n[inner]\nrate = 3\n')
    where = blamed if blamed.startswith("--") else f"{tmp_path / blamed}: "
    with pytest.raises(ValueError, match=f"^{re.escape(where)}.*{re.escape(message)}"):
        load(Outer, tmp_path / "run.toml", changes)


def test_what_is_in_an_array_is_found_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[[list]]\ndims = 4\n")
    (tmp_path / "run.toml").write_text('include = "base.toml"\nname = "a"\n')
    with pytest.raises(ValueError, match=r"base\.toml: unknown config key 'list\[0\]\.dims'"):
        load(Outer, tmp_path / "run.toml")


def test_a_check_of_the_whole_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Never:
        size: int = 1

        def __post_init__(self) -> None:
            raise ValueError("no way")

    (tmp_path / "run.toml").write_text("size = 1\n")
    with pytest.raises(ValueError, match=r"run\.toml: no way"):
        load(Never, tmp_path / "run.toml", ["size=2"])


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text('include = "loop.toml"\n')
    (tmp_path / "bad.toml").write_text("= 3\n")
    for name, message in (
        ("none.toml", "cannot read config file"),
        ("loop.toml", "includes itself"),
        ("bad.toml", "not valid TOML"),
    ):
        with pytest.raises(ValueError, match=message):
            read_toml(tmp_path / name)


@pytest.mark.parametrize("edited", ["\ufeff{}", "{}\r\n", "\ufeff\n\n{}\r\n\r\n"])
def test_what_editors_do_to_a_file_changes_nothing(tmp_path: Path, edited: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(edited.format("name = 'b'").encode())
    assert load(Outer, path).name == "b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name\u3000= 'b'".encode(), "white space other than plain spaces: U\\+3000"),
        ("flag = true\nname = \u200b'b'".encode(), "white space other than plain spaces: U\\+200B"),
        ("\ufeffname = 'b'".encode("utf-16-le"), "must be a text file in UTF-8, but is in UTF-16"),
        (b"name = '\x82\xa0'", r"a.toml:1: must be UTF-8"),
        (b"a = " + b"[" * 100000, "nested without end"),
    ],
)
def test_what_nobody_sees_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load(Outer, path)
    assert str(path) in str(error.value)


def test_infinity_is_a_number_where_one_is_wanted() -> None:
    """TOML has it, JSON has not: `max_seconds=inf` of a command line arrives as text."""

    @dataclass(frozen=True, kw_only=True)
    class Limits:
        seconds: float = 1.0
        name: str = ""

    assert from_dict(Limits, override({}, ["seconds=inf", "name=inf"])) == Limits(
        seconds=math.inf, name="inf"
    )
    with pytest.raises(ValueError, match="seconds must be float, but is 'infinite'"):
        from_dict(Limits, override({}, ["seconds=infinite"]))
