"""Several tasks, classes with their ROC curve, state variables and published models, on the command line."""

import numpy as np
import pytest

from naica.training.published import PUBLISHED

CONFIG = "epochs = 3\ntensorboard = false\n[architecture_config]\nwidth = 8\nlayers = 1\n[head]\nhidden = [8]\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A table of 40 salts with a gap, a class and a heat capacity at several temperatures, some labels missing; and a CSV of it."""
    from ase.build import bulk

    from naica.data import CrystalTable, Label, Level
    from naica.structure import Crystal

    folder = tmp_path_factory.mktemp("tasks")
    (folder / "c.toml").write_text(CONFIG)
    pairs = [(a, b) for a in ("Li", "Na", "K", "Mg", "Ca") for b in ("F", "Cl", "O", "S")] * 2
    crystals = [Crystal.from_ase(bulk(a + b, "rocksalt", a=4.0 + 0.05 * k)) for k, (a, b) in enumerate(pairs)]
    gap = np.linspace(1, 9, 40)
    metal = (np.arange(40) % 3 == 0).astype(float)
    gap[::7], metal[3::8] = np.nan, np.nan
    labels = {"gap": Label.of("band_gap", Level("PBE")), "is_metal": Label.of("is_metal"), "C": Label.of("heat_capacity", Level("PBE"))}
    columns = {"gap": gap, "is_metal": metal, "C": np.linspace(20, 50, 40), "temperature": np.tile([100.0, 300.0], 20)}
    CrystalTable.from_crystals(crystals, columns, labels, ids=[f"s{k}" for k in range(40)]).write(folder / "salts.parquet")
    (folder / "cifs").mkdir()
    lines = ["id,gap,is_metal,temperature"]
    for k, crystal in enumerate(crystals):
        crystal.to_ase().write(folder / "cifs" / f"s{k}.cif")
        cells = ["" if np.isnan(v) else f"{v:g}" for v in (gap[k], metal[k])]
        lines.append(f"s{k},{cells[0]},{cells[1]},{columns['temperature'][k]:g}")
    (folder / "cifs" / "id_prop.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def both(world):
    """A model of two tasks, trained from the command line."""
    from typer.testing import CliRunner

    from naica.app.cli import app

    out = world / "both"
    options = ["--column", "gap", "--column", "is_metal", "--config", str(world / "c.toml"), "--out", str(out)]
    ran = CliRunner().invoke(app, ["train", str(world / "salts.parquet"), *options])
    assert ran.exit_code == 0, ran.output
    return out


def test_train_and_evaluate_two_tasks(naica, world, both, tmp_path):
    again = naica("train", world / "salts.parquet", "--column", "gap,is_metal", "--config", world / "c.toml", "--out", both, "--json")
    assert again.code == 0
    assert again.json["tasks"] == ["gap", "is_metal"]
    assert set(again.json["metrics"]["val"]["tasks"]) <= {"gap", "is_metal"}
    ran = naica(
        *("evaluate", both, world / "salts.parquet", "--column", "gap,is_metal", "--part", "all", "--plot", tmp_path / "p.png", "--json")
    )
    assert ran.code == 0, ran.err
    found = ran.json["metrics"]["tasks"]
    assert found["gap"]["n"] == 34
    assert found["is_metal"]["n"] == 35
    low, high = found["is_metal"]["roc_auc_interval"]
    assert low <= found["is_metal"]["roc_auc"] <= high
    assert {"recall_0", "recall_1", "accuracy"} <= set(found["is_metal"])
    assert ran.json["metrics"]["mean_roc_auc"] == found["is_metal"]["roc_auc"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "p-gap.png").read_bytes().startswith(b"\x89PNG")
    shown = naica("evaluate", both, world / "salts.parquet", "--column", "gap,is_metal", "--part", "all")
    assert "area under the ROC curve" in shown.out + shown.err
    lacking = naica("evaluate", both, world / "salts.parquet", "--column", "gap", "--part", "all")
    assert lacking.code == 2
    assert "lack is_metal" in lacking.err


def test_predict_two_tasks(naica, world, both):
    ran = naica("predict", world / "cifs" / "s1.cif", "--model", both, "--json")
    rows = ran.json["predictions"]
    assert [r["task"] for r in rows] == ["gap", "is_metal"]
    assert [r["unit"] for r in rows] == ["eV", ""]
    assert 0 <= rows[1]["value"] <= 1
    told = naica("predict", world / "cifs" / "s1.cif", "--model", both)
    assert "band gap (eV)" in told.out
    assert "metal" in told.out


def test_check_goes_through_the_tasks(naica, both):
    ran = naica("check", both, "--json")
    assert ran.code == 0, ran.out
    assert set(ran.json["tasks"]) == {"gap", "is_metal"}
    assert all(row["passed"] for task in ran.json["tasks"].values() for row in task["rows"])


def test_a_folder_with_gaps_in_its_labels(naica, world, tmp_path):
    command = ("train", world / "cifs", "--column", "gap,is_metal", "--quantity", "band_gap,is_metal", "--unit", "eV,")
    ran = naica(*command, "--config", world / "c.toml", "--out", tmp_path / "run", "--json")
    assert ran.code == 0, ran.err
    # one row has neither label
    assert sum(ran.json["rows"].values()) == 39
    assert not ran.json["rejected"]
    wrong = naica(
        "train", world / "cifs", "--column", "gap,is_metal", "--unit", "eV,eV,eV", "--quantity", "band_gap", "--out", tmp_path / "x"
    )
    assert wrong.code == 2
    assert "names 3 for 2 columns" in wrong.err


def test_a_temperature_as_input(naica, world, tmp_path):
    command = ("train", world / "salts.parquet", "--column", "C", "--state", "temperature", "--config", world / "c.toml")
    ran = naica(*command, "--out", tmp_path / "run", "--json")
    assert ran.code == 0, ran.err
    file = world / "cifs" / "s1.cif"
    values = [
        naica("predict", file, "--model", tmp_path / "run", "--state", f"temperature={t}", "--json").json["predictions"][0]["value"]
        for t in (100, 300)
    ]
    assert values[0] != values[1]
    missing = naica("predict", file, "--model", tmp_path / "run", "--json")
    assert missing.code == 2
    assert "needs 'temperature'" in missing.json["predictions"][0]["error"]
    strange = naica("predict", file, "--model", tmp_path / "run", "--state", "pressure=1", "--json")
    assert "no state variable 'pressure'" in strange.json["predictions"][0]["error"]
    assert naica("predict", file, "--model", tmp_path / "run", "--state", "hot").code == 2
    measured = naica("evaluate", tmp_path / "run", world / "salts.parquet", "--column", "C", "--part", "all", "--json")
    assert measured.json["metrics"]["n"] == 40


def test_all_published_properties_are_listed_with_units(naica):
    listed = {one["name"]: one for one in naica("models", "--json").json["published"]}
    assert set(listed) == set(PUBLISHED)
    units = {
        "formation-energy": "eV/atom",
        "energy": "eV/atom",
        "band-gap": "eV",
        "fermi-energy": "eV",
        "bulk-modulus": "log10(GPa)",
        "shear-modulus": "log10(GPa)",
        "poisson-ratio": "1",
        "metal": "",
    }
    assert {n.removeprefix("cgcnn-2018-"): o["unit"] for n, o in listed.items() if n.startswith("cgcnn-")} == units
    assert "cgcnn-2018-poisson-ratio" in naica("models").out


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith("cgcnn-")])
def test_what_is_listed_is_what_the_weights_predict(naica, files, name):
    from naica.errors import MissingPart
    from naica.training import load

    try:
        model = load(name)
    except MissingPart:
        pytest.skip("the published weights of CGCNN are not on this machine")
    assert model.target.quantity == PUBLISHED[name].quantity
    ran = naica("predict", files / "mgo.cif", "--model", name, "--json")
    assert ran.json["predictions"][0]["quantity"] == PUBLISHED[name].quantity


def test_an_interval_beside_the_error_bar(naica, world, both):
    ran = naica("predict", world / "cifs" / "s1.cif", "--model", both, "--interval", "0.5", "--json")
    assert ran.code == 2, "a class has no interval"
    assert "class" in ran.json["predictions"][0]["error"]


def test_intervals_and_frozen_parts(naica, world, tmp_path):
    config = ("--config", world / "c.toml")
    assert naica("train", world / "salts.parquet", "--column", "gap", *config, "--out", tmp_path / "gap").code == 0
    (row,) = naica("predict", world / "cifs" / "s1.cif", "--model", tmp_path / "gap", "--interval", "0.5", "--json").json["predictions"]
    assert row["low"] < row["value"] < row["high"]
    told = naica("predict", world / "cifs" / "s1.cif", "--model", tmp_path / "gap", "--interval", "0.99")
    assert "−∞ … ∞" in told.out, "four validation labels promise no interval of 99 %"
    going_on = ("train", world / "salts.parquet", "--column", "gap", "--epochs", "1", "--freeze", "backbone")
    assert naica(*going_on, "--from", tmp_path / "gap", "--out", tmp_path / "on").code == 0
    lonely = naica(*going_on, "--out", tmp_path / "alone")
    assert lonely.code == 2
    assert "--from" in lonely.err
    wrong = naica(*going_on[:-1], "head", "--from", tmp_path / "gap", "--out", tmp_path / "wrong")
    assert wrong.code == 2
    assert "backbone" in wrong.err
