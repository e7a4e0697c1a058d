"""Made-up CTC log-probabilities and language models for the decoding benchmark.

Frames look like those of a CTC model: most say blank, some say a token (6 characters a second, as
in spontaneous Japanese), and a few hesitate between two. `describe` prints what they are like, so
that times can be read beside it.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["describe", "log_probs", "write_bigram"]

_BLANK_LEAD = 13.0
"""Logits by which the said token leads the mean of the others at a certain frame."""
_DOUBT = 0.02
"""Share of frames at which a second token comes near, by up to 6 nats behind."""


def log_probs(num_frames: int, vocab_size: int, seed: int) -> Tensor:
    """(S, V): a token at every fourth frame on average, else blank."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(num_frames, vocab_size, generator=generator)
    says = torch.rand(num_frames, generator=generator) < 0.25
    tokens = torch.randint(1, vocab_size, (num_frames,), generator=generator)
    rows = torch.arange(num_frames)
    logits[rows, torch.where(says, tokens, 0)] += _BLANK_LEAD
    doubt = torch.rand(num_frames, generator=generator) < _DOUBT
    rivals = torch.randint(0, vocab_size, (num_frames,), generator=generator)
    lead = _BLANK_LEAD - 6.0 * torch.rand(num_frames, generator=generator)
    logits[rows[doubt], rivals[doubt]] += lead[doubt]
    return logits.log_softmax(dim=1)


def describe(frames: Tensor, beam: float) -> str:
    """What (S, V) is like."""
    best = frames.max(dim=1)
    near = (frames >= best.values[:, None] - beam).sum(dim=1).float()
    return (
        f"blank is best at {100 * (best.indices == 0).float().mean():.0f} % of frames, "
        f"{-best.values.mean():.2f} nat per frame, "
        f"{near.mean():.1f} tokens within {beam:g} nats (at most {int(near.max())})"
    )


def write_bigram(path: Path, vocab_size: int, per_token: int, seed: int) -> dict[str, int]:
    """An ARPA bigram over tokens t1 ... of random probabilities, `per_token` bigrams each; returns
    symbol -> id.
    """
    generator = np.random.default_rng(seed)
    names = [f"t{token}" for token in range(1, vocab_size)]
    unigrams = np.log10(generator.dirichlet(np.ones(len(names) + 1)))
    lines = [f"{unigrams[-1]:.4f}\t</s>", "-99\t<s>\t-0.3"]
    lines += [f"{score:.4f}\t{name}\t-0.3" for name, score in zip(names, unigrams)]
    pairs = []
    for name in names:
        followers = generator.choice(len(names), per_token, replace=False)
        scores = np.log10(0.5 * generator.dirichlet(np.ones(per_token)))
        pairs += [f"{s:.4f}\t{name} {names[f]}" for f, s in zip(followers, scores)]
    counts = f"\\data\\\nngram 1={len(lines)}\nngram 2={len(pairs)}\n"
    sections = ["\\1-grams:", *lines, "", "\\2-grams:", *pairs, "", "\\end\\"]
    path.write_text(counts + "\n" + "\n".join(sections) + "\n", encoding="utf-8")
    return {name: number for number, name in enumerate(names, start=1)}
