"""Splits by name that a growing set cannot move, noise of labels, named structures, sets that can be read while they are made."""

import json

import numpy as np
import pytest

from naica.errors import ConfigError, InputError
from naica.hamiltonian import noise, parts, workflow
from naica.hamiltonian.evaluate import errors
from naica.hamiltonian.learn import HamiltonianConfig, fit, load
from naica.hamiltonian.sets import SETS, bilayer, graphene, interleaved, twisted
from naica.hamiltonian.sources import source, with_patience
from naica.hamiltonian.store import HamiltonianSet
from naica.structure import Crystal

SETTINGS = {"shells": "1s1p", "cutoff": 4.0}
NETWORK = {"channels": 4, "degree": 2, "blocks": 1, "heads": 1, "gaussians": 8, "cutoff": 3.0}


def salts(count: int) -> list[Crystal]:
    draw = np.random.default_rng(0)
    cell = 2.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return [
        Crystal.from_fractional([11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) + 0.03 * draw.normal(size=(2, 3)), cell)
        for _ in range(count)
    ]


@pytest.fixture
def folder(tmp_path):
    workflow.make(salts(8), tmp_path / "set", "slater-koster", SETTINGS, names=[f"salt-{k}" for k in range(8)], workers=1)
    return tmp_path / "set"


# --- splits ---------------------------------------------------------------------------------------------------------------
def test_a_split_is_by_name_and_does_not_care_for_the_order():
    names = [f"x-{k}" for k in range(20)]
    one, other = parts.split(names, 0.25), parts.split(names[::-1], 0.25)
    assert set(one.test) == set(other.test)
    assert len(one.test) == 5
    assert not set(one.train) & set(one.test)
    assert parts.Split.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert set(parts.split(names, 0.25, seed=1).test) != set(one.test)


def test_large_cells_stay_apart_and_formulas_together():
    names = [f"{f}-{k}" for f in ("AB", "AC", "BC", "B", "C") for k in range(4)] + ["AB-big", "AC-big"]
    found = parts.split(names, 0.4, larger="*-big", formulas=[n.partition("-")[0] for n in names])
    assert found.larger == ("AB-big", "AC-big")
    assert not {n[:2] for n in found.train} & {n[:2] for n in found.test}
    assert len(found.test) == 8
    with pytest.raises(InputError, match="nothing is left"):
        parts.split(["a-big"], larger="*-big")
    with pytest.raises(InputError, match="two structures are called"):
        parts.split(["a", "a", "b"])


def test_a_card_keeps_the_split_and_evaluation_goes_by_it(folder, tmp_path, capsys):
    from naica.app.cli import main

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["hamiltonian", *words])
        told = capsys.readouterr()
        return int(left.value.code or 0), told.out + told.err

    out = tmp_path / "run"
    network = [w for k, v in NETWORK.items() for w in ("--set", f"network.{k}={v}")]
    assert run("train", str(folder), "--out", str(out), "--test", "0.5", "--set", "epochs=1", *network)[0] == 0
    card = load(out)[1]
    split = parts.Split.from_dict(card["split"])
    assert len(split.test) == 4
    code, text = run("evaluate", str(out), str(folder), "--part", "test", "--no-bands", "--json")
    assert code == 0
    told = json.loads(text)["data"] if "data" in json.loads(text) else json.loads(text)
    found = HamiltonianSet(folder)
    from naica.hamiltonian.evaluate import compared

    rows = parts.rows(found.names, split.test, "x")
    assert told["structures"] == 4
    expected = compared(load(out)[0], [found[k] for k in rows], bands=False)["model"].ranges["all"]
    assert told["model"]["ranges"]["all"] == pytest.approx(expected, rel=1e-6)
    code, text = run("evaluate", str(out), str(folder), "--part", "tset")
    assert code != 0
    assert "no part 'tset'" in text
    # another share in the same folder is refused; a set that has grown is no reason to draw anew
    code, text = run("train", str(folder), "--out", str(out), "--test", "0.2", "--set", "epochs=1", *network)
    assert code != 0
    assert "was split by" in " ".join(text.split())
    workflow.make(salts(9), folder, "slater-koster", SETTINGS, names=[f"salt-{k}" for k in range(9)], workers=1)
    assert run("train", str(folder), "--out", str(out), "--test", "0.5", "--set", "epochs=1", *network)[0] == 0
    assert load(out)[1]["split"] == card["split"]


def test_a_model_that_does_not_say_its_split_is_judged_on_all_only(folder, tmp_path):
    from naica.app.actions_hamiltonian import evaluate
    from naica.app.requests_hamiltonian import EvaluateHamiltonianRequest

    found = HamiltonianSet(folder)
    fit([found[0], found[1]], HamiltonianConfig(architecture_config=NETWORK, epochs=1), tmp_path / "run")
    with pytest.raises(ConfigError, match="only --part all"):
        evaluate(EvaluateHamiltonianRequest(tmp_path / "run", str(folder), part="test", bands=False))
    with pytest.raises(InputError, match="is it the set"):
        parts.rows(found.names, ["other"], "here")


# --- noise ----------------------------------------------------------------------------------------------------------------
def test_what_physics_ignores_is_noise(folder):
    """The made-up source is exact: its noise is rounding. A source that rounds has that much."""
    judged, names = noise.measure(folder, 3, workers=1)
    assert len(names) == 3
    assert judged.ranges["all"] < 1e-12
    assert noise.known(folder).ranges == pytest.approx(judged.ranges, nan_ok=True)
    water = Crystal(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]]))
    moved, turn = noise.moved(water, 3)
    assert np.abs(moved.positions - water.positions).max() > 0.1
    np.testing.assert_allclose(moved.positions @ turn, water.positions, atol=1e-12)
    slab = graphene(1, np.random.default_rng(0))
    shifted, turn = noise.moved(slab, 3)
    np.testing.assert_array_equal(turn, np.eye(3))
    np.testing.assert_allclose(shifted.positions[:, 2], slab.positions[:, 2])


def test_noise_of_pyscf_is_that_of_its_integration_grid(tmp_path):
    pytest.importorskip("pyscf")
    water = Crystal(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]]))
    workflow.make([water], tmp_path, "pyscf", {"grid": 1}, names=["water"], workers=1)
    judged, _ = noise.measure(tmp_path, 1, workers=1)
    assert 1e-7 < judged.ranges["all"] < 5e-3
    with pytest.raises(ConfigError, match="does not say which code"):
        noise.measure(tmp_path / "parts")


def test_pairs_that_a_second_run_left_out_count_as_zero():
    one = source("slater-koster")(salts(1)[0], SETTINGS)
    keep = np.flatnonzero(one.distances < 3.0)
    flat = np.concatenate([np.arange(one.starts[k], one.starts[k + 1]) for k in keep])
    fewer = one.replace(pairs=one.pairs[keep], images=one.images[keep], blocks={kind: b[flat] for kind, b in one.blocks.items()})
    again = noise.on_pairs_of(one, fewer)
    near = np.repeat(one.distances < 3.0, np.diff(one.starts))
    np.testing.assert_array_equal(again.blocks["H"], np.where(near, one.blocks["H"], 0))


# --- errors ---------------------------------------------------------------------------------------------------------------
def test_errors_by_orbital_and_of_densities():
    true = source("slater-koster")(salts(1)[0], SETTINGS)
    worse = np.zeros_like(true.blocks["H"])
    for p, (i, j) in enumerate(true.pairs):
        if true.crystal.numbers[i] == 11 and true.crystal.numbers[j] == 17:
            block = np.zeros((4, 4))
            block[0, 2] = 0.1  # s of sodium with one p of chlorine
            worse[true.starts[p] : true.starts[p + 1]] = block.ravel()
    judged = errors([(true, true.with_blocks(H=true.blocks["H"] + worse))])
    orbitals = np.array(judged.orbitals["Na-Cl"])
    assert orbitals.shape == (4, 4)
    assert orbitals[0, 2] == pytest.approx(0.1, abs=0.01)
    assert orbitals[3, 1] < 0.01
    assert judged.shells["s-p"] > judged.shells["p-p"]
    assert 0 < judged.density < 0.2
    assert errors([(true, true)]).density == pytest.approx(0, abs=1e-12)
    assert np.isnan(judged.energy)


# --- making ---------------------------------------------------------------------------------------------------------------
def test_a_set_in_the_making_can_be_read_and_is_packed_as_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "PER_SHARD", 3)
    sizes, shards = [], []

    def tell(p):
        sizes.append(len(HamiltonianSet(tmp_path)))
        shards.append(len(list(tmp_path.glob("*.h5"))))

    names = [f"s{k}" for k in range(8)]
    found = workflow.make(salts(8), tmp_path, "slater-koster", SETTINGS, names=names, workers=1, progress=tell)
    assert min(sizes) >= 1
    assert sizes == sorted(sizes)
    assert shards[-1] == 2
    assert (told := workflow.standing(tmp_path))["done"] == 8
    assert told["left"] == 0
    assert sorted(found.names) == names
    assert not list((tmp_path / "parts").glob("*.h5"))
    assert all(told["cpu_seconds"] >= 0 and told["tries"] == 1 for told in found.told("info"))


def test_an_engine_of_ones_own_runs_the_tasks(tmp_path):
    seen = []

    def engine(tasks, seconds):
        for task in tasks:
            seen.append((task.name, task.tries))
            if task.name == "s1":
                yield task, RuntimeError("the queue is down")
            else:
                workflow.perform(task)
                yield task, None

    found = workflow.make(salts(3), tmp_path, "slater-koster", SETTINGS, names=["s0", "s1", "s2"], retries=2, engine=engine)
    assert sorted(found.names) == ["s0", "s2"]
    assert [t for n, t in seen if n == "s1"] == [0, 1, 2]
    assert workflow.failures(tmp_path)["s1"] == ["RuntimeError: the queue is down"] * 3


def test_each_try_is_more_patient():
    assert with_patience("cp2k", {}, 0) == {}
    assert with_patience("cp2k", {"steps": 40}, 2) == {"steps": 90, "mixing": 0.075}
    assert with_patience("slater-koster", {"cutoff": 3.0}, 2) == {"cutoff": 3.0}


# --- structures -----------------------------------------------------------------------------------------------------------
def test_named_structures_are_what_their_names_say():
    for name in ("water", "graphene", "silicon", "universal"):
        rows = SETS[name].structures()
        assert len({n for n, _ in rows}) == len(rows)
        again = SETS[name].structures()
        assert all(a == b for (_, a), (_, b) in zip(rows[:20], again[:20], strict=True))
    kinds = [n.split("-")[1] for n, _ in SETS["graphene"].structures()[:80]]
    assert {"1x1", "2x2", "bilayer"} <= set(kinds)
    assert 3 < kinds.count("bilayer") < 30
    assert interleaved([[("a", None), ("b", None)], [("c", None)]]) == [("a", None), ("c", None), ("b", None)]


def test_sheets_turned_against_each_other_fit_their_cell():
    flat = twisted(1, 2)
    assert len(flat) == 28
    lower = flat.positions[:14]
    distance = np.linalg.norm(flat.cell[:2], axis=1)
    np.testing.assert_allclose(distance, 2.467 * np.sqrt(7), rtol=1e-12)
    from naica.graphs.neighbours import within

    for sheet in (lower, flat.positions[14:]):
        bonds = within(sheet, flat.cell, flat.pbc, 1.6)
        assert len(bonds.length) == 3 * 14
        np.testing.assert_allclose(bonds.length, 2.467 / np.sqrt(3), rtol=1e-9)
    # the directions of bonds differ by the angle of the cell
    angles = [np.degrees(np.arctan2(*within(s, flat.cell, flat.pbc, 1.6).vector[:, 1::-1].T)) % 60 for s in (lower, flat.positions[14:])]
    difference = (np.median(angles[0]) - np.median(angles[1])) % 60
    assert min(abs(difference - 21.787), abs(difference - (60 - 21.787))) < 0.01
    two = bilayer(np.random.default_rng(1))
    assert len(two) == 4
    assert 2.8 < two.positions[2:, 2].mean() - two.positions[:2, 2].mean() < 3.9
