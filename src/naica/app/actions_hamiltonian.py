"""Answers about Hamiltonians: sets made and looked at, networks trained and judged, bands."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naica.app.answer import Answer, Table, number
from naica.app.requests_hamiltonian import (
    BandsRequest,
    EvaluateHamiltonianRequest,
    ImportRequest,
    InfoRequest,
    MakeRequest,
    NoiseRequest,
    TrainHamiltonianRequest,
)
from naica.errors import ConfigError, InputError

if TYPE_CHECKING:
    from naica.hamiltonian.evaluate import Errors
    from naica.hamiltonian.matrices import OrbitalMatrices
    from naica.hamiltonian.store import HamiltonianSet
    from naica.hamiltonian.workflow import Engine

Report = Callable[[int, int], None]


def make(request: MakeRequest, progress: Report = lambda done, total: None) -> Answer:
    """Run a code on many structures; what fails is listed with its reason."""
    from naica.hamiltonian.sets import SETS, folder_of
    from naica.hamiltonian.workflow import failures
    from naica.hamiltonian.workflow import make as run

    if len(request.what) == 1 and request.what[0] in SETS:
        one = SETS[request.what[0]]
        code, settings, rows = one.source, {**one.settings, **request.settings}, one.structures()
        place = request.out or folder_of(one.name)
    else:
        from naica.app.structures import read_structures

        good, bad = read_structures(tuple(Path(w) for w in request.what))
        if bad:
            raise InputError(f"{bad[0].name}: {bad[0].reason}")
        if request.out is None:
            raise ConfigError(f"a folder for the set is missing; give --out FOLDER (or name a set: {', '.join(SETS)})")
        code, settings, rows, place = request.source, dict(request.settings), [(n.name, n.crystal) for n in good], request.out
    rows = rows[: request.most]
    names = [name.replace("/", "_") for name, _ in rows]
    found = run(
        [c for _, c in rows],
        place,
        code,
        settings,
        names=names,
        workers=request.workers,
        retries=request.retries,
        seconds=request.seconds,
        progress=lambda p: progress(p.done + p.failed, p.total),
        engine=_engine(request, Path(place)),
    )
    lost = {name: reasons[-1] for name, reasons in failures(place).items() if name not in set(found.names)}
    table = Table(("structure", "reason"), tuple((n, r) for n, r in list(lost.items())[:20]), title="not made") if lost else None
    cost = _cost(found)
    data = {"folder": str(place), "structures": len(found), "failed": lost, "cpu_seconds": cost}
    told = f", {number(cost, 1)} CPU s each" if cost is not None else ""
    return Answer(data, (f"{len(found)} structures in {place}{told}", *((table,) if table else ())))


def _engine(request: MakeRequest, place: Path) -> Engine | None:
    """What runs the source; None is the workflow's own pool."""
    if request.engine == "pool":
        return None
    from naica.discover.config import EngineSection, engine_named
    from naica.discover.engines.matrices import AiidaMatrices

    section = engine_named(request.engine, EngineSection())
    if section.name != "aiida":
        raise ConfigError(f"--engine {request.engine}: expected pool, aiida, aiida:PROFILE or aiida:slurm")
    return AiidaMatrices(section, (place / "engine").absolute(), request.workers or os.cpu_count() or 1)


def _cost(found: HamiltonianSet) -> float | None:
    """Mean CPU seconds of a structure, of those that tell."""
    spent = [told["cpu_seconds"] for told in found.told("info") if "cpu_seconds" in told]
    return float(np.mean(spent)) if spent else None


def _standing(found: HamiltonianSet) -> tuple[tuple[str, str], ...]:
    """How far a set in the making is."""
    from naica.hamiltonian.workflow import standing

    told = standing(found.folder)
    if told is None or told["done"] + told["failed"] >= told["total"]:
        return ()
    left = "unknown" if told["left"] is None else f"{told['left'] / 3600:.1f} h"
    return (("in the making", f"{told['done']} of {told['total']}, {told['failed']} failed, {left} left at {told['at']}"),)


def noise(request: NoiseRequest, progress: Report = lambda done, total: None) -> Answer:
    """Compute some structures again, turned or shifted, and keep what differs with the set."""
    from naica.hamiltonian.noise import measure

    found = opened(request.source)
    judged, names = measure(found.folder, request.most, request.workers, lambda p: progress(p.done + p.failed, p.total))
    data = {"folder": str(found.folder), "structures": names, "noise": asdict(judged)}
    return Answer(data, _tables({"label noise": judged}))


def bring_in(request: ImportRequest) -> Answer:
    """Read, test and keep matrices of other codes; what fails a test is listed and left out."""
    from naica.errors import NaicaError
    from naica.hamiltonian.readers import read
    from naica.hamiltonian.store import HamiltonianSet

    if request.out.exists() and any(request.out.glob("*.h5")):
        raise ConfigError(f"{request.out} holds a set already; choose another folder")
    found, names, lost = [], [], []
    for path in request.paths:
        try:
            own = read(path, request.reader, request.check)
        except NaicaError as error:
            lost.append((str(path), str(error)))
            continue
        found += own
        names += [path.name if len(own) == 1 else f"{path.name}-{k}" for k in range(len(own))]
    if found:
        HamiltonianSet.write(request.out, found, names)
    table = (Table(("left out", "reason"), tuple(lost)),) if lost else ()
    data = {"folder": str(request.out), "structures": len(found), "left_out": dict(lost)}
    return Answer(data, (f"{len(found)} structures in {request.out}", *table), exit_code=0 if found else 2)


def opened(source: str) -> HamiltonianSet:
    """A set by folder or by name (InputError where it is not made yet, with how to)."""
    from naica.hamiltonian.sets import SETS, folder_of
    from naica.hamiltonian.store import HamiltonianSet

    if source in SETS and not Path(source).exists():
        if not (folder_of(source).is_dir() and any(folder_of(source).rglob("*.h5"))):
            raise InputError(f"the set {source} is not made yet; run: naica hamiltonian make {source}")
        return HamiltonianSet(folder_of(source))
    return HamiltonianSet(source)


def info(request: InfoRequest) -> Answer:
    """What a set holds; every structure is tested."""
    from naica.hamiltonian.checks import findings

    found = opened(request.source)
    failed: list[tuple[str, str]] = []
    formulas: dict[str, int] = {}
    worst: dict[str, float] = {}
    for name, m in zip(found.names, found, strict=True):
        formulas[m.crystal.formula] = formulas.get(m.crystal.formula, 0) + 1
        for one in findings(m):
            worst[one.name] = max(worst.get(one.name, -np.inf), one.value)
            if not one.passed:
                failed.append((name, str(one)))
    first = found[0]
    rows = (
        ("structures", str(len(found))),
        (
            "formulas",
            ", ".join(f"{f} {n}" for f, n in sorted(formulas.items(), key=lambda x: -x[1])[:12]) + (" …" if len(formulas) > 12 else ""),
        ),
        ("basis", ", ".join(f"{b.symbol} {b.text}" for b in found.basis.values())),
        ("matrices", ", ".join(first.blocks)),
        ("level of theory", str(first.level or "unknown")),
        ("spin–orbit coupling", "yes" if first.spin else "no"),
        *_standing(found),
        ("CPU s per structure", "unknown" if (cost := _cost(found)) is None else number(cost, 1)),
        *((f"worst of: {name}", f"{value:.2e}") for name, value in worst.items()),
        ("tests failed", str(len(failed))),
    )
    data = {"structures": len(found), "formulas": formulas, "worst": worst, "failed": failed, "level": str(first.level or "")}
    return Answer(data, (Table(("what", "value"), rows), *(f"{n}: {t}" for n, t in failed[:10])), exit_code=2 if failed else 0)


def train(request: TrainHamiltonianRequest, progress: Report = lambda done, total: None) -> Answer:
    """Train a network; a share of the set is held out and judged. The card keeps the names of both."""
    from naica.hamiltonian import noise, parts
    from naica.hamiltonian.evaluate import compared
    from naica.hamiltonian.learn import HamiltonianConfig, fit, load
    from naica.training.config import from_mapping

    found = opened(request.source)
    config = from_mapping(HamiltonianConfig, request.settings, "training")
    formulas = [m.crystal.formula for m in found] if request.by_formula else None
    split = parts.agreed(parts.split(found.names, request.test, 0, request.larger, formulas), request.out)
    split = replace(split, train=split.train[: request.most])
    begun = load(request.start)[0] if request.start is not None else None
    result = fit(
        [found[k] for k in parts.rows(found.names, split.train, request.source)],
        config,
        request.out,
        start=begun,
        progress=lambda row: progress(int(row["epoch"]), config.epochs),
        told={"set": request.source, "split": split.to_dict()},
    )
    held = parts.rows(found.names, split.test, request.source)[:40]
    judged = compared(result.model, [found[k] for k in held], noise=noise.known(found.folder)) if held else {}
    data = {
        "model": str(request.out),
        "trained_on": len(split.train),
        "history": result.rows[-1:],
        "test": {n: asdict(e) for n, e in judged.items()},
    }
    return Answer(data, (f"trained on {len(split.train)} structures: {request.out}", *(_tables(judged) if judged else ())))


def evaluate(request: EvaluateHamiltonianRequest, progress: Report = lambda done, total: None) -> Answer:
    """Errors of H by range and of bands, beside the baselines."""
    from naica.hamiltonian import noise
    from naica.hamiltonian.evaluate import compared
    from naica.hamiltonian.learn import load

    found = opened(request.source)
    model, card = load(request.model)
    chosen = [k for k in _rows(request, found, card) if fnmatch(found.names[k], request.match)][: request.most]
    if not chosen:
        raise InputError(
            f"no structure of {request.source} ({request.part}) is called {request.match!r}; names look like {found.names[0]!r}"
        )
    judged = compared(model, [found[k] for k in chosen], request.bands, noise.known(found.folder))
    data = {
        "model": str(request.model),
        "level": card.get("level", ""),
        "structures": len(chosen),
        **{n: asdict(e) for n, e in judged.items()},
    }
    return Answer(data, _tables(judged))


def _rows(request: EvaluateHamiltonianRequest, found: HamiltonianSet, card: Mapping[str, Any]) -> Sequence[int]:
    """Rows of the part asked for, as the model's card names it."""
    from naica.hamiltonian import parts

    if request.part == "all":
        return range(len(found))
    if request.part not in parts.PARTS:
        raise ConfigError(f"no part {request.part!r}; expected all, {', '.join(parts.PARTS)}")
    if "split" not in card:
        raise ConfigError(f"the card of {request.model} does not say which structures it was trained on; only --part all can be judged")
    return parts.rows(found.names, parts.Split.from_dict(card["split"]).names(request.part), request.source)


def _tables(judged: dict[str, Errors]) -> tuple[Table, ...]:
    names = tuple(judged)
    any_one = next(iter(judged.values()))
    lines: list[tuple[str, ...]] = []
    for key in any_one.ranges:
        lines.append((f"H, {key}", *(number(1e3 * judged[n].ranges[key], 2) for n in names)))
    for label, key in (("bands, occupied", "occupied"), ("bands, four lowest empty", "empty"), ("gaps", "gap")):
        lines.append((label, *(number(1e3 * getattr(judged[n], key), 1) for n in names)))
    lines.append(("states in the wrong place (%)", *(number(1e2 * judged[n].density, 2) for n in names)))
    for label, key in (("energy, per atom", "energy"), ("forces (meV/Å)", "forces")):
        if any(np.isfinite(getattr(judged[n], key)) for n in names):
            lines.append((label, *(number(1e3 * getattr(judged[n], key), 2) for n in names)))
    shells = tuple((key, *(number(1e3 * judged[n].shells.get(key, float("nan")), 2) for n in names)) for key in any_one.shells)
    title = f"mean absolute error (meV) on {any_one.structures} structures, μ removed"
    return (
        Table(("", *names), tuple(lines), title, right=names),
        Table(("shells", *names), shells, "H by pair of shells (meV)", right=names),
    )


# --- bands -------------------------------------------------------------------------------------------------------------
def bands(request: BandsRequest, progress: Report = lambda done, total: None) -> Answer:
    """Bands, gap, Fermi level and density of states of one structure, and a picture."""
    from naica.hamiltonian import bands as electrons

    matrices, where, own = _matrices(request)
    n, large = matrices.n_orbitals, matrices.n_orbitals > electrons.DENSE_UP_TO
    count = matrices.electrons or sum(matrices.basis[int(z)].electrons for z in matrices.crystal.numbers)
    walk = electrons.path(matrices, request.points, request.path)
    notes = []
    if large:
        if request.around is None:
            raise InputError(f"{n} orbitals: say where to look, --around EV (the Fermi level of a small cell of the same material)")
        around = request.around
        states = request.states or 24
        rows = []
        for k in walk.kpoints:
            rows.append(electrons.solve(matrices, k, states, around).energies)
            progress(len(rows), len(walk.kpoints))
        energies = np.stack(rows)
        fermi, told, density = around, {"fermi": around, "gap": None, "direct": None, "metal": None}, None
        notes.append(
            f"{n} orbitals: {states} states around {around:.2f} eV by shift and invert; no Fermi level is counted and no density drawn"
        )
    else:
        mesh = electrons.mesh_for(matrices, 0.3)
        grid = electrons.all_energies(matrices, mesh)
        rows = []
        for k in walk.kpoints:
            rows.append(electrons.eigenvalues(matrices, k))
            progress(len(rows), len(walk.kpoints))
        least = min(len(r) for r in rows)
        energies = np.stack([r[:least] for r in rows])
        if not count:
            raise InputError("the number of valence electrons is unknown: the basis of this set does not say it")
        # edges may lie on the path, between the points of the mesh
        holds = matrices.per_state
        filled = electrons.filling(
            np.concatenate([grid[:, :least], energies]), np.concatenate([mesh, walk.kpoints]), count, per_state=holds
        )
        if filled.metal:
            filled = electrons.filling(grid, mesh, count, per_state=holds)
        fermi = filled.fermi
        told = {
            "fermi": fermi,
            "gap": filled.gap,
            "direct": filled.direct,
            "metal": filled.metal,
            "valence": filled.valence,
            "conduction": filled.conduction,
        }
        density = (
            electrons.density_of_states(matrices, mesh, window=(fermi - request.window, fermi + request.window))
            if request.density
            else None
        )
    picture = request.out or Path(f"{Path(request.file).stem}-bands.png")
    reference = None
    if own is not None and not large:
        truth, level = electrons.all_energies(own, walk.kpoints), electrons.all_energies(own, mesh)
        reference = truth - electrons.filling(level, mesh, count, per_state=own.per_state).fermi
        shown = np.abs(reference) < request.window
        least = min(reference.shape[1], energies.shape[1])
        error = np.abs(energies[:, :least] - fermi - reference[:, :least])[shown[:, :least]]
        notes.append(f"bands within {request.window:g} eV of the Fermi level differ from the set's own by {1e3 * np.mean(error):.0f} meV")
    _draw(picture, walk, energies, fermi, density, request.window, where, reference)
    gap = (
        "not counted"
        if told["gap"] is None
        else ("metal, no gap" if told["metal"] else f"{told['gap']:.3f} eV, {'direct' if told['direct'] else 'indirect'}")
    )
    lines = (
        ("structure", f"{matrices.crystal.formula}, {len(matrices.crystal)} atoms, {n} orbitals"),
        ("Fermi level", f"{fermi:.3f} eV"),
        ("gap", gap),
        ("by", where),
    )
    data = {**told, "orbitals": n, "kpoints": walk.kpoints, "energies": energies, "picture": str(picture), "by": where}
    return Answer(data, (Table(("what", "value"), lines),), (f"wrote {picture}", *notes))


def _matrices(request: BandsRequest) -> tuple[OrbitalMatrices, str, OrbitalMatrices | None]:
    """From a model and a file; or a structure of a set, SET:NAME or SET:NUMBER, by its code or by a model (its code's come along)."""
    if request.model is None:
        found = _of_set(request.file)
        if found is None:
            raise ConfigError("bands need --model FOLDER, or a structure of a set as SET:NAME or SET:NUMBER")
        return found[0], f"the matrices of {found[1]}", None
    from naica.hamiltonian.learn import load
    from naica.structure import Crystal
    from naica.structure.io import read

    model, card = load(request.model)
    where = f"{request.model} (learned from {card.get('level') or 'an unknown level'})"
    found = None if Path(request.file).exists() else _of_set(request.file)
    if found is not None:
        return model.complete(found[0]), f"{where}, {found[1]}", found[0]
    crystal = read(request.file)
    if not isinstance(crystal, Crystal):
        raise InputError(f"{request.file} holds {len(crystal)} structures; expected one")
    if request.supercell != (1, 1, 1):
        crystal = crystal.supercell(request.supercell)
    if not model.on_h0:
        return model.predict(crystal), where, None
    from naica.hamiltonian.sources import superposed

    # H0 and S cost one step of the code that made the set, not a self-consistent run
    return model.complete(superposed(crystal, card.get("source", {}))), f"{where}, on superposed atoms", None


def _of_set(told: str) -> tuple[OrbitalMatrices, str] | None:
    """A structure of a set, as SET:NAME or SET:NUMBER, and both names; None if the text has no colon.

    Raises
    ------
    InputError
        If the set has no such structure.
    """
    name, _, row = told.rpartition(":")
    if not name:
        return None
    found = opened(name)
    place = int(row) if row.isdigit() else (found.names.index(row) if row in found.names else -1)
    if not 0 <= place < len(found):
        raise InputError(f"{name} has no structure {row!r}; it has {len(found)}, called for example {found.names[0]!r}")
    return found[place], f"{name}, {found.names[place]}"


def _draw(picture: Path, walk: Any, energies: Any, fermi: float, density: Any, window: float, title: str, reference: Any = None) -> None:
    from naica.insight.band_plots import band_figure

    picture.parent.mkdir(parents=True, exist_ok=True)
    band_figure(walk, energies, fermi, density, reference=reference, window=(-window, window), title=title).savefig(picture)


def set_names() -> Sequence[str]:
    """Names of sets that can be made."""
    from naica.hamiltonian.sets import SETS

    return list(SETS)
