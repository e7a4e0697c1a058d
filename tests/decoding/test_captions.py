"""Texts, JSON and captions made of final segments."""

import json
import random
import re
from itertools import accumulate, pairwise

import pytest

from dualasr_lib.decoding.captions import FORMATS, Transcript, captions, render
from dualasr_lib.decoding.events import Final, TimedToken
from dualasr_lib.metrics.calibration import Calibration


def final(text: str, start: float, step: float = 0.2, end: float | None = None) -> Final:
    tokens = tuple(TimedToken(t, start + 0.1 + step * i) for i, t in enumerate(text))
    end = start + 0.1 + step * len(text) + 1.0 if end is None else end
    return Final(start, end, text, tokens, "pause", text, 0.0)


TALK = Transcript(
    "a.wav",
    3700.0,
    [final("今日は", 0.0), final("", 2.0, end=4.4), final("<雨> & 風", 3661.5)],
)


def test_text() -> None:
    assert render(TALK, "text") == "今日は\n<雨> & 風\n"


def test_json() -> None:
    text = render(TALK, "json")
    assert text.count("\n") == 1
    read = json.loads(text)
    assert (read["file"], read["duration"]) == ("a.wav", 3700.0)
    first, last = read["segments"]
    assert first["text"] == "今日は"
    assert (first["start"], first["end"], first["reason"]) == (0.0, 1.7, "pause")
    assert first["tokens"][1] == {"text": "日", "start": 0.3, "confidence": None}
    assert last["start"] == 3661.5
    assert (read["confidence"], read["calibrated"], read["out_of_domain"]) == (None, False, None)


def test_json_says_how_sure_it_is() -> None:
    doubted = [
        item._replace(tokens=tuple(token._replace(confidence=0.25) for token in item.tokens))
        for item in TALK.segments
    ]
    floor = Calibration(slope=1.0, offset=0.0, mean=0.9, floor=0.8)
    read = json.loads(render(TALK._replace(segments=doubted, calibration=floor), "json"))
    assert (read["confidence"], read["calibrated"], read["out_of_domain"]) == (0.25, True, True)
    assert read["segments"][0]["confidence"] == 0.25
    assert read["segments"][0]["tokens"][0]["confidence"] == 0.25


def test_srt() -> None:
    assert render(TALK, "srt") == (
        "1\n00:00:00,100 --> 00:00:01,100\n今日は\n\n"
        "2\n01:01:01,600 --> 01:01:03,400\n<雨> & 風\n\n"
    )


def test_vtt() -> None:
    assert render(TALK, "vtt") == (
        "WEBVTT\n\n00:00:00.100 --> 00:00:01.100\n今日は\n\n"
        "01:01:01.600 --> 01:01:03.400\n&lt;雨&gt; &amp; 風\n\n"
    )


@pytest.mark.parametrize("max_chars", [1, 7, 30, 31, 100])
def test_long_segments_are_split_at_token_times(max_chars: int) -> None:
    text = "あいうえおかきくけこ" * 7
    segment = final(text, 10.0)
    lines = list(captions([segment], max_chars))
    assert "".join(line.text for line in lines) == text
    assert all(0 < len(line.text) <= max_chars for line in lines)
    assert len(lines) == -(-len(text) // max_chars)
    starts = {token.seconds for token in segment.tokens}
    for line, following in pairwise(lines):
        assert line.end_seconds <= following.start_seconds
    assert all(line.start_seconds in starts for line in lines)
    assert all(line.start_seconds < line.end_seconds for line in lines)
    assert lines[-1].end_seconds <= segment.end_seconds


def test_lines_are_of_about_one_length() -> None:
    lines = list(captions([final("あ" * 31, 0.0)], 30))
    assert [len(line.text) for line in lines] == [16, 15]


def timed(words: str, gap: float = 0.6, step: float = 0.1) -> Final:
    """Words with spaces between them, as a segment of characters without."""
    tokens, seconds = [], 0.0
    for word in words.split():
        for char in word:
            tokens.append(TimedToken(char, seconds))
            seconds += step
        seconds += gap - step
    text = "".join(token.text for token in tokens)
    return Final(0.0, seconds + 1, text, tuple(tokens), "end", text, 0.0)


def cut(words: str, max_chars: int, gap: float = 0.6) -> list[str]:
    return [line.text for line in captions([timed(words, gap)], max_chars)]


@pytest.mark.parametrize("gap", [0.25, 0.4, 1.0, 3.0])
def test_captions_are_cut_at_the_longest_gaps(gap: float) -> None:
    """Never inside a word, though equal lengths would be there."""
    words = "水曜日 雨降り 傘 持って出掛け ました"
    text = words.replace(" ", "")
    for max_chars in range(6, len(text) + 1):
        lines = cut(words, max_chars, gap)
        starts, position = set(), 0
        for word in words.split():
            starts.add(position)
            position += len(word)
        position = 0
        for line in lines:
            assert position in starts, (max_chars, lines)
            position += len(line)
        assert "".join(lines) == text
        assert all(len(line) <= max_chars for line in lines)


def test_without_gaps_captions_are_cut_after_particles() -> None:
    assert cut("昨日大学の図書館で本を読んだ", 9, 0.1) == ["昨日大学の図書館で", "本を読んだ"]
    assert cut("明日雨が降ると試合中止", 7, 0.1) == ["明日雨が", "降ると試合中止"]


def uneven(words: str, rng: random.Random) -> Final:
    """Characters as a model's head emits them: 80 to 160 ms apart, whatever the word, the first of
    a word up to 240.
    """
    tokens, seconds = [], 0.0
    for word in words.split():
        for number, char in enumerate(word):
            seconds += rng.choice((0.08, 0.12, 0.16) if number else (0.12, 0.16, 0.2, 0.24))
            tokens.append(TimedToken(char, seconds))
    text = "".join(token.text for token in tokens)
    return Final(0.0, seconds + 1, text, tuple(tokens), "end", text, 0.0)


@pytest.mark.parametrize("max_chars", [10, 12, 14, 20])
def test_words_stay_whole_where_gaps_say_little(max_chars: int) -> None:
    """Neither an ending nor a particle, nor a part of a number begins a line."""
    words = (
        "昨日は とても 寒かった です 駅から 海まで 歩いて 二十分 かかると 思います "
        "火曜日は 山で とても 寒い です 金曜日に 公園を ゆっくり 歩きました "
        "ホテルで 先生を 待ってから 紙を 二枚 買いました"
    )
    for seed in range(40):
        segment = uneven(words, random.Random(seed))
        starts = {0, *accumulate(map(len, words.split()))}
        ends = list(accumulate(len(line.text) for line in captions([segment], max_chars)))
        assert set(ends) <= starts, (seed, [line.text for line in captions([segment], max_chars)])


def test_gaps_count_more_than_particles_and_more_than_balance() -> None:
    assert cut("私は毎日七時 に起きて走る", 10) == ["私は毎日七時", "に起きて走る"]
    assert cut("ああああああああ いい", 9) == ["ああああああああ", "いい"]


def test_of_equal_gaps_lines_are_balanced() -> None:
    assert cut("ああ いい うう ええ", 6) == ["ああいい", "ううええ"]
    assert [len(line) for line in cut("あ" * 40, 30, 0.1)] == [20, 20]


def test_a_token_is_never_cut() -> None:
    pieces = ("きのう", "だいがく", "の", "としょかん", "で", "ほん", "を", "よんだ") * 4
    tokens = tuple(TimedToken(text, 0.2 * i) for i, text in enumerate(pieces))
    segment = Final(0.0, 20.0, "".join(pieces), tokens, "end", "", 0.0)
    for max_chars in range(1, 60):
        lines = [line.text for line in captions([segment], max_chars)]
        assert "".join(lines) == segment.text
        rest = list(pieces)
        for line in lines:
            taken = ""
            while len(taken) < len(line):
                taken += rest.pop(0)
            assert taken == line
            assert len(line) <= max_chars or line in pieces


def test_a_long_segment_is_cut_in_no_time() -> None:
    lines = list(captions([final("あいうえおかきくけこ" * 300, 0.0)], 30))
    assert max(len(line.text) for line in lines) <= 30


def test_a_token_longer_than_a_line_stands_alone() -> None:
    tokens = (TimedToken("あい", 0.1), TimedToken("うえおかき", 0.3), TimedToken("く", 0.9))
    segment = Final(0.0, 2.0, "あいうえおかきく", tokens, "end", "", 0.0)
    assert [line.text for line in captions([segment], 3)] == ["あい", "うえおかき", "く"]


def test_tokens_without_text_do_not_count() -> None:
    """As pieces of sentencepiece are that are a space alone, at a border of words."""
    pieces = ("", "", "かな", "", "漢字", "", "")
    tokens = tuple(TimedToken(text, 0.2 * i) for i, text in enumerate(pieces))
    segment = Final(0.0, 2.0, "かな漢字", tokens, "pause", "", 0.0)
    (alone,) = captions([segment], 20)
    assert alone.text == "かな漢字"
    assert "".join(caption.text for caption in captions([segment], 2)) == "かな漢字"


def test_no_text_at_all() -> None:
    silent = Transcript("a.wav", 5.0, [final("", 0.0)])
    assert render(silent, "text") == ""
    assert render(silent, "srt") == ""
    assert render(silent, "vtt") == "WEBVTT\n\n"
    assert json.loads(render(silent, "json"))["segments"] == []


def test_times_are_well_formed_at_the_edge_of_rounding() -> None:
    token = TimedToken("あ", 3599.9996)
    segment = Final(3590.0, 3600.0, "あ", (token,), "end", "あ", 0.0)
    for kind, point in (("srt", ","), ("vtt", r"\.")):
        times = re.findall(
            rf"\d\d:\d\d:\d\d{point}\d\d\d", render(Transcript("", 1, [segment]), kind)
        )
        assert [time[:8] for time in times] == ["01:00:00", "01:00:00"]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="max_chars"):
        list(captions([], 0))
    with pytest.raises(ValueError, match="text, json, srt, vtt"):
        render(TALK, "doc")  # type: ignore[arg-type]
    assert len(FORMATS) == 4
