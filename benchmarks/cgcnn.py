"""Training and inference of CGCNN: naica beside the original computation at equal width, in one run, CPU seconds on one thread.

    python benchmarks/cgcnn.py            # naica with its runtime tuning (the peer gets it too in column "peer, tuned")
    python benchmarks/cgcnn.py --json out.json

The peer is the original layer written plainly: `[v_i, v_j, e_ij]` joined on every edge, one linear map, batch norm, split, gate, sum over a
dense (atoms, 12) table of neighbours, pooling by a Python list of atom ranges. It gets its tensors ready-made, Gaussians included; naica's
time includes making the batch and the Gaussians. Both start from the same weights, and their outputs are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from crystals import sample

BATCH = 64


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Best CPU time of one call."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def peer_model(width: int, layers: int, hidden: int):
    """The original network in plain words."""
    import torch
    from torch import nn

    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.full = nn.Linear(2 * width + 41, 2 * width)
            self.norm_edges, self.norm_atoms = nn.BatchNorm1d(2 * width), nn.BatchNorm1d(width)
            self.sigmoid, self.first_softplus, self.second_softplus = nn.Sigmoid(), nn.Softplus(), nn.Softplus()

        def forward(self, atoms, edges, table):
            n, m = table.shape
            joined = torch.cat([atoms.unsqueeze(1).expand(n, m, width), atoms[table, :], edges], dim=2)
            gated = self.full(joined)
            gated = self.norm_edges(gated.view(-1, 2 * width)).view(n, m, 2 * width)
            gate, core = gated.chunk(2, dim=2)
            summed = torch.sum(self.sigmoid(gate) * self.first_softplus(core), dim=1)
            return self.second_softplus(atoms + self.norm_atoms(summed))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Linear(92, width)
            self.convolutions = nn.ModuleList(Convolution() for _ in range(layers))
            self.first, self.out, self.softplus = nn.Linear(width, hidden), nn.Linear(hidden, 1), nn.Softplus()

        def forward(self, features, edges, table, ranges):
            atoms = self.embedding(features)
            for convolution in self.convolutions:
                atoms = convolution(atoms, edges, table)
            pooled = torch.cat([torch.mean(atoms[r], dim=0, keepdim=True) for r in ranges], dim=0)
            return self.out(self.softplus(self.first(self.softplus(pooled))))

    return Network()


def same_weights(peer, backbone, head, features) -> None:
    """Copy the peer's weights into naica's model; the 92 features of each element fold into naica's element table."""
    import torch

    with torch.no_grad():
        backbone.embedding.weight[: len(features)] = peer.embedding(features)
        for theirs, ours in zip(peer.convolutions, backbone.convolutions, strict=True):
            ours.linear.load_state_dict(theirs.full.state_dict())
            ours.norm_edges.load_state_dict(theirs.norm_edges.state_dict())
            ours.norm_atoms.load_state_dict(theirs.norm_atoms.state_dict())
        linear = [m for m in head.network if isinstance(m, torch.nn.Linear)]
        linear[0].load_state_dict(peer.first.state_dict())
        linear[1].load_state_dict(peer.out.state_dict())


def measure(count: int, repeats: int) -> dict[str, float]:
    """Rates (structures per CPU second) of both in this process, with whatever runtime tuning is on in it."""
    from naica.graphs import GraphSet
    from naica.models import backbone
    from naica.nn import Head
    from naica.runtime import threads, tune

    tuning = tune()
    threads(1)
    import torch

    torch.manual_seed(0)
    graphs = GraphSet.build(sample(count))
    rows = [r for r in graphs.usable.tolist() if (graphs.batch([r]).degree or 0) == 12]
    chunks = [rows[k : k + BATCH] for k in range(0, len(rows), BATCH)]
    features = torch.rand(104, 92).round()
    ready = [_peer_inputs(graphs.batch(c), features) for c in chunks]
    targets = [torch.randn(len(c), 1) for c in chunks]
    peer, model, head = peer_model(64, 3, 128), backbone("cgcnn"), Head(64)
    same_weights(peer, model, head, features)
    ours = torch.nn.ModuleList([model, head])
    peer_step = torch.optim.SGD(peer.parameters(), 1e-4, momentum=0.9)
    our_step = torch.optim.SGD(ours.parameters(), 1e-4, momentum=0.9)

    def train(step, predict) -> None:
        for k in range(len(chunks)):
            step.zero_grad()
            torch.nn.functional.mse_loss(predict(k), targets[k]).backward()
            step.step()

    def ours_predict(k):
        batch = graphs.batch(chunks[k])
        return head(model(batch), batch)

    def infer(predict) -> None:
        with torch.inference_mode():
            for k in range(len(chunks)):
                predict(k)

    difference = float((peer(*ready[0]) - ours_predict(0)).detach().abs().max())
    assert difference < 1e-4, f"the two do not compute the same: {difference}"
    n = len(rows)
    rates = {"structures": n, "atoms": float(graphs.counts.mean()), "difference": difference}
    rates["peer train"] = n / seconds(lambda: train(peer_step, lambda k: peer(*ready[k])), repeats)
    rates["naica train"] = n / seconds(lambda: train(our_step, ours_predict), repeats)
    peer.eval(), ours.eval()
    rates["peer infer"] = n / seconds(lambda: infer(lambda k: peer(*ready[k])), repeats)
    rates["naica infer"] = n / seconds(lambda: infer(ours_predict), repeats)
    rates["tuning"] = f"matmul {tuning.matmul}; malloc {tuning.malloc}; waiting {tuning.waiting}"
    return rates


def _peer_inputs(batch, features):
    import torch

    n = len(batch["number"])
    centres = torch.linspace(0, 8, 41)
    edges = torch.exp(-((batch["edge_length"].view(n, 12, 1) - centres) ** 2) / 0.2**2)
    ranges = torch.arange(n).split(batch["n_atoms"].tolist())
    return features[batch["number"]], edges, batch["edge_sender"].view(n, 12), ranges


def main() -> None:
    """Measure twice, in processes with and without the runtime tuning, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        print(json.dumps(measure(args.count, args.repeats)))
        return
    off = dict.fromkeys(("NAICA_FAST_MATMUL", "NAICA_MALLOC", "NAICA_PASSIVE_WAIT"), "0")
    results = {}
    for name, extra in (("plain", off), ("tuned", {})):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **extra}
        command = [sys.executable, __file__, "--inner", "--count", str(args.count), "--repeats", str(args.repeats)]
        results[name] = json.loads(
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    plain, tuned = results["plain"], results["tuned"]
    print(f"{plain['structures']} crystals, {plain['atoms']:.1f} atoms on average; structures per CPU second, one thread")
    print(f"load average {os.getloadavg()[0]:.1f}; largest difference of outputs {plain['difference']:.1e}; tuned: {tuned['tuning']}")
    print(f"{'':8}{'peer':>10}{'peer, tuned':>13}{'naica':>10}{'naica, untuned':>16}{'ratio':>8}{'untuned both':>14}{'tuned both':>12}")
    for what in ("train", "infer"):
        p, pt, n, nu = plain[f"peer {what}"], tuned[f"peer {what}"], tuned[f"naica {what}"], plain[f"naica {what}"]
        results[f"ratio {what}"] = n / p
        print(f"{what:8}{p:10.0f}{pt:13.0f}{n:10.0f}{nu:16.0f}{n / p:8.2f}{nu / p:14.2f}{n / pt:12.2f}")
    if args.json:
        with open(args.json, "w") as handle:
            json.dump(results, handle, indent=1)


if __name__ == "__main__":
    main()
