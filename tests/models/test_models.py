"""Laws that every backbone keeps, and what is particular to each."""

import numpy as np
import pytest
import torch
from torch import nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSet, composition_graph, graph
from naica.models import ARCHITECTURES, backbone, config_of
from naica.models.cgcnn import padded_as_released
from naica.nn import Head
from naica.structure import Crystal

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
SALT = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], FCC * 5.64)
PEROVSKITE = Crystal.from_fractional(
    ["Ba", "Ti", "O", "O", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.02], [0.5, 0, 0.5], [0, 0.5, 0.5]], np.diag([4.0, 4.1, 4.2])
)
WATER = Crystal(["H", "O", "H"], [[0.76, 0.59, 0], [0, 0, 0], [-0.76, 0.59, 0]])
ARGON = Crystal(["Ar"], [[0, 0, 0]])
ALL = [SALT, PEROVSKITE, WATER, ARGON]

CASES = [
    ("cgcnn", {}),
    ("cgcnn", {"convolution": "simple"}),
    ("cgcnn", {"atoms": "described"}),
    ("gnome", {"width": 16, "cutoff": 5.0}),
    ("gnome", {"width": 16, "aggregation": "mean", "cutoff": 5.0}),
    ("gnome", {"width": 16, "aggregation": "sum", "cutoff": 5.0, "steps": 2}),
    ("gnome-composition", {"width": 16}),
    ("orbital-graph", {"width": 16, "layers": 2}),
]


class Whole(nn.Module):
    """A backbone with a head, in f64 so that laws hold to rounding."""

    def __init__(self, name, config) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.backbone = backbone(name, **config)
        level = "atom" if "atom" in self.backbone.widths else "system"
        self.head = Head(self.backbone.widths[level], (8,), pooling="mean" if level == "atom" else "system")
        self.double()
        self._settle()

    def _settle(self) -> None:
        """Batch norms away from their trivial start."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
        self.eval()

    def batch(self, crystals) -> Batch:
        return graph(crystals, self.backbone.needs).to(dtype=torch.float64)

    def forward(self, crystals) -> torch.Tensor:
        batch = crystals if isinstance(crystals, Batch) else self.batch(crystals)
        return self.head(self.backbone(batch), batch)[:, 0].detach()


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[1].values()))}")
def whole(request) -> Whole:
    return Whole(*request.param)


def close(a, b, tolerance=2e-6):
    # lengths are kept in f32, so laws hold to about 1e-7 of a number of order one
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_outputs_differ_and_are_finite(whole):
    out = whole(ALL)
    assert bool(torch.isfinite(out).all())
    assert len(set(out.round(decimals=6).tolist())) == 4


def test_batch_equals_singles(whole):
    close(whole(ALL), torch.cat([whole(c) for c in ALL]), 1e-10)


def test_order_of_atoms_does_not_matter(whole):
    order = np.array([3, 1, 4, 0, 2])
    close(whole(PEROVSKITE.replace(numbers=PEROVSKITE.numbers[order], positions=PEROVSKITE.positions[order])), whole(PEROVSKITE))


def test_rotation_inversion_and_translation_do_not_matter(whole):
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for crystal in (PEROVSKITE, WATER):
        for matrix in (turn, -turn):
            moved = crystal.replace(positions=crystal.positions @ matrix.T + [0.3, -5.0, 2.2], cell=crystal.cell @ matrix.T)
            close(whole(moved), whole(crystal))


def test_wrapping_and_the_choice_of_cell_do_not_matter(whole):
    close(whole(PEROVSKITE.replace(positions=PEROVSKITE.positions + PEROVSKITE.cell[0] * [[1], [0], [-2], [0], [3]])), whole(PEROVSKITE))
    other = PEROVSKITE.cell.copy()
    other[1] += other[0]
    close(whole(PEROVSKITE.replace(cell=other)), whole(PEROVSKITE))


@pytest.mark.parametrize("repeats", [(2, 1, 1), (2, 2, 2)])
def test_supercell_has_the_same_output(whole, repeats):
    for crystal in (SALT, PEROVSKITE):
        close(whole(crystal.supercell(repeats)), whole(crystal))


def test_order_of_edges_within_a_receiver_does_not_matter(whole):
    batch = whole.batch([PEROVSKITE, WATER])
    shuffle = torch.randperm(batch.n_edges)
    shuffle = shuffle[torch.argsort(batch["edge_receiver"][shuffle], stable=True)]
    other = Batch({k: v[shuffle] if k.startswith("edge_") else v for k, v in batch.items()})
    close(whole(other), whole(batch), 1e-10)


def test_f32_agrees_with_f64(whole):
    exact = whole(ALL)
    single = whole.float()
    close(single(graph(ALL, single.backbone.needs)).double(), exact, 2e-4)


def test_gradients_reach_every_weight(whole):
    whole.train()
    batch = whole.batch([SALT, PEROVSKITE, WATER])
    whole.head(whole.backbone(batch), batch).square().sum().backward()
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0 or "bias" in name, name


def test_learns_ten_structures_by_heart():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    crystals = [SALT.replace(numbers=rng.integers(3, 50, 2)).scaled(rng.uniform(0.8, 1.3)) for _ in range(10)]
    values = torch.randn(10)
    model, head = backbone("cgcnn", width=32, layers=2), Head(32, (32,))
    graphs = GraphSet.build(crystals).batch(range(10))
    optimiser = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=1e-2)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        loss = (head(model(graphs), graphs)[:, 0] - values).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float((head(model(graphs), graphs)[:, 0] - values).detach().abs().mean()) < 5e-3


# --- cgcnn -------------------------------------------------------------------------------------------------------------------
def test_cgcnn_parameter_counts():
    model, head = backbone("cgcnn"), Head(64)
    assert sum(p.numel() for p in model.convolutions[0].parameters()) == 22_144
    table = model.embedding.weight.numel()
    # the original maps 92 element features with a bias; naica's table of 104 elements stands in its place
    original = 92 * 64 + 64
    assert sum(p.numel() for m in (model, head) for p in m.parameters()) - table + original == 80_833
    two_classes = Head(64, n_out=2)
    assert sum(p.numel() for m in (model, two_classes) for p in m.parameters()) - table + original == 80_962
    published = [backbone("cgcnn", layers=4), Head(64, (32,))]
    assert sum(p.numel() for m in published for p in m.parameters()) - table + original == 96_641


def test_gated_convolution_is_equation_five():
    torch.manual_seed(0)
    whole = Whole("cgcnn", {"layers": 1})
    batch = whole.batch([PEROVSKITE, WATER])
    model, convolution = whole.backbone, whole.backbone.convolutions[0]
    v, u = model.embedding(batch["number"]), model.radial(batch["edge_length"])
    z = torch.cat([v[batch["edge_receiver"]], v[batch["edge_sender"]], u], dim=1)
    z = convolution.norm_edges(nn.functional.linear(z, convolution.linear.weight, convolution.linear.bias))
    message = torch.sigmoid(z[:, :64]) * nn.functional.softplus(z[:, 64:])
    summed = torch.zeros_like(v).index_add(0, batch["edge_receiver"], message)
    torch.testing.assert_close(model(batch)["atom"], nn.functional.softplus(v + convolution.norm_atoms(summed)))
    # in training the norms see this batch, and the layer is the same equation with its statistics
    whole.train()
    z = torch.cat([v[batch["edge_receiver"]], v[batch["edge_sender"]], u], dim=1)
    z = nn.functional.linear(z, convolution.linear.weight, convolution.linear.bias)
    z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
    summed = torch.zeros_like(v).index_add(0, batch["edge_receiver"], torch.sigmoid(z[:, :64]) * nn.functional.softplus(z[:, 64:]))
    summed = (summed - summed.mean(0)) / (summed.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(model(batch)["atom"], nn.functional.softplus(v + summed))


def test_simple_convolution_is_equation_four():
    whole = Whole("cgcnn", {"layers": 1, "convolution": "simple"})
    batch = whole.batch([PEROVSKITE, WATER])
    model, convolution = whole.backbone, whole.backbone.convolutions[0]
    v, u = model.embedding(batch["number"]), model.radial(batch["edge_length"])
    joined = torch.cat([v[batch["edge_sender"]], u], dim=1)
    summed = torch.zeros(len(v), joined.shape[1], dtype=v.dtype).index_add(0, batch["edge_receiver"], joined)
    expected = nn.functional.softplus(convolution.neighbours(summed) + convolution.self_(v))
    torch.testing.assert_close(model(batch)["atom"], expected)


@pytest.mark.parametrize("convolution", ["gated", "simple"])
def test_coordination_is_seen_at_one_composition(convolution):
    whole = Whole("cgcnn", {"convolution": convolution})
    caesium_chloride = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 3.5)
    assert abs(float(whole(SALT) - whole(caesium_chloride))) > 1e-3


def test_padding_as_released_depends_on_the_first_atom_and_ours_does_not():
    pair = Crystal(["Na", "Cl"], [[0, 0, 0], [0, 0, 2.4]])
    swapped = Crystal(["Cl", "Na"], [[0, 0, 2.4], [0, 0, 0]])
    ours, released = Whole("cgcnn", {}), Whole("cgcnn", {"padding": "original"})
    released.load_state_dict(ours.state_dict())
    close(ours(pair), ours(swapped))
    assert abs(float(released(pair) - released(swapped))) > 1e-4
    close(ours(SALT), released(SALT))  # nothing to pad
    padded = padded_as_released(graph([SALT, pair]), 12, 9.0)
    assert padded.degree == 12
    assert set(padded["edge_sender"][padded["edge_length"] == 9.0].tolist()) == {2}


def test_training_with_a_lone_atom_works():
    model = backbone("cgcnn")
    model.train()
    assert bool(torch.isfinite(model(graph(ARGON))["atom"]).all())


def test_sites_of_equivalent_atoms_are_equal():
    whole = Whole("cgcnn", {"convolution": "simple"})
    head = Head(64, (8,), pooling="sites").double()
    crystal = PEROVSKITE.replace(cell=np.eye(3) * 4, positions=np.round(PEROVSKITE.positions / np.diag(PEROVSKITE.cell), 1) * 4)
    batch = whole.batch(crystal)
    sites = head.sites(whole.backbone(batch), batch)[:, 0].detach()
    assert sites[2:].tolist() == pytest.approx([float(sites[2])] * 3, abs=1e-6)
    close(sites.mean()[None], head(whole.backbone(batch), batch)[:, 0], 1e-7)


# --- gnome -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("aggregation", "breaks"), [("coordination", True), ("sum", True), ("mean", False)])
def test_released_readout_depends_on_the_size_of_the_cell(aggregation, breaks):
    whole = Whole("gnome", {"width": 16, "aggregation": aggregation, "readout": "released", "steps": 2})
    change = abs(float(whole(SALT) - whole(SALT.supercell((2, 1, 1)))))
    assert (change > 1e-4) == breaks


def test_gnome_sees_volume_through_scaled_batches():
    whole = Whole("gnome", {"width": 16})
    batch = whole.batch([SALT, PEROVSKITE])
    assert bool(((whole(batch) - whole(batch.scaled(1.2))).abs() > 1e-6).all())
    close(whole(batch.scaled(1.0)), whole(batch), 1e-12)


def test_composition_model_ignores_multiples_of_the_formula():
    whole = Whole("gnome-composition", {"width": 16})
    out = whole(composition_graph(["MgAl2O4", "Mg2Al4O8", "MgO"]).to(dtype=torch.float64))
    assert float(out[0]) == pytest.approx(float(out[1]), abs=1e-6)
    assert abs(float(out[0] - out[2])) > 1e-6
    spinel = Crystal.from_fractional([12, 13, 13, 8, 8, 8, 8], np.random.default_rng(0).random((7, 3)), np.eye(3) * 6)
    assert float(whole(spinel)) == pytest.approx(float(out[0]), abs=1e-6)


# --- registry ------------------------------------------------------------------------------------------------------------------
def test_unknown_names_and_settings_get_a_hint():
    with pytest.raises(ConfigError, match="did you mean cgcnn"):
        backbone("cgnn")
    with pytest.raises(ConfigError, match="did you mean width"):
        backbone("cgcnn", widht=32)
    for bad in ({"convolution": "eq5"}, {"padding": "zeros"}, {"width": 0}, {"atoms": "one-hot"}):
        with pytest.raises(ConfigError):
            backbone("cgcnn", **bad)
    for bad in ({"aggregation": "max"}, {"readout": "?"}, {"steps": 0}):
        with pytest.raises(ConfigError):
            backbone("gnome", **bad)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_configs_rebuild_their_models(name):
    from dataclasses import asdict

    model = backbone(name)
    again = backbone(name, **asdict(model.config))
    assert isinstance(model.config, config_of(name))
    again.load_state_dict(model.state_dict())
