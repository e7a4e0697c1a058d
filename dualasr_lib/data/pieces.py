"""Kinds of tokens; they stand apart, so that options are read without sentencepiece."""

from typing import Literal

__all__ = ["PieceType"]

PieceType = Literal["char", "unigram", "bpe"]
