#!/usr/bin/env python3
"""How alike the hidden states of the two branches are: sp-KD losses of trained models, and the
similarity matrices they are made of.

    tools/similarity.py --exp-dir EXP [EXP ...] --data-dir DATA [--split valid] [--png FILE]

For each model the mean over the batches of a split of ||G_full - G_streaming||_F^2 / b^2 (0 = the
same similarities), between encoder outputs and between states of heads; the items are the
utterances of a batch, or the frames (tokens) of an utterance. Measured whether or not the model
was trained with them, so models with and without distillation can be compared. Numbers of different
data cannot: they depend on b. EXP/similarity-<split>.json keeps them.

--png draws the matrices of the batch with the most utterances, a row per model: streaming, full,
and their difference, with the sp-KD loss of that batch between encoder outputs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.core.files import output_file, write_atomically
from dualasr_lib.core.program import run_program
from dualasr_lib.core.progress import Progress
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.data.batch import Batch
    from dualasr_lib.model.joint import Branch, JointModel
    from dualasr_lib.model.zipformer.streaming import ChunkSpec


class Measured(NamedTuple):
    """What one model says of a split."""

    losses: dict[str, float]
    """`<part>_<items>` -> mean sp-KD loss over batches."""
    encoder: dict[Branch, Tensor]
    """Similarities (b, b) of the fullest batch, by encoder outputs, each utterance one item."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--exp-dir", type=Path, nargs="+", required=True, help="what train.py wrote")
    add("--data-dir", type=Path, required=True, help="what prepare.sh wrote")
    add("--split", default="valid", help="default: valid")
    add("--png", type=output_file, metavar="FILE", help="draw the matrices; needs matplotlib")
    add("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def measure(model: JointModel, batches: Iterable[Batch], chunk: ChunkSpec) -> Measured:
    """Losses and matrices of a model of two branches, in evaluation mode."""
    import torch

    from dualasr_lib.model.distillation import DistillationConfig, similarities, similarity_gaps
    from dualasr_lib.model.joint import Targets

    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    count, fullest = 0, 0
    encoder: dict[Branch, Tensor] = {}
    for batch in batches:
        on_device = batch.to(device)
        targets = Targets(on_device.tokens, on_device.token_lens)
        with torch.no_grad():
            reading = model.read(on_device.features, on_device.feature_lens, targets, chunk)
            views = model.views(reading)
        for name, gap in similarity_gaps(views["full"], views["streaming"]).items():
            sums[name] = sums.get(name, 0.0) + float(gap)
        count += 1
        if len(batch.ids) > fullest:
            fullest = len(batch.ids)
            pair = (views["full"].encoder, views["streaming"].encoder)
            full, streaming = similarities(*pair, 0, DistillationConfig()).cpu()
            encoder = {"full": full, "streaming": streaming}
    if not count:
        raise ValueError("the split must have at least one utterance, but has none")
    return Measured({name: total / count for name, total in sums.items()}, encoder)


def draw(
    names: Sequence[str], found: Sequence[Measured], path: Path, split: str = "the split"
) -> None:
    """Streaming, full, and their difference, a row per model; one scale for all differences."""
    from analysis.pictures import write_picture
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3 * len(found) + 0.6), layout="constrained")
    axes = figure.subplots(len(found), 3, squeeze=False)
    item = "utterance (place in the batch)"
    pairs = [(item.encoder["streaming"], item.encoder["full"]) for item in found]
    low = min(float(matrix.min()) for pair in pairs for matrix in pair)
    high = max(float(matrix.max()) for pair in pairs for matrix in pair)
    largest = max(float((full - streaming).abs().max()) for streaming, full in pairs)
    for row, name, (streaming, full) in zip(axes, names, pairs):
        loss = float((full - streaming).square().mean())
        for axis, title, matrix, name_of_colours, limits, colours in (
            (row[0], f"{name}\nstreaming branch", streaming, "similarity", (low, high), "viridis"),
            (row[1], f"{name}\nfull branch", full, "similarity", (low, high), "viridis"),
            (row[2], f"full - streaming\nsp-KD loss of the batch: {loss:.5f}", full - streaming,
             "difference", (-largest, largest), "RdBu"),
        ):  # fmt: skip
            shown = axis.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap=colours)
            axis.set_title(title, fontsize=8)
            axis.set_xlabel(item, fontsize=8)
            axis.set_ylabel(item, fontsize=8)
            axis.tick_params(labelsize=8)
            axis.locator_params(integer=True)
            bar = figure.colorbar(shown, ax=axis, fraction=0.046)
            bar.set_label(f"{name_of_colours} (no unit)", fontsize=8)
            bar.ax.tick_params(labelsize=8)
    figure.suptitle(
        f"Similarity of utterances by encoder outputs (rows of unit norm): the "
        f"{len(pairs[0][0])} utterances of the largest batch of {split}",
        fontsize=10,
    )
    write_picture(figure, path, dpi=120)


def main() -> None:
    arguments = parse_arguments()
    from dualasr_lib.core.device import local_device  # what is heavy, after the options
    from dualasr_lib.model.joint import BRANCHES
    from dualasr_lib.programs.data import open_data
    from dualasr_lib.recognition.trained_model import TrainedModel

    if arguments.png:
        import matplotlib.figure  # noqa: F401  (fails before the work, not after it)
    device = local_device(arguments.device)
    found = []
    for folder in arguments.exp_dir:
        trained = TrainedModel.from_checkpoint(folder, arguments.data_dir, device)
        for branch in BRANCHES:
            trained.model.require(branch)
        data = open_data(trained, arguments.data_dir)
        total = data.size(arguments.split)
        progress = Progress(f"{folder.name} {arguments.split}", "utterances", total)
        batches = _counted(data.split_batches(arguments.split), progress)
        measured = measure(trained.model, batches, trained.chunk())
        progress.close(", ".join(f"{k} {v:.5f}" for k, v in measured.losses.items()))
        text = json.dumps({"weights": trained.fingerprint, **measured.losses}, indent=1)
        write_atomically(folder / f"similarity-{arguments.split}.json", f"{text}\n".encode())
        found.append(measured)
    names = [str(folder) for folder in arguments.exp_dir]
    columns = list(found[0].losses)
    lines = [(n, *(f"{m.losses[c]:.5f}" for c in columns)) for n, m in zip(names, found)]
    print(markdown([("model", *columns), *lines]))
    if arguments.png:
        short = [_short(folder) for folder in arguments.exp_dir]
        draw(short, found, arguments.png, arguments.split)


def _counted(batches: Iterable[Batch], progress: Progress) -> Iterable[Batch]:
    for batch in batches:
        yield batch
        progress.add(len(batch.ids))


def _short(folder: Path) -> str:
    return "/".join(folder.resolve().parts[-2:])


if __name__ == "__main__":
    run_program(main)
