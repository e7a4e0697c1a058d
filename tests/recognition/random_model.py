"""A tiny model of random weights, and what training and preparation would have left of it."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.core.checkpoint import Checkpoint, file_name, save
from dualasr_lib.core.config import to_dict
from dualasr_lib.data.folder import DataFolder, SplitInfo, TokensInfo
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.training.fit_config import FitConfig

__all__ = ["BIGRAM", "LEXICON", "UNIGRAM", "WORDS", "Home", "trained_model", "write_home"]

_ONES = "\n".join(f"-0.9\t{token}\t-0.3" for token in "あいうえおかきくけこ")
UNIGRAM = f"\\data\\\nngram 1=12\n\n\\1-grams:\n-99\t<s>\n-1.0\t</s>\n{_ONES}\n\n\\end\\\n"
BIGRAM = UNIGRAM.replace("ngram 1=12\n", "ngram 1=12\nngram 2=2\n").replace(
    "\\end", "\\2-grams:\n-0.1\tあ い\n-0.2\tか き\n\n\\end"
)
LEXICON = "あい あ い\nか か\nき き\n"
WORDS = (
    "\\data\\\nngram 1=5\n\n\\1-grams:\n-99\t<s>\n-1.0\t</s>\n-0.5\tあい\n-0.6\tか\n-0.7\tき\n\n"
    "\\end\\\n"
)


class Home(NamedTuple):
    """Where a model lives."""

    exp: Path
    data: Path


def trained_model(
    future: tuple[int, ...] = (0, 0, 0, 0), shared: tuple[str, ...] = (), **options: Any
) -> TrainedModel:
    """Random weights; `options` are fields of `ModelConfig`."""
    torch.manual_seed(5)
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)
    layer = LayerConfig(dim=16, feedforward=16, kernel=7, attention=attention)
    slow = StackConfig(layers=1, downsampling=4, layer=layer)
    decoder = DecoderConfig(layers=1, dim=16, heads=2, feedforward=16)
    model = ModelConfig(
        subsampling=SubsamplingConfig(channels=(2, 3, 4), future=future),
        streaming=(StackConfig(layers=1, layer=layer), slow),
        full=(StackConfig(layers=1, layer=layer),),
        heads=HeadsConfig(attention=decoder, shared=shared),
        **options,
    )
    config = ExperimentConfig(model=model, training=FitConfig(num_epochs=1))
    tokenizer = Tokenizer.train(["あいうえお", "かきくけこ"])
    joint = build_model(config, tokenizer).eval()
    with torch.no_grad():
        for parameter in joint.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
    return TrainedModel(config, joint, tokenizer, torch.device("cpu"), "random")


def write_home(folder: Path, made: TrainedModel) -> Home:
    """EXP with a checkpoint; DATA with tokens, n-grams, a lexicon and data.json."""
    exp, data = folder / "exp", folder / "data"
    lang = data / "lang"
    made.tokenizer.save(lang)
    for name, text in (
        ("G_1gram.arpa", UNIGRAM), ("G_2gram.arpa", BIGRAM), ("words_1gram.arpa", WORDS),
        ("lexicon.txt", LEXICON),
    ):  # fmt: skip
        (lang / name).write_text(text, encoding="utf-8")
    config = to_dict(made.config)
    DataFolder(
        corpus="toy",
        language="ja",
        normaliser="none",
        units=("character",),
        features=config["features"],
        splits=(
            SplitInfo(name="train", use="train", cuts="cuts/train.jsonl.gz"),
            SplitInfo(name="valid", use="valid", cuts="cuts/valid.jsonl.gz"),
        ),
        tokens=TokensInfo(kind="char", vocab_size=made.tokenizer.vocab_size),
    ).write(data)
    exp.mkdir()
    checkpoint = Checkpoint(
        step=1, epoch=1, model=made.model.state_dict(), average={}, average_count=0,
        config=config, training={}, fingerprints={"tokenizer": made.tokenizer.fingerprint},
    )  # fmt: skip
    save(checkpoint, exp / file_name(1, None))
    return Home(exp, data)
