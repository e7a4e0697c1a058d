"""A process that decodes one recording: a file on standard input, samples (float32) on
standard output.

    python -m dualasr_lib.serving.reader SAMPLE_RATE MEMORY CPU_SECONDS SECONDS < FILE

It may take so many bytes more memory than it begins with, so many seconds of CPU, and may write no
file: whatever a crafted file does to libsndfile, it does it here. First a line of JSON comes,
`{"seconds": S}` (null: unknown) or `{"error": "..."}`; an error in the middle of the file is the
last line of standard error.
"""

import json
import resource
import sys
from typing import IO

from dualasr_lib.core.program import is_users_error, one_line
from dualasr_lib.data.audio import open_audio

__all__ = ["main"]

_PAGE = 4096


def main() -> None:
    """The process."""
    sample_rate, memory, cpu, most = (int(float(argument)) for argument in sys.argv[1:])
    _bound(memory, cpu)
    out = sys.stdout.buffer
    try:
        _read(out, sample_rate, most)
    except Exception as error:
        if not is_users_error(error):
            raise
        if isinstance(error, BrokenPipeError):
            return
        text = one_line(error).replace("/dev/stdin", "the recording")
        print(text, file=sys.stderr, flush=True)
        sys.exit(1)


def _read(out: IO[bytes], sample_rate: int, most: int) -> None:
    audio = open_audio("/dev/stdin", sample_rate)
    seconds = audio.duration
    if seconds is not None and seconds > most:
        raise ValueError(f"a recording may have {most} s, but it has {seconds:.0f} s")
    out.write(json.dumps({"seconds": seconds}).encode() + b"\n")
    left = most * sample_rate
    for block in audio.blocks(sample_rate // 2):
        left -= len(block)
        if left < 0:
            raise ValueError(f"a recording may have {most} s, but it has more")
        out.write(block.astype("<f4").tobytes())
        out.flush()


def _bound(memory: int, cpu: int) -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
