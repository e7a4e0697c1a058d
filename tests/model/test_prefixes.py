"""Prefix trees: each hypothesis once, each prefix once, chunks within their bound."""

import pytest
import torch

from dualasr_lib.model.prefixes import PrefixChunk, prefix_chunks

START = 9


def lists(seed: int) -> tuple[list[list[int]], list[int]]:
    """30 texts of 4 utterances (one has none), of 0 to 7 tokens, many alike, some equal."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, 8, (30,), generator=generator).tolist()
    texts = [torch.randint(1, 3, (n,), generator=generator).tolist() for n in sizes]
    return texts, torch.randint(0, 4, (30,), generator=generator).mul(2).tolist()


def text_of(chunk: PrefixChunk, row: int, length: int) -> list[int]:
    nodes = chunk.paths[row, : length + 1]
    assert chunk.depths.flatten()[nodes].tolist() == list(range(length + 1))
    start, *text = chunk.tokens.flatten()[nodes].tolist()
    assert start == START
    return text


@pytest.mark.parametrize("max_positions", [1, 9, 40, 10000])
@pytest.mark.parametrize("seed", range(5))
def test_each_hypothesis_and_each_prefix_once(seed: int, max_positions: int) -> None:
    texts, owners = lists(seed)
    seen: list[int] = []
    for chunk in prefix_chunks(texts, owners, START, max_positions):
        rows = chunk.hypotheses.tolist()
        seen += rows
        num_nodes = chunk.tokens.shape[1]
        prefixes = set()
        for row, i in enumerate(rows):
            assert text_of(chunk, row, len(texts[i])) == texts[i]
            (tree,) = set((chunk.paths[row] // num_nodes).tolist())
            assert int(chunk.owners[tree]) == owners[i]
            prefixes |= {(tree, *texts[i][:n]) for n in range(len(texts[i]) + 1)}
        used = chunk.paths.unique()
        assert len(used) == len(prefixes)
        # the place of a node is in a path, at its own depth
        places = chunk.places[used]
        assert torch.equal(chunk.paths.flatten()[places], used)
        assert torch.equal(places % chunk.paths.shape[1], chunk.depths.flatten()[used])
        alone = len(rows) == 1
        assert alone or max(chunk.paths.numel(), chunk.tokens.numel()) <= max_positions
    assert sorted(seen) == list(range(30))


def test_utterances_share_a_chunk_where_they_fit() -> None:
    texts, owners = lists(0)
    (whole,) = prefix_chunks(texts, owners, START, 10000)
    assert sorted(whole.owners.tolist()) == sorted(set(owners))  # one tree each
    assert len(list(prefix_chunks(texts, owners, START, 1))) == 30
    assert list(prefix_chunks([], [], START, 10)) == []
