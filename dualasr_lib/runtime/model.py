"""The graphs of a set as what `decoding` wants: a streaming model and a second pass.

A graph's first output holds, one behind the other along the last axis, what each head says of a
frame and the frame's hidden state; the description says how wide each is.

N streams, P new samples of a step, T feature frames of a window, S encoder frames, C channels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from dualasr_lib.core.rates import encoder_frames
from dualasr_lib.core.silence import LOG_MEL_SILENCE
from dualasr_lib.decoding.contract import Frames, ModelStep, SecondPass
from dualasr_lib.decoding.offline import Heard, OfflineSearch
from dualasr_lib.decoding.rewriting import rewriting
from dualasr_lib.features.native import Heard as HeardAudio
from dualasr_lib.features.native import NativeOnline
from dualasr_lib.features.options import FbankConfig

__all__ = ["HIDDEN", "OnnxStreaming", "RuntimeState", "second_pass", "session"]

HIDDEN = "hidden"
"""In place of a head's name: the state that a second pass reads."""

_Array = npt.NDArray[Any]


class RuntimeState(NamedTuple):
    """Everything that streams remember between chunks."""

    features: HeardAudio
    encoder: tuple[_Array, ...]
    """Batch axis first."""


class OnnxStreaming:
    """A `decoding.contract.StreamingModel` of numpy's arrays.

    Args:
        described: the set's description.

    Raises:
        ValueError: a file that onnxruntime cannot open.
    """

    def __init__(self, path: Path, described: Mapping[str, Any], features: FbankConfig) -> None:
        self._session, self._features = session(path), features
        self._online = NativeOnline(features)
        about = described["streaming"]
        self._widths: Mapping[str, int] = about["widths"]
        self._states = [(tuple(shape), np.dtype(kind)) for shape, kind in about["states"]]
        quiet = described["quiet"]
        self._quiet = np.asarray(quiet["frame"], np.float32)
        self._silent = self._quiet + np.float32(quiet["tolerance"])
        self._names = [port.name for port in self._session.get_inputs()]
        self.sample_rate, self.frame_shift_samples = features.sample_rate, features.shift
        self.chunk_frames: int = about["chunk_frames"]
        self.chunk_samples: int = about["chunk_features"] * features.shift
        ahead: int = about["lookahead_features"] * features.shift
        self.lookahead_samples = features.overhang + ahead

    def init_state(self, batch: int) -> RuntimeState:
        """State of streams that have not begun."""
        states = tuple(np.zeros((batch, *shape), kind) for shape, kind in self._states)
        return RuntimeState(self._online.init_state(batch), states)

    def num_feature_frames(self, num_samples: int) -> int:
        """Feature frames (10 ms) of an utterance."""
        return self._features.num_frames(num_samples)

    def num_output_frames(self, num_samples: int) -> int:
        """Encoder frames (40 ms) of an utterance."""
        return encoder_frames(self.num_feature_frames(num_samples))

    def step(self, window: _Array, frames_left: _Array, state: RuntimeState) -> ModelStep:
        """window (N, P + look-ahead), frames_left (N,) -> what heads say of S' frames."""
        x, heard = self._online.step(window, state.features, self.chunk_samples)
        valid = np.arange(x.shape[1]) < frames_left[:, None]
        silent = (x <= self._silent).all(axis=2)  # as `features.quiet.heard_silence`
        x = np.where(silent[:, :, None], self._quiet, x)
        x = np.where(valid[:, :, None], x, np.float32(LOG_MEL_SILENCE))
        said, *after = self._session.run(None, dict(zip(self._names, (x, *state.encoder))))
        frames = _parted(said, self._widths)
        hidden = frames.pop(HIDDEN)
        return ModelStep(frames, RuntimeState(heard, tuple(after)), hidden=hidden)


def second_pass(path: Path, widths: Mapping[str, int], search: OfflineSearch) -> SecondPass:
    """The full branch on a stream's hidden states, then `search`.

    Raises:
        ValueError: a file that onnxruntime cannot open.
    """
    running = session(path)

    def stacks(hidden: _Array) -> Heard:
        lens = np.array([len(hidden)], np.int64)
        said, _ = running.run(None, {"hidden": hidden[None], "lens": lens})
        return Heard(_parted(said, widths), lens)

    return rewriting(stacks, search)


def session(path: Path) -> onnxruntime.InferenceSession:
    """What runs the graph of a file, on one thread.

    Raises:
        ValueError: it cannot be opened.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds have no other name in common
        message = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be opened by onnxruntime: {message[:200]}") from None


def _parted(said: _Array, widths: Mapping[str, int]) -> dict[str, _Array]:
    """What stands side by side, by name."""
    ends = np.cumsum(list(widths.values()))
    frames: Frames = dict(zip(widths, np.split(said, ends[:-1], axis=-1)))
    return dict(frames)
