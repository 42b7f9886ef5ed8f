"""Transport: displacements against plain sums, error bars against random walks, real trajectories, Arrhenius lines, the verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from naica.errors import InputError
from naica.potential import transport
from naica.potential.conductivity import judged, mobile_ion
from naica.potential.transport import Diffusion, arrhenius, diffusion, merged, nernst_einstein
from naica.potential.walk import Walk, read_walk
from naica.structure import Crystal

STEP = 10.0  # fs
D = 1e-3  # Å²/fs


def walkers(seed: int, kind: str = "free", frames: int = 400, atoms: int = 40, d: float = D, temperature: float = 600.0) -> Walk:
    """Lithium that walks at random, oxygen that rattles, all of it drifting."""
    rng = np.random.default_rng(seed)
    width = np.sqrt(2 * d * STEP)
    if kind == "pairs":
        path = np.repeat(np.cumsum(rng.normal(size=(frames, atoms // 2, 3)) * width, axis=0), 2, axis=1)
    elif kind == "hops":
        share = 0.02
        away = rng.normal(size=(frames, atoms, 3))
        away *= np.sqrt(6 * d * STEP / share) / np.linalg.norm(away, axis=2, keepdims=True)
        path = np.cumsum((rng.random((frames, atoms)) < share)[:, :, None] * away, axis=0)
    else:
        path = np.cumsum(rng.normal(size=(frames, atoms, 3)) * width, axis=0)
    if kind == "shaking":
        path = path + rng.normal(size=path.shape) * 0.3
    rest = rng.normal(size=(frames, 10, 3)) * 0.02
    drift = np.linspace(0, 5, frames)[:, None, None] * np.array([1.0, -2.0, 0.5])
    positions = np.concatenate([path, rest], axis=1) + drift
    cell = np.broadcast_to(np.eye(3) * 15.0, (frames, 3, 3)).copy()
    return Walk(np.array([3] * atoms + [8] * 10), positions, cell, np.ones(3, dtype=bool), STEP, temperature)


# --- displacements -----------------------------------------------------------------------------------------------------
def test_displacements_by_fourier_equal_plain_sums() -> None:
    path = np.random.default_rng(0).normal(size=(37, 5, 3)).cumsum(axis=0) + 100.0
    lags = np.array([0, 1, 2, 7, 20, 36])
    plain = np.stack([((path[m:] - path[: len(path) - m]) ** 2).mean(0) for m in lags])
    np.testing.assert_allclose(transport.squared(path, lags), plain, atol=1e-9)


def test_the_drift_of_the_framework_is_no_displacement() -> None:
    walk = walkers(0)
    moved = transport.paths(walk, "Li")
    still = Walk(walk.numbers, walk.positions - np.linspace(0, 5, 400)[:, None, None] * [1.0, -2.0, 0.5], walk.cell, walk.pbc, STEP)
    np.testing.assert_allclose(np.diff(moved, axis=0), np.diff(transport.paths(still, "Li"), axis=0), atol=1e-9)


def test_a_breathing_cell_is_no_displacement() -> None:
    frames = 60
    scale = 1 + 0.02 * np.sin(np.arange(frames))
    fractional = np.random.default_rng(1).random((12, 3))
    cell = np.eye(3) * 10 * scale[:, None, None]
    walk = Walk(np.array([3] * 6 + [8] * 6), fractional @ cell, cell, np.ones(3, dtype=bool), STEP)
    assert np.abs(np.diff(transport.paths(walk, "Li"), axis=0)).max() < 1e-9


def test_wrapped_positions_are_unwrapped() -> None:
    walk = walkers(2, frames=100)
    wrapped = np.mod(walk.positions / 15.0, 1)
    again = Walk.of_cells(walk.numbers, wrapped, np.eye(3) * 15.0, STEP)
    np.testing.assert_allclose(again.positions - again.positions[0], walk.positions - walk.positions[0], atol=1e-9)


def test_covariances_are_those_of_random_walks() -> None:
    """The formula against ten thousand walks, with vibrations and without."""
    rng = np.random.default_rng(3)
    lags, points = np.array([1, 3, 8]), 20
    for ratio in (0.0, 2.0):
        path = np.cumsum(rng.normal(size=(points, 10000, 1)), axis=0) + np.sqrt(ratio) * rng.normal(size=(points, 10000, 1))
        seen = np.cov(transport.squared(path, lags)[:, :, 0])
        a, b, c = transport._covariance_parts(tuple(lags.tolist()), points)
        np.testing.assert_allclose(seen, a + ratio * b + ratio**2 * c, rtol=0.12)


# --- error bars --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["free", "shaking", "pairs", "hops"])
def test_error_bars_hold_the_truth_as_often_as_they_say(kind: str) -> None:
    """A hundred walks each: 68 and 95 % within what chance allows, no bias; pairs that move together and rare hops included."""
    found = [diffusion(walkers(seed, kind), "Li", begin=20.0).tracer for seed in range(100)]
    score = np.array([(one.value / transport.CM2_PER_S - D) / (one.sigma / transport.CM2_PER_S) for one in found])
    assert 0.54 <= (np.abs(score) < 1).mean() <= 0.84
    assert (np.abs(score) < 1.96).mean() >= 0.88
    assert abs(score.mean()) < 0.4


def test_collective_error_bars_too_and_pairs_have_half_the_haven_ratio() -> None:
    runs = [diffusion(walkers(seed, "pairs"), "Li", begin=20.0) for seed in range(60)]
    score = np.array([(run.collective.value / transport.CM2_PER_S - 2 * D) / (run.collective.sigma / transport.CM2_PER_S) for run in runs])
    assert (np.abs(score) < 1).mean() >= 0.55
    assert (np.abs(score) < 1.96).mean() >= 0.88
    assert merged(runs).haven is not None
    assert merged(runs).haven.value == pytest.approx(0.5, abs=0.1)  # type: ignore[union-attr]
    assert np.median([run.together for run in runs]) == pytest.approx(2.0, abs=0.5)


def test_the_shortest_lag_is_found_where_cages_end() -> None:
    """Rattling that is correlated over 20 frames looks like diffusion at short lags."""
    rng = np.random.default_rng(5)
    walk = walkers(5, frames=1500)
    rattle, keep = np.zeros((1500, 40, 3)), np.exp(-1 / 20)
    for k in range(1, 1500):
        rattle[k] = keep * rattle[k - 1] + np.sqrt(1 - keep**2) * 0.6 * rng.normal(size=(40, 3))
    positions = walk.positions.copy()
    positions[:, :40] += rattle
    found = diffusion(Walk(walk.numbers, positions, walk.cell, walk.pbc, STEP), "Li")
    assert found.fit[0] > 10 * STEP
    assert abs(found.tracer.value / transport.CM2_PER_S - D) < 3 * found.tracer.sigma / transport.CM2_PER_S
    short = diffusion(Walk(walk.numbers, positions, walk.cell, walk.pbc, STEP), "Li", begin=STEP)
    assert short.tracer.value > 1.3 * transport.CM2_PER_S * D
    assert short.unsettled > 0


def test_real_trajectories_give_the_reference_diffusivities() -> None:
    """AIMD of argyrodites: the stated rule gives the stated numbers, our estimate agrees within its error."""
    from naica.data.registry import dataset

    if not dataset("li_ion_md").present:
        pytest.skip("data set li_ion_md is not on this machine (naica data pull li_ion_md)")
    wanted = {
        "Cl_disorder0": 0.94,
        "Cl_disorder50": 1.45,
        "Cl_disorder100": 1.28,
        "I_disorder0": 0.27,
        "I_disorder50": 1.10,
        "I_disorder100": 0.76,
    }
    for name, reference in wanted.items():
        walk = read_walk(dataset("li_ion_md").path(f"li_ion_md/Li6PS5{name}_run1.npz"), temperature=500)
        rule = transport.line_fit(walk, "Li", walk.duration / 8, walk.duration / 2)
        assert rule * 1e5 == pytest.approx(reference, abs=0.006)
        found = diffusion(walk, "Li")
        assert abs(found.tracer.value * 1e5 - reference) < 2 * found.tracer.sigma * 1e5
        assert found.density == pytest.approx(192 / walk.volume)


# --- conductivity and temperatures -------------------------------------------------------------------------------------
def test_nernst_and_einstein_in_si_units() -> None:
    """By hand: n = 1e22 cm⁻³, z = 1, D = 1e-6 cm²/s, 300 K."""
    by_hand = 1e28 * 1.602176634e-19**2 * 1e-10 / (1.380649e-23 * 300)  # S/m
    assert nernst_einstein(1e-6, 0.01, 1.0, 300.0) == pytest.approx(by_hand * 10, rel=1e-6)
    assert nernst_einstein(1e-6, 0.01, 2.0, 300.0) == pytest.approx(4 * by_hand * 10, rel=1e-6)


def test_arrhenius_finds_the_barrier_with_its_error() -> None:
    barrier, scores = 0.25, []
    for seed in range(12):
        runs = []
        for k, kelvin in enumerate((600.0, 800.0, 1000.0)):
            d = 0.02 * np.exp(-barrier / (8.617333262e-5 * kelvin))
            runs.append(diffusion(walkers(10 * seed + k, d=d, temperature=kelvin), "Li", begin=20.0))
        line = arrhenius(runs)
        scores.append((line.activation.value - barrier) / line.activation.sigma)
    assert abs(np.mean(scores)) < 0.8
    assert np.abs(scores).max() < 4
    value, width = line.at(800.0)
    assert value == pytest.approx(0.1 * 0.02 * np.exp(-barrier / (8.617333262e-5 * 800)), rel=0.1)
    assert width < line.at(300.0)[1]


def test_runs_of_one_temperature_are_merged() -> None:
    runs = [diffusion(walkers(seed), "Li", begin=20.0) for seed in range(4)]
    both = merged(runs)
    assert both.tracer.value == pytest.approx(np.mean([run.tracer.value for run in runs]))
    assert both.tracer.sigma == pytest.approx(np.sqrt(np.sum([run.tracer.sigma**2 for run in runs])) / 4)
    with pytest.raises(InputError, match="different species"):
        merged([runs[0], diffusion(walkers(0), "O")])


def test_the_verdict_of_the_protocol() -> None:
    fast, slow = judged(walkers(0, frames=1200), "Li"), judged(walkers(0, frames=1200, d=1e-7), "Li")
    assert fast.superionic
    assert fast.probability > 0.99
    assert fast.conductivity.value == pytest.approx(fast.published_rule, rel=0.3)
    assert not slow.superionic
    assert slow.probability < 0.5
    assert not fast.melted
    assert judged(walkers(0, frames=1200, d=1e-7), "Li", threshold=slow.conductivity.value).probability == pytest.approx(0.5)


def test_framework_that_flows_is_called_molten() -> None:
    walk = walkers(1, frames=1200)
    numbers = walk.numbers.copy()
    numbers[20:40] = 16  # half of the walkers are sulfur now
    assert judged(Walk(numbers, walk.positions, walk.cell, walk.pbc, STEP, 600.0), "Li").melted


# --- refusals ----------------------------------------------------------------------------------------------------------
def test_what_cannot_be_analysed_is_refused_with_a_reason() -> None:
    walk = walkers(0)
    with pytest.raises(InputError, match="has no Na; it has Li, O"):
        diffusion(walk, "Na")
    with pytest.raises(InputError, match="has 12 frames; a diffusivity needs at least 40"):
        diffusion(walkers(0, frames=12), "Li")
    with pytest.raises(InputError, match="expected 0 < begin < end"):
        diffusion(walk, "Li", begin=1e6)
    with pytest.raises(InputError, match="give the temperature"):
        diffusion(Walk(walk.numbers, walk.positions, walk.cell, walk.pbc, STEP), "Li").conductivity(1.0)
    with pytest.raises(InputError, match="repeat in three directions"):
        diffusion(Walk(walk.numbers, walk.positions, walk.cell, np.zeros(3, dtype=bool), STEP, 300.0), "Li").conductivity(1.0)
    with pytest.raises(InputError, match="needs two temperatures"):
        arrhenius([diffusion(walk, "Li")])
    with pytest.raises(InputError, match="cannot be dropped"):
        walk.after(1e6)
    with pytest.raises(InputError, match="no mobile species"):
        mobile_ion(Crystal([29], [[0, 0, 0]], np.eye(3) * 3))


def test_files_that_are_no_trajectories(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", numbers=[3], positions=np.zeros((3, 1, 3)))
    with pytest.raises(InputError, match="expected numbers, cell, and positions"):
        read_walk(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", numbers=[3], positions=np.zeros((3, 1, 3)), cell=np.eye(3))
    with pytest.raises(InputError, match="how far its frames are apart"):
        read_walk(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", numbers=[3], positions=np.zeros((3, 1, 3)), cell=np.eye(3), time=[0.0, 1.0, 5.0])
    with pytest.raises(InputError, match="1 to 4 fs apart"):
        read_walk(tmp_path / "c.npz")
    assert len(read_walk(tmp_path / "b.npz", interval=2.0)) == 3


def test_an_estimate_knows_probabilities() -> None:
    assert transport.Estimate(2.0, 1.0).above(1.0) == pytest.approx(0.8413, abs=1e-4)
    assert transport.Estimate(2.0, 0.0).above(1.0) == 1.0
    assert isinstance(diffusion(walkers(0), "Li"), Diffusion)
