#!/usr/bin/env bash
# From a fresh clone to text: set-up, open corpus, prepare, train, decode both branches, stream.
#
#   egs/csj/demo.sh --pretrained         the model that comes with the package on a small corpus: no training, 8 minutes at most
#   egs/csj/demo.sh                      the whole: a corpus to train on, and a model of your own
#
# --work-dir DIR (default: .demo in this clone; with --pretrained .demo/pretrained) keeps corpus, features and models; run again, it goes on
# where it was stopped.
#
# Synthetic speech of a narrow domain (tools/make_open_corpus.py): its numbers are not CSJ numbers.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work='' preset=demo
while [ $# -gt 0 ]; do
  case $1 in
    --work-dir)
      [ $# -ge 2 ] || { echo "demo.sh: --work-dir needs a folder" >&2; exit 2; }
      work=$2; shift 2 ;;
    --pretrained) preset=quick; shift ;;
    -h | --help) sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/d;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "demo.sh: unknown argument '$1'; try --help" >&2; exit 2 ;;
  esac
done
# A stage that ends well in spite of a signal must not let the demo go on.
trap 'exit 130' INT
trap 'exit 143' TERM
[ -n "$work" ] || { work=$root/.demo; [ $preset = demo ] || work+=/pretrained; }
mkdir -p "$work"
work=$(cd "$work" && pwd)
jobs=$(nproc)
if [ $preset = demo ]; then # scales are tuned on valid first, and confidence is calibrated on it; a bundle has both
  model=(--exp-dir "$work/exp") splits=(valid eval1 eval2 eval3)
else
  model=(--bundle "$root/dualasr_lib/recognition/default.dualasr" --out-dir "$work/exp") splits=(eval1 eval2 eval3)
fi

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

decode() {
  python "$root/egs/csj/decode.py" "${model[@]}" --data-dir "$work/data" \
    --split "${splits[@]}" --branch streaming full --method 1best attention
}

stream() { # words now, and rewritten at the end of the sentence
  local option
  for option in "" --two-pass; do
    python "$root/egs/csj/streaming_decode.py" "${model[@]}" --data-dir "$work/data" \
      --split "${splits[@]}" --chunk-ms 320 --num-streams 8 $option
  done
}

stage "set-up" bash "$root/tools/setup.sh"
source "$root/tools/env.sh"
export DUALASR_QUIET=1
stage "open corpus" python "$root/tools/make_open_corpus.py" \
  --out "$work/corpus" --preset $preset --seed 1 --jobs "$jobs"
stage "prepare" bash "$root/egs/csj/prepare.sh" \
  --csj-dir "$work/corpus" --data-dir "$work/data" --open --max-length 4 --jobs "$jobs"
if [ $preset = demo ]; then
  stage "train" python "$root/egs/csj/train.py" --config "$root/egs/csj/conf/demo.toml" \
    --data-dir "$work/data" --exp-dir "$work/exp" --processes 2
fi
stage "decode" decode
stage "streaming decode" stream

echo
echo "==== results (synthetic speech, not CSJ)"
python "$root/tools/show_results.py" "$work/exp"
echo
printf '%s\n' "${times[@]}"
printf '%-24s %5d s\n' "all" $((SECONDS - begun))
