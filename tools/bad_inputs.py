#!/usr/bin/env python3
"""What dualasr-transcribe makes of bad and odd audio files, as a Markdown table.

    source tools/env.sh; tools/bad_inputs.py --exp-dir EXP --data-dir DATA [--out FILE.md]
        [--keep DIR] [OPTIONS OF dualasr-transcribe]

The files are made anew in a temporary folder (or in DIR, to look at them): speech is the beginning
of the first eval recording of DATA, which the others distort. Each goes through a process of its
own. Exit code 1 if one ended in a traceback or in another way than its row expects.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from dualasr_lib.core.files import output_file, output_folder
from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

_TIMEOUT = 600


def outcome(path: Path, options: list[str]) -> tuple[int, str]:
    """Exit code, and the text or the lines that say why there is none."""
    command = [sys.executable, "-m", "dualasr_lib.programs.transcribe", *options, str(path)]
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=_TIMEOUT
    )
    if result.returncode == 0:
        warnings = [line for line in result.stderr.splitlines() if "is clipped" in line]
        said = " / ".join(result.stdout.splitlines()) or "(no text)"
        return 0, " ".join([said, *(f"({line.split(': ', 1)[1]})" for line in warnings)])
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    said = lines[0] if len(lines) == 1 else f"{len(lines)} LINES: {lines[-1]}"
    return result.returncode, said.replace(f"{path.parent}/", "").split("error: ", 1)[-1]


def table(folder: Path, data_dir: Path, options: list[str]) -> tuple[str, bool]:
    """Markdown, and whether every case ended as it should."""
    from analysis.odd_files import CASES, speech_of  # heavy, after the options

    speech = speech_of(data_dir)
    rows = [("file", "what it is", "exit", "dualasr-transcribe says")]
    good = True
    for case in CASES:
        path = folder / case.name
        case.make(path, speech)
        code, said = outcome(path, options)
        right = code == case.exit_code and "Traceback" not in said and " LINES: " not in said
        good &= right
        rows.append((case.name, case.what, f"{code}" if right else f"{code} WRONG", said))
        print(f"{case.name}: {code}: {said}", file=sys.stderr, flush=True)
    return markdown(rows), good


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--exp-dir", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--out", type=output_file, metavar="FILE.md", help="write the table there too"
    )
    parser.add_argument("--keep", type=output_folder, metavar="DIR", help="make the files there")
    arguments, others = parser.parse_known_args()
    folders = ["--exp-dir", arguments.exp_dir.resolve(), "--data-dir", arguments.data_dir.resolve()]
    options = [*map(str, folders), *others]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        text, good = table(folder, arguments.data_dir, options)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if not good:
        raise ValueError("some files did not end as they should: see the table")


if __name__ == "__main__":
    run_program(main)
