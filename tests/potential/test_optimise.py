"""Relaxation in batches: ASE finds the same minima with more calls, and who shares a batch with whom does not matter."""

import numpy as np
import pytest
import torch
from ase import optimize
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter

from naica.errors import ConfigError, InputError
from naica.potential.evaluator import Batched, of
from naica.potential.lennard_jones import LennardJones
from naica.potential.model import PotentialModel
from naica.potential.optimise import Goal, _Batch, _Group, _Member, optimise
from naica.potential.relax import relax
from naica.potential.systems import Systems
from naica.structure import Crystal
from naica.structure.symmetry import symmetry

LJ = LennardJones(epsilon=0.4, sigma=2.3, cutoff=5.0, onset=4.0)


class Wrapped(Calculator):
    """Our potential for ASE, counting."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self) -> None:
        super().__init__()
        self.evaluator = Batched(LJ)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        found = self.evaluator.evaluate(Systems.of(Crystal.from_ase(self.atoms)))
        stress = found.stress[0].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        self.results = {"energy": float(found.energy), "forces": found.forces.numpy(), "stress": stress}


def shaken(seed: int, repeats=(1, 1, 1), noise: float = 0.08) -> Crystal:
    draw = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True, a=3.62) * repeats
    del atoms[[0]]  # a vacancy: forces do not vanish by symmetry
    strain = np.eye(3) + 0.03 * draw.normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ (strain + strain.T) / 2, scale_atoms=True)
    atoms.positions += noise * draw.normal(size=atoms.positions.shape)
    return Crystal.from_ase(atoms)


MANY = [shaken(k, repeats) for k, repeats in enumerate([(1, 1, 1), (2, 1, 1), (1, 1, 1), (2, 2, 1), (1, 2, 1)])]


# --- against ASE ------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "pressure", "many"), [("lbfgs", 0.0, 3), ("lbfgs", 0.05, 3), ("fire", 0.0, 1)])
def test_minima_are_those_of_ase_with_fewer_calls(method, pressure, many) -> None:  # type: ignore[no-untyped-def]
    ours = Batched(LJ)
    done = optimise(MANY[:many], ours, Goal(fmax=1e-3, steps=500, method=method, pressure=pressure))
    calls = 0
    for crystal, result in zip(MANY[:many], done, strict=True):
        atoms = crystal.to_ase()
        atoms.calc = Wrapped()
        optimiser = optimize.BFGS if method == "lbfgs" else optimize.FIRE
        optimiser(FrechetCellFilter(atoms, scalar_pressure=pressure), logfile=None).run(fmax=1e-3, steps=500)
        calls += atoms.calc.evaluator.calls
        assert result.status == "converged"
        assert result.crystal is not None
        enthalpy = atoms.get_potential_energy() + pressure * atoms.get_volume()
        assert result.energy + pressure * result.crystal.volume == pytest.approx(enthalpy, abs=2e-5)
        np.testing.assert_allclose(result.crystal.cell, atoms.cell.array, atol=5e-3)
        assert result.stress is not None
        assert np.trace(result.stress) / 3 == pytest.approx(-pressure, abs=2e-3)
    assert ours.calls <= (0.75 if method == "lbfgs" else 1.02) * calls


def test_forces_on_the_degrees_of_freedom_are_slopes_of_the_enthalpy() -> None:
    goal = Goal(pressure=0.03)
    batch = _Batch(Batched(LJ), goal)
    batch.enter(_Member(0, shaken(1)))
    batch.enter(_Member(1, shaken(2)))
    batch._admit()
    draw = np.random.default_rng(0)
    tilt = draw.normal(size=(2, 3, 3)) * 0.2
    batch.rows["x"][batch.cell_rows] += torch.from_numpy(tilt + tilt.transpose(0, 2, 1))

    def enthalpy() -> float:
        systems, _ = batch._systems()
        return float((batch.evaluator.evaluate(systems).energy + goal.pressure * systems.volume).sum())

    systems, grow = batch._systems()
    forces, cell_forces = batch._forces(systems, grow, batch.evaluator.evaluate(systems))
    for atom, axis in ((0, 1), (4, 2)):
        energies = []
        for sign in (1, -1):
            batch.rows["x"][batch.atom_rows[atom], axis] += sign * 1e-5
            energies.append(enthalpy())
            batch.rows["x"][batch.atom_rows[atom], axis] -= sign * 1e-5
        assert float(forces[atom, axis]) == pytest.approx((energies[1] - energies[0]) / 2e-5, abs=1e-6)
    for k, a, b in ((0, 0, 0), (1, 0, 2)):
        energies = []
        for sign in (1, -1):
            for row, column in ((a, b), (b, a)):
                batch.rows["x"][batch.cell_rows[k, row], column] += sign * 1e-5 / 2
            energies.append(enthalpy())
            for row, column in ((a, b), (b, a)):
                batch.rows["x"][batch.cell_rows[k, row], column] -= sign * 1e-5 / 2
        assert float(cell_forces[k, a, b]) == pytest.approx((energies[1] - energies[0]) / 2e-5, abs=1e-6)


# --- batches ----------------------------------------------------------------------------------------------------------------------------
def test_who_shares_a_batch_does_not_matter() -> None:
    alone = [optimise([one], Batched(LJ), Goal(fmax=0.01))[0] for one in MANY]
    for size in (1, 12, 1000):
        done = optimise(MANY, Batched(LJ), Goal(fmax=0.01, batch_atoms=size))
        for a, b in zip(alone, done, strict=True):
            assert (a.status, a.steps) == ("converged", b.steps)
            assert a.energy == pytest.approx(b.energy, abs=1e-10)
            assert a.crystal is not None
            assert b.crystal is not None
            np.testing.assert_allclose(a.crystal.positions, b.crystal.positions, atol=1e-9)


def test_the_batch_stays_full_and_progress_is_told() -> None:
    sizes, seen = [], []

    class Watching(Batched):
        def evaluate(self, systems):  # type: ignore[no-untyped-def]
            sizes.append(len(systems.number))
            return super().evaluate(systems)

    crystals = [shaken(k) for k in range(12)]
    done = optimise(crystals, Watching(LJ), Goal(fmax=0.01, batch_atoms=9), progress=lambda *s: seen.append(s))
    assert {r.status for r in done} == {"converged"}
    assert max(sizes) == 9
    assert np.mean(np.array(sizes) == 9) > 0.7
    assert seen[-1] == (12, 12)
    assert sorted(seen) == seen


def test_bad_members_end_with_a_reason_and_the_others_go_on() -> None:
    twins = Crystal([29, 29], np.zeros((2, 3)), np.eye(3) * 5)
    near = Crystal([29, 29], [[0, 0, 0], [0.3, 0, 0]], np.eye(3) * 5)
    thin = Crystal([29], [[0, 0, 0]], np.eye(3) * 4.9)  # so far apart that nothing holds it
    done = optimise([MANY[0], twins, near, MANY[2], thin], Batched(LJ), Goal(fmax=0.01, steps=60))
    assert [r.status for r in done][:4] == ["converged", "failed", "failed", "converged"]
    assert "same place" in done[1].reason
    assert "two atoms came within 0.30 Å" in done[2].reason
    short = optimise(MANY[:1], Batched(LJ), Goal(fmax=1e-9, steps=3))[0]
    assert short.status == "not converged"
    assert "not converged in 3 steps: largest force" in short.reason
    late = optimise(MANY[:1], Batched(LJ), Goal(max_seconds=1e-9))[0]
    assert late.status == "failed"
    assert "not finished within 1e-09 s" in late.reason


def test_a_collapse_is_told_with_both_methods() -> None:
    """A pure attraction pulls everything together."""

    class Attraction:
        cutoff = 5.0

        def evaluate(self, batch):  # type: ignore[no-untyped-def]
            from naica.potential.derivatives import differentiated

            def energy(local):  # type: ignore[no-untyped-def]
                pair = -((1 - local["edge_length"] / 5.0) ** 3) * (local["edge_length"] < 5.0)
                return pair.new_zeros(local.n_systems).index_add(0, local.system_of("edge"), pair), {}

            return differentiated(energy, batch)

    done = optimise([MANY[0]], Batched(Attraction()), Goal(fmax=1e-4))[0]
    assert done.status == "failed"
    assert "L-BFGS, step" in done.reason
    assert "FIRE, step" in done.reason


# --- what may change --------------------------------------------------------------------------------------------------------------------
def test_fixed_volume_cell_and_atoms() -> None:
    crystal = MANY[0]
    volume = optimise([crystal], Batched(LJ), Goal(fmax=0.01, volume=False))[0]
    assert volume.status == "converged"
    assert volume.crystal is not None
    assert volume.crystal.volume == pytest.approx(crystal.volume, rel=1e-10)
    assert np.abs(volume.crystal.cell - crystal.cell).max() > 1e-3
    shear = volume.stress - np.eye(3) * np.trace(volume.stress) / 3
    assert np.abs(shear).max() < 0.002
    cell = optimise([crystal], Batched(LJ), Goal(fmax=0.01, cell=False))[0]
    assert cell.crystal is not None
    np.testing.assert_array_equal(cell.crystal.cell, crystal.cell)
    slab = Crystal.from_ase(fcc111("Cu", (1, 1, 4), a=3.5, vacuum=6.0))
    held = optimise([slab, crystal], Batched(LJ), Goal(fmax=0.01, cell=False), fixed=[[0, 1], []])
    assert held[0].crystal is not None
    np.testing.assert_array_equal(held[0].crystal.positions[:2], slab.positions[:2])
    assert np.abs(held[0].crystal.positions[3] - slab.positions[3]).max() > 1e-3
    assert held[0].stress is None
    assert held[1].energy == cell.energy
    assert "indices start at 0" in optimise([slab], Batched(LJ), Goal(), fixed=[[7]])[0].reason


def test_symmetry_is_kept_where_asked_for() -> None:
    rutile = Crystal.from_fractional(
        [29, 29, 47, 47, 47, 47],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]],
        np.diag([5.2, 5.2, 3.3]),
    )
    assert symmetry(rutile).number == 136
    done = optimise([rutile], Batched(LJ), Goal(fmax=1e-3, symmetry=True, steps=400))[0]
    assert done.status == "converged"
    assert done.crystal is not None
    assert symmetry(done.crystal, 1e-4).number in range(136, 231)
    assert done.crystal.cell[0, 0] == pytest.approx(done.crystal.cell[1, 1], abs=1e-8)
    slab = rutile.replace(pbc=(True, True, False))
    assert "symmetry cannot be kept" in optimise([slab], Batched(LJ), Goal(symmetry=True))[0].reason


def test_averages_over_a_group_are_projections() -> None:
    diamond = Crystal.from_ase(bulk("Si", "diamond", a=5.4, cubic=True))
    group = _Group.of(diamond)
    assert len(group.turns) == 192
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3)))
    assert float(group.vectors(rows).abs().max()) < 1e-12  # a cubic site feels no force
    tensor = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3)))
    torch.testing.assert_close(group.matrix(tensor), torch.eye(3).double() * tensor.trace() / 3, atol=1e-12, rtol=0)
    low = _Group.of(MANY[1])
    once = low.vectors(rows[:7] if len(MANY[1]) == 7 else rows)
    torch.testing.assert_close(low.vectors(once), once)


# --- through the public verb ------------------------------------------------------------------------------------------------------------
def test_networks_relax_in_one_batch_and_in_32_bits() -> None:
    torch.manual_seed(3)
    model = PotentialModel("schnet", {"width": 16, "interactions": 2, "cutoff": 4.5}, scale=0.05)
    crystals = [Crystal.from_ase(bulk("Cu", cubic=True, a=a)) for a in (3.5, 3.6, 3.7)]
    crystals = [c.replace(positions=c.positions + 0.02 * np.sin(np.arange(12.0)).reshape(4, 3)) for c in crystals]
    double = relax(crystals, model, fmax=0.02, steps=40, cell=False)
    single = relax(crystals, model, fmax=0.02, steps=40, cell=False, dtype="float32")
    alone = relax(crystals[1], model, fmax=0.02, steps=40, cell=False)
    assert alone[0].steps == double[1].steps
    for a, b in zip(double, single, strict=True):
        assert a.status == b.status
        assert b.energy == pytest.approx(a.energy, abs=1e-4)


def test_calculators_without_stress_are_told() -> None:
    class NoStress(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
            super().calculate(atoms, properties, system_changes)
            away = self.atoms.positions - self.atoms.get_center_of_mass()
            self.results = {"energy": float((away**2).sum() / 2), "forces": -away}

    crystal = Crystal([29, 29], [[0, 0, 0], [2.5, 0, 0]], np.eye(3) * 6)
    assert "no stress to relax the cell with" in relax(crystal, NoStress())[0].reason
    assert of(NoStress()).evaluate(Systems.of(crystal)).stress.isnan().all()


def test_senseless_goals() -> None:
    with pytest.raises(ConfigError, match="unknown optimiser 'newton'"):
        Goal(method="newton")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected at least 1"):
        Goal(batch_atoms=0)
    with pytest.raises(InputError, match="lists of fixed atoms"):
        optimise(MANY, Batched(LJ), Goal(), fixed=[[]])
