#!/usr/bin/env python3
"""When a transducer says its tokens, and what its pruning costs: its alignments of a split beside
the CTC head's peaks.

    source tools/env.sh; tools/analysis/alignments.py --exp-dir EXP --data-dir DATA [--split valid]
        [--branch streaming full] [--prune-range 3 5 8]

Losses are nats per token of the transcripts: CTC, simple joiner, real joiner in windows of each
size and over all cells. A token's time is the mean over its occupancies, over all cells; it is
compared with the frame where CTC first says it, in the utterances that CTC's best path gets right.
Tokens that a streaming transducer says in an earlier chunk than CTC were said before they were
heard to the end, or from the text alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.core.program import run_program
from dualasr_lib.core.rates import ENCODER_MS, ENCODER_STRIDE
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.data.batch import Batch
    from dualasr_lib.model.encoder import Encoded
    from dualasr_lib.model.heads.ctc import CtcHead
    from dualasr_lib.model.heads.transducer import TransducerHead
    from dualasr_lib.model.joint import Branch, JointModel
    from dualasr_lib.model.zipformer.streaming import ChunkSpec

_RANKS = (0.05, 0.25, 0.5, 0.75, 0.95)


class Alignments(NamedTuple):
    """What one branch makes of a split."""

    losses: dict[str, float]
    """Name -> nats per token."""
    late: Tensor
    """(tokens,) float64 frames by which the transducer is later than CTC."""
    early_chunks: float
    """Share of these tokens that it says in an earlier chunk than CTC."""
    utterances: int
    """That CTC gets right, of `total`."""
    total: int


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--exp-dir", type=Path, required=True, help="what train.py wrote")
    add("--data-dir", type=Path, required=True, help="what prepare.sh wrote")
    add("--split", default="valid", help="default: valid")
    add("--branch", nargs="+", choices=("streaming", "full"), default=["streaming", "full"])
    add("--prune-range", type=int, nargs="+", default=[3, 5, 8], help="windows to try")
    add("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def measure(
    model: JointModel,
    batches: Iterable[Batch],
    chunk: ChunkSpec,
    branch: Branch,
    ranges: Sequence[int],
) -> Alignments:
    """Losses and times of a branch with heads `ctc` and `transducer`, in evaluation mode.

    Raises:
        ValueError: the branch has no such heads, or the split no utterance.
    """
    import torch

    heads = _heads(model, branch)
    per_chunk = chunk.frames / ENCODER_STRIDE
    sums: dict[str, float] = {}
    tokens, right, total = 0, 0, 0
    late: list[Tensor] = []
    early: list[Tensor] = []
    device = next(model.parameters()).device
    for batch in (each.to(device) for each in batches):
        with torch.no_grad():
            encoded = model.encode(batch.features, batch.feature_lens, chunk, (branch,))[branch]
            terms, times = _losses(heads, encoded, batch, ranges)
            peaks = _ctc_frames(heads.ctc.frames(encoded.h), encoded.lens)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        for mine, size, ids, (heard, frames) in zip(times, batch.token_lens, batch.tokens, peaks):
            tokens, total = tokens + int(size), total + 1
            if heard == ids[: int(size)].tolist():
                at = torch.tensor(frames, dtype=torch.float64)
                late.append(mine[: int(size)].cpu() - at)
                early.append(mine[: int(size)].cpu().round() // per_chunk < at // per_chunk)
                right += 1
    if not tokens or not late:
        raise ValueError("the split must have utterances that CTC gets right, but has none")
    losses = {name: value / tokens for name, value in sums.items()}
    share = float(torch.cat(early).double().mean())
    return Alignments(losses, torch.cat(late), share, right, total)


class _Heads(NamedTuple):
    transducer: TransducerHead
    ctc: CtcHead


def _heads(model: JointModel, branch: Branch) -> _Heads:
    from dualasr_lib.model.heads.ctc import CtcHead
    from dualasr_lib.model.heads.transducer import TransducerHead

    transducer, ctc = model.head("transducer", branch), model.head("ctc", branch)
    assert isinstance(transducer, TransducerHead) and isinstance(ctc, CtcHead)
    return _Heads(transducer, ctc)


def _losses(
    heads: _Heads, encoded: Encoded, batch: Batch, ranges: Sequence[int]
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of a batch by name, and the mean frame of each token (N, U)."""
    from dualasr_lib.model.heads.contract import Targets
    from dualasr_lib.model.transducer.additive import Text
    from dualasr_lib.model.transducer.loss import transducer_losses

    text = Text(batch.tokens, encoded.lens, batch.token_lens)
    view, config = heads.transducer.transducer.view(encoded.h, text), heads.transducer.options.loss
    widths = {f"real, {width} texts": width for width in ranges}
    widths["real, all cells"] = num_texts = batch.tokens.shape[1] + 1
    found = {
        name: transducer_losses([view], text, replace(config, prune_range=max(2, width)))[0]
        for name, width in widths.items()
    }
    best = found["real, all cells"]
    said = heads.ctc(encoded, Targets(batch.tokens, batch.token_lens))
    terms = {"ctc": heads.ctc.loss(said), "simple": best.simple.sum()}
    terms |= {name: each.pruned.sum() for name, each in found.items()}
    return terms, _times(best.alignment.symbol, best.alignment.texts, num_texts - 1)


def _times(symbol: Tensor, texts: Tensor, tokens: int) -> Tensor:
    """Occupancies (N, T, R) of symbols -> (N, U) mean frame of each token, float64."""
    import torch

    whole = symbol.new_zeros(*symbol.shape[:2], tokens + 1).scatter(2, texts, symbol)
    frames = torch.arange(symbol.shape[1], dtype=symbol.dtype, device=symbol.device)
    return (whole[:, :, :-1] * frames[None, :, None]).sum(dim=1)


def _ctc_frames(log_probs: Tensor, lens: Tensor) -> list[tuple[list[int], list[int]]]:
    """Of each utterance the tokens of the best path, and the first frame of each."""
    found = []
    for row, size in zip(log_probs.argmax(dim=2).tolist(), lens.tolist()):
        said = [
            (token, frame)
            for frame, token in enumerate(row[:size])
            if token and (not frame or token != row[frame - 1])
        ]
        found.append(([token for token, _ in said], [frame for _, frame in said]))
    return found


def tables(found: dict[str, Alignments]) -> str:
    """Markdown, a column per branch."""
    import torch

    branches = list(found)
    lines = [("nats per token", *branches)]
    for name in found[branches[0]].losses:
        lines.append((name, *(f"{one.losses[name]:.4f}" for one in found.values())))
    times = [("transducer later than CTC, ms", *branches)]
    ranks = torch.tensor(_RANKS, dtype=torch.float64)
    quantiles = [(ENCODER_MS * one.late.quantile(ranks)).tolist() for one in found.values()]
    for number, rank in enumerate(_RANKS):
        times.append((f"p{100 * rank:.0f}", *(f"{each[number]:.0f}" for each in quantiles)))
    shares = [f"{100 * one.early_chunks:.1f} %" for one in found.values()]
    times.append(("said a chunk or more before CTC", *shares))
    counts = [f"{one.utterances} of {one.total}" for one in found.values()]
    times.append(("utterances that CTC gets right", *counts))
    return f"{markdown(lines)}\n\n{markdown(times)}"


def main() -> None:
    arguments = parse_arguments()
    from dualasr_lib.core.device import local_device  # what is heavy, after the options
    from dualasr_lib.programs.data import open_data
    from dualasr_lib.recognition.trained_model import TrainedModel

    device = local_device(arguments.device)
    trained = TrainedModel.from_checkpoint(arguments.exp_dir, arguments.data_dir, device)
    data = open_data(trained, arguments.data_dir)
    model, chunk = trained.model, trained.chunk()
    found = {
        branch: measure(
            model, data.split_batches(arguments.split), chunk, branch, arguments.prune_range
        )
        for branch in arguments.branch
    }
    print(f"{trained.source}, {arguments.split}\n\n{tables(found)}")


if __name__ == "__main__":
    run_program(main)
