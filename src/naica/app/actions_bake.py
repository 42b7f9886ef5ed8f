"""The answer to bake."""

from __future__ import annotations

import time
from dataclasses import replace

from naica.app.answer import Answer, Table, number
from naica.app.requests_potential import BakeRequest
from naica.app.structures import read_structures
from naica.errors import InputError


def bake(request: BakeRequest) -> Answer:
    """Bake a potential, measure its error and its speed, and write it."""
    from naica.potential.bake import bake as bake_potential
    from naica.potential.learned import LearnedPotential
    from naica.potential.saved import Potential, read_potential

    good, bad = read_structures(request.files)
    if bad or not good:
        raise InputError(f"{bad[0].name}: {bad[0].reason}" if bad else "no structures to measure the error on")
    given = read_potential(request.model)
    crystals = [one.crystal for one in good]
    for crystal in crystals:
        given.check_elements(crystal)
    plain = LearnedPotential(given.members)
    found = bake_potential(plain, crystals, request.tolerance)
    before, after = (_seconds(p, crystals) for p in (plain, found.potential))
    pieces = tuple(report.pieces for report in found.reports)
    Potential(given.members, replace(given.card, baked=pieces)).save(request.out)
    rows = (
        ("largest error of a force (eV/Å)", f"{found.force_error:.1e}"),
        ("largest error of an atom's energy (eV)", f"{found.energy_error:.1e}"),
        ("pieces of the tables", ", ".join(map(str, pieces))),
        ("tables (MB)", number(found.megabytes, 1)),
        ("CPU time of these structures", f"{1e3 * after:.1f} ms, before {1e3 * before:.1f} ms: {before / after:.1f} × faster"),
    )
    data = {
        "model": str(request.out),
        "force_error": found.force_error,
        "energy_error": found.energy_error,
        "pieces": pieces,
        "megabytes": found.megabytes,
        "seconds": after,
        "seconds_before": before,
    }
    return Answer(data, (Table(("what", "value"), rows),), (f"wrote {request.out}",))


def _seconds(potential, crystals) -> float:  # type: ignore[no-untyped-def]
    """Least CPU seconds of three calls."""
    found = []
    for _ in range(3):
        start = time.process_time()
        potential.compute(crystals)
        found.append(time.process_time() - start)
    return min(found)
