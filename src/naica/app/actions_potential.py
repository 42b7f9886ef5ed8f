"""Answers from interatomic potentials: relax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, number
from naica.app.requests import RelaxRequest
from naica.app.structures import Named, read_structures
from naica.errors import InputError, RunError

if TYPE_CHECKING:
    from naica.potential.moments import RelaxedMoments
    from naica.potential.relax import Relaxed

Report = Callable[[int, int], None]
_GPA = 160.21766208


def relax(request: RelaxRequest, progress: Report = lambda done, total: None) -> Answer:
    """Relax each structure; what fails is a row with its reason. Exit code 2 if nothing converged."""
    from naica.potential.calculators import level_of
    from naica.potential.relax import relax as relax_crystals

    if not request.moments and (request.still or request.tries):
        raise InputError("--still and --tries are about magnetic moments; expected --moments with them")
    good, bad = read_structures(request.files)
    crystals = [n.crystal for n in good]
    settings: dict[str, Any] = {
        "fmax": request.fmax,
        "steps": request.steps,
        "cell": request.cell,
        "pressure": request.pressure / _GPA,
        "volume": request.volume,
        "symmetry": request.symmetry,
        "optimiser": request.optimiser,
        "batch_atoms": request.batch,
    }
    done: Sequence[Relaxed | RelaxedMoments]
    if request.moments:
        from naica.potential.moments import MomentGoal, relax_moments

        goal, moving = MomentGoal(tries=request.tries), None if request.still else settings
        done = relax_moments(crystals, request.model, goal, atoms=moving, dtype=request.dtype, progress=progress)
    else:
        done = relax_crystals(crystals, request.model, **settings, dtype=request.dtype, progress=progress)
    rows = [_row(named, done[k]) for k, named in enumerate(good)]
    rows += [{"file": b.name, "status": "unreadable", "reason": b.reason} for b in bad]
    written = _write(request.out, good, done) if request.out else []
    data = {"model": request.model, "level": str(level_of(request.model)), "results": rows, "written": [str(p) for p in written]}
    notes = (f"level of theory: {data['level']}", *(f"wrote {p}" for p in written[:5]))
    failing = not any(r["status"] == "converged" for r in rows)
    failed = tuple(f"{r['file']}: {r['status']}: {r['reason']}" for r in rows if r["status"] in ("failed", "unreadable"))
    return Answer(data, (*_table(rows), *failed), notes, exit_code=2 if failing else 0)


def _row(named: Named, result: Relaxed | RelaxedMoments) -> dict[str, Any]:
    before = named.crystal.volume
    n_atoms = len(named.crystal)
    moments = getattr(result, "moments", None)
    return {
        **({} if moments is None else {"moments": moments.tolist(), "total_moment": float(moments.sum())}),
        "file": named.name,
        "formula": named.crystal.formula,
        "status": result.status,
        "reason": result.reason,
        "energy": result.energy,
        "energy_per_atom": None if result.energy is None else result.energy / n_atoms,
        "volume_change": None if result.crystal is None or not before else result.crystal.volume / before - 1,
        "steps": result.steps,
        "seconds": result.seconds,
    }


def _table(rows: Sequence[dict[str, Any]]) -> tuple[Table, ...]:
    """Those with an energy; nothing if there is none."""
    rows = [r for r in rows if r.get("energy") is not None]
    heads = ("file", "formula", "status", "energy (eV/atom)", "volume change", "steps", "seconds", "remarks")
    cells = tuple(
        (
            r["file"],
            r["formula"],
            r["status"],
            number(r["energy_per_atom"], 4),
            "–" if r["volume_change"] is None else f"{r['volume_change']:+.1%}",
            str(r["steps"]),
            number(r["seconds"], 1),
            r["reason"],
        )
        for r in rows
    )
    return (Table(heads, cells, right=heads[3:7]),) if cells else ()


def _write(out: Path, named: Sequence[Named], done: Sequence[Relaxed | RelaxedMoments]) -> list[Path]:
    """Converged structures: into one file if `out` has a suffix, else one CIF each into the folder `out`."""
    from naica.structure.io import write

    good = [(n, r.crystal) for n, r in zip(named, done, strict=True) if r.status == "converged" and r.crystal is not None]
    if not good:
        return []
    try:
        if out.suffix:
            out.parent.mkdir(parents=True, exist_ok=True)
            write(good[0][1] if len(good) == 1 else [c for _, c in good], out)
            return [out]
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"{k:04d}-{Path(n.name).name.split('.')[0]}.cif" for k, (n, _) in enumerate(good)]
        for path, (_, crystal) in zip(paths, good, strict=True):
            write(crystal, path)
    except OSError as error:
        raise RunError(f"cannot write to {out}: {error.strerror or error}") from error
    return paths
