"""ACE: its invariants against plain loops, rank, symmetry, derivatives, and what the configuration refuses."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from naica.errors import ConfigError, InputError
from naica.graphs import Batch
from naica.models import backbone
from naica.nn.ace_basis import couplings, invariants
from naica.nn.solid import harmonic_slopes, harmonics, three_j
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal

SMALL = {"elements": ("Si", "O"), "cutoff": 4.0, "degrees": (9.0, 7.0, 6.0), "l_weight": 1.0, "pair_functions": 5}


def silica(seed: int = 0, n: int = 6) -> Crystal:
    draw = np.random.default_rng(seed)
    cell = np.diag(draw.uniform(4.2, 5.2, 3)) + draw.normal(0, 0.2, (3, 3))
    grid = np.array(list(product((0.0, 0.5), repeat=3)))[draw.permutation(8)[:n]]
    return Crystal(draw.choice([8, 14], n), (grid + draw.normal(0, 0.04, (n, 3))) @ cell, cell)


def ace(**config):
    torch.manual_seed(0)
    return backbone("ace", **{**SMALL, **config}).double().requires_grad_(False)


def batch_of(crystal, model):
    return Systems.of(crystal).batch(model.needs.cutoff)


def features(model, crystal):
    return model(batch_of(crystal, model))


def test_densities_and_invariants_by_plain_loops():
    model = ace(degrees=(9.0, 7.0), core="none")
    crystal = silica()
    batch, table = batch_of(crystal, model), model.invariants
    kinds = [model.config.elements.index("Si" if z == 14 else "O") for z in crystal.numbers]
    a = np.zeros((len(crystal), table.components))
    for i, j, r in zip(batch["edge_receiver"], batch["edge_sender"], batch["edge_vector"], strict=True):
        d = float(r.norm())
        lone = Batch(
            {
                "number": torch.tensor([14, int(crystal.numbers[j])]),
                "system": torch.zeros(2, dtype=torch.long),
                "n_atoms": torch.tensor([2]),
                "edge_receiver": torch.tensor([0]),
                "edge_sender": torch.tensor([1]),
                "edge_vector": torch.tensor([[0.0, 0.0, d]], dtype=torch.float64),
                "edge_length": torch.tensor([d], dtype=torch.float64),
            }
        )
        lone["number"][0] = int(crystal.numbers[i])
        # l = 0 of a pair alone is the radial function
        alone = model.sums(_surroundings(model, lone))[1][0, :, 0].numpy()
        y = harmonics(r[:, None] / d, model.l_max)[:, 0].numpy()
        for c, start in zip(table.channels, table.channel_start, strict=True):
            if c.element == kinds[j]:
                m = 2 * c.l + 1
                a[i, start : start + m] += alone[c.element * model.radial_count + c.n] * y[c.l**2 : c.l**2 + m]
    values = features(model, crystal)["atom"][:, model.pairs :].numpy()
    for b, members in enumerate(table.members):
        parts = [a[:, table.channel_start[c] : table.channel_start[c] + 2 * table.channels[c].l + 1] for c in members]
        momenta = [table.channels[c].l for c in members]
        if len(members) == 2:
            expected = (parts[0] * parts[1]).sum(1) / np.sqrt(2 * momenta[0] + 1)
        else:
            expected = np.einsum("abc,na,nb,nc->n", three_j(*momenta), *parts)
        ratio = values[:, b] @ expected / (expected @ expected)
        # repeated channels are scaled to weights of norm one
        assert abs(ratio) > 0.3
        np.testing.assert_allclose(values[:, b], ratio * expected, atol=1e-9 * np.abs(expected).max())


def _surroundings(model, batch):
    from naica.models.ace import Surroundings

    return Surroundings.of(batch, model.kinds_of(batch), model.needs.cutoff)


def test_energy_is_the_sum_over_invariants():
    model = ace(core="none")
    crystal = silica()
    found = features(model, crystal)
    kinds = model.kinds_of(batch_of(crystal, model))
    expected = (found["atom"] * model.coefficients[kinds]).sum(1)
    torch.testing.assert_close(found["energy"], expected, rtol=1e-12, atol=1e-12)
    # the graph through the coefficients is another path
    tracked = model.requires_grad_(True)(batch_of(crystal, model))["energy"]
    torch.testing.assert_close(tracked, expected, rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(tracked.sum(), model.coefficients)
    by_kind = torch.zeros_like(slope).index_add_(0, kinds, found["atom"].detach())
    torch.testing.assert_close(slope, by_kind, rtol=1e-9, atol=1e-12)


def test_changed_coefficients_are_used_at_once():
    model = ace(core="none")
    crystal = silica()
    before = features(model, crystal)["energy"]
    model.coefficients.mul_(2.0)
    torch.testing.assert_close(features(model, crystal)["energy"], 2 * before)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_invariant_under_rotations_mirrors_and_order(seed):
    model = ace()
    crystal = silica(seed)
    turn = Rotation.random(random_state=seed).as_matrix() * (-1) ** seed
    order = np.random.default_rng(seed).permutation(len(crystal))
    turned = Crystal(crystal.numbers[order], crystal.positions[order] @ turn, crystal.cell @ turn)
    plain, other = features(model, crystal)["atom"], features(model, turned)["atom"]
    scale = plain.abs().amax(0) + 1.0
    assert float(((other - plain[order]) / scale).abs().max()) < 1e-10


@pytest.mark.parametrize("degrees", [(9.0,), (9.0, 8.0), (8.0, 7.0, 7.0)])
def test_no_invariant_depends_on_the_others(degrees):
    model = ace(elements=("Si",), degrees=degrees)
    draw = np.random.default_rng(0)
    width = len(model.invariants)
    atoms = draw.normal(0, 1.0, (2 * width, 7, 3))
    atoms *= draw.uniform(1.5, 3.8, (2 * width, 7, 1)) / np.linalg.norm(atoms, axis=2, keepdims=True)
    n = len(atoms)
    vectors = torch.from_numpy(atoms.reshape(-1, 3))
    batch = Batch(
        {
            "number": torch.full((n,), 14),
            "system": torch.zeros(n, dtype=torch.long),
            "n_atoms": torch.tensor([n]),
            "edge_receiver": torch.arange(n).repeat_interleave(7),
            "edge_sender": torch.zeros(7 * n, dtype=torch.long),
            "edge_vector": vectors,
            "edge_length": vectors.norm(dim=1),
        }
    )
    values = model(batch)["atom"][:, model.pairs :]
    sizes = torch.linalg.svdvals(values / values.norm(dim=0))
    assert float(sizes[-1] / sizes[0]) > 1e-9


def test_counts_of_invariants_known_by_hand():
    # four times the same l = 1 channel: only (a·a)² is left of three couplings
    assert len(couplings((1, 1, 1, 1), (0, 0, 0, 0))[1]) == 1
    # four different ones: (a·b)(c·d), (a·c)(b·d), (a·d)(b·c)
    assert len(couplings((1, 1, 1, 1), (0, 1, 2, 3))[1]) == 3
    # a triple product changes sign under inversion
    assert len(couplings((1, 1, 1), (0, 1, 2))[1]) == 0
    assert len(couplings((1, 1, 2), (0, 1, 2))[1]) == 1
    # order 2 up to degree 4 with l_weight 1: n ≤ n' of l = 0 with n + n' ≤ 4, and l = 1 with n = n' = 1
    assert len(invariants(1, (4.0,), 1.0, 8)) == 4 + 1


def test_forces_and_stress_are_derivatives():
    torch.manual_seed(0)
    model = PotentialModel("ace", SMALL).double().requires_grad_(False)
    crystal = silica(3)
    found = model.compute(Systems.of(crystal).batch(model.cutoff))

    def energy(positions, cell):
        return float(model(Systems.of(Crystal(crystal.numbers, positions, cell)).batch(model.cutoff))[0])

    h = 1e-4
    for atom, axis in ((0, 0), (3, 1), (5, 2)):
        step = np.zeros_like(crystal.positions)
        step[atom, axis] = h
        slope = (energy(crystal.positions + step, crystal.cell) - energy(crystal.positions - step, crystal.cell)) / (2 * h)
        assert abs(float(found.forces[atom, axis]) + slope) < 1e-6
    for a, b in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] = 1e-5
        up, down = (np.eye(3) + s * strain for s in (1, -1))
        slope = (energy(crystal.positions @ up, crystal.cell @ up) - energy(crystal.positions @ down, crystal.cell @ down)) / 2e-5
        assert abs(float(found.stress[0, a, b]) - slope / abs(np.linalg.det(crystal.cell))) < 1e-7
    assert float(found.forces.sum(0).abs().max()) < 1e-10


def test_twice_differentiable():
    model = ace(elements=("Si",), degrees=(7.0, 6.0, 6.0), pair_functions=3)
    batch = batch_of(silica(1, 2), ace(elements=("Si", "O"), cutoff=3.0))
    batch["number"] = torch.full_like(batch["number"], 14)

    def energy(vector):
        return model(Batch({**batch, "edge_vector": vector, "edge_length": vector.norm(dim=1)}))["energy"]

    assert torch.autograd.gradgradcheck(energy, (batch["edge_vector"].clone().requires_grad_(),), atol=1e-4)


def test_harmonics_and_their_slopes():
    points = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: harmonics(r / r.norm(dim=0), 5), (points,))
    unit = (points / points.norm(dim=0)).detach()
    values = harmonics(unit, 5)
    for l in range(6):  # noqa: E741
        torch.testing.assert_close(values[l * l : (l + 1) ** 2].square().sum(0), torch.full((4,), 2.0 * l + 1, dtype=torch.float64))
        # Euler: r · ∇ of a homogeneous function of degree l
        radial = (harmonic_slopes(values, 5)[:, l * l : (l + 1) ** 2] * unit[:, None]).sum(0)
        torch.testing.assert_close(radial, l * values[l * l : (l + 1) ** 2])


def test_three_j_couples_harmonics_to_a_number_that_does_not_change():
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix())
    draw = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    units = draw / draw.norm(dim=0)
    for a, b, c in ((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 3), (2, 3, 3)):
        numbers = []
        for points in (units, turn @ units):
            parts = [harmonics(points, 3)[m * m : (m + 1) ** 2, k].numpy() for k, m in enumerate((a, b, c))]
            numbers.append(np.einsum("abc,a,b,c->", three_j(a, b, c), *parts))
        assert abs(numbers[0] - numbers[1]) < 1e-12
        assert abs(numbers[0]) > 1e-3


def test_nothing_jumps_when_an_atom_crosses_the_cutoff():
    model = PotentialModel("ace", SMALL).double().requires_grad_(False)
    found = []
    for d in (SMALL["cutoff"] - 1e-6, SMALL["cutoff"] + 1e-6):
        crystal = Crystal(["Si", "O", "O"], [[0, 0, 0], [1.7, 0, 0], [0, 0, d]])
        found.append(model.compute(Systems.of(crystal).batch(5.0 if d > SMALL["cutoff"] else SMALL["cutoff"])))
    assert abs(float(found[0].energy - found[1].energy)) < 1e-9
    assert float((found[0].forces - found[1].forces).abs().max()) < 1e-5


def test_the_core_repels_where_there_are_no_data():
    model = PotentialModel("ace", SMALL).double().requires_grad_(False)
    energies = [float(model(Systems.of(Crystal(["Si", "O"], [[0, 0, 0], [0, 0, d]])).batch(4.0))[0]) for d in np.linspace(0.1, 0.5, 9)]
    assert all(a > b for a, b in pairwise(energies))
    assert energies[0] > 100


def test_single_precision_stays_close():
    double, single = ace(), ace().float()
    crystal = silica()
    wanted = features(double, crystal)["energy"]
    found = single(batch_of(crystal, double).to(dtype=torch.float32))["energy"]
    assert float((found - wanted).abs().max()) < 1e-3 * float(wanted.abs().max())


def test_refused():
    for wrong in (
        {"elements": ()},
        {"elements": ("Si", "Si")},
        {"degrees": ()},
        {"sizes": (1.0,)},
        {"core": "hard"},
        {"envelope": 1},
        {"cutoff": 0.0},
    ):
        with pytest.raises(ConfigError):
            backbone("ace", **{**SMALL, **wrong})
    with pytest.raises(InputError, match="Cl"):
        features(ace(), Crystal(["Na", "Cl"], [[0, 0, 0], [2.8, 0, 0]], np.eye(3) * 5.6))
