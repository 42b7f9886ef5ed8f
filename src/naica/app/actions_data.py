"""Answers about data: the registry of public sets, the graph of one structure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.app.answer import Answer, Table, number
from naica.app.requests import GraphRequest
from naica.errors import InputError

if TYPE_CHECKING:
    from naica.data.registry import DataSet


# --- the registry ----------------------------------------------------------------------------------------------------------------
def list_sets() -> Answer:
    """All registered sets."""
    from naica.data.registry import data_root, sets

    found = sets()
    data = [
        {
            "name": s.name,
            "title": s.title,
            "rows": s.rows,
            "bytes": s.bytes,
            "present": s.present,
            "labels": list(s.labels),
            "licence": s.licence,
        }
        for s in found
    ]
    rows = tuple(
        (s.name, "here" if s.present else "–", f"{s.rows:,}".replace(",", " ") if s.rows else "files", _size(s.bytes), s.title)
        for s in found
    )
    table = Table(("set", "", "structures", "size", "what"), rows, right=("structures", "size"))
    return Answer({"root": str(data_root()), "sets": data}, (table,), (f"data root: {data_root()} (set NAICA_DATA to change it)",))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def show_set(name: str) -> Answer:
    """One set in full."""
    from naica.data.registry import dataset

    found = dataset(name)
    labels = [
        {"column": c, "quantity": lab.quantity, "unit": lab.unit, "level": str(lab.level) if lab.level else None}
        for c, lab in found.labels.items()
    ]
    data = {
        "name": found.name,
        "title": found.title,
        "task": found.task,
        "rows": found.rows,
        "split": found.split,
        "labels": labels,
        "files": [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in found.files],
        "present": found.present,
        "licence": found.licence,
        "citation": found.citation,
        "source": found.source,
        "caveats": list(found.caveats),
    }
    return Answer(data, (_about(found), _labels_table(labels), *(f"! {text}" for text in found.caveats)))


def _about(found: DataSet) -> Table:
    rows = [
        ("what", found.title),
        ("structures", str(found.rows or "files only")),
        ("published split", "yes" if found.split else "no"),
        ("files", ", ".join(f.path for f in found.files[:4]) + (f" and {len(found.files) - 4} more" if len(found.files) > 4 else "")),
        ("size", _size(found.bytes)),
        ("on this machine", "yes" if found.present else f"no: naica data pull {found.name}"),
        ("licence", found.licence),
        ("cite", found.citation),
        ("source", found.source),
    ]
    return Table((found.name, ""), tuple(rows))


def _labels_table(labels: list[dict[str, Any]]) -> Table:
    rows = tuple((lab["column"], lab["quantity"], lab["unit"], lab["level"] or "unknown") for lab in labels)
    return Table(("column", "quantity", "unit", "level of theory"), rows)


def pull_set(name: str, target: Path | None) -> Answer:
    """Fetch a set and check it."""
    from naica.app.terminal import byte_progress
    from naica.data.fetch import pull

    with byte_progress(f"Pulling {name}") as report:
        done = pull(name, target, progress=report)
    data = {"name": name, "target": str(done.target), "fetched": list(done.fetched), "kept": list(done.kept)}
    return Answer(data, (f"{name}: {len(done.fetched)} files fetched, {len(done.kept)} were already right, in {done.target}",))


# --- graphs --------------------------------------------------------------------------------------------------------------------------
def graph(request: GraphRequest) -> Answer:
    """Counts, degrees and edge lengths of the graph of one structure.

    Raises
    ------
    InputError
        If the file cannot be read or holds several structures.
    """
    from naica.graphs import GraphSpec
    from naica.graphs import graph as make_graph
    from naica.structure.io import read

    crystal = read(request.file)
    if isinstance(crystal, list):
        raise InputError(f"{request.file} holds {len(crystal)} structures; naica graph describes one")
    spec = GraphSpec(kind=request.kind, cutoff=request.cutoff, neighbours=request.neighbours)
    batch = make_graph(crystal, spec)
    length = batch["edge_length"].numpy()
    degree = batch["edge_receiver"].bincount(minlength=len(crystal)).numpy()
    lengths = {"shortest": length.min(), "mean": length.mean(), "longest": length.max()} if len(length) else {}
    data = {
        "file": str(request.file),
        "formula": crystal.formula,
        "kind": request.kind,
        "cutoff": request.cutoff,
        "neighbours": request.neighbours if request.kind == "nearest" else None,
        "atoms": len(crystal),
        "edges": len(length),
        "degree": {"least": degree.min(), "mean": degree.mean(), "most": degree.max()},
        "edge_length": lengths,
    }
    rows = [
        ("atoms", str(len(crystal))),
        ("edges", str(len(length))),
        ("edges per atom", f"{degree.min()} to {degree.max()}, mean {degree.mean():.1f}"),
        ("edge length (Å)", f"{number(length.min())} to {number(length.max())}, mean {number(length.mean())}" if len(length) else "–"),
    ]
    return Answer(data, (Table((crystal.formula, f"{request.kind}, cut-off {request.cutoff:g} Å"), tuple(rows)),))
