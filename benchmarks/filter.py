"""The filter after the fact: what each cut loses, how true its probabilities are, and what relaxing with a potential is worth.

    python benchmarks/filter.py perovskites --out runs/filter            # cuts and calibration on 16,107 known perovskites
    python benchmarks/filter.py wbm --out runs/filter                    # judged as proposed, and relaxed first

A killed run goes on: same command.

perovskites: an ensemble learns from 5 % of the rows; every other row takes the quick look and the full look, so the recall of each cut is
known at any limit. Probabilities are read as they are, and by 25, 50, 100, … results drawn from the best-looking rows, as a campaign would
have them.

wbm: the set has relaxed structures only, so candidates are made the way WBM itself was made: a crystal of Materials Project with the same
prototype (space group, Wyckoff letters) and another formula, its elements replaced, its volume guessed (`discover.volume`). The truth is
that of benchmarks/replays.py: WBM's formation energies against the hull heights of the reference sets, for rows of elements that no energy
correction touches, so that all levels of theory agree.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from naica.data.registry import load_set
from naica.discover.config import Filter
from naica.discover.cuts import cuts, fates_of, whole
from naica.discover.filter import Scores, cascade
from naica.discover.judge import LabelJudge
from naica.discover.reliability import AS_PREDICTED, Past, recalibrate, scores_of
from naica.insight.intervals import wilson
from naica.structure import Crystal

sys.path.insert(0, str(Path(__file__).parent))
from replays import CORRECTED, reference_hull, uncorrected


# --- perovskites -------------------------------------------------------------------------------------------------------------------
def perovskites(args: argparse.Namespace) -> dict[str, Any]:
    """Recall of each cut over limits, and calibration by results."""
    from naica.data import CrystalTable
    from naica.training.learner import Trainer
    from naica.training.zoo import load

    table = load_set("perovskites")
    actual = np.asarray(table.column("e_form"), dtype=float)
    order = np.random.default_rng(args.seed).permutation(len(table))
    known_rows = round(0.05 * len(table))
    start, rest = order[:known_rows], np.sort(order[known_rows:][: args.rows])
    place = args.out / f"perovskites-{args.seed}"
    if not (place / "model").exists():
        known: CrystalTable = table.take(np.sort(start))
        Trainer(members=4, seed=args.seed, visits=args.visits).fit(known, "e_form", 1, place)
    model, judge = load(place / "model"), LabelJudge(0.2)
    seen = place / "scores.npz"
    if not seen.exists():
        crystals, formulas = list(table.take(rest)), table.take(rest).formulas
        everything = Filter(quick_limit=100.0, limit=100.0, volumes=1)
        scores = cascade(model, crystals, formulas, judge, everything)
        np.savez(seen, **scores.__dict__)
    scores = Scores(**np.load(seen))
    truth, stable = actual[rest], actual[rest] <= 0.2
    found: dict[str, Any] = {"candidates": len(rest), "stable": int(stable.sum()), "members": len(model.members), "cuts": []}
    for quick_limit in (0.1, 0.25, 0.5, 1.0):
        for limit in (0.0, 0.1, 0.2, 0.4):
            config = Filter(quick_limit=quick_limit, limit=limit, volumes=1)
            full = np.where(scores.quick <= 0.2 + quick_limit, scores.distance, np.nan)
            fates, names = fates_of(scores.quick, full, None, 0.2, config)
            parts, both = cuts(fates, stable, names), whole(fates, stable, names)
            looks = 1 + parts[0].kept / parts[0].met * len(model.members)
            found["cuts"].append(
                {"quick_limit": quick_limit, "limit": limit, "passes_per_candidate": looks, "passed": both.kept,
                 "recall": {c.name: c.recall.to_dict() for c in (*parts, both)}, "precision": wilson(both.stable_kept, both.kept).to_dict()}
            )  # fmt: skip
    found["calibration"] = [_calibration(scores, truth, stable, n, args.seed) for n in (0, 25, 50, 100, 200, 400)]
    return found


def _calibration(scores: Scores, truth: np.ndarray, stable: np.ndarray, n: int, seed: int) -> dict[str, Any]:
    """Predictions of the 2,000 best-looking rows, read after n results drawn from among them, judged on those not drawn."""
    best = np.argsort(scores.distance)[:2000]
    drawn = np.random.default_rng(seed).permutation(best)
    past = _past(scores, truth, drawn[:n])
    reading = recalibrate(past, 0.2, 2) if n else AS_PREDICTED
    left = drawn[400:]
    told = scores_of(_past(scores, truth, left), [reading] * len(left), stable[left], 0.2)
    return {"results": n, "shift": reading.shift, "scale": reading.scale, "mapped": bool(reading.knots), **(told or {})}


def _reread(scores: Scores, truth: np.ndarray, stable: np.ndarray, n: int, seed: int) -> dict[str, Any]:
    """All predictions, read after n results drawn from among the better half, judged on rows not drawn; means over 20 draws."""
    best = np.argsort(scores.distance)[: len(truth) // 2]
    found = []
    for draw in range(20):
        drawn = np.random.default_rng(1000 * seed + draw).permutation(best)[:100]
        reading = recalibrate(_past(scores, truth, drawn[:n]), 0.0, 2) if n else AS_PREDICTED
        left = np.setdiff1d(np.arange(len(truth)), drawn)
        told = scores_of(_past(scores, truth, left), [reading] * len(left), stable[left], 0.0)
        assert told is not None
        found.append([told[k] for k in ("brier", "calibration_error", "coverage_1", "coverage_2")] + [reading.shift, reading.scale])
    names = ("brier", "calibration_error", "coverage_1", "coverage_2", "shift", "scale")
    return {"results": n, **dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))}


def _past(scores: Scores, truth: np.ndarray, rows: np.ndarray) -> Past:
    return Past(scores.value[rows], scores.sigma[rows], scores.distance[rows], truth[rows], np.ones(len(rows), dtype=np.int64))


# --- WBM ------------------------------------------------------------------------------------------------------------------------------
def wbm(args: argparse.Namespace) -> dict[str, Any]:
    """F1, precision, recall and error of judges on WBM compounds as proposed, and after relaxing."""
    from naica.discover.ledger import Ledger
    from naica.discover.relaxed_look import RelaxedLook, judged_again, translation
    from naica.training.ensemble import of_any

    config = Filter(
        quick_limit=100.0, limit=0.0, volumes=args.volumes, relax_with=args.potential, relax_steps=args.steps, relax_fmax=args.fmax
    )
    table = load_set("wbm_972")
    truth_of = dict(zip(table.ids, np.asarray(table.column("e_form_corrected"), dtype=float), strict=True))
    judge, known = _judge(), _teachers()
    place = args.out / "wbm"
    made = _proposed(table, args.sample, args.seed, place)
    ids, crystals = list(made), list(made.values())
    formulas = [c.formula for c in crystals]
    truth = np.array([truth_of[i] for i in ids])
    above = judge.distance(formulas, truth)
    model = of_any("formation-energy")
    teachers = known.take(np.random.default_rng(args.seed).permutation(len(known))[: args.teachers])
    scores = cascade(model, crystals, formulas, judge, config)
    ledger = Ledger(place)
    look = RelaxedLook(ledger, config)
    began = time.process_time()
    starts = [c.scaled(v) for c, v in zip(crystals, scores.volume, strict=True)]
    guesses = dict(enumerate(look._relaxed(ids, starts, lambda d, t: print(f"  relaxed {d} of {t}", flush=True))))
    cost = time.process_time() - began
    taught = look._relaxed(
        [f"mp-{i}" for i in teachers.ids], list(teachers), lambda d, t: print(f"  teachers {d} of {t}", flush=True)
    )  # fmt: skip
    good = [k for k, g in enumerate(taught) if g.usable]
    words = translation(
        [taught[k].crystal for k in good], [taught[k].energy for k in good], np.asarray(teachers.column("e_form"), dtype=float)[good]
    )
    relaxed = judged_again(scores, guesses, model, formulas, judge)
    both = judged_again(scores, guesses, model, formulas, judge, words)
    alone = np.array([words(g.crystal, g.energy) if words and g.usable else np.nan for g in guesses.values()], dtype=float)
    told = judge.distance(formulas, alone)
    final = {i: c for i, c in zip(table.ids, table, strict=True) if i in made}
    ideal = judge.distance(formulas, np.asarray(model.predict([final[i] for i in ids]).value))
    ledger.close()
    seconds = [g.seconds for g in guesses.values()]
    return {
        "candidates": len(ids),
        "stable": int((above <= 0).sum()),
        "volume_error": {
            "as proposed": _volume_error(crystals, [final[i] for i in ids]),
            "after the scan": _volume_error(starts, [final[i] for i in ids]),
            "relaxed": _volume_error([g.crystal or c for g, c in zip(guesses.values(), starts, strict=True)], [final[i] for i in ids]),
        },
        "status": {s: sum(g.status == s for g in guesses.values()) for s in ("converged", "not converged", "failed")},
        "steps_mean": float(np.mean([g.steps for g in guesses.values()])),
        "cpu_seconds_per_relaxation": cost / len(ids) if cost > 1 else float(np.mean(seconds)),
        "translation_error": words.error if words else None,
        "calibration": {
            name: [_reread(told_, truth, above <= 0, n, args.seed) for n in (0, 25, 50, 100)]
            for name, told_ in {"as proposed": scores, "relaxed": relaxed, "both": both}.items()
        },
        "judges": {
            "ensemble, as proposed": _scored(scores.distance, above),
            f"ensemble, relaxed by {args.potential}": _scored(relaxed.distance, above),
            f"{args.potential} alone, relaxed": _scored(np.where(np.isfinite(told), told, scores.distance), above),
            "both, relaxed": _scored(both.distance, above),
            "ensemble, relaxed by DFT": _scored(ideal, above),
        },
    }


def _judge() -> Any:
    """A judge by the reference sets' hull heights."""
    hull = reference_hull()

    class Judge(LabelJudge):
        """Formation energy minus the hull's."""

        def distance(self, formulas, labels):
            return np.asarray(labels, dtype=float) - hull.energy(list(formulas))

    return Judge(0.0)


def _teachers() -> Any:
    """Rows at WBM's level of theory, of the same elements."""
    from naica.structure.composition import parse_formula

    table = load_set("mp20")
    own = [set(parse_formula(f)) for f in table.formulas]
    return table.take(np.array([len(s) > 1 and not CORRECTED & s for s in own]))


def _proposed(table: Any, sample: int, seed: int, place: Path, most: int = 60) -> dict[str, Crystal]:
    """Candidates by id of the target: parents of its prototype with their elements replaced and their volume guessed."""
    from naica.data import CrystalTable
    from naica.discover.volume import guess_volume
    from naica.errors import InputError

    place.mkdir(parents=True, exist_ok=True)
    kept = place / f"proposed-{sample}-{seed}.parquet"
    if kept.exists():
        found = CrystalTable.read(kept)
        return dict(zip(found.ids, found, strict=True))
    rng = np.random.default_rng(seed)
    parents = load_set("mp_formation")
    numbers_of, formulas = parents.flat()[0], parents.formulas  # both are made anew at each asking
    by_shape: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, formula in enumerate(formulas):
        by_shape[_shape(formula), int(numbers_of[row])].append(row)
    made: dict[str, Crystal] = {}
    labels: dict[int, tuple[str, str] | None] = {}
    crystals = dict(zip(table.ids, table, strict=True))
    for name in [table.ids[k] for k in rng.permutation(len(table))]:
        if len(made) == sample:
            break
        target = crystals[name]
        if not uncorrected(target):
            continue
        rows = by_shape.get((_shape(target.formula), len(target)), [])
        rows = [int(rows[k]) for k in rng.permutation(len(rows))[:most] if formulas[rows[k]] != target.formula]
        found = _decorated(target, parents, rows, labels)
        if found is not None:
            try:
                made[name] = found.scaled(guess_volume(found))
            except InputError:
                continue
    CrystalTable.from_crystals(list(made.values()), ids=list(made)).write(kept)
    return made


def _shape(formula: str) -> tuple[float, ...]:
    from naica.structure.composition import parse_formula

    return tuple(sorted(parse_formula(formula).values()))


def _decorated(target: Crystal, parents: Any, rows: list[int], seen: dict[int, Any]) -> Crystal | None:
    """The parent of the target's prototype whose elements are chemically nearest, with the target's elements on the same sites."""
    from naica.errors import InputError
    from naica.structure.elements import element
    from naica.structure.symmetry import labels

    def label(crystal: Crystal) -> Any:
        try:
            return labels(crystal, 0.05)
        except InputError:
            return None

    want = label(target)
    best: tuple[float, Crystal] | None = None
    for row in rows:
        if row not in seen:
            seen[row] = label(parents[row])
        if want is None or seen[row] is None or seen[row][0] != want[0]:
            continue
        parent = parents[row]
        old, new = sorted(parent.composition), sorted(target.composition)
        for order in permutations(new):
            pairs = [(element(a), element(b)) for a, b in zip(old, order, strict=True)]
            far = sum(((a.electronegativity or 1.5) - (b.electronegativity or 1.5)) ** 2 / 0.1 for a, b in pairs)
            far += sum((a.covalent_radius - b.covalent_radius) ** 2 / 0.04 for a, b in pairs)
            if best is not None and far >= best[0]:
                continue
            swap = {a.number: b.number for a, b in pairs}
            made = parent.replace(numbers=[swap[int(z)] for z in parent.numbers], info={})
            again = label(made)
            if made.composition == target.composition and again is not None and again[1] == want[1]:
                best = far, made
    return best[1] if best else None


def _volume_error(crystals: list[Crystal], final: list[Crystal]) -> float:
    return float(np.mean([abs(a.volume / len(a) / (b.volume / len(b)) - 1) for a, b in zip(crystals, final, strict=True)]))


def _scored(predicted: np.ndarray, actual: np.ndarray) -> dict[str, Any]:
    """Metrics of "stable is at or below 0"; what was not judged counts as unstable."""
    said, true = np.nan_to_num(predicted, nan=np.inf) <= 0, actual <= 0
    hits = int((said & true).sum())
    precision, recall = wilson(hits, int(said.sum())), wilson(hits, int(true.sum()))
    f1 = 2 * hits / max(int(said.sum() + true.sum()), 1)
    return {
        "f1": f1, "precision": precision.to_dict(), "recall": recall.to_dict(), "daf": precision.value / max(true.mean(), 1e-9),
        "mae": float(np.nanmean(np.abs(predicted - actual))), "at_100_meV": wilson(
            int(((np.nan_to_num(predicted, nan=np.inf) <= 0.1) & true).sum()), int(true.sum())).to_dict(),
    }  # fmt: skip


def main() -> None:
    """Run one part and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("perovskites", "wbm"))
    parser.add_argument("--out", type=Path, default=Path("runs/filter"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--teachers", type=int, default=1500, help="rows that teach what the potential's energies mean")
    parser.add_argument("--potential", default="m3gnet-mp-2021")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--volumes", type=int, default=11)
    parser.add_argument("--visits", type=int, default=30_000)
    parser.add_argument("--rows", type=int, default=None, help="judge so many perovskites (default: all)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    report = {"perovskites": perovskites, "wbm": wbm}[args.what](args)
    report["cpu_seconds"] = time.process_time() - began
    name = args.what if args.what == "perovskites" else f"wbm-{args.potential}-{args.fmax:g}"
    (args.out / f"{name}-{args.seed}.json").write_text(json.dumps(report, indent=1, default=float))
    print(json.dumps(report, indent=1, default=float))


if __name__ == "__main__":
    main()
