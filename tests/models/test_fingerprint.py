"""Neural graph fingerprints."""

import pytest
import torch

from naica.errors import ConfigError

pytest.importorskip("rdkit", reason="needs the extra: pip install 'naica[molecules]'")

from tests.models.molecular import batch_of, features, laws, renumbered, settled
from tests.models.molecular import molecules as some

from naica.models import backbone
from naica.nn import molecules
from naica.structure.molecule import from_smiles


@pytest.mark.parametrize("norm", ["running", "none"])
def test_numbering_and_company_do_not_matter(norm):
    laws(settled("fingerprint", norm=norm))


@pytest.mark.parametrize("norm", ["running", "released", "none"])
@pytest.mark.parametrize("layers", [0, 1, 4])
def test_every_atom_writes_one_in_each_layer(norm, layers):
    model = settled("fingerprint", norm=norm, layers=layers, length=17)
    crystals = some()
    written = features(model, crystals).sum(1)
    torch.testing.assert_close(written, torch.tensor([float(len(c) * (layers + 1)) for c in crystals], dtype=torch.float64))


def test_the_layer_is_the_equation():
    """Against a loop over atoms; results of the degrees must come back to their own atoms."""
    model = settled("fingerprint", layers=1, norm="none")
    batch = batch_of(some(), model)
    layer = model.convolutions[0]
    atoms, bonds = molecules.atoms_duvenaud(batch), molecules.bonds(batch)
    degree = torch.bincount(batch["edge_receiver"], minlength=len(atoms))
    assert degree.max() == 6
    assert degree.min() == 0
    expected = []
    for a in range(len(atoms)):
        edges = (batch["edge_receiver"] == a).nonzero()[:, 0]
        total = layer.self_.weight @ atoms[a] + layer.self_.bias
        for e in edges.tolist():
            total = total + layer.by_degree[min(len(edges), 5)].weight @ torch.cat([atoms[batch["edge_sender"][e]], bonds[e]])
        expected.append(torch.relu(total))
    torch.testing.assert_close(layer(atoms, bonds, degree.clamp(max=5), batch), torch.stack(expected))


def test_released_batch_norm():
    """No learned scale, deviation + 1, statistics of the batch at prediction: so the company matters."""
    model = settled("fingerprint", norm="released", layers=2)
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in model.modules())
    x = torch.tensor([[1.0], [3.0], [8.0]])
    torch.testing.assert_close(model.convolutions[0].norm(x), (x - 4.0) / ((26 / 3) ** 0.5 + 1))
    crystals = some()
    together, alone = features(model, crystals)[0], features(model, crystals[:1])[0]
    assert float((together - alone).abs().max()) > 1e-3
    batch = batch_of(crystals, model)
    torch.testing.assert_close(features(model, renumbered(batch, 1)), features(model, batch))


def test_large_random_weights_give_binary_fingerprints():
    """The limit that makes circular fingerprints of it: alike fragments meet in one place, different ones hardly."""
    torch.manual_seed(0)
    model = backbone("fingerprint", length=2048, layers=2, norm="none").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 20)
    acid, again, other = (features(model, [from_smiles(s)])[0] for s in ("CCCC(=O)O", "OC(=O)CCC", "c1ccsc1Br"))
    whole = torch.cat([acid, other])
    assert float((whole - whole.round()).abs().sum() / whole.sum()) < 0.05
    torch.testing.assert_close(acid, again)
    shared = torch.minimum(acid, other).sum() / acid.sum()
    assert float(shared) < 0.25
    longer = features(model, [from_smiles("CCCCCC(=O)O")])[0]
    assert float(torch.minimum(acid, longer).sum() / acid.sum()) > 0.8


def test_a_lone_atom_trains():
    model = backbone("fingerprint").train()
    batch = batch_of([from_smiles("C")], model).to(dtype=torch.float32)
    assert torch.isfinite(model(batch)["system"]).all()


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="norm"):
        backbone("fingerprint", norm="layer")
    with pytest.raises(ConfigError, match="length"):
        backbone("fingerprint", length=0)
