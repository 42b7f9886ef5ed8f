"""Candidates by the million: keys, exact merging beside a plain set, the first look's tables, kills, and recall of the ranking."""

from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover import mass
from naica.discover.enumeration import is_allowed, prototype_recipes
from naica.discover.first_look import BinaryHulls, PairEnergies, complete_hull, shipped
from naica.discover.hull import Hull
from naica.discover.mass import (
    Filled,
    Frame,
    MassRun,
    binary_distance,
    elements_of,
    formula_codes,
    hull_distance,
    keys_of,
    prototype_blocks,
    substitution_blocks,
)
from naica.discover.recipes import realise
from naica.discover.substitution import Substitutions, SubstitutionStream
from naica.errors import InputError, RunError
from naica.structure import Crystal
from naica.structure.composition import parse_formula
from naica.structure.elements import element
from naica.structure.prototypes import PROTOTYPES
from naica.structure.symmetry import labels, prototype_label, prototype_orders

ELEMENTS = ("Li", "Mg", "Al", "Ti", "Fe", "O", "F", "S")


def parents() -> list[Crystal]:
    names = ("rocksalt", "fluorite", "rutile", "perovskite", "spinel", "alpha-NaFeO2", "chalcopyrite")
    return [PROTOTYPES[n].crystal() for n in names]


# --- keys --------------------------------------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**22 - 1), st.lists(st.lists(st.integers(1, 103), min_size=4, max_size=4), min_size=1, max_size=20))
def test_a_key_gives_back_what_is_where(group: int, rows: list[list[int]]) -> None:
    frame = Frame("prototype:x", (1, 2, 3, 4), (1, 1, 2, 4), "label", ((0, 1, 2, 3),))
    filled = Filled(frame, np.array(rows, dtype=np.uint8), np.zeros(len(rows), np.float32), np.ones(len(rows), bool))
    keys = keys_of(group, filled)
    assert elements_of(keys)[:, :4].tolist() == rows
    assert not elements_of(keys)[:, 4:].any()
    assert len(np.unique(keys)) == len({tuple(r) for r in rows})


@pytest.mark.parametrize("name", ["rocksalt", "full-heusler", "quaternary-heusler", "chalcopyrite", "spinel"])
def test_orders_of_a_prototype_make_one_structure(name: str) -> None:
    crystal = PROTOTYPES[name].crystal()
    label, orders = prototype_orders(crystal)
    assert label == prototype_label(crystal)
    for order in orders:
        renamed = dict(zip(orders[0], order, strict=True))
        swapped = crystal.replace(numbers=np.array([renamed[z] for z in crystal.numbers.tolist()]))
        assert labels(swapped) == labels(crystal)
    assert len(orders) == 1 + len(PROTOTYPES[name].equivalent)


def test_formula_codes_know_neither_order_nor_multiples() -> None:
    z = np.array([[12, 13, 8, 0], [8, 12, 13, 0], [12, 13, 8, 0], [12, 13, 8, 0]], dtype=np.uint8)
    n = np.array([[1, 2, 4, 0], [4, 1, 2, 0], [2, 4, 8, 0], [2, 1, 4, 0]])
    codes = formula_codes(z, n)
    assert codes[0] == codes[1] == codes[2] != codes[3]


# --- sources -----------------------------------------------------------------------------------------------------------------
def test_decorations_are_those_of_the_enumeration() -> None:
    chosen = [PROTOTYPES[n] for n in ("rocksalt", "perovskite", "spinel", "pyrite", "half-heusler")]
    made = {filled.frame.recipe(row) for block in prototype_blocks(chosen, ELEMENTS) for filled in block() for row in filled.elements}
    numbers = [element(s).number for s in ELEMENTS]
    wanted = {(p.name, way) for p in chosen if p.charges for way in permutations(numbers, len(p.elements)) if is_allowed(p, way)}
    assert {(r.name, tuple(z for _, z in r.species)) for r in made} == wanted
    assert set(prototype_recipes(ELEMENTS, prototypes=chosen)) <= made


def test_substitutions_are_those_of_the_generator() -> None:
    for parent in parents():
        for filled in (f for block in substitution_blocks([parent], ELEMENTS, Counter()) for f in block()):
            made = {filled.frame.recipe(row): p for row, p in zip(filled.elements, filled.likelihood, strict=True)}
            # two states of one element on two places (Ti2+ and Ti4+) are one element on two places: left to the generator
            size = len(parent.composition)
            made_of = {r: realise(r, {parent.hash: parent}).composition for r, _ in Substitutions({parent.hash: parent}, ELEMENTS)}
            wanted = {r: p for r, p in Substitutions({parent.hash: parent}, ELEMENTS) if len(made_of[r]) == size}
            # the generator leaves out what has the parent's formula (two elements exchanged)
            assert set(wanted) <= set(made)
            for recipe in set(made) - set(wanted):
                assert realise(recipe, {parent.hash: parent}).formula == parent.formula
            for recipe, likelihood in wanted.items():
                assert made[recipe] == pytest.approx(likelihood, rel=1e-5)


def test_a_stream_of_parents_gives_what_all_at_once_give() -> None:
    crystals = parents()
    together = Counter(r.key for r, _ in Substitutions({c.hash: c for c in crystals}, ELEMENTS))
    stream = SubstitutionStream(iter(crystals), ELEMENTS)
    assert Counter(r.key for r, _ in stream) == together
    assert len(list(SubstitutionStream(iter(crystals), ELEMENTS, limit=2))) <= 2 * len(crystals)


def test_parents_that_cannot_be_used_are_counted() -> None:
    dropped: Counter[str] = Counter()
    crystals = [PROTOTYPES["laves-C15"].crystal(), PROTOTYPES["quaternary-heusler"].crystal(), *parents()]
    [f for block in substitution_blocks(crystals, ELEMENTS, dropped, n_elements=(2, 3)) for f in block()]
    assert dropped["size or number of elements outside the limits"] == 1
    assert dropped["no oxidation states can be assigned"] == 1


# --- runs --------------------------------------------------------------------------------------------------------------------
def blocks(elements: tuple[str, ...] = ELEMENTS) -> list:
    return [*prototype_blocks([PROTOTYPES[n] for n in ("rocksalt", "perovskite", "spinel")], elements),
            *substitution_blocks(parents(), elements, Counter(), block=2)]  # fmt: skip


def plain(elements: tuple[str, ...] = ELEMENTS) -> dict[tuple, float]:
    """Distinct candidates by label and elements, without keys, runs or ranges."""
    found: dict[tuple, float] = {}
    for filled in (f for b in blocks(elements) for f in b()):
        for row, p in zip(filled.elements.tolist(), filled.likelihood.tolist(), strict=True):
            where = min(tuple(row[k] for k in order) for order in filled.frame.orders)
            found[filled.frame.label, where] = max(p, found.get((filled.frame.label, where), 0.0))
    return found


@pytest.mark.parametrize("chunk", [50, 1_000_000])
def test_distinct_whatever_the_chunks(tmp_path: Path, chunk: int) -> None:
    run = MassRun(tmp_path, keep=10_000, per_formula=100, chunk=chunk)
    made = run.generate(blocks())
    best, told = run.rank()
    wanted = plain()
    assert told["distinct"] == len(best) == len(wanted) < made["made"]
    assert sorted(b.likelihood for b in best) == pytest.approx(sorted(wanted.values()), rel=1e-5)
    assert [b.distance for b in best] == sorted(b.distance for b in best)
    known = {c.hash: c for c in parents()}
    for one in best[::97]:
        crystal = realise(one.recipe, known)
        assert crystal.formula == one.formula
        assert one.energy == pytest.approx(float(shipped().of([one.formula])[0]), abs=1e-4)


def test_caps_known_formulas_and_the_hull(tmp_path: Path) -> None:
    names = [*ELEMENTS, "MgO", "MgAl2O4", "LiF"]
    hull = Hull(names, [0.0] * len(ELEMENTS) + [-3.0, -3.1, -3.2])
    everything = MassRun(tmp_path / "all", hull_distance(hull), keep=10_000, per_formula=100)
    everything.generate(blocks())
    full, _ = everything.rank()
    few = MassRun(tmp_path / "few", hull_distance(hull), keep=5, per_formula=1, known={"MgO", "LiF"}, chunk=40)
    twice = MassRun(tmp_path / "all", binary_distance(hull), hull_distance(hull), keep=10_000, per_formula=100, stamp="twice")
    twice.reload()
    assert [(b.formula, b.distance) for b in twice.rank()[0]] == [(b.formula, pytest.approx(b.distance, abs=1e-5)) for b in full]
    few.generate(blocks())
    best, told = few.rank()
    wanted: list[str] = []
    for one in full:
        if one.formula not in {"MgO", "LiF", *wanted} and len(wanted) < 5:
            wanted.append(one.formula)
    assert [b.formula for b in best] == wanted
    assert told["known"] > 0
    for one in full[:50]:
        penalty = 0.0 if one.balanced else 0.15
        assert one.distance == pytest.approx(one.energy - float(hull.energy([one.formula])[0]) + penalty, abs=1e-4)
    # an element without a reference is never ranked
    alone = MassRun(tmp_path / "alone", hull_distance(Hull(["Mg", "O"], [0.0, 0.0])), keep=10_000, per_formula=100)
    alone.generate(blocks())
    assert {s for b in alone.rank()[0] for s in realise(b.recipe, {c.hash: c for c in parents()}).composition} <= {"Mg", "O"}


def test_a_run_stops_anywhere_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MassRun(tmp_path / "whole", chunk=20)
    whole.generate(blocks())
    wanted, _ = whole.rank()

    def breaking(at: int) -> list:
        def stop() -> list:
            raise KeyboardInterrupt

        made = blocks()
        made[at] = stop
        return made

    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        MassRun(broken, chunk=20).generate(breaking(4))
    done = {p.name: p.stat().st_mtime_ns for p in (broken / "runs").iterdir()}
    run = MassRun(broken, chunk=20)
    run.generate(blocks())
    assert {n: (broken / "runs" / n).stat().st_mtime_ns for n in done} == done
    calls: list[int] = []
    real = mass.MassRun._look

    def counted(self, *args):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return real(self, *args)

    monkeypatch.setattr(mass.MassRun, "_look", counted)
    with pytest.raises(KeyboardInterrupt):
        run.rank()
    monkeypatch.setattr(mass.MassRun, "_look", real)
    again = MassRun(broken, chunk=20)
    again.generate(blocks())
    found, _ = again.rank()
    assert [(b.recipe.key, b.formula) for b in found] == [(b.recipe.key, b.formula) for b in wanted]


def test_trouble_with_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run = MassRun(tmp_path)
    monkeypatch.setattr(mass.os, "replace", full)
    with pytest.raises(RunError, match=r"No space left.*same command again"):
        run.generate(blocks())
    with pytest.raises(InputError, match="keep 0"):
        MassRun(tmp_path, keep=0)


# --- tables ------------------------------------------------------------------------------------------------------------------
def test_tables_learn_pairs_and_leave_elements_at_zero() -> None:
    rng = np.random.default_rng(0)
    names = [f"{a}{i}{b}{j}" for a, b in permutations(("Li", "Mg", "O", "F"), 2) for i in range(1, 5) for j in range(1, 5)]
    energy = {frozenset(p): rng.normal() for p in permutations(("Li", "Mg", "O", "F"), 2)}

    def truth(formula: str) -> float:
        from naica.structure.composition import parse_formula

        (a, i), (b, j) = parse_formula(formula).items()
        x = i / (i + j)
        return 4 * x * (1 - x) * energy[frozenset((a, b))]

    values = np.array([truth(f) for f in names])
    aside = np.arange(len(names)) % 4 == 0
    found = PairEnergies.fit(names, values, aside)
    assert found.error < 0.1 * np.abs(values - values.mean()).mean()
    assert found.rows == int((~aside).sum())
    assert found.of(["Li", "Mg", "O"]).tolist() == [0, 0, 0]
    assert found.of(["LiMg2"])[0] == pytest.approx(found.of(["Mg2Li"])[0], abs=1e-6)
    with pytest.raises(InputError, match="to fit"):
        PairEnergies.fit(["MgO"], np.array([np.nan]))


def test_the_shipped_tables_know_strong_from_weak() -> None:
    pairs = shipped()
    assert pairs.error < 0.2
    mgo, cuau, libi = pairs.of(["MgO", "CuAu", "Li3Bi"])
    assert mgo < -2 < libi < cuau < 0.3


def test_gaps_of_a_hull_are_filled_and_what_is_known_stays() -> None:
    elements = ["Li", "Gd", "F"]
    bare = Hull([*elements, "LiF"], [0.0, 0.0, 0.0, -3.1])
    filled = complete_hull(["LiF"], np.array([-3.1]), shipped(), elements)
    assert bare.energy(["GdF3"])[0] == pytest.approx(0.0)
    assert filled.energy(["GdF3"])[0] < -3
    # LiF is known, so no prediction stands beside it
    assert filled.energy(["LiF"])[0] == pytest.approx(-3.1)
    assert filled.energy(["Li"])[0] == pytest.approx(0.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.data())
def test_binaries_bound_the_hull_and_are_it_on_themselves(amounts: list[int], data: st.DataObject) -> None:
    names = ["Li", "Mg", "F", "O"]
    known = {"LiF": -3.1, "MgO": -3.0, "MgF2": -3.8, "Li2O": -2.0, "Li2O2": -1.6, "LiMgF3": -3.65, "LiMg": -0.05}
    hull = Hull([*names, *known], [0.0] * 4 + list(known.values()))
    binaries = BinaryHulls.of(hull)
    z = np.array([[element(s).number for s in names]])
    there = np.array([data.draw(st.lists(st.booleans(), min_size=4, max_size=4).filter(any))])
    counts = np.array([amounts], dtype=float) * there
    exact = float(hull.energy(counts[:, [names.index(s) for s in hull.elements]])[0])
    assert float(binaries.bound(np.where(there, z, 0), counts / counts.sum())[0]) >= exact - 1e-5
    for formula, energy in known.items():
        if formula not in ("LiMgF3", "Li2O2"):
            (a, i), (b, j) = parse_formula(formula).items()
            pair = np.array([[element(a).number, element(b).number, 0]])
            assert float(binaries.bound(pair, np.array([[i, j, 0]]) / (i + j))[0]) == pytest.approx(energy, abs=1e-4)
