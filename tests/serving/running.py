"""A server in a process of its own, as users start it, and what tests ask it."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

ROOT = Path(__file__).parents[2]


class Running:
    """A server that is ready."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, lines: list[str]) -> None:
        self.process, self.port, self.lines = process, port, lines

    @property
    def live(self) -> str:
        return f"ws://127.0.0.1:{self.port}/live"

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and answer."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(f"http://127.0.0.1:{self.port}{path}", body, names)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def health(self) -> dict[str, Any]:
        return json.loads(self.ask("/health")[1])  # type: ignore[no-any-return]

    def metric(self, name: str) -> float:
        """Of a counter or gauge without labels, or the sum over its labels."""
        text = self.ask("/metrics")[1].decode()
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values))

    @property
    def decoder(self) -> int:
        """Process of the decoder that came last."""
        found = re.findall(r"decoding process (\d+) is ready", "\n".join(self.lines))
        return int(found[-1])

    @property
    def sockets(self) -> int:
        """TCP connections that the server's process holds, besides the port itself."""
        count = 0
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                count += os.readlink(entry).startswith("socket:")
            except OSError:
                continue
        return count

    def stop(self, seconds: float = 30) -> int:
        """Exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def received(client: ClientConnection) -> list[str]:
    """All messages until the server closes, whatever the code."""
    texts: list[str] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            texts.append(str(client.recv(30)))
    return texts


@contextmanager
def running(bundle: Path, *options: str, token: str | None = None) -> Iterator[Running]:
    """`dualasr-serve` on a free port; ended as a service manager would."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if token is not None:
        environment["DUALASR_TOKEN"] = token
    command = [sys.executable, "-m", "dualasr_lib.programs.serve", "--bundle", str(bundle)]
    process = subprocess.Popen(
        [*command, "--port", "0", *options], stderr=subprocess.PIPE, text=True, env=environment
    )
    lines: list[str] = []
    port: queue.Queue[int] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            found = re.search(r"listening at http://.*:(\d+)/", line)
            if found:
                port.put(int(found[1]))

    threading.Thread(target=read, daemon=True).start()
    try:
        try:
            yield Running(process, port.get(timeout=120), lines)
        except queue.Empty:
            raise AssertionError("".join(lines)) from None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        # 0: it was told to end; -9: the test killed it
        assert process.returncode in (0, -signal.SIGKILL), (process.returncode, "".join(lines))
        assert "Traceback" not in "".join(lines), "".join(lines)
    finally:
        process.kill()
        process.wait()
