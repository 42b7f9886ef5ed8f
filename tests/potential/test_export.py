"""Our potentials in LAMMPS, torch-sim and torch.export: the same numbers there, and honest refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from naica.errors import InputError, RunError
from naica.potential.lennard_jones import LennardJones
from naica.potential.model import PotentialModel, PotentialParts
from naica.potential.single_points import computed
from naica.structure import Crystal


def skewed(repeat: int = 2) -> Crystal:
    """Argon in a sheared, arbitrarily turned cell, off its sites."""
    atoms = bulk("Ar", a=5.4).repeat(repeat)
    atoms.rattle(0.1, seed=1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    shear = np.eye(3) + np.array([[0, 0.05, 0.02], [0, 0.03, -0.04], [0, 0, 0]])
    atoms.set_cell(atoms.cell.array @ shear @ turn, scale_atoms=True)
    return Crystal.from_ase(atoms)


# --- LAMMPS -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def lammps():  # type: ignore[no-untyped-def]
    from naica.errors import MissingPart
    from naica.potential import export_lammps

    try:
        export_lammps._lammps()
    except MissingPart as missing:
        pytest.skip(str(missing))
    return export_lammps


def test_lammps_says_what_we_say(lammps) -> None:  # type: ignore[no-untyped-def]
    crystal = skewed()
    ours = computed([crystal], "lennard-jones")[0]
    with lammps.Session(crystal, "lennard-jones") as session:
        session.run(0)
        assert session.thermo("pe") == pytest.approx(ours.energy, abs=1e-12)
        np.testing.assert_allclose(session.forces, ours.forces, atol=1e-12)
        # LAMMPS's pressure is positive under compression, ours a stress positive under tension; its frame is turned
        wanted = -session.turn.T @ ours.stress @ session.turn * lammps.BAR
        for name, i, j in (("pxx", 0, 0), ("pyy", 1, 1), ("pzz", 2, 2), ("pxy", 0, 1), ("pxz", 0, 2), ("pyz", 1, 2)):
            assert session.thermo(name) == pytest.approx(wanted[i, j], abs=1e-2)
        np.testing.assert_allclose(session.crystal.cell, crystal.cell, atol=1e-10)
        assert np.abs(session.crystal.min_distance() - crystal.min_distance()) < 1e-9


def test_energy_is_kept_in_nve_and_the_box_is_fresh_under_npt(lammps) -> None:  # type: ignore[no-untyped-def]
    with lammps.Session(skewed(3), LennardJones()) as session:
        session.commands("velocity all create 40 1 mom yes", "timestep 0.002", "fix 1 all nve")
        session.run(0)
        start = session.thermo("etotal")
        session.run(150)
        assert abs(session.thermo("etotal") - start) / 27 < 2e-6
        before = session.thermo("vol")
        session.commands("unfix 1", "fix 1 all npt temp 40 40 0.1 iso 0 0 0.3")
        session.run(60)
        assert abs(session.thermo("vol") / before - 1) > 0.01
        # with a remembered box energy and stress would be those of another cell
        now = computed([session.crystal], "lennard-jones")[0]
        assert session.thermo("pe") == pytest.approx(now.energy, abs=1e-9)
        kinetic = 2 / 3 * session.thermo("ke") / session.thermo("vol") * lammps.BAR
        assert session.thermo("press") - kinetic == pytest.approx(-np.trace(now.stress) / 3 * lammps.BAR, rel=1e-3, abs=1.0)


def test_a_network_of_two_species_in_lammps(lammps) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=0)
    crystal, model = Crystal.from_ase(atoms), PotentialModel("schnet", {"width": 8, "interactions": 1})
    ours = computed([crystal], model)[0]
    with lammps.Session(crystal, model) as session:
        session.run(0)
        assert lammps.symbols_of(session) == ("Na", "Cl")
        assert session.thermo("pe") == pytest.approx(ours.energy, abs=1e-10)
        np.testing.assert_allclose(session.forces, ours.forces, atol=1e-10)


def test_dynamics_in_one_call_and_a_driver(lammps, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    seen = []
    end = lammps.run(
        skewed(), "lennard-jones", 20, "fix 1 all nve", temperature=30.0, watch=lambda s: seen.append(s.thermo("temp")), every=10
    )
    assert len(seen) == 2
    assert np.abs(end.positions - skewed().positions).max() > 1e-4
    from ase.io import write

    write(tmp_path / "ar.cif", bulk("Ar", cubic=True, a=5.4))
    driver = lammps.script("lennard-jones", str(tmp_path / "ar.cif"), tmp_path / "driver.py")
    text = (
        driver.read_text().replace("run(1000)", "run(5)").replace('"log.lammps"', "None").replace("dump.lammpstrj", str(tmp_path / "dump"))
    )
    exec(compile(text, str(driver), "exec"), {"__name__": "driver"})


def test_what_lammps_or_the_potential_refuses(lammps) -> None:  # type: ignore[no-untyped-def]
    with lammps.Session(skewed(), "lennard-jones") as session, pytest.raises(InputError, match="LAMMPS refused 'fix 1 all nonsense'"):
        session.command("fix 1 all nonsense")
    with pytest.raises(InputError, match="does not know Ar"):
        lammps.Session(skewed(), "emt")
    with pytest.raises(InputError, match="repeats in 0 directions"):
        lammps.Session(Crystal([18, 18], [[0, 0, 0], [4, 0, 0]], np.zeros((3, 3)), False), "lennard-jones")
    left = skewed()
    with pytest.raises(InputError, match="left-handed"):
        lammps.Session(left.replace(cell=left.cell[[1, 0, 2]]), "lennard-jones")

    class Broken(LennardJones):
        def evaluate(self, batch):  # type: ignore[no-untyped-def]
            raise InputError("it broke")

    with lammps.Session(skewed(), Broken()) as session, pytest.raises(RunError, match="it broke"):
        session.run(3)


# --- torch-sim --------------------------------------------------------------------------------------------------------
def test_torch_sim_relaxes_a_batch_as_we_do() -> None:
    torch_sim = pytest.importorskip("torch_sim")
    from naica.potential.export_torch_sim import torch_sim_model
    from naica.potential.relax import relax

    crystals = [skewed(1).supercell((2, 1, 1)), skewed(2)]
    model = torch_sim_model("lennard-jones")
    state = torch_sim.initialize_state([c.to_ase() for c in crystals], model.device, model.dtype)
    found = model(state)
    for k, ours in enumerate(computed(crystals, "lennard-jones")):
        assert float(found["energy"][k]) == pytest.approx(ours.energy, abs=1e-12)
        np.testing.assert_allclose(found["forces"][state.system_idx == k].numpy(), ours.forces, atol=1e-12)
        np.testing.assert_allclose(found["stress"][k].numpy(), ours.stress, atol=1e-12)
    converged = torch_sim.generate_force_convergence_fn(force_tol=1e-3, include_cell_forces=True)
    done = torch_sim.optimize(
        [c.to_ase() for c in crystals], model, optimizer=torch_sim.frechet_cell_fire, convergence_fn=converged, max_steps=600
    )
    wanted = [one.energy for one in relax(crystals, "lennard-jones", fmax=1e-4)]
    assert [float(e) for e in done.energy] == pytest.approx(wanted, abs=5e-4)


# --- torch.export -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("schnet", {"width": 8, "interactions": 1}),
        pytest.param("painn", {"width": 8, "layers": 1}, marks=pytest.mark.slow),
        pytest.param("nequip", {"elements": ["Na", "Cl"], "channels": 4, "layers": 2, "cutoff": 4.0}, marks=pytest.mark.slow),
        pytest.param("m3gnet", {"width": 16, "blocks": 1, "cutoff": 4.0, "three_body_cutoff": 3.5}, marks=pytest.mark.slow),
    ],
)
def test_programs_give_our_numbers_at_any_size(architecture: str, settings: dict[str, Any], tmp_path: Path) -> None:
    from naica.potential.export_program import export_program

    torch.manual_seed(0)
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=0)
    done = export_program(PotentialModel(architecture, settings), tmp_path / "program.pt2", Crystal.from_ase(atoms))
    assert done.path.is_file()
    assert done.elements == ("Na", "Cl")
    assert max(done.energy_error, done.force_error, done.stress_error) < 1e-10


def test_what_cannot_be_a_program_says_why(tmp_path: Path) -> None:
    from naica.potential.export_program import export_program

    crystal = skewed()
    several = PotentialModel("schnet", {"width": 8, "interactions": 1})

    class Committee:
        members, card = (several, several), None

    with pytest.raises(InputError, match="2 members"):
        export_program(Committee(), tmp_path / "a.pt2", crystal)
    with pytest.raises(InputError, match=r"ONNX\) are not"):
        export_program(several, tmp_path / "a.onnx", crystal)
    for parts, why in ((PotentialParts(electrostatics="latent"), "Ewald"), (PotentialParts(spin="collinear"), "magnetic moments")):
        with pytest.raises(InputError, match=why):
            export_program(PotentialModel("schnet", {"width": 8, "interactions": 1}, parts), tmp_path / "a.pt2", crystal)
