#!/usr/bin/env bash
# All checks: set-up if needed, layout and lint, types, tests; then the torch 2 lane.
#
#   tools/test.sh [pytest arguments]        for example: tools/test.sh -k streaming
#
# With arguments only the tests change: both lanes pass them to pytest. Every check runs even if an earlier
# one failed; the last lines count them. Exit code 0 only if all passed and at least one test ran in the
# default lane. DUALASR_LANES="default" (or "torch2") runs one lane only.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
lanes=${DUALASR_LANES:-default torch2}
results=()
failed=0

# Tests compare numbers and times: one thread each.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
source tools/env.sh

report() { # report NAME SECONDS STATUS WHAT: remembers a line of the last table
  local verdict=passed
  if [ "$3" -ne 0 ]; then
    verdict=FAILED
    failed=1
  fi
  results+=("$(printf '%-16s %-7s %5d s   %s' "$1" "$verdict" "$2" "$4")")
}

check() { # check NAME COMMAND...
  local name=$1 start=$SECONDS status=0
  shift
  echo "== $name: $*"
  "$@" || status=$?
  report "$name" $((SECONDS - start)) $status ""
}

run_tests() { # run_tests LANE PYTHON ARGUMENTS...
  local lane=$1 python=$2 start=$SECONDS status=0 output
  shift 2
  output=$(mktemp)
  echo "== tests ($lane): pytest $*"
  "$python" -m pytest -ra --durations=5 "$@" | tee "$output" || status=$?
  # 5: nothing was collected. In the torch 2 lane a chosen test may well not exist; in the default lane
  # it means that nothing was tested.
  if [ $status -eq 5 ] && [ "$lane" = torch2 ]; then
    status=0
  fi
  report "tests $lane" $((SECONDS - start)) $status "$(tail -1 "$output" | tr -d '=' | xargs)"
  rm -f "$output"
}

torch2_tests() { # what needs no k2; what needs kaldifeat itself is skipped
  local folder
  for folder in tests/core tests/data tests/features tests/model tests/training tests/metrics tests/decoding tests/recognition tests/programs tests/export tests/runtime; do
    [ ! -d "$folder" ] || echo "$folder"
  done
  compgen -G 'tests/test_*.py'
  compgen -G 'tests/tools/test_bench*.py'
}

default_lane() {
  tools/setup.sh || return 1
  local python=.venv/bin/python
  check format "$python" -m ruff format --check .
  check lint "$python" -m ruff check .
  check types "$python" -m mypy
  run_tests default "$python" "$@"
}

torch2_lane() {
  tools/setup.sh --torch2 || return 1
  local paths argument
  mapfile -t paths < <(torch2_tests)
  for argument in "$@"; do # a named file or folder is run in place of the list; what it lacks it skips
    [ ! -e "${argument%%::*}" ] || paths=()
  done
  run_tests torch2 .venv-torch2/bin/python ${paths[@]+"${paths[@]}"} "$@"
}

for lane in $lanes; do
  start=$SECONDS
  case $lane in
    default) default_lane "$@" || report "set-up default" $((SECONDS - start)) 1 "" ;;
    torch2) torch2_lane "$@" || report "set-up torch2" $((SECONDS - start)) 1 "" ;;
    *)
      echo "test.sh: unknown lane '$lane' in DUALASR_LANES: there are default and torch2" >&2
      exit 2
      ;;
  esac
done

echo
printf '%s\n' "${results[@]}"
exit $failed
