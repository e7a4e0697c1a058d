"""A stage made again removes what it wrote before; markers of other versions; the moment of death
does not matter.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dualasr_lib.recipe.stage import PrepareError, Stage


def build(data: Path, *names: str, order: int = 3) -> Stage:
    """A stage that writes files of these names."""
    stage = Stage(data, 6, {"order": order}, [])
    with stage.building() as folders:
        for name in names:
            path = folders.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} of order {order}")
    return stage


def files(data: Path) -> dict[str, str]:
    found = sorted(path for path in (data / "lang").rglob("*") if path.is_file())
    return {str(path.relative_to(data)): path.read_text() for path in found}


def test_a_stage_made_again_removes_what_it_no_longer_writes(tmp_path: Path) -> None:
    (tmp_path / "lang").mkdir()
    (tmp_path / "lang" / "tokens.txt").write_text("of another stage")
    build(tmp_path, "lang/G_3gram.arpa", "lang/G_5gram.arpa")
    (tmp_path / "done" / "stage-6").unlink()
    build(tmp_path, "lang/G_3gram.arpa", "lang/G_4gram.arpa", order=4)
    assert files(tmp_path) == {
        "lang/G_3gram.arpa": "lang/G_3gram.arpa of order 4",
        "lang/G_4gram.arpa": "lang/G_4gram.arpa of order 4",
        "lang/tokens.txt": "of another stage",
    }


@pytest.mark.parametrize("death", range(6))
def test_it_does_so_whenever_it_was_killed(
    tmp_path: Path, death: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renaming number `death` fails; the same stage is built again."""
    build(tmp_path, "lang/a", "lang/b")
    (tmp_path / "done" / "stage-6").unlink()
    rename: Callable[[Path, Path], None] = os.replace
    seen = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal seen
        seen += 1
        if seen > death:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        try:
            build(tmp_path, "lang/b", "lang/c", order=4)
            assert death == 5  # list, b, c, list, marker
        except KeyboardInterrupt:
            assert not (tmp_path / "done" / "stage-6").exists()
    build(tmp_path, "lang/b", order=2)
    assert files(tmp_path) == {"lang/b": "lang/b of order 2"}
    assert json.loads((tmp_path / "written" / "stage-6.json").read_text()) == ["lang/b"]


def test_a_marker_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    stage = build(tmp_path, "lang/a")
    marker = tmp_path / "done" / "stage-6"
    content = json.loads(marker.read_text())
    del content["format"]
    marker.write_text(json.dumps(content))
    with pytest.raises(PrepareError, match=r"another version .* use another --data-dir"):
        stage.is_done()
    assert not stage.fits()
    marker.write_text('{"hash": ')
    with pytest.raises(PrepareError, match=r"stage-6' is damaged .* remove it"):
        stage.is_done()


def test_other_parameters_are_named(tmp_path: Path) -> None:
    build(tmp_path, "lang/a")
    other = Stage(tmp_path, 6, {"order": 4}, [])
    assert not other.fits()
    with pytest.raises(PrepareError, match="order was 3, is 4"):
        other.is_done()
