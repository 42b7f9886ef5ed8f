"""The command line, further: fine-tuning, converting, holding an element out."""

from __future__ import annotations

import json

import numpy as np
import pytest

QUANTITY = "formation_energy_per_atom"


@pytest.fixture
def table(tmp_path):
    """A small table of labelled rock salts as Parquet; 4 of its 16 rows hold lithium."""
    from ase.build import bulk

    from naica.data import CrystalTable, Label, Level
    from naica.structure import Crystal

    pairs = [(a, b) for a in ("Li", "Na", "K", "Mg") for b in ("F", "Cl", "O", "S")]
    crystals = [Crystal.from_ase(bulk(a + b, "rocksalt", a=4.1 + 0.1 * k)) for k, (a, b) in enumerate(pairs)]
    values = {QUANTITY: np.linspace(-2.5, -1, len(crystals))}
    path = tmp_path / "table.parquet"
    CrystalTable.from_crystals(crystals, values, {QUANTITY: Label.of(QUANTITY, Level("PBE"))}).write(path)
    return path


# --- train --from -----------------------------------------------------------------------------------------------------------------
def test_fine_tuning_keeps_the_network_and_names_its_parent(naica, table, model_folder, tmp_path):
    from naica.training import load

    out = tmp_path / "tuned"
    ran = naica("train", table, "--from", model_folder, "--epochs", 1, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["from"] == str(model_folder)
    old, new = load(model_folder / "model"), load(out / "model")
    assert [m.head_config for m in new.members] == [m.head_config for m in old.members]
    # normalisation kept: same quantity, same level
    assert new.target == old.target
    assert new.card.name.endswith("fine-tuned")
    assert json.loads((out / "run.json").read_text())["settings"]["epochs"] == 1


def test_fine_tuning_starts_at_the_given_weights(naica, table, model_folder, tmp_path):
    """With a vanishing rate, the weights stay; from random ones they could not be the same."""
    from naica.training import load

    (tmp_path / "still.toml").write_text("learning_rate = 1e-9\nweight_decay = 0.0\n")
    ran = naica("train", table, "--from", model_folder, "-c", tmp_path / "still.toml", "--epochs", 1, "--out", tmp_path / "t")
    assert ran.code == 0, ran.err
    pairs = zip(load(model_folder / "model").members, load(tmp_path / "t" / "model").members, strict=True)
    for old, new in pairs:
        for a, b in zip(old.parameters(), new.parameters(), strict=True):
            assert np.allclose(a.detach(), b.detach(), atol=1e-6)


@pytest.mark.parametrize("given", [("--architecture", "cgcnn"), ("--members", 3), ("-c", "head.toml")])
def test_the_model_brings_its_own_network(naica, table, model_folder, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "head.toml").write_text("[head]\nhidden = [4]\n")
    ran = naica("train", table, "--from", model_folder, *given, "--out", tmp_path / "tuned")
    assert ran.code == 2
    assert "brings its own" in ran.err
    assert not (tmp_path / "tuned").exists()


def test_fine_tuning_does_not_write_over_its_model(naica, table, model_folder):
    before = (model_folder / "model" / "card.json").read_bytes()
    ran = naica("train", table, "--from", model_folder / "model", "--fresh", "--out", model_folder)
    assert ran.code == 2
    assert "name another folder" in ran.err.replace("\n", " ")
    assert (model_folder / "model" / "card.json").read_bytes() == before


def test_fine_tuning_from_nothing(naica, table, tmp_path):
    ran = naica("train", table, "--from", "formation-enrgy", "--out", tmp_path / "tuned")
    assert ran.code == 2
    assert "did you mean 'formation-energy'?" in ran.err.replace("\n", " ")


# --- split by element ----------------------------------------------------------------------------------------------------------------
def test_an_element_is_held_out(naica, table, tmp_path):
    out = tmp_path / "run"
    ran = naica("train", table, "--split", "element", "--element", "Li", "--epochs", 1, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows"]["test"] == 4
    judged = naica("evaluate", out, table, "--split", "element", "--element", "Li", "--json")
    assert judged.json["rows"] == 4
    assert judged.json["metrics"]["mae"] == pytest.approx(ran.json["metrics"]["test"]["mae"], rel=1e-4)


def test_a_model_is_judged_on_the_rows_it_did_not_learn_from(naica, table, tmp_path):
    from naica.data import CrystalTable

    out, other = tmp_path / "run", tmp_path / "other.parquet"
    trained = naica("train", table, "--split", "composition", "--seed", 3, "--epochs", 1, "--members", 1, "--out", out, "--json")
    assert trained.code == 0, trained.err
    judged = naica("evaluate", out, table, "--json")
    assert judged.code == 0, judged.err
    told = naica("evaluate", out, table).err.replace("\n", " ")
    assert "the split the model was trained with: composition, seed 3" in told
    assert judged.json["rows"] == trained.json["rows"]["test"]
    assert judged.json["metrics"]["mae"] == pytest.approx(trained.json["metrics"]["test"]["mae"], rel=1e-4)
    # of another table nobody knows which rows the model has seen
    crystals = CrystalTable.read(table)
    crystals.take(np.arange(1, len(crystals))).write(other)
    unknown = naica("evaluate", out, other)
    assert unknown.code == 2
    assert "was not trained on this table: say --part all, or name a split" in unknown.err.replace("\n", " ")
    assert naica("evaluate", out, other, "--part", "all").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--split", "element"), "needs the element to hold out: add --element SYMBOL"),
        (("--split", "random", "--element", "Li"), "--element Li is for --split element only"),
        (("--split", "element", "--element", "Cs"), "no row of the table holds Cs"),
        (("--split", "element", "--element", "Lx"), "Lx"),
    ],
)
def test_held_out_element_unclear(naica, table, model_folder, tmp_path, arguments, told):
    for ran in (
        naica("train", table, *arguments, "--out", tmp_path / "run"),
        naica("evaluate", model_folder, table, *arguments),
    ):
        assert ran.code == 2
        assert told in ran.err.replace("\n", " ")


# --- convert -------------------------------------------------------------------------------------------------------------------------
def test_convert_into_one_file(naica, files, tmp_path):
    from naica import read

    out = tmp_path / "new" / "all.extxyz"
    ran = naica("convert", files / "mgo.cif", files / "[red]bad.cif", files / "nowhere.cif", files / "cu.vasp", "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["inputs"], ran.json["structures"], ran.json["failed"]) == (4, 2, 2)
    assert [r["file"].split("/")[-1] for r in ran.json["rejected"]] == ["[red]bad.cif", "nowhere.cif"]
    mgo, cu = read(out)
    assert (mgo.formula, cu.formula) == ("MgO", "Cu")
    assert cu.volume == pytest.approx(3.7**3 / 4)


@pytest.mark.parametrize("name", ["mgo.cif", "POSCAR", "mgo.vasp", "mgo.xyz", "mgo.json", "mgo.cif.gz"])
def test_convert_format_by_name(naica, files, tmp_path, name):
    from naica import read

    out = tmp_path / "new" / name
    assert naica("convert", files / "mgo.cif", "--out", out).code == 0
    again, first = read(out), read(files / "mgo.cif")
    assert again.symbols == first.symbols
    assert again.volume == pytest.approx(first.volume, rel=1e-6)
    assert again.min_distance() == pytest.approx(first.min_distance(), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "suffix"), [(None, ".cif"), ("cif", ".cif"), ("poscar", ".vasp"), ("extxyz", ".extxyz"), ("json", ".json")]
)
def test_convert_into_a_folder(naica, files, tmp_path, kind, suffix):
    from naica import read

    ran = naica("convert", files, "--out", f"{tmp_path / 'new'}/", *(("--format", kind) if kind else ()), "--json")
    assert ran.code == 0, ran.err
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [f"cu{suffix}", f"mgo{suffix}"]
    assert read(tmp_path / "new" / f"cu{suffix}").formula == "Cu"
    assert ran.json["failed"] == 1


def test_convert_files_of_one_name_are_numbered(naica, files, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "POSCAR").write_text((files / "cu.vasp").read_text())
    (tmp_path / "new").mkdir()  # a folder that exists needs no slash
    assert naica("convert", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "new").code == 0
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["POSCAR-2.cif", "POSCAR.cif"]


def test_convert_never_overwrites_an_input(naica, files):
    before = (files / "mgo.cif").read_text()
    into_folder = naica("convert", files / "mgo.cif", files / "cu.vasp", "--out", files, "--json")
    assert [p.split("/")[-1] for p in into_folder.json["written"]] == ["cu.cif"]
    assert "would be overwritten" in into_folder.json["rejected"][0]["error"]
    into_file = naica("convert", files / "cu.vasp", files / "mgo.cif", "--out", files / "mgo.cif")
    assert into_file.code == 2
    assert (files / "mgo.cif").read_text() == before


def test_convert_leaves_out_what_a_format_cannot_hold(naica, files, tmp_path):
    from ase.build import molecule
    from ase.io import write

    write(files / "water.xyz", molecule("H2O"))
    ran = naica("convert", files / "water.xyz", files / "mgo.cif", "--out", tmp_path / "all.cif", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["structures"] == 1
    assert ran.json["rejected"][0]["file"].endswith("water.xyz")
    assert naica("convert", files / "water.xyz", files / "mgo.cif", "--out", tmp_path / "all.cif", "--strict").code == 2


@pytest.mark.parametrize(
    ("out", "more", "told"),
    [
        ("POSCAR", (), "holds one structure; 2 were given"),
        ("all.nonsense", (), "cannot tell which format"),
        ("all.cif", ("--format", "json"), "--format is for folders"),
    ],
)
def test_convert_says_what_is_wrong(naica, files, tmp_path, out, more, told):
    ran = naica("convert", files / "mgo.cif", files / "cu.vasp", "--out", tmp_path / out, *more)
    assert ran.code == 2
    assert told in ran.err.replace("\n", " ")
    assert not (tmp_path / out).exists()


def test_convert_nothing_to_write_fails(naica, files, tmp_path):
    ran = naica("convert", files / "[red]bad.cif", "--out", tmp_path / "x.cif")
    assert ran.code == 2
    assert "[red]bad.cif: not converted" in ran.out.replace("\n", "")
