"""Do error bars and intervals keep their promise on rows nobody looked at? A deep ensemble on perovskites, three ways to part the rows.

    python benchmarks/uncertainty.py --out runs/uncertainty            # trains; goes on where it stopped
    python benchmarks/uncertainty.py --out runs/uncertainty --report   # table and picture only

`random` and `composition` splits draw validation and test rows from the same crowd, so conformal intervals must cover what they promise.
`element` tests on an element no network saw: rows are not exchangeable any more, and the guarantee is void. That is shown, not hidden.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

SET, COLUMN, ROWS = "perovskites", "e_form", 4000
WAYS = ("random", "composition", "element")
ELEMENT = "Ta"
LEVELS = (0.68, 0.90, 0.95)


def parted(table, way):
    """Training, validation and test rows."""
    from naica.data.splits import Split, split

    if way != "element":
        return split(table, by=way, fractions=(0.7, 0.15, 0.15), seed=0)
    from naica.structure.elements import element

    number = element(ELEMENT).number
    held = np.array([number in crystal.numbers for crystal in table])
    rest = split(table, by="composition", fractions=(0.8, 0.2, 0.0), seed=0)
    return Split(rest.train[~held[rest.train]], rest.val[~held[rest.val]], np.flatnonzero(held))


def one(way, table, members, seconds, out):
    """Train and judge: labels, predictions, error bars and interval ends of the test rows."""
    from naica.training import TrainConfig, train

    parts = parted(table, way)
    config = TrainConfig(
        "cgcnn", {"atoms": "described"}, loss="l1", ema=0.99, epochs=200, members=members, max_cpu_seconds=seconds, tensorboard=False
    )
    model = train(table, COLUMN, config, parts, out / way, progress=False)
    found = model.predict(table.take(parts.test))
    ends = {str(level): [end.tolist() for end in found.interval(level)] for level in LEVELS}
    spread = np.std(found.members, axis=0, ddof=1)
    actual = np.asarray(table.column(COLUMN), float)[parts.test]
    plain = {"actual": actual.tolist(), "value": found.value.tolist(), "sigma": found.sigma.tolist(), "spread": spread.tolist()}
    return {**plain, "ends": ends, "rows": [len(parts.train), len(parts.val), len(parts.test)]}


def report(out):
    """Coverage with intervals, ENCE before and after calibration, and the picture."""
    import matplotlib.pyplot as plt

    from naica.insight.intervals import clopper_pearson
    from naica.insight.uncertainty import calibration_curve, coverage, ence

    figure, axes = plt.subplots(figsize=(4.2, 4.0), constrained_layout=True)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="honest")
    for k, way in enumerate(w for w in WAYS if (out / f"{w}.json").exists()):
        run = json.loads((out / f"{way}.json").read_text())
        actual, value, sigma, spread = (np.array(run[name]) for name in ("actual", "value", "sigma", "spread"))
        train, val, test = run["rows"]
        print(f"\n{way}: {train} training, {val} validation, {test} test rows; MAE {np.abs(actual - value).mean():.4f} eV/atom")
        before, after = ence(actual, value, np.maximum(spread, 1e-6)), ence(actual, value, sigma)
        print(f"  ENCE: {before:.2f} of the members' spread, {after:.2f} calibrated")
        for level, times in zip(LEVELS, (0.9945, 1.6449, 1.96), strict=True):
            low, high = (np.array(end) for end in run["ends"][str(level)])
            inside = int(((actual >= low) & (actual <= high)).sum())
            bounds = clopper_pearson(inside, test)
            gauss = coverage(actual, value, sigma, times)
            print(f"  {level:.0%}: conformal {inside / test:.1%} ({bounds.low:.1%} to {bounds.high:.1%}), Gaussian with σ {gauss:.1%}")
        promised, observed = calibration_curve(actual, value, sigma)
        axes.plot(promised, observed, "o-", color=f"C{k}", markersize=3, linewidth=1, label=f"{way}, σ")
        shares = [((actual >= np.array(run["ends"][str(p)][0])) & (actual <= np.array(run["ends"][str(p)][1]))).mean() for p in LEVELS]
        axes.plot(LEVELS, shares, "s", color=f"C{k}", markersize=6, markerfacecolor="none", label=f"{way}, conformal")
    axes.set(xlabel="promised share inside", ylabel="observed share inside", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(out / "uncertainty.png", dpi=160)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/uncertainty"))
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="CPU seconds of each member")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if not asked.report:
        from naica.data.registry import load_set

        table = load_set(SET)
        table = table.take(np.random.default_rng(0).permutation(len(table))[:ROWS])
        for way in WAYS:
            path = asked.out / f"{way}.json"
            if not path.exists():
                found = one(way, table, asked.members, asked.seconds, asked.out)
                path.with_suffix(".tmp").write_text(json.dumps(found))
                path.with_suffix(".tmp").rename(path)
    report(asked.out)


if __name__ == "__main__":
    main()
