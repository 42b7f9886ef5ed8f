"""What a screen is asked of: the rows of a table or the results of a campaign, with what a descriptor may need to know of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from naica.data.labels import Label, Level
from naica.data.table import CrystalTable
from naica.discover.hull import Hull
from naica.discover.screens.electrodes import Couple, Hosts
from naica.errors import InputError, LevelError, RunError
from naica.structure.composition import parse_formula, reduced
from naica.structure.crystal import Crystal

_FORMATION = "formation_energy_per_atom"


class Source:
    """A table seen as rows, with its levels of theory and its own hull.

    Parameters
    ----------
    table : crystals with label columns
    columns : column of a quantity, where labels leave it open
    """

    def __init__(self, table: CrystalTable, columns: Mapping[str, str] | None = None) -> None:
        self.table = table
        self.chosen = dict(columns or {})
        for name in self.chosen.values():
            table.column(name)
        self.ids = table.ids
        self._hulls: dict[frozenset[str], Hull] = {}
        self._values: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def formulas(self) -> list[str]:
        """Reduced formulas of all rows."""
        return self.table.formulas

    def counts(self, row: int) -> dict[str, int]:
        """The reduced composition of a row."""
        return reduced(parse_formula(self.formulas[row]))

    def column_of(self, name: str, also: tuple[str, ...] = ()) -> str | None:
        """The column that holds a value: the one chosen for it, one of its name, one whose label is that quantity, or the first of `also`.

        Raises
        ------
        InputError
            If several labels are that quantity and none was chosen.
        """
        if name in self.chosen:
            return self.chosen[name]
        if name in self.table.columns:
            return name
        found = [column for column, label in self.table.labels.items() if label.quantity == name]
        preferred = [column for column in also if column in self.table.columns]
        if preferred:
            return preferred[0]
        if len(found) > 1:
            raise InputError(f"{name}: {len(found)} columns hold it ({', '.join(found)}); choose one with --column {name}={found[0]}")
        return found[0] if found else None

    def value(self, column: str, row: int) -> Any:
        """One cell; None where it is missing."""
        if column not in self._values:
            self._values[column] = self.table.arrow[column].to_pylist()
        cell = self._values[column][row]
        return None if isinstance(cell, float) and not np.isfinite(cell) else cell

    def label(self, column: str) -> Label | None:
        """What a column means."""
        return self.table.labels.get(column)

    # --- energies --------------------------------------------------------------------------------------------------------------------
    @cached_property
    def formation(self) -> tuple[str, list[float]]:
        """The column of formation energies and its values in eV/atom (NaN where missing).

        Raises
        ------
        InputError
            If there is none.
        LevelError
            If its unit is another.
        """
        column = self.column_of(_FORMATION)
        if column is None:
            raise InputError("this table has no formation energies, so it has no hull and no voltages")
        label = self.label(column)
        if label is not None and label.unit != "eV/atom":
            raise LevelError(f"column {column!r} is in {label.unit}; formation energies are needed in eV/atom")
        return column, np.asarray(self.table.column(column), dtype=np.float64).tolist()

    @cached_property
    def _by_system(self) -> dict[frozenset[str], list[int]]:
        """Rows with a formation energy by their elements."""
        energies = self.formation[1]
        found: dict[frozenset[str], list[int]] = {}
        for row, formula in enumerate(self.formulas):
            if np.isfinite(energies[row]):
                found.setdefault(frozenset(parse_formula(formula)), []).append(row)
        return found

    def above_hull(self, row: int) -> float:
        """Distance in eV/atom of a row from the hull of this table's own formation energies; elements lie at 0.

        Raises
        ------
        InputError
            If the row has no formation energy.
        """
        energies = self.formation[1]
        if not np.isfinite(energies[row]):
            raise InputError("no formation energy")
        counts = self.counts(row)
        system = frozenset(counts)
        if system not in self._hulls:
            rows = [r for elements, members in self._by_system.items() if elements <= system for r in members]
            formulas = [self.formulas[r] for r in rows] + sorted(system)
            values = [energies[r] for r in rows] + [0.0] * len(system)
            self._hulls[system] = Hull(formulas, values, ids=[*(f"row {r}" for r in rows), *sorted(system)])
        return max(0.0, float(self._hulls[system].above([counts], [energies[row]])[0] + 0.0))

    @cached_property
    def _hosts(self) -> dict[str, Hosts]:
        return {}

    def couple(self, crystal: Crystal, row: int, ion: str) -> Couple | None:
        """The charged row a discharged one is paired with; None if the table has none."""
        if ion not in self._hosts:
            self._hosts[ion] = Hosts(self.ids, self.formulas, self.formation[1], lambda r: self.table[r], ion)
        energy = self.formation[1][row]
        if not np.isfinite(energy):
            raise InputError("no formation energy")
        return self._hosts[ion].couple(crystal, energy)


@dataclass(frozen=True)
class Row:
    """One row of a source."""

    source: Source
    index: int

    @property
    def id(self) -> str:
        """Its id."""
        return self.source.ids[self.index]

    @property
    def formula(self) -> str:
        """Its reduced formula."""
        return self.source.formulas[self.index]

    @cached_property
    def crystal(self) -> Crystal:
        """Its structure."""
        return self.source.table[self.index]


def ledger_table(folder: str | Path) -> CrystalTable:
    """The converged results of a campaign as a table: relaxed structures, energies with their level, distance to the hull, where they are
    from.

    Columns beside the structures: ``energy_per_atom``, ``formation_energy_per_atom``, ``energy_above_hull`` (eV/atom, labels at the
    campaign's level), ``separation_energy``, ``round``, ``origin``, ``stable``.

    Raises
    ------
    RunError
        If there is no campaign in the folder, or nothing was computed yet.
    """
    from naica.discover.ledger import Ledger
    from naica.discover.summary import summary

    told = summary(folder, structures=False)
    ledger = Ledger(folder)
    try:
        entries = ledger.entries()
    finally:
        ledger.close()
    if not entries:
        raise RunError(f"the campaign in {folder} has no converged result yet; let it run first")
    level = Level(functional=told["level"])
    columns: dict[str, Any] = {"energy_per_atom": [e.energy / len(e.crystal) for e in entries], "round": [e.round for e in entries]}
    labels = {"energy_per_atom": Label.of("energy_per_atom", level)}
    if told["hull"] is not None:
        by_id = {row["id"]: row for row in told["hull"]["entries"]}
        deep = {f["id"]: f["separation_energy"] for f in told["finds"]}
        rows = [by_id[e.key] for e in entries]
        columns["formation_energy_per_atom"] = [r["formation_energy"] for r in rows]
        columns["energy_above_hull"] = [max(0.0, r["above_hull"]) for r in rows]
        columns["separation_energy"] = [deep.get(e.key) for e in entries]
        columns["origin"], columns["stable"] = [r["origin"] for r in rows], [r["stable"] for r in rows]
        labels |= {name: Label.of(name, level) for name in ("formation_energy_per_atom", "energy_above_hull")}
    return CrystalTable.from_crystals([e.crystal for e in entries], columns, labels, ids=[e.key for e in entries])
