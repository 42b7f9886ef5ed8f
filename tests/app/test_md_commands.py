"""naica md, trajectory and relax: answers, JSON, going on, plain errors."""

from ase.build import bulk, molecule
from ase.io import read, write


def copper(folder, name="cu.cif", **changes):
    atoms = bulk("Cu", cubic=True, **changes)
    write(folder / name, atoms)
    return folder / name


def test_md_runs_goes_on_and_is_looked_at(naica, tmp_path):
    file, out = copper(tmp_path), tmp_path / "run.ntr"
    settings = [
        "--model",
        "emt",
        "-T",
        500,
        "--dt",
        2,
        "--supercell",
        "2,1,1",
        "--every",
        5,
        "--checkpoint",
        10,
        "--out",
        out,
        "--velocities",
    ]
    first = naica("md", file, *settings, "--steps", 10, "--json")
    assert first.code == 0, first.err
    row = first.json["systems"][0]
    assert (row["name"], row["atoms"], row["frames"], row["last_step"]) == ("Cu", 8, 3, 10)
    assert first.json["ns_per_day"] > 0
    again = naica("md", file, *settings, "--steps", 20, "--json").json
    assert again["resumed_at"] == 10
    assert again["systems"][0]["last_step"] == 20
    shown = naica("md", file, *settings, "--steps", 20)
    assert "resumed at step 20" in shown.err
    assert "T (K)" in shown.out
    wrong = naica("md", file, *settings, "--steps", 20, "--seed", 4)
    assert wrong.code == 2
    assert "different seed (0 there, 4 asked for)" in wrong.err.replace("\n", " ")
    exported = naica("trajectory", out, "--first", 5, "--out", tmp_path / "run.extxyz", "--json").json
    assert exported["systems"][0]["frames"] == 4
    assert exported["settings"]["ensemble"] == "NoseHoover"
    frames = read(tmp_path / "run.extxyz", ":")
    assert [f.info["step"] for f in frames] == [5, 10, 15, 20]
    assert frames[0].get_velocities().any()


def test_md_of_several_with_a_bad_one(naica, tmp_path):
    good, foreign = copper(tmp_path), tmp_path / "h2o.xyz"
    write(foreign, molecule("H2O"))
    done = naica(
        "md", good, foreign, "--model", "emt", "--ensemble", "nve", "--steps", 5, "--every", 5, "--out", tmp_path / "run.ntr", "--json"
    )
    assert done.code == 0
    assert [r["status"] for r in done.json["systems"]] == ["running", "stopped at step 0"]
    assert "does not know H, O" in done.json["systems"][1]["reason"]
    looked = naica("trajectory", tmp_path / "run.ntr", "--out", tmp_path / "x.xyz")
    assert looked.code == 2
    assert "say which with --system" in looked.err


def test_md_refuses_what_makes_no_sense(naica, tmp_path):
    file = copper(tmp_path)
    for arguments, words in (
        (["--supercell", "2,2"], "expected three whole numbers"),
        (["--ensemble", "nph"], "unknown ensemble 'nph'"),
        (["--friction", "0.1"], "ensemble nvt has no setting friction"),
        (["--model", "emtt"], "did you mean 'emt'"),
    ):
        done = naica("md", file, *(arguments if "--model" in arguments else ["--model", "emt", *arguments]), "--out", tmp_path / "run.ntr")
        assert done.code == 2, arguments
        assert words in done.err.replace("\n", " ")
    assert not (tmp_path / "run.ntr").exists()
    assert naica("trajectory", file).code == 2


def test_relax_under_pressure_with_symmetry(naica, tmp_path):
    file = copper(tmp_path, a=3.7)
    free = naica("relax", file, "--model", "emt", "--json").json["results"][0]
    pressed = naica("relax", file, "--model", "emt", "--pressure", 20, "--symmetry", "--optimiser", "fire", "--json").json["results"][0]
    assert pressed["status"] == "converged"
    assert pressed["volume_change"] < free["volume_change"] - 0.05
    held = naica("relax", file, "--model", "emt", "--fixed-volume", "--json").json["results"][0]
    assert abs(held["volume_change"]) < 1e-9
