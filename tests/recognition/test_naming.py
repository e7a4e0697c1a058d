"""Names of results: nothing that is not default is missing in them."""

from pathlib import Path

from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.recognition.naming import ResultName, option_parts, scale_parts


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


def test_a_name_fits_the_file_system_and_stays_its_own() -> None:
    long = ResultName("full", "attention", tuple(f"option{i}={i}" for i in range(40)))
    other = long._replace(variant=(*long.variant, "one=1"))
    assert len(long.text) <= 200
    assert long.text != other.text
    assert "/" not in ResultName("full", "hlg", ("lm=a/b",)).text
