"""The transducer head: a stateless pruned transducer (`model/transducer/`) as a head of a branch.

The loss is the weighted sum of the simple and the pruned loss; distillation sees one state per
text begun, U + 1 of them, like the attention head's.

Letters: N batch, S encoder frames (25 Hz), U tokens, W = U + 1, V vocabulary (blank = 0), C
channels, P texts of all utterances.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.picture import Picture
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.contract import Head, HeadSizes, NbestTexts, Targets
from dualasr_lib.model.pairing import Sequences
from dualasr_lib.model.transducer.additive import Text
from dualasr_lib.model.transducer.full_sum import Hypotheses, score_texts
from dualasr_lib.model.transducer.loss import Early, TransducerLosses, View, transducer_losses
from dualasr_lib.model.transducer.network import BLANK, Transducer
from dualasr_lib.model.transducer.outcomes import ThreeWay, common_windows, three_way
from dualasr_lib.model.transducer.recursion import Recursion
from dualasr_lib.model.transducer.settings import TransducerConfig, TransducerLossConfig
from dualasr_lib.model.transducer.states import text_states
from dualasr_lib.model.zipformer.scheduled import Scheduled

__all__ = ["Compared", "TransducerHead", "TransducerHeadConfig", "TransducerReading"]

Compared = Literal["mean", "best", "prediction", "outcomes"]


@dataclass(frozen=True, kw_only=True)
class TransducerHeadConfig:
    """Each transducer head."""

    sizes: TransducerConfig = field(default_factory=TransducerConfig)
    """Sizes of its modules."""
    loss: TransducerLossConfig = field(default_factory=TransducerLossConfig)
    """Its loss. Delay penalty and FastEmit are the streaming branch's."""
    states: Compared = "mean"
    """What distillation compares: `mean` and `best` are joiner states where the branch hears the
    text, averaged by occupancy or of the likeliest frame; `prediction` those of the text alone;
    `outcomes`, for `logit_kl`, the probabilities of next token, blank and all else, cell by cell.
    """


class TransducerReading(NamedTuple):
    """What the head makes of a branch."""

    view: View
    text: Text
    losses: TransducerLosses | None
    """None before `joined`."""
    outcomes: ThreeWay | None = None
    """In windows that all branches have; None unless they are compared."""

    @property
    def done(self) -> TransducerLosses:
        """The losses, which `joined` has computed."""
        assert self.losses is not None
        return self.losses


class TransducerHead(Head):
    """Prediction network, joiner, and the cheap joiner that prunes for it."""

    name: ClassVar[str] = "transducer"
    counts_published_steps: ClassVar[bool] = True

    def __init__(self, options: TransducerHeadConfig | None, sizes: HeadSizes) -> None:
        super().__init__(options, sizes)
        self.options = options = options or TransducerHeadConfig()
        self.transducer = Transducer(sizes.dim, sizes.vocab_size, options.sizes)
        dims = {"prediction": options.sizes.dim, "outcomes": 3}
        self.state_dim = dims.get(options.states, options.sizes.joiner_dim)
        self.state_log_probs = options.states == "outcomes"
        loss = options.loss
        steps = (loss.start - 1, loss.start, loss.start + max(1, loss.warm_up))
        knots = [(step, loss.weights(step)) for step in steps]
        self.simple_weight = _schedule(*((step, weights.simple) for step, weights in knots))
        self.pruned_weight = _schedule(*((step, weights.pruned) for step, weights in knots))
        start = loss.delay_from
        self.delay_penalty = _schedule((start - 1, 0.0), (start, loss.delay_penalty))
        self.recursion: Recursion | None = None
        """Who sums over alignments; None: our own. Whoever reads `loss.implementation` sets it."""

    def forward(self, states: Encoded, targets: Targets) -> TransducerReading:
        text = Text(targets.tokens, states.lens, targets.lens)
        return TransducerReading(self.transducer.view(states.h, text), text, None)

    @classmethod
    def joined(cls, heads: Mapping[Any, Head], readings: Mapping[Any, Any]) -> dict[Any, Any]:
        """The losses of all branches in one recursion."""
        mine = {branch: head for branch, head in heads.items() if isinstance(head, cls)}
        views = [r.view._replace(early=mine[b]._early(b)) for b, r in readings.items()]
        if not views:
            return {}
        head = next(iter(mine.values()))  # all have the same options
        text = next(iter(readings.values())).text
        config = head.options.loss
        losses = transducer_losses(views, text, config, head.recursion)
        outcomes: list[ThreeWay | None] = [None] * len(views)
        if head.options.states == "outcomes":
            texts = common_windows(losses, text, config)
            outcomes = [
                three_way(view, text, texts, found.impossible, config)
                for view, found in zip(views, losses)
            ]
        return {
            branch: reading._replace(losses=found, outcomes=said)
            for (branch, reading), found, said in zip(readings.items(), losses, outcomes)
        }

    def loss(
        self, reading: TransducerReading, criterion: Callable[..., Tensor] | None = None
    ) -> Tensor:
        del criterion  # `recursion` is what can be exchanged
        simple, pruned = self.simple_weight.now(), self.pruned_weight.now()
        losses = reading.done
        return (simple * losses.simple + pruned * losses.pruned).sum().float()

    def impossible(self, reading: TransducerReading) -> Tensor:
        return reading.done.impossible

    def view(self, reading: TransducerReading) -> Sequences:
        if self.options.states == "outcomes":
            assert reading.outcomes is not None  # `joined` has been asked
            return Sequences(reading.outcomes.log_probs, *reading.outcomes)
        alignment = reading.done.alignment
        hidden = text_states(reading.view, reading.text, alignment, self.options.states)
        return Sequences(hidden, None, reading.text.token_lens + 1)

    def pictures(self, reading: TransducerReading) -> dict[str, Picture]:
        """ "occupancy": (W, S), how probably each number of tokens has been said at each frame."""
        alignment, text = reading.done.alignment, reading.text
        if not len(text.lens) or not int(text.lens[0]):
            return {}
        frames, texts = int(text.lens[0]), int(text.token_lens[0]) + 1
        whole = alignment.blank.new_zeros(frames, text.tokens.shape[1] + 1)
        whole.scatter_(1, alignment.texts[0, :frames], alignment.blank[0, :frames])
        picture = Picture(
            values=whole[:, :texts].t().float().clamp(0.0, 1.0),
            title="how many tokens have been said, first utterance of the batch",
            x="encoder frame (40 ms)",
            y="tokens said (number)",
            colours="occupancy (probability)",
            low=0.0,
            high=1.0,
        )
        return {"occupancy": picture}

    def frames(self, h: Tensor) -> Tensor:
        """(N, S, C) -> the joiner's part of each frame (N, S, D)."""
        return self.transducer.joiner.encoder(h)

    @torch.no_grad()
    def tables(self) -> dict[str, Tensor]:
        """The prediction network as tables (K, V, P), and the joiner's layers."""
        joiner = self.transducer.joiner
        return {
            "contexts": self.transducer.prediction.fold(),
            "prediction": joiner.prediction.weight.detach(),
            "prediction_bias": joiner.prediction.bias.detach(),
            "output": joiner.output.weight.detach(),
            "output_bias": joiner.output.bias.detach(),
        }

    @torch.no_grad()
    def texts(self, states: Encoded) -> list[tuple[int, ...]]:
        """The best outcome of each frame, so one token per frame at most."""
        joiner, network = self.transducer.joiner, self.transducer.prediction
        frames = self.frames(states.h)
        context = states.lens.new_full((len(states.lens), network.context), BLANK)
        said = []
        for frame in range(frames.shape[1]):
            text = joiner.prediction(network.of_contexts(context))
            best = joiner(frames[:, frame], text).argmax(dim=1)
            best = best.masked_fill(states.lens <= frame, BLANK)
            longer = torch.cat([context[:, 1:], best[:, None]], dim=1)
            context = torch.where((best != BLANK)[:, None], longer, context)
            said.append(best)
        rows = torch.stack(said, dim=1).tolist() if said else [[]] * len(states.lens)
        return [tuple(token for token in row if token != BLANK) for row in rows]

    def score(self, states: Encoded, texts: NbestTexts) -> Tensor:
        """Sums over all alignments; minus infinity where there is none."""
        given = Hypotheses(*texts)
        topology = self.options.loss.topology
        return score_texts(self.transducer, states.h, states.lens, given, topology)

    def _early(self, branch: Any) -> Early:
        if branch != "streaming":
            return Early()
        return Early(self.delay_penalty.now(), self.options.loss.fast_emit)


def _schedule(*knots: tuple[float, float]) -> Scheduled:
    return Scheduled(*knots, saved=False)
