"""Answers that explain: sites of single structures, maps of the elements, the study of sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.app import sources
from naica.app.actions_model import load_model
from naica.app.answer import Answer, Table, number
from naica.app.requests import ExplainRequest, SiteMapRequest, SiteStudyRequest
from naica.app.structures import Named, Unreadable, read_structures
from naica.errors import InputError, NaicaError

if TYPE_CHECKING:
    from naica.data import CrystalTable
    from naica.insight.deletion import Faithfulness
    from naica.insight.study import SiteMap, Study
    from naica.structure import Crystal
    from naica.training import Ensemble

Report = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """For callers that need no progress."""


def _ensemble(name: str) -> Ensemble:
    """A model whose predictions are those of its networks."""
    from naica.training import Ensemble

    found = load_model(name)
    if not isinstance(found, Ensemble):
        raise InputError(f"{name} is a corrected model: its correction is no sum over sites. Explain the model it corrects")
    return found


# --- single structures --------------------------------------------------------------------------------------------------------------
def explain(request: ExplainRequest, progress: Report = _silent) -> Answer:
    """Site contributions of each structure, mean over the members: the reference plus their mean over the sites is the prediction.

    Models that pool one number per site give them exactly, with a reference of zero; other models' predictions are shared out by integrated
    gradients, the reference being the same structure of average elements. For an extensive quantity it is their sum, not their mean.

    Raises
    ------
    InputError
        If the method asked for does not exist for the model.
    """
    from naica.insight.attribution import method_for

    ensemble = _ensemble(request.model)
    how = method_for(ensemble, request.method)  # type: ignore[arg-type]
    good, bad = read_structures(request.files)
    structures: list[dict[str, Any]] = []
    explained: list[Named] = []
    for k, one in enumerate(good):
        try:
            structures.append(_explained(ensemble, one, how))
            explained.append(one)
        except NaicaError as error:
            bad.append(Unreadable(one.name, str(error)))
        progress(k + 1, len(good))
    test = _deleted(ensemble, explained, how) if request.deletion_test else None
    data = {
        "model": request.model,
        "method": how,
        "structures": structures,
        "failed": [{"file": b.name, "error": b.reason} for b in bad],
        **({"deletion_test": test.to_dict()} if test else {}),
    }
    blocks: tuple[Table | str, ...] = tuple(_site_table(s) for s in structures) + tuple(f"{b.name}: {b.reason}" for b in bad)
    return Answer(data, (*blocks, *((_in_words(test),) if test else ())), _how_notes(how, ensemble), exit_code=0 if structures else 2)


def _shared_alike(crystal: Crystal, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Contributions (N) with those of symmetric sites averaged: which of several equally near neighbours a graph keeps is chance.

    A formula's graph has elements for nodes, and what is not periodic has no space group: there nothing is averaged.
    """
    from naica.structure.symmetry import symmetry

    if len(value) != len(crystal) or not crystal.pbc.all():
        return value
    orbit = symmetry(crystal).orbits
    total = np.bincount(orbit, weights=value, minlength=len(value))
    return (total / np.maximum(np.bincount(orbit, minlength=len(value)), 1))[orbit]


def _explained(ensemble: Ensemble, one: Named, how: str) -> dict[str, Any]:
    from naica.graphs import graph
    from naica.insight.attribution import shares
    from naica.structure.elements import symbol

    batch = graph(one.crystal, ensemble.needs)
    found = shares(ensemble, batch, how)  # type: ignore[arg-type]
    numbers = batch["number"].tolist()
    value = _shared_alike(one.crystal, found.value.mean(axis=0))
    return {
        "file": one.name,
        "formula": one.crystal.formula,
        "value": float(found.prediction.mean()),
        "reference": float(found.reference.mean()),
        "unit": "log odds" if ensemble.target.kind == "class" else ensemble.target.unit,
        "method": how,
        "unshared": found.gap,
        "sites": [
            {"index": k, "element": symbol(z), "contribution": float(v)} for k, (z, v) in enumerate(zip(numbers, value, strict=True))
        ],
    }


def _site_table(structure: dict[str, Any]) -> Table:
    rows = tuple((str(s["index"]), s["element"], f"{s['contribution']:+.3f}") for s in structure["sites"])
    reference = f" = {structure['reference']:.3f} + sites" if structure["method"] != "exact" else ""
    title = f"{structure['file']}  {structure['formula']}  prediction {structure['value']:.3f} {structure['unit']}{reference}"
    return Table(("site", "element", "contribution"), rows, title, right=("site", "contribution"))


def _how_notes(how: str, ensemble: Ensemble) -> tuple[str, ...]:
    pooled = "sum" if ensemble.target.extensive else "mean"
    if how == "exact":
        return (f"exact: the prediction is the {pooled} of these numbers, by the make of the network",)
    if how == "integrated gradients":
        return (
            f"integrated gradients: the prediction is that of the same structure of average elements plus the {pooled} of these numbers",
        )
    return ("leave one out: change of the prediction when a site becomes an average element (times the sites of the cell); not additive",)


def _deleted(ensemble: Ensemble, named: Sequence[Named], how: str) -> Faithfulness:
    from naica.graphs.graphset import GraphSet
    from naica.insight.deletion import deletion_test

    return deletion_test(ensemble, GraphSet.build([n.crystal for n in named], ensemble.needs), method=how)  # type: ignore[arg-type]


def _in_words(test: Faithfulness) -> str:
    return (
        f"deletion test on {test.crystals} structures: highest first runs {test.highest:.3f} ± {test.highest_error:.3f} {test.unit} below "
        f"random order (below it in {test.won:.0%} of them), lowest first {test.lowest:.3f} ± {test.lowest_error:.3f} above it"
    )


# --- maps of the elements -----------------------------------------------------------------------------------------------------------
def site_map(request: SiteMapRequest) -> Answer:
    """Mean contribution of each element (on each kind of site) over a table, for any model that `explain` can explain.

    Raises
    ------
    InputError
        If the source or the site columns cannot be read, or no crystal can have a graph.
    """
    import numpy as np

    from naica.insight.contributions import site_values
    from naica.insight.sites import kinds_of_sites
    from naica.insight.study import element_maps
    from naica.insight.study_files import write_maps

    ensemble = _ensemble(request.model)
    table = _crystals(request.source)
    if request.rows is not None and request.rows < len(table):
        table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[: request.rows]))
    found = site_values(ensemble, table, method=request.method)  # type: ignore[arg-type]
    kinds = np.full(len(found.value), "")
    order: tuple[str, ...] = ("",)
    if request.columns:
        counts = table.flat()[0]
        kinds = kinds_of_sites(table, request.columns)[(np.cumsum(counts) - counts)[found.row] + found.place]
        order = (*request.columns, "X")
    maps = element_maps(found, kinds, None, order)
    written = write_maps(maps, ensemble.target.quantity, request.out, found.method)
    data = {"model": request.model, "method": found.method, "unshared": found.gap, "maps": maps, "rejected": len(found.rejected)}
    return Answer({**data, "files": written}, tuple(_map_table(m) for m in maps), (f"{found.method}; wrote {request.out}/",))


def _crystals(source: str) -> CrystalTable:
    """The crystals of a Parquet table, a registered set, a file or a folder of files; labels are not needed."""
    from naica.data import CrystalTable
    from naica.data.registry import load_set, sets

    path = Path(source)
    if path.suffix == ".parquet":
        return CrystalTable.read(path)
    if source in [s.name for s in sets() if s.loads]:
        return load_set(source)
    good, _ = read_structures([path])
    return CrystalTable.from_crystals([n.crystal for n in good], ids=[n.name for n in good])


def _map_table(one: SiteMap) -> Table:
    heads = ("element", "contribution", "± standard error", "crystals")
    rows = tuple((c.element, f"{c.mean:+.3f}", number(c.standard_error), f"{c.crystals:,}") for c in one.contributions)
    return Table(heads, rows, f"{one.kind} site" if one.kind else "", right=heads[1:])


# --- the study ----------------------------------------------------------------------------------------------------------------------
def site_study(request: SiteStudyRequest) -> Answer:
    """The study of sites: maps on held-out crystals, the mined rule and its enrichment there.

    Raises
    ------
    InputError
        If the source has no such columns, a rule cannot be read, or `model` learned from other rows.
    """
    from naica.insight.study import StudySettings, default_training, study
    from naica.insight.study_files import in_words, remarks, rule_rows, write_study

    source = sources.labelled(request.source)
    columns = (request.columns[0], request.columns[1])
    settings = StudySettings(columns, threshold=request.threshold, seed=request.seed, min_share=request.min_share)
    training = default_training(request.epochs, request.members, request.seed)
    model = _ensemble(request.model) if request.model else None
    beside = _rules(request.beside, source.table, columns)
    found = study(source.table, source.column, request.out, settings, training, model, beside)
    written = write_study(found, request.out)
    lines = [
        f"{name}: {judged[1].rule}\n  held out {in_words(judged[1])}\n  training {in_words(judged[0])}"
        for name, judged in found.rules.items()
    ]
    data = {
        "rows": found.rows,
        "metrics": found.metrics,
        "maps": found.maps,
        "rules": rule_rows(found),
        "tried": found.mined.tried,
        "exactness": found.exactness,
        "files": written,
    }
    return Answer(data, (*_ends(found), *lines, *remarks(found)), (f"wrote {request.out}/study.html, pictures and tables beside it",))


def _rules(texts: Mapping[str, Mapping[str, str]], table: Any, columns: tuple[str, str]) -> dict[str, Any]:
    from naica.insight.rules import written

    elements = sorted({e for c in columns for e in table.column(c).tolist()})
    return {name: written(dict(zip(columns, asked.values(), strict=True)), elements) for name, asked in texts.items()}


def _ends(found: Study) -> tuple[Table, ...]:
    """The lowest and the highest elements of each kind of site."""
    rows = []
    for one in found.maps:
        told = [f"{c.element} {c.mean - one.centre:+.2f}" for c in one.contributions]
        rows.append((one.kind, ", ".join(told[:6]), ", ".join(told[-6:]) if len(told) > 6 else ""))
    return (Table(("site", "lowest (less the mean over elements)", "highest"), tuple(rows), "contributions on held-out crystals"),)
