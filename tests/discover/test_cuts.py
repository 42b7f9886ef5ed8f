"""What each cut loses: on made-up candidates with known truth, and in a campaign whose table tells it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.discover.test_campaign import pool

from naica.discover.campaign import Campaign
from naica.discover.config import Filter, parse_config
from naica.discover.cuts import FULL, QUICK, RELAXED, cuts, fates_of, whole
from naica.discover.ledger import Ledger
from naica.discover.summary import summary


def test_each_cut_on_five_candidates() -> None:
    config = Filter(quick_limit=0.3, limit=0.1)
    quick = np.array([0.1, 0.1, 0.5, 0.2, 0.9])
    full = np.array([0.05, 0.2, np.nan, 0.1, np.nan])
    fates, names = fates_of(quick, full, None, 0.0, config)
    assert fates.tolist() == [2, 1, 0, 2, 0]
    found = cuts(fates, np.array([True, True, True, False, False]), names)
    assert [(c.name, c.met, c.kept, c.stable_met, c.stable_lost) for c in found] == [(QUICK, 5, 3, 3, 1), (FULL, 3, 2, 2, 1)]
    assert found[0].recall.value == pytest.approx(2 / 3)
    assert found[0].recall.low < 2 / 3 < found[0].recall.high
    assert whole(fates, np.array([True, True, True, False, False]), names).recall.value == pytest.approx(1 / 3)


def test_relaxing_rescues_and_drops() -> None:
    config = Filter(limit=0.1, relax_limit=0.3, relax_with="emt")
    full = np.array([0.25, 0.05, 0.25, 0.5, np.nan, 0.05])
    relaxed = np.array([0.05, 0.2, np.nan, np.nan, np.nan, np.nan])
    fates, names = fates_of(full, full, relaxed, 0.0, config)
    assert names == [QUICK, FULL, RELAXED]
    # rescued; dropped; not relaxed and too far; too far to be relaxed; never looked at; not relaxed and near enough
    assert fates.tolist() == [3, 2, 2, 1, 0, 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 80))
def test_losses_add_up(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    fates, stable = rng.integers(0, 3, n), rng.random(n) < 0.3
    found, both = cuts(fates, stable, ["a", "b"]), whole(fates, stable, ["a", "b"])
    assert sum(c.stable_lost for c in found) == both.stable_lost
    assert both.stable_kept + both.stable_lost == stable.sum()
    assert found[0].kept == found[1].met
    assert all(0 <= c.recall.low <= c.recall.high <= 1 for c in (*found, both))


def test_a_campaign_measures_its_cuts_and_its_probabilities(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [float(v) for v in rng.uniform(0, 1, 150)]
    raw = {
        "rounds": 2,
        "pool": {"table": pool(tmp_path, values), "column": "e", "start_fraction": 0.2},
        "learner": {"strategy": "train", "members": 2, "visits": 200},
        "filter": {"quick_limit": 0.35, "limit": 0.25, "volumes": 1, "recalibrate_after": 5},
        "pick": {"per_round": 30, "control": 0.5, "unbalanced": 1.0, "diversity": 1.0},
        "oracle": {"name": "table"},
        "stable": {"by": "label", "threshold": 0.2},
    }
    Campaign(parse_config(raw), tmp_path / "run").run()
    told = summary(tmp_path / "run", structures=False)["filter"]
    rounds = told["cuts"]["rounds"]
    assert [r["round"] for r in rounds] == [1, 2]
    truth = {f"row-{k}": v <= 0.2 for k, v in enumerate(values)}
    ledger = Ledger(tmp_path / "run")
    control = ledger.rows("select key, distance from candidates where arm = 'control' and status = 'computed'")
    now = rounds[-1]["control"]
    assert now["all"]["met"] == len(control) == 30
    assert now["all"]["stable_met"] == sum(truth[k] for k, _ in control)
    assert now["all"]["stable_kept"] == sum(truth[k] for k, d in control if d is not None and d <= 0.45)
    exact = told["cuts"]["exact"]["all"]
    judged = dict(ledger.rows("select key, distance from candidates where status in ('computed', 'passed', 'filtered')"))
    assert exact["met"] == len(judged)
    assert exact["stable_met"] == sum(truth[k] for k in judged)
    assert exact["stable_kept"] == sum(truth[k] for k, d in judged.items() if d is not None and d <= 0.45)
    # what is held back is everything that was not picked and did not pass
    held = {h["name"]: h for h in rounds[-1]["lost"]}
    waiting = ledger.rows("select count(*) from candidates where status = 'filtered'")[0][0]
    assert held["quick look"]["candidates"] + held["full look"]["candidates"] == waiting
    for h in held.values():
        assert h["estimate"]["low"] <= (h["estimate"]["value"] or 0) <= h["estimate"]["high"] <= h["candidates"]
    reliable = told["reliability"]
    assert reliable["n"] == ledger.rows("select count(*) from candidates where status = 'computed' and distance is not null")[0][0]
    assert sum(b["n"] for b in reliable["by"]["as read"]["bins"]) == reliable["n"]
    assert reliable["rounds"][0]["n"] == 0
    assert reliable["rounds"][1]["n"] > 0
    # the probabilities in the ledger are those of the round's reading
    assert reliable["by"]["as read"] != reliable["by"]["as predicted"]
    ledger.close()


def test_ledgers_of_earlier_versions_tell_what_they_can(tmp_path: Path) -> None:
    raw = {
        "rounds": 1,
        "pool": {"table": pool(tmp_path, [k / 60 for k in range(60)]), "column": "e", "start_fraction": 0.3},
        "learner": {"strategy": "train", "members": 2, "visits": 50},
        "filter": {"quick_limit": 9, "limit": 9, "volumes": 1},
        "pick": {"per_round": 10},
        "oracle": {"name": "table"},
        "stable": {"by": "label", "threshold": 0.2},
    }
    Campaign(parse_config(raw), tmp_path / "run").run()
    ledger = Ledger(tmp_path / "run")
    with ledger.write() as db:
        db.execute("""update stages set data = '{"calls": 10}' where stage = 'compute' and round = 1""")
        db.execute("""update stages set data = '{"scored": 42}' where stage = 'judge'""")
    ledger.close()
    told = summary(tmp_path / "run", structures=False)["filter"]
    assert told["cuts"]["now"] is None
    assert told["reliability"]["by"]["as read"] == told["reliability"]["by"]["as predicted"]
