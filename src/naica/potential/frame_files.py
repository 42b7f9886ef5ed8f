"""Where labelled frames come from: registered sets, Parquet tables, extended XYZ, VASP, GPAW and trajectory files; all become one table.

A source is written ``NAME`` or ``NAME:PART`` for a registered set (``mlearn:Cu`` takes the files with Cu in their name, ``rmd17:ethanol``
likewise), or the path of a file; ``@LEVEL`` behind it names the level of theory of its labels where the source does not say.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from naica.data import CrystalTable, Label, Level
from naica.data.registry import load_set, sets
from naica.errors import InputError, LevelError, NaicaError, RunError

if TYPE_CHECKING:
    from ase import Atoms

# names under which files hold what is learned; the first one that is there counts
NAMES: Mapping[str, tuple[str, ...]] = {
    "energy": ("energy", "REF_energy", "dft_energy", "total_energy", "free_energy"),
    "forces": ("forces", "force", "REF_forces", "dft_forces"),
    "stress": ("stress", "REF_stress", "dft_stress"),
    "virial": ("virial", "virials", "REF_virials", "dft_virial"),
    "magmom": ("magmoms", "magmom", "magnetic_moments"),
    "charge": ("charges", "charge", "partial_charge", "initial_charges"),
}
QUANTITIES: Mapping[str, str] = {
    "energy": "energy",
    "forces": "forces",
    "stress": "stress",
    "magmom": "magmom",
    "charge": "partial_charge",
}
"""What is learned, and the quantity of fields.py it is."""

# frame fields that say what kind of frame it is, and which frames belong together
_GROUPS = ("group", "config_type", "set")
_TOGETHER = ("trajectory", "traj", "mp_id", "material_id")
# outputs of codes whose forces are slopes of the free energy, which differs from the energy they print where electrons are smeared
_FREE = ("OUTCAR", "vasprun", ".gpw", ".txt")


def read_frames(
    sources: str | Path | Sequence[str | Path], level: Level | None = None, fidelity: bool = False, names: Mapping[str, str] | None = None
) -> CrystalTable:
    """Sources as one table with label columns ``energy``, ``forces``, ``stress``, ``magmom``, ``charge`` where there are any.

    Parameters
    ----------
    sources : one or several, see above
    level : of all labels whose source does not say
    fidelity : allow different levels of theory: the table then has a column ``fidelity``
    names : column or frame field by what it holds, where files use other names than usual (``{"energy": "E_hi"}``)

    Raises
    ------
    InputError
        If a source cannot be read or holds no energies and forces.
    LevelError
        If levels of theory differ and `fidelity` does not allow it.
    """
    texts = [sources] if isinstance(sources, str | Path) else list(sources)
    if not texts:
        raise InputError("no frames named; give files or registered sets (mlearn:Cu)")
    tables = [_one(str(text), level, names or {}) for text in texts]
    for table, text in zip(tables, texts, strict=True):
        if not {"energy", "forces"} & set(table.labels):
            raise InputError(f"{text}: no energies and no forces; it has {', '.join(table.columns[5:]) or 'structures alone'}")
    if len(tables) == 1:
        return tables[0]
    return CrystalTable.concat(tables, fidelity)


def _one(text: str, level: Level | None, names: Mapping[str, str]) -> CrystalTable:
    name, at, written = text.rpartition("@")
    if at and not Path(text).exists():
        text, level = name, _level(written)
    if Path(text).suffix == ".parquet":
        return labelled(CrystalTable.read(text), level, names)
    if Path(text).exists():
        return labelled(_read_file(Path(text), names), level, names)
    key, _, part = text.partition(":")
    known = {s.name for s in sets() if s.loads}
    if key not in known:
        raise InputError(
            f"{text}: no such file, nor a registered set; expected an extended XYZ, a Parquet table, vasprun.xml, OUTCAR, a trajectory, "
            "or SET:PART as in mlearn:Cu (naica data list shows the sets)"
        )
    return labelled(load_set(key, part=part or None), level, names)


def _level(text: str) -> Level:
    """``PBE`` or ``PBE+U``."""
    functional, plus, hubbard = text.partition("+U")
    if not functional.strip():
        raise InputError(f"@{text}: expected a level of theory behind the @, for example frames.extxyz@PBE")
    return Level(functional.strip(), hubbard_u=(hubbard.strip("() ") or "yes") if plus else "")


def labelled(table: CrystalTable, level: Level | None, names: Mapping[str, str]) -> CrystalTable:
    """The table with its label columns under the names of `QUANTITIES`."""
    for what, quantity in QUANTITIES.items():
        asked = names.get(what)
        if asked is not None and asked not in table.columns:
            raise InputError(f"no column {asked!r} for the {what}; the frames have {', '.join(table.columns)}")
        found = next((n for n in ((asked,) if asked else NAMES[what]) if n in table.columns), None)
        if found is None:
            continue
        old = table.labels.get(found)
        own = old.level if old is not None and old.level is not None else level
        if old is not None and old.quantity not in (quantity, "atomization_energy"):
            raise LevelError(f"column {found!r} holds {old.quantity}; as {what} it must hold {quantity}")
        table = table.with_column(what, table.arrow[found], Label.of(quantity, own))
    return table


# --- files ---------------------------------------------------------------------------------------------------------------------------
def _read_file(path: Path, names: Mapping[str, str]) -> CrystalTable:
    """Any file that ASE reads, all its frames."""
    rows = [_row(atoms, path, k, names) for k, atoms in enumerate(_frames(path))]
    if not rows:
        raise InputError(f"{path} holds no frames")
    flat = [r["atoms"] for r in rows]
    table = CrystalTable.from_arrays(
        [r["id"] for r in rows],
        np.array([len(a) for a in flat], dtype=np.int64),
        np.concatenate([a.numbers for a in flat]),
        np.concatenate([a.positions for a in flat]),
        np.array([a.cell.array for a in flat]),
        np.array([a.pbc for a in flat]),
    )
    lists = pa.large_list(pa.float64())
    for name in dict.fromkeys(key for r in rows for key in r if key not in ("atoms", "id")):
        values = [r.get(name) for r in rows]
        text = any(isinstance(v, str) for v in values)
        vector = any(isinstance(v, list) for v in values)
        table = table.with_column(name, pa.array(values, pa.string() if text else lists if vector else pa.float64()))
    return table


def _frames(path: Path) -> Iterator[Atoms]:
    from ase.io import iread

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from iread(path, index=":")
    except NaicaError:
        raise
    except Exception as error:  # readers of ASE raise whatever their parser does
        raise InputError(f"{path} cannot be read as frames: {type(error).__name__}: {error}") from error


def _row(atoms: Atoms, path: Path, index: int, names: Mapping[str, str]) -> dict[str, Any]:
    """One frame: its atoms, id, and what is learned of it; missing values are left out."""
    results = dict(getattr(atoms.calc, "results", {}))
    free = any(mark in path.name for mark in _FREE)
    row: dict[str, Any] = {"atoms": atoms, "id": f"{path.name}-{index}"}
    for what, usual in NAMES.items():
        keys = (names[what],) if what in names else usual
        keys = ("free_energy", *keys) if what == "energy" and free else keys
        found = next((place[key] for key in keys for place in (results, atoms.info, atoms.arrays) if place.get(key) is not None), None)
        if found is None:
            continue
        row[names.get(what, what)] = _plain(found, what, len(atoms), f"{path}, frame {index}")
    # what a potential is told, not what it learns
    if (charge := atoms.info.get("total_charge")) is not None:
        row["total_charge"] = _plain(charge, "total_charge", len(atoms), f"{path}, frame {index}")
    spins = next((atoms.arrays[key] for key in ("moments", "initial_magmoms") if key in atoms.arrays), None)
    if spins is not None and spins.ndim == 1:
        row["moments"] = _plain(spins, "moments", len(atoms), f"{path}, frame {index}")
    if (virial := row.pop("virial", None)) is not None and "stress" not in row and atoms.pbc.all():
        row["stress"] = [-v / atoms.cell.volume for v in virial]
    for name, keys in (("group", _GROUPS), ("trajectory", _TOGETHER)):
        text = next((atoms.info[key] for key in keys if key in atoms.info), None)
        if text is not None:
            row[name] = str(text)
    if "trajectory" not in row and path.suffix not in (".xyz", ".extxyz", ".gz"):
        row["trajectory"] = str(path)
    return row


def _plain(value: Any, what: str, atoms: int, where: str) -> float | list[float]:
    """Numbers of one frame as a table holds them; a stress of six numbers (ASE's order) becomes nine."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where}: {what} is no number but {value!r}") from None
    if what in ("energy", "total_charge"):
        if array.size != 1:
            raise InputError(f"{where}: {what} is {array.size} numbers, expected one")
        return float(array.ravel()[0])
    if what in ("stress", "virial") and array.size == 6:
        array = array.ravel()[[0, 5, 4, 5, 1, 3, 4, 3, 2]]
    wanted = {"forces": 3 * atoms, "stress": 9, "virial": 9}.get(what, atoms)
    if what == "magmom" and array.size == 3 * atoms:
        array = np.linalg.norm(array.reshape(-1, 3), axis=1)
    if array.size != wanted:
        raise InputError(f"{where}: {what} has {array.size} numbers, expected {wanted}")
    return array.ravel().tolist()


# --- writing -------------------------------------------------------------------------------------------------------------------------
def write_frames(table: CrystalTable, path: Path) -> None:
    """Frames with their labels as extended XYZ (``.gz`` too) or Parquet, by the name's ending.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            table.write(path)
            return
        _write_extxyz(table, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _write_extxyz(table: CrystalTable, path: Path) -> None:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    columns = {name: table.arrow[name].to_pylist() for name in table.columns if name in (*QUANTITIES, "group", "trajectory", "fidelity")}
    images = []
    for row, crystal in enumerate(table):
        atoms = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=crystal.pbc)
        results: dict[str, Any] = {}
        for name, values in columns.items():
            value = values[row]
            if value is None:
                continue
            if name in ("group", "trajectory", "fidelity"):
                atoms.info[name] = value
            elif name == "stress":
                results[name] = np.asarray(value).reshape(3, 3).ravel()[[0, 4, 8, 5, 2, 1]]
            elif name == "forces":
                results[name] = np.asarray(value).reshape(-1, 3)
            else:
                results[{"magmom": "magmoms", "charge": "charges"}.get(name, name)] = np.asarray(value) if name != "energy" else value
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    write(str(path), images, format="extxyz")
