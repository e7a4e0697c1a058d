"""Program for `test_prepare_restart.py`: each stage of prepare.sh is killed, then finished.

Usage: kill_drill.py CORPUS DATA. Each stage runs in a forked process that kills itself (SIGKILL)
at a moment: when it has built its second file, when it moves its second file into place, or when
it writes its marker. In the end the stage is run whole. Prints one JSON line per kill.
"""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from dualasr_lib.recipe.prepare import prepare
from egs.csj.local.corpus import CSJ
from egs.csj.local.options import CsjOptions

MOMENTS = {"building": 2, "moving": 2, "marking": 1}
"""Kind of renaming that is not survived, and its number."""


def moment_of(target: Path, data: Path) -> str:
    """What a stage is doing when it renames a file to `target`."""
    folder = target.relative_to(data).parts[0]
    return {"tmp": "building", "written": "listing", "done": "marking"}.get(folder, "moving")


def run_killed(options: CsjOptions, stage: int, moment: str) -> bool:
    """Runs a stage in a process that dies at a moment; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        rename, seen = os.replace, Counter[str]()

        def replace(source: Path, target: Path) -> None:
            now = moment_of(Path(target), options.data_dir)
            seen[now] += 1
            if now == moment and seen[now] == MOMENTS[moment]:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.replace = replace  # type: ignore[assignment]
        prepare(CSJ, options, stage, stage)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def main() -> None:
    corpus, data = (Path(argument) for argument in sys.argv[1:])
    options = CsjOptions(csj_dir=corpus, data_dir=data, open=True, jobs=1)
    for stage in range(1, 8):
        for moment in MOMENTS:
            if (stage, moment) == (6, "building"):  # writes its files without renaming them
                continue
            killed = run_killed(options, stage, moment)
            done = (data / "done" / f"stage-{stage}").exists()
            kill = {"stage": stage, "at": moment, "killed": killed, "done": done}
            print(json.dumps(kill), flush=True)  # or the next fork would print it again
        prepare(CSJ, options, stage, stage)


if __name__ == "__main__":
    main()
