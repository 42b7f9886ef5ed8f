"""naica potential train, evaluate, sample, learn: answers, JSON, plain errors."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from naica.app.cli import app, main

sys.path.insert(0, str(Path(__file__).parent.parent / "potential"))
from labelled import table

from naica.potential.frame_files import write_frames

SETTINGS = [
    "--architecture", "schnet", "--set", "architecture_config.width=12", "--set", "architecture_config.interactions=1",
    "--set", "architecture_config.cutoff=4.0", "--set", "tensorboard=false", "--set", "batch_size=2",
]  # fmt: skip


def run(*arguments: object) -> dict:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def frames_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "copper.extxyz"
    write_frames(table(16), path)
    return path


@pytest.fixture(scope="module")
def trained(frames_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "copper"
    answer = run("potential", "train", f"{frames_file}@EMT", *SETTINGS, "--epochs", 4, "--members", 2, "--out", out, "--json")
    assert answer["elements"] == ["Cu"]
    assert answer["level"] == "EMT"
    assert answer["rows"] == {"train": 13, "validation": 1, "test": 2}
    assert answer["metrics"]["test"]["forces_mae"] > 0
    return out


def test_evaluate_measures_and_draws(trained, frames_file, tmp_path):
    plot, spread = tmp_path / "parity.png", tmp_path / "spread.svg"
    answer = run("potential", "evaluate", trained, f"{frames_file}@EMT", "--plot", plot, "--calibration", spread, "--json")
    assert answer["errors"]["n_frames"] == 16
    assert answer["elements"]["Cu"]["n_atoms"] == 64
    assert -1 <= answer["cosine"]["mean"] <= 1
    assert answer["spread"]["factor"] > 0
    assert plot.stat().st_size > 1000
    assert spread.stat().st_size > 1000


def test_show_tells_the_card(trained):
    answer = run("potential", "show", trained, "--json")
    assert answer["kind"] == "potential"
    assert answer["elements"] == ["Cu"]
    text = CliRunner().invoke(app, ["potential", "show", str(trained)]).output
    assert "2 members" in text
    assert "level of theory: EMT" in text


def test_another_level_is_refused_unless_asked_for(trained, frames_file, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["potential", "evaluate", str(trained), f"{frames_file}@r2SCAN"])
    assert stopped.value.code == 2
    assert "do not compare" in capsys.readouterr().err.replace("\n", " ")
    assert run("potential", "evaluate", trained, f"{frames_file}@r2SCAN", "--fidelity", "--json")["errors"]["n_frames"] == 16


def test_going_on_from_a_potential(trained, frames_file, tmp_path):
    settings = ["--set", "tensorboard=false", "--set", "batch_size=2"]
    answer = run("potential", "train", f"{frames_file}@EMT", "--from", trained, *settings, "--epochs", 1, "--out", tmp_path, "--json")
    assert answer["architecture"] == "schnet"


def test_check_models_and_relax_take_a_potential(trained, frames_file, capsys):
    answer = run("relax", frames_file, "--model", trained, "--fixed-cell", "--fmax", 5, "--json")
    assert {row["status"] for row in answer["results"]} <= {"converged", "not converged"}
    assert "schnet" in answer["level"]


def test_sample_writes_frames_with_their_labels(frames_file, trained, tmp_path):
    pytest.importorskip("sklearn")
    out = tmp_path / "chosen.extxyz"
    answer = run("potential", "sample", frames_file, "--n", 4, "--model", trained, "--out", out, "--json")
    assert len(answer["chosen"]) == 4
    assert 0 < answer["coverage"] <= 1
    from naica.potential.frames import frames

    assert frames(out).coverage == {"energy": 4, "forces": 4, "stress": 4}


def test_learn_answers_with_its_rounds(frames_file, tmp_path):
    config = tmp_path / "learn.toml"
    config.write_text(
        "systems = 3\nsteps = 40\nevery = 8\njudged = 9\nqueried = 2\nrounds = 1\ntemperatures = [300.0]\n"
        '[fit]\narchitecture = "schnet"\nmembers = 2\nepochs = 10\nbatch_size = 2\nvalidation = 0.0\n'
        "[fit.architecture_config]\nwidth = 8\ninteractions = 1\ncutoff = 4.0\n"
    )
    out = tmp_path / "active"
    answer = run(
        "potential", "learn", frames_file, "--oracle", "emt", "--target-error", 9, "--config", config, "--out", out, "--json"
    )  # fmt: skip
    assert answer["met"]
    assert answer["rounds"][0]["oracle_calls"] >= 16
    assert (out / "model/card.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nothing.extxyz", "--out", "x"], "no such file"),
        (["train", "mlearn:Cu", "--replay", "mlearn:Ni", "--out", "x"], "add --from"),
        (["train", "mlearn:Cu", "--set", "epocs=3", "--out", "x"], "did you mean 'epochs'"),
        (["train", "mlearn:Cu", "--config", "no.toml", "--out", "x"], "no settings no.toml"),
        (["evaluate", "no-folder", "mlearn:Cu"], "no potential 'no-folder'"),
    ],
)
def test_errors_are_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["potential", *arguments])
    assert stopped.value.code in (2, 3)
    message = capsys.readouterr().err
    assert said in message.replace("\n", " ") or "not under" in message


def test_help_has_examples():
    for command in ((), ("train",), ("evaluate",), ("show",), ("sample",), ("learn",)):
        text = CliRunner().invoke(app, ["potential", *command, "--help"]).output
        assert "Examples" in text
        assert "naica potential" in text
