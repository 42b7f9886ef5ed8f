"""Random structure search in the manner of AIRSS: a formula becomes a hundred sensible random crystals, each relaxed to a minimum.

Pickard & Needs, J. Phys. Condens. Matter 23, 053201 (2011); in a discovery loop: Merchant et al., Nature 624, 80 (2023), Methods.
"Sensible" means: some symmetry, a volume near the one atoms in contact take, and no two atoms closer than their species allow.

* **Symmetry.** A space group is drawn; atoms go onto its general and special positions. Positions are not read from tables: the fixed
  points of one or more operations, intersected, are an affine set x = b + A u, and its multiplicity is the size of an orbit on it.
* **Volume.** Drawn around Σ over pairs of (r_i + r_j)³ / n with the contact radii of `naica.discover.volume`, in which eight r³ per atom
  is the volume of atoms in contact for six as for twelve neighbours.
* **Distances.** Each pair of species has a least distance, `separation` × the sum of their contact radii.
* **Push apart.** Overlapping soft spheres move apart, all structures of a formula at once. Displacements follow the symmetry of what
  they are computed from, so a structure keeps its space group. What stays stuck grows by steps of volume, or is drawn anew.
* **Relax** with any potential; a formula counts only if enough of its structures complete (below ten the lowest energy is too high).

Everything is a function of formula, settings and seed, and finished blocks lie in files, so a search killed anywhere goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naica.discover.volume import contact_radii
from naica.errors import InputError, RunError
from naica.structure.composition import format_formula, parse_formula, reduced
from naica.structure.crystal import Crystal
from naica.structure.elements import element

Array = NDArray[np.float64]

_IMAGES = np.array(list(product((-1, 0, 1), repeat=3)), dtype=np.float64)
_REACH = 1.5  # with displacements wrapped into half a cell, the 27 nearest images hold all pairs within 1.5 heights of the cell
_TOLERANCE = 0.02  # share of a least distance that may be missing after the push
_APART = 0.05  # fractional; atoms closer than this are drawn anew
_MISSES = 20
_AVERAGED_EVERY = 5  # steps of a push between two averages over the symmetry
_SWELL = 1.03  # growth of the volume when a push got stuck
_ATTEMPTS = 30  # draws per wanted structure before the search gives up


@dataclass(frozen=True)
class Search:
    """Settings of a random search.

    Parameters
    ----------
    structures : per formula
    least_completed : relaxations that must complete for a formula to count
    max_atoms : largest cell; cells hold as many whole formula units as chance says
    volume_range : smallest and largest volume to draw, in units of the volume of atoms in contact
    separation : least distance of two species in units of the sum of their contact radii
    max_operations : most symmetry operations (of the primitive cell) of the space groups drawn; 1 is no symmetry
    fmax, steps : of the relaxations, eV/Å and steps
    block : structures relaxed, and kept in one file, at a time
    seed : of everything random
    """

    structures: int = 100
    least_completed: int = 10
    max_atoms: int = 20
    volume_range: tuple[float, float] = (0.7, 1.2)
    separation: float = 0.75
    max_operations: int = 48
    fmax: float = 0.1
    steps: int = 200
    block: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.volume_range
        whole = (self.structures, self.least_completed, self.max_atoms, self.max_operations, self.steps, self.block)
        if min(whole) < 1 or not 0 < low <= high or not 0 < self.separation <= 1.2 or not self.fmax > 0:
            raise InputError(f"random search {self}; expected counts from 1, 0 < volumes in order, separation up to 1.2, fmax > 0")


@dataclass(frozen=True)
class Found:
    """What a search of one formula brought: energies (eV/atom) of the completed relaxations in rising order with their structures,
    how many were tried and completed, why the others failed, CPU-independent seconds of relaxing. `counts` says whether enough completed.
    """

    formula: str
    energies: tuple[float, ...]
    crystals: tuple[Crystal, ...]
    tried: int
    completed: int
    failures: Mapping[str, int]
    seconds: float
    counts: bool

    def distinct(self, keep: int) -> list[tuple[float, Crystal]]:
        """The `keep` lowest structures that the matcher tells apart, with their energies."""
        from naica.structure.match import same_structure

        chosen: list[tuple[float, Crystal]] = []
        for energy, crystal in zip(self.energies, self.crystals, strict=True):
            if len(chosen) >= keep:
                break
            # the same minimum has the same energy; only near energies are worth the matcher
            if not any(abs(energy - e) < 0.02 and same_structure(crystal, c) is not None for e, c in chosen):
                chosen.append((energy, crystal))
        return chosen


# --- symmetry ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Group:
    """A space group in its primitive cell: fractional rotations (m, 3, 3) and translations (m, 3), and its kinds of sites.

    A kind of site is (multiplicity, b (3,), A (3, f)): all points b + A u. Kinds with f = 0 can be filled once.
    """

    number: int
    rotations: Array
    translations: Array
    sites: tuple[tuple[int, Array, Array], ...]


@cache
def _group(number: int) -> _Group:
    from naica.structure.prototypes import primitive_operations

    rotations, translations, _ = primitive_operations(number)
    rng = np.random.default_rng(number)
    sites: dict[tuple[Any, ...], tuple[int, Array, Array]] = {}
    order = len(rotations)
    for draw in range(1 + 300 * (order > 1)):
        # the general position first, then points fixed by one, two or three operations and a lattice vector each
        fixed = rng.integers(0, order, size=0 if draw == 0 else 1 + draw % 3)
        shifts = rng.integers(-1, 2, size=(len(fixed), 3))
        space = _fixed_points(rotations[fixed], translations[fixed] + shifts)
        if space is None:
            continue
        base, directions = space
        point = base + directions @ rng.random(directions.shape[1])
        multiplicity = len(_orbit_of(point, rotations, translations))
        # points on one orbit are one kind; lines and planes of one multiplicity are told apart by how they were found only
        where = (
            min(map(tuple, (np.round(_orbit_of(base, rotations, translations), 3) % 1.0).tolist()))
            if not directions.shape[1]
            else (draw % 3,)
        )
        sites.setdefault((multiplicity, directions.shape[1], *where), (multiplicity, base, directions))
    return _Group(number, rotations, translations, tuple(sites.values()))


def _fixed_points(rotations: Array, translations: Array) -> tuple[Array, Array] | None:
    """Points x with R x + t = x for all operations, as (b, A); None if there are none."""
    if not len(rotations):
        return np.zeros(3), np.eye(3)
    matrix = (rotations - np.eye(3)).reshape(-1, 3)
    wanted = -translations.reshape(-1)
    base, _, rank, _ = np.linalg.lstsq(matrix, wanted, rcond=1e-9)
    if np.abs(matrix @ base - wanted).max() > 1e-6:
        return None
    return np.asarray(base, dtype=np.float64), np.asarray(np.linalg.svd(matrix)[2][rank:].T, dtype=np.float64)


def _orbit_of(point: Array, rotations: Array, translations: Array) -> Array:
    """The distinct images of a point modulo the lattice, (m, 3) in [0, 1)."""
    images = (rotations @ point + translations) % 1.0
    apart = images[:, None] - images[None]
    same = (np.abs(apart - np.round(apart)) < 1e-6).all(axis=2)
    return np.asarray(images[~np.tril(same, -1).any(axis=1)])


@cache
def _groups_up_to(most_operations: int) -> tuple[int, ...]:
    """Numbers of the space groups with at most so many operations in the primitive cell."""
    from naica.structure.prototypes import primitive_operations

    return tuple(n for n in range(1, 231) if len(primitive_operations(n)[0]) <= most_operations)


def _placed(group: _Group, counts: Sequence[int], rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]] | None:
    """Fractional positions (n, 3) and species index (n,) that put `counts` atoms of each species on orbits; None if they do not fit."""
    used: set[int] = set()
    points, owners, misses = np.empty((0, 3)), list[int](), 0
    for species in rng.permutation(len(counts)):
        left = counts[species]
        while left:
            fits = [k for k, (m, _, free) in enumerate(group.sites) if m <= left and not (k in used and not free.shape[1])]
            if not fits:
                return None
            # large orbits are as likely as small ones together: else every structure would sit on special points
            weights = np.array([group.sites[k][0] for k in fits], dtype=np.float64)
            kind = fits[int(rng.choice(len(fits), p=weights / weights.sum()))]
            multiplicity, base, free = group.sites[kind]
            orbit = _orbit_of(base + free @ rng.random(free.shape[1]), group.rotations, group.translations)
            if not free.shape[1]:
                used.add(kind)
            away = orbit[:, None] - points[None]
            if len(orbit) != multiplicity or (np.abs(away - np.round(away)).sum(axis=2) < _APART).any():
                # atoms on top of each other have no direction to be pushed in
                misses += 1
                if misses > _MISSES:
                    return None
                continue
            points = np.concatenate([points, orbit])
            owners += [int(species)] * len(orbit)
            left -= multiplicity
    order = np.argsort(owners, kind="stable")
    return points[order], np.array(owners)[order]


# --- random structures -------------------------------------------------------------------------------------------------------
def contact_volume(numbers: NDArray[np.int64]) -> float:
    """Volume (Å³) of a cell with these atoms (n,) in contact, whatever their arrangement."""
    radius = contact_radii(numbers)
    return float(len(numbers) * np.mean((radius[:, None] + radius[None]) ** 3))


def least_distances(numbers: NDArray[np.int64], separation: float) -> Array:
    """(n, n) least distance of each pair of atoms in Å."""
    radius = contact_radii(numbers)
    return np.asarray(separation * np.maximum(radius[:, None] + radius[None], 0.5))


def random_crystals(formula: str, search: Search = Search(), progress: Callable[[int, int], None] | None = None) -> list[Crystal]:
    """`search.structures` random crystals of a formula that respect volume and distances; the same for the same settings.

    `info` holds ``spacegroup`` and ``formula_units`` of the draw.

    Raises
    ------
    InputError
        If the formula cannot be read, or one formula unit is larger than `max_atoms`.
    RunError
        If fewer structures than asked come out of thirty times as many draws.
    """
    counts = reduced(parse_formula(formula))
    unit = np.array(list(counts.values()))
    most = search.max_atoms // int(unit.sum())
    if most < 1:
        raise InputError(f"{formula} has {unit.sum()} atoms in a formula unit; expected at most max_atoms = {search.max_atoms}")
    kinds = np.array([element(s).number for s in counts])
    rng = np.random.default_rng(
        [search.seed, int(hashlib.md5(format_formula(counts).encode(), usedforsecurity=False).hexdigest()[:12], 16)]
    )
    found: list[Crystal] = []
    for _ in range(_ATTEMPTS):
        missing = search.structures - len(found)
        if missing <= 0:
            break
        drawn = [_draw(kinds, unit * int(rng.integers(1, most + 1)), search, rng) for _ in range(missing)]
        by_size: dict[int, list[Crystal]] = {}
        for crystal in drawn:
            by_size.setdefault(len(crystal), []).append(crystal)
        for size in sorted(by_size):
            pushed = push_apart(by_size[size], search.separation, [c.info["spacegroup"] for c in by_size[size]])
            found += [c for c in pushed if c is not None]
        if progress is not None:
            progress(len(found), search.structures)
    if len(found) < search.structures:
        raise RunError(
            f"only {len(found)} of {search.structures} random structures of {formula} keep their distances; lower `separation` "
            f"({search.separation}) or raise `volume_range` {search.volume_range}"
        )
    return found[: search.structures]


def _draw(kinds: NDArray[np.int64], counts: NDArray[np.int64], search: Search, rng: np.random.Generator) -> Crystal:
    from naica.structure.prototypes import random_lattice

    numbers = np.repeat(kinds, counts)
    volume = contact_volume(numbers) * rng.uniform(*search.volume_range)
    longest = float(least_distances(numbers, search.separation).max())
    choices = _groups_up_to(search.max_operations)
    while True:
        # without symmetry everything fits, so chance ends here sooner or later
        group = _group(choices[int(rng.integers(len(choices)))] if rng.random() < 0.98 else 1)
        cell = random_lattice(group.number, rng) * np.cbrt(volume)
        heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        # thinner cells would meet their own images
        if heights.min() < longest / 1.05:
            volume *= 1.01
            continue
        placed = _placed(group, counts.tolist(), rng)
        if placed is not None:
            points, owners = placed
            info = {"spacegroup": group.number, "formula_units": int(np.gcd.reduce(counts))}
            return Crystal.from_fractional(kinds[owners], points, cell, info=info)


def push_apart(
    crystals: Sequence[Crystal], separation: float, groups: Sequence[int] | None = None, steps: int = 60, swells: int = 8
) -> list[Crystal | None]:
    """Crystals of one size, overlapping atoms moved apart; None for those that still overlap after `swells` growths of their volume.

    All structures move at once. In each step every atom goes half the overlap away from each atom it overlaps with, averaged over them; a
    structure is done when no pair is closer than its least distance less two per cent. `groups` are the numbers of the space groups of the
    crystals, in standard primitive cells: rounding grows where atoms are pushed from opposite sides, so positions are averaged over the
    operations now and then.

    Raises
    ------
    InputError
        If the crystals differ in their number of atoms.
    """
    if len({len(c) for c in crystals}) > 1:
        raise InputError(f"crystals of {sorted({len(c) for c in crystals})} atoms; expected one size at a time")
    if not crystals:
        return []
    fraction = np.stack([c.fractional for c in crystals])
    cells = np.stack([c.cell for c in crystals])
    least = np.stack([least_distances(c.numbers, separation) for c in crystals])
    images = [_image_of(f, _group(g)) for f, g in zip(fraction, groups, strict=True)] if groups is not None else []
    done = np.zeros(len(crystals), dtype=bool)
    for step in range(steps * (swells + 1)):
        open_ = np.flatnonzero(~done)
        if not len(open_):
            break
        if step and step % steps == 0:
            cells[open_] *= _SWELL ** (1 / 3)
        if groups is not None and step % _AVERAGED_EVERY == 0:
            for k in open_.tolist():
                fraction[k] = _averaged(fraction[k], _group(groups[k]), images[k])
        shift, worst = _push(fraction[open_], cells[open_], least[open_])
        done[open_] = worst < _TOLERANCE
        moving = worst >= _TOLERANCE
        inverse = np.linalg.inv(cells[open_[moving]])
        fraction[open_[moving]] += shift[moving] @ inverse
    if groups is not None:
        fraction = np.stack([_averaged(f, _group(g), i) for f, g, i in zip(fraction, groups, images, strict=True)])
    return [
        Crystal.from_fractional(c.numbers, f % 1.0, cell, info=c.info) if ok else None
        for c, f, cell, ok in zip(crystals, fraction, cells, done, strict=True)
    ]


def _image_of(points: Array, group: _Group) -> NDArray[np.int64]:
    """(m, n) the atom that each operation carries each atom to."""
    moved = points @ group.rotations.transpose(0, 2, 1) + group.translations[:, None]
    apart = moved[:, :, None] - points[None, None]
    return np.asarray(np.abs(apart - np.round(apart)).sum(axis=3).argmin(axis=2))


def _averaged(points: Array, group: _Group, images: NDArray[np.int64]) -> Array:
    """Points (n, 3) averaged over the operations of their group."""
    moved = points @ group.rotations.transpose(0, 2, 1) + group.translations[:, None]
    away = moved - points[images]
    total = np.zeros_like(points)
    np.add.at(total, images, away - np.round(away))
    return np.asarray(points + total / len(images))


def _push(fraction: Array, cells: Array, least: Array) -> tuple[Array, Array]:
    """Displacements (b, n, 3) in Å of one step, and the worst overlap (b,) as a share of its least distance."""
    n = fraction.shape[1]
    delta = fraction[:, :, None] - fraction[:, None]
    delta -= np.round(delta)
    near = np.einsum("bijx,bxy->bijy", delta, cells)
    images = _IMAGES @ cells
    apart = near[:, :, :, None] + images[:, None, None]
    distance = np.sqrt(np.einsum("bijky,bijky->bijk", apart, apart))
    own = (np.arange(n)[:, None] == np.arange(n))[None, :, :, None] & (np.abs(_IMAGES).sum(axis=1) == 0)
    distance = np.where(own, np.inf, distance)
    missing = np.maximum(least[..., None] - distance, 0.0)
    push = 0.5 * missing / np.maximum(distance, 1e-3)
    moved = np.einsum("bijk,bijky->biy", push, apart)
    partners = np.maximum((missing > 0).sum(axis=(2, 3)), 1)
    worst = (missing / least[..., None]).max(axis=(1, 2, 3))
    return moved / np.sqrt(partners)[..., None] * 1.2, worst


# --- the search --------------------------------------------------------------------------------------------------------------
def search_formula(
    formula: str,
    potential: Any,
    search: Search = Search(),
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Random structures of a formula, relaxed with a potential.

    Parameters
    ----------
    potential : whatever `naica.relax` takes
    folder : where finished blocks are kept; the same call goes on from there, and other settings or another potential are refused
    progress : called with (structures relaxed, structures wanted)

    Raises
    ------
    InputError, RunError
        As `random_crystals`; for a folder that holds another search.
    """
    from naica.potential.relax import relax

    name = format_formula(reduced(parse_formula(formula)))
    home = None if folder is None else Path(folder) / name
    if home is not None:
        _claim(home, {"formula": name, "potential": str(potential), "search": json.loads(json.dumps(asdict(search)))})
    wanted: list[Crystal] | None = None
    rows: list[dict[str, Any]] = []
    for at in range(0, search.structures, search.block):
        kept = None if home is None else home / f"block-{at:05d}.json"
        if kept is not None and kept.exists():
            rows += json.loads(kept.read_text(encoding="utf-8"))
        else:
            wanted = random_crystals(name, search) if wanted is None else wanted
            began = time.monotonic()
            chunk = wanted[at : at + search.block]
            done = relax(chunk, potential, search.fmax, search.steps)
            each = (time.monotonic() - began) / len(chunk)
            block = [_row(start, end, each) for start, end in zip(chunk, done, strict=True)]
            if kept is not None:
                _write(kept, block)
            rows += block
        if progress is not None:
            progress(min(at + search.block, search.structures), search.structures)
    return _told(name, rows, search)


def _row(start: Crystal, end: Any, seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {"spacegroup": start.info.get("spacegroup", 1), "seconds": seconds, "reason": end.reason or ""}
    if end.status == "converged" and end.energy is not None and np.isfinite(end.energy):
        c = end.crystal
        row |= {
            "energy": float(end.energy) / len(c), "numbers": c.numbers.tolist(), "positions": c.positions.tolist(), "cell": c.cell.tolist()
        }  # fmt: skip
    return row


def _told(formula: str, rows: Sequence[Mapping[str, Any]], search: Search) -> Found:
    completed = sorted((r for r in rows if "energy" in r), key=lambda r: r["energy"])
    failures: dict[str, int] = {}
    for row in rows:
        if "energy" not in row:
            failures[row["reason"] or "not converged"] = failures.get(row["reason"] or "not converged", 0) + 1
    crystals = tuple(Crystal(np.array(r["numbers"]), np.array(r["positions"]), np.array(r["cell"])) for r in completed)
    return Found(
        formula, tuple(r["energy"] for r in completed), crystals, len(rows), len(completed), failures, sum(r["seconds"] for r in rows),
        len(completed) >= search.least_completed,
    )  # fmt: skip


def _claim(home: Path, facts: Mapping[str, Any]) -> None:
    """Make the folder of a search, or see that it holds the same one."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        note = home / "search.json"
        if note.exists():
            held = json.loads(note.read_text(encoding="utf-8"))
            if held != dict(facts):
                differ = ", ".join(k for k in facts if held.get(k) != facts[k])
                raise RunError(f"{home} holds a search with another {differ}; give another folder, or the settings it was begun with")
        else:
            _write(note, dict(facts))
    except OSError as error:
        raise RunError(f"{home}: {error.strerror or error}; the search cannot keep its results there") from error


def write_note(path: Path, content: Any) -> None:
    """A small file of the search, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, content)


def read_note(path: Path) -> Any:
    """What `write_note` wrote; an empty list if there is nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _write(path: Path, content: Any) -> None:
    """Whole or not at all."""
    aside = path.with_suffix(".part")
    try:
        aside.write_text(json.dumps(content), encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise RunError(
            f"{path}: {error.strerror or error}; finished blocks are kept: give the same command again once it is mended"
        ) from error
