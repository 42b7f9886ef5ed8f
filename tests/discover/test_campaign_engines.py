"""One campaign file on every engine: the same picks, the same results."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from engine_drive import PATH

from naica.discover.campaign import Campaign
from naica.discover.config import parse_config
from naica.discover.ledger import Ledger
from naica.errors import RunError

ALLOY = {
    "elements": ["Cu", "Au"],
    "rounds": 1,
    "seed": 3,
    "generate": {"n_elements": [2], "balanced": False, "substitution": False, "max_atoms": 4},
    "filter": {"quick_limit": 2.0, "limit": 2.0, "volumes": 3},
    "pick": {"per_round": 4},
    "oracle": {"name": "emt", "workers": 2},
    "engine": {"shard": 5},
}


def outcome(folder: Path) -> tuple[dict, dict]:
    ledger = Ledger(folder)
    picks = dict(ledger.rows("select key, arm from candidates where picked = 1"))
    energies = {entry.key: entry.energy for entry in ledger.entries()}
    ledger.close()
    return picks, energies


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "here"
    Campaign(parse_config(ALLOY), folder, engine="here").run()
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ["pool", "dask", "aiida"])
def test_same_picks_and_results(here: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"pool": "pebble", "dask": "distributed", "aiida": "aiida"}[engine]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    monkeypatch.setenv("PYTHONPATH", PATH)
    Campaign(parse_config(ALLOY), tmp_path / "run", engine=engine).run()
    picks, energies = outcome(here)
    assert len(picks) == 4
    assert outcome(tmp_path / "run")[0] == picks
    assert outcome(tmp_path / "run")[1] == pytest.approx(energies, abs=1e-8)
    assert not (tmp_path / "run" / "shards").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_judging_that_was_killed_takes_up_its_shards(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from naica.discover import scoring

    scored: list[int] = []
    usual = scoring.cascade

    def dying(model, crystals, *rest, **more):  # the third shard's scorer dies, once
        scored.append(len(crystals))
        if len(scored) == 3:
            raise RunError("killed")
        return usual(model, crystals, *rest, **more)

    monkeypatch.setattr(scoring, "cascade", dying)
    with pytest.raises(RunError, match="killed"):
        Campaign(parse_config(ALLOY), tmp_path / "run", engine="here").run()
    kept = len(list((tmp_path / "run" / "shards").glob("[!.]*.npz")))
    assert kept == 2
    Campaign(parse_config(ALLOY), tmp_path / "run", engine="pool").run()
    picks, _ = outcome(here)
    assert outcome(tmp_path / "run")[0] == picks
    ledger = Ledger(tmp_path / "run")
    candidates = ledger.rows("select count(*) from candidates where scored = 1")[0][0]
    ledger.close()
    # every candidate was scored once, but for those of the shard that died
    assert sum(scored) == candidates + scored[2]
