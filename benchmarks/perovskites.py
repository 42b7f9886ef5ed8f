"""Perovskites after the fact: how many of all stable ones does a campaign find?

    python benchmarks/perovskites.py --seeds 0 1 2 --out runs/perovskites

For each seed: the campaign of examples/perovskites.toml (5 % known at the start, six rounds that together look at 20 % more), one-shot
screening (one model trained on the same 5 %, its best 20 % looked at in one go) and random picks. A killed run goes on: same command.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[1] / "examples" / "perovskites.toml"


def configuration(seed: int, one_shot: bool):
    from naica.discover.config import CampaignConfig, read_config

    raw = {**read_config(EXAMPLE).model_dump(), "seed": seed}
    if one_shot:
        calls = raw["rounds"] * raw["pick"]["per_round"]
        raw = {**raw, "rounds": 1, "pick": {**raw["pick"], "per_round": calls, "explore": 0.0, "control": 0.0}}
        # nothing may be left out for being too far away: all the calls are to be used
        raw["filter"] = {**raw["filter"], "quick_limit": 100.0, "limit": 100.0}
    return CampaignConfig(**raw)


def run(seed: int, one_shot: bool, folder: Path) -> dict:
    from naica.discover.campaign import Campaign
    from naica.discover.summary import summary

    began, cpu = time.time(), time.process_time()
    place = folder / f"{'one-shot' if one_shot else 'campaign'}-{seed}"
    Campaign(configuration(seed, one_shot), place).run()
    story = summary(place, structures=False)
    recall = story["recall"]
    return {
        "seed": seed,
        "kind": "one-shot" if one_shot else "campaign",
        "found": recall["found"],
        "total": recall["total"],
        "share": recall["share"],
        "by_round": recall["by_round"],
        "looked_at": recall["looked_at"],
        "random": recall["random_expected"] / recall["total"],
        "hit_rates": [r["hit_rate"] for r in story["rounds"]],
        "control_hit_rates": [r["arms"]["control"]["rate"] for r in story["rounds"]],
        "mae_of_picks": [r["mae"] for r in story["rounds"]],
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.time() - began,
    }


def random_picks(seed: int, looked_at: int) -> float:
    """Share of the stable rows in a random sample of the size the campaign looked at."""
    from naica.data.registry import load_set

    values = np.asarray(load_set("perovskites").column("e_form"), dtype=float)
    stable = values <= 0.2
    chosen = np.random.default_rng(1000 + seed).permutation(len(values))[:looked_at]
    return float(stable[chosen].sum() / stable.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/perovskites"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in args.seeds:
        for one_shot in (False, True):
            row = run(seed, one_shot, args.out)
            row["random_drawn"] = random_picks(seed, row["looked_at"][-1])
            rows.append(row)
            print(
                f"seed {seed} {row['kind']:9s} found {row['found']} of {row['total']} = {row['share']:.1%} "
                f"(random: {row['random_drawn']:.1%} drawn, {row['random']:.1%} expected); by round {row['by_round']}; "
                f"{row['cpu_seconds']:.0f} CPU s",
                flush=True,
            )
            (args.out / "results.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
