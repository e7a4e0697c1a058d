#!/usr/bin/env bash
# From a CSJ tree (the real one, or our open one with --open) to features, tokens and a report.
#
#   egs/csj/prepare.sh --csj-dir DIR --data-dir DATA [--open] [--mode disfluent|fluent]
#                      [--stage A --stop-stage B] [--jobs N] [--allow-bad N] ...     (--help: all)
#
#   1 manifests   corpus checked, lhotse prepare csj     5 tokens   sentencepiece, tokens.txt
#   2 text        both modes, word times (--open)        6 n-grams  of tokens, of words; lexicon
#   3 utterances  units joined, speed perturbation       7 report   counts, hours, what was left out
#   4 features    kaldifeat, lilcom
#
# It may be killed at any time and started again: finished stages (DATA/done) are skipped.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -f "$root/tools/env.sh" ]; then
  source "$root/tools/env.sh"
fi
python="${DUALASR_VENV:-$root/.venv}/bin/python"
if [ ! -x "$python" ]; then
  echo "prepare.sh: error: '$python' is missing; run tools/setup.sh first" >&2
  exit 1
fi
export OMP_NUM_THREADS=1 # each of --jobs processes has one thread
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUTF8=1
exec "$python" -m egs.csj.local.corpus "$@"
