"""M3GNet: its parameter count, its equations pair by pair and triplet by triplet, and the laws of a potential."""

import numpy as np
import pytest
import torch

from naica.errors import ConfigError, InputError
from naica.models import backbone
from naica.nn.bessel import SmoothBessel, SphericalBessel, envelope
from naica.nn.compiled import library
from naica.potential.model import PotentialModel
from naica.potential.systems import Systems
from naica.structure import Crystal

CALCITE = Crystal(
    np.array([20, 6, 8, 8, 8]),
    np.array([[0, 0, 0], [2.1, 2.2, 1.9], [3.3, 2.4, 1.6], [1.4, 3.1, 2.2], [1.6, 1.1, 2.1]]),
    np.array([[4.1, 0.2, 0], [0.1, 4.3, 0.3], [0.2, 0, 3.9]]),
)
WATER = Crystal(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]])
DRAW = np.random.default_rng(5)


def potential(seed: int = 0, **config) -> PotentialModel:
    torch.manual_seed(seed)
    model = PotentialModel("m3gnet", {"width": 16, **config}, scale=3.0).double()
    for one in model.parameters():
        one.data += 0.2 * torch.randn_like(one)  # biases away from zero
    return model.requires_grad_(False)


def energy(model: PotentialModel, *crystals: Crystal) -> np.ndarray:
    return model(Systems.of(crystals).batch(model.cutoff)).detach().numpy()


def test_parameter_count_is_the_published_one():
    assert sum(p.numel() for p in backbone("m3gnet").parameters()) == 227_549


def gated(net, x):
    """φ(x) σ(ψ(x)), written out."""
    value, gate = x @ net.first.chunk(2)[0].T, x @ net.first.chunk(2)[1].T
    if net.first_bias is not None:
        value, gate = value + net.first_bias.chunk(2)[0], gate + net.first_bias.chunk(2)[1]
    for weight, bias in zip(net.later, net.later_bias, strict=True):
        value, gate = (torch.nn.functional.silu(z) @ weight[k] + bias[k, 0] for k, z in enumerate((value, gate)))
    return (torch.nn.functional.silu(value) if net.value else value) * torch.sigmoid(gate)


def test_the_equations_edge_by_edge():
    net = potential(blocks=2).backbone
    batch = Systems.of([Crystal(["Ca", "O"], [[0, 0, 0], [1.9, 0.4, 0.2]], np.diag([3.5, 3.6, 3.9])), WATER]).batch(5.0)
    i, j, r, d = (batch[key] for key in ("edge_receiver", "edge_sender", "edge_vector", "edge_length"))
    h, bessel, cut = SmoothBessel(3, 5.0)(d), SphericalBessel(3, 3, 5.0, 4.0)(d)[:, :9], envelope(d, 4.0, 3)
    silu = torch.nn.functional.silu
    v, e = net.embedding.weight[batch["number"]], silu(h @ net.bond_start.weight.T)
    for block in net.blocks:
        gain = torch.zeros(len(d), 9, dtype=torch.float64)
        gate = torch.sigmoid(block.partner(v[j]))
        for one in range(len(d)):
            for two in ((i == i[one]) & (d < 4)).nonzero()[:, 0].tolist():
                if one != two and d[one] < 4:
                    c = float(r[one] @ r[two] / d[one] / d[two])
                    angular = torch.tensor([[0.5], [0.5 * 3**0.5 * c], [0.5 * 5**0.5 * (1.5 * c * c - 0.5)]]).double() / np.pi**0.5
                    # the envelope of the far bond is in `bessel`
                    gain[one] += cut[one] * bessel[two] * angular.expand(3, 3).flatten() * gate[two]
        e = e + gated(block.three_body, gain)
        e = e + gated(block.bond, torch.cat([v[i], v[j], e], 1)) * block.bond_weight(h)
        messages = gated(block.atom, torch.cat([v[i], v[j], e], 1)) * silu(block.atom_weight(h))
        v = v.index_add(0, i, messages)
    found = net(batch)
    torch.testing.assert_close(found["atom"], v, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found["energy"], gated(net.readout, v)[:, 0], atol=1e-9, rtol=1e-9)


def test_forces_and_stress_are_slopes():
    model = potential()
    systems = Systems.of([CALCITE, WATER])
    found = model.compute(systems.batch(model.cutoff))
    assert float(found.forces.abs().max()) > 0.1
    torch.testing.assert_close(found.forces[:5].sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-10, rtol=0)
    for atom, axis in ((1, 0), (4, 2), (6, 1)):
        energies = []
        for sign in (1, -1):
            moved = systems.positions.clone()
            moved[atom, axis] += sign * 1e-4
            energies.append(float(model(systems.replace(positions=moved).batch(model.cutoff)).sum()))
        assert float(found.forces[atom, axis]) == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-6)
    for a, b in ((0, 0), (0, 1), (2, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * 1e-5
            energies.append(energy(model, CALCITE.replace(positions=CALCITE.positions @ strain, cell=CALCITE.cell @ strain))[0])
        assert float(found.stress[0, a, b]) == pytest.approx((energies[0] - energies[1]) / 2e-5 / CALCITE.volume, abs=1e-8)


def test_symmetries():
    model = potential()
    turn = np.linalg.qr(DRAW.normal(size=(3, 3)))[0]
    order = DRAW.permutation(5)
    turned = CALCITE.replace(positions=CALCITE.positions @ turn, cell=CALCITE.cell @ turn)
    shuffled = Crystal(CALCITE.numbers[order], CALCITE.positions[order], CALCITE.cell)
    wrapped = CALCITE.replace(positions=CALCITE.positions + 0.77 - 2 * CALCITE.cell[0])
    one = energy(model, CALCITE)[0]
    np.testing.assert_allclose(energy(model, turned, shuffled, wrapped, CALCITE.supercell((2, 1, 1))), [one, one, one, 2 * one], atol=1e-9)
    plain, rotated = (model.compute(Systems.of(c).batch(model.cutoff)) for c in (CALCITE, turned))
    np.testing.assert_allclose(rotated.forces.numpy(), plain.forces.numpy() @ turn, atol=1e-9)
    np.testing.assert_allclose(rotated.stress[0].numpy(), turn.T @ plain.stress[0].numpy() @ turn, atol=1e-9)


def second_differences(model, along, distance, step=1e-3) -> tuple[float, float]:
    """Second derivatives of the energy just below and just above a distance."""
    found = []
    for side in (-1, 1):
        at = [energy(model, along(distance + side * (k + 0.01) * step))[0] for k in range(3)]
        found.append((at[0] - 2 * at[1] + at[2]) / step**2)
    return found[0], found[1]


def pair(x: float) -> Crystal:
    return Crystal(["Ca", "O"], [[0, 0, 0], [x, 0, 0]])


def triple(x: float) -> Crystal:
    return Crystal(["Ca", "O", "C"], [[0, 0, 0], [x, 0, 0], [0.4, 1.9, 0]])


def test_smooth_to_the_second_derivative_at_both_cut_offs():
    model = potential()
    for along, distance in ((pair, 5.0), (triple, 4.0)):
        before, after = second_differences(model, along, distance)
        scale = abs(second_differences(model, along, 2.5)[0])
        assert abs(before - after) < 2e-2 * scale
        near, far = energy(model, along(distance - 1e-6))[0], energy(model, along(distance + 1e-6))[0]
        if along is pair:
            assert abs(near - far) < 1e-9
    assert second_differences(model, pair, 5.0)[1] == pytest.approx(0, abs=1e-6)


def test_without_three_body_cut_off_it_is_a_two_body_network():
    pairwise, triples = potential(three_body_cutoff=0.0), potential()
    pairwise.load_state_dict(triples.state_dict())
    alone = energy(pairwise, triple(2.2))
    assert abs(alone - energy(triples, triple(2.2)))[0] > 1e-6
    # one neighbour: no triples, and both are the same
    np.testing.assert_allclose(*(energy(m, pair(2.2)) for m in (pairwise, triples)), atol=1e-12)


@pytest.mark.skipif(library("gated") is None, reason="no compiled functions here")
def test_single_precision_and_compiled_agree_with_double():
    model = potential(width=64)
    single = potential(width=64).float()
    systems = Systems.of([CALCITE, WATER, Crystal(["Ar"], [[0, 0, 0]])])
    wanted, found = model.compute(systems.batch(5.0)), single.compute(systems.batch(5.0, dtype=torch.float32))
    scale = float(wanted.forces.abs().max())
    assert float((wanted.forces - found.forces.double()).abs().max()) < 1e-4 * scale
    torch.testing.assert_close(found.energy, wanted.energy, atol=1e-4, rtol=1e-5)


def test_training_differentiates_forces():
    torch.manual_seed(0)
    model = PotentialModel("m3gnet", {"width": 16, "blocks": 2})
    found = model.compute(Systems.of(CALCITE).batch(5.0, dtype=torch.float32), twice=True)
    (found.energy.sum() + found.forces.square().sum() + found.stress.square().sum()).backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert lacking == []


def test_bad_settings_and_elements():
    for wrong in ({"width": 0}, {"three_body_cutoff": 6.0}, {"radial": 0}):
        with pytest.raises(ConfigError):
            backbone("m3gnet", **wrong)
    with pytest.raises(InputError, match="up to 94"):
        energy(potential(), Crystal(["Lr"], [[0, 0, 0]]))
