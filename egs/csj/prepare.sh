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

exec bash "$(dirname "${BASH_SOURCE[0]}")/../prepare_corpus.sh" csj "$@"
