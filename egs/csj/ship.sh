#!/usr/bin/env bash
# Puts a trained and decoded model into the package: the bundle that is heard with where nobody names a model.
# It is the demo model (demo.sh), trained on by conf/shipped.toml; RESULTS.md has all commands.
#
#   egs/csj/ship.sh --exp-dir EXP --data-dir DATA [--out FILE] [NAME=OUT ...]
#
# EXP must have results of its newest checkpoint (decode.py and streaming_decode.py, split valid first: scales and
# confidence); OUT of other data, by what the card calls these. FILE: default dualasr_lib/recognition/default.dualasr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
exp='' data='' out=$root/dualasr_lib/recognition/default.dualasr results=()
while [ $# -gt 0 ]; do
  case $1 in
    --exp-dir | --data-dir | --out)
      [ $# -ge 2 ] || { echo "ship.sh: $1 needs a value" >&2; exit 2; }
      case $1 in --exp-dir) exp=$2 ;; --data-dir) data=$2 ;; --out) out=$2 ;; esac
      shift 2 ;;
    -h | --help) sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/d;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *=*) results+=("$1"); shift ;;
    *) echo "ship.sh: unknown argument '$1'; try --help" >&2; exit 2 ;;
  esac
done
[ -n "$exp" ] && [ -n "$data" ] || { echo "ship.sh: give --exp-dir and --data-dir" >&2; exit 2; }
[ ${#results[@]} = 0 ] || results=(--results "${results[@]}")

licence="Apache-2.0. Trained on speech made with the HTS voices Mei (Nagoya Institute of Technology, MMDAgent; CC-BY 3.0)
and NIT ATR503 M001 (Nagoya Institute of Technology, Tokyo Institute of Technology; CC-BY 3.0), and Kokoro-82M (Apache-2.0)"
exec python -m dualasr_lib.programs.bundle "$exp" --data-dir "$data" --dtype float16 "${results[@]}" \
  --licence "${licence//$'\n'/ }" --card "$root/egs/csj/conf/default_card.txt" --out "$out"
