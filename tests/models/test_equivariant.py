"""PaiNN, NequIP and MACE: numbers of parameters, the laws their energies obey, refusal of strange elements, baking."""

import numpy as np
import pytest
import torch
from torch import nn

from naica.errors import ConfigError, InputError, RunError
from naica.graphs import graph
from naica.models import backbone
from naica.models.bake import bake
from naica.nn import edge_product, product_basis
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal
from naica.structure.elements import symbol

FOUR = ("Li", "Si", "P", "S")
SMALL = {
    "painn": ("painn", {"width": 8, "layers": 2, "gaussians": 8, "cutoff": 4.0}),
    "nequip": ("nequip", {"channels": 4, "layers": 3, "l_max": 2, "cutoff": 4.0, "radial_width": 8, "elements": FOUR}),
    "nequip without parity": ("nequip", {"channels": (6, 4, 2), "l_max": 2, "parity": False, "layers": 3, "cutoff": 4.0, "elements": FOUR}),
    "mace": ("mace", {"channels": 4, "cutoff": 4.0, "radial": (8, 8), "elements": FOUR}),
    "mace of scalars": ("mace", {"channels": 4, "l_hidden": 0, "l_max": 2, "cutoff": 4.0, "radial": (8,), "elements": FOUR}),
}


def potential(name: str) -> PotentialModel:
    torch.manual_seed(0)
    architecture, config = SMALL[name]
    model = PotentialModel(architecture, config, references={3: -1.0, 14: -2.0, 15: 0.5, 16: 1.5}).double()
    return model.requires_grad_(False)


def glass(seed=0, n=6, edge=4.6) -> Crystal:
    draw = np.random.default_rng(seed)
    cell = np.eye(3) * edge + 0.3 * draw.normal(size=(3, 3))
    grid = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3)[:n]
    return Crystal(draw.choice([3, 14, 15, 16], n), (grid + 0.06 * draw.normal(size=(n, 3))) @ cell, cell)


def told(model, crystal):
    return model.compute(Systems.of([crystal], torch.float64).batch(model.cutoff))


def parameters(architecture, **config) -> int:
    return sum(p.numel() for p in backbone(architecture, **config).parameters())


def test_parameters_of_painn_are_schnetpacks():
    model = backbone("painn")
    assert sum(p.numel() for p in model.parameters()) - (len(model.embedding.weight) - 100) * 128 == 589_057


@pytest.mark.parametrize(
    ("config", "count"), [({}, 438_432), ({"l_max": 2, "parity": False, "channels": 64}, 3_330_368)], ids=["default", "degree 2"]
)
def test_parameters_of_nequip_are_the_reference_codes(config, count):
    assert parameters("nequip", elements=FOUR, **config) == count


@pytest.mark.parametrize(("channels", "l_hidden", "count"), [(128, 1, 651_920), (128, 0, 442_000), (64, 0, 147_792), (32, 1, 90_032)])
def test_parameters_of_mace_are_the_reference_codes(channels, l_hidden, count):
    assert parameters("mace", elements=FOUR, channels=channels, l_hidden=l_hidden) == count


def test_parameters_of_the_universal_mace():
    assert parameters("mace", elements=[symbol(z) for z in range(1, 90)], bessels=10, cutoff=6.0) == 4_688_656


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("inversion", [1, -1])
def test_turned_matter_has_turned_forces(name, inversion):
    model, crystal = potential(name), glass()
    turn = inversion * np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    before = told(model, crystal)
    after = told(model, Crystal(crystal.numbers, crystal.positions @ turn.T + [0.3, -2.0, 9.0], crystal.cell @ turn.T))
    q = torch.from_numpy(turn)
    assert float(before.forces.abs().max()) > 1e-4
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=1e-10)
    torch.testing.assert_close(after.forces, before.forces @ q.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(after.stress[0], q @ before.stress[0] @ q.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SMALL)
def test_features_are_invariant(name):
    architecture, config = SMALL[name]
    torch.manual_seed(0)
    model, crystal = backbone(architecture, **config).double(), glass()
    turn = -np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turned = Crystal(crystal.numbers, crystal.positions @ turn.T, crystal.cell @ turn.T)
    before, after = (model(Systems.of([c], torch.float64).batch(model.needs.cutoff))["atom"] for c in (crystal, turned))
    assert before.shape == (6, model.widths["atom"])
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SMALL)
def test_order_of_atoms_and_choice_of_cell_do_not_matter(name):
    model, crystal = potential(name), glass()
    before = told(model, crystal)
    order = np.random.default_rng(3).permutation(len(crystal.numbers))
    shuffled = told(model, Crystal(crystal.numbers[order], crystal.positions[order], crystal.cell))
    torch.testing.assert_close(shuffled.energy, before.energy, rtol=0, atol=1e-11)
    torch.testing.assert_close(shuffled.forces, before.forces[torch.from_numpy(order)], rtol=0, atol=1e-12)
    double = told(model, crystal.supercell((2, 1, 1)))
    torch.testing.assert_close(double.energy, 2 * before.energy, rtol=0, atol=1e-10)
    torch.testing.assert_close(double.stress, before.stress, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_forces_and_stress_are_slopes_of_the_energy(name):
    model, crystal = potential(name), glass()
    found, step = told(model, crystal), 1e-4

    def energy(positions, cell=crystal.cell):
        return float(told(model, Crystal(crystal.numbers, positions, cell)).energy)

    for atom, axis in ((0, 0), (3, 2)):
        shift = np.zeros_like(crystal.positions)
        shift[atom, axis] = step
        slope = (energy(crystal.positions + shift) - energy(crystal.positions - shift)) / (2 * step)
        assert float(found.forces[atom, axis]) == pytest.approx(-slope, abs=1e-6)
    strain = np.zeros((3, 3))
    strain[0, 1] = strain[1, 0] = 0.5e-5
    up, down = (energy(crystal.positions @ (np.eye(3) + s), crystal.cell @ (np.eye(3) + s)) for s in (strain, -strain))
    assert float(found.stress[0, 0, 1]) == pytest.approx((up - down) / 2e-5 / abs(np.linalg.det(crystal.cell)), abs=1e-8)
    torch.testing.assert_close(found.forces.sum(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", SMALL)
def test_energy_is_smooth_where_atoms_leave_the_cutoff(name):
    model = potential(name)
    draw = [told(model, Crystal(["Si", "S"], [[0, 0, 0], [0, 0, 4.0 + d]])) for d in (-2e-6, -1e-6, 1e-6)]
    energies = [float(one.energy) for one in draw]
    assert max(energies) - min(energies) < 1e-9
    assert float(draw[1].forces.abs().max()) < 1e-4
    assert float(draw[2].forces.abs().max()) == 0.0


@pytest.mark.parametrize("name", SMALL)
def test_far_apart_energies_add_and_batches_are_systems_one_by_one(name):
    model = potential(name)
    alone = [Crystal(["Si", "S"], [[0, 0, 0], [0, 0, 2.1]]), Crystal(["Li", "P"], [[0, 0, 0], [2.4, 0, 0]])]
    energies = [float(told(model, c).energy) for c in alone]
    together = Crystal(["Si", "S", "Li", "P"], [[0, 0, 0], [0, 0, 2.1], [50, 0, 0], [52.4, 0, 0]])
    assert float(told(model, together).energy) == pytest.approx(sum(energies), abs=1e-10)
    batch = model.compute(Systems.of([*alone, glass()], torch.float64).batch(model.cutoff))
    assert batch.energy.tolist() == pytest.approx([*energies, float(told(model, glass()).energy)], abs=1e-10)


@pytest.mark.parametrize("name", SMALL)
def test_a_lone_atom_and_an_atom_beside_its_images(name):
    model = potential(name)
    lone = told(model, Crystal(["Si"], [[0, 0, 0]]))
    assert not lone.forces.any()
    crowded = told(model, Crystal(["Si"], [[0, 0, 0]], np.eye(3) * 2.5))
    assert abs(float(crowded.energy) - float(lone.energy)) > 1e-6
    assert float(crowded.forces.abs().max()) < 1e-12
    assert float(crowded.stress.abs().max()) > 1e-8


def test_a_lone_atom_of_nequip_has_the_reference_energy():
    assert float(told(potential("nequip"), Crystal(["P"], [[0, 0, 0]])).energy) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_compiled_and_plain_training_agree(name, monkeypatch):
    batch = Systems.of([glass(), glass(1)], torch.float64).batch(4.0)
    gradients = []
    for compiled in (True, False):
        if not compiled:
            for module in (edge_product, product_basis):
                monkeypatch.setattr(module, "_functions", lambda: None)
        model = potential(name).requires_grad_(True)
        found = model.compute(batch, twice=True)
        (found.energy.square().sum() + found.forces.square().sum() + 100 * found.stress.square().sum()).backward()
        gradients.append({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()})
    for key, ours in gradients[0].items():
        torch.testing.assert_close(ours, gradients[1][key], rtol=0, atol=1e-10 * float(ours.abs().max()), msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_single_precision_is_near(name):
    exact, crystal = told(potential(name), glass()), glass()
    single = potential(name).float().compute(Systems.of([crystal], torch.float32).batch(4.0))
    torch.testing.assert_close(single.forces.double(), exact.forces, rtol=0, atol=1e-4 * float(exact.forces.abs().max()))


@pytest.mark.parametrize("name", [n for n in SMALL if n != "painn"])
def test_strange_elements_are_refused_by_name(name):
    architecture, config = SMALL[name]
    model = backbone(architecture, **config)
    with pytest.raises(InputError, match="Fe, U"):
        model(graph([Crystal(["U", "Si", "Fe"], [[0, 0, 0], [0, 0, 2], [0, 0, 4]])], model.needs))


@pytest.mark.parametrize("name", SMALL)
def test_baked_networks_tell_the_same(name):
    model = potential(name)
    batches = [Systems.of([glass(k)], torch.float64).batch(4.0) for k in range(2)]
    exact = [model.compute(batch) for batch in batches]
    model.backbone, report = bake(model.backbone, batches, tolerance=1e-6)
    worst = max(float((model.compute(b).forces - e.forces).abs().max()) for b, e in zip(batches, exact, strict=True))
    assert worst == pytest.approx(report.slope_error, rel=1e-3, abs=1e-14)
    assert worst < 1e-6
    assert report.energy_error < 1e-6
    lone = told(model, Crystal(["Si"], [[0, 0, 0]]))
    assert not lone.forces.any()
    with pytest.raises(InputError, match="baked already"):
        bake(model.backbone)


def test_baking_says_when_it_cannot():
    with pytest.raises(InputError, match="no functions of distance"):
        bake(nn.Linear(2, 2))
    with pytest.raises(RunError, match="larger tolerance"):
        bake(backbone("mace", **SMALL["mace"][1]), tolerance=1e-16)


def test_baking_without_structures_bounds_the_functions():
    _, report = bake(backbone("nequip", **SMALL["nequip"][1]), tolerance=1e-7)
    assert report.function_error < 1e-7
    assert report.energy_error is None


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("painn", {"width": 1}),
        ("painn", {"gaussians": 1}),
        ("nequip", {"channels": (8, 4)} | {"l_max": 2}),
        ("nequip", {"average_neighbours": 0.0}),
        ("nequip", {"layers": 0}),
        ("mace", {"l_hidden": 4}),
        ("mace", {"correlation": 4}),
        ("mace", {"average_neighbours": -1.0}),
        ("mace", {"elements": ("Si", "Si")}),
    ],
)
def test_settings_out_of_range(architecture, config):
    with pytest.raises(ConfigError):
        backbone(architecture, **config)
