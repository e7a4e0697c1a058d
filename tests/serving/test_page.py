"""The page in a real Chromium whose microphone plays a recording.

Without Chromium or playwright these are skipped. DUALASR_TEST_BUNDLE, _AUDIO and _TEXT name a
trained model, what the microphone plays (16 kHz) and what must be read in it (a model may also
hear words in the noise around it); DUALASR_SCREENSHOTS a
folder for pictures of the page, as they are in egs/csj/figures.
"""

import json
import os
import re
import shutil
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Running, running

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: chromium)")

FAKE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SLOW = 90_000
"""Milliseconds that a busy machine may take."""


TAIL = 6.0
"""Seconds without speech at the end of what the microphone plays, at least."""


class Seen:
    """All that a page said beside its text."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.urls: list[str] = []
        self.messages: list[dict[str, Any]] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))

    def _received(self, data: str | bytes) -> None:
        self.messages.append(json.loads(data))

    @property
    def finals(self) -> list[str]:
        return [m["text"] for m in self.messages if m["type"] == "final" and m["text"].strip()]


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=[*flags, *sandbox])
        yield made
        made.close()


@contextmanager
def opened(made: Browser, server: Running, **options: Any) -> Iterator[Seen]:
    settings = {"viewport": {"width": 900, "height": 620}, "locale": "en-GB", **options}
    context = made.new_context(**settings)
    context.set_default_timeout(SLOW)
    expect.set_options(timeout=SLOW)
    seen = Seen(context.new_page())
    seen.page.goto(f"http://localhost:{server.port}/")
    yield seen
    context.close()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory, samples: bytes) -> Path:
    """What the microphone plays: 16-bit PCM, with silence behind it."""
    if "DUALASR_TEST_AUDIO" in os.environ:
        return Path(os.environ["DUALASR_TEST_AUDIO"]).resolve()
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples + bytes(2 * 16000 * 4))
    return path


@pytest.fixture(scope="module")
def served(bundle: Path) -> Iterator[Running]:
    with running(Path(os.environ.get("DUALASR_TEST_BUNDLE", bundle))) as made:
        yield made


def picture(page: Page, name: str) -> None:
    folder = os.environ.get("DUALASR_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"page-{name}.png")


def test_grey_words_become_final_ones(served: Running, spoken: Path) -> None:
    play = f"--use-file-for-fake-audio-capture={spoken}%noloop"
    with browser(*FAKE, play) as made, opened(made, served) as seen:
        page = seen.page
        begun = time.monotonic()
        page.get_by_role("button", name="Listen").click()
        expect(page.locator("#status")).to_have_text("Listening…")
        expect(page.locator("#text p.partial span").last).to_have_text(re.compile(".{6,}"))
        picture(page, "grey")
        expect(page.locator("#text p.final").first).to_be_visible()
        with wave.open(str(spoken)) as file:  # what comes behind its end is no sound of a room
            left = file.getnframes() / file.getframerate() - TAIL - (time.monotonic() - begun)
        page.wait_for_timeout(1000 * max(0.0, left))
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#status")).to_have_text("Ready.")
        expect(page.locator("#text p.partial")).to_have_count(0)
        texts = page.locator("#text p.final span").all_text_contents()
        assert texts == seen.finals != []
        if "DUALASR_TEST_TEXT" in os.environ:
            assert os.environ["DUALASR_TEST_TEXT"] in "".join(texts)
        picture(page, "final")
        kinds = [message["type"] for message in seen.messages]
        assert kinds[0] == "ready" and kinds[-1] == "end" and "partial" in kinds
        check_saving(page, texts)
        page.set_viewport_size({"width": 360, "height": 640})
        picture(page, "narrow")
        assert page.locator("html").evaluate("html => html.scrollWidth") <= 360
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#text p")).to_have_count(0)
        assert seen.complaints == []
        here = (f"http://localhost:{served.port}/", "blob:http://localhost")
        assert all(url.startswith(here) for url in seen.urls), seen.urls


def check_saving(page: Page, texts: list[str]) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#text").focus()
    page.keyboard.press("c")
    expect(page.locator("#status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()").splitlines() == texts
    saved = {}
    for name in ("Text file", "Subtitles"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        saved[name] = Path(download.value.path()).read_text("utf-8")
        assert download.value.suggested_filename in ("dualasr.txt", "dualasr.srt")
    assert saved["Text file"].splitlines() == texts
    lines = saved["Subtitles"].splitlines()
    assert lines[0] == "1" and " --> " in lines[1] and lines[2] == texts[0]


def test_a_recording_is_heard_as_a_whole(served: Running, spoken: Path) -> None:
    status, answer = served.ask("/transcribe?format=text", spoken.read_bytes())
    with browser() as made, opened(made, served, locale="ja-JP") as seen:
        page = seen.page
        page.locator("#file").set_input_files(spoken)
        expect(page.locator("#status")).to_have_text("準備ができました。")
        expect(page.locator("#text p.final").first).to_be_visible()
        texts = page.locator("#text p.final span").all_text_contents()
        assert status == 200 and texts == answer.decode().splitlines() != []
        expect(page.locator("#listen")).to_have_text("開始")
        page.get_by_role("button", name="English").click()
        expect(page.locator("#listen")).to_have_text("Listen")
        page.locator("#file").set_input_files(
            {"name": "x.wav", "mimeType": "audio/wav", "buffer": b"no sound"}
        )
        expect(page.locator("#status")).to_contain_text("must be audio")
        assert all("422" in text for text in seen.complaints)  # what Chromium says of any refusal


def test_no_permission_and_no_microphone_are_told(served: Running) -> None:
    with browser("--use-fake-device-for-media-stream") as made, opened(made, served) as seen:
        seen.page.keyboard.press("l")
        expect(seen.page.locator("#status")).to_contain_text("may not use the microphone")
        expect(seen.page.locator("#listen")).to_have_text("Listen")
        assert seen.complaints == []
    with browser("--use-fake-ui-for-media-stream") as made, opened(made, served) as seen:
        seen.page.keyboard.press("l")
        expect(seen.page.locator("#status")).to_have_text("There is no microphone.")
        assert seen.complaints == []


def test_a_server_that_comes_back_is_found_again(bundle: Path, spoken: Path) -> None:
    play = f"--use-file-for-fake-audio-capture={spoken}"
    with browser(*FAKE, play) as made, running(bundle) as first, opened(made, first) as seen:
        page = seen.page
        page.get_by_role("button", name="Listen").click()
        expect(page.locator("#text p").first).to_be_visible()
        first.process.kill()
        first.process.wait()
        expect(page.locator("#status")).to_contain_text("Next try in")
        before = len(seen.messages)
        with running(bundle, "--port", str(first.port)):
            expect(page.locator("#status")).to_have_text("Listening…")
            page.get_by_role("button", name="Stop").click()
            expect(page.locator("#status")).to_have_text("Ready.")
        assert [m["type"] for m in seen.messages[before:]][-1] == "end"


def test_a_token_is_asked_for(bundle: Path, spoken: Path) -> None:
    play = f"--use-file-for-fake-audio-capture={spoken}"
    with (
        browser(*FAKE, play) as made,
        running(bundle, token="correct-horse") as secret,
        opened(made, secret) as seen,
    ):
        page = seen.page
        page.get_by_role("button", name="Listen").click()
        expect(page.locator("#status")).to_have_text("The server wants its token.")
        page.get_by_label("Token").fill("correct-horse")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Listen").click()
        expect(page.locator("#status")).to_have_text("Listening…")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#status")).to_have_text("Ready.")
