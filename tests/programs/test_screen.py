"""What a screen shows: lines of one stream together, final ones marked, colours on terminals."""

import io
import random

import pytest

from dualasr_lib.programs.screen import Screen, marked


@pytest.mark.parametrize(
    ("first", "text", "shown"),
    [
        ("今日は雨", "今日は雨", "今日は雨"),
        ("今日は亜目", "今日は雨", "今日は[亜目→雨]"),
        ("居ました", "いました", "[居→い]ました"),
        ("雨が降った", "雨が降りました", "雨が降[っ→りまし]た"),
        ("雨雨", "雨", "[雨→]雨"),
        ("", "雨", "[→雨]"),
        ("雨", "", "[雨→]"),
        ("", "", ""),
    ],
)
def test_changes_are_marked(first: str, text: str, shown: str) -> None:
    assert marked(first, text) == shown


def test_marks_hold_both_texts() -> None:
    """Read back from the marks: what was before, and what is after."""
    rng = random.Random(0)
    for _ in range(200):
        texts = ["".join(rng.choices("あい雨", k=rng.randrange(8))) for _ in range(2)]
        before = after = ""
        for piece in marked(*texts).replace("]", "[").split("["):
            old, arrow, new = piece.partition("→")
            before, after = before + old, after + (new if arrow else old)
        assert [before, after] == texts


def shown(is_coloured: bool = False) -> tuple[Screen, io.StringIO]:
    file = io.StringIO()
    return Screen(file, is_coloured), file


def test_lines() -> None:
    screen, file = shown()
    screen.say("weights: epoch 3")
    screen.partial("a", 0.33, "雨")
    screen.final("a", 1.5, "雨が", "雨は", "pause")
    assert file.getvalue().splitlines() == [
        "weights: epoch 3",
        "a     0.33 s  雨",
        "a     1.50 s  = 雨[が→は]  [pause]",
    ]


def test_streams_are_not_mixed() -> None:
    screen, file = shown()
    for name in "abc":
        screen.partial(name, 0.1, "1")
    screen.partial("b", 0.2, "12")
    screen.final("b", 0.3, "12", "13")
    screen.end("b")
    screen.partial("c", 0.4, "14")
    screen.partial("a", 0.5, "15")
    assert [line[0] for line in file.getvalue().splitlines()] == ["a", "a"]
    screen.end("a")
    assert [line[0] for line in file.getvalue().splitlines()] == list("aabbbcc")
    screen.partial("c", 0.6, "16")  # c's turn has come: at once
    screen.partial("d", 0.6, "1")
    screen.end("c")
    screen.end("d")
    assert [line[0] for line in file.getvalue().splitlines()] == list("aabbbcccd")


def test_no_line_is_lost_or_mixed_whatever_happens() -> None:
    for seed in range(100):
        rng, (screen, file) = random.Random(seed), shown()
        said: dict[str, list[str]] = {}
        alive, number = list("abcdef"), 0
        while alive:
            name = rng.choice(alive)
            if rng.random() < 0.3:
                screen.end(name)
                alive.remove(name)
                continue
            number += 1
            screen.partial(name, 0.0, str(number))
            said.setdefault(name, []).append(f"{name}     0.00 s  {number}")
        lines = file.getvalue().splitlines()
        assert sorted(lines) == sorted(line for each in said.values() for line in each)
        blocks = [name for name, before in zip([x[0] for x in lines], ["", *[x[0] for x in lines]])
                  if name != before]  # fmt: skip
        assert len(blocks) == len(set(blocks))
        for name in blocks:
            assert [line for line in lines if line[0] == name] == said[name]


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, file = shown(is_coloured=True)
    screen.partial("a", 0.33, "雨")
    screen.final("a", 1.0, "雨", "雨")
    grey, final = file.getvalue().splitlines()
    assert grey == "\x1b[90ma     0.33 s  雨\x1b[0m"
    assert final == "\x1b[1ma     1.00 s  = 雨\x1b[0m"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for no_colour, has_colour in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_colour)
        terminal = Terminal()
        Screen(terminal).partial("a", 0.0, "雨")
        assert ("\x1b" in terminal.getvalue()) == has_colour
