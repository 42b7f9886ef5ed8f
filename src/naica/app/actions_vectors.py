"""The answer to `naica vectors`: vectors of elements from a list of formulas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from naica.app.answer import Answer, Table
from naica.errors import InputError


@dataclass(frozen=True)
class VectorsRequest:
    """Vectors of elements; `formulas` is a CSV file or None for the registered list of the Materials Project."""

    formulas: Path | None = None
    size: int = 20
    binary: bool = False
    amounts: bool = True
    near: tuple[str, ...] = ()
    out: Path | None = None
    plot: Path | None = None


def vectors(request: VectorsRequest) -> Answer:
    """Train, show what is alike, write and draw."""
    from naica.data.atom2vec import atom2vec, read_formulas
    from naica.data.registry import dataset
    from naica.insight.vectors import family, plane, similarity_map
    from naica.structure.elements import element

    asked = [element(name).symbol for name in request.near]
    if request.plot is not None and request.plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise InputError(f"{request.plot} is no picture; expected a name that ends in .png, .pdf or .svg")
    path = request.formulas or dataset("compositions").path("mp_formation_decomposition.csv.gz")
    formulas = read_formulas(path)
    found = atom2vec(formulas, request.size, request.binary, request.amounts)
    written = []
    if request.out is not None:
        found.write(request.out)
        written.append(request.out)
    if request.plot is not None:
        beside = request.plot.with_stem(request.plot.stem + "-plane")
        similarity_map(found, str(request.plot))
        plane(found, [family(name) for name in found.names], str(beside), dict(zip(found.names, found.names, strict=True)))
        written += [request.plot, beside]
    near = {name: found.nearest(name) for name in asked or [s for s in ("K", "Fe", "Cl", "La") if s in found.names]}
    rows = tuple((name, "  ".join(f"{other} {cosine:.2f}" for other, cosine in others)) for name, others in near.items())
    share = 1 - (found.residual**2 / max(float((found.singular**2).sum()), 1e-300))
    data = {
        "formulas": len(formulas),
        "elements": list(found.names),
        "vectors": found.values,
        "singular": found.singular,
        "kept": share,
        "near": near,
        "written": written,
    }
    title = f"{len(found.names)} elements from {len(formulas):,} formulas; {request.size} numbers each keep {share:.0%} of the matrix"
    return Answer(data, (Table(("element", "most alike (cosine)"), rows, title),), tuple(f"written: {p}" for p in written))
