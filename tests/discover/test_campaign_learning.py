"""Hit rates by group, scaling, stop rules: against counts by hand, and in a campaign that stops and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from naica.discover.campaign import Campaign
from naica.discover.config import Stop, parse_config
from naica.discover.learning import Trial, held_out_error, hit_rates, scaling, sentences, stop_reason
from naica.discover.summary import summary
from naica.errors import ConfigError


def test_hit_rates_by_generator_and_elements() -> None:
    trials = [Trial(1, "exploit", "saps", 3, True), Trial(1, "explore", "saps", 4, False), Trial(2, "exploit", "saps", 3, True),
              Trial(2, "control", "saps", 3, False), Trial(2, "exploit", "prototype", 4, False)]  # fmt: skip
    rows = {(r["by"], r["group"], r["round"]): r for r in hit_rates(trials)}
    saps = rows["generator", "saps", None]
    assert (saps["chosen"]["hits"], saps["chosen"]["n"], saps["control"]["n"]) == (2, 3, 1)
    assert saps["chosen"]["low"] < 2 / 3 < saps["chosen"]["high"]
    assert saps["enrichment"]["low"] < saps["enrichment"]["high"]
    assert rows["generator", "saps", 1]["enrichment"] is None
    assert rows["elements", "4", None]["chosen"] == {"n": 2, "hits": 0, "rate": 0.0, "low": 0.0, "high": pytest.approx(0.6576, abs=1e-3)}
    assert ("generator", "prototype", 1) not in rows
    for number in (1, 2):
        assert sum(r["chosen"]["n"] + r["control"]["n"] for r in rows.values() if r["by"] == "elements" and r["round"] == number) in (2, 3)


def test_scaling_finds_the_exponent_and_its_interval_covers() -> None:
    """Scatter of 10 %: the 95 % interval of the exponent holds the truth in about 95 of 100 series."""
    rng = np.random.default_rng(0)
    labels = np.array([100, 200, 400, 800, 1600])
    inside = 0
    for _ in range(300):
        law = scaling(labels, 2.0 * labels**-0.4 * np.exp(rng.normal(0, 0.1, 5)))
        assert law is not None
        inside += law["low"] <= 0.4 <= law["high"]
    assert 270 <= inside <= 298
    exact = scaling(labels, 2.0 * labels**-0.4)
    assert exact is not None
    assert exact["exponent"] == pytest.approx(0.4)
    assert exact["doubling"] == pytest.approx(2**-0.4)
    assert scaling([10, 20], [0.2, 0.1]) is None


def test_error_on_labels_kept_from_a_model() -> None:
    assert held_out_error({"val": {"mae": 0.05}}) == 0.05
    assert held_out_error({"leave_one_out": {"mae": 0.02}, "val": {"n": 3}}) == 0.02
    assert held_out_error({}) is None


def finished(hits: int, n: int, mae: float | None = 0.1, judged: int = 10) -> dict[str, Any]:
    return {"arms": {"exploit": {"hits": hits, "n": n}}, "mae": mae, "judged": judged}


@pytest.mark.parametrize(
    ("rules", "rounds", "calls", "left", "said"),
    [
        ({}, [finished(0, 10)] * 9, 10**6, 0.0, None),
        ({"calls": 50}, [finished(1, 10)], 50, 9.0, "50 oracle calls of at most 50"),
        ({"calls": 50}, [finished(1, 10)], 49, 9.0, None),
        ({"hit_rate": 0.1}, [finished(5, 10), finished(0, 10), finished(0, 9)], 9, 9.0, "in 2 rounds in a row (0 of 10, 0 of 9)"),
        ({"hit_rate": 0.1}, [finished(0, 10), finished(5, 10), finished(0, 10)], 9, 9.0, None),
        ({"hit_rate": 0.1}, [finished(0, 10)], 9, 9.0, None),
        ({"hit_rate": 0.1, "rounds": 1}, [finished(0, 0)], 9, 9.0, None),
        ({"expected_hits": 0.5}, [finished(5, 10)], 9, 0.4, "0.40 stable candidates expected"),
        ({"expected_hits": 0.5}, [finished(5, 10)], 9, None, None),
        ({"precision": 0.02}, [finished(5, 10, 0.019)], 9, 9.0, "right to 0.0190 eV/atom"),
        ({"precision": 0.02}, [finished(5, 10, 0.019, 4)], 9, 9.0, None),
        ({"precision": 0.02, "at_least": 2}, [finished(5, 10, 0.019)], 9, 9.0, None),
        ({"precision": 0.02}, [], 9, 9.0, None),
    ],
)
def test_stop_rules(rules: dict[str, Any], rounds: list[dict[str, Any]], calls: int, left: float | None, said: str | None) -> None:
    reason = stop_reason(Stop(**rules), rounds, calls, left)
    assert (reason is None) if said is None else (said in (reason or ""))


def test_a_wrong_rule_is_named() -> None:
    with pytest.raises(ConfigError, match=r"stop\.hit_rat.*did you mean 'hit_rate'"):
        parse_config({"elements": ["Cu", "Au"], "stop": {"hit_rat": 0.1}})
    with pytest.raises(ConfigError, match=r"stop\.hit_rate"):
        parse_config({"elements": ["Cu", "Au"], "stop": {"hit_rate": 2.0}})


def test_a_campaign_stops_by_its_rule_goes_on_without_it_and_tells_both_hulls(tmp_path: Path) -> None:
    base = {
        "elements": ["Cu", "Au"],
        "rounds": 2,
        "generate": {"n_elements": [2], "balanced": False, "substitution": False, "saps": False, "max_atoms": 4},
        "filter": {"quick_limit": 2.0, "limit": 2.0, "volumes": 1},
        "pick": {"per_round": 5},
        "oracle": {"name": "emt", "workers": 0},
    }
    folder = tmp_path / "run"
    stopped = Campaign(parse_config({**base, "stop": {"calls": 7}}), folder).run()
    assert stopped.why == "stop rule: 7 oracle calls of at most 7"
    assert Campaign(parse_config({**base, "stop": {"calls": 7}}), folder).run().calls == 7
    assert Campaign(parse_config(base), folder).run().why == "finished"
    story = summary(folder, structures=False)
    assert len(story["rounds"]) == 2
    stable = {e["id"] for e in story["hull"]["entries"] if e["stable"]}
    for record in story["rounds"]:
        hulls = record["hulls"]
        assert hulls["start"] == 2
        assert 0 <= hulls["on_grown"] <= hulls["below_start"] <= record["computed"]
    assert story["rounds"][-1]["hulls"]["grown"] == len(stable)
    grown = [r["hulls"] for r in story["rounds"]]
    assert grown[1]["grown"] == grown[0]["grown"] - grown[1]["pushed_off"] + grown[1]["on_grown"]
    whole = [r for r in story["hit_rates"] if r["by"] == "elements" and r["round"] is None]
    assert sum(r["chosen"]["n"] + r["control"]["n"] for r in whole) == sum(r["picked"] for r in story["rounds"]) == 10
    assert sum(r["chosen"]["hits"] + r["control"]["hits"] for r in whole) == sum(r["hits"] for r in story["rounds"])
    assert set(story["scaling"]) == {"picks", "held_out"}
    for find in story["finds"]:
        if find["window"] is not None:
            assert all(low <= high <= 1e-9 for low, high in find["window"].values())
        assert all(route["margin"] >= 0 for route in find["routes"])
    assert any(find["window"] for find in story["finds"])
    assert any(
        "Cu + Au" in r["reaction"] or "Au + " in r["reaction"] or "Cu + " in r["reaction"] for f in story["finds"] for r in f["routes"]
    )
    said = sentences(story)
    assert any(line.startswith("hits by generator: prototype") for line in said)
    assert said[-1] == f"phases on the hull: 2 at the start, {len(stable)} now"
