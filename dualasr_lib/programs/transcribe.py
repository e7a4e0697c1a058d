"""`dualasr-transcribe`: audio files in, text or captions out.

    dualasr-transcribe [--bundle model.dualasr] [--format text|json|srt|vtt] [--out-dir DIR]
        [--two-pass] [--partials] FILE ...
    ffmpeg -i talk.m4a -f wav - | dualasr-transcribe --exp-dir EXP --data-dir DATA -

Without --bundle or --exp-dir it hears with the model that comes with the package; what that can do,
`dualasr-bundle --show` says. Reads any file that libsndfile reads, at any sample rate and number of
channels, as a stream: a file of hours takes no more memory than one of seconds. So do pipes and
standard input (-); wav is recognised as it comes. --partials shows the text as it grows, grey on a
terminal, then the final one, with [before→after] where the second pass has changed it. Texts go to
standard output, or one file per input into --out-dir; all else goes to standard error. A file that
cannot be read is one line there, the others are still done, and the exit code is 1.
"""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dualasr_lib.core.config import from_dict, override
from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.core.program import run_program
from dualasr_lib.core.progress import Progress
from dualasr_lib.data.pipe import STANDARD_INPUT
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.programs.options import add_options, decode_config, parser
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.methods import registry
from dualasr_lib.runtime.layout import is_runtime_set

if TYPE_CHECKING:
    from dualasr_lib.decoding.captions import Transcript
    from dualasr_lib.decoding.events import Event, Final
    from dualasr_lib.metrics.calibration import Calibration
    from dualasr_lib.programs.screen import Screen
    from dualasr_lib.recognition.recogniser import Recogniser
    from dualasr_lib.runtime.opening import Wanted

__all__ = [
    "EngineConfig",
    "add_engine_arguments",
    "engine_config",
    "load_engine",
    "program",
    "transcribe",
]

_LOG = logging.getLogger(__name__)
_SUFFIX = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
_MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What turns samples into text, and how."""

    decode: DecodeConfig
    endpoint: tuple[str, ...] = ()
    """When a sentence ends: `key=value` of `EndpointConfig`."""
    threads: int = 1
    """Of torch."""

    def __post_init__(self) -> None:
        from_dict(EndpointConfig, override({}, self.endpoint))
        if not 1 <= self.threads <= _MOST_THREADS:
            raise ValueError(f"--threads must be from 1 to {_MOST_THREADS}, but is {self.threads}")


def transcribe(
    path: str | Path, recogniser: "Recogniser", screen: "Screen | None" = None
) -> "Transcript":
    """Recognises one file, a pipe or ("-") standard input, with progress on stderr, and with the
    text as it grows if there is a screen.

    Raises:
        ValueError: as `open_audio` and `AudioFile.blocks`.
        OSError: the file cannot be read.
    """
    from dualasr_lib.data.audio import open_audio
    from dualasr_lib.decoding.captions import Transcript
    from dualasr_lib.decoding.events import Final
    from dualasr_lib.decoding.live import listen

    rules = recogniser.rules
    audio = open_audio(path, recogniser.sample_rate)
    total = None if audio.duration is None else int(audio.duration)
    progress = Progress(str(audio.path), "seconds of audio", total)
    finals: list[Final] = []
    begun, said = time.monotonic(), 0
    for event in listen(audio.blocks(rules.model.chunk_samples), rules):
        if isinstance(event, Final):
            finals.append(event)
        if screen is not None:
            _show(screen, event)
        heard = int(event.end_seconds if isinstance(event, Final) else event.audio_seconds)
        if heard > said:
            progress.add(heard - said)
            said = heard
    duration = audio.duration or (finals[-1].end_seconds if finals else 0.0)
    seconds = time.monotonic() - begun
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the text
        progress.close(f"RTF {seconds / duration:.3f}" if duration else "no audio")
    _warn(audio.path, finals, recogniser.calibration)
    return Transcript(str(audio.path), duration, finals, recogniser.calibration)


def _warn(path: Path, finals: "Sequence[Final]", calibration: "Calibration | None") -> None:
    """Says where the second pass was not what was asked for, and that the speech is not what the
    model has learnt.
    """
    from dualasr_lib.decoding.confidence_files import far_from_valid

    warning = far_from_valid(str(path), [final.confidences for final in finals], calibration)
    if warning:
        _LOG.warning("%s", warning)
    fallbacks = sum(final.fallbacks for final in finals)
    if fallbacks:
        _LOG.warning("%s: memory ran out %d times in the second pass; it searched less there",
                     path, fallbacks)  # fmt: skip
    left_out = Counter(part for final in finals for part in final.left_out)
    if left_out:
        parts = ", ".join(f"{part} in {count}" for part, count in left_out.items())
        _LOG.warning("%s: of the second pass there was no time for %s of %d sentences",
                     path, parts, len(finals))  # fmt: skip
    failed = [final for final in finals if final.second_pass == "failed"]
    if failed:
        _LOG.warning("%s: the second pass failed in %d sentences, which keep the text of the first "
                     "pass; at %.2f s: %s",
                     path, len(failed), failed[0].start_seconds, failed[0].failure)  # fmt: skip


def load_engine(config: EngineConfig) -> "Recogniser":
    """The recogniser that the options ask for; what it tells goes to stderr.

    Raises:
        ValueError: as `Recogniser.build`.
    """
    from dualasr_lib.recognition.recogniser import Recogniser

    decode = config.decode
    if decode.bundle is not None and is_runtime_set(decode.bundle):
        from dualasr_lib.runtime.opening import open_rules

        return Recogniser(*open_rules(decode.bundle, _runtime(config)))
    import torch

    from dualasr_lib.programs.data import open_data

    torch.set_num_threads(config.threads)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the text
        return Recogniser.build(config.decode, config.endpoint, open_data)


def _runtime(config: EngineConfig) -> "Wanted":
    """What the options ask of a set for the runtime; ValueError for those it has no use for."""
    from dualasr_lib.runtime.opening import Wanted

    decode = config.decode
    names = ("beam", "scales", "lm", "lexicon", "second_beam", "second_scales", "chunk_ms")
    given = [name for name in (*names, "left_ms", "data_dir") if getattr(decode, name)]
    given += ["threads"] if config.threads > 1 else []
    if given:
        raise ValueError(
            f"{decode.bundle} is a set for the runtime, which searches in its own way, on one "
            f"thread, in the chunks it was exported for: leave out --{given[0].replace('_', '-')}"
        )
    first, second = decode.methods[0], decode.second_method
    return Wanted(
        two_pass=decode.two_pass,
        method=None if first == registry.DEFAULT else first,
        second=None if second == registry.SECOND_PASS else second,
        endpoint=config.endpoint,
        budget_seconds=decode.budget_seconds,
    )


def program() -> None:
    """The console script."""
    run_program(_main)


def add_engine_arguments(into: argparse.ArgumentParser) -> None:
    """The options that `engine_config` reads."""
    add_options(into, "transcribe")
    into.add_argument(
        "--endpoint", default=[], action="append", metavar="KEY=VALUE",
        help="when a sentence ends; may be repeated:\n"
        "pause_seconds=0.8, silence_seconds=2.4, max_seconds=20 ...; inf turns a rule off",
    )  # fmt: skip
    into.add_argument(
        "--threads", type=int, default=1, help="of torch; default: 1, which one stream fills"
    )


def engine_config(arguments: argparse.Namespace) -> EngineConfig:
    """What the options of `add_engine_arguments` ask for.

    Raises:
        ValueError: an option that cannot be.
    """
    return EngineConfig(
        decode=decode_config(arguments, "transcribe"),
        endpoint=tuple(arguments.endpoint),
        threads=arguments.threads,
    )


def _arguments() -> argparse.Namespace:
    able = registry.listing(lambda method: method.stream is not None)
    reader = parser(f"{__doc__}\nSearch methods (--method):\n{able}")
    add = reader.add_argument
    add(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="wav, flac, ogg, mp3, ...; - is standard input",
    )
    add(
        "--format",
        choices=tuple(_SUFFIX),
        default="text",
        help="default: text, a line per sentence",
    )
    add("--out-dir", type=Path, help="write one file per input there; default: standard output")
    add("--max-chars", type=int, default=30, help="of a caption line; default: 30")
    add("--partials", action="store_true", help="show the text as it grows, on standard error")
    add_engine_arguments(reader)
    return reader.parse_args()


def _main() -> None:
    arguments = _arguments()
    _check(arguments)
    config, outputs = engine_config(arguments), _outputs(arguments)
    from dualasr_lib.decoding.captions import render  # what is heavy, after all options are read
    from dualasr_lib.programs.screen import Screen

    recogniser = load_engine(config)
    screen = Screen(sys.stderr) if arguments.partials else None
    if screen is not None and recogniser.weights:
        screen.say(recogniser.weights)
    failed = 0
    for path, output in zip(arguments.files, outputs):
        try:
            transcript = transcribe(path, recogniser, screen)
            text = render(transcript, arguments.format, arguments.max_chars)
            _deliver(text, path, output, len(outputs))
        except BrokenPipeError:
            raise
        except Exception as error:
            if not isinstance(error, (ValueError, OSError)) and not is_memory_error(error):
                raise
            failed += 1
            print(f"{os.path.basename(sys.argv[0])}: error: {error}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(1)


def _check(arguments: argparse.Namespace) -> None:
    if sum(str(path) == STANDARD_INPUT for path in arguments.files) > 1:
        raise ValueError("standard input (-) can be read once only, but is given several times")
    if arguments.max_chars < 1:
        raise ValueError(f"--max-chars must be at least 1, but is {arguments.max_chars}")
    if len(arguments.files) > 1 and arguments.format in ("srt", "vtt") and not arguments.out_dir:
        raise ValueError(
            f"captions of {len(arguments.files)} files need --out-dir: standard output holds "
            f"one {arguments.format} file only"
        )


def _outputs(arguments: argparse.Namespace) -> list[Path | None]:
    """Where each text goes; None is standard output."""
    if arguments.out_dir is None:
        return [None] * len(arguments.files)
    if arguments.out_dir.exists() and not arguments.out_dir.is_dir():
        raise ValueError(f"--out-dir must be a folder, but {arguments.out_dir} is a file")
    taken: dict[Path, Path] = {}
    for path in arguments.files:
        stem = "stdin" if str(path) == STANDARD_INPUT else path.stem
        output = arguments.out_dir / f"{stem}{_SUFFIX[arguments.format]}"
        if output in taken:
            raise ValueError(f"{taken[output]} and {path} would both be written to {output}")
        if output.resolve() == path.resolve():
            raise ValueError(f"{output} would be written over its own input")
        taken[output] = path
    return list(taken)


def _deliver(text: str, path: Path, output: Path | None, count: int) -> None:
    if output is not None:
        write_atomically(output, text.encode())
        return
    if count > 1 and text and not text.startswith("{"):
        text = f"==> {path} <==\n{text}"
    print(text, end="", flush=True)


def _show(screen: "Screen", event: "Event") -> None:
    from dualasr_lib.decoding.events import Partial

    if isinstance(event, Partial):
        screen.partial("", event.audio_seconds, event.text)
    else:
        first, note = event.first_pass_text, event.reason
        screen.final("", event.end_seconds, first, event.text, note)


if __name__ == "__main__":
    program()
