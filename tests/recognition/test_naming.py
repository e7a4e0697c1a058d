"""Names of results: nothing that is not default is missing in them."""

from pathlib import Path

import pytest

from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.recognition.methods.registry import find
from dualasr_lib.recognition.naming import (
    ResultName,
    option_parts,
    scale_parts,
    without_model_parts,
)


def test_a_default_run_has_a_plain_name() -> None:
    name = ResultName("full", "attention", option_parts(NbestConfig(), NbestConfig()))
    assert name.directory(Path("exp")) == Path("exp/decode/full-attention")
    assert name.scales_file(Path("exp")) == Path("exp/scales/full-attention.json")


def test_what_is_not_default_is_in_the_name() -> None:
    config = NbestConfig(
        num_paths=20, lattice=SearchConfig(output_beam=2.0), path_scales=(0.5, 1.0)
    )
    parts = (*option_parts(config, NbestConfig()), *scale_parts({"lm": 0.5, "attention": 1.0}))
    assert parts == (
        *("lattice.output_beam=2", "num_paths=20", "path_scales=0.5,1"),
        *("attention_scale=1", "lm_scale=0.5"),
    )
    assert ResultName("full", "attention", ("avg3", *parts[1:2])).text == (
        "full-attention-avg3-num_paths=20"
    )


def test_another_engine_is_named_and_what_is_usual_for_it_is_not() -> None:
    one_best = find("1best")
    usual = one_best.stream_options([])

    def parts(*options: str) -> tuple[str, ...]:
        return option_parts(one_best.stream_options(options), usual)

    assert parts() == ()
    assert parts("engine=k2") == ("engine=k2",)
    assert set(parts("engine=k2", "output_beam=4")) == {"engine=k2", "output_beam=4"}


def test_a_name_fits_the_file_system_and_stays_its_own() -> None:
    long = ResultName("full", "attention", tuple(f"option{i}={i}" for i in range(40)))
    other = long._replace(variant=(*long.variant, "one=1"))
    assert len(long.text) <= 200
    assert long.text != other.text
    assert "/" not in ResultName("full", "hlg", ("lm=a/b",)).text


@pytest.mark.parametrize("method", ["attention", "nbest-lm", "hlg-words", "online-1best"])
@pytest.mark.parametrize("variant", ["", "-chunk160-left640", "-num_texts=4-lm=a-epoch3.0f"])
@pytest.mark.parametrize("model", ["", "-epoch3", "-avg10", "-epoch12-avg2-step2040"])
def test_checkpoint_and_average_are_left_out(method: str, model: str, variant: str) -> None:
    name = without_model_parts(f"full-{method}{model}{variant}")
    assert (name.branch, name.method) == ("full", method)
    assert name.text == f"full-{method}{variant}"


@pytest.mark.parametrize("text", ["", "full", "latency", "both-1best"])
def test_what_is_no_name_of_results(text: str) -> None:
    with pytest.raises(ValueError, match="must be a name of results"):
        without_model_parts(text)
