"""Training of one transducer on made-up encoder outputs: our loss, and k2's published way.

Cost depends on how sure the heads are: cells of the lattice without probability have no gradient.
`fresh` heads have initial weights, where every cell counts, as in the first steps of training;
`taught` ones know where the tokens are (they are written into the frames, and weights are set by
hand), as later.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.timing import Work
from bench.workloads import (
    Setting,
    build_encoder,
    clear_gradients,
    features_of,
    generator,
    ready,
    three_steps,
)
from dualasr_lib.model.transducer.additive import Text
from dualasr_lib.model.transducer.loss import View, transducer_losses
from dualasr_lib.model.transducer.network import Transducer
from dualasr_lib.model.transducer.settings import TransducerConfig, TransducerLossConfig

__all__ = [
    "Task",
    "k2_work",
    "make_task",
    "our_work",
    "train_k2",
    "train_ours",
    "weight_bytes",
    "worthy_share",
]

_FRAMES_PER_SECOND = 25
_TOKENS_PER_SECOND = 5.0
_SHORTEST = 0.88  # of the longest utterance
_LOUD, _SURE, _BLANK = 6.0, 2.5, 12.0  # of taught heads
_LOSS = TransducerLossConfig()


class Task(NamedTuple):
    """One transducer and what it is trained on."""

    transducer: Transducer
    h: Tensor
    """(N, T, C) encoder outputs."""
    text: Text

    @property
    def seconds(self) -> float:
        """Audio."""
        return float(self.text.lens.sum()) / _FRAMES_PER_SECOND

    def clear(self) -> None:
        """Drops gradients."""
        clear_gradients(self.transducer)
        self.h.grad = None


def make_task(setting: Setting, dim: int, taught: bool) -> Task:
    """Utterances of 88 to 100 % of the setting's length, with about 5 tokens a second."""
    torch.manual_seed(0)
    text = _text(setting)
    transducer = Transducer(dim, setting.vocab_size, TransducerConfig())
    shape = (setting.utterances, int(text.lens.max()), dim)
    h = 0.3 * torch.randn(shape, generator=generator())
    if taught:
        h = _teach(transducer, h, text)
    return Task(
        ready(transducer, setting),
        h.to(setting.device).requires_grad_(),
        Text(*(x.to(setting.device) for x in text)),
    )


def our_work(tasks: list[Task], name: str) -> Work:
    """A step of one or more branches with our loss."""

    def forward() -> Tensor:
        return _our_loss([task.transducer.view(task.h, task.text) for task in tasks], tasks[0].text)

    return _work(tasks, name, forward)


def k2_work(task: Task, name: str) -> Work:
    """A step of one branch with k2's losses on plain logits.

    Raises:
        ImportError: there is no k2.
    """
    return _work([task], name, lambda: _k2_loss(task.transducer.view(task.h, task.text), task.text))


def worthy_share(task: Task) -> float:
    """Share of the cells of all windows whose gradient counts."""
    with torch.no_grad():
        view = task.transducer.view(task.h, task.text)
        (losses,) = transducer_losses([view], task.text, _LOSS)
    size = losses.alignment.symbol + losses.alignment.blank
    valid = losses.alignment.texts <= task.text.token_lens[:, None, None]
    valid &= (torch.arange(size.shape[1]) < task.text.lens[:, None])[:, :, None]
    limit = _LOSS.min_gradient * size.amax(dim=(1, 2), keepdim=True)
    return float((size > limit).sum() / valid.sum())


def weight_bytes(setting: Setting, dim: int) -> int:
    """Of the weights of a transducer."""
    transducer = Transducer(dim, setting.vocab_size, TransducerConfig())
    return sum(p.numel() * p.element_size() for p in transducer.parameters())


def train_ours(setting: Setting) -> None:
    """Three steps of the encoder with a transducer and our loss, for `peak_memory`."""
    _train(setting, lambda view, text: _our_loss([view], text))


def train_k2(setting: Setting) -> None:
    """The same with k2's way."""
    _train(setting, _k2_loss)


def _train(setting: Setting, loss: Callable[[View, Text], Tensor]) -> None:
    torch.set_num_threads(setting.threads)
    encoder, text = build_encoder(setting), _text(setting)
    features, lens = features_of(setting)
    transducer = ready(
        Transducer(encoder.output_dim, setting.vocab_size, TransducerConfig()), setting
    )

    def forward() -> Tensor:
        encoded = encoder(features, lens, setting.spec)
        heard = text._replace(lens=torch.minimum(text.lens, encoded.lens))
        return loss(transducer.view(encoded.h, heard), heard)

    def clear() -> None:
        for module in (encoder, transducer):
            clear_gradients(module)

    three_steps(
        Work(
            name="encoder and transducer",
            seconds=setting.audio_seconds,
            forward=forward,
            backward=lambda value: value.backward(),
            clear=clear,
            parts={},
        )
    )


def _work(tasks: list[Task], name: str, forward: Callable[[], Tensor]) -> Work:
    def clear() -> None:
        for task in tasks:
            task.clear()

    return Work(
        name=name,
        seconds=sum(task.seconds for task in tasks),
        forward=forward,
        backward=lambda value: value.backward(),
        clear=clear,
        parts={},
    )


def _our_loss(views: list[View], text: Text) -> Tensor:
    losses = transducer_losses(views, text, _LOSS)
    weights = _LOSS.weights(1e9)
    return (
        sum((weights.simple * x.simple + weights.pruned * x.pruned).sum() for x in losses)
        / text.token_lens.sum()
    )


def _k2_loss(view: View, text: Text) -> Tensor:
    from dualasr_lib.lattice.transducer_loss import K2Text, K2TransducerOptions, k2_pruned_losses

    rows = torch.arange(len(text.lens), device=text.lens.device)[:, None, None]

    def join(ranges: Tensor) -> Tensor:
        hidden = torch.tanh(view.encoder[:, :, None] + view.prediction[rows, ranges])
        return F.linear(hidden, *view.output)

    losses = k2_pruned_losses(
        F.linear(*view.acoustic),
        F.linear(*view.language),
        join,
        K2Text(*text),
        K2TransducerOptions(_LOSS.prune_range, _LOSS.topology, _LOSS.language_share),
    )
    weights = _LOSS.weights(1e9)
    total = weights.simple * losses.simple + weights.pruned * losses.pruned
    return total.sum() / text.token_lens.sum()


def _text(setting: Setting) -> Text:
    count = setting.utterances
    share = torch.linspace(_SHORTEST, 1.0, count) if count > 1 else torch.ones(1)
    lens = (share * _FRAMES_PER_SECOND * setting.seconds).round().long().clamp(min=1)
    token_lens = (lens * _TOKENS_PER_SECOND / _FRAMES_PER_SECOND).round().long().clamp(min=1)
    size = (count, int(token_lens.max()))
    tokens = torch.randint(2, setting.vocab_size, size, generator=generator())
    return Text(tokens, lens, token_lens)


def _teach(transducer: Transducer, h: Tensor, text: Text) -> Tensor:
    """Writes each token's code into a frame, and weights that read it."""
    vocab_size, dim = transducer.simple_acoustic.weight.shape
    codes = F.normalize(torch.randn(vocab_size, dim, generator=generator()), dim=1)
    h = h.clone()
    for n, (frames, said) in enumerate(zip(text.lens.tolist(), text.token_lens.tolist())):
        places = (torch.arange(said) + 0.5) * frames / said
        h[n, places.long()] += _LOUD * codes[text.tokens[n, :said]]
    joiner = transducer.joiner
    with torch.no_grad():
        torch.nn.init.orthogonal_(joiner.encoder.weight)
        for layer, read in (
            (transducer.simple_acoustic, codes),
            (joiner.output, codes @ joiner.encoder.weight.t()),
        ):
            layer.weight.copy_(_SURE * read)
            layer.bias.zero_()
            layer.bias[0] = _BLANK
    return h
