"""A trained model, ready to recognise: whole utterances in batches, or running audio by
chunks.

    TrainedModel.hear           batch of features -> what the heads of one branch say, and score
    TrainedModel.streaming      windows of samples -> what the heads of the streaming branch say,
                                chunk by chunk (online features, encoder, heads)
    TrainedModel.second_pass    a stream's hidden states -> the text of the full branch

Letters: N batch or streams, S encoder frames (25 Hz), V vocabulary, P new samples of a chunk.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.core.config import from_dict
from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.core.rates import ENCODER_STRIDE, FRONT_END_STRIDE, encoder_frames
from dualasr_lib.core.weights import load_weights
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.contract import ModelStep, SecondPass
from dualasr_lib.decoding.offline import Heard, OfflineSearch, ScoreTexts
from dualasr_lib.decoding.rewriting import rewriting
from dualasr_lib.features.online import FbankState, OnlineFbank
from dualasr_lib.features.quiet import heard_silence, quiet_frame
from dualasr_lib.metrics.latency import algorithmic_latency_ms
from dualasr_lib.model.encoder import Encoded, EncoderState
from dualasr_lib.model.heads.contract import Head
from dualasr_lib.model.inference import prepare_for_inference, prepare_for_steps
from dualasr_lib.model.joint import Branch, JointModel, NbestTexts
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.bundle import Bundle
from dualasr_lib.recognition.older import current_config, current_weights

__all__ = [
    "PathState",
    "StreamingPath",
    "TrainedModel",
    "weights_fingerprint",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """Model, tokenizer and configuration of a checkpoint, of an average of some, or of a bundle."""

    config: ExperimentConfig
    model: JointModel
    tokenizer: Tokenizer
    device: torch.device
    source: str
    """Which weights these are, for reports."""
    average: str = ""
    """Of a mean of weights, for the name of results: `avg10`, or `avg10-step2040` of mid-epoch."""

    @staticmethod
    def from_checkpoint(
        exp_dir: Path, data_dir: Path, device: torch.device, epoch: int | None = None, avg: int = 0
    ) -> "TrainedModel":
        """Reads checkpoint `epoch` (None: the newest), or the mean over its last `avg` epochs and
        what came after them (`core.weights.load_weights`).

        Raises:
            ValueError: no such checkpoint, a damaged one, or one trained with other tokens than
                those of `data_dir`.
        """
        weights = load_weights(exp_dir, epoch, avg)
        if avg:
            _LOG.info("weights: %s", weights.source)
        config = from_dict(ExperimentConfig, current_config(weights.config))
        tokenizer = Tokenizer.load(data_dir / "lang")
        trained_with = weights.fingerprints.get("tokenizer")
        if trained_with != tokenizer.fingerprint:
            raise ValueError(
                f"{exp_dir} was trained with other tokens than those in {data_dir / 'lang'}: "
                f"hash {str(trained_with)[:12]} against {tokenizer.fingerprint[:12]}"
            )
        model = _loaded(config, tokenizer, current_weights(weights.state_dict), device)
        return TrainedModel(config, model, tokenizer, device, weights.source, weights.label)

    @staticmethod
    def from_bundle(bundle: Bundle, device: torch.device) -> "TrainedModel":
        """What a file holds; its weights become float32, however it keeps them.

        Raises:
            ValueError: its parts do not fit each other, or not this version of the program.
        """
        try:
            config = from_dict(ExperimentConfig, bundle.config)
            tokenizer = Tokenizer(bundle.tokenizer)
            if tokenizer.tokens_txt() != bundle.tokens:
                raise ValueError("its tokens are not those of its sentencepiece model")
            model = _loaded(config, tokenizer, bundle.weights, device)
        except RuntimeError as error:  # of sentencepiece, or weights of other shapes
            if is_memory_error(error):
                raise
            raise ValueError(str(error)) from None
        return TrainedModel(config, model, tokenizer, device, bundle.source)

    def detokenise(self, tokens: Sequence[int]) -> str:
        """Text of token ids."""
        return self.tokenizer.decode(list(tokens))

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights: a checkpoint may be trained anew under the same name."""
        return weights_fingerprint(self.model)

    @cached_property
    def quiet(self) -> Tensor:
        """(F,) what is heard where there is digital silence."""
        return quiet_frame(self.config.features).to(self.device)

    def hear(self, batch: Batch, branch: Branch, chunk: ChunkSpec) -> Heard:
        """What the heads of one branch say, and how they score texts.

        Raises:
            ValueError: the checkpoint has no such branch.
        """
        features, lens = batch.features.to(self.device), batch.feature_lens.to(self.device)
        features = heard_silence(features, lens, self.quiet)
        with _inference():
            encoded = self.model.encode(features, lens, chunk, (branch,))[branch]
        return self._heard(encoded, branch, batch.texts)

    def tables(self, head: str, branch: Branch) -> Mapping[str, Tensor]:
        """The weights that searches need of a head beside its frames.

        Raises:
            ValueError: no such branch or head, or a head whose frames say everything.
        """
        with _inference():
            found = self.model.head(head, branch).tables()
        if found is None:
            raise ValueError(f"a head {head} gives searches its frames only, and no weights")
        return _plain(found)

    def second_pass(self, search: OfflineSearch) -> SecondPass:
        """Full-context stacks on a stream's hidden states, then `search` on the full branch.

        Raises:
            ValueError: the model is not a cascaded one of both branches.
        """
        self.model.encoders.check_second_pass()

        def stacks(hidden: Tensor) -> Heard:
            lens = torch.tensor([len(hidden)], device=self.device)
            with _inference():
                encoded = self.model.encoders.second_pass(Encoded(hidden[None], lens))
            return self._heard(encoded, "full", ())

        return rewriting(stacks, search)

    def _heard(self, encoded: Encoded, branch: Branch, texts: Sequence[str]) -> Heard:
        def scorer(head: Head) -> ScoreTexts:
            def score(lists: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
                flat = [text for texts in lists for text in texts]
                owners = [owner for owner, texts in enumerate(lists) for _ in texts]
                with _inference():
                    scores = head.score(encoded, NbestTexts.padded(flat, owners)).tolist()
                ends = list(accumulate(map(len, lists)))
                return [scores[end - len(texts) : end] for end, texts in zip(ends, lists)]

            return score

        with _inference():
            frames = self.model.frames(encoded.h, branch)
        scorers = {name: scorer(head) for name, head in self.model.heads_of(branch).items()}
        return Heard(_plain(frames), encoded.lens.cpu().clone(), scorers, texts)

    def streaming(self, chunk: ChunkSpec) -> "StreamingPath":
        """The path from running audio to what the heads of the streaming branch say. The streaming
        encoder is fast at chunks from then on, and slower at whole utterances.

        Raises:
            ValueError: the checkpoint has no streaming branch, or its stacks cannot run in such
                chunks.
        """
        return StreamingPath(self, chunk)

    def chunk(self, chunk_ms: int | None = None, left_ms: int | None = None) -> ChunkSpec:
        """A chunk in milliseconds; None: what the configuration says.

        Raises:
            ValueError: a chunk that cannot be.
        """
        default = self.config.chunk
        return ChunkSpec.from_ms(
            default.ms if chunk_ms is None else chunk_ms,
            default.left_ms if left_ms is None else left_ms,
        )

    def describe(self, branch: Branch, chunk: ChunkSpec) -> dict[str, Any]:
        """For reports: which weights; the chunk if the branch depends on one; its latency if it
        streams.
        """
        described: dict[str, Any] = {"model": self.source, "weights": self.fingerprint}
        if branch in self.model.encoders.chunked:
            described |= {"chunk_ms": chunk.ms, "left_frames": chunk.left}
        if branch == "streaming":
            described["algorithmic_ms"] = algorithmic_latency_ms(
                self.chunk_samples(chunk), self.lookahead_samples, self.config.features.sample_rate
            )
        return described

    def chunk_samples(self, chunk: ChunkSpec) -> int:
        """New samples of a streaming step."""
        return FRONT_END_STRIDE * chunk.frames * self.config.features.shift

    @property
    def lookahead_samples(self) -> int:
        """Samples that a step hears beyond its chunk: by the features, and by the front end."""
        features = self.config.features
        ahead = self.model.streaming.lookahead * features.shift
        return OnlineFbank(features).lookahead_samples + ahead


def _loaded(
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    weights: Mapping[str, Tensor],
    device: torch.device,
) -> JointModel:
    """The model with these weights, ready for recognition."""
    model = build_model(config, tokenizer)
    model.load_state_dict(weights)
    model = model.to(device).eval()
    prepare_for_inference(model)
    return model


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all weights, whatever their layout in memory."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class PathState(NamedTuple):
    """Everything a stream remembers between chunks."""

    features: FbankState
    encoder: EncoderState


class StreamingPath:
    """Satisfies `decoding.streaming.StreamingModel`: see there for the windows it is given."""

    def __init__(self, trained: TrainedModel, chunk: ChunkSpec) -> None:
        self._model, self._device = trained.model, trained.device
        self._encoder = trained.model.streaming
        self._fbank = OnlineFbank(trained.config.features)
        self._features, self._chunk = trained.config.features, chunk
        self._quiet = trained.quiet
        prepare_for_steps(self._encoder)
        with _inference():
            self._prepared = self._encoder.prepare(chunk, trained.device)
        self.sample_rate = self._features.sample_rate
        self.frame_shift_samples = self._features.shift
        self.chunk_frames = chunk.frames // ENCODER_STRIDE
        self.chunk_samples = trained.chunk_samples(chunk)
        self.lookahead_samples = trained.lookahead_samples

    def init_state(self, batch: int) -> PathState:
        """State of streams that have not begun."""
        encoder = self._encoder.init_state(batch, self._chunk, self._device)
        return PathState(self._fbank.init_state(batch), encoder)

    def num_feature_frames(self, num_samples: int) -> int:
        """Feature frames (10 ms) of an utterance."""
        return self._features.num_frames(num_samples)

    def num_output_frames(self, num_samples: int) -> int:
        """Encoder frames (40 ms) of an utterance."""
        return encoder_frames(self.num_feature_frames(num_samples))

    def step(self, window: Tensor, frames_left: Tensor, state: PathState) -> ModelStep:
        """window (N, P + look-ahead), frames_left (N,) -> what heads say of S' frames."""
        features, _ = self._fbank.step(window, state.features)
        # The look-ahead comes again in the next window: the state moves on by P samples only.
        new = window[:, : self.chunk_samples + self._fbank.lookahead_samples]
        _, fbank = self._fbank.windows(new, state.features)
        features, frames_left = features.to(self._device), frames_left.to(self._device)
        features = heard_silence(features, frames_left, self._quiet)
        with _inference():
            h, encoder = self._encoder.step(features, frames_left, state.encoder, self._prepared)
            frames = self._model.frames(h, "streaming")
        return ModelStep(_plain(frames), PathState(fbank, encoder), hidden=h)


def _plain(frames: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, and ordinary: k2 takes no tensors of inference mode, but copies outside it."""
    return {name: said.cpu().clone() for name, said in frames.items()}


def _inference() -> AbstractContextManager[None]:
    mode: AbstractContextManager[None] = torch.inference_mode()  # type: ignore[no-untyped-call,unused-ignore]
    return mode
