"""The recommendation reads the measured table and says how far its evidence is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from naica.errors import InputError, MissingPart
from naica.insight.recommend import Need, advise, measured, settings, shipped


def score(model: str, left: float | None, value: float = 0.2, own: bool = False, error: float | None = 0.01) -> dict[str, Any]:
    rank = None if model in ("mean", "composition-ridge") else 1.0
    facts = {"epochs": 12.0, "parameters": 10.0, "train_per_second": 1.0, "infer_per_second": 1.0, "cpu_seconds": 60.0}
    return {
        "model": model,
        "seeds": 3,
        "value": value,
        "error": error,
        "error_left": left,
        "rank": rank,
        "missing": 0.0,
        "own_rows": own,
        **facts,
    }


def task(quantity: str, rows: int, *scores: dict[str, Any], system: str = "crystal", kind: str = "regression") -> dict[str, Any]:
    metric = "mae" if kind == "regression" else "auc"
    about = {"task": quantity, "title": quantity, "set": "s", "system": system, "quantity": quantity, "kind": kind, "metric": metric}
    return {**about, "unit": "eV", "train_rows": rows, "test_rows": 10, "split": "composition", "minutes": 2.0, "scores": list(scores)}


def table(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"format": 1, "tasks": list(tasks)}


GAP = task("band_gap", 1000, score("cgcnn", 0.3, 0.5), score("schnet", 0.2, 0.4), score("composition-ridge", 0.5))
ENERGY = task("formation_energy_per_atom", 50_000, score("cgcnn", 0.05, 0.04), score("schnet", 0.1, 0.08))


def test_the_nearest_measured_task_decides() -> None:
    both = table(GAP, ENERGY)
    small = advise(Need(800, "crystal", "band_gap", "regression"), both)
    assert small.candidates[0].model == "schnet"
    assert small.expected == pytest.approx((0.38, 0.42))
    assert small.unit == "MAE eV"
    assert small.minutes == 2.0
    assert small.epochs == 12
    assert small.evidence[0].task["quantity"] == "band_gap"
    large = advise(Need(60_000, "crystal", "formation_energy_per_atom", "regression"), both)
    assert large.candidates[0].model == "cgcnn"
    assert not large.caveats
    assert not small.far
    assert not large.far


def test_tasks_that_are_as_near_all_count_for_the_expected_error() -> None:
    one = task("band_gap", 1000, score("cgcnn", 0.2, 0.2), score("schnet", 0.3, 0.3))
    other = task("band_gap", 1010, score("cgcnn", 0.4, 0.4), score("schnet", 0.5, 0.5))
    assert advise(Need(1000, "crystal", "band_gap", "regression"), table(one, other)).expected == pytest.approx((0.18, 0.42))


def test_where_nothing_near_was_measured_the_share_of_all_tasks_is_told() -> None:
    wide = [task(q, 1000, score("cgcnn", left)) for q, left in (("band_gap", 0.1), ("dielectric_constant", 0.2), ("bulk_modulus", 0.3))]
    far = task("energy_per_atom", 40, score("cgcnn", 0.7))
    found = advise(Need(10**6, "crystal", "density", "regression"), table(*wide, far))
    assert found.far
    assert found.expected == pytest.approx((10.0, 70.0))


def test_no_opinion_is_built_in() -> None:
    turned = task("band_gap", 1000, score("cgcnn", 0.1), score("schnet", 0.2))
    assert advise(Need(800, "crystal", "band_gap", "regression"), table(turned)).candidates[0].model == "cgcnn"


def test_an_answer_far_from_what_was_measured_says_so() -> None:
    found = advise(Need(20, "crystal", "bulk_modulus", "regression", deviation=10.0), table(GAP))
    said = " ".join(found.caveats)
    assert "bulk_modulus was not measured" in said
    assert "50 times more than yours" in said
    assert found.far
    # the share of the mean predictor's error that was left, in the labels' unit
    assert found.expected == pytest.approx((2.0, 2.0))
    assert advise(Need(20, "crystal", "bulk_modulus", "regression"), table(GAP)).unit.startswith("%")


def test_a_baseline_that_does_as_well_is_named() -> None:
    humble = task("band_gap", 1000, score("cgcnn", 0.3), score("composition-ridge", 0.25))
    assert any("ridge" in c for c in advise(Need(900, "crystal", "band_gap", "regression"), table(humble)).caveats)


def test_a_network_judged_on_its_own_rows_is_no_evidence() -> None:
    own = task("band_gap", 1000, score("amdnet", 0.01, own=True), score("cgcnn", 0.3))
    found = advise(Need(1000, "crystal", "band_gap", "regression"), table(own))
    assert [c.model for c in found.candidates] == ["cgcnn"]
    assert found.candidates[0].behind == 0.0


def test_a_network_measured_far_away_only_is_no_candidate() -> None:
    only_large = task("formation_energy_per_atom", 50_000, score("gnome", 0.01), score("cgcnn", 0.05))
    found = advise(Need(1000, "crystal", "band_gap", "regression"), table(GAP, only_large))
    assert "gnome" not in [c.model for c in found.candidates]


def test_what_was_never_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no class on molecules was measured; the table has regression on crystals"):
        advise(Need(100, "molecule", "is_active", "class"), table(GAP))


def test_damaged_and_missing_tables(tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match="naica zoo"):
        measured(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text(json.dumps({"format": 7, "tasks": []}))
    with pytest.raises(InputError, match="no measured table"):
        measured(tmp_path / "bad.json")


def test_the_shipped_table_answers_and_its_settings_train() -> None:
    import tomllib

    from naica.training.config import TrainConfig

    assert shipped().exists()
    found = advise(Need(800, "crystal", "band_gap", "regression"), measured())
    config = TrainConfig.from_dict(tomllib.loads(settings(found.candidates[0].model, 800, found.epochs, "regression")))
    assert config.architecture == found.candidates[0].model
    assert config.epochs == found.epochs
