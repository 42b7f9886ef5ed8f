"""How often the error bars of diffusivities hold the truth: random walks whose diffusivity is known, and the real AIMD trajectories.

    python benchmarks/transport.py [--walks 200] [--seed 1]

Five kinds of walk: free, with a vibration on top, in a cage that relaxes within 20 frames, in pairs that move together, by rare hops.
Beside ours stand a plain straight-line fit with the error that least squares claims, and the rule of pymatgen's DiffusionAnalyzer.
"""

from __future__ import annotations

import argparse

import numpy as np

from naica.data.registry import dataset
from naica.potential import transport
from naica.potential.walk import Walk, read_walk

STEP, TRUE, FRAMES, ATOMS = 50.0, 1e-3, 600, 60


def walk_of(kind: str, rng: np.random.Generator) -> Walk:
    """A walk of lithium among rattling oxygen; Å, fs."""
    width = np.sqrt(2 * TRUE * STEP)
    if kind == "pairs":
        path = np.repeat(np.cumsum(rng.normal(size=(FRAMES, ATOMS // 2, 3)) * width, axis=0), 2, axis=1)
    elif kind == "hops":
        share = 0.02
        away = rng.normal(size=(FRAMES, ATOMS, 3))
        away *= np.sqrt(6 * TRUE * STEP / share) / np.linalg.norm(away, axis=2, keepdims=True)
        path = np.cumsum((rng.random((FRAMES, ATOMS)) < share)[:, :, None] * away, axis=0)
    else:
        path = np.cumsum(rng.normal(size=(FRAMES, ATOMS, 3)) * width, axis=0)
    if kind == "vibration":
        path = path + rng.normal(size=path.shape) * 0.4
    if kind == "cage":
        keep, rattle = np.exp(-1 / 20), np.zeros_like(path)
        for k in range(1, FRAMES):
            rattle[k] = keep * rattle[k - 1] + np.sqrt(1 - keep**2) * rng.normal(size=path.shape[1:])
        path = path + rattle
    positions = np.concatenate([path, rng.normal(size=(FRAMES, 20, 3)) * 0.1], axis=1)
    cell = np.broadcast_to(np.eye(3) * 20.0, (FRAMES, 3, 3)).copy()
    return Walk(np.array([3] * ATOMS + [8] * 20), positions, cell, np.ones(3, dtype=bool), STEP, 600.0)


def plain(walk: Walk) -> tuple[float, float]:
    """Diffusivity (Å²/fs) and claimed error of an unweighted line through all lags from a tenth to a half of the walk."""
    lags = np.arange(len(walk) // 10, len(walk) // 2)
    mean = transport.squared(transport.paths(walk, "Li"), lags).sum(2).mean(1)
    (slope, _), covariance = np.polyfit(lags * STEP, mean, 1, cov=True)
    return float(slope / 6), float(np.sqrt(covariance[0, 0]) / 6)


def coverage(walks: int, seed: int) -> None:
    """Print, for each kind, coverage of 68 and 95 % intervals and the root mean square error of each estimate."""
    print("kind        ours 68 %  95 %   rms error  claimed | plain line 68 %  95 %   rms error | pymatgen's rule: rms error")
    for kind in ("free", "vibration", "cage", "pairs", "hops"):
        rng = np.random.default_rng(seed)
        rows = []
        for _ in range(walks):
            walk = walk_of(kind, rng)
            found = transport.diffusion(walk, "Li").tracer * (1 / transport.CM2_PER_S)
            line, claimed = plain(walk)
            rows.append((found.value, found.sigma, line, claimed, transport.analyser_fit(walk, "Li") / transport.CM2_PER_S))
        value, sigma, line, claimed, rule = np.array(rows).T
        ours, theirs = np.abs(value - TRUE) / sigma, np.abs(line - TRUE) / claimed
        print(
            f"{kind:<10} {np.mean(ours < 1):9.0%} {np.mean(ours < 1.96):6.0%} {rms(value):10.1%} {sigma.mean() / TRUE:8.1%}  |"
            f"{np.mean(theirs < 1):13.0%} {np.mean(theirs < 1.96):6.0%} {rms(line):10.1%}  |{rms(rule):12.1%}"
        )


def rms(values: np.ndarray) -> float:
    """Relative root mean square error."""
    return float(np.sqrt(np.mean((values / TRUE - 1) ** 2)))


def argyrodites() -> None:
    """Print the diffusivities of the six real trajectories by the reference rule, by pymatgen's and by ours."""
    print("\nreal trajectories, 1e-5 cm²/s at 500 K: reference rule, pymatgen's rule, ours, collective")
    for halide in ("Cl", "I"):
        for disorder in (0, 50, 100):
            walk = read_walk(dataset("li_ion_md").path(f"li_ion_md/Li6PS5{halide}_disorder{disorder}_run1.npz"), temperature=500)
            found = transport.diffusion(walk, "Li")
            rule = transport.line_fit(walk, "Li", walk.duration / 8, walk.duration / 2)
            print(
                f"Li6PS5{halide:<2} {disorder:>3} %  {rule * 1e5:5.2f}  {transport.analyser_fit(walk, 'Li') * 1e5:5.2f}  "
                f"{found.tracer.value * 1e5:5.2f} ± {found.tracer.sigma * 1e5:.2f}  "
                f"{found.collective.value * 1e5:5.2f} ± {found.collective.sigma * 1e5:.2f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=200, help="random walks of each kind")
    parser.add_argument("--seed", type=int, default=1, help="of the walks; 0 was looked at while the fit was made")
    args = parser.parse_args()
    coverage(args.walks, args.seed)
    if dataset("li_ion_md").present:
        argyrodites()
