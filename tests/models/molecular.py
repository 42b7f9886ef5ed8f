"""What the tests of the molecular networks share."""

import numpy as np
import torch

from naica.graphs import Batch, graph
from naica.models import backbone
from naica.structure.molecule import from_smiles

SMILES = ["CCO", "c1ccccc1C(=O)N", "[Na+].[Cl-]", "C", "CC(=O)Oc1ccccc1C(=O)O", "FS(F)(F)(F)(F)F", "C1CC1C#N"]


def molecules():
    return [from_smiles(smiles) for smiles in SMILES]


def settled(name, **config):
    """A backbone in f64 for prediction, its batch norms away from their trivial start."""
    torch.manual_seed(3)
    model = backbone(name, **config).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
    return model.eval()


def batch_of(crystals, model) -> Batch:
    return graph(crystals, model.needs).to(dtype=torch.float64)


def features(model, crystals):
    found = model(crystals if isinstance(crystals, Batch) else batch_of(crystals, model))
    assert {level: values.shape[1] for level, values in found.items()} == model.widths
    return found["system"].detach()


def renumbered(batch: Batch, seed: int) -> Batch:
    """The same graphs with the atoms of each numbered otherwise."""
    draw = np.random.default_rng(seed)
    order = np.concatenate([first + draw.permutation(n) for first, n in zip(_starts(batch), batch["n_atoms"].tolist(), strict=True)])
    order = torch.from_numpy(order)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    receiver, sender = place[batch["edge_receiver"]], place[batch["edge_sender"]]
    edges = torch.argsort(receiver, stable=True)
    moved = {key: value[order] for key, value in batch.items() if key in ("number", "atom_chemistry", "fraction", "system")}
    moved |= {key: value[edges] for key, value in batch.items() if key.startswith("edge_")}
    return Batch({**batch, **moved, "edge_receiver": receiver[edges], "edge_sender": sender[edges]})


def _starts(batch):
    return (torch.cumsum(batch["n_atoms"], 0) - batch["n_atoms"]).tolist()


def laws(model, tolerance=1e-9):
    """What every molecular network keeps: numbering, and who else is in the batch, padding atoms among them."""
    crystals = molecules()
    batch = batch_of(crystals, model)
    together = features(model, batch)
    assert torch.isfinite(together).all()
    alone = torch.cat([features(model, [c]) for c in crystals])
    torch.testing.assert_close(alone, together, atol=tolerance, rtol=tolerance)
    for seed in range(3):
        torch.testing.assert_close(features(model, renumbered(batch, seed)), together, atol=tolerance, rtol=tolerance)
    # five lone atoms beside them are what padding is in a flat batch
    padded = batch_of([*crystals, *[from_smiles(s) for s in ("[Ar]", "C", "N", "O", "[Na+]")]], model)
    torch.testing.assert_close(features(model, padded)[: len(crystals)], together, atol=tolerance, rtol=tolerance)
    different = torch.pdist(together)
    assert float(different.min()) > 1e-6
