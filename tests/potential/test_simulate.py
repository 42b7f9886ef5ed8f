"""Runs: a kill loses nothing, a file is read as it was written, one bad member stops alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk

import naica
from naica.errors import InputError, RunError
from naica.potential import simulate
from naica.potential.derivatives import Evaluation
from naica.potential.lennard_jones import LennardJones
from naica.potential.simulate import md
from naica.potential.trajectory import Stopped, Trajectory, Writer
from naica.structure import Crystal
from naica.structure.io import read

SHORT = LennardJones(cutoff=5.5, onset=4.5)
ARGON = Crystal.from_ase(bulk("Ar", a=5.35, cubic=True))


class Sick:
    """Lennard-Jones that turns sick for pairs of atoms after some calls."""

    cutoff = SHORT.cutoff

    def __init__(self, how: str, after: int) -> None:
        self.how, self.left = how, after

    def evaluate(self, batch) -> Evaluation:  # type: ignore[no-untyped-def]
        found = SHORT.evaluate(batch)
        self.left -= 1
        ill = batch["n_atoms"] == 2
        if self.left >= 0 or not bool(ill.any()):
            return found
        if self.how == "raise":
            raise RuntimeError("the network met a pair")
        if self.how == "nan":
            return Evaluation(found.energy.masked_fill(ill, torch.nan), found.forces, found.stress)
        push = torch.zeros_like(found.forces)
        push[ill[batch["system"]], 0] = {"push": 1e4, "kick": 500.0}[self.how]
        return Evaluation(found.energy, found.forces + push, found.stress)


PAIR = Crystal([18, 18], [[0, 0, 0], [3.9, 0, 0]])


# --- resuming ---------------------------------------------------------------------------------------------------------------------------
def long_run(path: str, ensemble: str, kill: int = -1) -> simulate.Simulation:
    """Two systems on a ramp; the process dies at a step if asked to."""

    def watch(state, members):  # type: ignore[no-untyped-def]
        if state.step == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    two, kept = [ARGON, ARGON.scaled(1.02)], {"velocities": True, "every": 4, "checkpoint": 16}
    return md(two, SHORT, ensemble, [30.0, 40.0], 60, dt=2.0, path=path, ramp_to=50.0, ramp_steps=40, watch=watch, **kept)


@pytest.mark.parametrize("ensemble", ["langevin", "npt"])
def test_a_killed_run_goes_on_with_the_same_numbers(tmp_path, ensemble) -> None:  # type: ignore[no-untyped-def]
    killed = str(tmp_path / "killed.ntr")
    folder = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); from test_simulate import long_run; long_run({killed!r}, {ensemble!r}, 40)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -signal.SIGKILL
    assert Trajectory(killed).frames(0).step[-1] < 40
    assert long_run(str(tmp_path / "whole.ntr"), ensemble).resumed == 0
    assert long_run(killed, ensemble).resumed == 32
    assert Path(killed).read_bytes() == (tmp_path / "whole.ntr").read_bytes()
    assert Trajectory(killed).frames(1).step.tolist() == list(range(0, 61, 4))


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt-rescale"])
def test_an_interrupted_run_goes_on_with_the_same_numbers(tmp_path, ensemble) -> None:  # type: ignore[no-untyped-def]
    class Stop(Exception):
        pass

    def watch(state, members):  # type: ignore[no-untyped-def]
        if state.step == 30:
            raise Stop

    def run(name, watch=None):  # type: ignore[no-untyped-def]
        return md(ARGON, SHORT, ensemble, 40.0, 50, dt=2.0, path=tmp_path / name, every=5, checkpoint=20, watch=watch)

    whole = run("whole.ntr")
    with pytest.raises(Stop):
        run("cut.ntr", watch)
    resumed = run("cut.ntr")
    assert (whole.resumed, resumed.resumed) == (0, 20)
    assert whole.state is not None
    assert resumed.state is not None
    assert torch.equal(whole.state.systems.positions, resumed.state.systems.positions)
    assert (tmp_path / "cut.ntr").read_bytes() == (tmp_path / "whole.ntr").read_bytes()


def test_emt_and_networks_resume_exactly_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from naica.potential.model import PotentialModel

    torch.manual_seed(1)
    network = PotentialModel("schnet", {"width": 8, "interactions": 1, "cutoff": 4.0}, scale=0.02)
    copper = Crystal.from_ase(bulk("Cu", cubic=True))
    for model, dtype in (("emt", "float64"), (network, "float32")):
        ends = []
        for name, parts in (("whole", (30,)), ("parts", (10, 30))):
            path = tmp_path / f"{name}-{dtype}.ntr"
            for steps in parts:
                done = md(copper, model, "nvt", 900.0, steps, dt=2.0, path=path, every=5, checkpoint=10, dtype=dtype)
            assert done.state is not None
            ends.append(done.state.systems.positions)
        assert torch.equal(*ends)


def test_a_finished_run_is_not_run_again_but_can_be_longer(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "run.ntr"
    first = md(ARGON, SHORT, "nve", 20.0, 20, path=path)
    size = path.stat().st_size
    again = md(ARGON, SHORT, "nve", 20.0, 20, path=path)
    assert (again.resumed, path.stat().st_size) == (20, size)
    longer = md(ARGON, SHORT, "nve", 20.0, 40, path=path)
    assert longer.trajectory.frames().step.tolist() == [0, 10, 20, 30, 40]
    assert first.state is not None


def test_another_runs_file_is_not_touched(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "run.ntr"
    md(ARGON, SHORT, "nvt", 20.0, 10, path=path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"another run: different temperature \(20\.0 there, 30\.0 asked for\)"):
        md(ARGON, SHORT, "nvt", 30.0, 10, path=path)
    with pytest.raises(InputError, match="different atoms"):
        md(ARGON.supercell((2, 1, 1)), SHORT, "nvt", 20.0, 10, path=path)
    assert path.read_bytes() == before
    other = tmp_path / "notes.txt"
    other.write_text("not a trajectory")
    with pytest.raises(InputError, match="no trajectory of naica"):
        md(ARGON, SHORT, "nvt", 20.0, 10, path=other)
    assert other.read_text() == "not a trajectory"


def test_what_a_kill_left_half_written_is_cut_off(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path, whole = tmp_path / "run.ntr", tmp_path / "whole.ntr"
    md(ARGON, SHORT, "nve", 20.0, 40, path=whole, checkpoint=20)
    md(ARGON, SHORT, "nve", 20.0, 20, path=path, checkpoint=20)
    sound = path.stat().st_size
    with path.open("ab") as file:
        file.write(whole.read_bytes()[sound : sound + 60])
    assert Trajectory(path).frames().step.tolist() == [0, 10, 20]
    md(ARGON, SHORT, "nve", 20.0, 40, path=path, checkpoint=20)
    assert path.read_bytes() == whole.read_bytes()
    # killed before the first state: there is nothing to lose, and the run starts anew
    path.write_bytes(whole.read_bytes()[:50])
    assert md(ARGON, SHORT, "nve", 20.0, 40, path=path, checkpoint=20).resumed == 0
    # a spoilt byte is found out
    data = bytearray(whole.read_bytes())
    data[sound + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is spoilt"):
        Trajectory(path).frames()


def test_one_writer_at_a_time(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "run.ntr"
    md(ARGON, SHORT, "nve", 20.0, 10, path=path)
    holder = Writer(path)
    with pytest.raises(RunError, match="another process writes"):
        md(ARGON, SHORT, "nve", 20.0, 20, path=path)
    holder.close()
    assert md(ARGON, SHORT, "nve", 20.0, 20, path=path).resumed == 10


# --- the file ---------------------------------------------------------------------------------------------------------------------------
def test_frames_are_read_as_they_were_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    seen = []

    def watch(state, members):  # type: ignore[no-untyped-def]
        seen.append(state)

    path = tmp_path / "run.ntr"
    settings = {"dt": 4.0, "every": 3, "checkpoint": 12, "velocities": True, "watch": watch, "barostat": 200.0, "shape": "full"}
    done = md([ARGON, ARGON.supercell((2, 1, 1))], SHORT, "npt", 40.0, 30, path=path, pressure=0.001, **settings)
    held = done.trajectory
    assert len(held) == 2
    assert held.settings["ensemble"] == "NPT"
    for k, atoms in ((0, slice(0, 4)), (1, slice(4, 12))):
        frames = held.frames(k)
        assert frames.step.tolist() == list(range(0, 31, 3))
        np.testing.assert_allclose(frames.time, frames.step * 4.0)
        np.testing.assert_allclose(frames.positions, [s.systems.positions[atoms].numpy() for s in seen], atol=0.5001e-4)
        np.testing.assert_array_equal(frames.cell, [s.systems.cell[k].numpy() for s in seen])
        np.testing.assert_allclose(frames.velocities, [s.velocities[atoms].numpy() for s in seen], rtol=1e-6, atol=1e-12)
        np.testing.assert_array_equal(frames.energy, [float(s.energy[k]) for s in seen])
        np.testing.assert_array_equal(frames.temperature, [float(s.temperature[k]) for s in seen])
        np.testing.assert_allclose(frames.volume, np.linalg.det(frames.cell))
    assert held.frames(1, first=10, stride=2).step.tolist() == [12, 18, 24, 30]
    with pytest.raises(InputError, match="systems 0 to 1; asked for 2"):
        held.frames(2)


def test_export(tmp_path) -> None:  # type: ignore[no-untyped-def]
    held = md(ARGON, SHORT, "nve", 40.0, 30, path=tmp_path / "run.ntr", velocities=True).trajectory
    assert held.export(tmp_path / "run.extxyz", first=10) == 3
    back = read(tmp_path / "run.extxyz")
    frames = held.frames()
    np.testing.assert_allclose(back[-1].positions, frames.positions[-1], atol=1e-6)
    assert back[0].info["step"] == 10
    assert back[-1].info["energy"] == pytest.approx(frames.energy[-1])
    atoms = list(held.atoms())[-1]
    assert atoms.get_kinetic_energy() == pytest.approx(frames.kinetic[-1], rel=1e-5)
    held.export(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as arrays:
        np.testing.assert_array_equal(arrays["positions"], frames.positions)
    assert [c.info["step"] for c in held.crystals(stride=3)] == [0, 30]


def test_atoms_may_travel_far(tmp_path) -> None:  # type: ignore[no-untyped-def]
    far = Crystal([18, 18], [[0, 0, 0], [1e6, -3e5, 0]])
    held = md(far, SHORT, "nve", 300.0, 20, path=tmp_path / "run.ntr").trajectory
    np.testing.assert_allclose(held.frames().positions[0], far.positions, atol=1e-4)


def test_frames_are_small(tmp_path) -> None:  # type: ignore[no-untyped-def]
    crystal = ARGON.supercell((4, 4, 4))
    path = tmp_path / "run.ntr"
    md(crystal, SHORT, "nve", 40.0, 100, dt=2.0, path=path, every=2, checkpoint=100)
    bytes_of_state = 256 * (9 * 8) * 2
    assert (path.stat().st_size - bytes_of_state) / (51 * 256) < 6.0  # bytes per atom and frame; plain doubles are 24


# --- members that go astray -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "energy or a force is not a finite number"),
        ("push", r"a force of 1e\+04 eV/Å \(limit 1000\)"),
        ("kick", r"an atom moved .* Å in one step of 20 fs \(limit 1 Å\)|a temperature of"),
        ("raise", "RuntimeError: the network met a pair"),
    ],
)
def test_an_exploding_member_is_stopped_and_the_others_go_on(tmp_path, how, words) -> None:  # type: ignore[no-untyped-def]
    import re

    dt = 20.0
    done = md([ARGON, PAIR, ARGON.scaled(1.01)], Sick(how, 12), "nve", 20.0, 30, dt=dt, path=tmp_path / "run.ntr", every=5)
    assert done.members == (0, 2)
    (stopped,) = done.stopped
    assert stopped.system == 1
    assert 10 <= stopped.step <= 14
    assert re.search(words, stopped.reason), stopped.reason
    held = done.trajectory
    assert held.stopped == done.stopped
    assert held.frames(1).step.tolist() == [0, 5, 10] + ([stopped.step] if stopped.step > 10 else [10])
    assert np.isfinite(held.frames(1).positions).all()
    assert held.frames(0).step[-1] == 30
    alone = md(ARGON.scaled(1.01), SHORT, "nve", 20.0, 30, dt=dt, seed=2)
    assert alone.state is not None
    assert done.state is not None
    assert torch.equal(done.state.take([1]).systems.positions, alone.state.systems.positions)


def test_who_cannot_start_is_stopped_at_once(tmp_path) -> None:  # type: ignore[no-untyped-def]
    twins = Crystal([18, 18], np.zeros((2, 3)), np.eye(3) * 8)
    near = Crystal([18, 18], [[0, 0, 0], [0.25, 0, 0]], np.eye(3) * 8)
    done = md([twins, ARGON, near], SHORT, "nve", 20.0, 10, path=tmp_path / "run.ntr")
    assert done.members == (1,)
    assert [one.system for one in done.stopped] == [0, 2]
    assert "same place" in done.stopped[0].reason
    foreign = Crystal([26], [[0, 0, 0]], np.eye(3) * 3)
    copper = Crystal.from_ase(bulk("Cu"))
    told = md([foreign, copper], "emt", "nve", 20.0, 3)
    assert told.members == (1,)
    assert "does not know Fe" in told.stopped[0].reason
    with pytest.raises(InputError, match="does not know Fe"):
        md(foreign, "emt", "nve", 20.0, 3)


def test_all_can_be_stopped_and_the_file_says_so(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "run.ntr"
    done = md(PAIR, Sick("nan", 5), "nvt", 20.0, 30, path=path)
    assert done.members == ()
    assert done.state is None
    again = md(PAIR, SHORT, "nvt", 20.0, 30, path=tmp_path / "other.ntr")
    assert again.members == (0,)
    assert Trajectory(path).stopped == (Stopped(0, 4, "energy or a force is not a finite number"),)


def test_progress_and_watchers() -> None:
    paces = []
    md(ARGON, SHORT, "nve", 20.0, 20, dt=2.0, every=5, progress=paces.append)
    assert [(p.done, p.total) for p in paces] == [(5, 20), (10, 20), (15, 20), (20, 20)]
    assert all(p.ns_per_day == pytest.approx(p.steps_per_second * 2e-6 * 86400) for p in paces)


def test_senseless_numbers() -> None:
    for wrong in ({"every": 0}, {"steps": -1}, {"checkpoint": 0}):
        with pytest.raises(InputError, match="expected at least 1 of each"):
            md(ARGON, SHORT, **wrong)
    with pytest.raises(InputError, match="expected float32 or float64"):
        md(ARGON, SHORT, dtype="float16")
    with pytest.raises(InputError, match="indices start at 0"):
        md(ARGON, SHORT, fixed=[[4]])


def test_the_public_verb() -> None:
    assert naica.md is simulate.md
    assert Path(simulate.__file__).name == "simulate.py"
