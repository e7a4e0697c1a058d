"""Validation of a model in training: error rates, losses, texts to read and pictures.

The ranks share the batches, and rank 0 puts together what they found, in the order of batches: the
numbers do not depend on how many ranks there are. Nothing is random.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from dualasr_lib.configuration import ExperimentConfig
from dualasr_lib.core.picture import Picture
from dualasr_lib.core.progress import watched
from dualasr_lib.core.tree import map_tree
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.metrics.error_rate import ErrorCounts, count_errors
from dualasr_lib.metrics.examples import Compared, example_table
from dualasr_lib.metrics.units import Unit
from dualasr_lib.model.distillation import similarity_gaps, similarity_images
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.contract import Criteria
from dualasr_lib.model.joint import Branch, JointModel, LossConfig, Losses, Targets, total_loss
from dualasr_lib.training.contract import ALONE, Share, Validation

__all__ = ["ValidBatches", "Validator"]

_EXAMPLES = 3  # utterances whose texts are shown, and as many of the worst


class ValidBatches(Protocol):
    """Where the batches for validation come from."""

    def valid_batches(self, rank: int = 0, size: int = 1, /) -> Iterable[Batch]:
        """Batches rank, rank + size, rank + 2 size ..., always the same."""


@dataclass(frozen=True)
class Validator:
    """`training.contract.Validate` for a joint model."""

    config: ExperimentConfig
    data: ValidBatches
    tokenizer: Tokenizer
    unit: Unit
    """What errors are counted in."""
    criteria: Criteria

    def __call__(self, model: nn.Module, turn: int = 0, share: Share = ALONE) -> Validation:
        """Greedy error rates of all branches by the first head of each, losses by head and branch,
        texts beside their references (others each `turn`, and the worst), and of the batch with the
        most utterances how unlike the branches are, similarity matrices and the pictures of heads.
        """
        joint = cast(JointModel, model)
        findings = share.gather(self._findings(joint, share))
        found = sorted(chain.from_iterable(part.batches for part in findings))
        compared = {
            branch: [item for batch in found for item in batch.compared[branch]]
            for branch in joint.branches
        }
        rates = {
            f"{self.unit.rate}_{branch}": 100.0
            * sum((item.counts for item in items), ErrorCounts()).rate
            for branch, items in compared.items()
        }
        fullest = max((part.fullest for part in findings if part.fullest), default=None)
        if fullest is None:
            return Validation(scores=rates)
        losses = Losses.summed([batch.losses for batch in found])
        scores = {**rates, **_validation_losses(losses, self.config.loss), **fullest.gaps}
        texts = {f"examples_{b}": example_table(c, turn, _EXAMPLES) for b, c in compared.items()}
        return Validation(scores=scores, texts=texts, images=fullest.images)

    def _findings(self, joint: JointModel, share: Share) -> "_Findings":
        """This rank's."""
        device = next(joint.parameters()).device
        chunk = self.config.chunk.decoding
        found: list[_OfBatch] = []
        fullest, largest = None, _Rank(0, 0)
        mine = self.data.valid_batches(share.rank, share.size)
        for batch in watched(mine, "validation", "batches", enabled=share.rank == 0):
            number = share.rank + share.size * len(found)
            on_device = batch.to(device)
            targets = Targets(on_device.tokens, on_device.token_lens)
            reading = joint.read(on_device.features, on_device.feature_lens, targets, chunk)
            compared = {
                branch: self._compared(joint, branch, states, batch)
                for branch, states in reading.encoded.items()
            }
            losses = joint.losses(reading, targets, self.criteria)
            found.append(
                _OfBatch(
                    number, compared, losses if share.size == 1 else map_tree(Tensor.cpu, losses)
                )
            )
            if len(batch.ids) > largest.utterances:
                fullest, largest = reading, _Rank(len(batch.ids), -number)
        if fullest is None:
            return _Findings(found, None)
        gaps: dict[str, float] = {}
        images = joint.pictures(fullest)
        if joint.distiller is not None:
            views = joint.views(fullest)
            measured = similarity_gaps(views["full"], views["streaming"])
            gaps = {f"similarity_gap_{name}": float(gap) for name, gap in measured.items()}
            config = self.config.loss.distillation
            images |= similarity_images(views["full"], views["streaming"], config)
        sent = images if share.size == 1 else map_tree(Tensor.cpu, images)
        return _Findings(found, _Fullest(largest, gaps, sent))

    def _compared(
        self, joint: JointModel, branch: Branch, states: Encoded, batch: Batch
    ) -> list[Compared]:
        """What the first head of a branch makes of a batch."""
        head = next(iter(joint.heads_of(branch).values()))
        said = [self.tokenizer.decode(list(text)) for text in head.texts(states)]
        return [
            Compared(name, ref, text, count_errors(ref, text, self.unit))
            for name, ref, text in zip(batch.ids, batch.texts, said, strict=True)
        ]


class _OfBatch(NamedTuple):
    number: int  # among those of all ranks
    compared: dict[Branch, list[Compared]]
    losses: Losses


class _Rank(NamedTuple):
    """The greatest is the first of the batches with the most utterances."""

    utterances: int
    minus_number: int


class _Fullest(NamedTuple):
    rank: _Rank
    gaps: dict[str, float]
    images: Mapping[str, Picture]


class _Findings(NamedTuple):
    """What one rank found."""

    batches: list[_OfBatch]
    fullest: _Fullest | None


def _validation_losses(losses: Losses, config: LossConfig) -> dict[str, float]:
    """`loss`, `loss_<branch>`, `loss_<head>_<branch>`; one transfer from the device."""
    parts = losses.parts(config)
    named = {"loss": total_loss(parts), **{f"loss_{name}": part for name, part in parts.items()}}
    for head, sums in losses.heads.items():
        named |= {f"loss_{head}_{b}": loss / losses.num_tokens for b, loss in sums.items()}
    return dict(zip(named, torch.stack(list(named.values())).tolist()))
