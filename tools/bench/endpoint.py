"""What a user waits for the final text of a sentence once its end is known: plain second passes,
and second passes that begin while the endpoint is still being waited for.

A live stream of one sentence and the silence behind it, heard by the real frame loop. The first
pass is made up (it costs nothing and says what made-up posteriors say); hidden states, full-context
stacks, n-best list and attention scores are computed. A sentence may end anywhere in a chunk, and
where it does decides whether the second pass could begin early, so every place is tried.

S' encoder frames of a chunk, C channels, V vocabulary.
"""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bench.joint import build_joint
from bench.posteriors import log_probs
from bench.report import Row
from bench.timing import median
from bench.workloads import Setting, features_of, model_values
from dualasr_lib.configuration import ExperimentConfig
from dualasr_lib.core.config import from_dict
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.contract import ModelStep, SecondPass
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import Final, LiveConfig, live_config
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.live import Listener, Rules
from dualasr_lib.decoding.offline import Heard, Searched
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.rescoring import Scales, rescored
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.model.inference import prepare_for_inference
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.recognition.methods.attention import METHOD as ATTENTION
from dualasr_lib.recognition.methods.lists import from_lattice, propose_mix
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.training.fit_config import FitConfig

__all__ = ["endpoint_rows"]

_BUDGET = 0.150
_CHUNK = 8  # encoder frames of 320 ms
_FRAME = 640  # samples
_SILENCE = 40  # frames behind the sentence


class _State(NamedTuple):
    step: Tensor  # (N,) steps that a stream has taken


class _MadeUp:
    """A streaming model that has computed everything before: a `StreamingModel`."""

    sample_rate, frame_shift_samples, lookahead_samples = 16000, 160, 0
    chunk_frames, chunk_samples = _CHUNK, _CHUNK * _FRAME

    def __init__(self, said: Tensor, hidden: Tensor) -> None:
        self._said, self._hidden = said, hidden  # (S, V), (S, C)

    def init_state(self, batch: int) -> _State:
        return _State(torch.zeros(batch, dtype=torch.int64))

    def num_feature_frames(self, num_samples: int) -> int:
        return num_samples // self.frame_shift_samples

    def num_output_frames(self, num_samples: int) -> int:
        return num_samples // _FRAME

    def step(self, window: Tensor, frames_left: Tensor, state: _State) -> ModelStep:
        starts = (state.step * _CHUNK).tolist()
        said, hidden = (
            torch.stack([rows[start : start + _CHUNK] for start in starts])
            for rows in (self._said, self._hidden)
        )
        return ModelStep({"ctc": said}, _State(state.step + 1), hidden)


class _Waited(NamedTuple):
    """One sentence."""

    seconds: float
    """CPU time from the endpoint to the final text."""
    before: float
    """CPU time of second passes until the endpoint."""
    left_out: tuple[str, ...]


def endpoint_rows(setting: Setting, rounds: int) -> Iterator[Row]:
    """A sentence of 10 s, before and after, in turns; of all places in a chunk where it may end."""
    model, hidden = _hidden(setting)
    frames = len(hidden) - _SILENCE - _CHUNK
    kinds = {
        "plain": LiveConfig(),
        "begun early": live_config(EndpointConfig(), _BUDGET),
    }
    said = log_probs(len(hidden), setting.vocab_size, seed=2)
    found: dict[str, list[list[_Waited]]] = {name: [] for name in kinds}
    second = {name: _second_pass(model, said) for name in kinds}
    for number in range(rounds + 1):
        for name, config in kinds.items():
            ends = [
                _wait(said, hidden, frames + more, config, second[name]) for more in range(_CHUNK)
            ]
            if number:  # the first one warms up, and shows how long parts take
                found[name].append(ends)
    case = f"{setting.config.stem}, {setting.seconds:g} s sentence, from its endpoint"
    for name, all_rounds in found.items():
        at_most = None if name == "plain" else 1000 * _BUDGET
        worst = median([max(each.seconds for each in ends) for ends in all_rounds])
        mean = median([sum(each.seconds for each in ends) / len(ends) for ends in all_rounds])
        yield Row(case, f"{name}, mean over ends", 1000 * mean, "ms")
        yield Row(case, f"{name}, worst end", 1000 * worst, "ms", at_most=at_most)
    early = [each for ends in found["begun early"] for each in ends]
    yield Row(case, "begun before the endpoint", _share([_was_ready(e) for e in early]), "%")
    for part in sorted({part for each in early for part in each.left_out}):
        yield Row(case, f"left out: {part}", _share([part in each.left_out for each in early]), "%")
    work = {name: [e.before + e.seconds for ends in found[name] for e in ends] for name in kinds}
    ratio = sum(work["begun early"]) / sum(work["plain"])
    yield Row(case, "work of second passes, begun early / plain", ratio)


def _was_ready(waited: _Waited) -> bool:
    return waited.seconds < 1e-2 and "stacks" not in waited.left_out


def _share(yes: list[bool]) -> float:
    return 100.0 * sum(yes) / len(yes)


def _hidden(setting: Setting) -> tuple[TrainedModel, Tensor]:
    """A model of random weights, and its streaming hidden states (S, C) of a sentence, the silence
    behind it and a chunk more.
    """
    joint = build_joint(setting)[0].eval()
    prepare_for_inference(joint)
    sizes = from_dict(ModelConfig, model_values(setting)["model"], "model.")
    config = ExperimentConfig(
        model=sizes,
        features=FbankConfig(num_mel_bins=sizes.num_features),
        training=FitConfig(num_epochs=1),
    )
    model = TrainedModel(config, joint, Tokenizer.train(["あ"]), torch.device("cpu"), "random")
    features, lens = features_of(setting)
    with torch.inference_mode():
        encoded = joint.encode(features, lens, setting.spec, ("streaming",))["streaming"]
    sentence = encoded.h[0].clone()
    return model, torch.cat([sentence, sentence[: _SILENCE + _CHUNK]])


def _second_pass(model: TrainedModel, said: Tensor) -> SecondPass:
    """The usual one, but that its lattice is that of made-up posteriors."""
    propose = propose_mix(
        {"nbest": from_lattice(ATTENTION.whole_options(ATTENTION.second_pass or ()))},
        ("ctc", "attention"),
    )
    search = rescored(propose, Scales(attention=1.0))

    def made_up(heard: Heard) -> Searched:
        return search(heard._replace(frames={"ctc": said[None, : int(heard.lens)]}))

    return model.second_pass(made_up)


def _speech(said: Tensor, frames: int) -> Tensor:
    """The same without breaths: a token at every eighth frame at least, up to the last of `frames`;
    then silence.
    """
    heard, quiet = said.clone(), 0
    heard[frames:] = -30.0
    heard[frames:, 0] = 0.0
    for frame, best in enumerate(said[:frames].argmax(dim=1).tolist()):
        quiet = 0 if best else quiet + 1
        if quiet == _CHUNK or frame == frames - 1:
            heard[frame], quiet = heard[frame].roll(1), 0
    return heard


def _wait(
    said: Tensor, hidden: Tensor, frames: int, config: LiveConfig, second_pass: SecondPass
) -> _Waited:
    """A stream whose sentence ends at `frames`, chunk by chunk up to its final text."""
    rules = Rules(
        _MadeUp(_speech(said, frames), hidden), OneHead(OnlineGreedy()), str, config, second_pass
    )
    listener, times = Listener(rules), [time.process_time()]
    for _ in range(0, len(said), _CHUNK):
        events = listener.feed(torch.zeros(_CHUNK * _FRAME))
        times.append(time.process_time())
        finals = [event for event in events if isinstance(event, Final)]
        if finals:
            steps = [after - begun for begun, after in pairwise(times)]
            return _Waited(steps[-1], sum(steps[:-1]), finals[0].left_out)
    raise AssertionError("the silence behind the sentence is no endpoint")
