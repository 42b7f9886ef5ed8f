"""The comparison of networks: splits, budgets, resumption, ranks, reports. The sets are made up here, so no data are needed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from naica.data import CrystalTable, Label
from naica.errors import ConfigError, InputError, RunError
from naica.insight import comparison, comparison_report, ranking, tasks
from naica.insight.tasks import Task
from naica.structure import Crystal

TASK = Task("salts", "Made-up salts", "made-up", "gap", "mae")
METAL = Task("metals", "Made-up metals", "made-up", ("metal", "odd"), "auc", split="random")


def salts() -> CrystalTable:
    """Two-atom cells whose made-up gap follows from elements and lattice constant; two classes that follow from the elements."""
    random = np.random.default_rng(1)
    crystals, gap = [], []
    for first in (3, 11, 19, 37, 12, 20, 30, 48):
        for second in (8, 9, 16, 17, 35, 53):
            for _ in range(2):
                a = 4 + random.random()
                cell = a / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
                crystals.append(Crystal.from_fractional([first, second], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), cell))
                gap.append(0.05 * second - 0.03 * first + a)
    numbers = np.array([c.numbers for c in crystals])
    columns = {"gap": np.array(gap), "metal": (numbers[:, 1] > 16).astype(float), "odd": (numbers[:, 0] % 2).astype(float)}
    columns["odd"][:5] = np.nan
    labels = {"gap": Label.of("band_gap"), "metal": Label.of("is_metal"), "odd": Label.of("is_metal")}
    return CrystalTable.from_crystals(crystals, columns, labels, ids=[f"s{k}" for k in range(len(crystals))])


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    table = salts()
    monkeypatch.setattr(tasks, "load_set", lambda name: table)
    monkeypatch.setattr(tasks, "set_labels", lambda task: table.labels)


def plan(models: tuple[str, ...] = ("cgcnn",), task: Task = TASK, seeds: tuple[int, ...] = (0,), minutes: float = 0.01) -> comparison.Plan:
    return comparison.Plan((task,), models, seeds, minutes)


# --- tables ---------------------------------------------------------------------------------------------------------------------
def test_every_task_names_a_known_set_column_and_quantity() -> None:
    from naica.data.registry import dataset

    for task in tasks.tasks().values():
        known = dataset(task.set)
        assert all(column in known.labels for column in task.columns), task.name
        assert task.system == ("molecule" if known.kind == "molecules" else "crystal"), task.name
        assert all(p.split and p.source for p in task.published)
        tasks.unit(task)


def test_every_network_has_a_recipe_that_training_takes() -> None:
    from naica.models import ARCHITECTURES, backbone

    for model in ARCHITECTURES:
        found = tasks.recipe(model)
        assert set(found.systems) <= {"crystal", "molecule"}
        assert found.systems
        config = found.config(800, 1)
        assert config.seed == 1
        backbone(model, **config.architecture_config)


def test_small_sets_take_smaller_steps() -> None:
    found = tasks.recipe("cgcnn")
    most = found.settings["batch_size"]
    sizes = [found.config(rows, 0).batch_size for rows in (50, 600, 10**6)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 16
    assert sizes[-1] == most


def test_unknown_names_are_refused_with_a_proposal() -> None:
    with pytest.raises(InputError, match="phonons"):
        tasks.chosen_tasks(["phonon"])
    with pytest.raises(ConfigError, match="cgcnn"):
        tasks.chosen_models(["cgcn"])


def test_a_set_stands_for_all_its_tasks_and_rows_override() -> None:
    found = tasks.chosen_tasks(["mp_formation"], rows=100)
    assert {t.set for t in found} == {"mp_formation"}
    assert len(found) >= 3
    assert all(t.rows == 100 for t in found)
    assert all(t.rows is None for t in tasks.chosen_tasks(["mp_formation"], rows=0))


def test_the_sample_of_rows_does_not_depend_on_their_order(made_up: None) -> None:
    table = salts()
    some = tasks._sample(table.ids, np.arange(len(table)), 20)
    turned = table.take(np.arange(len(table))[::-1])
    again = tasks._sample(turned.ids, np.arange(len(table)), 20)
    assert {table.ids[k] for k in some} == {turned.ids[k] for k in again}
    assert len(some) == 20


def test_logarithms_have_no_label_where_a_value_is_not_positive(made_up: None) -> None:
    task = replace(TASK, transform="log10", quantity="log_bulk_modulus")
    table = tasks.load(task)
    raw = np.asarray(salts().column("gap"))
    assert len(table) == (raw > 0).sum() > 0
    assert np.allclose(np.asarray(table.column("log_bulk_modulus")), np.log10(raw[raw > 0]))


# --- runs ------------------------------------------------------------------------------------------------------------------------
def test_a_run_keeps_to_its_split_and_its_budget_and_is_not_repeated(made_up: None, tmp_path: Path) -> None:
    mine = plan(minutes=0.02)
    comparison.claim(mine, tmp_path)
    assert comparison.work(mine, tmp_path) == 3
    runs = {r["model"]: r for r in comparison.read_runs(tmp_path)}
    assert set(runs) == {"mean", "composition-ridge", "cgcnn"}
    assert all(r["status"] == "ok" for r in runs.values()), runs
    test = tasks.parts(TASK, salts(), 0).test.tolist()
    assert all(r["test"]["rows"] == test for r in runs.values())
    assert runs["cgcnn"]["cpu_seconds"] < 5
    assert runs["cgcnn"]["epochs"]["done"] >= 1
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/*.json")}
    assert comparison.work(mine, tmp_path) == 0
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/*.json")}
    # the mean predictor is the mean of all rows that are not tested
    values = np.asarray(salts().column("gap"))
    rest = np.setdiff1d(np.arange(len(values)), test)
    assert runs["mean"]["test"]["predicted"][0][0] == pytest.approx(values[rest].mean(), rel=1e-6)
    ridge = ranking.metric(TASK, *(np.array(runs["composition-ridge"]["test"][k]) for k in ("actual", "predicted")))
    assert ridge < 0.6 * ranking.metric(TASK, *(np.array(runs["mean"]["test"][k]) for k in ("actual", "predicted")))


def test_several_columns_with_gaps_are_one_run(made_up: None, tmp_path: Path) -> None:
    mine = plan(task=METAL)
    comparison.claim(mine, tmp_path)
    comparison.work(mine, tmp_path)
    runs = {r["model"]: r for r in comparison.read_runs(tmp_path)}
    assert runs["cgcnn"]["status"] == "ok", runs["cgcnn"]
    assert np.array(runs["cgcnn"]["test"]["predicted"]).shape == np.array(runs["cgcnn"]["test"]["actual"]).shape
    (standing,) = ranking.standings(list(runs.values()), {"metals": METAL})
    mean, ridge = standing.score("mean"), standing.score("composition-ridge")
    assert mean is not None
    assert mean.value == pytest.approx(0.5)
    assert mean.normalised == pytest.approx(1.0)
    assert ridge is not None
    assert ridge.value > 0.8


def test_a_failing_network_is_recorded_and_the_others_go_on(made_up: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from naica.models.gnome import GNoME

    def broken(self: Any, batch: Any) -> Any:
        raise RuntimeError("no motif anywhere")

    monkeypatch.setattr(GNoME, "forward", broken)
    mine = plan(("gnome", "cgcnn"))
    comparison.claim(mine, tmp_path)
    comparison.work(mine, tmp_path)
    runs = {r["model"]: r for r in comparison.read_runs(tmp_path)}
    assert runs["gnome"]["status"] == "failed"
    assert "no motif anywhere" in runs["gnome"]["reason"]
    assert runs["cgcnn"]["status"] == "ok"
    assert comparison.work(mine, tmp_path) == 0
    monkeypatch.undo()
    tables = salts()
    monkeypatch.setattr(tasks, "load_set", lambda name: tables)
    assert comparison.work(mine, tmp_path, retry=True) == 1
    assert {r["status"] for r in comparison.read_runs(tmp_path)} == {"ok"}


def test_another_budget_in_the_same_folder_is_refused(made_up: None, tmp_path: Path) -> None:
    comparison.claim(plan(), tmp_path)
    comparison.claim(plan(("gnome",), seeds=(0, 1)), tmp_path)
    with pytest.raises(RunError, match="minutes"):
        comparison.claim(plan(minutes=0.5), tmp_path)
    with pytest.raises(RunError, match="rows"):
        comparison.claim(plan(task=replace(TASK, rows=10)), tmp_path)


def test_a_run_that_another_process_holds_is_left_to_it(made_up: None, tmp_path: Path) -> None:
    import fcntl

    mine = plan(())
    comparison.claim(mine, tmp_path)
    path = mine.runs()[0].path(tmp_path)
    path.parent.mkdir(parents=True)
    with path.with_suffix(".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert comparison.work(mine, tmp_path) == 1
        assert not path.exists()
    assert comparison.work(mine, tmp_path) == 1
    assert path.exists()


# --- ranks -----------------------------------------------------------------------------------------------------------------------
def run_of(
    model: str, seed: int, predicted: list[float], rows: list[int] | None = None, missing: int = 0, data: str = "d"
) -> dict[str, Any]:
    rows = list(range(len(predicted))) if rows is None else rows
    return {
        "task": "salts",
        "model": model,
        "seed": seed,
        "minutes": 1.0,
        "status": "ok",
        "data": data,
        "rows": {"train": 100, "val": 10, "test": len(rows)},
        "missing": {"test": missing, "train": 0},
        "cpu_seconds": 60.0,
        "parameters": 1000,
        "epochs": {"planned": 5, "done": 5, "best": 4},
        "train_per_second": 100.0,
        "infer_per_second": 200.0,
        "graph_cpu_seconds": 1.0,
        "rejected": {"no motif": missing} if missing else {},
        "test": {"rows": rows, "actual": [[0.0]] * len(rows), "predicted": [[p] for p in predicted]},
    }


@given(st.lists(st.lists(st.floats(0.1, 9), min_size=3, max_size=3), min_size=1, max_size=7), st.integers(0, 3))
def test_ranks_add_up_whatever_ties(errors: list[list[float]], unable: int) -> None:
    able = {f"m{k}": dict(enumerate(values)) for k, values in enumerate(errors)}
    ranks = ranking._ranks(TASK, able, [f"u{k}" for k in range(unable)])
    n = len(errors) + unable
    assert math.isclose(sum(ranks.values()), n * (n + 1) / 2)
    assert all(ranks[f"u{k}"] > len(errors) for k in range(unable))


def test_a_difference_within_its_standard_error_is_a_tie() -> None:
    able = {"a": {0: 1.0, 1: 1.2}, "b": {0: 1.2, 1: 1.0}, "c": {0: 1.5, 1: 1.7}}
    assert ranking._ranks(TASK, able, []) == {"a": 1.5, "b": 1.5, "c": 3.0}
    # paired: the same small advantage on every split is no tie, though the spread over splits is larger
    assert ranking._ranks(TASK, {"a": {0: 1.0, 1: 3.0}, "b": {0: 1.1, 1: 3.1}}, []) == {"a": 1.0, "b": 2.0}


def test_areas_rank_the_other_way_round() -> None:
    assert ranking._ranks(replace(TASK, metric="auc"), {"a": {0: 0.9}, "b": {0: 0.8}}, []) == {"a": 1.0, "b": 2.0}


def test_networks_are_judged_on_the_rows_that_all_can_do() -> None:
    whole = run_of("a", 0, [1.0] * 19 + [50.0])
    fewer = run_of("b", 0, [2.0] * 19, rows=list(range(19)), missing=1)
    half = run_of("c", 0, [0.1] * 10, rows=list(range(10)), missing=10)
    (standing,) = ranking.standings([whole, fewer, half, run_of("mean", 0, [4.0] * 20)], {"salts": TASK})
    a, b, c = (standing.score(m) for m in "abc")
    assert a
    assert b
    assert c
    assert (a.value, b.value) == (1.0, 2.0)
    assert (a.rank, b.rank) == (1.0, 2.0)
    # half of the rows missing: judged on its own ones, said so, and last however small its error
    assert c.own_rows
    assert c.value == pytest.approx(0.1)
    assert c.rank == 3.0
    assert c.missing == 0.5
    assert a.normalised == pytest.approx(0.25)
    assert c.normalised == pytest.approx(0.025)
    assert "no motif" in c.reason


def test_runs_on_other_rows_or_labels_do_not_compare() -> None:
    with pytest.raises(InputError, match="same rows"):
        ranking.standings([run_of("a", 0, [1.0]), run_of("b", 0, [1.0], data="e")], {"salts": TASK})


def test_error_bars_are_standard_errors_over_seeds() -> None:
    runs = [run_of("a", seed, [value] * 4) for seed, value in enumerate((1.0, 2.0, 3.0))]
    (standing,) = ranking.standings(runs, {"salts": TASK})
    score = standing.score("a")
    assert score
    assert score.value == 2.0
    assert score.error == pytest.approx(1 / math.sqrt(3))


def test_seeds_of_different_recipes_are_told_apart() -> None:
    runs = [{**run_of("a", seed, [1.0]), "recipe": {"learning_rate": rate}} for seed, rate in enumerate((1e-3, 3e-3))]
    (standing,) = ranking.standings([*runs, *(run_of("b", seed, [1.0]) for seed in range(2))], {"salts": TASK})
    said = {s.model: s.reason for s in standing.scores}
    assert "different recipes" in said["a"]
    assert said["b"] == ""


# --- joining -----------------------------------------------------------------------------------------------------------------------
def of_seeds(errors: dict[str, list[float]], seeds: list[int]) -> list[dict[str, Any]]:
    """Runs in which each network is off by its error on every row; the mean predictor is off by 4."""
    named = {**errors, "mean": [4.0] * len(seeds)}
    return [run_of(model, seed, [off] * 20) for model, values in named.items() for seed, off in zip(seeds, values, strict=True)]


@pytest.fixture
def no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    table = salts()
    monkeypatch.setattr(tasks, "set_labels", lambda task: table.labels)


@pytest.mark.parametrize("keeps_seeds", [True, False])
@given(a=st.lists(st.floats(0.1, 9), min_size=3, max_size=5), b=st.lists(st.floats(0.1, 9), min_size=3, max_size=5), cut=st.integers(1, 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_seeds_that_join_a_table_are_as_if_measured_together(no_labels, keeps_seeds, a, b, cut) -> None:
    n = min(len(a), len(b))
    errors = {"a": a[:n], "b": b[:n]}
    whole = ranking.standings(of_seeds(errors, list(range(n))), {"salts": TASK})[0]
    first = ranking.standings(of_seeds({m: v[:cut] for m, v in errors.items()}, list(range(cut))), {"salts": TASK})
    later = ranking.standings(of_seeds({m: v[cut:] for m, v in errors.items()}, list(range(cut, n))), {"salts": TASK})
    table = comparison_report.measured(first)
    if not keeps_seeds:
        for score in table["tasks"][0]["scores"]:
            score["per_seed"] = {}
    both = ranking.joined(later, table, {"salts": TASK})[0]
    apart = np.array(a[:n]) - np.array(b[:n])
    clear = abs(abs(apart.mean()) - apart.std(ddof=1) / n**0.5)
    for model in ("a", "b", "mean"):
        one, other = both.score(model), whole.score(model)
        assert one.seeds == n
        assert (one.value, one.error, one.normalised) == pytest.approx((other.value, other.error, other.normalised), rel=1e-4, abs=1e-4)
        if keeps_seeds:
            assert one.per_seed == pytest.approx(other.per_seed, rel=1e-5)
            # the table keeps six digits: only a difference that is its own error bar to that many may fall on either side
            assert one.rank == pytest.approx(other.rank, nan_ok=True) or clear < 1e-4
    if not keeps_seeds:
        assert sum(s.rank for s in both.networks) == 3.0


def test_a_seed_in_both_counts_once_and_other_minutes_take_the_place(no_labels) -> None:
    first = ranking.standings(of_seeds({"a": [1.0, 2.0]}, [0, 1]), {"salts": TASK})
    table = comparison_report.measured(first)
    again = ranking.standings(of_seeds({"a": [7.0, 3.0], "c": [1.0, 1.0]}, [1, 2]), {"salts": TASK})
    both = ranking.joined(again, table, {"salts": TASK})[0]
    assert both.score("a").per_seed == {0: 1.0, 1: 2.0, 2: 3.0}
    assert both.score("c").seeds == 2
    longer = [{**run, "minutes": 9.0} for run in of_seeds({"a": [0.5]}, [0])]
    alone = ranking.joined(ranking.standings(longer, {"salts": TASK}), table, {"salts": TASK})[0]
    assert (alone.minutes, alone.score("a").value) == (9.0, 0.5)
    assert ranking.joined([], table, {"salts": TASK})[0].score("a").per_seed == {0: 1.0, 1: 2.0}
    wider = [{**run, "rows": {**run["rows"], "train": 300}} for run in of_seeds({"a": [0.5]}, [2])]
    with pytest.raises(InputError, match="300"):
        ranking.joined(ranking.standings(wider, {"salts": TASK}), table, {"salts": TASK})


def test_what_is_compared_where_nobody_chooses_has_a_recipe() -> None:
    found = tasks.chosen_models([])
    assert {"cgcnn", "megnet", "schnet", "selenite", "fingerprint", "orbnet"} <= set(found)
    # networks for energies and for Hamiltonians have comparisons of their own
    assert not {"mace", "deeph2", "ace"} & set(found)


# --- report ----------------------------------------------------------------------------------------------------------------------
def test_the_report_says_what_failed_what_is_missing_and_what_others_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = salts()
    monkeypatch.setattr(tasks, "set_labels", lambda task: table.labels)
    task = replace(TASK, published=(tasks.Published("Other", 0.1, "a paper", "ten folds"),))
    failed = {
        **{k: run_of("f", 0, [])[k] for k in ("task", "model", "seed", "minutes")},
        "status": "failed",
        "reason": "no graph",
        "cpu_seconds": 1.0,
    }
    runs = [run_of("a", s, [1.0 + s] * 20) for s in range(2)] + [run_of("c", 0, [0.1] * 10, list(range(10)), 10), failed]
    runs += [run_of("mean", s, [4.0] * 20) for s in range(2)]
    found = ranking.standings(runs, {"salts": task})
    paths = comparison_report.write(found, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for words in ("1.50 ± 0.50", "failed (no graph)", "50.0% of the test rows missing", "(own rows)", "on other splits", "ten folds"):
        assert words in text, words
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].count(",") == lines[1].count(",")
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert [s["model"] for s in kept["tasks"][0]["scores"]] == ["a", "c", "mean"]
    assert paths[-1].stat().st_size > 10_000


@given(st.floats(1e-3, 1e4), st.floats(1e-4, 1e2))
def test_numbers_show_two_figures_of_their_error_bar(value: float, error: float) -> None:
    shown = float(f"{error:.{comparison_report.digits(value, error)}f}")
    assert shown == pytest.approx(error, rel=0.05, abs=0.5 if error > 10 else 0)
