"""`dualasr-export`: a trained model as ONNX files, for sherpa-onnx or for our own runtime.

    dualasr-export --exp-dir EXP --data-dir DATA [--epoch E] [--avg K] --out DIR [--int8]
    dualasr-export --bundle FILE --out DIR [--int8] [--head ctc transducer]
    dualasr-export --bundle FILE --out DIR --format runtime [--int8]

DIR gets each branch with each of its heads that the client knows (streaming: online zipformer2 CTC
and transducer; full: offline zipformer CTC and transducer), the token table and a README.md with
the calls. With --format runtime it gets what `dualasr-transcribe --bundle DIR` reads without
torch: both branches, in 8 bits if --int8. Each graph has been compared with torch before.
Needs `pip install dualasr[export]`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualasr_lib.core.files import check_new_folder, output_folder
from dualasr_lib.core.program import run_program
from dualasr_lib.export.names import HEADS
from dualasr_lib.programs.options import parser
from dualasr_lib.recognition.decode_config import DecodeConfig

__all__ = ["main", "program"]


def program() -> None:
    """The console script."""
    run_program(main, "export")


def main(words: Sequence[str] | None = None) -> None:
    """Writes an export and says what is in it."""
    arguments = _read(words)
    config = DecodeConfig(
        exp_dir=arguments.exp_dir,
        data_dir=arguments.data_dir,
        bundle=arguments.bundle,
        epoch=arguments.epoch,
        avg=arguments.avg,
        chunk_ms=arguments.chunk_ms,
        left_ms=arguments.left_ms,
        device="cpu",
    )
    check_new_folder(arguments.out)
    write = _runtime_set if arguments.format == "runtime" else _for_sherpa_onnx
    facts = write(config, arguments)
    for name, entry in facts["files"].items():
        print(f"{arguments.out / name}  {entry['bytes']:,} bytes")


def _for_sherpa_onnx(config: DecodeConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from dualasr_lib.export.folder import write_export
    from dualasr_lib.recognition.origin import open_origin

    trained = open_origin(config, torch.device("cpu")).trained
    chunk = trained.chunk(config.chunk_ms, config.left_ms)
    return write_export(trained, chunk, arguments.out, arguments.int8, arguments.head)


def _runtime_set(config: DecodeConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    from dualasr_lib.export.runtime import options_of, write_runtime_set
    from dualasr_lib.recognition.loading import greedy_setup

    if arguments.head:
        raise ValueError("--head is for sherpa-onnx: a set for the runtime has what it can read")
    setup = greedy_setup(config)
    options = options_of(setup)
    return write_runtime_set(setup.trained, setup.chunk, options, arguments.out, arguments.int8)


def _read(words: Sequence[str] | None) -> argparse.Namespace:
    reader = parser(__doc__)
    add = reader.add_argument
    add("--exp-dir", type=Path, metavar="EXP", help="what train.py wrote")
    add("--data-dir", type=Path, metavar="DATA", help="what prepare.sh wrote: the tokens")
    add("--bundle", type=Path, metavar="FILE", help="a model in one file, in place of --exp-dir")
    add("--epoch", type=int, help="checkpoint of EXP; default: the newest")
    add("--avg", type=int, default=0, help="mean of its last K epochs; default: none")
    add("--chunk-ms", type=int, help="chunk of the streaming stacks; default: the config's")
    add("--left-ms", type=int, help="their left context; default: the config's")
    add("--out", type=output_folder, required=True, metavar="DIR", help="a new folder")
    add("--head", nargs="+", choices=HEADS, help="heads to export; default: all that are there")
    add("--format", choices=("sherpa-onnx", "runtime"), default="sherpa-onnx",
        help="for whom; default: sherpa-onnx")  # fmt: skip
    add("--int8", action="store_true",
        help="also files with 8-bit weights; runtime: these only")  # fmt: skip
    return reader.parse_args(words)


if __name__ == "__main__":
    program()
