"""One potential of another package, timed in that package's own environment; `potentials.py` calls this file and nobody else needs to.

    ENVIRONMENT/bin/python benchmarks/potential_peers.py PEER SYSTEMS.npz

Prints one line of JSON: CPU seconds of one energy + forces + stress call per system (the atoms move and the neighbour list is built anew
each time, through the package's ASE calculator or the lines that stand for one), and of one training step on four cells of 64 atoms (a
loss on energies, forces and stresses, Adam). Weights are random: they do not change the speed. One thread, best of several.
"""

from __future__ import annotations

import json
import os
import sys
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402  after the number of threads is set
import torch  # noqa: E402
from timing import best_of  # noqa: E402

torch.set_num_threads(1)


def schnetpack(kind: str):
    """SchNet (128 features, 6 interactions) or PaiNN (128, 3), 20 Gaussians, 5 Å, as one function of atoms and one training step."""
    import typing

    import torch.utils.data.dataloader as loader

    # schnetpack 2.1.1 imports a name that today's torch has no longer
    loader.T_co = typing.TypeVar("T_co", covariant=True)
    import schnetpack as spk
    from ase import Atoms
    from schnetpack.interfaces import AtomsConverter
    from schnetpack.transform import MatScipyNeighborList

    radial, cut = spk.nn.GaussianRBF(n_rbf=20, cutoff=5.0), spk.nn.CosineCutoff(5.0)
    make = {"painn": spk.representation.PaiNN, "schnet": spk.representation.SchNet}[kind]
    network = spk.model.NeuralNetworkPotential(
        representation=make(n_atom_basis=128, n_interactions=3 if kind == "painn" else 6, radial_basis=radial, cutoff_fn=cut),
        input_modules=[spk.atomistic.Strain(), spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(n_in=128, output_key="energy"), spk.atomistic.Forces(calc_stress=True)],
    )
    converter = AtomsConverter(neighbor_list=MatScipyNeighborList(cutoff=5.0), dtype=torch.float32)

    def inputs(systems: list[Atoms]) -> dict:
        return converter(systems)

    def loss(given: dict) -> torch.Tensor:
        told = network(dict(given))
        return told["energy"].square().sum() + told["forces"].square().sum() + told["stress"].square().sum()

    def call(atoms: Atoms) -> None:
        network.eval()
        network(inputs([atoms]))

    return network, call, inputs, loss


def nequip(kind: str):
    """NequIP with the library's defaults (l = 1, 32 channels, 4 layers, parity) or l = 2, 64 channels without parity; 5 Å."""
    from ase import Atoms
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    symbols = ["Si", "Li", "P", "S"]
    shape = {"default": {}, "l2": {"l_max": 2, "parity": False, "num_features": 64}}[kind]
    network = NequIPGNNModel(
        seed=0, model_dtype="float32", r_max=5.0, type_names=symbols, avg_num_neighbors=28.0, compile_mode="eager",
        per_type_energy_scales=1.0, per_type_energy_shifts=0.0, **shape,
    )  # fmt: skip
    types = ChemicalSpeciesToAtomTypeMapper(model_type_names=symbols)

    def inputs(systems: list[Atoms]) -> dict:
        each = [compute_neighborlist_(types(from_ase(a)), r_max=5.0) for a in systems]
        data = AtomicDataDict.batched_from_list(each)
        return {key: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for key, v in data.items()}

    def loss(given: dict) -> torch.Tensor:
        told = network(dict(given))
        return sum(told[key].square().sum() for key in ("total_energy", "forces", "stress"))

    def call(atoms: Atoms) -> None:
        network.eval()
        network(inputs([atoms]))

    return network, call, inputs, loss


def mace(kind: str):
    """MACE: two layers, l_max 3, correlation 3, 5 Å, hidden 128x0e+128x1o ("default"), 128x0e or 64x0e."""
    import logging

    logging.disable(logging.WARNING)
    from ase import Atoms
    from mace import data, modules  # before e3nn, which loads only after mace has switched off safe loading
    from mace.tools import AtomicNumberTable, torch_geometric

    from e3nn import o3  # isort: skip

    hidden = {"default": "128x0e+128x1o", "128": "128x0e", "64": "64x0e"}[kind]
    torch.set_default_dtype(torch.float32)
    numbers = AtomicNumberTable([3, 14, 15, 16])
    network = modules.ScaleShiftMACE(
        r_max=5.0, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, num_interactions=2, num_elements=4,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        hidden_irreps=o3.Irreps(hidden), MLP_irreps=o3.Irreps("16x0e"), atomic_energies=np.zeros(4), avg_num_neighbors=28.0,
        atomic_numbers=numbers.zs, correlation=3, gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0, atomic_inter_shift=0.0,
    )  # fmt: skip

    def inputs(systems: list[Atoms]) -> dict:
        each = [data.AtomicData.from_config(data.config_from_atoms(a), z_table=numbers, cutoff=5.0) for a in systems]
        loader = torch_geometric.dataloader.DataLoader(dataset=each, batch_size=len(each), shuffle=False)
        return next(iter(loader)).to_dict()

    def loss(given: dict) -> torch.Tensor:
        told = network(dict(given), training=True, compute_stress=True)
        return sum(told[key].square().sum() for key in ("energy", "forces", "stress"))

    def call(atoms: Atoms) -> None:
        network.eval()
        network(inputs([atoms]), compute_stress=True)

    return network, call, inputs, loss


def matgl(kind: str):
    """matgl's M3GNet (64, 3 blocks, 5 / 4 Å) or CHGNet (6 / 3 Å)."""
    import matgl
    from ase import Atoms
    from matgl.apps.pes import Potential
    from matgl.ext.ase import Atoms2Graph
    from matgl.models import CHGNet, M3GNet

    symbols = ("Li", "P", "S", "Si")
    if kind == "m3gnet":
        bare = M3GNet(element_types=symbols, is_intensive=False)
        cutoff = 5.0
    else:
        bare = CHGNet(element_types=symbols)
        cutoff = 6.0
    network = Potential(model=bare, calc_stresses=True)
    convert = Atoms2Graph(symbols, cutoff)
    del matgl

    def inputs(systems: list[Atoms]):
        from matgl.graph.data import collate_fn_pes

        items = []
        for atoms in systems:
            graph, lattice, state = convert.get_graph(atoms)
            n = len(atoms)
            zero = {"energies": 0.0, "forces": torch.zeros(n, 3), "stresses": torch.zeros(3, 3)}
            items.append((graph, lattice[0], torch.tensor(state), zero))
        graph, lattice, state, *_ = collate_fn_pes(items)
        return graph, lattice, state

    def loss(given) -> torch.Tensor:
        graph, lattice, state = given
        told = network(graph, lattice, state)
        return sum(t.square().sum() for t in told[:3])

    def call(atoms: Atoms) -> None:
        network.eval()
        graph, lattice, state = convert.get_graph(atoms)
        network(graph, lattice, torch.tensor(state))

    return network, call, inputs, loss


def chgnet(_: str):
    """The package chgnet with its bundled weights (6 / 3 Å, 64, 4)."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        from ase import Atoms
        from chgnet.model.model import CHGNet
        from pymatgen.io.ase import AseAtomsAdaptor

        network = CHGNet.load(use_device="cpu", verbose=False)

    def graph(atoms: Atoms):
        return network.graph_converter(AseAtomsAdaptor.get_structure(atoms))

    def inputs(systems: list[Atoms]):
        return [graph(a) for a in systems]

    def loss(given) -> torch.Tensor:
        told = network(given, task="efs")
        return told["e"].square().sum() + sum(f.square().sum() for f in told["f"]) + sum(s.square().sum() for s in told["s"])

    def call(atoms: Atoms) -> None:
        network.eval()
        network.predict_graph(graph(atoms), task="efs")

    return network, call, inputs, loss


PEERS = {
    "painn": (schnetpack, "painn"),
    "schnet": (schnetpack, "schnet"),
    "nequip": (nequip, "default"),
    "nequip-l2": (nequip, "l2"),
    "mace": (mace, "default"),
    "mace-128": (mace, "128"),
    "mace-64": (mace, "64"),
    "m3gnet": (matgl, "m3gnet"),
    "matgl-chgnet": (matgl, "chgnet"),
    "chgnet": (chgnet, ""),
}


def main() -> None:
    """Time one peer on the systems of a file."""
    from ase import Atoms

    make, kind = PEERS[sys.argv[1]]
    given = np.load(sys.argv[2])
    names = sorted({key.split(".")[0] for key in given.files})
    systems = {n: Atoms(given[f"{n}.numbers"], given[f"{n}.positions"], cell=given[f"{n}.cell"], pbc=True) for n in names}
    network, call, inputs, loss = make(kind)
    draw = np.random.default_rng(0)
    result: dict[str, float] = {"parameters": float(sum(p.numel() for p in network.parameters()))}

    def moved(atoms: Atoms) -> Atoms:
        new = atoms.copy()
        new.positions += 0.01 * draw.normal(size=new.positions.shape)
        return new

    for name, atoms in systems.items():
        if not name.startswith("train"):
            result[name] = best_of(lambda atoms=atoms: call(moved(atoms)), 6, 12.0)
    network.train()
    step = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-6)
    cells = [a for n, a in systems.items() if n.startswith("train")]
    ready = inputs(cells)

    def train() -> None:
        step.zero_grad()
        loss(ready).backward()
        step.step()

    if cells:
        result["training step"] = best_of(train, 4, 10.0)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
