"""What a decoding run is asked for: each option that would be ignored or cannot be is refused,
before anything is loaded.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from dualasr_lib.recognition.decode_config import DecodeConfig, parse_scales

STREAMS: dict[str, Any] = {"streams": True}


def made(**options: Any) -> DecodeConfig:
    return DecodeConfig(exp_dir=Path("exp"), data_dir=Path("data"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ()}, "at least one search method"),
        ({"methods": ("best",)}, "no search method 'best'; did you mean 'nbest'"),
        ({"methods": ("attention",), **STREAMS}, "attention needs whole utterances"),
        ({"methods": ("greedy", "nbest"), "beam": ("num_texts=3",)}, "method greedy: .*num_texts"),
        ({"methods": ("hlg",), "beam": ("lm_scale=1",)}, "one of the scales, give --scales lm="),
        ({"beam": ("output_beam=0",)}, "`output_beam` must be positive"),
        ({"beam": ("output_beam=4",), **STREAMS}, "method 1best: .*output_beam"),
        ({"scales": {"lm": 1.0}}, "--scales is for methods that weigh scores .* method is 1best"),
        ({"methods": ("hlg",), "scales": {"attention": 1.0}}, "given for lm, which method hlg"),
        ({"methods": ("attention",), "scales": {"lm": 1.0}}, "given for attention, which"),
        ({"methods": ("attention",), "lm": Path("x"), "scales": {"attention": 1.0}}, "lm, attent"),
        ({"lm": Path("x.arpa")}, "--lm is for methods"),
        ({"lexicon": Path("x.txt")}, "--lexicon is for methods"),
        ({"second_beam": ("num_texts=3",), **STREAMS}, "--second-beam is for --two-pass"),
        ({"second_scales": {"attention": 1.0}, **STREAMS}, "--second-scales is for --two-pass"),
        ({"two_pass": True, "second_beam": ("num_text=3",), **STREAMS}, "attention: .*num_texts"),
        ({"two_pass": True, "second_scales": {"lm": 1.0}, **STREAMS}, "given for attention, which"),
        ({"avg": -1}, "--avg must be at least 0, but is -1"),
        ({"epoch": 0}, "--epoch must be at least 1"),
        ({"chunk_ms": 0}, "--chunk-ms must be at least 1"),
        ({"left_ms": -5}, "--left-ms must be at least 1"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        made(**options)
    assert re.search(message, str(refusal.value)), refusal.value


def test_who_gets_a_language_model() -> None:
    """One that needs it; one that may have it, where a file is named; no other."""
    config = made(methods=("attention",))
    from dualasr_lib.recognition.methods.registry import METHODS

    assert {name for name, m in METHODS.items() if config.uses_lm(m)} == {
        "hlg",
        "nbest-lm",
        "lattice-lm",
    }
    assert made(methods=("attention",), lm=Path("x")).uses_lm(METHODS["attention"])
    assert made(two_pass=True, lm=Path("x"), **STREAMS).uses_lm(METHODS["attention"])
    assert not made(two_pass=True, lm=Path("x"), **STREAMS).uses_lm(METHODS["1best"])


def test_the_second_pass_has_defaults_of_its_own() -> None:
    config = made(two_pass=True, second_beam=("num_paths=20",), **STREAMS)
    options = config.second.whole_options(config.second_options)
    assert (options.text_beam, options.num_paths) == (3.0, 20)
    config = made(two_pass=True, second_beam=("text_beam=5",), **STREAMS)
    assert config.second.whole_options(config.second_options).text_beam == 5.0


def test_parse_scales() -> None:
    assert parse_scales(None) is None
    assert parse_scales(["lm=0.3", "attention=2"]) == {"lm": 0.3, "attention": 2.0}
    assert parse_scales(["attention=0"]) == {"attention": 0.0}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ml=0.3", "no scale 'ml'; there are attention, ctc, lm, transducer"),
        ("lm=much", "scale lm must be a number, but is 'much'"),
        ("lm=true", "scale lm must be a number, but is True"),
        ("lm=-1", "not negative, but is -1"),
        ("lm=NaN", "finite and not negative, but is nan"),
        ("lm=Infinity", "finite"),
        ("lm", "key=value"),
    ],
)
def test_refused_scales(option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_scales([option])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "by --exp-dir .* or by --bundle, but neither is given"),
        ({"exp_dir": Path("e"), "data_dir": Path("d"), "bundle": Path("b")}, "but both are given"),
        ({"exp_dir": Path("e")}, "--exp-dir needs --data-dir"),
        ({"bundle": Path("b"), "epoch": 3}, "a bundle has one set of weights"),
        ({"bundle": Path("b"), "avg": 3}, "a bundle has one set of weights"),
    ],
)
def test_one_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodeConfig(**options)


def test_where_results_go() -> None:
    out, bundle = Path("out"), DecodeConfig(bundle=Path("b"))
    assert made().results_dir == Path("exp")
    assert made(out_dir=out).results_dir == out
    with pytest.raises(ValueError, match="--bundle needs --out-dir"):
        _ = bundle.results_dir
    assert DecodeConfig(bundle=Path("b"), out_dir=out).results_dir == out
