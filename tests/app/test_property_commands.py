"""The commands about materials: what they answer, in words and in JSON, their pictures, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    write(tmp_path / "Cu.cif", bulk("Cu"))
    return tmp_path / "Cu.cif"


def trajectory(path: Path, seed: int, kelvin: float, frames: int = 300) -> Path:
    rng = np.random.default_rng(seed)
    width = np.sqrt(2 * 0.05 * np.exp(-0.2 / (8.617e-5 * kelvin)) * 10.0)
    walk = np.cumsum(rng.normal(size=(frames, 30, 3)) * width, axis=0)
    positions = np.concatenate([walk, np.zeros((frames, 10, 3))], axis=1)
    np.savez(path, numbers=[3] * 30 + [16] * 10, cell=np.eye(3) * 12.0, positions=positions, time=np.arange(frames) * 10.0)
    return path


def test_transport_from_several_temperatures(naica: Callable[..., Any], tmp_path: Path) -> None:
    files = [trajectory(tmp_path / f"{t}.npz", t, t) for t in (600, 800, 1000)]
    ran = naica("transport", *files, "-s", "Li", "--charge", 1, "-T", 600, "-T", 800, "-T", 1000, "--at", 300, "--plot", tmp_path, "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    line = found["arrhenius"]
    assert abs(line["activation_energy_eV"]["value"] - 0.2) < 4 * line["activation_energy_eV"]["sigma"]
    assert line["extrapolated"]["conductivity_mS_cm"] > 0
    assert [run["temperature"] for run in found["runs"]] == [600, 800, 1000]
    assert all(run["conductivity_mS_cm"]["sigma"] > 0 for run in found["runs"])
    assert (tmp_path / "msd.png").stat().st_size > 5000
    assert (tmp_path / "arrhenius.png").stat().st_size > 5000
    words = naica("transport", *files, "-s", "Li", "-T", 600, "-T", 800, "-T", 1000)
    assert "activation energy 0." in words.out
    assert "–" in words.out  # no conductivity without a charge


def test_transport_refuses(naica: Callable[..., Any], tmp_path: Path) -> None:
    file = trajectory(tmp_path / "a.npz", 0, 800)
    for arguments, words in (
        (("-s", "Na"), "has no Na; it has Li, S"),
        (("-s", "Li", "-T", 1, "-T", 2), "2 temperatures for 1 trajectories"),
        (("-s", "Li", "--drop", 99), "cannot be dropped"),
    ):
        ran = naica("transport", file, *arguments)
        assert ran.code == 2
        assert words in " ".join(ran.err.split())
    short = trajectory(tmp_path / "b.npz", 0, 800, frames=10)
    assert "needs at least 40" in naica("transport", short, "-s", "Li").err


def test_eos_and_elastic(naica: Callable[..., Any], copper: Path, tmp_path: Path) -> None:
    ran = naica("eos", copper, "--model", "emt", "--plot", tmp_path / "eos.png", "--json")
    assert ran.code == 0, ran.err
    birch, vinet = ran.json["results"]
    assert birch["bulk_modulus_GPa"]["value"] == pytest.approx(134.4, abs=0.5)
    assert vinet["form"] == "vinet"
    assert (tmp_path / "eos.png").is_file()
    ran = naica("elastic", copper, "--model", "emt", "--json")
    tensor = np.array(ran.json["results"][0]["tensor_GPa"])
    assert tensor[0, 0] == pytest.approx(172.6, abs=1)
    assert tensor[3, 3] == pytest.approx(89.9, abs=1)
    assert ran.json["results"][0]["stable"]
    assert "mechanically stable" in naica("elastic", copper, "--model", "emt").out


def test_what_fails_is_a_row(naica: Callable[..., Any], copper: Path, tmp_path: Path) -> None:
    write(tmp_path / "Fe.cif", bulk("Fe"))
    both = naica("eos", copper, tmp_path / "Fe.cif", "--model", "emt", "--json")
    assert both.code == 0
    assert any("does not know Fe" in row.get("error", "") for row in both.json["results"])
    assert naica("elastic", tmp_path / "Fe.cif", "--model", "emt").code == 2


def test_phonons_with_picture_and_arrays(naica: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("phonopy")
    write(tmp_path / "Al.cif", bulk("Al"))
    ran = naica(
        "phonons", tmp_path / "Al.cif", "-m", "emt", "--width", 7, "--plot", tmp_path / "p.png", "--out", tmp_path / "al.npz", "--json"
    )
    assert ran.code == 0, ran.err
    assert ran.json["stable"]
    assert ran.json["highest_THz"] == pytest.approx(8.6, abs=0.4)
    assert (tmp_path / "p.png").is_file()
    assert np.load(tmp_path / "al.npz")["force_constants"].shape[2:] == (3, 3)


def test_rdf_and_conductivity_and_export(naica: Callable[..., Any], tmp_path: Path) -> None:
    """A short run of the protocol with a pair potential, resumed, and looked at."""
    write(tmp_path / "ar.cif", bulk("Ar", cubic=True, a=5.4))
    asked = (
        tmp_path / "ar.cif",
        "-m",
        "lennard-jones",
        "-o",
        tmp_path / "run.ntr",
        "-T",
        40,
        "--duration",
        2.4,
        "--drop",
        0.4,
        "--width",
        5,
    )
    ran = naica("conductivity", *asked)
    assert ran.code == 2
    assert "no mobile species of Li, Na, K, Mg, Ca" in " ".join(ran.err.split())
    ran = naica("conductivity", *asked, "-s", "Ar", "--charge", 1, "--json")
    assert ran.code == 0, ran.err
    assert not ran.json["superionic"]
    # four atoms that shake for two picoseconds: nothing is resolved, so nothing is claimed
    assert not ran.json["diffusion"]["resolved"]
    again = naica("conductivity", *asked, "-s", "Ar", "--charge", 1, "--json")
    assert again.json == ran.json
    looked = naica("rdf", tmp_path / "run.ntr", "--radius", 5, "--plot", tmp_path / "rdf.png", "--json")
    assert looked.json["pairs"][0]["coordination"] == pytest.approx(12, abs=0.3)
    assert (tmp_path / "rdf.png").is_file()
    assert "say what to write" in naica("potential", "export", "lennard-jones", "--structure", tmp_path / "ar.cif").err


@pytest.mark.slow
def test_melting_argon_from_the_command_line(naica: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "ar.cif", bulk("Ar", cubic=True, a=5.45))
    asked = ("--guess", 80, "--dt", 5, "--repeats", 2, 2, 6, "--steps", 400, "--settle", 300, "--out", tmp_path / "run")
    ran = naica("melt", tmp_path / "ar.cif", "--model", "lennard-jones", *asked, "--plot", tmp_path / "melt.png", "--json")
    assert ran.code in (0, 2)
    assert 55 < ran.json["temperature_K"]["value"] < 100
    assert (tmp_path / "melt.png").is_file()
