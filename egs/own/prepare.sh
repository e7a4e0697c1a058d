#!/usr/bin/env bash
# From anybody's recordings and transcripts to features, tokens, n-grams and a report.
#
#   egs/own/prepare.sh --cuts CUTS.jsonl.gz | --kaldi-dir DIR | --audio-dir DIR --text FILE
#                      --data-dir DATA [--dry-run] [--language ja --normaliser japanese] ...   (--help: all)
#
# It may be killed at any time and started again: finished stages (DATA/done) are skipped.
set -euo pipefail

exec bash "$(dirname "${BASH_SOURCE[0]}")/../prepare_corpus.sh" own "$@"
