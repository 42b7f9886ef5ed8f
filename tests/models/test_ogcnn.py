"""OGCNN: sizes, what it reads, and what it becomes without its orbital columns."""

import pytest
import torch
from torch import nn

from naica.errors import ConfigError
from naica.graphs import graph
from naica.models import backbone
from naica.models.cgcnn import CGCNN
from naica.models.ogcnn import OGCNN, cgcnn_bits
from naica.nn import Head
from naica.structure.configurations import orbital_bits
from naica.structure.elements import element
from naica.training import build
from naica.training.check import check, samples

SMALL = {"width": 8, "encoder": 12, "layers": 2}


def test_the_released_size_has_its_number_of_parameters():
    with torch.device("meta"):
        convolutions = OGCNN.Config.released()
    model = nn.ModuleList([OGCNN(convolutions), Head(convolutions.width, (128,))])
    assert sum(p.numel() for p in model.parameters()) == 30_986_753


def test_the_default_is_small():
    assert sum(p.numel() for p in OGCNN().parameters()) < 100_000


@pytest.mark.parametrize(
    ("symbol", "released"),
    [
        ("H", {1, 19, 30, 36, 46, 64, 73, 78, 86}),
        ("O", {16, 20, 34, 37, 51, 64, 74, 79, 86}),
        ("Fe", {8, 22, 29, 40, 53, 61, 72, 80, 83}),
        ("U", {0, 25, 29, 42, 47, 60, 81, 85}),
    ],
)
def test_bits_have_the_layout_of_cgcnn(symbol, released):
    """Group, period, valence electrons and block are the same bits; ranges of measured numbers may differ by one bin."""
    ours = set(cgcnn_bits()[element(symbol).number].nonzero()[:, 0].tolist())
    for low, high in ((0, 18), (19, 25), (78, 81)):
        assert {b for b in ours if low <= b <= high} == {b for b in released if low <= b <= high}, (symbol, low)
    for low, high in ((26, 35), (36, 45), (58, 67), (68, 77), (82, 91)):
        mine, theirs = ([b for b in sorted(bits) if low <= b <= high] for bits in (ours, released))
        if theirs:
            assert len(mine) == 1, (symbol, low)
            assert abs(mine[0] - theirs[0]) <= 1, (symbol, low, mine, theirs)


def test_bits_of_hydrogen_oxygen_and_iron_have_the_released_valence_electrons():
    for symbol, bit in (("H", 46), ("O", 51), ("Fe", 53)):
        assert cgcnn_bits()[element(symbol).number, 46:58].nonzero()[:, 0].tolist() == [bit - 46]


@pytest.mark.parametrize("config", [{}, {"field": "matrix", "power": "4"}, {"field": "none"}, {"power": "2", "elements": "bits"}])
def test_physics_contract(config):
    torch.manual_seed(0)
    report = check(build("ogcnn", "formation_energy_per_atom", **SMALL, **config))
    assert report.passed, str(report)


@pytest.mark.parametrize("field", ["vector", "matrix"])
def test_zeros_instead_of_the_orbital_columns_recover_cgcnn(field):
    """With zeros for the columns and the same weights, the convolutions are those of a CGCNN of this width."""
    torch.manual_seed(0)
    model = OGCNN(OGCNN.Config(**SMALL, field=field)).double().eval()
    plain = CGCNN(CGCNN.Config(width=8, layers=2)).double().eval()
    plain.convolutions.load_state_dict(model.convolutions.state_dict())
    known = model.known.shape[1]
    with torch.no_grad():
        model.encoder[0].weight[:, known:] = 0
        plain.embedding.weight.copy_(
            model.encoder[2](nn.functional.softplus(model.encoder[0].weight[:, :known] @ model.known.T + model.encoder[0].bias[:, None]).T)
        )
    batch = graph(samples(), model.needs).to(dtype=torch.float64)
    torch.testing.assert_close(model(batch)["atom"], plain(batch)["atom"], rtol=1e-10, atol=1e-10)


def test_without_the_field_it_needs_no_faces():
    model = backbone("ogcnn", **SMALL, field="none")
    assert model.needs.levels == ()
    columns = model.atom_features(graph(samples(), model.needs))[:, model.known.shape[1] :]
    assert columns.shape[1] == 64
    assert not columns.any()


def test_the_field_is_read():
    """Two sites of one element with other neighbours start differently, and neighbours change nothing where the field is not read."""
    for field, differs in (("vector", True), ("matrix", True), ("none", False)):
        torch.manual_seed(0)
        model = backbone("ogcnn", **SMALL, field=field).eval()
        batch = graph(samples(), model.needs)
        features = model.atom_features(batch)
        oxygen = features[batch["number"] == 8]
        assert bool((oxygen != oxygen[0]).any()) == differs


def test_the_matrix_columns_are_the_outer_product():
    model = backbone("ogcnn", **SMALL, field="matrix", power="4", elements="bits")
    batch = graph(samples(), model.needs)
    columns = model.atom_features(batch)
    assert columns.shape[1] == 92 + 1056
    matrix = columns[:, 92:].view(-1, 32, 33)
    own = torch.from_numpy(orbital_bits())[batch["number"]]
    assert bool((matrix[:, :, 32] == own).all())
    assert int(torch.linalg.matrix_rank(matrix[:, :, :32]).max()) == 1
    torch.testing.assert_close(matrix[:, :, :32], own[:, :, None] * batch["orbital_field_released"][:, None])


def test_settings_out_of_range_are_refused():
    for bad in ({"width": 0}, {"encoder": 0}, {"layers": -1}, {"field": "tensor"}, {"power": "3"}, {"elements": "guessed"}):
        with pytest.raises(ConfigError):
            OGCNN.Config(**bad)
