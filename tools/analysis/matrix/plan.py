"""The matrix file: which configurations are trained, and with what each is compared.

    base = "noisy.toml"            what the cells' files start from, in place of what they include
    set = ["training.x=1"]         changes to all cells
    splits = ["eval1", ...]        decoded, beside valid
    methods = ["1best", ...]       the first is the one that counts

    [[cell]]
    name = "sp-kd"                 a folder, a line of the table
    group = "main"                 a table
    config = "sp_kd.toml"
    set = ["loss.x=1"]
    methods = ["transducer-beam"]  if not those of the matrix
    against = ["standalone-{branch}", "multi-decoder", "heads:1best"]
    primary = "standalone-{branch}"    of these the one that decides: others are corrected
    start = "warm"                 the cell whose run of the same seed this one begins with
    seeds = [0]                    if not all that are asked for

Paths are relative to the matrix file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.configuration import ExperimentConfig
from dualasr_lib.core.config import load, to_dict
from dualasr_lib.model.joint import BRANCHES, Branch
from dualasr_lib.recognition.methods.registry import METHODS

__all__ = ["Baseline", "Cell", "CellConfig", "CorpusConfig", "MatrixConfig", "Run", "plan", "runs"]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The data that are made where there are none."""

    preset: str
    """Of tools/make_open_corpus.py."""
    seed: int = 1
    """Of the corpus; that of training is another."""
    max_length: float = 10.0
    """Seconds up to which prepare.sh joins units to utterances."""


class Baseline(NamedTuple):
    """What a cell is compared with."""

    cell: str
    method: str = ""
    """Empty: the one that the cell itself is decoded with."""


@dataclass(frozen=True, kw_only=True)
class CellConfig:
    """One configuration."""

    name: str
    """Of its folder."""
    config: str
    """TOML file, relative to the matrix file."""
    group: str = "main"
    """The table that it stands in."""
    set: tuple[str, ...] = ()
    """`key=value` changes, after those of the matrix."""
    methods: tuple[str, ...] = ()
    """Search methods, the first of which counts; empty: those of the matrix."""
    against: tuple[str, ...] = ()
    """Baselines by name; {branch} is replaced by the branch that is compared. `name:method`: what
    this cell's first method finds against another method of the baseline (or of this cell itself:
    two searches of the same models)."""
    primary: str = ""
    """Which of `against` is the primary comparison of the group, by the first method. All other
    comparisons of the group are corrected for their number."""
    start: str = ""
    """Name of the cell whose trained weights of the same seed a run begins with (`train.py
    --init-from`); empty: random ones."""
    seeds: tuple[int, ...] = ()
    """Which of the seeds that are asked for; empty: all."""

    def baselines(self, branch: Branch) -> "list[Baseline]":
        """What this one is compared with on `branch`."""
        names = [name.replace("{branch}", branch) for name in self.against]
        return [Baseline(*name.partition(":")[::2]) for name in names]


@dataclass(frozen=True, kw_only=True)
class MatrixConfig:
    """The whole matrix."""

    base: str
    """TOML file that all cells start from."""
    corpus: CorpusConfig
    set: tuple[str, ...] = ()
    """`key=value` changes to all cells."""
    splits: tuple[str, ...] = ("eval1", "eval2", "eval3")
    """Decoded beside `valid`, and pooled in the tables."""
    methods: tuple[str, ...] = ("1best", "attention")
    """Search methods of decode.py; the first is the one that baselines are compared by."""
    cell: tuple[CellConfig, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cell]
        if not names:
            raise ValueError("a matrix must have at least one [[cell]], but has none")
        for name in names:
            if names.count(name) > 1 or not name or Path(name).name != name or name[0] == ".":
                raise ValueError(
                    f"each cell must have its own name, fit for a folder, but one is {name!r}"
                )
        for listed in (self.methods, *(self.methods_of(cell) for cell in self.cell)):
            if any(method not in METHODS for method in listed):
                raise ValueError(f"methods must be some of {list(METHODS)}, but are {list(listed)}")
        lists = [("methods", self.methods_of(cell)) for cell in self.cell]
        for what, values in (("splits", self.splits), ("methods", self.methods), *lists):
            if not values or len(set(values)) < len(values) or "valid" in values:
                raise ValueError(
                    f"{what} must be different ones, at least one, and valid, which is decoded "
                    f"anyway, none of them, but are {list(values)}"
                )
        for cell in self.cell:
            for branch in BRANCHES:
                for name, method in cell.baselines(branch):
                    if name not in names:
                        raise ValueError(
                            f"cell {cell.name!r} is against {name!r}, which is no cell"
                        )
                    known = self.methods_of(self.cell[names.index(name)])
                    if method and method not in known:
                        raise ValueError(
                            f"cell {cell.name!r} is against method {method!r} of {name!r}, which "
                            f"is decoded with {list(known)}"
                        )
            self._check_start(cell)
        self._check_primary()

    def methods_of(self, cell: CellConfig) -> tuple[str, ...]:
        """Search methods of a cell, the one that counts first."""
        return cell.methods or self.methods

    def all_methods(self) -> tuple[str, ...]:
        """Those of the matrix, then those of cells alone."""
        own = (method for cell in self.cell for method in cell.methods)
        return tuple(dict.fromkeys((*self.methods, *own)))

    def _check_start(self, cell: CellConfig) -> None:
        starts = {other.name: other.start for other in self.cell}
        if cell.start and starts.get(cell.start, "more") != "":
            raise ValueError(
                f"cell {cell.name!r} must start from a cell that itself starts from none, but "
                f"its start is {cell.start!r}"
            )

    def _check_primary(self) -> None:
        primary: dict[str, str] = {}
        for cell in self.cell:
            if not cell.primary:
                continue
            if cell.primary not in cell.against:
                raise ValueError(
                    f"the primary comparison of cell {cell.name!r} must be one of its `against`, "
                    f"{list(cell.against)}, but is {cell.primary!r}"
                )
            other = primary.setdefault(cell.group, cell.name)
            if other != cell.name:
                raise ValueError(
                    f"group {cell.group!r} must have one primary comparison, but "
                    f"{other!r} and {cell.name!r} have one"
                )


class Cell(NamedTuple):
    """A configuration with everything that train.py needs."""

    config: CellConfig
    file: Path
    base: Path
    set: tuple[str, ...]
    """All changes, the matrix's first."""
    start: "Cell | None" = None
    """The cell whose weights it begins with."""

    def experiment(self, seed: int) -> ExperimentConfig:
        """The whole configuration of a run; ValueError if it cannot be."""
        changes = [*self.set, f"training.seed={seed}"]
        return load(ExperimentConfig, self.file, changes, self.base, option="set")


class Run(NamedTuple):
    """One training of a cell."""

    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        """Also its folder: <cell>/seed-<n>."""
        return f"{self.cell.config.name}/seed-{self.seed}"

    def before(self) -> "tuple[Run, ...]":
        """The run whose weights it begins with, if there is one."""
        return () if self.cell.start is None else (Run(self.cell.start, self.seed),)

    def values(self) -> dict[str, Any]:
        """The whole configuration as plain values."""
        return to_dict(self.cell.experiment(self.seed))


def plan(
    path: Path, base: Path | None, assignments: Sequence[str]
) -> tuple[MatrixConfig, list[Cell]]:
    """The matrix of file `path`, each configuration checked; with the base and the changes that are
    used, not those of the file.

    Args:
        base: in place of the matrix's.
        assignments: `key=value` changes to all cells, after the matrix's own.

    Raises:
        ValueError: a file that is missing or malformed; the message names the cell.
    """
    config = load(MatrixConfig, path)
    folder = path.resolve().parent
    start = (folder / config.base if base is None else base).resolve()
    cells = [
        Cell(cell, folder / cell.config, start, (*config.set, *cell.set, *assignments))
        for cell in config.cell
    ]
    by_name = {cell.config.name: cell for cell in cells}
    cells = [cell._replace(start=by_name.get(cell.config.start)) for cell in cells]
    config = replace(config, base=start.name, set=(*config.set, *assignments))
    for cell in cells:
        try:
            cell.experiment(0)
        except ValueError as error:
            raise ValueError(f"cell {cell.config.name!r} of {path}: {error}") from None
    return config, cells


def runs(
    cells: Sequence[Cell], seeds: Sequence[int], groups: Sequence[str], names: Sequence[str]
) -> list[Run]:
    """The runs that are asked for, seed by seed, so that a matrix that is stopped early has whole
    tables of fewer seeds; before a run that starts from another cell's weights that one.

    Args:
        groups, names: cells of these; neither given: all.

    Raises:
        ValueError: no such group or cell.
    """
    for kind, asked, known in (
        ("group", groups, {cell.config.group for cell in cells}),
        ("cell", names, {cell.config.name for cell in cells}),
    ):
        unknown = sorted(set(asked) - known)
        if unknown:
            raise ValueError(f"there is no {kind} {unknown[0]!r}; there are {sorted(known)}")
    chosen = [
        cell
        for cell in cells
        if not (groups or names) or cell.config.group in groups or cell.config.name in names
    ]
    found = [
        Run(cell, seed)
        for seed in dict.fromkeys(seeds)
        for cell in chosen
        if not cell.config.seeds or seed in cell.config.seeds
    ]
    return list(dict.fromkeys(run for last in found for run in (*last.before(), last)))
