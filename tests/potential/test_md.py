"""Dynamics: what is conserved stays, what is reversible comes back, what is drawn is distributed right, and batches change nothing."""

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from scipy import stats

from naica.errors import ConfigError, InputError
from naica.potential import md
from naica.potential.evaluator import Batched, Biased
from naica.potential.lennard_jones import LennardJones
from naica.potential.md import BOLTZMANN, NPT, NVE, CellRescaling, Langevin, NoseHoover
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal

SHORT = LennardJones(cutoff=5.5, onset=4.5)


def of(atoms) -> Crystal:  # type: ignore[no-untyped-def]
    return Crystal(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


def argon(repeats=(1, 1, 1), a: float = 5.35) -> Crystal:
    return of(bulk("Ar", a=a, cubic=True)).supercell(repeats)


def evaluator() -> Batched:
    return Batched(SHORT)


def walk(state, ensemble, evaluator, steps):  # type: ignore[no-untyped-def]
    states = [state]
    for _ in range(steps):
        states.append(md.step(states[-1], evaluator, ensemble))
    return states


ALL = [NVE(2.0), Langevin(2.0), NoseHoover(2.0), NPT(2.0, shape="full"), NPT(2.0, shape="axes"), CellRescaling(2.0, compressibility=50.0)]
NAMES = ["nve", "langevin", "nvt", "npt full", "npt axes", "npt rescale"]


# --- potentials of the tests -------------------------------------------------------------------------------------------------------------
def test_forces_and_stress_of_the_test_potential_are_slopes() -> None:
    systems = Systems.of([argon(a=5.0)])
    shaken = systems.replace(positions=systems.positions + 0.2 * torch.sin(torch.arange(12.0).double()).view(4, 3))
    found = evaluator().evaluate(shaken)
    for atom, axis in ((0, 1), (3, 2)):
        energies = []
        for sign in (1, -1):
            moved = shaken.positions.clone()
            moved[atom, axis] += sign * 1e-4
            energies.append(float(evaluator().evaluate(shaken.replace(positions=moved)).energy))
        assert float(found.forces[atom, axis]) == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-8)
    for a, b in ((0, 0), (0, 2)):
        energies = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[a, b] += sign * 1e-5
            strained = shaken.replace(positions=shaken.positions @ strain, cell=shaken.cell @ strain)
            energies.append(float(evaluator().evaluate(strained).energy))
        assert float(found.stress[0, a, b]) == pytest.approx((energies[0] - energies[1]) / 2e-5 / float(systems.volume), abs=1e-9)


# --- the start --------------------------------------------------------------------------------------------------------------------------
def test_first_velocities_are_maxwells_and_at_rest() -> None:
    state = md.init(Systems.of([argon((4, 4, 4)), argon((4, 4, 4))]), evaluator(), NVE(), [50.0, 200.0], seed=1)
    assert float(state.momentum.abs().max()) < 1e-12
    widths = (BOLTZMANN * torch.tensor([50.0, 200.0]) * md.ACCELERATION / state.mass[0]).sqrt()
    for part, width in zip(state.velocities.split(256), widths, strict=True):
        assert stats.kstest((part / width).flatten().numpy(), "norm").pvalue > 1e-3
    np.testing.assert_allclose(state.temperature, [50, 200], rtol=0.1)
    assert state.freedom.tolist() == [765, 765]


def test_units() -> None:
    """A free atom of 1 amu under 1 eV/Å gains 0.00964853 Å/fs each fs, and ½ m v² of 0.0982 Å/fs is ½ eV."""
    state = md.init(Systems.of(Crystal([1], [[0, 0, 0]])), evaluator(), NVE(), 0.0, mass=torch.tensor([1.0]))
    np.testing.assert_allclose(md.ACCELERATION, 1.602176634e-19 / 1.66053906660e-27 * 1e-10, rtol=1e-9)
    fast = state.replace(velocities=torch.tensor([[md.ACCELERATION**0.5, 0, 0]], dtype=torch.float64))
    assert float(fast.kinetic) == pytest.approx(0.5)
    assert float(fast.temperature) == pytest.approx(1 / (3 * BOLTZMANN))


# --- the equations ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ensemble", [NVE(2.0), NoseHoover(2.0, 40.0), NPT(2.0, 40.0, 200.0, shape="full")], ids=["nve", "nvt", "npt"])
def test_the_deterministic_ones_run_backwards(ensemble) -> None:  # type: ignore[no-untyped-def]
    potential = evaluator()
    start = md.init(Systems.of([argon((2, 1, 1))]), potential, ensemble, 60.0, seed=4)
    there = walk(start, ensemble, potential, 60)[-1]
    bath = {name: -value if name.endswith("rate") else value for name, value in there.bath.items()}
    back = walk(there.replace(velocities=-there.velocities, bath=bath), ensemble, potential, 60)[-1]
    assert float((there.systems.positions - start.systems.positions).abs().max()) > 0.1
    torch.testing.assert_close(back.systems.positions, start.systems.positions, atol=1e-9, rtol=0)
    torch.testing.assert_close(back.systems.cell, start.systems.cell, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "make",
    [NVE, lambda dt: NoseHoover(dt, 80.0), lambda dt: NPT(dt, 80.0, 400.0), lambda dt: NPT(dt, 80.0, 400.0, shape="full")],
    ids=["nve", "nvt", "npt", "npt full"],
)
def test_errors_of_what_is_conserved_fall_with_the_square_of_the_step(make) -> None:  # type: ignore[no-untyped-def]
    errors = []
    for dt in (8.0, 4.0):
        ensemble, potential = make(dt), evaluator()
        start = md.init(Systems.of([argon((2, 1, 1))]), potential, ensemble, 60.0, seed=2)
        kept = [float(ensemble.conserved(s)) for s in walk(start, ensemble, potential, int(480 / dt))]
        errors.append(np.abs(np.array(kept) - kept[0]).max())
        assert errors[-1] < 5e-3 * float(start.kinetic)
    assert 3.0 < errors[0] / errors[1] < 5.5


def test_ramps_conserve_as_well_and_arrive() -> None:
    ensemble, potential = NoseHoover(4.0, 80.0), evaluator()
    start = md.init(Systems.of([argon((2, 2, 1))]), potential, ensemble, 20.0, ramp_to=70.0, ramp_steps=150, seed=3)
    states = walk(start, ensemble, potential, 200)
    assert float(states[75].target) == pytest.approx(45)
    assert float(states[200].target) == 70
    kept = [float(ensemble.conserved(s)) for s in states]
    assert np.ptp(kept) < 2e-3 * float(states[-1].kinetic)
    hot = np.mean([float(s.temperature) for s in states[150:]])
    assert 45 < hot < 95


# --- distributions: many small systems at once are many samples -------------------------------------------------------------------------
def test_kinetic_energies_are_canonical_and_so_are_positions() -> None:
    kelvin, many, ensemble = 40.0, 48, Langevin(5.0, 0.02)
    potential = Batched(SHORT)
    sites = Systems.of([argon()] * many)
    state = md.init(sites, potential, ensemble, kelvin, seed=7)
    kinetic, clausius = [], []
    for k in range(420):
        state = md.step(state, potential, ensemble)
        if k >= 100 and k % 40 == 0:
            kinetic.append(state.kinetic)
            offset = state.systems.positions - sites.positions
            clausius.append(-md.per_system(state, (offset * state.forces).sum(1)))
    freedom, kt = 9, BOLTZMANN * kelvin
    assert state.freedom.tolist() == [freedom] * many
    sample = torch.cat(kinetic).numpy() / kt
    # ½ m v² summed over f degrees of freedom is a gamma variable of shape f/2: chi-square
    assert stats.kstest(sample, stats.gamma(freedom / 2).cdf).pvalue > 1e-3
    # the theorem of the virial: −Σ (r − R)·F is on average kT per degree of freedom, whatever the potential
    virial = torch.cat(clausius).numpy() / kt
    assert virial.mean() == pytest.approx(freedom, abs=4 * virial.std() / np.sqrt(many * 3))
    assert float(state.momentum.abs().max()) < 1e-10


# --- systems do not see each other ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ensemble", ALL, ids=NAMES)
def test_a_system_moves_in_a_batch_as_it_moves_alone(ensemble) -> None:  # type: ignore[no-untyped-def]
    crystals = [argon((1, 2, 1)), argon(a=5.4), argon(a=5.2)]
    together = md.init(Systems.of(crystals), evaluator(), ensemble, [30.0, 40.0, 50.0], pressure=[0.0, 1e-3, 0.0], seed=[5, 6, 9])
    potential = evaluator()
    end = walk(together, ensemble, potential, 25)[-1]
    alone = md.init(Systems.of(crystals[1]), evaluator(), ensemble, 40.0, pressure=1e-3, seed=6)
    lone = walk(alone, ensemble, evaluator(), 25)[-1]
    assert torch.equal(end.take([1]).systems.positions, lone.systems.positions)
    assert torch.equal(end.take([1]).velocities, lone.velocities)
    torch.testing.assert_close(ensemble.conserved(end)[1:2], ensemble.conserved(lone), rtol=1e-12, atol=1e-12)


def test_seeds_make_streams() -> None:
    def end(seed):  # type: ignore[no-untyped-def]
        start = md.init(Systems.of([argon(), argon()]), evaluator(), Langevin(2.0, 0.1), 40.0, seed=seed)
        return walk(start, Langevin(2.0, 0.1), evaluator(), 5)[-1].systems.positions

    assert torch.equal(end(1), end(1))
    assert not torch.equal(end(1), end(2))
    one, two = end(1).split(4)
    assert not torch.equal(one, two)  # equal systems part ways
    assert torch.equal(two, end(2).split(4)[0])  # and the second has the next seed


def test_a_network_in_a_batch_and_in_32_bits() -> None:
    torch.manual_seed(0)
    model = PotentialModel("schnet", {"width": 16, "interactions": 2, "cutoff": 4.5}, scale=0.05)
    cells = [of(bulk("Cu", cubic=True)), of(bulk("Cu", cubic=True, a=3.7)).supercell((2, 1, 1))]
    ends, drift = [], []
    for dtype, given in ((torch.float64, cells), (torch.float64, cells[1:]), (torch.float32, cells[1:])):
        from naica.potential.evaluator import of as evaluator_of

        potential = evaluator_of(model, dtype)
        start = md.init(Systems.of(given), potential, NVE(1.0), 300.0, seed=[1, 2] if len(given) == 2 else [2])
        states = walk(start, NVE(1.0), potential, 100)
        ends.append(states[-1].take([len(given) - 1]))
        kept = np.array([float(NVE(1.0).conserved(s)[-1]) for s in states]) / 8
        drift.append(abs(np.polyfit(np.arange(101) * 1e-6, kept, 1)[0]))
        assert states[-1].systems.positions.dtype == torch.float64
    torch.testing.assert_close(ends[0].systems.positions, ends[1].systems.positions, atol=1e-10, rtol=0)
    torch.testing.assert_close(ends[2].systems.positions, ends[1].systems.positions, atol=1e-3, rtol=0)
    assert max(drift) < 5.0  # eV per atom and ns, from 0.1 ps; the long runs are in test_md_physics.py


# --- molecules, slabs, fixed atoms ------------------------------------------------------------------------------------------------------
def test_molecules_slabs_lone_atoms_and_who_has_no_edges() -> None:
    pair = Crystal([18, 18], [[0, 0, 0], [3.9, 0, 0]])
    lone = Crystal([18], [[0, 0, 0]])
    far = Crystal([18, 18], [[0, 0, 0], [50, 0, 0]])
    slab = of(fcc111("Ar", (2, 2, 2), a=5.3, vacuum=8.0))
    for ensemble in (NVE(2.0), Langevin(2.0), NoseHoover(2.0)):
        potential = evaluator()
        start = md.init(Systems.of([pair, lone, far, slab]), potential, ensemble, 20.0, seed=0)
        end = walk(start, ensemble, potential, 40)[-1]
        assert start.freedom.tolist() == [3, 3, 3, 21]
        assert torch.isfinite(end.systems.positions).all()
        assert float(end.pressure_tensor.abs().max()) == 0
        assert torch.equal(end.systems.cell, start.systems.cell)
    free = walk(md.init(Systems.of([lone]), evaluator(), NVE(2.0), 20.0), NVE(2.0), evaluator(), 10)
    torch.testing.assert_close(free[-1].systems.positions, 20.0 * free[0].velocities, atol=1e-12, rtol=0)


def test_fixed_atoms_stay() -> None:
    slab = of(fcc111("Ar", (2, 2, 3), a=5.3, vacuum=8.0))
    fixed = torch.arange(12) < 4
    for ensemble in (NVE(2.0), Langevin(2.0), NoseHoover(2.0)):
        potential = evaluator()
        start = md.init(Systems.of([slab]), potential, ensemble, 40.0, fixed=fixed)
        end = walk(start, ensemble, potential, 30)[-1]
        assert torch.equal(end.systems.positions[:4], start.systems.positions[:4])
        assert float((end.systems.positions[4:] - start.systems.positions[4:]).abs().min()) > 0
        assert start.freedom.tolist() == [24]


def test_a_barostat_that_sees_the_wrong_pressure_moves_the_right_way() -> None:
    for ensemble in (
        NPT(4.0, barostat=200.0),
        NPT(4.0, barostat=200.0, shape="full"),
        CellRescaling(4.0, barostat=200.0, compressibility=50.0),
    ):
        potential = evaluator()
        start = md.init(Systems.of([argon((2, 1, 1))] * 2), potential, ensemble, 20.0, pressure=[0.005, -0.0003], seed=1)
        squeezed, pulled = (walk(start, ensemble, potential, 60)[-1].systems.volume / start.systems.volume).tolist()
        assert squeezed < 0.99
        assert pulled > 1.0


def test_shapes_of_the_cell() -> None:
    crystal = argon((2, 1, 1))
    for shape, off, alike in (("isotropic", 0, True), ("axes", 0, False), ("full", 1, False)):
        ensemble, potential = NPT(4.0, barostat=200.0, shape=shape), evaluator()
        start = md.init(Systems.of([crystal]), potential, ensemble, 40.0, pressure=0.01, seed=2)
        states = walk(start, ensemble, potential, 40)
        cell = states[-1].systems.cell[0] / start.systems.cell[0].diagonal()[:, None]
        straight = cell.diagonal()
        assert (float((cell - torch.diag(straight)).abs().max()) > 1e-6) == bool(off)
        assert (float(straight.max() - straight.min()) < 1e-12) == alike
        rate = states[-1].bath["strain_rate"][0]
        torch.testing.assert_close(rate, rate.T, atol=1e-15, rtol=0)  # nothing turns the cell


def test_a_bias_is_added() -> None:
    def pull(systems, found):  # type: ignore[no-untyped-def]
        forces = torch.zeros_like(found.forces)
        forces[0, 0] = 0.1
        return -0.1 * systems.positions[:1, 0], forces

    plain, driven = evaluator(), Biased(evaluator(), pull)
    systems = Systems.of([argon()])
    a, b = plain.evaluate(systems), driven.evaluate(systems)
    assert float((b.forces - a.forces)[0, 0]) == pytest.approx(0.1)
    end = walk(md.init(systems, driven, NVE(2.0), 1.0), NVE(2.0), driven, 20)
    kept = [float(NVE().conserved(s)) for s in end]
    assert np.ptp(kept) < 1e-5  # the bias is a potential too


# --- what is refused --------------------------------------------------------------------------------------------------------------------
def test_refusals() -> None:
    systems = Systems.of([argon(), Crystal([18, 18], [[0, 0, 0], [4, 0, 0]])])
    with pytest.raises(InputError, match="system 1 does not repeat in three directions"):
        md.init(systems, evaluator(), NPT())
    with pytest.raises(InputError, match="cannot be fixed in space while the cell changes"):
        md.init(Systems.of([argon()]), evaluator(), NPT(), fixed=torch.tensor([True, False, False, False]))
    with pytest.raises(InputError, match=r"\(3,\) values for 2 systems"):
        md.init(systems, evaluator(), NVE(), [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="at least 0"):
        md.init(systems, evaluator(), NVE(), -1.0)
    with pytest.raises(ConfigError, match="dt = 0"):
        NVE(0.0)
    with pytest.raises(ConfigError, match="unknown ensemble 'nph'; expected one of nve, langevin, nvt, npt, npt-rescale"):
        md.ensemble_of("nph")
    with pytest.raises(ConfigError, match="ensemble nve has no setting friction; it has dt"):
        md.ensemble_of("nve", friction=0.1)
