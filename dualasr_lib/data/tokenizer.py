"""Text <-> token ids by sentencepiece: characters by default, unigram or BPE pieces by option.

Japanese has no spaces: nothing is split at spaces, no dummy prefix is added. For a language with
spaces words are told apart: each begins with `▁`, and no piece reaches over two words. No
normalisation is applied. Ids 0, 1, 2 are `<blk>`, `<sos/eos>`, `<unk>`. A lang folder holds
`sentencepiece.model` and `tokens.txt` ("token id" lines, in the order of the ids). Training is
deterministic and leaves no paths in the model, so the same text gives the same bytes everywhere.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from dualasr_lib.core.files import AnyPath, write_atomically
from dualasr_lib.data.pieces import PieceType

__all__ = [
    "BLANK",
    "MODEL_FILE",
    "SOS_EOS",
    "TOKENS_FILE",
    "UNK",
    "Tokenizer",
    "tokens_fingerprint",
]

BLANK, SOS_EOS, UNK = "<blk>", "<sos/eos>", "<unk>"
MODEL_FILE, TOKENS_FILE = "sentencepiece.model", "tokens.txt"
_SPECIAL = (BLANK, SOS_EOS, UNK)
_META_SPACE = "▁"  # sentencepiece's sign for a space
_UNKNOWN_TEXT = "⁇"


def tokens_fingerprint(tokens: str) -> str:
    """Of a list of tokens alone, as `tokens.txt` has it."""
    return hashlib.sha256(tokens.encode()).hexdigest()


class Tokenizer:
    """A trained sentencepiece model with its fixed special tokens.

    Attributes:
        model: sentencepiece's own.
        vocab_size: number of ids, special tokens included.
        blank_id, sos_eos_id, unk_id: 0, 1, 2.
        fingerprint: sha256 of the model and `tokens.txt`; saved in checkpoints.
    """

    blank_id, sos_eos_id, unk_id = range(3)

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size: int = self._pieces.get_piece_size()
        self.tokens: tuple[str, ...] = tuple(
            self._pieces.id_to_piece(i) for i in range(self.vocab_size)
        )
        if self.tokens[:3] != _SPECIAL:
            raise ValueError(f"the first tokens must be {_SPECIAL}, are {self.tokens[:3]}")
        self._prefixed = bool(self._pieces.encode("a", out_type=str)[0].startswith(_META_SPACE))
        table = self.tokens_txt().encode()
        self.fingerprint: str = hashlib.sha256(model + table).hexdigest()

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        kind: PieceType = "char",
        vocab_size: int = 500,
        spaces: bool = False,
    ) -> "Tokenizer":
        """Trains on `texts` (one utterance each); `vocab_size` counts for unigram and bpe only.

        Args:
            spaces: the language parts its words by spaces.

        Raises:
            ValueError: no text, or not enough text for `vocab_size` pieces.
        """
        lines = [text for text in texts if text]
        if not lines:
            raise ValueError("a tokenizer needs training text, got none")
        model = io.BytesIO()
        size = vocab_size
        if kind == "char":
            size = len({*"".join(lines), *(" " if spaces else "")}) + len(_SPECIAL)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=kind,
                vocab_size=size,
                **_TRAINING | (_WITH_SPACES if spaces else {}),
            )
        except RuntimeError as error:
            raise ValueError(f"sentencepiece ({kind}, {size} pieces): {error}") from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, lang_dir: AnyPath) -> "Tokenizer":
        """Reads a lang folder.

        Raises:
            ValueError: a file is missing, or `tokens.txt` does not list the model's pieces.
        """
        files = [Path(lang_dir) / name for name in (MODEL_FILE, TOKENS_FILE)]
        for file in files:
            if not file.is_file():
                raise ValueError(f"'{file}' is missing; prepare.sh stage 5 writes it")
        tokenizer = cls(files[0].read_bytes())
        if files[1].read_text(encoding="utf-8") != tokenizer.tokens_txt():
            raise ValueError(f"'{files[1]}' must list the pieces of '{files[0]}', but differs")
        return tokenizer

    def save(self, lang_dir: AnyPath) -> None:
        """Writes the lang folder's two files."""
        lang_dir = Path(lang_dir)
        write_atomically(lang_dir / MODEL_FILE, self.model)
        write_atomically(lang_dir / TOKENS_FILE, self.tokens_txt().encode())

    def tokens_txt(self) -> str:
        """Content of `tokens.txt`: one "token id" per line."""
        return "".join(f"{token} {i}\n" for i, token in enumerate(self.tokens))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; a run of unknown characters becomes one `<unk>`."""
        return list(self._pieces.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; `<blk>` and `<sos/eos>` give nothing, `<unk>` gives one `⁇`."""
        words = {self.blank_id: "", self.sos_eos_id: "", self.unk_id: _UNKNOWN_TEXT}
        text = "".join(words.get(i, self.tokens[i]) for i in ids).replace(_META_SPACE, " ")
        return text.removeprefix(" ") if self._prefixed else text

    def __getstate__(self) -> bytes:
        return self.model

    def __setstate__(self, model: bytes) -> None:
        self.__init__(model)  # type: ignore[misc]


_TRAINING: dict[str, Any] = {
    "character_coverage": 1.0,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "split_by_whitespace": False,
    "split_by_unicode_script": False,  # pieces may mix kana and kanji
    "split_by_number": False,
    "max_sentence_length": 1 << 20,  # bytes; sentencepiece skips longer lines silently
    "input_sentence_size": 0,  # all text, no sampling
    "shuffle_input_sentence": False,
    "num_threads": 1,  # sums in a fixed order
    "pad_id": 0,
    "pad_piece": BLANK,
    "bos_id": 1,
    "bos_piece": SOS_EOS,
    "unk_id": 2,
    "unk_piece": UNK,
    "eos_id": -1,
    "minloglevel": 2,
}
_WITH_SPACES: dict[str, Any] = {
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": True,
    "split_by_whitespace": True,
}
