#!/usr/bin/env bash
# What every recipe's prepare.sh ends in: prepare_corpus.sh RECIPE ARGUMENTS... runs the module
# egs.RECIPE.local.corpus in the environment that tools/setup.sh made.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
recipe=$1
shift
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
exec "$python" -m "egs.$recipe.local.corpus" "$@"
