"""Screens: conditions in order, reasons kept, values on demand, units and levels held to, budgets for what is dear."""

from pathlib import Path

import numpy as np
import pytest

from naica.data import CrystalTable, Label, Level
from naica.discover.screens import builtin_screens, read_screen, screen
from naica.discover.screens.config import ScreenConfig, members
from naica.discover.screens.run import parse_condition
from naica.errors import ConfigError, InputError, LevelError
from naica.structure import Crystal
from naica.structure.prototypes import prototype

PBE = Level("PBE", code="VASP")


def library() -> CrystalTable:
    """A few crystals with made-up energies, one of them impossible to judge."""
    rows = {
        "layers": (prototype("molybdenite").crystal(), -1.0, 1.6),
        "salt": (prototype("rocksalt").crystal(), -2.1, 5.0),
        "selenium": (prototype("gamma-selenium").crystal(), 0.0, 1.0),
        "bad": (Crystal(["Mo", "S", "S"], [[0, 0, 0], [0, 0, 0], [1, 1, 1]], np.eye(3) * 5), -1.5, 2.0),
        "no gap": (prototype("cadmium-iodide").crystal(), -0.7, np.nan),
    }
    crystals, energies, gaps = zip(*rows.values(), strict=True)
    labels = {"e": Label("formation_energy_per_atom", "eV/atom", PBE), "gap": Label("band_gap", "eV", PBE)}
    return CrystalTable.from_crystals(crystals, {"e": list(energies), "gap": list(gaps)}, labels, ids=list(rows))


def layered(**changes) -> ScreenConfig:
    return ScreenConfig(**{"rule": [{"value": "dimensionality", "equals": "2D"}], **changes})


def test_a_bad_structure_is_one_rejected_row_with_its_reason() -> None:
    found = screen(layered(), library())
    assert found.table.ids == ["layers", "no gap"]
    reasons = {o.id: o.reason for o in found.rejected}
    assert "sit on the same place" in reasons["bad"]
    assert reasons["salt"] == "dimensionality is 3D"
    assert len(found.rejected) + len(found.table) == found.n_rows == 5
    assert found.steps[-1].failed == 1


def test_missing_values_are_out_or_kept_as_the_rule_says() -> None:
    rules = [{"value": "band_gap", "min": 1.2, "unit": "eV"}, {"value": "dimensionality", "equals": "2D"}]
    assert screen(layered(rule=rules), library()).table.ids == ["layers"]
    rules[0]["missing"] = "keep"
    found = screen(layered(rule=rules), library())
    assert found.table.ids == ["layers", "no gap"]
    assert found.steps[1].missing == 1
    assert found.levels["band_gap"] == "PBE [VASP]"
    assert found.units == {"band_gap": "eV", "dimensionality": ""} | {k: v for k, v in found.units.items() if "score" in k}


def test_values_are_made_only_for_rows_that_are_still_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from naica.discover.screens import dimensionality as module

    seen = []
    real = module.dimensionality
    monkeypatch.setattr(module, "dimensionality", lambda crystal: seen.append(crystal.formula) or real(crystal))
    rules = [{"value": "gap", "min": 4}, {"value": "dimensionality", "equals": "3D"}]
    assert screen(layered(rule=rules), library()).table.ids == ["salt"]
    assert seen == ["NaCl"]


def test_elements_and_groups() -> None:
    found = screen(ScreenConfig(elements={"exclude": ["transition metals", "toxic"], "least": 2}), library())
    assert found.table.ids == ["salt"]
    reasons = {o.id: o.reason for o in found.rejected}
    assert reasons["layers"] == "holds Mo"
    assert reasons["selenium"] == "1 elements"
    assert "Cd" in reasons["no gap"]
    assert {"Fe", "Zn", "La"} - members("transition metals") == {"La"}
    assert "La" in members("lanthanides")


def test_units_and_names_are_held_to() -> None:
    with pytest.raises(LevelError, match=r"in meV, the value is in eV"):
        screen(layered(rule=[{"value": "band_gap", "min": 5, "unit": "meV"}]), library())
    with pytest.raises(ConfigError, match="did you mean dimensionality"):
        screen(layered(rule=[{"value": "dimensionalty", "equals": "2D"}]), library())
    with pytest.raises(ConfigError, match="has no key 'radios'"):
        screen(layered(options={"paths": {"radios": 1}}), library())
    with pytest.raises(ConfigError, match="expected a float"):
        screen(layered(options={"paths": {"radius": "wide"}}), library())
    twice = library().with_column("e2", [0.0] * 5, Label("formation_energy_per_atom", "eV/atom", PBE))
    with pytest.raises(InputError, match="--column"):
        screen(layered(rule=[{"value": "energy_above_hull", "max": 0}]), twice)
    assert (
        len(screen(layered(rule=[{"value": "energy_above_hull", "max": 9}]), twice, columns={"formation_energy_per_atom": "e"}).table) == 5
    )


def test_the_hull_of_the_table_itself() -> None:
    a = prototype("rocksalt").crystal()
    b = prototype("cesium-chloride").crystal(["Na", "Cl"])
    labels = {"e": Label("formation_energy_per_atom", "eV/atom", PBE)}
    table = CrystalTable.from_crystals([a, b], {"e": [-2.0, -1.9]}, labels, ids=["a", "b"])
    config = ScreenConfig(rule=[{"value": "energy_above_hull", "max": 0.2}], show={"sort": "energy_above_hull"})
    found = screen(config, table)
    assert [row["energy_above_hull"] for row in found.rows] == pytest.approx([0.0, 0.1])
    assert "PBE" in found.levels["energy_above_hull"]


def test_voltages_pair_rows_of_one_column() -> None:
    full = prototype("alpha-NaFeO2").crystal(["Li", "Co", "O"])
    empty = full.replace(numbers=full.numbers[full.numbers != 3], positions=full.positions[full.numbers != 3])
    labels = {"e": Label("formation_energy_per_atom", "eV/atom", PBE)}
    table = CrystalTable.from_crystals([full, empty], {"e": [-1.75, -1.0]}, labels, ids=["full", "empty"])
    config = ScreenConfig(
        elements={"require": ["Li"]}, rule=[{"value": "voltage", "min": 3, "max": 5, "unit": "V"}], show={"values": ["capacity"]}
    )
    (row,) = screen(config, table).rows
    assert row["voltage"] == pytest.approx(4.0)
    assert (row["charged_id"], row["topotactic"]) == ("empty", True)
    assert row["capacity"] == pytest.approx(273.8, abs=0.2)
    assert row["specific_energy"] == pytest.approx(4 * 273.8, abs=1)


def test_what_needs_a_potential_waits_for_a_budget() -> None:
    table = CrystalTable.from_crystals([prototype("fcc").crystal(["Cu"]), prototype("fcc").crystal(["Au"]).scaled(1.4)], ids=["cu", "au"])
    config = ScreenConfig(
        rule=[{"value": "phonon_stable", "equals": True}, {"value": "n_atoms", "max": 4}],
        options={"phonons": {"potential": "emt", "width": 4.0}},
        show={"sort": "volume_per_atom"},
    )
    waits = screen(config, table)
    assert waits.table.ids == list(waits.waiting) == ["cu", "au"]
    assert "phonon_stable" not in waits.values
    found = screen(config, table, compute=1)
    assert (found.table.ids, list(found.waiting)) == (["cu"], ["au"])
    assert found.rows[0]["lowest_phonon"] > -0.1
    assert "EMT" in found.rows[0]["phonon_level"]


def test_conditions_from_a_command_line() -> None:
    found = screen(layered(), library(), where=[parse_condition("gap >= 1"), parse_condition("dimensionality != 3D")])
    assert found.table.ids == ["layers"]
    assert parse_condition("x in a, 2").one_of == ("a", 2.0)
    assert parse_condition("stable = true").equals is True
    for text in ("gap >", "gap >= wide", ">= 2", ""):
        with pytest.raises(ConfigError, match="cannot read the condition"):
            parse_condition(text)


def test_shipped_screens_are_whole_and_known_crystals_pass_them() -> None:
    assert set(builtin_screens()) == {"layered", "li-cathodes", "li-conductors", "li-mn-tm-o", "perovskites"}
    crystals = {
        "perovskite": prototype("perovskite").crystal(["K", "Mg", "F"]).scaled(0.82),
        "lead": prototype("perovskite").crystal(["Cs", "Pb", "Br"]).scaled(3.4),
        "layers": prototype("molybdenite").crystal(),
    }
    labels = {"hull": Label("energy_above_hull", "eV/atom", PBE), "gap": Label("band_gap", "eV", PBE)}
    table = CrystalTable.from_crystals(crystals.values(), {"hull": [0.0] * 3, "gap": [6.0, 3.0, 3.0]}, labels, ids=list(crystals))
    assert screen(read_screen("layered"), table).table.ids == ["layers"]
    found = screen(read_screen("perovskites"), table)
    assert [(r["id"], r["a_site"], r["b_site"]) for r in found.rows] == [("perovskite", "K", "Mg")]


def test_screen_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('title = "mine"\n[[rule]]\nvalue = "n_atoms"\nmax = 3\n')
    assert read_screen(file).rule[0].says() == "n_atoms ≤ 3"
    cases = (
        ('[[rule]]\nvalue = "gap"\nmaximum = 3\n', "did you mean 'max'"),
        ('[[rule]]\nvalue = "gap"\n', "asks nothing"),
        ('[[rule]]\nvalue = "gap"\nmin = 2\nmax = 1\n', "above max"),
        ('[elements]\nexclude = ["Xx"]\n', "unknown element symbol"),
        ('[elements]\nrequire = ["transition metals"]\n', "any_of"),
        ("title = \n", "not valid TOML"),
    )
    for text, said in cases:
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_screen(file)
    with pytest.raises(ConfigError, match="did you mean 'layered'"):
        read_screen("layerd")
    with pytest.raises(ConfigError, match="no screen file"):
        read_screen(tmp_path / "absent.toml")


def test_dynamics_ends_in_a_verdict_with_its_level(tmp_path: Path) -> None:
    table = CrystalTable.from_crystals([prototype("copper-gold-3").crystal(["Cu", "Au"])], ids=["made/of files"])
    settings = {
        "potential": "emt", "ion": "Cu", "charge": 1.0, "duration": 5200.0, "drop": 1000.0, "dt": 4.0, "width": 3.0, "temperature": 300.0,
        "folder": str(tmp_path),
    }  # fmt: skip
    config = ScreenConfig(rule=[{"value": "superionic", "equals": False}], options={"md": settings}, show={"values": ["framework_melted"]})
    found = screen(config, table, compute=1)
    (row,) = found.rows
    assert "EMT" in row["conductivity_level"]
    assert "300 K" in row["conductivity_level"]
    assert not row["diffusion_resolved"], "atoms of a cold alloy shake and stay"
    assert 0 <= row["superionic_probability"] <= 1
    assert (tmp_path / "Cu3Au-made-of-files.ntr").is_file()
