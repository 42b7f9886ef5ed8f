"""What each stage handled and cost, from the ledger's stages."""

from pathlib import Path

import pytest

from naica.discover.ledger import Ledger
from naica.discover.throughput import sentences, stage_costs


def test_stages_add_up_over_rounds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    look = {"generate made": 1e6, "generate seconds": 2.0, "distinct": 8e5, "merge_seconds": 1.0, "look_seconds": 1.0, "hull_seconds": 1.5,
            "rank_seconds": 0.5}  # fmt: skip
    with ledger.write() as db:
        ledger.finish(db, 0, "compute", {"calls": 3}, 100.0)
        ledger.finish(db, 1, "propose", {"proposed": 100, "sources": {"first look": look, "tables": {"parents": 4}}}, 20.0)
        ledger.finish(db, 2, "propose", {"proposed": 300, "sources": {"compositions": {"structures": 50, "search seconds": 5.0}}}, 20.0)
        ledger.finish(db, 1, "judge", {"scored": 0}, 0.0)
        ledger.finish(db, 1, "compute", {"calls": 4}, 60.0)
    costs = {c["stage"]: c for c in stage_costs(ledger)}
    sources = ["first look, generated", "first look, ranked", "random structures, relaxed"]
    assert list(costs) == ["propose", *(f"propose: {name}" for name in sources), "judge", "compute"]
    assert (costs["propose"]["n"], costs["propose"]["seconds"]) == (400, 40.0)
    assert costs["propose"]["per_second"] == pytest.approx(10.0)
    assert costs["propose: first look, ranked"]["per_second"] == pytest.approx(2e5)
    assert costs["propose: random structures, relaxed"]["each"] == pytest.approx(0.1)
    # the start is no stage of the loop, and what handled nothing has no price
    assert costs["compute"]["n"] == 4
    assert costs["judge"]["each"] is None
    told = sentences(stage_costs(ledger))
    assert "compute: 4 calls in 60 s, 0.067 per s (15 s each)" in told
    assert not any(line.startswith("judge") for line in told)
    assert sentences(None) == ()
