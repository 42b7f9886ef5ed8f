"""The command line: answers, JSON, exit codes, messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from naica.app import actions_model
from naica.app.cli import app


def commands(group=None, path=()):
    """Every command with its path."""
    import typer

    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def test_the_verbs_are_commands():
    alone = (
        "predict",
        "train",
        "evaluate",
        "check",
        "relax",
        "graph",
        "convert",
        "hull",
        "discover",
        "explain",
        "models",
        "import-weights",
        "recommend",
        "vectors",
        "md",
        "trajectory",
        "bake",
        "bands",
        "transport",
        "conductivity",
        "eos",
        "elastic",
        "phonons",
        "rdf",
        "melt",
        "novelty",
        "polymorphs",
        "screen",
    )
    grouped = {
        "data": ("list", "show", "pull"),
        "campaign": ("status", "report", "export", "audit", "opinion"),
        "sites": ("map", "study"),
        "zoo": ("report", "tasks"),
        "potential": ("train", "evaluate", "sample", "learn", "show", "export"),
        "hamiltonian": ("evaluate", "import", "info", "make", "noise", "train"),
    }
    wanted = {(name,) for name in alone} | {(group, name) for group, names in grouped.items() for name in names}
    assert wanted == set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_answers_as_json_and_shows_examples(path, naica):
    assert any("--json" in p.opts for p in COMMANDS[path].params)
    shown = naica(*path, "--help")
    assert shown.code == 0
    assert f"naica {' '.join(path)}" in shown.out.split("Examples")[-1]


def test_version_is_the_package_version(naica):
    from importlib.metadata import version

    assert naica("--version").out == f"naica {version('naica')}\n"


def test_without_arguments_help_is_shown(naica):
    assert "Usage" in naica().out


def test_unknown_option_is_bad_input(naica):
    ran = naica("predict", "x.cif", "--modle", "a")
    assert (ran.code, ran.out) == (2, "")
    assert "--model" in ran.err


# --- predict and explain -------------------------------------------------------------------------------------------------------
def test_predict_reports_bad_files_and_goes_on(naica, files, model_folder):
    ran = naica("predict", files / "mgo.cif", files / "[red]bad.cif", files / "cu.vasp", "--model", model_folder, "--json")
    assert ran.code == 0
    rows = {r["file"].split("/")[-1]: r for r in ran.json["predictions"]}
    assert rows["mgo.cif"]["formula"] == "MgO"
    assert rows["mgo.cif"]["unit"] == "eV/atom"
    assert rows["mgo.cif"]["sigma"] >= 0
    assert "Cu" in " ".join(rows["cu.vasp"]["warnings"])
    assert "_atom_site" in rows["[red]bad.cif"]["error"]
    assert ran.json["failed"] == 1


def test_predict_agrees_with_python(naica, files, model_folder):
    from naica import load, read

    value = naica("predict", files / "mgo.cif", "--model", model_folder, "--json").json["predictions"][0]["value"]
    assert value == pytest.approx(load(model_folder / "model").predict(read(files / "mgo.cif")).value[0], abs=1e-6)


def test_predict_table_shows_names_as_they_are(naica, files, model_folder):
    ran = naica("predict", files / "mgo.cif", files / "[red]bad.cif", "--model", model_folder)
    assert "MgO" in ran.out
    assert "±" in ran.out
    assert "[red]bad.cif: not predicted" in ran.out.replace("\n", "")
    assert "level of theory: PBE" in ran.err


def test_predict_fails_if_all_do_or_strict(naica, files, model_folder):
    bad, good = files / "[red]bad.cif", files / "mgo.cif"
    assert naica("predict", bad, "--model", model_folder).code == 2
    assert naica("predict", good, bad, "--model", model_folder, "--strict", "--json").code == 2
    assert naica("predict", good, "--model", model_folder, "--strict").code == 0


def test_predict_takes_a_folder(naica, files, model_folder):
    ran = naica("predict", files, "--model", model_folder, "--json")
    assert len(ran.json["predictions"]) == 3


def test_one_bad_crystal_does_not_sink_its_chunk(files, model_folder, monkeypatch):
    """A model that refuses one structure of a batch: the others are predicted all the same."""
    from naica.app.requests import PredictRequest
    from naica.errors import InputError
    from naica.training import Ensemble

    true = Ensemble.predict_tasks

    def refuse_copper(self, source, *rest, **options):
        if any("Cu" in c.symbols for c in source):
            raise InputError("no copper, please")
        return true(self, source, *rest, **options)

    monkeypatch.setattr(Ensemble, "predict_tasks", refuse_copper)
    answer = actions_model.predict(PredictRequest((files / "mgo.cif", files / "cu.vasp"), str(model_folder)))
    good, bad = answer.data["predictions"]
    assert good["formula"] == "MgO"
    assert bad["error"] == "no copper, please"


def test_unknown_model_is_one_line(naica, files):
    ran = naica("predict", files / "mgo.cif", "--model", "no-such-model")
    assert ran.code == 2
    assert ran.err.startswith("Error: no model 'no-such-model'")
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_errors_are_json_too_where_json_is_asked(naica, files):
    ran = naica("predict", files / "mgo.cif", "--model", "no-such-model", "--json")
    assert ran.json["error"]["kind"] == "InputError"


def test_debug_shows_the_traceback(naica, files, monkeypatch):
    from naica.errors import InputError

    monkeypatch.setenv("NAICA_DEBUG", "1")
    with pytest.raises(InputError):
        naica("predict", files / "mgo.cif", "--model", "no-such-model")


def test_sites_average_to_the_prediction(naica, files, model_folder):
    explained = naica("explain", files / "mgo.cif", "--model", model_folder, "--json").json["structures"][0]
    predicted = naica("predict", files / "mgo.cif", "--model", model_folder, "--json").json["predictions"][0]
    assert [s["element"] for s in explained["sites"]] == ["Mg", "O"]
    # two members: their median is their mean
    assert explained["value"] == pytest.approx(predicted["value"], abs=1e-5)


# --- the other verbs --------------------------------------------------------------------------------------------------------------
def test_graph_of_rocksalt(naica, files):
    ran = naica("graph", files / "mgo.cif", "--kind", "radius", "--cutoff", 2.2, "--json")
    assert ran.json["edges"] == 12  # six neighbours each
    assert ran.json["edge_length"]["longest"] == pytest.approx(4.21 / 2, abs=1e-5)


def test_graph_of_a_broken_file_names_it(naica, files):
    ran = naica("graph", files / "[red]bad.cif")
    assert ran.code == 2
    assert "[red]bad.cif" in ran.err


def test_relax_finds_copper_and_writes_it(naica, files, tmp_path):
    from naica import read

    ran = naica("relax", files / "cu.vasp", files / "[red]bad.cif", "--model", "emt", "--out", tmp_path / "out" / "cu.cif", "--json")
    assert ran.code == 0
    done, bad = ran.json["results"]
    assert done["status"] == "converged"
    assert bad["status"] == "unreadable"
    assert read(tmp_path / "out" / "cu.cif").volume ** (1 / 3) * 4 ** (1 / 3) == pytest.approx(3.59, abs=0.02)


def test_relax_says_what_the_potential_does_not_know(naica, files):
    ran = naica("relax", files / "mgo.cif", "--model", "emt")
    assert ran.code == 2
    assert "does not know Mg, O" in ran.out


def test_unknown_potential_proposes_the_nearest(naica, files):
    ran = naica("relax", files / "mgo.cif", "--model", "chgnt")
    assert ran.code == 2
    assert "did you mean 'chgnet'?" in ran.err


def test_hull_of_a_table(naica, tmp_path):
    path = tmp_path / "hull.csv"
    path.write_text("formula,energy\nMg,-1.5\nO2,-4.9\nMgO,-5.9\nMgO2,-5.0\n")
    rows = {r["formula"]: r for r in naica("hull", path, "--json").json["entries"]}
    assert rows["MgO"]["stable"]
    # 2/3 MgO + 1/3 O by atoms: (2 * -5.9 + -4.9) / 3
    assert rows["MgO2"]["above_hull"] == pytest.approx(-5.0 - (2 * -5.9 - 4.9) / 3)
    shares = {p["formula"]: p["fraction"] for p in rows["MgO2"]["decomposition"]}
    assert shares == pytest.approx({"MgO": 2 / 3, "O2": 1 / 3})


def test_hull_takes_total_energies(naica, tmp_path):
    path = tmp_path / "hull.csv"
    path.write_text("formula,energy,id\nMg,-1.5,a\nO2,-9.8,b\nMgO,-11.8,c\n")
    ran = naica("hull", path, "--total", "--json").json
    assert {r["id"]: r["energy"] for r in ran["entries"]} == pytest.approx({"a": -1.5, "b": -4.9, "c": -5.9})
    assert ran["stable"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("formula,enrgy\nMg,1\n", "column energy missing; it has formula, enrgy"),
        ("formula,energy\n", "has no entries"),
        ("formula,energy\nMg,nan\n", "line 2: the energy of Mg is nan"),
        ("formula,energy\nMg,\n", "line 2"),
        ("formula,energy\nXx2,1\n", "line 2: "),
        ("formula,energy,id\nMg,1,a\nO,1,a\n", "id a stands more than once"),
        ("formula,energy\nMg,0\nMgO,-3\n", "no entry for the pure element O"),
    ],
)
def test_hull_says_what_is_wrong(naica, tmp_path, text, told):
    path = tmp_path / "hull.csv"
    path.write_text(text)
    ran = naica("hull", path)
    assert ran.code == 2
    assert told in ran.err.replace("\n", " ")


def test_data_list_is_the_registry(naica):
    from naica.data.registry import sets

    assert [s["name"] for s in naica("data", "list", "--json").json["sets"]] == [s.name for s in sets()]


def test_data_show_proposes_names(naica):
    assert "eV/atom" in naica("data", "show", "perovskites").out
    ran = naica("data", "show", "perovskits")
    assert ran.code == 2
    assert "perovskites" in ran.err


def test_data_pull_without_a_mirror_is_a_missing_part(naica, tmp_path, monkeypatch):
    monkeypatch.setenv("NAICA_DATA", str(tmp_path / "none"))
    monkeypatch.delenv("NAICA_DATA_URL", raising=False)
    ran = naica("data", "pull", "perovskites")
    assert ran.code == 3
    assert "NAICA_DATA" in ran.err


def test_models_lists_what_can_be_used(naica):
    data = naica("models", "--json").json
    assert "cgcnn" in data["architectures"]
    told = naica("models").out.replace("\n", " ")
    assert "of molecules: fingerprint" in told
    assert told.index("of crystals:") < told.index("icgcnn") < told.index("energies and forces")
    assert "emt" in data["potentials"]


# --- train ------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def labelled(files):
    """The folder of structures with a CSV of values, one of them broken."""
    from ase.build import bulk
    from ase.io import write

    lines = []
    for k in range(12):
        write(files / f"s{k}.cif", bulk("NaCl", "rocksalt", a=5.2 + 0.05 * k))
        lines.append(f"s{k},{-2 + 0.1 * k}")
    (files / "values.csv").write_text("id,band_gap\n" + "\n".join(lines) + "\nmissing,1.0\ns0,nan\n")
    return files


def test_train_from_a_folder(naica, labelled, tmp_path):
    out = tmp_path / "run"
    arguments = ("train", labelled, "--csv", labelled / "values.csv", "--column", "band_gap", "--unit", "eV", "--level", "PBE+U")
    ran = naica(*arguments, "--epochs", 1, "--members", 2, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows"] == {"train": 10, "val": 1, "test": 1}
    assert sorted(r["id"] for r in ran.json["rejected"]) == ["missing", "s0"]
    assert (out / "model" / "weights.safetensors").exists()
    judged = naica(
        "evaluate", out, labelled, "--csv", labelled / "values.csv", "--column", "band_gap", "--unit", "eV", "--split", "random", "--json"
    )
    assert judged.json["metrics"]["n"] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--column", "band_gap"), "has no unit"),
        (("--column", "band_gap", "--unit", "kcal"), "'kcal'"),
        (("--column", "bnad_gap", "--unit", "eV"), "band_gap"),
        ((), "Name it with --column"),
        (("--column", "band_gap", "--unit", "eV", "--level", "functionl=PBE"), "unknown part 'functionl'"),
    ],
)
def test_train_refuses_unclear_labels(naica, labelled, tmp_path, arguments, told):
    ran = naica("train", labelled, "--csv", labelled / "values.csv", *arguments, "--out", tmp_path / "run")
    assert ran.code == 2
    assert told in ran.err.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_train_config_misspelt(naica, labelled, tmp_path):
    (tmp_path / "c.toml").write_text("epohcs = 3\n")
    ran = naica("train", labelled, "--column", "band_gap", "--out", tmp_path / "run", "--config", tmp_path / "c.toml")
    assert ran.code == 2
    assert "did you mean 'epochs'?" in ran.err


def test_levels_are_read_from_text():
    from naica.app.sources import parse_level

    assert str(parse_level("PBE")) == "PBE"
    assert parse_level("PBE+U").hubbard_u
    level = parse_level("functional=PBE, hubbard_u=MP, code=VASP")
    assert (level.functional, level.hubbard_u, level.code) == ("PBE", "MP", "VASP")


# --- interruptions ------------------------------------------------------------------------------------------------------------------
def test_interrupted_is_130(naica, files, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(actions_model, "predict", stop)
    assert naica("predict", files / "mgo.cif").code == 130


def test_library_chatter_does_not_reach_stdout(naica, files, monkeypatch):
    from naica.app.answer import Answer

    def chatty(*_):
        print("CHGNet v0.3.0 initialized")
        return Answer({"fine": float("nan")})

    monkeypatch.setattr(actions_model, "predict", chatty)
    ran = naica("predict", files / "mgo.cif", "--json")
    assert ran.json == {"fine": None}
    assert "CHGNet" in ran.err


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "naica.app.cli", "data", "list", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    error = process.stderr.read()
    process.wait()
    assert error == ""
    process.stderr.close()


def test_errors_without_colour_codes_in_pipes():
    shown = subprocess.run([sys.executable, "-m", "naica.app.cli", "graph", "nowhere.cif"], capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert "nowhere.cif" in shown.stderr
    assert not re.search(r"\x1b\[", shown.stderr)


def test_answers_are_strict_json():
    import numpy as np

    from naica.app.answer import to_json

    text = to_json({"a": np.float64("inf"), "b": np.arange(3), "c": {1: float("nan")}, "d": (True, None)})
    assert json.loads(text) == {"a": None, "b": [0, 1, 2], "c": {"1": None}, "d": [True, None]}
    with pytest.raises(TypeError, match="no form in JSON"):
        to_json(object())
