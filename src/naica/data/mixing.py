"""Joining tables of labels without mixing levels of theory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from naica.data.labels import Label
from naica.errors import InputError

if TYPE_CHECKING:
    from naica.data.table import CrystalTable


def concat(tables: list[CrystalTable], join: Callable[[str, Label, Label], Label], fidelity: bool) -> CrystalTable:
    """See `CrystalTable.concat`."""
    from naica.data.table import CrystalTable

    if not tables:
        raise InputError("nothing to join: the list of tables is empty")
    labels: dict[str, Label] = {}
    for table in tables:
        for name, label in table.labels.items():
            if name not in labels:
                labels[name] = label
            elif fidelity:
                labels[name] = replace(labels[name], level=None) if labels[name] != label else label
            else:
                labels[name] = join(name, labels[name], label)
    parts = [_with_fidelity(t) for t in tables] if fidelity else tables
    plain = [t.arrow.replace_schema_metadata(None).cast(_bare(t.arrow.schema)) for t in parts]
    merged = CrystalTable(pa.concat_tables(plain, promote_options="permissive"))
    for name, label in labels.items():
        merged = merged.with_column(name, merged.arrow[name], label)
    return merged


def _with_fidelity(table: CrystalTable) -> CrystalTable:
    if "fidelity" in table.columns:
        return table
    levels = {str(label.level or "unknown") for label in table.labels.values()}
    return table.with_column("fidelity", [" | ".join(sorted(levels)) or "unknown"] * len(table))


def _bare(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(f.name, f.type) for f in schema])
