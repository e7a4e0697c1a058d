"""The tiny tree of CSJ (`tiny_tree`), what prepare.sh makes of it, and a model trained on that."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_training import prepare, run, train_arguments
from tiny_tree import make_corpus


@pytest.fixture(scope="session")
def tiny_csj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny tree, shared by all tests: read only."""
    return make_corpus(tmp_path_factory.mktemp("tiny") / "csj")


@pytest.fixture
def own_csj(tmp_path: Path) -> Path:
    """A tiny tree to damage."""
    return make_corpus(tmp_path / "csj")


@pytest.fixture
def make_csj(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a tiny tree of a given name under the test's folder."""
    return lambda name: make_corpus(tmp_path / name)


@pytest.fixture(scope="session")
def data(tiny_csj: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare.sh makes of the tiny tree: read only."""
    folder = tmp_path_factory.mktemp("pipeline") / "data"
    prepare(tiny_csj, folder)
    return folder


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model's training."""
    exp = tmp_path_factory.mktemp("trained") / "exp"
    run("train.py", *train_arguments(data, exp))
    return exp
