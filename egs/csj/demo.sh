#!/usr/bin/env bash
# From a fresh clone to text: set-up, open corpus, prepare, train, decode both branches, stream.
#
#   egs/csj/demo.sh [--work-dir DIR]     DIR (default: .demo in this clone) keeps corpus, features
#                                        and models; run again, it goes on where it was stopped
#
# Synthetic speech of a narrow domain (tools/make_open_corpus.py): its numbers are not CSJ numbers.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/.demo
while [ $# -gt 0 ]; do
  case $1 in
    --work-dir)
      [ $# -ge 2 ] || { echo "demo.sh: --work-dir needs a folder" >&2; exit 2; }
      work=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/d;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "demo.sh: unknown argument '$1'; try --help" >&2; exit 2 ;;
  esac
done
# A stage that ends well in spite of a signal must not let the demo go on.
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$work"
work=$(cd "$work" && pwd)
jobs=$(nproc)

begun=$SECONDS
times=()
stage() { # name command...: runs it and remembers how long it took
  local name=$1 start=$SECONDS
  shift
  echo
  echo "==== $name"
  "$@"
  times+=("$(printf '%-24s %5d s' "$name" $((SECONDS - start)))")
}

decode() { # the attention scales are tuned on valid first
  python "$root/egs/csj/decode.py" --exp-dir "$work/exp" --data-dir "$work/data" \
    --split eval1 eval2 eval3 --branch streaming full --method 1best attention
}

stream() { # words now, and rewritten at the end of the sentence
  local option
  for option in "" --two-pass; do
    python "$root/egs/csj/streaming_decode.py" --exp-dir "$work/exp" --data-dir "$work/data" \
      --split eval1 eval2 eval3 --chunk-ms 320 --num-streams 8 $option
  done
}

stage "set-up" bash "$root/tools/setup.sh"
source "$root/tools/env.sh"
export DUALASR_QUIET=1
stage "open corpus" python "$root/tools/make_open_corpus.py" \
  --out "$work/corpus" --preset demo --seed 1 --jobs "$jobs"
stage "prepare" bash "$root/egs/csj/prepare.sh" \
  --csj-dir "$work/corpus" --data-dir "$work/data" --open --max-length 4 --jobs "$jobs"
stage "train" python "$root/egs/csj/train.py" --config "$root/egs/csj/conf/demo.toml" \
  --data-dir "$work/data" --exp-dir "$work/exp" --processes 2
stage "decode" decode
stage "streaming decode" stream

echo
echo "==== results (synthetic speech, not CSJ)"
python "$root/tools/show_results.py" "$work/exp"
echo
printf '%s\n' "${times[@]}"
printf '%-24s %5d s\n' "all" $((SECONDS - begun))
