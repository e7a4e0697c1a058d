#!/usr/bin/env bash
# From a LibriSpeech tree to features, tokens, n-grams and a report.
#
#   egs/librispeech/prepare.sh --corpus-dir DIR --data-dir DATA [--parts mini|100|960]
#                              [--lm-dir DIR] [--noise-dir DIR] [--vocab-size 500] ...   (--help: all)
#
# It may be killed at any time and started again: finished stages (DATA/done) are skipped.
set -euo pipefail

exec bash "$(dirname "${BASH_SOURCE[0]}")/../prepare_corpus.sh" librispeech "$@"
