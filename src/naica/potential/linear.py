"""Fits of linear potentials: ridge with a smoothness prior, Bayesian regression by the evidence, relevance determination, pivoted QR.

The unknowns are the coefficients of ACE, one constant per element, and one offset of stresses per element and volume: with a finite basis
of plane waves the pressure of a calculation is off by what its energy lacks (Pulay), which is no property of the potential (2 GPa in the
published copper set, where energies would otherwise be off by milli-electronvolts). Rows of energies (per atom), forces and stresses are
never kept: each part of the data is reduced to the triangle of its QR decomposition as it comes, which holds all that any least-squares
fit needs at full accuracy, whatever the weights. Triangles of the folds of the training set give cross-validated errors of any weights and
any strength of the prior without another look at the data; those with the lowest error are taken.

Prior: coefficient b is expected to be of size ``degree_b^−p``, smaller for wilder functions. The posterior knows how well the data
determine the coefficients, and nothing of what no coefficients can describe: with thousands of rows it shrinks, the misfit and the noise of
the labels stay. An error bar is therefore ``√(s² σ² + f²)`` with the posterior's σ, a factor s and a floor f that make the errors of
held-out frames most likely, for energies and for forces.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import ConfigError, InputError
from naica.graphs.neighbours import within
from naica.models.ace import ACE
from naica.potential.design import VOIGT, DesignMatrix
from naica.potential.frames import Frames
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal
from naica.structure.elements import element, symbol

Floats = NDArray[np.float64]
Method = Literal["ridge", "bayes", "ard", "rrqr"]

FIELDS = ("energy", "forces", "stress")
_ROWS_AT_A_TIME = 6000
# Å, how far nearest neighbours are looked for
_FAR = 5.0
# held-out frames whose single errors make error bars true
_JUDGED = 32
_IMPORTANCE = {"energy": 1.0, "forces": 2.0, "stress": 0.5}


@dataclass(frozen=True, eq=False)
class Example:
    """A structure with its labels: energy in eV, forces (n, 3) in eV/Å, stress (3, 3) in eV/Å³; None where missing; group for weights."""

    crystal: Crystal
    energy: float | None = None
    forces: Floats | None = None
    stress: Floats | None = None
    group: str = ""


@dataclass(frozen=True)
class LinearConfig:
    """How a linear potential is fitted.

    Parameters
    ----------
    method : ``ridge`` with cross-validated strength; ``bayes``: strength and noise by the evidence; ``ard``: a strength for
        every coefficient by the evidence, many are dropped; ``rrqr``: pivoted QR, no prior beyond the scale of the columns
    weights : of the fields' residuals (eV/atom, eV/Å, eV/Å³); None: such that each field counts as much as its cross-validated errors
        say, few energies as much as many forces, times a factor (`balances`) that is cross-validated as well
    importance : shares of the fields in the score that weights and prior are chosen by, the mean of the logarithms of their errors
    balances : factors on the weights of energies and stresses that are tried
    group_weights : factors on all weights of a group's rows
    prior_powers : p that are tried
    folds : parts of the training set for cross-validation
    seed : of the folds
    """

    method: Method = "ridge"
    weights: Mapping[str, float] | None = None
    importance: Mapping[str, float] = field(default_factory=lambda: dict(_IMPORTANCE))
    balances: tuple[float, ...] = (1.0, 0.3)
    group_weights: Mapping[str, float] = field(default_factory=dict)
    prior_powers: tuple[float, ...] = (1.0, 3.0)
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(f"method {self.method!r}; expected one of {', '.join(get_args(Method))}")
        if self.folds < 2:
            raise ConfigError(f"{self.folds} folds; expected at least 2")
        for given in (self.weights or {}, self.importance):
            if unknown := sorted(set(given) - set(FIELDS)):
                raise ConfigError(f"weight of {unknown[0]!r}; expected {', '.join(FIELDS)}")


# --- triangles ---------------------------------------------------------------------------------------------------------------------------
class Triangle:
    """Rows (m, C + 1), the last column the values, reduced to the triangle of their QR decomposition as they come."""

    def __init__(self, columns: int) -> None:
        self.columns, self.count = columns, 0
        self._kept = torch.zeros(0, columns + 1, dtype=torch.float64)
        self._new: list[Tensor] = []
        self._waiting = 0

    def add(self, rows: Tensor, values: Tensor) -> None:
        """More rows (m, C) with values (m)."""
        self._new.append(torch.cat([rows, values[:, None]], dim=1))
        self._waiting += len(rows)
        self.count += len(rows)
        if self._waiting >= max(_ROWS_AT_A_TIME, 2 * self.columns):
            self._reduce()

    def _reduce(self) -> None:
        self._kept = torch.cat([self._kept, *self._new])
        self._new, self._waiting = [], 0
        if len(self._kept) > self.columns + 1:
            self._kept = torch.linalg.qr(self._kept, mode="r")[1]

    @property
    def rows(self) -> Tensor:
        """(at most C + 1, C + 1): as good as all the rows in any least-squares fit."""
        if self._waiting:
            self._reduce()
        return self._kept


@dataclass(frozen=True, eq=False)
class Gram:
    """Normal equations of some rows: matrix (C, C), right side (C), squares of the values, how many rows."""

    matrix: Tensor
    right: Tensor
    square: float
    count: int

    @classmethod
    def of(cls, triangle: Triangle) -> Gram:
        """Of a triangle."""
        product = triangle.rows.T @ triangle.rows
        return cls(product[:-1, :-1], product[:-1, -1], float(product[-1, -1]), triangle.count)

    def __add__(self, other: Gram) -> Gram:
        return Gram(self.matrix + other.matrix, self.right + other.right, self.square + other.square, self.count + other.count)

    def squares(self, coefficients: Tensor) -> Floats:
        """(k) sums of squared residuals of k sets of coefficients (C, k)."""
        found = (coefficients * (self.matrix @ coefficients)).sum(0) - 2 * (self.right @ coefficients) + self.square
        return np.asarray(found.clamp(min=0.0).numpy(), dtype=np.float64)

    def rmse(self, coefficients: Tensor) -> float:
        """Root mean square residual."""
        return float(np.sqrt(self.squares(coefficients[:, None])[0] / max(self.count, 1)))


@dataclass(frozen=True, eq=False)
class Reduced:
    """A training set as triangles: one for each fold and field.

    Parameters
    ----------
    triangles : by fold, by field
    references : energy of each element in eV, by least squares
    costs, orders : (C) degree and order of each column; constants and offsets have order 0
    seconds : of the processor
    """

    triangles: tuple[dict[str, Triangle], ...]
    references: dict[int, float]
    costs: Floats
    orders: NDArray[np.int64]
    seconds: float

    @property
    def columns(self) -> int:
        """Coefficients and constants."""
        return len(self.costs)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that have labels."""
        return tuple(f for f in FIELDS if any(t[f].count for t in self.triangles))


def reference_energies(examples: Sequence[Example], elements: Sequence[int]) -> dict[int, float]:
    """Energies of elements by least squares on the compositions of labelled frames."""
    labelled = [e for e in examples if e.energy is not None]
    if not labelled:
        return dict.fromkeys(elements, 0.0)
    shares = np.array([[np.mean(e.crystal.numbers == z) for z in elements] for e in labelled])
    per_atom = np.array([float(e.energy) / len(e.crystal) for e in labelled if e.energy is not None])
    found = np.linalg.lstsq(shares, per_atom, rcond=1e-10)[0]
    return {z: float(v) for z, v in zip(elements, found, strict=True)}


def reduced(model: ACE, examples: Sequence[Example], config: LinearConfig, progress: bool = False) -> Reduced:
    """All rows of a training set, reduced to triangles.

    Raises
    ------
    InputError
        If there are fewer frames than folds, or no labels.
    """
    if len(examples) < config.folds:
        raise InputError(f"{len(examples)} frames in {config.folds} folds; expected at least one each")
    began = time.process_time()
    numbers = [int(z) for z in model.numbers]  # type: ignore[union-attr]
    references = reference_energies(examples, numbers)
    design = DesignMatrix(model)
    columns = design.columns + 2 * len(numbers)
    triangles = tuple({f: Triangle(columns) for f in FIELDS} for _ in range(config.folds))
    fold_of = _folds(len(examples), config)
    for example, fold in zip(_shown(examples, progress), fold_of, strict=True):
        _add(design, example, triangles[fold], references, numbers, config.group_weights.get(example.group, 1.0))
    one = np.concatenate([model.costs] * len(numbers)), np.concatenate([model.orders] * len(numbers))
    ones, zeros = np.ones(2 * len(numbers)), np.zeros(2 * len(numbers), dtype=np.int64)
    found = Reduced(
        triangles,
        references,
        np.concatenate([one[0], ones]),
        np.concatenate([one[1], zeros]),
        time.process_time() - began,
    )
    if not found.fields:
        raise InputError("no frame has an energy, forces or stress; expected at least one of them")
    return found


def _folds(count: int, config: LinearConfig) -> NDArray[np.int64]:
    """(count) the fold of each frame."""
    return np.random.default_rng(config.seed).permutation(count) % config.folds


def _add(
    design: DesignMatrix, example: Example, to: dict[str, Triangle], references: Mapping[int, float], numbers: list[int], weight: float
) -> None:
    crystal, none = example.crystal, torch.zeros(len(numbers), dtype=torch.float64)
    rows = design.rows(crystal, forces=example.forces is not None, stress=example.stress is not None)
    n = len(crystal)
    shares = torch.tensor([float(np.mean(crystal.numbers == z)) for z in numbers], dtype=torch.float64)
    if example.energy is not None:
        left = example.energy - sum(references[int(z)] for z in crystal.numbers) - float(rows.fixed["energy"])
        row = torch.cat([rows.energy / n, shares, none])[None]
        to["energy"].add(weight * row, torch.tensor([weight * left / n], dtype=torch.float64))
    if example.forces is not None and rows.forces is not None:
        values = torch.from_numpy(np.asarray(example.forces, dtype=np.float64).reshape(-1)) - rows.fixed["forces"]
        to["forces"].add(weight * torch.cat([rows.forces, none.repeat(3 * n, 2)], dim=1), weight * values)
    if example.stress is not None and rows.stress is not None:
        values = torch.tensor([float(example.stress[a, b]) for a, b in VOIGT], dtype=torch.float64) - rows.fixed["stress"]
        density = shares * (n / abs(float(np.linalg.det(crystal.cell))))
        offset = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)[:, None] * density
        to["stress"].add(weight * torch.cat([rows.stress, none.repeat(6, 1), offset], dim=1), weight * values)


def _shown(examples: Sequence[Example], progress: bool) -> Iterable[Example]:
    if not progress:
        return examples
    from rich.console import Console
    from rich.progress import track

    return track(examples, "design matrix", console=Console(stderr=True))


# --- fits --------------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Choice:
    """What a fit was made with, and how well it predicts frames it has not seen.

    Parameters
    ----------
    weights : of the residuals, by field
    power, strength : prior ``strength · degree^2p`` on squared coefficients
    errors : cross-validated root mean square errors: eV/atom, eV/Å, eV/Å³
    score : mean over the fields of their logarithms
    """

    weights: dict[str, float]
    power: float
    strength: float
    errors: dict[str, float]
    score: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """Normal distribution of the coefficients: mean (C) and (C, r) with covariance ``spread spreadᵀ``."""

    mean: Floats
    spread: Floats

    def draws(self, size: int, seed: int = 0) -> Floats:
        """(size, C) coefficients drawn at random."""
        noise = np.random.default_rng(seed).standard_normal((size, self.spread.shape[1]))
        return self.mean + noise @ self.spread.T

    def sigma(self, rows: Floats) -> Floats:
        """(m) standard deviations of what rows (m, C) predict."""
        found: Floats = np.linalg.norm(rows @ self.spread, axis=1)
        return found


@dataclass(frozen=True)
class ErrorBar:
    """``√((factor σ)² + floor²)`` of the posterior's standard deviations σ: eV/atom or eV/Å.

    `rows` held-out errors it was made from; 0: none, σ as it is.
    """

    factor: float = 1.0
    floor: float = 0.0
    rows: int = 0

    def of(self, sigma: Floats) -> Floats:
        """(m) standard deviations → (m)."""
        return np.hypot(self.factor * sigma, self.floor)


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fitted linear potential.

    Parameters
    ----------
    model : energies, forces, stresses
    posterior : of all coefficients, constants and offsets; scaled to the errors of held-out forces
    bars : what the error bars of ``energy`` (per atom) and ``forces`` are made of beside it
    references : energies of the elements the constants are on top of, eV by atomic number
    choice : weights, prior, cross-validated errors
    training : root mean square errors on the training set
    pulay : by element, eV: the labels' diagonal stresses are this much per atom and volume above those of the potential
    seconds : of the processor, for the design matrix and for the fit
    """

    model: PotentialModel
    posterior: Posterior
    references: dict[int, float]
    choice: Choice
    training: dict[str, float]
    pulay: dict[str, float]
    seconds: tuple[float, float]
    bars: dict[str, ErrorBar] = field(default_factory=dict)

    def committee(self, size: int, seed: int = 0) -> list[PotentialModel]:
        """Potentials with coefficients drawn from the posterior. Their spread has no floor: it is the posterior's part of an error bar."""
        return [potential_of(self.model.backbone.config, self.references, draw) for draw in self.posterior.draws(size, seed)]  # type: ignore[union-attr, arg-type]

    def uncertainty(self, crystal: Crystal) -> tuple[float, Floats]:
        """Error bars (standard deviations) of the energy (eV) and of the forces (n, 3) in eV/Å."""
        backbone = self.model.backbone
        rows = DesignMatrix(backbone).rows(crystal, stress=False)  # type: ignore[arg-type]
        numbers = [int(z) for z in backbone.numbers]  # type: ignore[union-attr]
        counts = np.array([float(np.sum(crystal.numbers == z)) for z in numbers])
        assert rows.forces is not None
        energy = np.concatenate([rows.energy.numpy(), counts, 0 * counts])[None]
        forces = np.concatenate([rows.forces.numpy(), np.zeros((3 * len(crystal), 2 * len(numbers)))], axis=1)
        n = len(crystal)
        energies = self.bars.get("energy", ErrorBar()).of(self.posterior.sigma(energy / n))
        return n * float(energies[0]), self.bars.get("forces", ErrorBar()).of(self.posterior.sigma(forces)).reshape(-1, 3)

    def report(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "choice": asdict(self.choice),
            "training": self.training,
            "pulay": self.pulay,
            "seconds": list(self.seconds),
            "error_bars": {name: asdict(bar) for name, bar in self.bars.items()},
        }

    def save(self, path: str | Path) -> None:
        """The posterior beside a saved model: one compressed file."""
        bars: dict[str, Any] = {name: np.array([bar.factor, bar.floor]) for name, bar in self.bars.items()}
        np.savez_compressed(path, mean=self.posterior.mean, spread=self.posterior.spread.astype(np.float32), **bars)


def examples_of(frames: Frames, groups: str = "group") -> list[Example]:
    """Frames one by one; `groups` is the column the weights of groups are about."""
    found = []
    names = frames.text(groups)
    energy, forces, stress = (frames.labels.get(name) for name in FIELDS)
    for i, name in enumerate(names):
        atoms = slice(int(frames.starts[i]), int(frames.starts[i + 1]))
        found.append(
            Example(
                frames.table[i],
                None if energy is None or not np.isfinite(energy[i]) else float(energy[i]),
                None if forces is None or not np.isfinite(forces[atoms]).all() else forces[atoms],
                None if stress is None or not np.isfinite(stress[i]).all() else stress[i],
                name,
            )
        )
    return found


def fit_linear(
    frames: Frames | Sequence[Example],
    architecture: ACE.Config | None = None,
    config: LinearConfig | None = None,
    progress: bool = False,
) -> LinearFit:
    """Fit ACE to labelled frames; ``.model`` of what comes back is the potential.

    Parameters
    ----------
    architecture : None: ACE's defaults with the elements of the frames

    Raises
    ------
    InputError
        If there are no labels, fewer frames than folds, or elements the configuration does not list.
    """
    examples = frames if isinstance(frames, Sequence) else examples_of(frames)
    config = config or LinearConfig()
    model = ACE(architecture or ACE.Config(elements=elements_of(examples)))
    return solved(model, reduced(model, examples, config, progress), config, examples=examples)


def elements_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """Symbols that occur, by atomic number."""
    return tuple(symbol(int(z)) for z in np.unique(np.concatenate([e.crystal.numbers for e in examples])))


def solved(
    model: ACE, data: Reduced, config: LinearConfig, choice: Choice | None = None, examples: Sequence[Example] | None = None
) -> LinearFit:
    """Choose weights and prior (unless they are given), and solve; with the examples the data were made of, make error bars true."""
    began = time.process_time()
    grams = _grams(data)
    whole = {f: _sum(g[f] for g in grams) for f in data.fields}
    choice = choice or chosen(data, grams, config)
    if config.method == "bayes":
        choice = by_evidence(data, grams, whole, choice)
    penalty = _penalty(data, choice)
    if config.method == "ard":
        penalty = _relevance(whole, choice, penalty)
    mean, root = _solution(data, choice.weights, penalty, config.method)
    bars: dict[str, ErrorBar] = {}
    scale = _calibration(data, grams, choice) if config.method != "rrqr" else 1.0
    if examples is not None and config.method != "rrqr":
        scale, bars = _calibrated(model, data, grams, config, choice, penalty, examples, scale)
    spread = torch.linalg.solve_triangular(root, torch.eye(len(root), dtype=torch.float64), upper=True) * scale
    full = torch.zeros(data.columns, len(root), dtype=torch.float64)
    active = torch.from_numpy(np.flatnonzero(np.isfinite(penalty)))
    full[active] = spread
    coefficients = torch.zeros(data.columns, dtype=torch.float64)
    coefficients[active] = mean
    training = {f: g.rmse(coefficients) for f, g in whole.items()}
    potential = potential_of(model.config, data.references, coefficients.numpy())
    posterior = Posterior(coefficients.numpy(), full.numpy())
    offsets = coefficients[-len(model.config.elements) :].tolist()
    pulay = dict(zip(model.config.elements, offsets, strict=True)) if "stress" in data.fields else {}
    return LinearFit(potential, posterior, data.references, choice, training, pulay, (data.seconds, time.process_time() - began), bars)


def _grams(data: Reduced) -> list[dict[str, Gram]]:
    return [{f: Gram.of(t[f]) for f in data.fields} for t in data.triangles]


def potential_of(architecture: ACE.Config, references: Mapping[int, float], coefficients: Floats) -> PotentialModel:
    """The potential with given coefficients and constants (C), the latter on top of references in eV by atomic number."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(architecture).items()}
    numbers = [element(name).number for name in architecture.elements]
    split = len(coefficients) - 2 * len(numbers)
    shifts = dict(zip(numbers, coefficients[split : split + len(numbers)].tolist(), strict=True))
    new = PotentialModel("ace", settings, references={z: references[z] + shifts[z] for z in numbers}).double()
    with torch.no_grad():
        weights = cast(torch.nn.Parameter, new.backbone.coefficients)
        weights.copy_(torch.from_numpy(coefficients[:split]).view_as(weights))
    return new.requires_grad_(False)


def _sum(grams: Iterable[Gram]) -> Gram:
    first, *others = list(grams)
    for other in others:
        first = first + other
    return first


def _sizes(data: Reduced, power: float) -> Floats:
    """(C) inverse of the expected size of each coefficient."""
    return np.asarray(data.costs**power, dtype=np.float64)


def _penalty(data: Reduced, choice: Choice) -> Floats:
    """(C) of the prior: what the square of each coefficient costs."""
    return choice.strength * _sizes(data, choice.power) ** 2


def _weighted(grams: Mapping[str, Gram], weights: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    first = next(iter(grams.values()))
    matrix, right = torch.zeros_like(first.matrix), torch.zeros_like(first.right)
    for name, gram in grams.items():
        matrix.add_(gram.matrix, alpha=weights.get(name, 0.0) ** 2)
        right.add_(gram.right, alpha=weights.get(name, 0.0) ** 2)
    return matrix, right


def chosen(data: Reduced, grams: list[dict[str, Gram]], config: LinearConfig) -> Choice:
    """Weights and prior with the lowest cross-validated errors."""
    if config.weights is not None:
        return _scan(data, grams, dict(config.weights), config)
    counts = {f: sum(g[f].count for g in grams) for f in data.fields}
    first = _scan(data, grams, _first_weights(data, grams), replace(config, prior_powers=config.prior_powers[:1]))
    tried = []
    for balance in config.balances:
        rough = _scan(data, grams, _balanced(first.errors, counts, balance), replace(config, prior_powers=(first.power,)))
        tried.append(_scan(data, grams, _balanced(rough.errors, counts, balance), config))
    return min(tried, key=lambda choice: choice.score)


def _balanced(errors: Mapping[str, float], counts: Mapping[str, int], balance: float) -> dict[str, float]:
    """Every field's squares sum up to the same, but for the factor."""
    most = max(counts.values())
    factors = {"energy": balance, "forces": 1.0, "stress": 0.3 * balance}
    return {f: factors[f] * (most / counts[f]) ** 0.5 / max(e, 1e-12) for f, e in errors.items()}


def _first_weights(data: Reduced, grams: list[dict[str, Gram]]) -> dict[str, float]:
    """Before any fit: the inverse of a hundredth of the spread of the values."""
    whole = {f: _sum(g[f] for g in grams) for f in data.fields}
    return {f: 100.0 / max((g.square / max(g.count, 1)) ** 0.5, 1e-9) for f, g in whole.items()}


# of the largest eigenvalue; below that of the first the squares of rounding errors rule
_STRENGTHS = np.logspace(-15, 0, 31)


def _scan(data: Reduced, grams: list[dict[str, Gram]], weights: dict[str, float], config: LinearConfig) -> Choice:
    """The best prior for given weights: one eigenvalue problem per fold and power serves all strengths."""
    best: Choice | None = None
    shares = np.array([config.importance.get(f, 0.0) for f in data.fields])
    for power in config.prior_powers:
        inverse = torch.from_numpy(1.0 / _sizes(data, power))
        squares = np.zeros((len(data.fields), len(_STRENGTHS)))
        strengths = torch.zeros(0)
        for held, own in enumerate(grams):
            rest = {f: _sum(g[f] for i, g in enumerate(grams) if i != held) for f in data.fields}
            matrix, right = _weighted(rest, weights)
            values, vectors = torch.linalg.eigh(matrix * inverse[:, None] * inverse[None, :])
            if not held:
                strengths = torch.from_numpy(_STRENGTHS) * values[-1]
            damped = (vectors.T @ (right * inverse))[:, None] / (values.clamp(min=0.0)[:, None] + strengths[None, :])
            many = inverse[:, None] * (vectors @ damped)
            squares += np.stack([own[f].squares(many) for f in data.fields])
        counts = np.array([max(sum(g[f].count for g in grams), 1) for f in data.fields])
        errors = np.sqrt(squares / counts[:, None])
        score = shares @ np.log(np.maximum(errors, 1e-12)) / shares.sum()
        i = int(np.argmin(score))
        found = Choice(
            dict(weights), power, float(strengths[i]), dict(zip(data.fields, errors[:, i].tolist(), strict=True)), float(score[i])
        )
        if best is None or found.score < best.score:
            best = found
    assert best is not None
    return best


def by_evidence(data: Reduced, grams: list[dict[str, Gram]], whole: dict[str, Gram], start: Choice, steps: int = 60) -> Choice:
    """Strength of the prior and noise that make the data most probable (MacKay's fixed point), at the weights and power of `start`.

    One noise for all fields: errors of a basis that is too small are not independent, and where each field has a noise of its own,
    thousands of forces drown the energies (errors of energies of Ge grew from 5 to 50 meV/atom).
    """
    size = torch.from_numpy(_sizes(data, start.power))
    matrix, right = _weighted(whole, start.weights)
    count = sum(g.count for g in whole.values())
    alpha, noise = start.strength, 1.0
    for _ in range(steps):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix / noise + torch.diag(alpha / noise * size**2)))
        c = inverse @ right / noise
        bound = len(size) - alpha / noise * float((size**2 * torch.diagonal(inverse)).sum())
        residual = sum(float(g.squares(c[:, None])[0]) * start.weights[f] ** 2 for f, g in whole.items())
        new_noise = residual / max(count - bound, 1.0)
        new_alpha = new_noise * bound / float((size * c).square().sum())
        moved = abs(np.log(new_alpha / alpha)) + abs(np.log(new_noise / noise))
        noise, alpha = new_noise, new_alpha
        if moved < 1e-3:
            break
    errors = _held_out(data, grams, start.weights, torch.from_numpy(alpha * _sizes(data, start.power) ** 2))
    return Choice(dict(start.weights), start.power, alpha, errors, float("nan"))


def _held_out(data: Reduced, grams: list[dict[str, Gram]], weights: Mapping[str, float], penalty: Tensor) -> dict[str, float]:
    squares, counts = dict.fromkeys(data.fields, 0.0), dict.fromkeys(data.fields, 0)
    for held in range(len(grams)):
        rest = {f: _sum(g[f] for i, g in enumerate(grams) if i != held) for f in data.fields}
        matrix, right = _weighted(rest, weights)
        c = torch.linalg.solve(matrix + torch.diag(penalty), right)
        for f, g in grams[held].items():
            if g.count:
                squares[f] += g.count * g.rmse(c) ** 2
                counts[f] += g.count
    return {f: float(np.sqrt(squares[f] / max(counts[f], 1))) for f in data.fields}


def _relevance(whole: dict[str, Gram], choice: Choice, start: Floats, steps: int = 60) -> Floats:
    """(C) a penalty for each coefficient by the evidence; infinite for those that are dropped."""
    unit = float(np.mean([choice.weights[f] ** 2 * choice.errors[f] ** 2 for f in whole]))
    matrix, right = _weighted(whole, choice.weights)
    matrix, right, penalty = matrix / unit, right / unit, start / unit
    active = np.arange(len(start))
    for _ in range(steps):
        chosen_rows = torch.from_numpy(active)
        h = matrix[chosen_rows][:, chosen_rows] + torch.diag(torch.from_numpy(penalty[active]))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
        c = (inverse @ right[chosen_rows]).numpy()
        bound = 1.0 - penalty[active] * torch.diagonal(inverse).numpy()
        new = np.maximum(bound, 1e-12) / np.maximum(c**2, 1e-300)
        moved = float(np.abs(np.log(new / penalty[active])).max())
        penalty[active] = new
        # what the data say nothing about
        gone = active[bound < 1e-4]
        penalty[gone] = np.inf
        active = active[np.isfinite(penalty[active])]
        if moved < 0.05:
            break
    return penalty * unit


def _solution(data: Reduced, weights: Mapping[str, float], penalty: Floats, method: Method) -> tuple[Tensor, Tensor]:
    """Coefficients of the columns that are kept, and the triangle of the whole problem, by QR of the triangles: no squares are taken."""
    active = torch.from_numpy(np.flatnonzero(np.isfinite(penalty)))
    columns = torch.cat([active, torch.tensor([data.columns])])
    parts = [t[f].rows[:, columns] * weights[f] for t in data.triangles for f in data.fields if weights.get(f, 0.0)]
    if method == "rrqr":
        return _pivoted(torch.cat(parts))
    prior = torch.zeros(len(active), len(columns), dtype=torch.float64)
    prior[:, :-1] = torch.diag(torch.from_numpy(np.sqrt(penalty[active.numpy()])))
    root = torch.linalg.qr(torch.cat([*parts, prior]), mode="r")[1]
    mean = torch.linalg.solve_triangular(root[: len(active), :-1], root[: len(active), -1:], upper=True)[:, 0]
    return mean, root[: len(active), :-1]


def _pivoted(rows: Tensor, tolerance: float = 1e-13) -> tuple[Tensor, Tensor]:
    """The best-conditioned columns fit the values, the others are zero."""
    from scipy.linalg import qr, solve_triangular

    matrix, values = rows[:, :-1].numpy(), rows[:, -1].numpy()
    scale = np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    q, r, order = qr(matrix / scale, mode="economic", pivoting=True)
    rank = int((np.abs(np.diag(r)) > tolerance * abs(r[0, 0])).sum())
    mean = np.zeros(matrix.shape[1])
    mean[order[:rank]] = solve_triangular(r[:rank, :rank], q[:, :rank].T @ values)
    root = np.eye(matrix.shape[1]) * 1e12
    root[np.ix_(order[:rank], order[:rank])] = r[:rank, :rank]
    return torch.from_numpy(mean / scale), torch.from_numpy(np.linalg.qr(root * scale[None, :], mode="r"))


def _calibration(data: Reduced, grams: list[dict[str, Gram]], choice: Choice) -> float:
    """Factor on the posterior's standard deviations: held-out squared errors of forces (or of what there is) over predicted variances."""
    name = "forces" if "forces" in data.fields else data.fields[0]
    penalty = torch.from_numpy(_penalty(data, choice))
    squares, variances = 0.0, 0.0
    for held in range(len(grams)):
        gram = grams[held][name]
        if not gram.count:
            continue
        rest = {f: _sum(g[f] for i, g in enumerate(grams) if i != held) for f in data.fields}
        matrix, right = _weighted(rest, choice.weights)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix + torch.diag(penalty)))
        squares += gram.count * gram.rmse(inverse @ right) ** 2
        variances += float((gram.matrix * inverse).sum())
    return float(np.sqrt(squares / max(variances, 1e-300)))


def _calibrated(
    model: ACE,
    data: Reduced,
    grams: list[dict[str, Gram]],
    config: LinearConfig,
    choice: Choice,
    penalty: Floats,
    examples: Sequence[Example],
    otherwise: float,
) -> tuple[float, dict[str, ErrorBar]]:
    """Factor on the posterior's spread, and the error bars beside it, from single errors of frames of one fold by a fit of the others."""
    active = torch.from_numpy(np.flatnonzero(np.isfinite(penalty)))
    rest = {f: _sum(g[f] for g in grams[1:]) for f in data.fields}
    matrix, right = _weighted(rest, choice.weights)
    root = torch.linalg.cholesky(matrix[active][:, active] + torch.diag(torch.from_numpy(penalty[active.numpy()])))
    mean = torch.cholesky_solve(right[active, None], root)[:, 0]
    held = np.flatnonzero(_folds(len(examples), config) == 0)
    held = np.random.default_rng([config.seed, 3]).permutation(held)[:_JUDGED]
    numbers, design = [int(z) for z in model.numbers], DesignMatrix(model)  # type: ignore[union-attr]
    found: dict[str, tuple[list[Floats], list[Floats]]] = {"energy": ([], []), "forces": ([], [])}
    for k in held:
        each = {f: Triangle(data.columns) for f in FIELDS}
        _add(design, replace(examples[int(k)], stress=None), each, data.references, numbers, 1.0)
        for name, (errors, sigmas) in found.items():
            if each[name].count:
                raw = torch.cat(each[name]._new)
                rows = raw[:, :-1][:, active]
                errors.append((rows @ mean - raw[:, -1]).numpy())
                sigmas.append(torch.linalg.vector_norm(torch.linalg.solve_triangular(root, rows.T, upper=False), dim=0).numpy())
    told = {name: (np.concatenate(e), np.concatenate(s)) for name, (e, s) in found.items() if e}
    first = "forces" if "forces" in told else next(iter(told), None)
    if first is None:
        return otherwise, {}
    bars = {name: error_bar(e, s) for name, (e, s) in told.items()}
    scale = bars[first].factor
    # the posterior itself takes the factor of the forces, so that members of a committee differ by it
    return scale, {name: replace(bar, factor=bar.factor / scale) for name, bar in bars.items()}


def error_bar(errors: Floats, sigma: Floats) -> ErrorBar:
    """Factor and floor under which errors (m) with standard deviations σ (m) are most likely, if they are normal.

    For a given ratio ρ of floor to factor the likeliest factor is ``√⟨e² / (σ² + ρ²)⟩``; ρ is found on a grid that reaches from no floor
    to nothing but the floor. What symmetry keeps at zero does not count.
    """
    free = sigma > 1e-6 * sigma.max(initial=1e-300)
    e, v = errors[free] ** 2, sigma[free] ** 2
    if len(e) < 2 or not e.any():
        return ErrorBar()
    best = (float("inf"), 1.0, 0.0)
    for ratio in (0.0, *np.sqrt(v.mean()) * np.logspace(-3, 3, 61)):
        spread = v + ratio**2
        square = float((e / spread).mean())
        loss = float(np.log(square) + np.log(spread).mean())
        if loss < best[0]:
            best = (loss, square**0.5, square**0.5 * float(ratio))
    return ErrorBar(best[1], best[2], len(e))


# --- which basis -------------------------------------------------------------------------------------------------------------------------
REACHES = (1.5, 1.7, 1.9, 2.1, 2.4)
"""Cut-offs that are tried, in distances of nearest neighbours."""
LEVELS: tuple[tuple[float, ...], ...] = ((13.0, 10.0), (16.0, 13.0, 10.0), (17.0, 14.0, 12.0), (19.0, 16.0, 13.0))
"""Degrees that are tried one after the other; about 210, 660, 1060, 1890 invariants of one element at an l_weight of 1."""


@dataclass(frozen=True)
class Tried:
    """A configuration, the best fit on it, and what it cost (seconds of the processor)."""

    architecture: ACE.Config
    choice: Choice
    seconds: float


def search(
    frames: Frames | Sequence[Example],
    config: LinearConfig | None = None,
    seconds: float = 300.0,
    few: int = 60,
    by_group: bool = False,
    progress: bool = False,
    **fixed: Any,
) -> tuple[LinearFit, list[Tried]]:
    """Fit ACE with the cut-off and the degrees that have the lowest cross-validated errors, within a time.

    Cut-offs are compared on a few of the frames with a small basis, degrees then on all frames, until a larger basis gains less than 1 %
    or would not be done in time.

    Parameters
    ----------
    seconds : of the processor
    few : how many frames the cut-offs are compared on
    by_group : weight groups of frames by the errors of the small basis on them (`noise_weights`); the cross-validated errors are then
        weighted ones
    fixed : settings of ACE that stay as they are
    """
    examples = frames if isinstance(frames, Sequence) else examples_of(frames)
    config = config or LinearConfig()
    elements = elements_of(examples)
    sizes = sizes_of(examples, elements)
    base = {"elements": elements, "sizes": sizes, "l_weight": 1.0, **fixed}
    small = {**base, "degrees": LEVELS[0], "pair_functions": 10}
    some, quick = _some(examples, max(few, 2 * config.folds), config.seed), replace(config, balances=config.balances[-1:])
    reaches = [base["cutoff"]] if "cutoff" in base else [round(r * 2 * float(np.mean(sizes)), 2) for r in REACHES]
    rough = [_tried(ACE.Config(**{**small, "cutoff": r}), some, quick, progress) for r in reaches]
    nearest = min(rough, key=lambda pair: pair[0].choice.score)
    base["cutoff"] = nearest[0].architecture.cutoff
    tried = [pair[0] for pair in rough]
    if by_group:
        first = solved(ACE(nearest[0].architecture), nearest[1], quick, nearest[0].choice)
        config = replace(config, group_weights=noise_weights(first, some))
    best: tuple[Tried, Reduced] | None = None
    for degrees in [base["degrees"]] if "degrees" in base else LEVELS[1:]:
        # the next basis takes about three times as long as this one
        if best is not None and sum(t.seconds for t in tried) + 3 * best[0].seconds > seconds:
            break
        found = _tried(ACE.Config(**{**base, "degrees": degrees}), examples, config, progress)
        tried.append(found[0])
        if best is not None and found[0].choice.score > best[0].choice.score - 0.01:
            break
        best = found
    assert best is not None
    fit = solved(ACE(best[0].architecture), best[1], config, best[0].choice, examples)
    return fit, tried


_MOST_WEIGHT = 4.0


def noise_weights(fit: LinearFit, examples: Sequence[Example]) -> dict[str, float]:
    """Weights of groups by how well a fit does on them: the inverse of their errors of energies and forces against those of all frames.

    What a basis can not describe (surfaces, say) then does not spoil what it can (strained crystals); no weight is beyond 1/4 or 4.
    """
    energy: dict[str, list[float]] = defaultdict(list)
    forces: dict[str, list[float]] = defaultdict(list)
    for e in examples:
        found = fit.model.compute(Systems.of(e.crystal).batch(fit.model.cutoff))
        if e.energy is not None:
            energy[e.group].append(((float(found.energy[0]) - e.energy) / len(e.crystal)) ** 2)
        if e.forces is not None:
            forces[e.group].append(float(((found.forces.numpy() - e.forces) ** 2).mean()))
    groups = sorted({e.group for e in examples})
    if len(groups) < 2:
        return {}
    logs = dict.fromkeys(groups, 0.0)
    for squares in (energy, forces):
        overall = np.mean([v for values in squares.values() for v in values]) if squares else 1.0
        for name, values in squares.items():
            logs[name] += 0.25 * float(np.log(max(np.mean(values), 1e-12 * overall) / overall))
    return {name: float(np.clip(np.exp(-log), 1 / _MOST_WEIGHT, _MOST_WEIGHT)) for name, log in logs.items()}


def _tried(architecture: ACE.Config, examples: Sequence[Example], config: LinearConfig, progress: bool) -> tuple[Tried, Reduced]:
    began = time.process_time()
    data = reduced(ACE(architecture), examples, config, progress)
    choice = chosen(data, _grams(data), config)
    return Tried(architecture, choice, time.process_time() - began), data


def _some(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    order = np.random.default_rng(seed).permutation(len(examples))[:count]
    return [examples[i] for i in sorted(order.tolist())]


def sizes_of(examples: Sequence[Example], elements: Sequence[str]) -> tuple[float, ...]:
    """Half of the usual distance of nearest neighbours of each element (Å), from up to 40 frames.

    Where an element never has its own kind near, half of its covalent bond stands in.
    """
    nearest: dict[int, list[float]] = {element(s).number: [] for s in elements}
    for example in _some(examples, 40, 0):
        crystal = example.crystal
        edges = within(crystal.positions, crystal.cell, crystal.pbc, _FAR)
        same = crystal.numbers[edges.receiver] == crystal.numbers[edges.sender]
        for z in np.unique(crystal.numbers).tolist():
            mine = same & (crystal.numbers[edges.receiver] == z)
            first = np.full(len(crystal), np.inf)
            np.minimum.at(first, edges.receiver[mine], edges.length[mine])
            nearest[z] += first[np.isfinite(first)].tolist()
    found = []
    for z, distances in nearest.items():
        bond = 2 * element(z).covalent_radius
        usual = float(np.median(distances)) if distances else bond
        found.append(round(min(usual, 1.25 * bond) / 2, 3))
    return tuple(found)
