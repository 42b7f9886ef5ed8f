"""AMDNet: two towers, each a MEGNet."""

import numpy as np
import pytest
import torch

from naica.errors import ConfigError
from naica.graphs import Batch, graph
from naica.models import backbone
from naica.models.amdnet import level_of_motifs
from naica.nn import Head
from naica.structure import Crystal
from naica.structure.prototypes import prototype

SMALL = {"width": 8, "hidden": 12, "blocks": 2, "pool": 6, "out": 5, "elements": 7, "gaussians": 20, "reach": "near"}
RUTILE, SPINEL, METAL = (prototype(n).crystal() for n in ("rutile", "corundum", "copper-gold"))
ARGON = Crystal(["Ar"], [[0, 0, 0]])
ALL = [RUTILE, SPINEL, METAL, ARGON]


def model(seed: int = 0, **config) -> torch.nn.Module:
    torch.manual_seed(seed)
    return backbone("amdnet", **{**SMALL, **config}).double().eval()


def of(net: torch.nn.Module, crystals) -> torch.Tensor:
    return net(graph(crystals, net.needs).to(dtype=torch.float64))["system"].detach()


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.fixture(params=[{}, {"towers": "motifs"}, {"joints": "distance", "reach": "far"}], ids=str)
def net(request) -> torch.nn.Module:
    return model(**request.param)


# --- laws -----------------------------------------------------------------------------------------------------------------------------
def test_batch_equals_singles_and_outputs_differ(net) -> None:
    together = of(net, ALL)
    close(together, torch.cat([of(net, c) for c in ALL]), 1e-10)
    assert len({tuple(row) for row in together.numpy().round(7).tolist()}) == len(ALL)


def test_supercells_have_the_same_output_in_either_tower(net) -> None:
    for crystal in (RUTILE, METAL, SPINEL):
        close(of(net, crystal.supercell((2, 1, 1))), of(net, crystal))
        close(of(net, crystal.supercell([[1, 1, 0], [-1, 1, 0], [0, 0, 1]])), of(net, crystal))


def test_rotation_and_order_of_atoms_do_not_matter(net) -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for crystal in (RUTILE, SPINEL):
        close(of(net, crystal.replace(positions=crystal.positions @ turn, cell=crystal.cell @ turn)), of(net, crystal))
        order = rng.permutation(len(crystal))
        close(of(net, crystal.replace(numbers=crystal.numbers[order], positions=crystal.positions[order])), of(net, crystal))


def test_order_of_motifs_and_of_their_pairs_does_not_matter(net) -> None:
    batch = graph([RUTILE, SPINEL], net.needs).to(dtype=torch.float64)
    system = batch["motif_system"]
    shuffle = torch.argsort(system + torch.rand(len(system)) * 0.5)
    place = torch.argsort(shuffle)
    receiver, sender = place[batch["motif_edge_receiver"]], place[batch["motif_edge_sender"]]
    pairs = torch.argsort(receiver + torch.rand(len(receiver)) * 0.5)
    swapped = {k: v[shuffle] for k, v in batch.items() if k.startswith("motif_") and not k.startswith("motif_edge_")}
    swapped |= {k: v[pairs] for k, v in batch.items() if k.startswith("motif_edge_")}
    swapped |= {"motif_edge_receiver": receiver[pairs], "motif_edge_sender": sender[pairs]}
    assert not torch.equal(place, torch.arange(len(place)))
    close(net(Batch({**batch, **swapped}))["system"], net(batch)["system"], 1e-10)


def test_a_lonely_motif_gets_an_answer(net) -> None:
    assert torch.isfinite(of(net, ARGON)).all()


# --- towers ---------------------------------------------------------------------------------------------------------------------------
def test_the_atom_tower_is_a_megnet() -> None:
    net = model(towers="atoms", cutoff=4.0)
    sizes = {name: SMALL[name] for name in ("width", "hidden", "blocks", "pool", "elements", "gaussians")}
    megnet = backbone("megnet", **sizes, cutoff=4.0, reach=4.0).double().eval()
    weights = net.towers["atoms"].state_dict()
    megnet.load_state_dict({k: v for k, v in weights.items() if not k.startswith("last.")})
    batch = graph([RUTILE, METAL], net.needs).to(dtype=torch.float64)
    tower = net.towers["atoms"]
    close(tower.read(*tower.inputs(batch))[0], megnet(batch)["system"], 1e-12)


def test_a_motif_tower_of_zeros_leaves_the_atom_network_of_the_same_head() -> None:
    both, atoms = model(), model(1, towers="atoms")
    atoms.load_state_dict({k: v for k, v in both.state_dict().items() if k.startswith("towers.atoms.")})
    head = Head(2 * SMALL["out"], (6,), pooling="system").double()
    alone = Head(SMALL["out"], (6,), pooling="system").double()
    weights = head.state_dict()
    weights["network.0.weight"] = weights["network.0.weight"][:, : SMALL["out"]]
    alone.load_state_dict(weights)
    batch = graph(ALL, both.needs).to(dtype=torch.float64)
    features = both(batch)
    silent = {"system": features["system"] * torch.tensor([1.0] * SMALL["out"] + [0.0] * SMALL["out"], dtype=torch.float64)}
    close(head(silent, batch), alone(atoms(batch), batch), 1e-12)
    assert (head(features, batch) - head(silent, batch)).abs().max() > 1e-4


def test_zeroed_inputs_are_no_ablation() -> None:
    """Biases leak: a motif tower that sees nothing still says something, so ablations are networks of their own."""
    net = model()
    batch = graph([RUTILE, METAL], net.needs).to(dtype=torch.float64)
    nodes, edges, level = net.towers["motifs"].inputs(batch)
    assert net.towers["motifs"](nodes * 0, edges * 0, level)[0].abs().max() > 1e-3
    assert list(model(towers="atoms").towers) == ["atoms"]
    assert model(towers="atoms").needs.levels == ()


def test_sharing_and_angle_are_seen_only_by_full_joints() -> None:
    for joints, seen in (("full", True), ("distance", False)):
        net = model(joints=joints)
        batch = graph([RUTILE], net.needs).to(dtype=torch.float64)
        shared = batch["motif_edge_sharing"] != 3
        other = Batch({**batch, "motif_edge_sharing": torch.where(shared, 2, batch["motif_edge_sharing"])})
        bent = Batch({**batch, "motif_edge_angle": torch.where(shared, 1.0, batch["motif_edge_angle"])})
        for changed in (other, bent):
            assert bool(((net(changed)["system"] - net(batch)["system"]).abs() > 1e-7).any()) == seen


def test_published_sizes() -> None:
    """The tower of atoms is MEGNet's 167,761 parameters less its head, with 104 rows of elements and a dense layer of 16."""
    net = backbone("amdnet", towers="atoms")
    head = 96 * 32 + 32 + 32 * 16 + 16 + 16 + 1
    assert sum(p.numel() for p in net.parameters()) == 167_761 - head + (104 - 95) * 16 + 96 * 16 + 16
    assert net.widths == {"system": 16, "atom": 32}
    assert backbone("amdnet").widths == {"system": 32, "atom": 32, "motif": 32}
    assert backbone("amdnet").towers["motifs"].radial.centres[-1] == 11.0


def test_the_last_features_of_either_tower_live_and_learn() -> None:
    """The released network ends in relu, whose few features can die for good; softplus − ln 2 cannot."""
    net = model().train()
    batch = graph(ALL, net.needs).to(dtype=torch.float64)
    net(batch)["system"].square().sum().backward()
    for name, parameter in net.named_parameters():
        # the state that comes in is two zeros, so that layer's weights have nothing to work on
        assert float(parameter.grad.abs().sum()) > 0 or "bias" in name or "start.2.first" in name, name
    assert (net.towers["motifs"].last.weight.grad.abs().sum(1) > 0).all()


def test_motifs_are_a_graph_of_their_own() -> None:
    batch = graph([RUTILE, ARGON], model().needs)
    level = level_of_motifs(batch)
    assert level["n_atoms"].tolist() == [2, 1]
    assert level["number"].tolist() == [22, 22, 18]


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"towers": "three"}, {"joints": "none"}, {"reach": "7"}, {"atoms": "drawn"}):
        with pytest.raises(ConfigError, match="unknown"):
            backbone("amdnet", **wrong)
    with pytest.raises(ConfigError, match="at least 1"):
        backbone("amdnet", out=0)


def test_merged_edges_of_single_precision_change_nothing() -> None:
    """The atom tower merges equal edges in f32; pairs of motifs, which may share different things at one distance, stay apart."""
    net = model()
    exact = of(net, ALL)
    batch = graph(ALL, net.needs)
    single = net.float()(batch)["system"].detach().double()
    close(single, exact, 2e-4)
