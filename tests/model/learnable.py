"""Made-up speech that a small model learns to read within a minute: every token has a spectrum."""

import torch
from joint_cases import Input
from torch import Tensor

from dualasr_lib.model.joint import Targets

__all__ = ["BINS", "TOKENS", "Speech"]

BINS = 80
TOKENS = 20


class Speech:
    """Utterances of random tokens, batch by batch."""

    def __init__(self, seed: int) -> None:
        self._draw = torch.Generator().manual_seed(seed)
        spectra = torch.randn(TOKENS, 2, 9, generator=torch.Generator().manual_seed(99))
        # (token, begin or end, bins): smooth over the bins, about as loud as log-mel energies
        self._spectra = 2.5 * torch.nn.functional.interpolate(spectra, BINS, mode="linear")

    def batch(self, size: int = 8, tokens: int = 8) -> Input:
        """`size` utterances of `tokens` / 2 to `tokens` tokens of 8 to 16 frames each."""
        lens = [self._number(tokens // 2, tokens + 1) for _ in range(size)]
        texts = [[self._number(1, TOKENS) for _ in range(n)] for n in lens]
        heard = [self._utterance(text) for text in texts]
        frames = torch.tensor([len(x) for x in heard])
        padded = torch.nn.utils.rnn.pad_sequence(heard, batch_first=True)
        labels = torch.zeros(size, tokens, dtype=torch.long)
        for row, text in enumerate(texts):
            labels[row, : len(text)] = torch.tensor(text)
        return Input(padded, frames, Targets(labels, torch.tensor(lens)))

    def _utterance(self, text: list[int]) -> Tensor:
        """(T, 80): each token glides from its first spectrum to its second, in a voice of its own
        loudness and tilt, with noise.
        """
        parts = []
        for token in text:
            share = torch.linspace(0.0, 1.0, self._number(8, 17))[:, None]
            begin, end = self._spectra[token]
            parts.append(begin + (end - begin) * share)
        x = torch.cat(parts)
        voice = torch.randn(2, generator=self._draw)
        tilt = voice[1] * torch.linspace(-1.5, 1.5, BINS)
        return x + voice[0] + tilt + 1.5 * torch.randn(x.shape, generator=self._draw) - 6.0

    def _number(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=self._draw))
