"""The configurations of egs/csj/conf: each can be loaded and built, and the paper's steps differ
from their base only where their names say so."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

import torch

from dualasr_lib.configuration import ExperimentConfig
from dualasr_lib.core.config import flatten, load, read_toml, to_dict
from dualasr_lib.model.joint import JointModel, Targets, total_loss
from dualasr_lib.model.zipformer.streaming import ChunkSpec

CONF = Path(__file__).parents[2] / "egs/csj/conf"
MATRICES = ("matrix", "decision", "decision_transducer")
BASES = ("demo", "demo_transducer", "shipped", "noisy", "small", "csj")
NO_DECODERS = {
    f"loss.distillation.head_weights.{head}": 0.0 for head in ("attention", "transducer")
}
STEPS: dict[str, dict[str, Any]] = {
    "standalone_streaming": {"model.branches": ["streaming"]},
    "standalone_full": {"model.branches": ["full"]},
    "shared_decoder": {
        "model.heads.shared": ["ctc", "attention", "transducer"],
        "loss.distillation.encoder_weight": 0.0,
        **NO_DECODERS,
    },
    "multi_decoder": {
        "loss.distillation.encoder_weight": 0.0,
        **NO_DECODERS,
    },
    "sp_kd_encoder": NO_DECODERS,
    "sp_kd_decoder": {"loss.distillation.encoder_weight": 0.0},
    "sp_kd": {},
}
"""What each step says."""


def configured(name: str, base: str | None = None) -> ExperimentConfig:
    start = None if base is None else CONF / f"{base}.toml"
    return load(ExperimentConfig, CONF / f"{name}.toml", base=start)


def model_of(config: ExperimentConfig, vocab_size: int = 50) -> JointModel:
    return JointModel(config.model, config.loss.distillation, vocab_size, sos_eos=1)


@pytest.mark.parametrize("recipe", ["librispeech", "tedlium3", "own"])
def test_other_recipes_share_sizes_and_steps(recipe: str) -> None:
    folder = CONF.parents[1] / recipe / "conf"
    own = {"real", "real_matrix"} if recipe == "librispeech" else set()
    files = {path.stem: path for path in folder.glob("*.toml")}
    assert own <= files.keys()
    configs = {name: load(ExperimentConfig, files[name]) for name in files.keys() - own}
    assert configs.keys() >= {"small", "medium"}
    assert (configs["small"], configs["medium"]) == (configured("small"), configured("csj"))
    assert {*configs} - {"small", "medium"} <= STEPS.keys()
    for step in STEPS.keys() & configs.keys():
        assert configs[step] == configured(step), step


def test_there_is_no_other_file() -> None:
    assert {path.stem for path in CONF.glob("*.toml")} == {*BASES, *STEPS, *MATRICES}


@pytest.mark.parametrize("base", BASES)
def test_a_base_is_the_whole_method(base: str) -> None:
    """Steps only take away."""
    config = configured(base)
    assert config.model.branches == ("streaming", "full")
    assert config.model.integration == "cascaded"
    assert config.model.heads.shared == ()
    distillation = config.loss.distillation
    assert distillation.method == "sp_kd" and distillation.direction == "full_to_streaming"
    assert distillation.encoder_weight > 0
    both = set(config.model.heads.of("streaming")) & set(config.model.heads.of("full"))
    assert any(distillation.head_weights.get(head, 0.0) > 0 for head in both)


@pytest.mark.parametrize("base", [None, *BASES])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_changes_only_what_it_must(step: str, base: str | None) -> None:
    before = flatten(to_dict(configured(base or "csj")))
    after = flatten(to_dict(configured(step, base)))
    changed = {key: value for key, value in after.items() if before[key] != value}
    assert before.keys() == after.keys()
    assert changed == {k: value for k, value in STEPS[step].items() if before[k] != value}
    assert flatten(read_toml(CONF / f"{step}.toml", CONF / "demo.toml")).keys() <= before.keys()


@pytest.mark.parametrize("step", STEPS)
def test_a_step_trains_on_the_demo(step: str) -> None:
    config = configured(step, "demo")
    model = model_of(config)
    model.set_step(config.loss.distillation.warm_up)
    targets = Targets(torch.tensor([[3, 4], [5, 6]]), torch.tensor([2, 2]))
    losses = model(
        torch.randn(2, 64, 80), torch.tensor([64, 64]), targets,
        ChunkSpec(frames=16, left=64),
    )  # fmt: skip
    loss = total_loss(losses.parts(config.loss))
    loss.backward()
    assert bool(loss.isfinite())
    assert tuple(losses.heads["ctc"]) == config.model.branches
    wanted, distilled = config.loss.distillation, losses.distilled
    assert (distilled is None) == (len(config.model.branches) == 1)
    if distilled is not None:
        assert (distilled.encoder > 0) == (wanted.encoder_weight > 0)
        assert (distilled.heads["attention"] > 0) == (wanted.head_weights["attention"] > 0)


@pytest.mark.parametrize("base", BASES)
def test_standalone_full_has_the_full_path_of_the_joint_model(base: str) -> None:
    sizes = [
        sum(p.numel() for p in model_of(configured(name, start)).encoders.parameters())
        for name, start in ((base, None), ("standalone_full", base))
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("base", ["small", "csj"])
def test_the_first_full_stack_hears_all_of_h_s(base: str) -> None:
    """A narrower one would see only the first channels."""
    config = configured(base).model
    widest = max(stack.layer.dim for stack in config.streaming)
    assert config.full[0].layer.dim == widest


def test_a_base_in_place_of_the_included_one(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[training]\nmax_steps = 7\n")
    config = load(ExperimentConfig, CONF / "multi_decoder.toml", base=tmp_path / "base.toml")
    assert config.training.max_steps == 7
    with pytest.raises(ValueError, match="cannot read config file"):
        load(ExperimentConfig, CONF / "multi_decoder.toml", base=tmp_path / "none.toml")


def test_real_speech_is_the_noisy_task_s_model_with_ctc_alone() -> None:
    config = load(ExperimentConfig, CONF.parents[1] / "librispeech/conf/real.toml")
    noisy = configured("noisy")
    assert config.model.streaming == noisy.model.streaming and config.model.full == noisy.model.full
    assert config.model.heads.of("streaming") == config.model.heads.of("full") == ("ctc",)
    assert config.loss.distillation.encoder_weight > 0
