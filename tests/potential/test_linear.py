"""Linear potentials: rows of the design matrix, recovery of a known potential, a pair potential, uncertainty, a published set."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from naica.data import dataset
from naica.errors import ConfigError, InputError
from naica.models.ace import ACE, Surroundings
from naica.potential.design import VOIGT, DesignMatrix
from naica.potential.linear import ErrorBar, Example, LinearConfig, Triangle, error_bar, fit_linear, search
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal

TINY = {"elements": ("Si", "O"), "cutoff": 4.2, "pair_cutoff": 5.0, "degrees": (6.0, 5.0, 5.0), "l_weight": 1.0, "pair_functions": 4}


def mixture(seed: int, n: int = 4, elements=("Si", "O")) -> Crystal:
    draw = np.random.default_rng(seed)
    cell = np.diag(draw.uniform(3.6, 4.6, 3)) + draw.normal(0, 0.2, (3, 3))
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])[:n]
    return Crystal(draw.choice(elements, n).tolist(), (corners + draw.normal(0, 0.05, (n, 3))) @ cell, cell)


def potential(**config) -> PotentialModel:
    torch.manual_seed(1)
    return PotentialModel("ace", {**TINY, **config}).double().requires_grad_(False)


def labelled(model: PotentialModel, crystal: Crystal) -> Example:
    found = model.compute(Systems.of(crystal).batch(model.cutoff))
    return Example(crystal, float(found.energy[0]), found.forces.numpy(), found.stress[0].numpy() if crystal.pbc.all() else None)


@pytest.mark.parametrize("config", [{}, {"degrees": (0.0,)}, {"elements": ("Si",), "degrees": (8.0, 7.0)}])
def test_rows_times_coefficients_are_energy_forces_stress(config):
    model = potential(**config)
    crystal = mixture(0, elements=config.get("elements", ("Si", "O")))
    found = model.compute(Systems.of(crystal).batch(model.cutoff))
    rows = DesignMatrix(model.backbone).rows(crystal)
    c = model.backbone.coefficients.reshape(-1)
    torch.testing.assert_close(rows.energy @ c + rows.fixed["energy"], found.energy[0])
    torch.testing.assert_close(rows.forces @ c + rows.fixed["forces"], found.forces.reshape(-1), rtol=1e-9, atol=1e-11)
    stress = torch.stack([found.stress[0, a, b] for a, b in VOIGT])
    torch.testing.assert_close(rows.stress @ c + rows.fixed["stress"], stress, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("share", [0.45, 0.6])
def test_rows_of_atoms_in_each_others_cores(share):
    model = potential(core_range=0.9)
    crystal = mixture(0)
    squeezed = Crystal(crystal.numbers, crystal.positions * share, crystal.cell * share)
    found = model.compute(Systems.of(squeezed).batch(model.cutoff))
    assert bool((model.backbone.core_energy(_around(model.backbone, squeezed)) > 0).all())
    rows = DesignMatrix(model.backbone).rows(squeezed)
    c = model.backbone.coefficients.reshape(-1)
    torch.testing.assert_close(rows.energy @ c + rows.fixed["energy"], found.energy[0])
    torch.testing.assert_close(rows.forces @ c + rows.fixed["forces"], found.forces.reshape(-1), rtol=1e-8, atol=1e-8)
    stress = torch.stack([found.stress[0, a, b] for a, b in VOIGT])
    torch.testing.assert_close(rows.stress @ c + rows.fixed["stress"], stress, rtol=1e-8, atol=1e-8)


def _around(backbone, crystal):
    batch = Systems.of(crystal).batch(backbone.needs.cutoff)
    return Surroundings.of(batch, backbone.kinds_of(batch), backbone.needs.cutoff)


def test_a_crushed_crystal_has_no_hole():
    truth = potential(elements=("Si",), degrees=(9.0, 8.0))
    train = [labelled(truth, mixture(k, elements=("Si",))) for k in range(30)]
    fit = fit_linear(train, truth.backbone.config)
    crystal = train[0].crystal
    energies = []
    for share in np.linspace(0.25, 0.45, 9):
        crushed = Crystal(crystal.numbers, crystal.positions * share, crystal.cell * share)
        energies.append(float(fit.model(Systems.of(crushed).batch(fit.model.cutoff))[0]))
    assert all(a > b for a, b in pairwise(energies))
    assert energies[-1] > train[0].energy


def test_rows_are_extensive():
    design = DesignMatrix(potential().backbone)
    crystal = mixture(2)
    doubled = Crystal(
        np.tile(crystal.numbers, 2),
        np.concatenate([crystal.positions, crystal.positions + crystal.cell[0]]),
        crystal.cell * [[2], [1], [1]],
    )
    one, two = design.rows(crystal), design.rows(doubled)
    torch.testing.assert_close(two.energy, 2 * one.energy, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(two.forces, one.forces.repeat(2, 1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(two.stress, one.stress, rtol=1e-9, atol=1e-10)


def test_few_atoms_at_a_time_change_nothing(monkeypatch):
    crystal = mixture(5)
    whole = DesignMatrix(potential().backbone).rows(crystal)
    monkeypatch.setattr("naica.potential.design._MEMORY", 1)
    parts = DesignMatrix(potential().backbone).rows(crystal)
    torch.testing.assert_close(whole.forces, parts.forces)
    torch.testing.assert_close(whole.energy, parts.energy)


def test_a_known_potential_is_recovered():
    truth = potential(elements=("Si",))
    truth.references[14] = -5.0
    train = [labelled(truth, mixture(k, elements=("Si",))) for k in range(60)]
    fit = fit_linear(train, truth.backbone.config, LinearConfig(method="rrqr"))
    for seed in (100, 101):
        want = labelled(truth, mixture(seed, elements=("Si",)))
        found = fit.model.compute(Systems.of(want.crystal).batch(truth.cutoff))
        assert abs(float(found.energy[0]) - want.energy) < 1e-8 * abs(want.energy)
        assert float((found.forces - torch.from_numpy(want.forces)).abs().max()) < 1e-8 * np.abs(want.forces).max()
    wanted = truth.backbone.coefficients
    assert float((fit.model.backbone.coefficients - wanted).abs().max()) < 1e-7 * float(wanted.abs().max())


def lennard_jones(crystal: Crystal, cutoff: float = 6.0) -> Example:
    """Shifted so that energy and force vanish at the cut-off."""
    systems = Systems.of(crystal)
    batch = systems.batch(cutoff)
    r, sigma, depth = batch["edge_length"], 2.4, 0.1
    value = 4 * depth * ((sigma / r) ** 12 - (sigma / r) ** 6) * (1 - (r / cutoff) ** 2) ** 3
    leaf = batch["edge_vector"].clone().requires_grad_()
    length = leaf.norm(dim=1)
    energy = 0.5 * (4 * depth * ((sigma / length) ** 12 - (sigma / length) ** 6) * (1 - (length / cutoff) ** 2) ** 3).sum()
    (slope,) = torch.autograd.grad(energy, leaf)
    forces = torch.zeros(len(crystal), 3, dtype=torch.float64).index_add(0, batch["edge_receiver"], slope)
    forces = forces.index_add(0, batch["edge_sender"], slope, alpha=-1)
    return Example(crystal, float(0.5 * value.sum()), forces.numpy())


def copper(seed: int) -> Crystal:
    draw = np.random.default_rng(seed)
    a = draw.uniform(3.5, 4.4)
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) * a
    return Crystal(["Cu"] * 4, corners + draw.normal(0, 0.06, (4, 3)), np.eye(3) * a)


def test_pair_functions_alone_learn_a_pair_potential():
    train = [lennard_jones(copper(k)) for k in range(30)]
    config = ACE.Config(elements=("Cu",), cutoff=6.0, degrees=(0.0,), pair_functions=16, core="none")
    fit = fit_linear(train, config)
    errors = []
    for seed in range(100, 110):
        want = lennard_jones(copper(seed))
        found = fit.model.compute(Systems.of(want.crystal).batch(6.0))
        errors.append(abs(float(found.energy[0]) - want.energy) / 4)
    assert max(errors) < 1e-3


@pytest.mark.parametrize("method", ["ridge", "bayes", "ard"])
def test_uncertainty_is_of_the_size_of_the_errors(method):
    truth = potential(elements=("Si",), degrees=(9.0, 8.0))
    train = [labelled(truth, mixture(k, elements=("Si",))) for k in range(40)]
    # a smaller basis can not be exact
    config = ACE.Config(**{**TINY, "elements": ("Si",), "degrees": (7.0, 6.0)})
    fit = fit_linear(train, config, LinearConfig(method=method))
    squares, variances, wide = [], [], []
    for seed in range(200, 220):
        want = labelled(truth, mixture(seed, elements=("Si",)))
        found = fit.model.compute(Systems.of(want.crystal).batch(fit.model.cutoff))
        energy_sigma, force_sigma = fit.uncertainty(want.crystal)
        assert energy_sigma > 0
        squares.append(((found.forces.numpy() - want.forces) ** 2).mean())
        variances.append((force_sigma**2).mean())
    stretched = mixture(300, elements=("Si",))
    stretched = Crystal(stretched.numbers, stretched.positions * 0.8, stretched.cell * 0.8)
    wide.append((fit.uncertainty(stretched)[1] ** 2).mean())
    assert 0.2 < np.mean(squares) / np.mean(variances) < 5
    assert min(wide) > 4 * np.mean(variances)


def test_committee_spreads_as_the_posterior_says():
    truth = potential(elements=("Si",), degrees=(9.0, 8.0))
    train = [labelled(truth, mixture(k, elements=("Si",))) for k in range(30)]
    fit = fit_linear(train, ACE.Config(**{**TINY, "elements": ("Si",), "degrees": (7.0, 6.0)}))
    crystal = mixture(400, elements=("Si",))
    members = fit.committee(200, seed=3)
    said = [m.compute(Systems.of(crystal).batch(m.cutoff)) for m in members]
    energy_sigma, force_sigma = replace(fit, bars={}).uncertainty(crystal)  # the posterior alone
    np.testing.assert_allclose(np.std([s.forces.numpy() for s in said], axis=0), force_sigma, rtol=0.25)
    energies = np.array([float(s.energy[0]) for s in said])
    assert 0.8 < energies.std() / energy_sigma < 1.2
    best = fit.model.compute(Systems.of(crystal).batch(fit.model.cutoff))
    assert abs(energies.mean() - float(best.energy[0])) < 0.3 * energy_sigma


def test_weights_of_groups_and_missing_labels():
    truth = potential(elements=("Si",))
    good = [labelled(truth, mixture(k, elements=("Si",))) for k in range(40)]
    wrong = [Example(e.crystal, e.energy + 3.0, None, None, "wrong") for e in good[:10]]
    partly = [Example(e.crystal, None, e.forces, None) for e in good[10:20]]
    config = LinearConfig(group_weights={"wrong": 1e-6})
    fit = fit_linear(good[20:] + partly + wrong, truth.backbone.config, config)
    found = fit.model.compute(Systems.of(good[0].crystal).batch(truth.cutoff))
    assert abs(float(found.energy[0]) - good[0].energy) / 4 < 5e-3


def test_a_triangle_stands_for_all_its_rows(monkeypatch):
    monkeypatch.setattr("naica.potential.linear._ROWS_AT_A_TIME", 10)
    draw = torch.Generator().manual_seed(0)
    rows, values = torch.randn(100, 4, generator=draw).double(), torch.randn(100, generator=draw).double()
    triangle = Triangle(4)
    for part, some in zip(rows.split(7), values.split(7), strict=True):
        triangle.add(part, some)
    assert len(triangle.rows) < 30
    found = torch.linalg.lstsq(triangle.rows[:, :-1], triangle.rows[:, -1:]).solution
    torch.testing.assert_close(found, torch.linalg.lstsq(rows, values[:, None]).solution)


def test_refused():
    with pytest.raises(ConfigError, match="lasso"):
        LinearConfig(method="lasso")
    with pytest.raises(InputError, match="folds"):
        fit_linear([Example(mixture(0), 1.0)], ACE.Config(**TINY))
    with pytest.raises(InputError, match="no frame"):
        fit_linear([Example(mixture(k)) for k in range(6)], ACE.Config(**TINY))


def test_the_pressure_that_a_small_basis_lacks_is_told_apart():
    truth = potential(elements=("Si",))
    train = [labelled(truth, mixture(k, elements=("Si",))) for k in range(40)]
    off = []
    for e in train:
        density = len(e.crystal) / abs(np.linalg.det(e.crystal.cell))
        off.append(Example(e.crystal, e.energy, e.forces, e.stress + 0.2 * density * np.eye(3)))
    fit = fit_linear(off, truth.backbone.config)
    assert abs(fit.pulay["Si"] - 0.2) < 0.01
    found = fit.model.compute(Systems.of(train[0].crystal).batch(truth.cutoff))
    assert np.abs(found.stress[0].numpy() - train[0].stress).max() < 0.01 * np.abs(train[0].stress).max()


def test_groups_that_can_not_be_described_weigh_less(monkeypatch):
    monkeypatch.setattr("naica.potential.linear.LEVELS", ((6.0, 5.0), (6.0, 5.0)))
    truth = potential(elements=("Si",), cutoff=4.0, pair_cutoff=None)
    draw = np.random.default_rng(0)
    train = []
    for k in range(40):
        e = labelled(truth, mixture(k, elements=("Si",)))
        noise = draw.normal(0, 2.0, e.forces.shape) if k % 4 == 0 else 0.0
        train.append(Example(e.crystal, e.energy, e.forces + noise, e.stress, "noisy" if k % 4 == 0 else "clean"))
    errors = []
    for by_group in (False, True):
        fit, _ = search(train, LinearConfig(folds=3), few=40, by_group=by_group, cutoff=4.0)
        held = [labelled(truth, mixture(k, elements=("Si",))) for k in range(500, 506)]
        said = [fit.model.compute(Systems.of(e.crystal).batch(4.0)).forces.numpy() - e.forces for e in held]
        errors.append(float(np.sqrt(np.mean(np.square(said)))))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("fixed", [{"cutoff": 4.0}, {}])
def test_search_takes_the_basis_that_predicts_best(monkeypatch, fixed):
    monkeypatch.setattr("naica.potential.linear.LEVELS", ((5.0, 4.0), (6.0, 5.0), (7.0, 6.0)))
    truth = potential(elements=("Si",), cutoff=4.0, pair_cutoff=None)
    train = [labelled(truth, mixture(k, elements=("Si",))) for k in range(25)]
    fit, tried = search(train, LinearConfig(folds=3), few=15, **fixed)
    last = [t for t in tried if t.architecture == fit.model.backbone.config]
    assert len(last) == 1
    assert len(tried) >= (2 if fixed else 6)
    assert fit.model.backbone.config.sizes[0] == pytest.approx(1.3, abs=0.4)
    other = [t for t in tried if len(t.architecture.degrees) == 2 and t.architecture.degrees > (5.0, 4.0)]
    assert last[0].choice.score <= min(t.choice.score for t in other) + 0.011


@pytest.mark.slow
def test_lithium_of_the_published_set():
    if not dataset("mlearn").present:
        pytest.skip("data set mlearn is not on this machine (naica data pull mlearn)")
    from naica.data import load_set
    from naica.potential.frames import frames
    from naica.potential.linear import examples_of

    whole = frames(load_set("mlearn", part="Li"))
    fit = fit_linear(whole.part("train"), ACE.Config(elements=("Li",), degrees=(12.0, 9.0), l_weight=1.0, pair_functions=12))
    squares = []
    for e in examples_of(whole.part("test")):
        found = fit.model.compute(Systems.of(e.crystal).batch(fit.model.cutoff))
        squares.append(((found.forces.numpy() - e.forces) ** 2).mean())
    assert np.sqrt(np.mean(squares)) < 0.015


def test_error_bars_find_their_factor_and_their_floor():
    draw = np.random.default_rng(0)
    sigma = 10 ** draw.uniform(-3, 0, 4000)
    for factor, floor in ((2.0, 0.0), (1.5, 0.1), (0.0, 0.3)):
        bar = error_bar(np.hypot(factor * sigma, floor) * draw.normal(size=len(sigma)), sigma)
        assert bar.rows == len(sigma)
        np.testing.assert_allclose(bar.of(sigma), np.hypot(factor * sigma, floor), rtol=0.15)
    # what symmetry keeps at zero says nothing
    still = error_bar(np.r_[np.zeros(900), draw.normal(size=900)], np.r_[np.zeros(900), np.ones(900)])
    assert still.rows == 900
    assert still.of(np.ones(1))[0] == pytest.approx(1.0, rel=0.1)
    assert error_bar(np.zeros(5), np.ones(5)) == ErrorBar()


def test_error_bars_cover_what_a_basis_can_not_describe():
    truth = potential(elements=("Si",), degrees=(10.0, 9.0))
    train = [labelled(truth, mixture(k, elements=("Si",))) for k in range(60)]
    # far fewer coefficients than rows: the posterior alone would be narrow
    fit = fit_linear(train, ACE.Config(**{**TINY, "elements": ("Si",), "degrees": (5.0, 4.0)}))
    ratios = []
    for seed in range(500, 530):
        want = labelled(truth, mixture(seed, elements=("Si",)))
        found = fit.model.compute(Systems.of(want.crystal).batch(fit.model.cutoff))
        ratios.append(((found.forces.numpy() - want.forces) / fit.uncertainty(want.crystal)[1]).ravel())
    inside = np.abs(np.concatenate(ratios))
    assert 0.5 < (inside < 1).mean() < 0.92
    assert (inside < 1.96).mean() > 0.8
    assert fit.bars["forces"].floor > 0
    assert fit.report()["error_bars"]["forces"]["rows"] > 50
