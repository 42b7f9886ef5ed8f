"""`naica hull` beyond judging: one composition, open systems, growth, pictures, and what it says of wrong input."""

import pytest

TABLE = "id,formula,energy\nmg,Mg,-1.6\nal,Al,-3.7\no,O2,-4.9\np,MgO,-6.31\nc,Al2O3,-7.86\ns,MgAl2O4,-7.487\nd,MgAl4O7,-7.40\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "energies.csv"
    path.write_text(TABLE)
    return path


def test_a_stable_phase_has_a_window_and_reactions(naica, table):
    found = naica("hull", table, "--formula", "MgAl2O4", "--json").json["formula"]
    assert found["window"]["ranges"]["O"][1] == pytest.approx(0)
    assert set(found["window"]["pairs"]) == {"Al-Mg", "Al-O", "Mg-O"}
    assert all(len(corners) >= 3 for corners in found["window"]["pairs"].values())
    depth = (2 * -6.31 + 5 * -7.86) / 7 + 7.487
    assert found["synthesis"]["depth"] == pytest.approx(depth)
    oxides = next(r for r in found["synthesis"]["routes"] if {x["formula"] for x in r["reactants"]} == {"MgO", "Al2O3"})
    assert oxides["energy"] == pytest.approx(-depth)
    assert oxides["margin"] == pytest.approx(0)
    shown = naica("hull", table, "--formula", "MgAl2O4").out
    assert "eV/atom" in shown
    assert "MgAl2O4 is stable for" in shown


def test_an_unstable_phase_and_one_that_is_no_entry(naica, table):
    found = naica("hull", table, "--formula", "MgAl4O7", "--json").json["formula"]
    assert found["window"] is None
    assert found["synthesis"]["depth"] < 0
    assert found["reaction"].startswith("MgAl4O7 → ")
    absent = naica("hull", table, "--formula", "Mg3Al2O6", "--json").json["formula"]
    assert absent["synthesis"] is None
    assert {p["formula"]: p["fraction"] for p in absent["decomposition"]} == pytest.approx({"MgAl2O4": 7 / 11, "MgO": 4 / 11})


def test_a_reservoir_of_oxygen(naica, table):
    low, high = (naica("hull", table, "--chempot", f"O={mu}", "--json").json["open"] for mu in (-8, 0))
    assert set(low["stable"]) == {"mg", "al"}
    assert set(high["stable"]) == {"p", "c", "s"}


def test_the_first_hull_stays_beside_the_one_that_grows(naica, table, tmp_path):
    more = tmp_path / "found.csv"
    more.write_text("id,formula,energy\ns,MgAl2O4,-7.6\nnew,Mg2Al2O5,-6.0\n")
    found = naica("hull", table, "--grow", more, "--json").json
    assert found["grown"] == {"entries": 2, "stable_at_start": 6, "stable_now": 6, "on_or_below_start": ["found:s"],
                              "on_grown": ["found:s"], "pushed_off": ["s"]}  # fmt: skip


def test_pictures_are_written(naica, table, tmp_path):
    hull, potentials, line = tmp_path / "hull.png", tmp_path / "mu.svg", tmp_path / "line.png"
    ran = naica("hull", table, "--plot", hull, "--plot-mu", potentials, "--formula", "MgAl2O4")
    assert ran.code == 0
    assert hull.read_bytes()[:4] == b"\x89PNG"
    assert "eV/atom" in potentials.read_text() or "<svg" in potentials.read_text()
    assert naica("hull", table, "--plot", line, "--elements", "Mg,O").code == 0
    assert line.stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--chempot", "O"), "expected ELEMENT=VALUE"),
        (("--chempot", "O=0.5"), "expected 0 (the element itself) or less"),
        (("--plot", "hull.txt"), "expected .png, .pdf or .svg"),
        (("--plot", "hull.png", "--elements", "Mg,Xe"), "Xe not in the table"),
        (("--plot-mu", "mu.png", "--elements", "Mg,O"), "three elements"),
        (("--formula", "MgAl2O4", "--byproduct", "CO2"), "CO2"),
    ],
)
def test_wrong_questions_are_explained(naica, table, options, told):
    ran = naica("hull", table, *options)
    assert ran.code == 2
    assert told in " ".join(ran.err.split())


def test_a_table_of_crystals_stands_on_elements_at_zero(naica, tmp_path):
    from naica.data import CrystalTable, Label
    from naica.structure.prototypes import prototype

    rocksalt = prototype("rocksalt")
    crystals = [rocksalt.crystal([a, b]) for a, b in (("Mg", "O"), ("Ca", "O"), ("Na", "Cl"))]
    values = [-3.0, -3.2, -2.0]
    table = CrystalTable.from_crystals(
        crystals, {"e_form": values}, {"e_form": Label.of("formation_energy_per_atom", None)}, ids=["m", "c", "n"]
    )
    path = tmp_path / "table.parquet"
    table.write(path)
    found = naica("hull", path, "--elements", "Mg,Ca,O", "--json").json
    assert {r["id"] for r in found["entries"]} == {"m", "c", "element Mg", "element Ca", "element O"}
    assert all(r["stable"] for r in found["entries"])
    ran = naica("hull", path, "--column", "energy")
    assert ran.code == 2
    assert "e_form" in ran.err
