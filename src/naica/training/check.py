"""The physics contract: what every model must obey, whoever wrote or trained it. `naica check MODEL` prints the table.

After facts common to all models of matter: how atoms are numbered, where the crystal lies and which cell describes it must not matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from naica.errors import InputError, NaicaError
from naica.fields import FIELDS
from naica.graphs.batch import Batch
from naica.graphs.graphset import GraphSet
from naica.nn.segment import mean_systems
from naica.runtime import tune
from naica.structure import Crystal
from naica.structure.elements import element
from naica.training.ensemble import Ensemble
from naica.training.property import PropertyModel

Array = NDArray[np.float64]

GEOMETRY = 1e-4
"""Tolerance where the graph is built anew (its vectors have 32 bits), in standard deviations of the target."""
SAME_GRAPH = 2e-6
"""Tolerance for the same graph in 64 bits."""
PRECISION = 2e-4
"""Tolerance between 32 and 64 bits."""


@dataclass(frozen=True)
class Row:
    """One law: its name, what was done, the largest error in the report's unit, the tolerance, and what broke it.

    A law that is not `fatal` warns: many good models do not obey it.
    """

    law: str
    what: str
    error: float
    tolerance: float
    note: str = ""
    fatal: bool = True

    @property
    def passed(self) -> bool:
        """Whether the law holds."""
        return bool(self.error <= self.tolerance)

    def line(self, wide: int) -> str:
        """One line of the table, the law in `wide` columns."""
        note = f"  [{self.note}]" if self.note else ""
        mark = "✓" if self.passed else "✗" if self.fatal else "!"
        return f"{mark} {self.law:{wide}}  {self.error:9.1e} ≤ {self.tolerance:.0e}  {self.what}{note}"


@dataclass(frozen=True)
class Report:
    """The contract of one model."""

    model: str
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()
    unit: str = "standard deviations of the target"

    @property
    def passed(self) -> bool:
        """Whether all laws hold that are not mere warnings."""
        return all(row.passed or not row.fatal for row in self.rows)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the laws that do not hold."""
        return tuple(row.law for row in self.rows if not row.passed and row.fatal)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Names of the laws that do not hold and only warn."""
        return tuple(row.law for row in self.rows if not row.passed and not row.fatal)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        rows = [{**asdict(r), "passed": r.passed} for r in self.rows]
        verdict = {"passed": self.passed, "warnings": list(self.warnings)}
        return {"model": self.model, **verdict, "unit": self.unit, "rows": rows, "left_out": list(self.left_out)}

    def __str__(self) -> str:
        wide = max(len(r.law) for r in self.rows)
        lines = [r.line(wide) for r in self.rows]
        verdict = "all laws hold" if self.passed else f"broken: {', '.join(self.failed)}"
        verdict += f"; warnings: {', '.join(self.warnings)}" if self.warnings else ""
        return "\n".join([f"physics contract of {self.model}: {verdict} (errors in {self.unit})", *lines, *self.left_out])


def check(model: Any, crystals: Sequence[Crystal] | None = None, seed: int = 0) -> Report:
    """Try a model against the physics contract.

    Parameters
    ----------
    model : a name, a folder, an `Ensemble`, a corrected model, or a `PropertyModel`
    crystals : to try it on; default: eight fixed ones, among them a one-atom cell, a skewed cell, a slab, a molecule and a lone atom;
        for networks of molecules eight of these
    seed : of the random permutations and rotations

    Returns
    -------
    the report; laws that do not apply to the model are left out, and so are structures it refuses (`left_out` says why)

    Raises
    ------
    InputError
        If the model refuses all of them.
    """
    tune()
    subject = _Subject.of(model)
    structures = list(crystals) if crystals is not None else subject.samples(seed)
    structures, left_out = subject.usable(structures)
    draw = np.random.default_rng(seed)
    rows = [law(subject, structures, draw) for law in _LAWS]
    return Report(subject.name, tuple(row for row in rows if row is not None), left_out)


@dataclass(frozen=True)
class _Subject:
    """A model seen as functions: of crystals, and of batches (its members in 64 bits)."""

    name: str
    members: tuple[PropertyModel, ...]
    saved: Any

    @classmethod
    def of(cls, model: Any) -> _Subject:
        from naica.training.zoo import load

        found = load(model) if isinstance(model, str | Path) else model
        if isinstance(found, PropertyModel):
            return cls(f"{found.architecture} ({found.target.quantity})", (found,), None)
        return cls(found.card.name or "unnamed", tuple(found.members), found)

    @property
    def scale(self) -> float:
        return 1.0 if self.members[0].target.kind == "class" else self.members[0].target.std

    @property
    def extensive(self) -> bool:
        return self.members[0].target.extensive

    def samples(self, seed: int) -> list[Crystal]:
        """What to try it on if nothing is given."""
        needs = self.members[0].needs
        of_molecules = needs.kind in ("bonds", "pairs") or "saao" in needs.levels
        found = molecule_samples(seed) if of_molecules else samples(seed)
        # any state will do, for the laws hold for each; a name counts from 0
        state = dict.fromkeys(needs.state, 0.0)
        return [c.replace(info={**c.info, **state}) for c in found] if state else found

    def usable(self, crystals: Sequence[Crystal]) -> tuple[list[Crystal], tuple[str, ...]]:
        """Those the model has a graph for, and what is left out, with the reason."""
        rejected = GraphSet.build(list(crystals), self.members[0].needs).rejected
        if len(rejected) == len(crystals):
            raise InputError(f"the model refuses every structure it was to be tried on, the first because: {next(iter(rejected.values()))}")
        left_out = tuple(f"left out: {crystals[row].formula}, which the model refuses: {reason}" for row, reason in rejected.items())
        return [c for row, c in enumerate(crystals) if row not in rejected], left_out

    def graphs(self, crystals: Sequence[Crystal]) -> Batch:
        built = GraphSet.build(list(crystals), self.members[0].needs)
        return built.batch(np.arange(len(built)))

    def values(self, crystals: Sequence[Crystal]) -> Array:
        """(M, B) values of the members, or of the corrected members."""
        if self.saved is not None and not isinstance(self.saved, Ensemble):
            return np.asarray(self.saved.predict(list(crystals)).members)
        return self.on(self.graphs(crystals))

    @torch.no_grad()
    def on(self, batch: Batch, dtype: torch.dtype = torch.float64) -> Array:
        """(M, B) values on one batch in some precision, with the weights as they are."""
        found = []
        for member in self.members:
            training = member.training
            member.eval().to(dtype)
            try:
                values = member(batch.to("cpu", dtype)).double()
                # of values of sites their mean: how sites are numbered must not matter
                found.append((mean_systems(values[:, None], batch)[:, 0] if member.target.per_site else values).numpy())
            finally:
                member.to(torch.float32).train(training)
        return np.stack(found)

    def error(self, a: Array, b: Array) -> tuple[Array, float]:
        """Errors per system (B) and the largest, in standard deviations; anything not finite counts as infinite."""
        scale = np.maximum(self.scale, np.abs(a)) if self.extensive else self.scale
        each = np.abs(a - b) / scale
        each = np.where(np.isfinite(each), each, np.inf).max(axis=0)
        return each, float(each.max())


def _same(
    subject: _Subject, law: str, what: str, before: Sequence[Crystal], after: Sequence[Crystal], times: Sequence[float] | None = None
) -> Row:
    """A row that compares two lists of crystals; `times` is how much larger the second ones are."""
    factor = np.asarray(times if times is not None and subject.extensive else np.ones(len(before)))
    each, worst = subject.error(subject.values(before) * factor, subject.values(after))
    k = int(each.argmax())
    note = "" if worst <= GEOMETRY else f"worst: {before[k].formula}, {len(before[k])} atoms"
    return Row(law, what, worst, GEOMETRY, note)


def _permutation(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    orders = [draw.permutation(len(c)) for c in crystals]
    after = [c.replace(numbers=c.numbers[o], positions=c.positions[o]) for c, o in zip(crystals, orders, strict=True)]
    return _same(s, "permutation", "atoms numbered differently", crystals, after)


def _translation(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    moved = [c.replace(positions=c.positions + draw.normal(size=3)) for c in crystals]
    return _same(s, "translation", "everything moved by a random vector", crystals, moved)


def _wrapping(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    after = [c.replace(positions=c.positions + (draw.integers(-2, 3, (len(c), 3)) * c.pbc) @ c.cell) for c in crystals]
    return _same(s, "wrapping", "single atoms moved by whole lattice vectors", crystals, after)


def _rotation(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    turns = [_turn(draw) for _ in crystals]
    after = [c.replace(positions=c.positions @ r.T, cell=c.cell @ r.T) for c, r in zip(crystals, turns, strict=True)]
    return _same(s, "rotation", "everything turned by a random rotation", crystals, after)


def _inversion(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    after = [c.replace(positions=-c.positions, cell=-c.cell) for c in crystals]
    return _same(s, "inversion", "everything mirrored at the origin", crystals, after)


def _supercell(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    periodic = [c for c in crystals if c.pbc.all()]
    if not periodic:
        return None
    after = [c.supercell((2, 1, 2)) for c in periodic]
    what = "cell repeated 2 × 1 × 2: " + ("N times the value" if s.extensive else "the same value")
    return _same(s, "supercell", what, periodic, after, [4.0] * len(periodic))


def _lattice(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    periodic = [c for c in crystals if c.pbc.all()]
    if not periodic:
        return None
    other = np.array([[1, 1, 0], [0, 1, 0], [-1, 0, 1]])
    return _same(s, "lattice", "other lattice vectors for the same crystal", periodic, [c.replace(cell=other @ c.cell) for c in periodic])


def _batch(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    together = s.on(s.graphs(crystals))
    alone = np.concatenate([s.on(s.graphs([c])) for c in crystals], axis=1)
    _, worst = s.error(together, alone)
    return Row("batch = single", "all in one batch against one by one", worst, SAME_GRAPH)


def _edge_order(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    batch = s.graphs(crystals)
    if not batch.n_edges:
        return None
    receiver = batch["edge_receiver"].numpy()
    order = torch.from_numpy(np.lexsort((draw.random(len(receiver)), receiver)))
    edges = {key: value[order] for key, value in batch.items() if key.startswith("edge_")}
    _, worst = s.error(s.on(batch), s.on(Batch({**batch, **edges})))
    return Row("edge order", "edges of each atom shuffled", worst, SAME_GRAPH)


def _repeat(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    batch = s.graphs(crystals)
    _, worst = s.error(s.on(batch), s.on(batch))
    return Row("repeatable", "the same batch twice", worst, 0.0)


def _dtype(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row:
    batch = s.graphs(crystals)
    _, worst = s.error(s.on(batch), s.on(batch, torch.float32))
    return Row("dtype", "32 against 64 bits", worst, PRECISION)


def _volumes(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    batch = s.graphs(crystals)
    if any(FIELDS[key].length_power is None for key in batch if key in FIELDS):
        return None  # volume scans are refused there
    finite = all(np.isfinite(s.on(batch.scaled(f))).all() for f in (0.5, 0.8, 1.25, 3.0))
    return Row("finite", "numbers at half to three times the volume, for a lone atom and a molecule", 0.0 if finite else float("inf"), 0.0)


def _sites(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    if s.members[0].pooling != "sites" or s.members[0].target.kind == "class" or s.members[0].target.per_site:
        return None
    batch = s.graphs(crystals)
    worst = 0.0
    for member in s.members:
        with torch.no_grad():
            values, each = member.eval()(batch), member.sites(batch)
        total = torch.zeros_like(values).index_add_(0, batch["system"], each)
        whole = total if s.extensive else total / batch["n_atoms"]
        worst = max(worst, s.error(values[None].double().numpy(), whole[None].double().numpy())[1])
    return Row("sites", f"{'sum' if s.extensive else 'mean'} of the site contributions is the prediction", worst, PRECISION)


def _saved(s: _Subject, crystals: Sequence[Crystal], draw: np.random.Generator) -> Row | None:
    from naica.training.zoo import load

    if s.saved is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            s.saved.save(Path(folder) / "model")
            again = load(Path(folder) / "model").predict(list(crystals)).members
    except NaicaError as error:
        return Row("save and load", "written, read, compared", float("inf"), 0.0, str(error))
    _, worst = s.error(np.asarray(s.saved.predict(list(crystals)).members), np.asarray(again))
    return Row("save and load", "written, read, compared", worst, 0.0)


_LAWS: tuple[Callable[[_Subject, Sequence[Crystal], np.random.Generator], Row | None], ...] = (
    _permutation,
    _translation,
    _wrapping,
    _rotation,
    _inversion,
    _supercell,
    _lattice,
    _batch,
    _edge_order,
    _repeat,
    _dtype,
    _volumes,
    _sites,
    _saved,
)


def _turn(draw: np.random.Generator) -> Array:
    q, r = np.linalg.qr(draw.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def samples(seed: int = 0) -> list[Crystal]:
    """Eight structures that find out most mistakes: high and low symmetry, one atom, a skewed cell, a slab, a molecule, a lone atom."""
    draw = np.random.default_rng(seed + 1)
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cubic = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    skewed = np.array([[4.1, 0, 0], [2.9, 3.6, 0], [-1.7, 2.2, 5.3]])
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    bcc = np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]])
    return [
        _sample("Na Cl", np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), 5.64 * fcc),
        _sample("Si Si", np.array([[0, 0, 0], [0.25, 0.25, 0.25]]), 5.43 * fcc),
        _sample("Fe", np.zeros((1, 3)), 2.87 * bcc),
        _sample("Sr Ti O O O", np.array(cubic) + 0.02 * draw.normal(size=(5, 3)), 3.9 * np.eye(3)),
        _sample("Mg Al Al O O O", draw.random((6, 3)), 1.3 * skewed),
        _sample("Cu Cu O", np.array([[0, 0, 0.4], [0.5, 0.5, 0.49], [0.04, 0.46, 0.545]]), 2.6 * np.diag([1.0, 1, 8]), (True, True, False)),
        _sample("O H H", water / 10, 10 * np.eye(3), (False, False, False)),
        _sample("Ar", np.zeros((1, 3)), 10 * np.eye(3), (False, False, False)),
    ]


def molecule_samples(seed: int = 0) -> list[Crystal]:
    """Eight molecules with their hydrogens: rings, a triple bond, a nitro group, an amide, a lone atom. They carry no SMILES."""
    from naica.structure.molecule import from_smiles

    texts = ("O", "C#N", "CCO", "c1ccoc1", "C[N+](=O)[O-]", "CC(=O)N", "C1CC1F", "[Ar]")
    # bonds then follow from the geometry, which the laws may renumber and turn
    return [from_smiles(text, hydrogens=True, seed=seed + 1).replace(info={}) for text in texts]


def _sample(symbols: str, fractional: Array, cell: Array, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Crystal:
    return Crystal.from_fractional(np.array([element(s).number for s in symbols.split()]), fractional, cell, np.array(pbc))
