"""A whole campaign with a real (if humble) oracle, its edges, and what happens when oracles misbehave."""

import json
from pathlib import Path

import numpy as np
import pytest

from naica.data import CrystalTable, Label, Level
from naica.discover.campaign import Campaign
from naica.discover.config import parse_config
from naica.discover.ledger import Ledger
from naica.discover.summary import summary
from naica.errors import ConfigError, RunError
from naica.structure import Crystal

ALLOY = {
    "elements": ["Cu", "Au"],
    "rounds": 2,
    "seed": 3,
    "generate": {"n_elements": [2], "balanced": False, "substitution": False, "max_atoms": 4},
    "filter": {"quick_limit": 2.0, "limit": 2.0, "volumes": 3},
    "pick": {"per_round": 6},
    "oracle": {"name": "emt", "workers": 0},
}


def campaign(folder: Path, **changes) -> Campaign:
    return Campaign(parse_config({**ALLOY, **changes}), folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alloy") / "run"
    events = []
    outcome = campaign(folder).run(progress=events.append)
    assert outcome.why == "finished"
    assert outcome.calls == 2 + 12
    assert {e.stage for e in events} >= {"learn", "propose", "judge", "compute"}
    return folder


def test_finds_the_known_alloys_and_says_why(done: Path) -> None:
    story = summary(done)
    finds = {f["formula"]: f for f in story["finds"]}
    # EMT, like experiment, orders CuAu and its 3:1 and 1:3 neighbours
    assert "CuAu" in finds or "Cu3Au" in finds
    for find in finds.values():
        assert find["above_hull"] <= 0.001
        assert find["separation_energy"] < 0
        assert sum(phase["fraction"] for phase in find["competing"]) == pytest.approx(1.0)
        assert find["lineage"][-1]["origin"] in ("prototype", "start")
        assert find["cif"].startswith("data_")
        assert "EMT" in find["level"]


def test_rounds_add_up(done: Path) -> None:
    story = summary(done, structures=False)
    for record in story["rounds"]:
        assert sum(arm["n"] for arm in record["arms"].values()) == record["picked"] == 6
        assert record["computed"] + record["failed"] == record["picked"]
        assert record["low"] <= record["hit_rate"] <= record["high"]
    assert story["rounds"][1]["model"]["labels"] == 2 + story["rounds"][0]["computed"]
    entries = story["hull"]["entries"]
    assert len(entries) == 2 + sum(r["computed"] for r in story["rounds"])
    json.dumps(story)


def test_finished_campaign_costs_nothing_again(done: Path) -> None:
    before = (done / "ledger.sqlite").stat().st_size
    assert campaign(done).run().calls == 14
    assert (done / "ledger.sqlite").stat().st_size == before


def test_same_seed_same_story(done: Path, tmp_path: Path) -> None:
    campaign(tmp_path / "again").run(rounds=1)
    again = summary(tmp_path / "again", structures=False)
    first = {e["id"]: e["formation_energy"] for e in summary(done, structures=False)["hull"]["entries"] if e["round"] <= 1}
    assert {e["id"]: e["formation_energy"] for e in again["hull"]["entries"]} == pytest.approx(first, abs=1e-9)


def test_budget_stops_and_more_budget_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert campaign(folder).run(budget=5).why == "budget spent"
    assert len(Ledger(folder).called()) == 5
    assert campaign(folder).run(budget=9).calls == 9


def test_another_configuration_is_refused(done: Path) -> None:
    with pytest.raises(ConfigError, match=r"another configuration \(different: pick\)"):
        campaign(done, pick={"per_round": 7}).run()


def test_plan_writes_nothing(tmp_path: Path) -> None:
    plan = campaign(tmp_path / "run").plan()
    assert plan["candidates_in_round_1"]["prototype"] > 10
    assert plan["oracle_calls"] == 14
    assert not (tmp_path / "run").exists()


def test_failed_reference_stops_with_the_element_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"elemental reference of .*Mg"):
        # EMT has no parameters for magnesium
        campaign(tmp_path / "run", elements=["Mg", "Au"]).run()


def test_read_only_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another with --folder"):
        campaign(tmp_path / "file" / "run").run()


def test_no_campaign_here(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no campaign in"):
        summary(tmp_path)


def pool(tmp_path: Path, values: list[float]) -> str:
    base = Crystal.from_fractional([20, 22, 8, 8, 8], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], np.eye(3) * 3.9)
    metals = [12, 13, 20, 22, 26, 27, 28, 29, 30, 38, 40, 42, 56]
    crystals = [base.replace(numbers=[a, b, 8, 8, 8]) for a in metals for b in metals if a != b][: len(values)]
    label = Label.of("formation_energy_per_atom", Level("PBE"))
    table = CrystalTable.from_crystals(crystals, {"e": values}, {"e": label}, ids=[f"row-{k}" for k in range(len(crystals))])
    path = tmp_path / "pool.parquet"
    table.write(path)
    return str(path)


def test_pool_looks_up_real_labels_and_counts_recall(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [float(v) for v in rng.uniform(0, 1, 120)]
    values[7] = float("nan")  # a row without a label is no candidate
    raw = {
        "rounds": 2,
        "pool": {"table": pool(tmp_path, values), "column": "e", "start_fraction": 0.2},
        "learner": {"strategy": "train", "members": 2, "visits": 200},
        "filter": {"quick_limit": 9, "limit": 9, "volumes": 1},
        "pick": {"per_round": 20, "unbalanced": 1.0, "diversity": 1.0},
        "oracle": {"name": "table"},
        "stable": {"by": "label", "threshold": 0.2},
    }
    Campaign(parse_config(raw), tmp_path / "run").run()
    story = summary(tmp_path / "run", structures=False)
    known = [v for v in values if np.isfinite(v)]
    recall = story["recall"]
    assert recall["total"] == sum(v <= 0.2 for v in known)
    assert recall["looked_at"] == [24, 44, 64]
    assert recall["pool"] == 119
    for point in story["calibration"]:
        assert point["actual"] == pytest.approx(values[int(point["id"].removeprefix("row-"))])


def test_pool_needs_the_table_as_oracle(tmp_path: Path) -> None:
    raw = {"pool": {"table": pool(tmp_path, [0.1] * 10), "column": "e"}, "oracle": {"name": "emt"}, "stable": {"by": "label"}}
    with pytest.raises(ConfigError, match=r'set oracle.name = "table"'):
        Campaign(parse_config(raw), tmp_path / "run").run()


@pytest.mark.slow
def test_misbehaving_oracle_costs_rows_not_the_campaign(tmp_path: Path) -> None:
    oracle = {"name": "tests.discover.moody_emt:make", "workers": 2, "timeout": 4, "retries": 0}
    outcome = campaign(tmp_path / "run", oracle=oracle, rounds=1, pick={"per_round": 16}).run()
    assert outcome.why == "finished"
    story = summary(tmp_path / "run", structures=False)
    by_formula = {f["formula"]: f for f in story["failures"]}
    assert by_formula["CuAu"]["status"] == "timed out"
    assert by_formula["Cu3Au"]["status"] == "crashed"
    assert "nan" in by_formula["CuAu3"]["reason"]
    assert all(f["reason"] for f in story["failures"])
    assert [e["formula"] for e in story["hull"]["entries"] if e["stable"]] == ["Au", "Cu"] or len(story["hull"]["entries"]) >= 2
