"""Property networks against the peers that have them: training and inference, structures per CPU second, one thread, in one run.

    python benchmarks/property_models.py --peer-python PEERS/bin/python      # ratios
    python benchmarks/property_models.py                                     # naica alone, and how to make PEERS

512 crystals of 5 to 64 atoms, rattled by 0.02 Å, in batches of 64; width, layers, cut-off and batch are the same on both sides, weights are
random, the loss is a squared error, the optimiser Adam. Both sides get the same edges. The peer gets its batches ready-made (for CGCNN the
Gaussians too), naica's time includes making them. "peer, tuned" has naica's runtime tuning switched on in the peer's process.
The peers run in an interpreter of their own: they need other versions of shared packages than naica.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
VENV = """The peers need a virtual environment of their own, for example:
    python -m venv peers
    peers/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    echo torch==2.13.0 > peers.txt
    peers/bin/pip install -c peers.txt matgl==4.1.2 torch_geometric==2.8.1 schnetpack==2.0.4
then: python benchmarks/property_models.py --peer-python peers/bin/python"""
# naica's network and settings, head; per peer: who, what it is
NETWORKS: dict[str, dict[str, Any]] = {
    "cgcnn": {"config": {}, "hidden": (128,), "pooling": "mean", "peers": {"pyg-cgconv": "PyG CGConv, 64 wide, 3 layers, 12 neighbours"}},
    "megnet": {
        "config": {"cutoff": 4.0, "passes": 2},
        "hidden": (32, 16),
        "pooling": "system",
        "peers": {"matgl-megnet": "matgl MEGNet, 3 blocks, 4 Å, 100 Gaussians"},
    },
    "schnet": {
        "config": {"width": 128, "interactions": 6, "cutoff": 5.0, "gaussians": 20},
        "hidden": (64,),
        "pooling": "sites",
        "peers": {"schnetpack": "schnetpack SchNet, 128 wide, 6 layers, 5 Å, 20 Gaussians", "pyg-schnet": "PyG SchNet, the same"},
    },
}


def crystals(count: int, seed: int = 0) -> Any:
    """Half perovskites as they are, a fifth as supercells of 10 and 20 atoms, a fifth prototypes, the rest supercells of up to 64 atoms."""
    from naica.data import CrystalTable
    from naica.data.registry import load_set
    from naica.structure import Crystal

    random = np.random.default_rng(seed)
    single = list(load_set("perovskites").take(random.choice(16107, round(0.72 * count), replace=False)))
    half = round(0.5 * count)
    cells = [c.supercell((2, 1, 1) if k % 2 else (2, 2, 1)) for k, c in enumerate(single[half:])]
    pool = load_set("mp_formation")
    sizes = pool.flat()[0]
    small = list(pool.take(random.choice(np.flatnonzero(sizes <= 12), count - len(single), replace=False)))
    few = round(0.06 * count)
    large = [c.supercell((2, 2, 2) if len(c) <= 8 else (2, 2, 1)) for c in small[:few]]
    found = [*single[:half], *cells, *small[few:], *large]
    rattled = [Crystal(c.numbers, c.positions + random.normal(0, 0.02, c.positions.shape), c.cell, c.pbc) for c in found]
    return CrystalTable.from_crystals([rattled[k] for k in random.permutation(len(rattled))])


def best_rate(work: Callable[[int], object], steps: int, count: int, repeats: int) -> float:
    """Structures per CPU second over all steps, each at its best of some repeats after a first one: other work slows single steps."""
    best = [float("inf")] * steps
    for k in range(steps):
        work(k)
    for _ in range(repeats):
        for k in range(steps):
            start = time.process_time()
            work(k)
            best[k] = min(best[k], time.process_time() - start)
    return count / sum(best)


def measure(model: Any, inputs: Callable[[int], Any], steps: int, targets: list[Any], count: int, repeats: int) -> dict[str, float]:
    """Rates of training and inference of `model(inputs(k))` over all steps."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def train(k: int) -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs(k)).reshape(-1), targets[k]).backward()
        optimizer.step()

    def infer(k: int) -> None:
        with torch.inference_mode():
            model(inputs(k))

    rates = {"train": best_rate(train, steps, count, repeats)}
    model.eval()
    rates["infer"] = best_rate(infer, steps, count, repeats)
    return {**rates, "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}


# --- naica -----------------------------------------------------------------------------------------------------------------------
def naica_side(name: str, folder: Path, repeats: int) -> dict[str, float]:
    """Naica's network; leaves the batches in the folder for the peers."""
    from naica.data import CrystalTable
    from naica.graphs import GraphSet
    from naica.models import backbone
    from naica.nn import Head
    from naica.runtime import threads, tune

    tune()
    threads(1)
    import torch

    settings = NETWORKS[name]
    torch.manual_seed(0)
    body = backbone(name, **settings["config"])
    width = body.widths["system" if settings["pooling"] == "system" else "atom"]
    head = Head(width, settings["hidden"], 1, settings["pooling"])

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, head

        def forward(self, batch: Any) -> Any:
            return self.head(self.body(batch), batch)

    table = CrystalTable.read(folder / "crystals.parquet")
    graphs = GraphSet.build(table, body.needs)
    rows = graphs.usable
    chunks = [rows[k : k + BATCH] for k in range(0, len(rows), BATCH)]
    for k, chunk in enumerate(chunks):
        batch = graphs.batch(chunk)
        keys = ("number", "system", "n_atoms", "edge_receiver", "edge_sender", "edge_vector", "edge_length")
        positions = np.concatenate([table[int(row)].positions for row in chunk])
        np.savez(folder / f"{name}-{k}.npz", positions=positions, **{key: batch[key].numpy() for key in keys})
    targets = [torch.randn(len(c)) for c in chunks]
    rates = measure(Whole(), lambda k: graphs.batch(chunks[k]), len(chunks), targets, len(rows), repeats)
    return {**rates, "structures": len(rows), "atoms": float(graphs.counts.mean()), "edges": len(graphs.senders) / len(graphs.numbers)}


# --- the peers, in their own interpreter -------------------------------------------------------------------------------------------
def peer_side(peer: str, name: str, folder: Path, repeats: int, tuned: bool) -> dict[str, float]:
    """A peer's network on the same batches, ready-made."""
    if tuned:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
        from naica.runtime import tune

        tune()
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    files = sorted(folder.glob(f"{name}-*.npz"), key=lambda p: int(p.stem.split("-")[-1]))
    raw = [{key: torch.from_numpy(value) for key, value in np.load(path).items()} for path in files]
    build = {"pyg-cgconv": _cgconv, "matgl-megnet": _matgl, "schnetpack": _schnetpack, "pyg-schnet": _pyg_schnet}[peer]
    model, inputs = build(raw)
    targets = [torch.randn(len(batch["n_atoms"])) for batch in raw]
    return measure(model, lambda k: inputs[k], len(raw), targets, sum(len(t) for t in targets), repeats)


def _cgconv(raw: list[dict[str, Any]]) -> tuple[Any, list[Any]]:
    import torch
    from torch_geometric.nn import CGConv, global_mean_pool

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Linear(92, 64)
            self.layers = torch.nn.ModuleList(CGConv(64, 41, aggr="add", batch_norm=True) for _ in range(3))
            self.head = torch.nn.Sequential(torch.nn.Softplus(), torch.nn.Linear(64, 128), torch.nn.Softplus(), torch.nn.Linear(128, 1))

        def forward(self, given: tuple[Any, ...]) -> Any:
            features, edges, attributes, system, count = given
            x = self.embedding(features)
            for layer in self.layers:
                x = layer(x, edges, attributes)
            return self.head(global_mean_pool(x, system, count))

    table = torch.rand(104, 92).round()
    centres = torch.linspace(0, 8, 41)
    inputs = [
        (
            table[b["number"]],
            torch.stack([b["edge_sender"], b["edge_receiver"]]),
            torch.exp(-((b["edge_length"][:, None] - centres) ** 2) / 0.2**2),
            b["system"],
            len(b["n_atoms"]),
        )
        for b in raw
    ]
    return Network(), inputs


def _matgl(raw: list[dict[str, Any]]) -> tuple[Any, list[Any]]:
    import torch
    from matgl.models import MEGNet
    from torch_geometric.data import Data

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MEGNet(cutoff=4.0)
            self.kinds = len(self.inner.element_types)

        def forward(self, given: tuple[Any, Any]) -> Any:
            return self.inner(*given)

    network, inputs = Network(), []
    for b in raw:
        edges = torch.stack([b["edge_sender"], b["edge_receiver"]])
        positions = b["positions"].float()
        shift = -b["edge_vector"] - (positions[edges[1]] - positions[edges[0]])
        # elements beyond the peer's table: any other row of it costs the same
        kinds = (b["number"] - 1) % network.kinds
        data = Data(node_type=kinds, pos=positions, edge_index=edges, pbc_offshift=shift, batch=b["system"])
        data.num_graphs = len(b["n_atoms"])
        inputs.append((data, torch.zeros(len(b["n_atoms"]), 2)))
    return network, inputs


def _schnetpack(raw: list[dict[str, Any]]) -> tuple[Any, list[Any]]:
    import typing

    import torch
    from torch.utils.data import dataloader

    # this version imports a name that torch no longer has
    if not hasattr(dataloader, "T_co"):
        dataloader.T_co = typing.TypeVar("T_co", covariant=True)
    from schnetpack import properties
    from schnetpack.atomistic import Atomwise
    from schnetpack.nn import CosineCutoff, GaussianRBF
    from schnetpack.representation import SchNet

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = SchNet(128, 6, GaussianRBF(20, 5.0), CosineCutoff(5.0))
            self.out = Atomwise(128, aggregation_mode="avg", output_key="y")

        def forward(self, given: dict[str, Any]) -> Any:
            return self.out(self.body(dict(given)))["y"]

    names = {
        properties.Z: "number",
        properties.idx_i: "edge_receiver",
        properties.idx_j: "edge_sender",
        properties.Rij: "edge_vector",
        properties.idx_m: "system",
        properties.n_atoms: "n_atoms",
    }
    return Network(), [{theirs: b[ours] for theirs, ours in names.items()} for b in raw]


def _pyg_schnet(raw: list[dict[str, Any]]) -> tuple[Any, list[Any]]:
    import torch
    from torch_geometric.nn import SchNet

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # its own search for edges needs a package that is not on the registry; it takes ours
            self.inner = SchNet(128, 128, 6, 20, 5.0, interaction_graph=lambda *_: self.edges, readout="mean")
            self.edges: Any = None

        def forward(self, given: tuple[Any, ...]) -> Any:
            number, positions, system, self.edges = given
            return self.inner(number.clamp(max=99), positions, system)

    inputs = [
        (b["number"], b["positions"].float(), b["system"], (torch.stack([b["edge_sender"], b["edge_receiver"]]), b["edge_length"]))
        for b in raw
    ]
    return Network(), inputs


# --- the run ------------------------------------------------------------------------------------------------------------------------
def _inner(python: str, arguments: list[str]) -> dict[str, float] | str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([python, __file__, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with code {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure each network and its peers in turn, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter that has the peers")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--inner", nargs=3, metavar=("WHO", "NETWORK", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--tuned", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        who, name, folder = args.inner
        mine = who == "naica"
        found = naica_side(name, Path(folder), args.repeats) if mine else peer_side(who, name, Path(folder), args.repeats, args.tuned)
        print(json.dumps(found))
        return
    results: dict[str, Any] = {"load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        table = crystals(args.count)
        table.write(Path(folder) / "crystals.parquet")
        for name in args.networks:
            results[name] = _network(name, folder, args)
    print(f"load average at the start {results['load']:.1f}; structures per CPU second, one thread")
    if args.peer_python is None:
        print(VENV)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))


def _network(name: str, folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """One network and its peers, one after the other."""
    repeats = ["--repeats", str(args.repeats)]
    found: dict[str, Any] = {"naica": _inner(sys.executable, ["--inner", "naica", name, folder, *repeats])}
    ours = found["naica"]
    if isinstance(ours, str):
        print(f"{name}: naica failed: {ours}")
        return found
    print(f"{name} {NETWORKS[name]['config']}: {ours['structures']} crystals, {ours['atoms']:.1f} atoms, {ours['edges']:.0f} edges/atom")
    print(f"  {'naica':16}{ours['parameters']:>10,} parameters   train {ours['train']:7.0f}   infer {ours['infer']:7.0f}")
    for peer, what in NETWORKS[name]["peers"].items() if args.peer_python else ():
        for label, extra in ((peer, []), (f"{peer}, tuned", ["--tuned"])):
            theirs = found[label] = _inner(args.peer_python, ["--inner", peer, name, folder, *repeats, *extra])
            if isinstance(theirs, str):
                print(f"  {label}: failed: {theirs}")
                continue
            ratios = "   ".join(f"{k} {theirs[k]:7.0f} (naica {ours[k] / theirs[k]:.2f} x)" for k in ("train", "infer"))
            print(f"  {label:24}{theirs['parameters']:>10,.0f} parameters   {ratios}   {what}")
    return found


if __name__ == "__main__":
    main()
