"""A recording that is sent as a whole: received within bounds, decoded by a process of its own, and
heard like a live stream that is faster.

It is kept in a file without a name until the answer is given, and nowhere else.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import IO, NamedTuple, get_args

from starlette.requests import ClientDisconnect, Request

from dualasr_lib.decoding.captions import Format, Transcript
from dualasr_lib.decoding.events import Final
from dualasr_lib.serving.engine import Engine
from dualasr_lib.serving.limits import Limits
from dualasr_lib.serving.messages import Heard, Lost, Over, Said
from dualasr_lib.serving.multipart import boundary, file_of_form

__all__ = ["MEDIA_TYPES", "BadRecordingError", "DecoderLostError", "Progress", "received",
           "transcribed", "wanted_format"]  # fmt: skip

MEDIA_TYPES: dict[Format, str] = {
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
_AHEAD_SECONDS = 4.0
"""Audio that is handed to the model before it is heard: enough that it never waits."""


class BadRecordingError(Exception):
    """The recording is none, or too large."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class DecoderLostError(Exception):
    """The decoding process died: it may be tried again."""


class Progress(NamedTuple):
    """How far it is."""

    seconds: float
    of: float | None
    """None: its file does not know."""
    finals: tuple[Final, ...] = ()
    """That are new."""


def wanted_format(name: str) -> Format:
    """The format of an answer.

    Raises:
        BadRecordingError: there is none of that name.
    """
    for known in get_args(Format):
        if name == known:
            return known
    raise BadRecordingError(f"`format` must be one of {', '.join(get_args(Format))}", 400)


async def received(request: Request, limits: Limits) -> IO[bytes]:
    """The body, or the file in it if it is a form, as a file without a name.

    Raises:
        BadRecordingError: it is empty, too large, or does not come.
        ClientDisconnect: its sender is gone.
    """
    too_large = BadRecordingError(f"a recording may have {limits.upload_bytes} bytes", 413)
    promised = request.headers.get("content-length", "0")
    if not promised.isdigit() or int(promised) > limits.upload_bytes:
        raise too_large
    try:
        separator = boundary(request.headers.get("content-type", ""))
    except ValueError as error:
        raise BadRecordingError(str(error), 400) from None
    size, file = 0, tempfile.TemporaryFile(prefix="dualasr-")  # noqa: SIM115  (the caller's)
    try:
        async with asyncio.timeout(limits.upload_receive_seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limits.upload_bytes:
                    raise too_large
                file.write(piece)
        if not size:
            raise BadRecordingError("the body is empty: it must be the recording's file", 400)
    except TimeoutError:
        file.close()
        seconds = limits.upload_receive_seconds
        raise BadRecordingError(f"the recording must come within {seconds:g} s", 408) from None
    except (BadRecordingError, ClientDisconnect, OSError):
        file.close()
        raise
    file.seek(0)
    if separator is None:
        return file
    with file:
        try:
            return await asyncio.to_thread(file_of_form, file, separator)
        except ValueError as error:
            raise BadRecordingError(str(error), 400) from None


async def transcribed(
    file: IO[bytes], engine: Engine, limits: Limits, result: list[Transcript]
) -> AsyncIterator[Progress]:
    """How far it is, as long as it takes; then the result is in the list.

    Raises:
        BadRecordingError: no recording, or a damaged one.
        DecoderLostError: the decoding process died.
    """
    ready = engine.ready
    if ready is None:
        raise DecoderLostError
    rate = ready.sample_rate
    arguments = (rate, limits.reader_bytes, limits.reader_cpu_seconds, limits.upload_seconds)
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dualasr_lib.serving.reader", *map(str, arguments),
        stdin=file, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    answers: asyncio.Queue[Said | Heard | Over | Lost] = asyncio.Queue()
    feed = engine.open(rate, "<f4", answers.put_nowait)
    finals: list[Final] = []
    try:
        assert reader.stdout is not None
        head = await reader.stdout.readline()
        total = json.loads(head)["seconds"] if head else None
        is_open = True
        while True:
            while is_open and feed.backlog_seconds < _AHEAD_SECONDS:
                samples = await _read(reader.stdout, 4 * (rate // 2))
                if samples:
                    feed.send(samples)
                else:
                    await _check(reader)
                    feed.end()
                    is_open = False
            answer = await answers.get()
            if isinstance(answer, Lost):
                raise DecoderLostError
            if isinstance(answer, Over):
                if answer.error:
                    raise BadRecordingError(answer.error)
                result.append(Transcript("", answer.seconds, finals))
                yield Progress(answer.seconds, answer.seconds)
                return
            if isinstance(answer, Said):
                if isinstance(answer.event, Final):
                    finals.append(answer.event)
                    yield Progress(feed.heard_seconds, total, (answer.event,))
            else:
                yield Progress(answer.seconds, total)
    finally:
        feed.drop()
        with contextlib.suppress(ProcessLookupError):
            reader.kill()
        await reader.wait()


async def _read(stream: asyncio.StreamReader, size: int) -> bytes:
    """`size` bytes, fewer at the end."""
    try:
        return await stream.readexactly(size)
    except asyncio.IncompleteReadError as error:
        return error.partial


async def _check(reader: asyncio.subprocess.Process) -> None:
    """Raises what was wrong with the recording."""
    assert reader.stderr is not None
    told = (await reader.stderr.read()).decode(errors="replace").strip().splitlines()
    code = await reader.wait()
    if code == 1 and told:
        raise BadRecordingError(told[-1])
    if code:
        raise BadRecordingError("reading the recording took too much time or memory, or crashed")
