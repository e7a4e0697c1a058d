#!/usr/bin/env bash
# From a TED-LIUM 3 tree to features, tokens, n-grams and a report.
#
#   egs/tedlium3/prepare.sh --corpus-dir DIR --data-dir DATA [--noise-dir DIR] ...   (--help: all)
#
# It may be killed at any time and started again: finished stages (DATA/done) are skipped.
set -euo pipefail

exec bash "$(dirname "${BASH_SOURCE[0]}")/../prepare_corpus.sh" tedlium3 "$@"
