"""Oracles: calculators, tables, and results that must not be believed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from naica.data import CrystalTable
from naica.data.labels import Label, Level
from naica.discover.oracle import CalculatorOracle, Oracle, OracleResult, TableOracle, checked, make_oracle
from naica.errors import ConfigError, InputError
from naica.potential.calculators import level_of
from naica.structure import Crystal

PBE = Level(functional="PBE", code="vasp")


def copper(a: float = 3.7) -> Crystal:
    atoms = bulk("Cu", a=a)
    return Crystal(atoms.numbers, atoms.positions, atoms.cell.array)


def table(values: list[float], column: str = "formation_energy_per_atom", level: Level | None = PBE) -> CrystalTable:
    crystals = [copper(3.5 + 0.1 * k).supercell([1, 1, k + 1]) for k in range(len(values))]
    ids = [f"row-{k}" for k in range(len(values))]
    return CrystalTable.from_crystals(crystals, {column: values}, {column: Label.of(column, level)}, ids)


# --- calculators ------------------------------------------------------------------------------------------------------------------
def test_emt() -> None:
    oracle = make_oracle("emt", fmax=0.01)
    assert isinstance(oracle, Oracle)
    assert (oracle.name, oracle.level) == ("emt", level_of("emt"))
    given = copper()
    done, unknown = oracle.evaluate([given, Crystal([26], [[0, 0, 0]], np.eye(3) * 2.5)])
    assert (done.key, done.status, done.reason, done.attempts) == (given.hash, "converged", "", 1)
    assert done.crystal is not None
    assert done.crystal.volume == pytest.approx(11.6, abs=0.1)
    assert done.level.same(oracle.level)
    assert done.seconds > 0
    assert (unknown.status, unknown.energy, unknown.crystal) == ("failed", None, None)
    assert "emt does not know Fe" in unknown.reason


def test_unconverged_is_failed() -> None:
    atoms = bulk("Cu", cubic=True, a=3.9)
    atoms.rattle(0.2, seed=0)
    done = make_oracle("emt", steps=1, fmax=1e-5).evaluate([Crystal(atoms.numbers, atoms.positions, atoms.cell.array)])[0]
    assert done.status == "failed"
    assert "not converged in 1 steps" in done.reason


def test_oracles_travel_without_their_calculator() -> None:
    oracle = make_oracle("emt")
    oracle.evaluate([copper()])
    again = pickle.loads(pickle.dumps(oracle))
    assert len(pickle.dumps(oracle)) < 2000
    assert again.evaluate([copper()])[0].energy == oracle.evaluate([copper()])[0].energy


def emt_here() -> object:
    from ase.calculators.emt import EMT

    return EMT()


def test_calculators_by_function_and_by_name() -> None:
    level = Level("EMT of my own")
    by_function = CalculatorOracle(emt_here, level=level)  # type: ignore[arg-type]
    assert by_function.evaluate([copper()])[0].level == level
    by_name = make_oracle("bad_oracles:make_calculator", slow=0.0)
    assert by_name.evaluate([copper()])[0].energy == by_function.evaluate([copper()])[0].energy
    assert pickle.loads(pickle.dumps(by_name)).name == "bad_oracles:make_calculator"


@pytest.mark.slow
def test_chgnet() -> None:
    pytest.importorskip("chgnet", reason="the potential CHGNet is not installed")
    atoms = bulk("MgO", "rocksalt", a=4.3)
    oracle = make_oracle("chgnet")
    done = oracle.evaluate([Crystal(atoms.numbers, atoms.positions, atoms.cell.array)])[0]
    assert done.status == "converged"
    assert done.energy == pytest.approx(2 * -6.3138, abs=2e-3)
    assert "CHGNet-0.3.0" in done.level.functional


# --- tables -----------------------------------------------------------------------------------------------------------------------
def test_tables_tell_their_labels() -> None:
    oracle = make_oracle("table", table=table([-1.0, -2.0, 0.5]), column="formation_energy_per_atom")
    assert isinstance(oracle, Oracle)
    rows = [table([-1.0, -2.0, 0.5])[k] for k in range(3)]
    results = oracle.evaluate(rows)
    assert [r.energy for r in results] == [-1.0, -4.0, 1.5]
    assert {r.status for r in results} == {"converged"}
    assert all(r.level == PBE for r in results)
    # by structure alone, and by id alone
    assert oracle.evaluate([rows[1].replace(info={})])[0].energy == -4.0
    assert oracle.evaluate([copper(9.0).replace(info={"id": "row-2"})])[0].energy == 0.5


def test_extensive_and_bare_columns() -> None:
    energies = make_oracle("table", table=table([-3.0, -7.0], "energy"), column="energy")
    assert [r.energy for r in energies.evaluate([table([0, 0])[k] for k in range(2)])] == [-3.0, -7.0]
    bare = table([1.0, 2.0]).with_column("score", [0.25, 0.75])
    oracle = TableOracle(bare, "score")
    assert oracle.evaluate([bare[1]])[0].energy == 0.75
    assert "score" in str(oracle.level)


def test_what_a_table_lacks_fails() -> None:
    oracle = make_oracle("table", table=table([np.nan, 1.0]), column="formation_energy_per_atom")
    missing, nan, found = oracle.evaluate([copper(5.0), table([0.0])[0], table([0.0, 0.0])[1]])
    assert (missing.status, nan.status, found.status) == ("failed", "failed", "converged")
    assert "is not in the table" in missing.reason
    assert "row 'row-0' has no formation_energy_per_atom (nan)" in nan.reason


def test_tables_from_files(tmp_path: Path) -> None:
    path = tmp_path / "known.parquet"
    table([-1.0]).write(path)
    assert make_oracle("table", table=str(path), column="formation_energy_per_atom").evaluate([table([0.0])[0]])[0].energy == -1.0
    with pytest.raises(InputError, match="no column 'gap'"):
        make_oracle("table", table=str(path), column="gap")


def test_tables_with_repeated_ids_are_refused() -> None:
    twice = CrystalTable.from_crystals([copper(3.6), copper(3.7)], {"e": [1.0, 2.0]}, ids=["a", "a"])
    with pytest.raises(InputError, match="only 1 different ids"):
        TableOracle(twice, "e")


def test_table_oracles_travel() -> None:
    oracle = make_oracle("table", table=table([-1.0]), column="formation_energy_per_atom")
    assert pickle.loads(pickle.dumps(oracle)).evaluate([table([0.0])[0]])[0].energy == -1.0


# --- names and options ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("siesta", {}, "unknown oracle 'siesta'; known: gpaw, cp2k, espresso, abinit, vasp, emt, chgnet, .*table"),
        ("vasp", {}, "missing a required argument: 'folder'"),
        ("xtb", {}, "samples Γ alone.*6.7 eV/atom"),
        ("emt", {"fmx": 0.1}, r"oracle 'emt': .*'fmx'; its options: calculator, fmax, steps"),
        ("emt", {"fmax": -1.0}, "fmax > 0"),
        ("table", {"column": "x"}, "'table'"),
        ("bad_oracles:nothing", {}, "cannot load"),
        ("bad_oracles:make", {"wrong": 1}, "'wrong'"),
        ("bad_oracles:not_an_oracle", {}, "returned a int; expected an oracle"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_oracle(name, **options)


# --- belief ---------------------------------------------------------------------------------------------------------------------------
def test_only_sane_results_are_believed() -> None:
    asked = copper().supercell([2, 1, 1])
    good = OracleResult("k", "converged", "", asked, -1.0, np.zeros((2, 3)), None, 1.0, PBE)
    assert checked(asked, good) is good
    wrong = {
        "not a finite number": replace(good, energy=float("nan")),
        "the energy is None": replace(good, energy=None),
        "no structure": replace(good, crystal=None),
        "asked for": replace(good, crystal=copper()),
        "the forces are not": replace(good, forces=np.full((2, 3), np.inf)),
        "the stress are not": replace(good, stress=np.full((3, 3), np.nan)),
        "atoms came within": replace(good, crystal=asked.replace(positions=np.zeros((2, 3)))),
    }
    for words, result in wrong.items():
        judged = checked(asked, result)
        assert (judged.status, judged.energy, judged.crystal) == ("failed", None, None)
        assert words in judged.reason
    failed = replace(good, status="failed", energy=None)
    assert checked(asked, failed) is failed
