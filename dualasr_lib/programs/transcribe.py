"""`dualasr-transcribe`: audio files in, text or captions out.

    dualasr-transcribe --exp-dir EXP --data-dir DATA [--format text|json|srt|vtt] [--out-dir DIR]
        [--two-pass] [--partials] FILE ...
    ffmpeg -i talk.m4a -f wav - | dualasr-transcribe --exp-dir EXP --data-dir DATA -

Reads any file that libsndfile reads, at any sample rate and number of channels, as a stream: a
file of hours takes no more memory than one of seconds. So do pipes and standard input (-); wav is
recognised as it comes. --partials shows the text as it grows, grey on a terminal, then the final
one, with [before→after] where the second pass has changed it. Texts go to standard output, or one
file per input into --out-dir; all else goes to standard error. A file that cannot be read is one
line there, the others are still done, and the exit code is 1.
"""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dualasr_lib.core.config import from_dict, override
from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.core.program import Progress, run_program
from dualasr_lib.data.audio import open_audio
from dualasr_lib.data.pipe import STANDARD_INPUT
from dualasr_lib.decoding.captions import FORMATS, Format, Transcript, render
from dualasr_lib.decoding.contract import OnlineSearch, SecondPass, StreamingModel
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import Event, Final, LiveConfig, Partial
from dualasr_lib.decoding.live import listen
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.programs.screen import Screen
from dualasr_lib.recognition.decode_setup import DecodeSetup
from dualasr_lib.recognition.searches import ONLINE_METHODS

__all__ = ["Engine", "add_engine_arguments", "load_engine", "program", "transcribe"]

_LOG = logging.getLogger(__name__)
_SUFFIX: dict[Format, str] = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}


class Engine(NamedTuple):
    """All that turns samples into text; serves one file after the other."""

    model: StreamingModel
    search: OnlineSearch
    detokenise: Detokenise
    config: LiveConfig
    second_pass: SecondPass | None
    weights: str = ""
    """Which weights these are, for the reader."""


def transcribe(path: str | Path, engine: Engine, screen: Screen | None = None) -> Transcript:
    """Recognises one file, a pipe or ("-") standard input, with progress on stderr, and with the
    text as it grows if there is a screen.

    Raises:
        ValueError: as `open_audio` and `AudioFile.blocks`.
        OSError: the file cannot be read.
    """
    audio = open_audio(path, engine.model.sample_rate)
    total = None if audio.duration is None else int(audio.duration)
    progress = Progress(str(audio.path), "seconds of audio", total)
    finals: list[Final] = []
    begun, said = time.monotonic(), 0
    for event in listen(
        audio.blocks(engine.model.chunk_samples),
        engine.model,
        engine.search,
        engine.detokenise,
        engine.config,
        engine.second_pass,
    ):
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
    _warn(audio.path, finals)
    return Transcript(str(audio.path), duration, finals)


def _warn(path: Path, finals: Sequence[Final]) -> None:
    """Says where the second pass was not what was asked for."""
    fallbacks = sum(final.fallbacks for final in finals)
    if fallbacks:
        _LOG.warning("%s: memory ran out %d times in the second pass; it searched less there",
                     path, fallbacks)  # fmt: skip
    failed = [final for final in finals if final.second_pass == "failed"]
    if failed:
        _LOG.warning("%s: the second pass failed in %d sentences, which keep the text of the first "
                     "pass; at %.2f s: %s",
                     path, len(failed), failed[0].start_seconds, failed[0].failure)  # fmt: skip


def load_engine(arguments: argparse.Namespace) -> Engine:
    """Checkpoint, searches and endpointing as the options say; what it tells goes to stderr.

    Raises:
        ValueError: as `DecodeSetup`, or an option that cannot be.
    """
    endpoint = from_dict(EndpointConfig, override({}, arguments.endpoint))
    if arguments.threads < 1:
        raise ValueError(f"--threads must be at least 1, but is {arguments.threads}")
    torch.set_num_threads(arguments.threads)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the text
        setup = DecodeSetup(arguments)
        second_pass, weights = None, f"weights: {setup.recogniser.source}"
        if arguments.two_pass:
            second_pass, params, name = setup.second_pass(arguments.second_beam)
            weights += f"; {name}: {params['scales']} ({params['scales_from']})"
        search = setup.online(arguments.method, arguments.beam).search
        return Engine(
            model=setup.recogniser.streaming(setup.chunk),  # last: tuning hears whole utterances
            search=search,
            detokenise=setup.recogniser.detokenise,
            config=LiveConfig(endpoint=endpoint),
            second_pass=second_pass,
            weights=weights,
        )


def program() -> None:
    """The console script."""
    run_program(_main)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `load_engine` reads."""
    add = parser.add_argument
    # not nargs="*": that would swallow the files
    several: dict[str, Any] = {"action": "append", "metavar": "KEY=VALUE"}
    add("--exp-dir", type=Path, required=True, help="what train.py wrote")
    add("--data-dir", type=Path, required=True, help="what prepare.sh wrote")
    add("--two-pass", action="store_true", help="full context rewrites each finished sentence")
    add("--method", choices=ONLINE_METHODS, default="1best", help="first pass; default: 1best")
    add("--beam", default=[], **several, help="an option of the first pass; may be repeated")
    add("--second-beam", default=[], **several, help="an option of the second pass")
    add("--second-scales", **several, help="attention= (and lm=) of the second pass")
    add("--scales", **several, help="lm=, attention=; may be repeated; default: tuned on valid")
    add("--lm", type=Path, metavar="ARPA", help="n-gram of tokens, or with --lexicon of words")
    add("--lexicon", type=Path, metavar="FILE", help="words and their tokens")
    add("--epoch", type=int, help="checkpoint; default: the newest")
    add("--avg", type=int, default=0, help="epochs to average; default: none")
    add("--chunk-ms", type=int, help="chunk of the streaming stacks; default: the config's")
    add("--left-ms", type=int, help="their left context; default: the config's")
    add("--endpoint", default=[], **several, help="when a sentence ends; may be repeated:\n"
        "pause_seconds=0.8, silence_seconds=2.4, max_seconds=20 ...")  # fmt: skip
    add("--threads", type=int, default=1, help="of torch; default: 1, which one stream fills")
    add("--device", default="auto", help="auto, cpu or cuda")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="wav, flac, ogg, mp3, ...; - is standard input",
    )
    add("--format", choices=FORMATS, default="text", help="default: text, a line per sentence")
    add("--out-dir", type=Path, help="write one file per input there; default: standard output")
    add("--max-chars", type=int, default=30, help="of a caption line; default: 30")
    add("--partials", action="store_true", help="show the text as it grows, on standard error")
    add_engine_arguments(parser)
    return parser.parse_args()


def _main() -> None:
    arguments = _arguments()
    _check(arguments)
    outputs = _outputs(arguments)
    engine = load_engine(arguments)
    screen = Screen(sys.stderr) if arguments.partials else None
    if screen is not None and engine.weights:
        screen.say(engine.weights)
    failed = 0
    for path, output in zip(arguments.files, outputs):
        try:
            transcript = transcribe(path, engine, screen)
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


def _show(screen: Screen, event: Event) -> None:
    if isinstance(event, Partial):
        screen.partial("", event.audio_seconds, event.text)
    else:
        first, note = event.first_pass_text, event.reason
        screen.final("", event.end_seconds, first, event.text, note)


if __name__ == "__main__":
    program()
