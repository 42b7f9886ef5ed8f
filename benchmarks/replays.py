"""Campaigns after the fact: rounds whose answers are known, so that hit rates, errors and enrichment are real.

    python benchmarks/replays.py wbm --seeds 0 1 2 --out runs/replays
    python benchmarks/replays.py perovskites --seeds 0 1 2 --out runs/replays

**wbm**: the rounds of element substitution of Wang, Botti and Marques (2021) on the rows that are here. In round r a model that knows the
labels told in rounds < r judges every row of round r (Matbench Discovery's measures, on all rows and on unique prototypes), the best
`--share` of them and a random control arm are looked up, and the model is trained on, from its own weights (``--learner train``), or its
correction is fitted anew (``correct``). With ``--tell all`` it learns from every row of the round, as one who had computed them all. Beside
it stands the shipped formation-energy model as it is. What is asked of the data, and what it cannot give:

* Rounds: the small set carries them in its ids; the file of 10,000 keeps the order of the full set, whose rounds begin anew at silver
  after zirconium, at ids 3073, 5711 and 9669. Of 47 compounds that both sets hold, 38 are in the same round by that; a substitution can be
  made in two rounds (16 % of the full set are repeated prototypes).
* Structures are *relaxed* (no others are here), so the errors are lower bounds of what unrelaxed candidates would show. With
  ``--volume guessed`` every cell is scaled to the volume predicted for its elements, which takes the relaxed volume away, not the shape.
* No hull distances are in the source. The hull here is made of the reference set's hull heights (e_form − e_above_hull of mp20 and mpts52,
  the same corrections as WBM's) and of the composition table's, where no element carries a correction in either scheme; only rows of
  such elements are judged (metals, P, As, C, B …), because for the others the level of theory of the table differs and the hull has holes.

**perovskites**: the campaign of examples/perovskites.toml and its enrichment over random picks, with intervals.

Every round is one file: a killed run goes on with the same command. Seconds are CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

LABEL = "formation_energy_per_atom"
STARTS = (3073, 5711, 9669)
CORRECTED = frozenset(("H", "N", "O", "F", "Si", "S", "Cl", "Se", "Br", "Sb", "Te", "I"))
PICK = {"explore": 0.1, "control": 0.1, "per_formula": 3, "diversity": 1.0, "unbalanced": 1.0}


@dataclass(frozen=True)
class Rows:
    """WBM's rows in the order of ids: crystals, true formation energies (eV/atom), rounds, and which are unique prototypes."""

    ids: list[str]
    crystals: list[Any]
    energies: np.ndarray
    rounds: np.ndarray
    unique: np.ndarray
    facts: dict[str, Any]


def uncorrected(crystal: Any) -> bool:
    """No element of it carries an energy correction, in the scheme of WBM or in that of the composition table."""
    return not CORRECTED & set(crystal.composition)


def wbm(folder: Path) -> Rows:
    """Both sets, without the rows of the small one that the large one holds too."""
    from naica.data.registry import load_set
    from naica.discover.stability import unique_prototypes

    large, small = load_set("wbm_10k"), load_set("wbm_972")
    there: dict[tuple[Any, ...], list[tuple[float, int]]] = {}
    ids, crystals, energies, rounds = [], [], [], []
    for key, crystal, energy in zip(large.ids, large, large.column("e_form"), strict=True):
        number = int(np.searchsorted(STARTS, int(key.rsplit("-", 1)[1]), side="right")) + 1
        there.setdefault(tuple(sorted(crystal.numbers.tolist())), []).append((crystal.volume, number))
        ids.append(key), crystals.append(crystal), energies.append(float(energy)), rounds.append(number)
    both = agree = 0
    for key, crystal, energy in zip(small.ids, small, small.column("e_form_corrected"), strict=True):
        number = int(key.split("-")[1])
        twins = [n for v, n in there.get(tuple(sorted(crystal.numbers.tolist())), []) if abs(v / crystal.volume - 1) < 5e-4]
        both, agree = both + bool(twins), agree + (number in twins)
        if not twins:
            ids.append(key), crystals.append(crystal), energies.append(float(energy)), rounds.append(number)
    fit = np.array([uncorrected(c) for c in crystals])
    facts = {"rows": len(ids), "rows_judged": int(fit.sum()), "rows_of_both_sets": both, "of_these_in_the_same_round": agree}
    kept = np.flatnonzero(fit)
    e = np.array(energies)[kept]
    chosen = [crystals[k] for k in kept]
    cache_file = folder / "unique.npy"
    if not cache_file.exists():
        known = [c for name in ("mp20", "mpts52", "mp_formation") for c in load_set(name) if uncorrected(c)]
        np.save(cache_file, unique_prototypes(chosen, e, known))
    return Rows([ids[k] for k in kept], chosen, e, np.array(rounds)[kept], np.load(cache_file), facts)


@cache
def reference_hull() -> Any:
    """The hull of the reference set where no correction reaches: heights told by its own hull distances; elements at 0."""
    from naica.data.registry import dataset, load_set
    from naica.discover.hull import Hull

    height: dict[str, float] = {}

    def note(formula: str, value: float) -> None:
        height[formula] = min(value, height.get(formula, np.inf))

    for name in ("mp20", "mpts52"):
        table = load_set(name)
        for formula, energy, above in zip(table.formulas, table.column("e_form"), table.column("e_above_hull"), strict=True):
            if np.isfinite(energy) and np.isfinite(above):
                note(formula, float(energy) - float(above))
    with gzip.open(dataset("compositions").path("compositions/mp_formation_decomposition.csv.gz"), "rt", newline="") as handle:
        for row in csv.DictReader(handle):
            if row["Ef"] and row["Ed"]:
                note(row["formula"], float(row["Ef"]) - max(float(row["Ed"]), 0.0))
    from naica.discover.proportions import amounts_table

    formulas = list(height)
    elements, counts = amounts_table(formulas)
    barred = [k for k, s in enumerate(elements) if s in CORRECTED]
    keep = ~np.any(counts[:, barred] > 0, axis=1) & (np.count_nonzero(counts, axis=1) > 1)
    free = [s for s in elements if s not in CORRECTED]
    chosen = [f for f, yes in zip(formulas, keep, strict=True) if yes]
    return Hull(chosen + free, [height[f] for f in chosen] + [0.0] * len(free), ids=chosen + [f"element {s}" for s in free])


def start_table(limit: int, seed: int) -> Any:
    """Reference crystals at WBM's level of theory that the learner knows before round 1, without corrected elements."""
    from naica.data import CrystalTable
    from naica.data.registry import load_set

    table = load_set("mp20")
    rows = [k for k, c in enumerate(table) if uncorrected(c)]
    rows = sorted(np.random.default_rng(seed).permutation(rows)[:limit].tolist())
    part = table.take(rows)
    return CrystalTable.from_crystals(list(part), {LABEL: part.column("e_form")}, {LABEL: table.labels["e_form"]}, ids=part.ids)


def told_table(rows: Rows, told: list[int]) -> Any:
    from naica.data import CrystalTable
    from naica.data.registry import load_set

    label = load_set("wbm_972").labels["e_form_corrected"]
    return CrystalTable.from_crystals(
        [rows.crystals[k] for k in told], {LABEL: rows.energies[told]}, {LABEL: label}, ids=[rows.ids[k] for k in told]
    )


def learned(args: argparse.Namespace, rows: Rows, told: list[int], seed: int, number: int, place: Path) -> Any:
    """The model of a round; round 1 begins at the shipped weights, each later one at those of the round before."""
    from naica.data import CrystalTable
    from naica.training.ensemble import of_any
    from naica.training.learner import Corrector, Trainer

    first = place / "round-0"
    if not (first / "model").exists():
        of_any("formation-energy").save(first / "model")
    out = place / f"round-{number}"
    if args.learner == "correct":
        return Corrector(seed=seed).fit(told_table(rows, told), LABEL, number, out) if told else of_any("formation-energy")
    shipped = of_any("formation-energy").card
    settings = {"architecture": "cgcnn", "architecture_config": dict(shipped.architecture_config), "learning_rate": 1e-3}
    parts = [start_table(args.start, seed), *([told_table(rows, told)] if told else [])]
    trainer = Trainer(members=2, seed=seed, visits=args.visits, warm=0.6, settings=settings)
    return trainer.fit(CrystalTable.concat(parts), LABEL, number, out, place / f"round-{number - 1}")


def scores(hull: Any, formulas: list[str], true: np.ndarray, value: np.ndarray, unique: np.ndarray) -> dict[str, Any]:
    from naica.discover.stability import stability

    base = hull.energy(formulas)
    found = {"all": stability(true - base, value - base).to_dict()}
    if unique.any():
        found["unique prototypes"] = stability((true - base)[unique], (value - base)[unique]).to_dict()
    return found


def wbm_round(args: argparse.Namespace, rows: Rows, seed: int, number: int, told: list[int], place: Path) -> dict[str, Any]:
    """Learn, judge, pick and look up; returns what is kept of it."""
    from scipy.special import ndtr

    from naica.discover.config import Pick
    from naica.discover.pick import Option, choose
    from naica.insight.intervals import enrichment, nested_enrichment, wilson

    began = time.process_time()
    model = learned(args, rows, told, seed, number, place)
    fitted = time.process_time()
    here = np.flatnonzero(rows.rounds == number)
    crystals = [rows.crystals[k] for k in here]
    if args.volume == "guessed":
        from naica.discover.volume import guess_volume

        crystals = [c.scaled(guess_volume(c)) for c in crystals]
    formulas, true = [c.formula for c in crystals], rows.energies[here]
    frozen = reference_hull()
    known = [rows.crystals[k].formula for k in told]
    growing = frozen.with_entries(known, rows.energies[told], [rows.ids[k] for k in told]) if told else frozen
    prior_file = place.parent / f"prior-{args.volume}-{number}.npy"
    if not prior_file.exists():
        from naica.training.ensemble import of_any

        told_by_prior = of_any("formation-energy").predict(crystals)
        np.save(prior_file, np.stack([told_by_prior.value, told_by_prior.sigma]))
    prior = np.load(prior_file)
    untouched = args.learner == "correct" and not told  # the model of round 1 is the shipped one
    if untouched:
        value, sigma = prior
    else:
        answer = model.predict(crystals)
        value, sigma = np.asarray(answer.value), np.asarray(answer.sigma)
    sigma = np.maximum(sigma, 1e-4)
    base, now = frozen.energy(formulas), growing.energy(formulas)
    p = ndtr((now - value) / sigma)
    options = [Option(str(k), f, "", float(q), float(s), True) for k, f, q, s in zip(here, formulas, p, sigma, strict=True)]
    picks = choose(options, Pick(per_round=1, **PICK), max(5, round(args.share * len(here))), 1000 * seed + number)
    at = {int(k): i for i, k in enumerate(here)}
    arms: dict[str, Any] = {}
    for arm in ("exploit", "explore", "control"):
        mine = [at[int(k)] for k, a in picks.items() if a == arm]
        hits = int((true[mine] <= base[mine]).sum())
        rate = wilson(hits, len(mine))
        arms[arm] = {"n": len(mine), "hits": hits, "rate": rate.value, "low": rate.low, "high": rate.high,
                     "hits_on_growing_hull": int((true[mine] <= now[mine]).sum())}  # fmt: skip
    stable = int((true <= base).sum())
    best, chance = arms["exploit"], arms["control"]
    over_all = nested_enrichment(best["hits"], best["n"], stable, len(here))
    over_control = enrichment(best["hits"], best["n"], chance["hits"], chance["n"])
    picked = sorted(int(k) for k in picks)
    after = growing.with_entries([rows.crystals[k].formula for k in picked], rows.energies[picked], [rows.ids[k] for k in picked])
    on_hull = set(after.stable())
    return {
        "seed": seed, "round": number, "rows": len(here), "labels": len(told) + (args.start if args.learner == "train" else 0),
        "told": len(told), "picked": picked, "arms": arms,
        "enrichment_over_all": over_all.to_dict() if over_all else None,
        "enrichment_over_control": over_control.to_dict() if over_control else None,
        "model": scores(frozen, formulas, true, value, rows.unique[here]),
        "shipped": scores(frozen, formulas, true, prior[0], rows.unique[here]),
        "new_on_growing_hull": len({rows.ids[i] for i in picked} & on_hull),
        "left_the_reference_hull": len(set(frozen.stable()) - on_hull),
        "fit_s": round(fitted - began, 1), "cpu_s": round(time.process_time() - began, 1),
    }  # fmt: skip


def replay_wbm(args: argparse.Namespace) -> None:
    out = args.out / f"wbm-{args.learner}-{args.volume}{'-all' if args.tell == 'all' else ''}"
    out.mkdir(parents=True, exist_ok=True)
    rows = wbm(args.out)
    print(json.dumps({**rows.facts, "rounds": np.bincount(rows.rounds)[1:].tolist()}), flush=True)
    done: list[dict[str, Any]] = []
    for seed in args.seeds:
        told: list[int] = []
        place = out / f"seed-{seed}"
        place.mkdir(exist_ok=True)
        for number in range(1, int(rows.rounds.max()) + 1):
            file = place / f"round-{number}.json"
            if not file.exists():
                found = wbm_round(args, rows, seed, number, told, place)
                part = file.with_suffix(".part")
                part.write_text(json.dumps(found, indent=1))
                part.replace(file)
            kept = json.loads(file.read_text())
            told += kept["picked"] if args.tell == "picked" else np.flatnonzero(rows.rounds == number).tolist()
            done.append(kept)
            print(_line(kept), flush=True)
    (out / "results.json").write_text(json.dumps(_over_seeds(done), indent=1))
    print(f"mean and standard error over seeds: {out / 'results.json'}")


def _line(r: dict[str, Any]) -> str:
    m, s, best, chance = r["model"]["all"], r["shipped"]["all"], r["arms"]["exploit"], r["arms"]["control"]
    return (
        f"seed {r['seed']} round {r['round']}: {r['rows']} rows, {m['prevalence']:.1%} stable, {r['told']} told; "
        f"F1 {m['f1']:.3f} DAF {m['daf']:.2f} "
        f"precision {m['precision']:.3f} recall {m['recall']:.3f} MAE {m['mae']:.4f} RMSE {m['rmse']:.4f} R2 {m['r2']:.3f} "
        f"(shipped: F1 {s['f1']:.3f} MAE {s['mae']:.4f}); hits {best['hits']}/{best['n']}, control {chance['hits']}/{chance['n']}; "
        f"{r['cpu_s']:.0f} CPU s"
    )


def _over_seeds(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard error over seeds of every measure, by round and subset."""
    table = []
    for number in sorted({r["round"] for r in done}):
        mine = [r for r in done if r["round"] == number]
        for kind in ("model", "shipped"):
            for subset in mine[0][kind]:
                values = {name: np.array([r[kind][subset][name] for r in mine], dtype=float) for name in mine[0][kind][subset]}
                spread = {k: [float(v.mean()), float(v.std(ddof=1) / len(v) ** 0.5) if len(v) > 1 else None] for k, v in values.items()}
                table.append({"round": number, "what": kind, "subset": subset, "seeds": len(mine), **spread})
        hits = {arm: [sum(r["arms"][arm][k] for r in mine) for k in ("hits", "n")] for arm in ("exploit", "explore", "control")}
        table.append({"round": number, "what": "hits of trials, all seeds", **hits})
    return table


def replay_perovskites(args: argparse.Namespace) -> None:
    """The example's campaign; enrichment of what the model chose over the rows it chose from, and over the control arm."""
    import perovskites

    from naica.discover.summary import summary
    from naica.insight.intervals import enrichment, nested_enrichment

    place = args.out / "perovskites"
    place.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in args.seeds:
        row = perovskites.run(seed, False, place)
        story = summary(place / f"campaign-{seed}", structures=False)
        recall, left = story["recall"], []
        for r in story["rounds"]:
            before = r["round"] - 1
            stable = recall["total"] - recall["by_round"][before]
            pool = recall["pool"] - recall["looked_at"][before]
            best, chance = r["arms"]["exploit"], r["arms"]["control"]
            nested = nested_enrichment(best["hits"], best["n"], stable, pool)
            control = enrichment(best["hits"], best["n"], chance["hits"], chance["n"])
            left.append({"round": r["round"], "exploit": [best["hits"], best["n"]], "control": [chance["hits"], chance["n"]],
                         "over_all_left": nested.to_dict() if nested else None,
                         "over_control": control.to_dict() if control else None})  # fmt: skip
        looked = recall["looked_at"][-1] - recall["looked_at"][0]
        found = recall["by_round"][-1] - recall["by_round"][0]
        whole = nested_enrichment(found, looked, recall["total"] - recall["by_round"][0], recall["pool"] - recall["looked_at"][0])
        rows.append({**row, "rounds": left, "enrichment": whole.to_dict() if whole else None})
        print(f"seed {seed}: found {row['found']} of {row['total']} in {row['looked_at']}; enrichment of all looks {whole}; round 1 "
              f"{left[0]['exploit']} {left[0]['over_all_left']}; {row['cpu_seconds']:.0f} CPU s", flush=True)  # fmt: skip
        (place / "results.json").write_text(json.dumps(rows, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("wbm", "perovskites"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/replays"))
    parser.add_argument("--learner", choices=("train", "correct"), default="train")
    parser.add_argument("--volume", choices=("relaxed", "guessed"), default="relaxed")
    parser.add_argument("--tell", choices=("picked", "all"), default="picked", help="labels the model learns from after a round")
    parser.add_argument("--share", type=float, default=0.1, help="share of a round's rows that is looked up")
    parser.add_argument("--start", type=int, default=3000, help="reference crystals known before round 1")
    parser.add_argument("--visits", type=int, default=30_000, help="structures each of the two networks sees in a round, times 0.6")
    args = parser.parse_args()
    (replay_wbm if args.what == "wbm" else replay_perovskites)(args)


if __name__ == "__main__":
    main()
