"""The tensor product of edge features with harmonics: naica in the edge's frame beside e3nn, the same function, CPU ms on one thread.

    python benchmarks/hamiltonian_products.py            # degree 4, 16 channels of each degree and parity, 2,000 edges

Both map features of all degrees up to L and both parities to the same, with a weight for every path and pair of channels (e3nn's
``FullyConnectedTensorProduct``). e3nn gets harmonics ready-made; naica's time includes frames, rotations into them and back. Numbers of
weights are printed; that the two are one function is a test (``tests/hamiltonian/test_learning.py``). Needs ``pip install e3nn==0.6.0``.
"""

from __future__ import annotations

import argparse
import os

from timing import best_of


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degree", type=int, default=4)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--edges", type=int, default=2000)
    args = parser.parse_args()
    from naica.runtime import threads

    threads(1)
    import torch
    from e3nn import o3

    from naica.nn.so2 import ReducedProduct, frames, turned, wigner

    torch.manual_seed(0)
    degree, channels, edges = args.degree, args.channels, args.edges
    vector = torch.randn(edges, 3)
    features = torch.randn(edges, (degree + 1) ** 2, 2, channels)
    ours = ReducedProduct(degree, channels, channels)
    irreps = o3.Irreps([(channels, (d, p)) for d in range(degree + 1) for p in (1, -1)])
    harmonics = o3.Irreps.spherical_harmonics(degree)
    theirs = o3.FullyConnectedTensorProduct(irreps, harmonics, irreps)
    flat = torch.randn(edges, irreps.dim)
    y = o3.spherical_harmonics(harmonics, vector, normalize=True)

    def naica(train: bool) -> None:
        d = wigner(frames(vector), degree)
        out = turned(ours(turned(features, d)), d, back=True)
        if train:
            out.square().sum().backward()

    def peer(train: bool) -> None:
        out = theirs(flat, y)
        if train:
            out.square().sum().backward()

    print(f"degree {degree}, {channels} channels, {edges} edges; load average {os.getloadavg()[0]:.1f}")
    print(f"weights: e3nn {theirs.weight_numel:,}, naica {ours.weight.numel():,}")
    print(f"{'':22}{'e3nn (ms)':>12}{'naica (ms)':>12}{'ratio':>8}")
    with torch.no_grad():
        a, b = best_of(lambda: peer(False)), best_of(lambda: naica(False))
    print(f"{'forward':22}{1e3 * a:12.1f}{1e3 * b:12.1f}{a / b:8.1f}")
    a, b = best_of(lambda: peer(True)), best_of(lambda: naica(True))
    print(f"{'forward and backward':22}{1e3 * a:12.1f}{1e3 * b:12.1f}{a / b:8.1f}")


if __name__ == "__main__":
    main()
