"""Whether a graph says what its module says: asked of the file, through a runtime, before the file
gets its final name.

A tracer takes for constant what was constant in one run, and `graph.with_fixed_sizes` what was so
in many; both are right only if other inputs agree. The module runs here as it does outside of
exports, with its fast functions, not with the plain ones that were traced.

Letters: N streams or utterances, T feature frames.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import Tensor, nn

from dualasr_lib.export.graph import session
from dualasr_lib.model.pairing import valid_frames

__all__ = ["Graph", "Noise", "Probe", "check_as_module", "check_int8"]

_TOLERANCE = 1e-2
"""Of scores of some ten nats and of states of size one; a wrong graph is wrong by whole nats."""
_SPECIAL = -100.0
"""What is never said is far below; it would hide what the others differ by."""


class Probe(NamedTuple):
    """Inputs for both."""

    steps: tuple[tuple[Tensor, ...], ...]
    """What is fed at each step, in front of the states."""
    states: tuple[Tensor, ...] = ()
    """The first ones; later ones are the outputs of the step before, without the first of them.
    None: a step stands alone, and a second output are lengths of the first."""


class Graph(NamedTuple):
    """A module as a graph."""

    model: onnx.ModelProto
    module: nn.Module
    """What was traced."""
    probes: tuple[Probe, ...]


class Noise:
    """Features as loud as speech, some louder, some softer, of lengths at random; always the
    same."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(1)

    def features(self, batch: int, frames: int) -> Tensor:
        """(N, T, 80) log-mels."""
        shape = (batch, frames, 80)
        slow = torch.randn(batch, -(-frames // 8), 80, generator=self._generator)
        slow = slow.repeat_interleave(8, dim=1)[:, :frames]
        return 2.5 * slow + torch.randn(shape, generator=self._generator) - 6.0

    def utterances(self, batch: int, frames: int) -> tuple[Tensor, Tensor]:
        """(N, T, 80) and (N,) lengths, the first of them T."""
        lens = torch.randint(1, frames + 1, (batch,), generator=self._generator)
        lens[0] = frames
        return self.features(batch, frames), lens

    def length(self, least: int, most: int) -> int:
        """A whole number in [least, most]."""
        return int(torch.randint(least, most + 1, (1,), generator=self._generator))


def check_as_module(graph: Graph, path: Path) -> float:
    """The largest difference between what the file at `path` and the module give.

    Raises:
        ValueError: it is too large.
    """
    largest = 0.0
    for ours, theirs in _both(graph, path):
        for one, other in zip(ours, theirs):
            if one.shape != other.shape:
                raise ValueError(
                    _refusal(path, f"{_said(other)} comes where torch has {_said(one)}")
                )
            if one.numel():
                found = float((one.double() - other.double()).abs().max())
                if not found <= _TOLERANCE:  # NaN, too
                    raise ValueError(_refusal(path, f"they differ by {found:.3g}"))
                largest = max(largest, found)
    return largest


def check_int8(graph: Graph, path: Path) -> float:
    """Root mean square of what the rounded scores of the file at `path` differ by from the
    module's, as a share of what these vary by. How much is too much only speech can tell.

    Raises:
        ValueError: there are no such scores.
    """
    wrong = varied = 0.0
    for (ours, *_), (theirs, *_) in _both(graph, path):
        if ours.shape != theirs.shape:
            raise ValueError(_refusal(path, f"{_said(theirs)} comes where torch has {_said(ours)}"))
        said = ours > _SPECIAL
        ours, theirs = ours[said].double(), theirs[said].double()
        wrong += float((ours - theirs).square().sum())
        varied += float((ours - ours.mean()).square().sum())
    share = (wrong / max(varied, 1e-30)) ** 0.5
    if not math.isfinite(share):
        raise ValueError(_refusal(path, "it gives no finite numbers"))
    return share


def _refusal(path: Path, found: str) -> str:
    return (
        f"{path.name} must give what torch gives, but {found}: nothing was written; please report "
        "it with the model's configuration"
    )


def _said(tensor: Tensor) -> str:
    return f"shape {tuple(tensor.shape)}"


def _both(graph: Graph, path: Path) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """Outputs of the module and of the file, step by step; states are each one's own."""
    running = session(path.read_bytes())
    names = [port.name for port in running.get_inputs()]
    for probe in graph.probes:
        ours: Sequence[Tensor] = (torch.empty(0), *probe.states)
        theirs = ours
        for step in probe.steps:
            fed = [tensor.numpy() for tensor in (*step, *theirs[1:])]
            with torch.no_grad():
                ours = graph.module(*step, *ours[1:])
            ours = ours if isinstance(ours, tuple) else (ours,)
            try:
                found = running.run(None, dict(zip(names, fed)))
            except Exception as error:  # the runtime's own kinds have no other name in common
                message = " ".join(str(error).split())
                raise ValueError(_refusal(path, f"it fails: {message[:200]}")) from None
            theirs = [torch.from_numpy(x) for x in found]
            if probe.states:
                yield ours, theirs
            else:
                yield _inside(ours), _inside(theirs)
                ours = theirs = ours[:1]


def _inside(outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Outputs with zeros behind the ends of utterances, where anything may stand."""
    if len(outputs) == 1:
        return outputs
    scores, lens = outputs
    return scores * valid_frames(lens, scores.shape[1])[:, :, None], lens
