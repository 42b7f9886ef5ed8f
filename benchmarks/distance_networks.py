"""Training and inference of MEGNet and SchNet: naica beside the plain computation with the same weights, CPU seconds on one thread.

    python benchmarks/distance_networks.py megnet        # 4 Å, as published
    python benchmarks/distance_networks.py schnet        # 5 Å, 128 features, 6 interactions

The peer is the network as its paper writes it: everything that depends on an edge is computed on every edge, its inputs are joined, and
sums over edges are index additions. It gets its batches ready-made; naica's time includes making them. Outputs are compared first. Both
take turns in one process, so that whatever else the machine does slows both; "peer" is measured without naica's runtime tuning.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from math import log

from crystals import sample

BATCH = 64


def plain_megnet(model, batch):
    """MEGNet's features of the system, computed plainly with the weights of naica's model."""
    import torch
    from torch.nn import functional as F

    def ssp(x):
        return F.softplus(x) - log(2.0)

    def stack(dense, x):
        return ssp(dense.second(ssp(dense.first(x))))

    def mean(values, index, n):
        count = torch.bincount(index, minlength=n).clamp(min=1).to(values.dtype)[:, None]
        return values.new_zeros(n, values.shape[1]).index_add(0, index, values) / count

    def phi(network, parts):
        return network.third(ssp(network.second(ssp(network.first(torch.cat(parts, dim=1))))))

    receiver, sender, system = batch["edge_receiver"], batch["edge_sender"], batch["system"]
    of_edge, n, b = system[receiver], len(system), batch.n_systems
    gaussians = torch.exp(-(((batch["edge_length"][:, None] - model.radial.centres) / model.radial.width) ** 2))
    start = (model.embedding(batch["number"]), gaussians, torch.zeros(b, 2))
    v, e, u = (stack(dense, x) for dense, x in zip(model.start, start, strict=True))
    for block in model.blocks:
        came = v, e, u
        if block.dense is not None:
            v, e, u = (stack(dense, x) for dense, x in zip(block.dense, came, strict=True))
        e = phi(block.bonds, (v[receiver], v[sender], e, u[of_edge]))
        v = phi(block.atoms, (mean(e, receiver, n), v, u[system]))
        u = phi(block.state, (mean(e, of_edge, b), mean(v, system, b), u))
        v, e, u = v + came[0], e + came[1], u + came[2]
    return torch.cat([model.read_atoms(v, system, b), model.read_bonds(e, of_edge, b), u], dim=1)


def plain_schnet(model, batch):
    """SchNet's features of the atoms, computed plainly with the weights of naica's model."""
    import torch
    from torch.nn import functional as F

    def ssp(x):
        return F.softplus(x) - log(2.0)

    receiver, sender, length = batch["edge_receiver"], batch["edge_sender"], batch["edge_length"]
    gaussians = torch.exp(-(((length[:, None] - model.radial.centres) / model.radial.width) ** 2))
    cut = 0.5 * (1 + torch.cos(length * torch.pi / model.config.cutoff)) * (length < model.config.cutoff)
    x = model.embedding(batch["number"])
    for layer in model.interactions:
        filters = layer.filter_second(ssp(layer.filter_first(gaussians))) * cut[:, None]
        y = layer.inward(x)[sender] * filters
        v = torch.zeros_like(x).index_add(0, receiver, y)
        x = x + layer.out_second(ssp(layer.out_first(v)))
    return x


def measure(network: str, count: int, repeats: int) -> dict[str, float]:
    """Rates (structures per CPU second) of both in this process, with whatever runtime tuning is on in it."""
    from naica.runtime import threads, tune

    tune()
    threads(1)
    import torch

    from naica.graphs import GraphSet
    from naica.models import backbone
    from naica.nn import Head

    torch.manual_seed(0)
    if network == "megnet":
        model, level, plain = backbone("megnet", cutoff=4.0), "system", plain_megnet
        head = Head(96, (32, 16), pooling="system")
    else:
        model, level, plain = backbone("schnet"), "atom", plain_schnet
        head = Head(128, (64,), pooling="sites")
    whole = torch.nn.ModuleList([model, head])
    graphs = GraphSet.build(sample(count), model.needs)
    rows = graphs.usable.tolist()
    chunks = [rows[k : k + BATCH] for k in range(0, len(rows), BATCH)]
    ready = [graphs.batch(c) for c in chunks]
    targets = [torch.randn(len(c), 1) for c in chunks]
    step = torch.optim.Adam(whole.parameters(), 1e-5)

    def ours(k):
        batch = graphs.batch(chunks[k])
        return head(model(batch), batch)

    def peer(k):
        return head({level: plain(model, ready[k])}, ready[k])

    def train(predict) -> None:
        for k in range(len(chunks)):
            step.zero_grad()
            torch.nn.functional.mse_loss(predict(k), targets[k]).backward()
            step.step()

    def infer(predict) -> None:
        with torch.inference_mode():
            for k in range(len(chunks)):
                predict(k)

    difference = float((ours(0) - peer(0)).detach().abs().max())
    assert difference < 1e-4, f"the two do not compute the same: {difference}"
    best: dict[str, float] = {}
    for _ in range(repeats):
        for what, work in (("train", train), ("infer", infer)):
            for who, predict in (("peer", peer), ("naica", ours)):
                start = time.process_time()
                work(predict)
                best[f"{who} {what}"] = min(best.get(f"{who} {what}", float("inf")), time.process_time() - start)
    sizes = {"structures": len(rows), "atoms": float(graphs.counts.mean()), "edges": len(graphs.senders) / len(rows)}
    return {**sizes, "difference": difference, **{key: len(rows) / seconds for key, seconds in best.items()}}


def main() -> None:
    """Measure in processes with and without the runtime tuning, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("megnet", "schnet"))
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        print(json.dumps(measure(args.network, args.count, args.repeats)))
        return
    off = dict.fromkeys(("NAICA_FAST_MATMUL", "NAICA_MALLOC", "NAICA_PASSIVE_WAIT"), "0")
    results = {}
    for name, extra in (("plain", off), ("tuned", {})):
        command = [sys.executable, __file__, args.network, "--inner", "--count", str(args.count), "--repeats", str(args.repeats)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **extra}
        told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        results[name] = json.loads(told.splitlines()[-1])
    plain, tuned = results["plain"], results["tuned"]
    print(f"{args.network}: {tuned['structures']} crystals, {tuned['atoms']:.1f} atoms and {tuned['edges']:.0f} edges on average")
    print(f"structures per CPU second, one thread; load average {os.getloadavg()[0]:.1f}; outputs differ by {tuned['difference']:.1e}")
    print(f"{'':8}{'peer':>10}{'peer, tuned':>13}{'naica':>10}{'ratio':>8}{'tuned both':>12}")
    for what in ("train", "infer"):
        p, pt, n = plain[f"peer {what}"], tuned[f"peer {what}"], tuned[f"naica {what}"]
        results[f"ratio {what}"] = n / p
        print(f"{what:8}{p:10.0f}{pt:13.0f}{n:10.0f}{n / p:8.2f}{n / pt:12.2f}")
    if args.json:
        with open(args.json, "w") as handle:
            json.dump(results, handle, indent=1)


if __name__ == "__main__":
    main()
