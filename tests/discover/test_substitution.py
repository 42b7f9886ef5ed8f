"""Ionic substitution: the published table's values, the counts each of GNoME's changes leaves, and the recipes they become."""

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover import substitution
from naica.discover.recipes import realise
from naica.discover.substitution import Substitutions, SubstitutionTable, ion, ion_name, substitutions
from naica.errors import InputError, MissingPart
from naica.structure.composition import parse_formula
from naica.structure.crystal import Crystal

ORIGINAL = SubstitutionTable(differences_only=False, floor=None)
FLOOR = SubstitutionTable(differences_only=False, floor=0.0)
DIFFERENCES = SubstitutionTable(differences_only=True, floor=None)
BOTH = SubstitutionTable()


def rocksalt(a: str, b: str, length: float = 5.64) -> Crystal:
    return Crystal.from_fractional([a, b], [[0, 0, 0], [0.5] * 3], length / 2 * (1 - np.eye(3)))


def perovskite(a: str, b: str, x: str) -> Crystal:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal.from_fractional([a, b, x, x, x], sites, 3.9 * np.eye(3))


@pytest.mark.parametrize(
    ("ions", "counts"),
    [
        ("Na+ Cl-", (187, 169, 228, 215)),
        ("Li+ Co3+ O2-", (104, 36, 296, 358)),
        ("Ca2+ Ti4+ O2-", (107, 47, 295, 373)),
        ("Ba2+ Zr4+ S2-", (156, 86, 406, 419)),
        ("Ac3+ N3-", (120, 3, 161, 457)),
        ("Li+ Fe2+ P5+ O2-", (63, 21, 388, 619)),
        ("Ca2+ Ti4+ Mg2+ O2- F-", (1, 0, 534, 671)),
    ],
)
def test_counts_under_each_change(ions: str, counts: tuple[int, ...]) -> None:
    found = tuple(len(table.predict(ions.split())) for table in (ORIGINAL, FLOOR, DIFFERENCES, BOTH))
    assert found == counts


def test_four_ions_change_mostly_one_at_a_time() -> None:
    old = ("Li+", "Fe2+", "P5+", "O2-")
    changes = [sum(a != b for a, b in zip(old, new, strict=True)) for new, _ in BOTH.predict(old)]
    assert (changes.count(0), changes.count(1), changes.count(2), len(changes)) == (1, 544, 74, 619)


@pytest.mark.parametrize(
    ("new", "old", "value"),
    [("Sr2+", "Ca2+", 0.0966), ("Zr4+", "Ti4+", 0.0266), ("S2-", "O2-", 0.0270), ("F-", "O2-", 0.0669), ("Na+", "Li+", 0.0950)],
)
def test_spot_values(new: str, old: str, value: float) -> None:
    assert ORIGINAL.probability(new, old) == pytest.approx(value, abs=5e-5)


def test_table_is_the_published_one() -> None:
    assert len(ORIGINAL.ions) == 230
    assert ORIGINAL.partition == pytest.approx(72349, abs=1)
    assert ORIGINAL.weights.max() == pytest.approx(9.52404)
    assert ORIGINAL.weights[ORIGINAL.row("F-"), ORIGINAL.row("O2-")] == pytest.approx(6.99, abs=5e-3)
    np.testing.assert_allclose(ORIGINAL.conditional.sum(axis=0), 1)
    assert BOTH.weights.min() == 0


def test_agrees_with_pymatgen() -> None:
    from pymatgen.core.structure_prediction.substitution_probability import SubstitutionPredictor

    theirs = {
        tuple(str(k) for k in entry["substitutions"]): entry["probability"]
        for entry in SubstitutionPredictor(threshold=1e-3).list_prediction(["Ac3+", "N3-"])
    }
    ours = dict(ORIGINAL.predict(["Ac3+", "N3-"]))
    assert {tuple(ion(s) for s in k) for k in ours} == {tuple(ion(s) for s in k) for k in theirs}
    by_ion = {tuple(ion(s) for s in k): p for k, p in theirs.items()}
    assert all(by_ion[tuple(ion(s) for s in k)] == pytest.approx(p, rel=1e-9) for k, p in ours.items())


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_search_finds_what_trying_everything_finds(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from([ORIGINAL, FLOOR, DIFFERENCES, BOTH]))
    old = data.draw(st.lists(st.integers(0, 229), min_size=1, max_size=3, unique=True))
    pool = data.draw(st.lists(st.integers(0, 229), min_size=1, max_size=8, unique=True))
    threshold = data.draw(st.floats(1e-6, 0.5))
    allowed = np.isin(np.arange(230), pool)
    factor = [table.factors(b) for b in old]
    expected = {}
    for new in product(sorted(pool), repeat=len(old)):
        p = prod(f[z] for f, z in zip(factor, new, strict=True))
        if len(set(new)) == len(new) and p > threshold * (1 + 1e-9):
            expected[new] = p
    chosen, probability = table.search(old, threshold * (1 + 1e-9), allowed)
    found = {tuple(int(z) for z in row): float(p) for row, p in zip(chosen, probability, strict=True)}
    assert found.keys() == expected.keys()
    assert np.all(np.diff(probability) <= 0)
    assert all(found[k] == pytest.approx(expected[k]) for k in found)


@given(st.integers(1, 103), st.integers(-4, 8).filter(bool))
def test_ion_names_round_trip(number: int, charge: int) -> None:
    assert ion(ion_name((number, charge))) == (number, charge)
    assert ion("O2-") == (8, -2)
    assert ion("Na1+") == ion("Na+") == (11, 1)


@pytest.mark.parametrize("text", ["Xx2+", "O", "2-", "Fe2.5+", ""])
def test_what_is_no_ion_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        ion(text)


def test_unknown_ion_names_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no Mg3\+.*Mg2\+"):
        BOTH.probability("Mg3+", "Ca2+")


def test_missing_table_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    substitution._shipped_weights.cache_clear()
    monkeypatch.setattr(substitution, "find_spec", lambda name: None)
    try:
        with pytest.raises(MissingPart, match="pip install pymatgen-core"):
            substitution._shipped_weights()
    finally:
        monkeypatch.undo()
        substitution._shipped_weights.cache_clear()


def test_recipes_come_by_probability_whatever_the_order_of_parents() -> None:
    parents = [rocksalt("Na", "Cl"), rocksalt("Mg", "O", 4.2), perovskite("Ca", "Ti", "O")]
    forward = list(Substitutions({c.hash: c for c in parents}))
    backward = list(Substitutions({c.hash: c for c in parents[::-1]}))
    assert [r.key for r, _ in forward] == [r.key for r, _ in backward]
    probabilities = [p for _, p in forward]
    assert probabilities == sorted(probabilities, reverse=True)
    assert min(probabilities) > 1e-3
    assert len({r.key for r, _ in forward}) == len(forward) > 300


def test_elements_known_formulas_and_charges_are_respected() -> None:
    parents = {c.hash: c for c in [rocksalt("Na", "Cl"), rocksalt("Mg", "O", 4.2)]}
    every = {realise(r, parents).formula for r in substitutions(parents)}
    assert {"KCl", "NaBr", "CaO", "MgS"} <= every
    few = {realise(r, parents).formula for r in substitutions(parents, elements=("Na", "K", "Cl", "Mg", "O"))}
    assert few == {f for f in every if set(parse_formula(f)) <= {"Na", "K", "Cl", "Mg", "O"}}
    assert "KCl" in few
    known = {realise(r, parents).formula for r in substitutions(parents, known_formulas={"KCl", "CaO"})}
    assert known == every - {"KCl", "CaO"}
    neutral = {realise(r, parents).formula for r in substitutions(parents, balanced=True)}
    assert neutral < every
    assert {"KCl", "CaO"} <= neutral
    assert "NaO" in every - neutral


def test_mixed_valence_is_told_apart_by_the_mask() -> None:
    """Sb2O4 holds Sb3+ and Sb5+; replacing one of them touches only its sites, and both by different elements is counted as lost."""
    cervantite = prototype_like_mixed_valence()
    parents = {cervantite.hash: cervantite}
    found = Substitutions(parents, threshold=1e-5)
    recipes = [r for r, _ in found]
    assert found.dropped["states of one element would become different elements"] > 0
    partial = [realise(r, parents) for r in recipes if r.mask]
    assert partial
    assert all(c.composition.get("Sb", 0) in (0, 1) for c in partial)
    assert all(sum(c.composition.values()) == 6 for c in partial)


def prototype_like_mixed_valence() -> Crystal:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]]
    return Crystal.from_fractional(["Sb", "Sb", "O", "O", "O", "O"], sites, np.diag([4.6, 4.6, 3.0]))


def test_parents_without_states_are_counted() -> None:
    alloy = Crystal.from_fractional(["Cu", "Zn"], [[0, 0, 0], [0.5] * 3], 2.95 * np.eye(3))
    parents = {c.hash: c for c in [alloy, rocksalt("Na", "Cl")]}
    found = Substitutions(parents)
    assert sum(found.dropped.values()) == 1
    assert {r.parent for r, _ in found} == {rocksalt("Na", "Cl").hash}
