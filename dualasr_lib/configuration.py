"""The whole configuration of a model: what training reads, and what recognition needs to know.

It stands apart from experiment.py, so that whoever recognises does not import the training loop.
"""

from dataclasses import dataclass, field

from dualasr_lib.core.rates import ENCODER_STRIDE
from dualasr_lib.data.data_config import DataConfig
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.model.heads.ctc import CtcLossConfig
from dualasr_lib.model.heads.registry import HEADS
from dualasr_lib.model.joint import JointModel, LossConfig, ModelConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.training.fit_config import FitConfig, InitialConfig

__all__ = ["ChunkConfig", "ExperimentConfig", "build_model", "extractor"]


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """Chunks the streaming branch is trained with, and those it is decoded with by default."""

    train_frames: tuple[int, ...] = (8, 16, 32, 64)
    """Chunk lengths drawn per batch, in 50 Hz frames (20 ms)."""
    train_left: tuple[int, ...] = (64, 128, 256)
    """Left contexts drawn per batch, in 50 Hz frames; rounded down to whole chunks, at
    least one."""
    ms: int = 320
    """Chunk when decoding, milliseconds."""
    left_ms: int = 2560
    """Left context when decoding, milliseconds."""

    def __post_init__(self) -> None:
        if not self.train_frames or not self.train_left:
            raise ValueError("train_frames and train_left must not be empty")
        if min(self.train_left) < 1 or self.left_ms < 1:
            raise ValueError(
                "left contexts must be positive, "
                f"but are {self.train_left} frames and {self.left_ms} ms"
            )
        ChunkSpec.from_ms(self.ms, self.left_ms)

    @property
    def decoding(self) -> ChunkSpec:
        """The chunk used when nothing else is asked for."""
        return ChunkSpec.from_ms(self.ms, self.left_ms)


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that a run depends on; saved inside each checkpoint."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the model."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss."""
    ctc_loss: CtcLossConfig = field(default_factory=CtcLossConfig)
    """The CTC loss; its delay penalty is for the streaming branch only."""
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    """Chunks of the streaming branch."""
    features: FbankConfig = field(default_factory=FbankConfig)
    """Features, the same for training, decoding and streaming."""
    data: DataConfig = field(default_factory=DataConfig)
    """Batches."""
    training: FitConfig = field(default_factory=FitConfig)
    """Optimiser, schedule, loop."""
    initial: InitialConfig = field(default_factory=InitialConfig)
    """Weights that training begins with."""

    def __post_init__(self) -> None:
        built = {head for branch in self.model.branches for head in self.model.heads.of(branch)}
        unweighed = [head for head in HEADS if head in built - self.loss.heads.keys()]
        if unweighed:
            raise ValueError(
                f"loss.heads must have a weight for each head of the model, but {unweighed[0]!r} "
                f"has none; there are weights for {', '.join(self.loss.heads) or 'none'}"
            )
        if self.features.num_mel_bins != self.model.num_features:
            raise ValueError(
                "model.num_features must equal features.num_mel_bins="
                f"{self.features.num_mel_bins}, but is {self.model.num_features}"
            )
        if self.model.has("streaming"):
            factors = {ENCODER_STRIDE, *(stack.downsampling for stack in self.model.streaming)}
            for frames in (*self.chunk.train_frames, self.chunk.decoding.frames):
                for factor in factors:
                    ChunkSpec(frames=frames, left=None).downsampled(factor)


def extractor(config: ExperimentConfig) -> Fbank | None:
    """What computes the features of batches; None: they are stored (`data.features`)."""
    return Fbank(config.features) if config.data.features == "computed" else None


def build_model(config: ExperimentConfig, tokenizer: Tokenizer) -> JointModel:
    """A model with fresh weights, drawn from torch's global generator."""
    return JointModel(
        config.model, config.loss.distillation, tokenizer.vocab_size, tokenizer.sos_eos_id
    )
