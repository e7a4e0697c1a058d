"""One experiment: the whole configuration, and what is built from it to train.

    corpus -> DataModule -> JointModel -> losses of both branches -> fit (training/)

It composes; the mechanisms are below. What a trained checkpoint is used for is in recognition/.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dualasr_lib.configuration import ChunkConfig, ExperimentConfig, build_model, extractor
from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.core.files import AnyPath, write_atomically
from dualasr_lib.core.weights import Weights
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.data.folder import DataFolder
from dualasr_lib.data.tokenizer import Tokenizer, tokens_fingerprint
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.metrics.units import UNITS
from dualasr_lib.model.encoder import encoder_lens
from dualasr_lib.model.heads.contract import Criteria
from dualasr_lib.model.heads.ctc import CtcLossConfig
from dualasr_lib.model.heads.transducer import TransducerHead
from dualasr_lib.model.joint import (
    JointModel,
    Losses,
    Targets,
    total_loss,
)
from dualasr_lib.model.log_names import DESCRIPTIONS
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.training.contract import FitResult, Run, StepResult, Term
from dualasr_lib.training.distributed import World
from dualasr_lib.training.fit_config import InitialConfig
from dualasr_lib.training.initial import recorded, resumed, take
from dualasr_lib.training.loop import fit
from dualasr_lib.validation import Validator

__all__ = ["Experiment", "draw_chunk"]

_LOG = logging.getLogger(__name__)
_NAMES = 20  # training utterances without an alignment that are named


def draw_chunk(config: ChunkConfig) -> ChunkSpec:
    """A chunk and a left context for one training batch, from torch's global generator.

    The loop seeds that by rank and step, so every rank draws for itself.
    """
    frames = config.train_frames[int(torch.randint(len(config.train_frames), ()))]
    left = config.train_left[int(torch.randint(len(config.train_left), ()))]
    return ChunkSpec(frames=frames, left=max(1, left // frames) * frames)


class Experiment:
    """Training of one configuration on one data folder."""

    def __init__(
        self,
        config: ExperimentConfig,
        data_dir: AnyPath,
        read_trained: Callable[[Path], Weights] | None = None,
    ) -> None:
        """
        Args:
            read_trained: reads `config.initial.path`; needed if that is given.
        """
        data_dir = Path(data_dir)
        self.config = config
        self._read_trained = read_trained
        folder = DataFolder.read(data_dir)
        self.tokenizer = Tokenizer.load(data_dir / "lang")
        _check_features(config.features, folder, data_dir)
        self.data = DataModule(
            config.data, data_dir, self.tokenizer, encoder_lens, extractor(config)
        )
        self._criteria = _criteria(config.ctc_loss)
        unit = UNITS[folder.units[0]]
        self.validate = Validator(config, self.data, self.tokenizer, unit, self._criteria)
        self._unalignable: set[str] = set()

    def fit(self, run: Run, device: torch.device) -> FitResult:
        """Trains, or goes on training, in `run.directory`."""
        torch.manual_seed(self.config.training.seed)
        model = build_model(self.config, self.tokenizer).to(device)
        _give_recursion(model)
        batches = self.data.train_batches(self.config.training.seed)
        if run.world.is_main:
            self._report_left_out(run.directory)
            self._report_unused(model)
        run = replace(run, begin=partial(self._begin, tell=run.world.is_main))
        return fit(
            model, self.objective, batches, run, self.config.training,
            validate=self.validate, on_step=partial(self._tell_step, model),
        )  # fmt: skip

    def run(self, directory: AnyPath, world: World) -> Run:
        """Where a run of this experiment lives, and what its checkpoints say about it."""
        directory = Path(directory)
        fingerprints = {"tokenizer": self.tokenizer.fingerprint}
        config = to_dict(self.config)
        return Run(
            directory=directory, config=config, descriptions=DESCRIPTIONS,
            fingerprints=fingerprints, world=world,
        )  # fmt: skip

    def objective(self, model: nn.Module, batch: Batch) -> StepResult:
        """The training loss of one batch under a chunk drawn for it."""
        targets = Targets(batch.tokens, batch.token_lens)
        chunk = draw_chunk(self.config.chunk)
        losses: Losses = model(batch.features, batch.feature_lens, targets, chunk, self._criteria)
        # one transfer for all that the host must know of the forward pass
        *impossible, tokens = torch.hstack([losses.impossible, losses.num_tokens]).tolist()
        self._name_unalignable(batch.ids, impossible)
        parts = losses.parts(self.config.loss)
        loss = total_loss(parts)
        return StepResult(
            loss=loss,
            terms={
                **_loss_terms(losses, tokens),
                **_shares(parts, loss),
                **self._chunk_terms(chunk),
            },
            weight=float(tokens),
            signal_seconds=sum(batch.durations),
        )

    def _begin(
        self, model: nn.Module, saved: Mapping[str, Any] | None, tell: bool
    ) -> dict[str, Any]:
        """The configuration with what the run began with; at its start, begins with that."""
        initial = self.config.initial
        if saved is not None:
            initial = resumed(from_dict(InitialConfig, saved.get("initial", {})), initial)
        elif initial.path:
            initial = self._initialise(model, initial, tell)
        self.config = replace(self.config, initial=initial)
        return to_dict(self.config)

    def _initialise(self, model: nn.Module, initial: InitialConfig, tell: bool) -> InitialConfig:
        """Takes the trained weights that fit, and notes what did not."""
        assert self._read_trained is not None, "config.initial.path needs somebody to read it"
        record = recorded(initial)
        trained = self._read_trained(Path(initial.path))
        other = _other_vocabulary(self.tokenizer, trained.fingerprints)
        try:
            taken = take(model, trained.state_dict, initial.anew, {"heads": other} if other else {})
        except ValueError as error:
            raise ValueError(f"initial weights: {initial.path}: {error}") from None
        for line in taken.report if tell else ():
            _LOG.info("%s: %s", Path(initial.path).name, line)
        # The branches cannot teach each other before all of them have learnt something.
        waiting = ("distiller",) if taken.anew and cast(JointModel, model).distiller else ()
        return replace(record, anew=taken.anew + waiting)

    def _tell_step(self, model: JointModel, step: int) -> None:
        """Tells the model's schedules; what began trained has its warm-up behind it."""
        initial = self.config.initial
        credit = round(initial.warm_up_done * self.config.model.warm_up) if initial.path else 0
        model.set_step(step, credit, initial.anew)

    def _chunk_terms(self, chunk: ChunkSpec) -> dict[str, Term]:
        """Mean chunk, and the share of batches that had each of the sizes."""
        if not self.config.model.has("streaming"):
            return {}
        shares = {
            f"chunk_share/{frames}": Term(float(frames == chunk.frames), 1.0)
            for frames in self.config.chunk.train_frames
        }
        return {"chunk_frames": Term(float(chunk.frames), 1.0), **shares}

    def _name_unalignable(self, ids: tuple[str, ...], impossible: Sequence[int]) -> None:
        """Logs each utterance without an alignment once, the first `_NAMES` of them by name."""
        found = {name for name, bad in zip(ids, impossible) if bad}
        for name in sorted(found - self._unalignable):
            self._unalignable.add(name)
            if len(self._unalignable) <= _NAMES:
                _LOG.warning("no alignment: %s has too few frames for its tokens", name)
            elif len(self._unalignable) == _NAMES + 1:
                _LOG.warning("more utterances without an alignment are counted, but not named")

    def _report_left_out(self, directory: Path) -> None:
        """Says how many training utterances are left out; EXP/left_out.tsv names them."""
        refused = self.data.refused()
        lines = "".join(f"{item.id}\t{item.reason}\n" for item in refused)
        write_atomically(directory / "left_out.tsv", lines.encode())
        _LOG.info("%d training utterances left out (left_out.tsv)", len(refused))

    def _report_unused(self, model: JointModel) -> None:
        """Names the heads that are to be distilled between branches, but cannot be compared."""
        compared = [] if model.distiller is None else list(model.distiller.heads)
        for name, weight in self.config.loss.distillation.head_weights.items():
            if weight and name not in compared and len(model.branches) > 1:
                _LOG.warning(
                    "loss.distillation.head_weights.%s is unused: not both branches have a head of "
                    "that name with states of its own",
                    name,
                )


def _other_vocabulary(tokenizer: Tokenizer, fingerprints: Mapping[str, str]) -> str:
    """In what way ids mean other tokens than those of the weights; empty: they mean the same."""
    if "tokens" in fingerprints:
        same = fingerprints["tokens"] == tokens_fingerprint(tokenizer.tokens_txt())
        return "" if same else "the vocabulary is another one"
    same = fingerprints.get("tokenizer") == tokenizer.fingerprint
    return "" if same else "the tokenizer is another one (only bundles know its tokens)"


def _check_features(config: FbankConfig, folder: DataFolder, data_dir: Path) -> None:
    """The features that prepare.sh stored must be those that streaming will compute."""
    stored, wanted = folder.features, to_dict(config)
    if stored != wanted:
        raise ValueError(
            f"the features in {data_dir} were made with {stored}, but the config says {wanted}"
        )


def _loss_terms(losses: Losses, tokens: float) -> dict[str, Term]:
    """The terms of the heads and branches that there are: "<head>_<branch>"."""
    terms: dict[str, Term] = {}
    for name, sums in losses.heads.items():
        terms.update({f"{name}_{b}": Term(value.detach(), tokens) for b, value in sums.items()})
    if losses.distilled is not None:
        for part, value in {"encoder": losses.distilled.encoder, **losses.distilled.heads}.items():
            terms[f"distillation_{part}"] = Term(value.detach(), 1.0)
    terms["impossible_utterances"] = Term(losses.impossible.sum(), 1.0)
    return terms


def _shares(parts: Mapping[str, Tensor], loss: Tensor) -> dict[str, Term]:
    """Each part of the loss over all of it; the log shows the mean over steps."""
    whole = loss.detach()
    return {f"loss_share/{n}": Term(part.detach() / whole, 1.0) for n, part in parts.items()}


def _criteria(config: CtcLossConfig) -> Criteria:
    """Who computes which loss; emitting early is a matter of the streaming branch."""
    if config.implementation == "torch":
        return {}
    from dualasr_lib.lattice.ctc_loss import k2_ctc_loss  # k2 is optional

    penalties = {"streaming": config.delay_penalty, "full": 0.0}
    losses = {
        branch: partial(k2_ctc_loss, delay_penalty=penalty, beam=config.beam)
        for branch, penalty in penalties.items()
    }
    return {"ctc": losses}


def _give_recursion(model: JointModel) -> None:
    """Tells the transducers who sums over alignments, where that is not they themselves."""
    for head in model.heads.modules():
        if isinstance(head, TransducerHead) and head.options.loss.implementation == "k2":
            from dualasr_lib.lattice.transducer_loss import k2_recursion  # k2 is optional

            head.recursion = k2_recursion
