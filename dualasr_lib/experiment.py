"""One experiment: the whole configuration, and what is built from it to train.

    corpus -> DataModule -> JointModel -> losses of both branches -> fit (training/)

It composes; the mechanisms are below. What a trained checkpoint is used for is in recogniser.py.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dualasr_lib.config import to_dict
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.datamodule import DataConfig, DataModule
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.greedy import greedy
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.files import write_atomically
from dualasr_lib.metrics.cer import ErrorCounts, count_errors
from dualasr_lib.model.ctc import CtcLoss, torch_ctc_loss
from dualasr_lib.model.encoder import encoder_lens
from dualasr_lib.model.joint import BRANCHES, JointModel, LossConfig, Losses, ModelConfig, Targets
from dualasr_lib.model.streaming import ChunkSpec
from dualasr_lib.training.contract import FitConfig, FitResult, Run, StepResult, Term, Validation
from dualasr_lib.training.distributed import World
from dualasr_lib.training.loop import fit

__all__ = ["ChunkConfig", "Experiment", "ExperimentConfig", "build_model", "draw_chunk"]

_LOG = logging.getLogger(__name__)
_EXAMPLES = 3  # validation utterances whose texts are logged


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
    ctc_loss: Literal["torch", "k2"] = "torch"
    """Implementation of the CTC loss; both give the same."""
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    """Chunks of the streaming branch."""
    features: FbankConfig = field(default_factory=FbankConfig)
    """Features, the same for training, decoding and streaming."""
    data: DataConfig = field(default_factory=DataConfig)
    """Batches."""
    training: FitConfig = field(default_factory=FitConfig)
    """Optimiser, schedule, loop."""

    def __post_init__(self) -> None:
        if self.features.num_mel_bins != self.model.num_features:
            raise ValueError(
                "model.num_features must equal features.num_mel_bins="
                f"{self.features.num_mel_bins}, but is {self.model.num_features}"
            )
        factors = {2, *(stack.downsampling for stack in self.model.streaming)}
        for frames in (*self.chunk.train_frames, self.chunk.decoding.frames):
            for factor in factors:
                ChunkSpec(frames=frames, left=None).downsampled(factor)


def build_model(config: ExperimentConfig, tokenizer: Tokenizer) -> JointModel:
    """A model with fresh weights, drawn from torch's global generator."""
    return JointModel(
        config.model, config.loss.distillation, tokenizer.vocab_size, tokenizer.sos_eos_id
    )


def draw_chunk(config: ChunkConfig) -> ChunkSpec:
    """A chunk and a left context for one training batch, from torch's global generator."""
    frames = config.train_frames[int(torch.randint(len(config.train_frames), ()))]
    left = config.train_left[int(torch.randint(len(config.train_left), ()))]
    return ChunkSpec(frames=frames, left=max(1, left // frames) * frames)


class Experiment:
    """Training of one configuration on one data folder."""

    def __init__(self, config: ExperimentConfig, data_dir: Path) -> None:
        self.config = config
        self.tokenizer = Tokenizer.load(data_dir / "lang")
        _check_features(config.features, data_dir)
        self.data = DataModule(config.data, data_dir, self.tokenizer, encoder_lens)
        self._ctc_loss = _ctc_loss(config.ctc_loss)

    def fit(self, run: Run, device: torch.device) -> FitResult:
        """Trains, or goes on training, in `run.directory`."""
        torch.manual_seed(self.config.training.seed)
        model = build_model(self.config, self.tokenizer).to(device)
        batches = self.data.train_batches(self.config.training.seed)
        if run.world.is_main:
            self._report_left_out(run.directory)
        return fit(
            model, self.objective, batches, run, self.config.training,
            validate=self.validate, on_step=model.set_step,
        )  # fmt: skip

    def run(self, directory: Path, world: World) -> Run:
        """Where a run of this experiment lives, and what its checkpoints say about it."""
        fingerprints = {"tokenizer": self.tokenizer.fingerprint}
        config = to_dict(self.config)
        return Run(directory=directory, config=config, fingerprints=fingerprints, world=world)

    def objective(self, model: nn.Module, batch: Batch) -> StepResult:
        """The training loss of one batch under a chunk drawn for it."""
        targets = Targets(batch.tokens, batch.token_lens)
        losses: Losses = model(
            batch.features,
            batch.feature_lens,
            targets,
            draw_chunk(self.config.chunk),
            self._ctc_loss,
        )
        return StepResult(
            loss=losses.weighted(self.config.loss),
            terms=_terms(losses),
            weight=float(losses.num_tokens),
            signal_seconds=sum(batch.durations),
        )

    def validate(self, model: nn.Module) -> Validation:
        """Greedy CER of both branches on split `valid`, and a few texts beside their references."""
        joint = cast(JointModel, model)
        device = next(joint.parameters()).device
        chunk = self.config.chunk.decoding
        errors: dict[str, list[ErrorCounts]] = {branch: [] for branch in BRANCHES}
        texts: dict[str, str] = {}
        for batch in self.data.valid_batches():
            on_device = batch.to(device)
            encoded = joint.encode(on_device.features, on_device.feature_lens, chunk)
            for branch in BRANCHES:
                log_probs = joint.log_probs(encoded[branch].h, branch)
                hypotheses = self._texts(log_probs, encoded[branch].lens)
                errors[branch].extend(map(count_errors, batch.texts, hypotheses))
                if len(texts) < _EXAMPLES * len(BRANCHES):
                    example = f"ref: {batch.texts[0]}  \nhyp: {hypotheses[0]}"
                    texts[f"{branch}/{batch.ids[0]}"] = example
        scores = {
            f"cer_{branch}": 100.0 * sum(counts, ErrorCounts()).rate
            for branch, counts in errors.items()
        }
        return Validation(scores=scores, texts=texts)

    def _report_left_out(self, directory: Path) -> None:
        """Says how many training utterances are left out; EXP/left_out.tsv names them."""
        refused = self.data.refused()
        lines = "".join(f"{item.id}\t{item.reason}\n" for item in refused)
        write_atomically(directory / "left_out.tsv", lines.encode())
        _LOG.info("%d training utterances left out (left_out.tsv)", len(refused))

    def _texts(self, log_probs: Tensor, lens: Tensor) -> list[str]:
        return [self.tokenizer.decode(list(path.tokens)) for path in greedy(log_probs, lens)]


def _check_features(config: FbankConfig, data_dir: Path) -> None:
    """The features that prepare.sh stored must be those that streaming will compute."""
    marker = data_dir / "done" / "stage-4"
    if not marker.is_file():
        raise ValueError(f"{marker} is missing: run prepare.sh up to stage 4 first")
    stored = json.loads(marker.read_text(encoding="utf-8"))["parameters"]["fbank"]
    if stored != to_dict(config):
        raise ValueError(
            f"the features in {data_dir} were made with {stored}, but the config says "
            f"{to_dict(config)}"
        )


def _terms(losses: Losses) -> dict[str, Term]:
    tokens = float(losses.num_tokens)
    by_token = ("ctc_streaming", "attention_streaming", "ctc_full", "attention_full")
    terms = {name: Term(getattr(losses, name).detach(), tokens) for name in by_token}
    for name in ("distillation_encoder", "distillation_decoder"):
        terms[name] = Term(getattr(losses, name).detach(), 1.0)
    terms["impossible_utterances"] = Term(losses.num_impossible.float(), 1.0)
    return terms


def _ctc_loss(name: str) -> CtcLoss:
    if name == "torch":
        return torch_ctc_loss
    from dualasr_lib.lattice.ctc_loss import k2_ctc_loss  # k2 is optional

    return k2_ctc_loss
