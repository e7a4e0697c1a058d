"""Settings of every test: one thread, whatever the machine's load, and a fixed seed."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test that draws without a generator of its own draws the same numbers in every run."""
    torch.manual_seed(0)
