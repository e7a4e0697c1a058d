"""Live sockets: texts are those of a recogniser, many at once, and what becomes of them when the
decoder dies or the server ends."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ROOT, Running, received, running, until
from websockets.sync.client import connect

from dualasr_lib.recognition.recogniser import Recogniser
from dualasr_lib.serving.client import Spoken, speak


def said(server: Running, samples: bytes, **options: Any) -> Spoken:
    return asyncio.run(speak(server.live, samples, 16000, speed=4.0, **options))


def expected(bundle: Path, samples: bytes, rate: int = 16000) -> list[str]:
    floats = np.frombuffer(samples, "<i2").astype(np.float32) / 32768
    return Recogniser.load(bundle, device="cpu").transcribe(floats, rate).text.splitlines()


def test_texts_are_those_of_a_recogniser(server: Running, bundle: Path, samples: bytes) -> None:
    spoken = said(server, samples)
    messages = [told.message for told in spoken.told]
    kinds = [message["type"] for message in messages]
    assert kinds[0] == "ready" and kinds[-1] == "end" and spoken.close == 1000
    assert "partial" in kinds[1 : kinds.index("final")]
    assert spoken.finals == expected(bundle, samples) != []
    finals = [message for message in messages if message["type"] == "final"]
    assert [final["seg"] for final in finals] == list(range(len(finals)))
    assert all(final["pass"] == 2 and final["ms"] > 0 for final in finals if final["text"])
    assert finals[0]["start"] == 0 and finals[-1]["end"] == messages[-1]["seconds"] == 4.0
    edges = [(before["end"], after["start"]) for before, after in pairwise(finals)]
    assert all(end == start for end, start in edges)


def test_streams_at_once_say_the_same_as_alone(
    server: Running, bundle: Path, samples: bytes
) -> None:
    parts = [samples[:90000], samples[20000:], samples[1000:70000], samples]

    async def together() -> list[Spoken]:
        return await asyncio.gather(
            *(speak(server.live, part, 16000, speed=3.0 + i) for i, part in enumerate(parts))
        )

    for part, spoken in zip(parts, asyncio.run(together())):
        assert spoken.finals == expected(bundle, part), (spoken.close, spoken.told[-1:])
    assert server.metric("dualasr_batch_streams_sum") > server.metric("dualasr_batch_streams_count")


def test_any_rate_is_heard(server: Running, bundle: Path, samples: bytes) -> None:
    spoken = asyncio.run(speak(server.live, samples, 48000, speed=1.0))
    assert spoken.finals == expected(bundle, samples, 48000) != []


def test_one_pass_is_said_to_be_one(bundle: Path, samples: bytes) -> None:
    with running(bundle, "--one-pass") as server:
        finals = [t.message for t in said(server, samples).told if t.message["type"] == "final"]
        assert {final["pass"] for final in finals} == {1}
        assert server.health()["two_pass"] is False


def test_a_second_pass_that_is_late_leaves_the_first_text(bundle: Path, samples: bytes) -> None:
    with running(bundle, "--limit", "second_pass_seconds=1e-9") as late:
        spoken = said(late, samples)
    messages = [told.message for told in spoken.told]
    partials = [m["text"] for m in messages if m["type"] == "partial"]
    finals = [m for m in messages if m["type"] == "final" and m["text"]]
    assert finals and {final["pass"] for final in finals} == {1} and spoken.close == 1000
    assert finals[0]["text"].startswith(partials[0])


def test_a_decoder_that_dies_is_told_and_replaced(bundle: Path, samples: bytes) -> None:
    with running(bundle) as server, connect(server.live, subprotocols=["asr.v1"]) as socket:  # type: ignore[list-item]
        socket.send('{"type":"start","sample_rate":16000}')
        assert '"ready"' in str(socket.recv(10))
        socket.send(samples[:32000])
        before = server.decoder
        killed = time.monotonic()
        os.kill(before, signal.SIGKILL)
        texts = received(socket)
        assert time.monotonic() - killed < 2.0
        assert '"restart"' in texts[-1] and socket.close_code == 1012
        assert server.ask("/health")[0] == 503
        assert server.ask("/live")[0] == 503
        assert until(lambda: server.ask("/health")[0] == 200, 60)
        assert server.decoder != before and server.metric("dualasr_worker_restarts_total") == 1
        assert said(server, samples).finals == expected(bundle, samples)


def test_a_decoder_that_hangs_is_told_and_replaced(bundle: Path, samples: bytes) -> None:
    with running(bundle, "--limit", "hung_seconds=2") as server, connect(server.live) as socket:
        socket.send('{"type":"start","sample_rate":16000}')
        assert '"ready"' in str(socket.recv(60))
        before = server.decoder
        os.kill(before, signal.SIGSTOP)
        texts = received(socket)
        assert '"restart"' in texts[-1] and socket.close_code == 1012
        assert until(lambda: server.ask("/health")[0] == 200, 60)
        assert server.decoder != before


def test_a_decoder_that_gets_no_core_is_waited_for(bundle: Path, samples: bytes) -> None:
    """The client has done nothing wrong: neither too fast nor idle."""
    with running(bundle, "--limit", "idle_seconds=1", "--limit", "ahead_seconds=1") as server:

        async def held() -> Spoken:
            speaking = asyncio.create_task(speak(server.live, samples, 16000))
            await asyncio.sleep(1.0)
            os.kill(server.decoder, signal.SIGSTOP)
            await asyncio.sleep(6.0)  # all has been said, 3 s ago
            os.kill(server.decoder, signal.SIGCONT)
            return await speaking

        spoken = asyncio.run(held())
        assert spoken.close == 1000 and spoken.finals == expected(bundle, samples)


def test_a_server_that_is_far_behind_says_so_and_takes_nobody_else(
    bundle: Path, samples: bytes
) -> None:
    with running(bundle, "--limit", "behind_seconds=3", "--limit", "busy_seconds=1") as server:

        async def held() -> Spoken:
            speaking = asyncio.create_task(speak(server.live, 5 * samples, 16000))
            await asyncio.sleep(1.0)
            os.kill(server.decoder, signal.SIGSTOP)
            await asyncio.sleep(2.0)
            assert (await asyncio.to_thread(server.ask, "/live"))[0] == 503
            return await speaking

        spoken = asyncio.run(held())
        os.kill(server.decoder, signal.SIGCONT)
        assert spoken.close == 1013 and spoken.told[-1].message["code"] == "overloaded"
        assert until(lambda: server.ask("/live")[0] == 426)
        assert server.metric("dualasr_refused_total") == 1
        assert server.health()["behind_seconds"] == 0 == server.health()["decoding"]


def test_a_server_that_ends_gives_the_last_texts(bundle: Path, samples: bytes) -> None:
    with running(bundle) as server, connect(server.live) as socket:
        socket.send('{"type":"start","sample_rate":16000}')
        for start in range(0, len(samples), 32000):
            socket.send(samples[start : start + 32000])
        assert until(lambda: server.metric("dualasr_audio_seconds_total") > 2)
        ending = threading.Thread(target=server.stop)
        ending.start()
        texts = received(socket)
        ending.join()
        assert '"end"' in texts[-1] and socket.close_code == 1001
        assert any('"final"' in text for text in texts) and server.process.returncode == 0


def test_a_server_that_is_killed_takes_its_decoder_along(bundle: Path) -> None:
    with running(bundle) as server:
        decoder = server.decoder
        server.process.kill()
        server.process.wait()
        assert until(lambda: not Path(f"/proc/{decoder}/cmdline").exists(), 10)


@pytest.mark.parametrize("fault", ["the port is taken", "the bundle is damaged"])
def test_a_server_that_cannot_start_says_why(
    server: Running, bundle: Path, tmp_path: Path, fault: str
) -> None:
    path, port, told = bundle, server.port, "in use"
    if fault == "the bundle is damaged":
        path, port, told = tmp_path / "cut.dualasr", 0, "cut.dualasr"
        path.write_bytes(bundle.read_bytes()[:-5000])
    command = [sys.executable, "-m", "dualasr_lib.programs.serve", "--bundle", str(path)]
    done = subprocess.run(
        [*command, "--port", str(port)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    [line] = done.stderr.splitlines()
    assert done.returncode == 1 and "error: " in line and told in line


def test_health_decodes_and_metrics_count(server: Running, samples: bytes) -> None:
    before = server.metric("dualasr_chunk_seconds_count")
    health = server.health()
    assert health["status"] == "ok" and health["chunk_seconds"] > 0
    said(server, samples)
    assert server.metric("dualasr_chunk_seconds_count") > before
    assert server.metric("dualasr_second_pass_seconds_count") > 0
    assert server.metric("dualasr_queue_seconds_count") > 0
    assert 0 < server.metric("dualasr_real_time_factor") < 2
    assert until(lambda: server.metric("dualasr_streams_open") == 0)
