#!/usr/bin/env bash
# Every search method on both branches of a trained model, streams and two passes included; one table.
#
#   egs/csj/decode_all.sh --exp-dir EXP --data-dir DATA [--split "eval1 eval2 eval3"] [--lexicon]
#
# Scales are tuned on valid by the first run of each method and kept. Split valid is decoded too:
# confidence is calibrated on it, and there the order oracle <= attention <= 1best can be read without looking at the evaluation data.
# --lexicon also decodes with the lexicon and word n-gram of DATA/lang.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
splits="valid eval1 eval2 eval3"
exp= data= lexicon=
while [ $# -gt 0 ]; do
  case $1 in
    --exp-dir | --data-dir | --split)
      [ $# -ge 2 ] || { echo "decode_all.sh: $1 needs a value" >&2; exit 2; }
      case $1 in --exp-dir) exp=$2 ;; --data-dir) data=$2 ;; --split) splits=$2 ;; esac
      shift 2 ;;
    --lexicon) lexicon=yes; shift ;;
    -h | --help) sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/d;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "decode_all.sh: unknown argument '$1'; try --help" >&2; exit 2 ;;
  esac
done
if [ -z "$exp" ] || [ -z "$data" ]; then
  echo "decode_all.sh: --exp-dir and --data-dir are needed; try --help" >&2
  exit 2
fi
source "$root/tools/env.sh"

decode() { # decode.py or streaming_decode.py with its own options, on all splits
  local program=$1
  shift
  # shellcheck disable=SC2086  (splits are several words)
  python "$root/egs/csj/$program" --exp-dir "$exp" --data-dir "$data" --split $splits "$@"
}

decode decode.py --branch streaming full --method all
decode streaming_decode.py --method all
decode streaming_decode.py --two-pass
if [ -n "$lexicon" ]; then
  decode decode.py --branch streaming full --method hlg --lexicon "$data/lang/lexicon.txt"
fi
python "$root/tools/show_results.py" "$exp" --markdown
