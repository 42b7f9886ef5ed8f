"""The hull against pymatgen (2 to 5 elements) and against plain linear programmes (6 to 8), and where geometry degenerates."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from naica.discover import facets as facets_module
from naica.discover import hull as hull_module
from naica.discover.hull import Hull
from naica.errors import InputError

ELEMENTS = ("Li", "Na", "Mg", "Al", "Si", "O", "F", "Cl")
EXACT = 1e-8


def random_system(k: int, n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Elements first, then polymorphs, duplicates and compounds of up to k elements."""
    rng = np.random.default_rng(seed)
    reference = rng.uniform(-5, -1, k)
    formulas, energies = list(ELEMENTS[:k]), list(reference)
    for _ in range(n):
        chosen = rng.choice(k, rng.integers(1, k + 1), replace=False)
        amounts = rng.integers(1, 7, len(chosen))
        shift = rng.uniform(-2, 1) if len(chosen) > 1 else rng.uniform(0, 0.5)
        formulas.append("".join(f"{ELEMENTS[i]}{a}" for i, a in zip(chosen, amounts, strict=True)))
        energies.append(float(amounts @ reference[chosen] / amounts.sum() + shift))
    return formulas, np.array(energies)


def by_programme(hull: Hull, x: np.ndarray) -> float:
    """Hull energy over all entries by one linear programme, nothing left out."""
    answer = linprog(hull.energies, A_eq=hull.fractions.T, b_eq=x, method="highs", options={"primal_feasibility_tolerance": 1e-10})
    return float(answer.fun)


def pymatgen_distances(formulas: list[str], energies: np.ndarray) -> np.ndarray:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    parts = [PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in zip(formulas, energies, strict=True)]
    diagram = PhaseDiagram(parts)
    return np.array([diagram.get_e_above_hull(p) for p in parts])


def mixture_of(hull: Hull, shares: dict[str, float]) -> np.ndarray:
    return sum((w * hull.fractions[hull.ids.index(name)] for name, w in shares.items()), np.zeros(len(hull.elements)))


# --- exactness -----------------------------------------------------------------------------------------------------------------
@given(k=st.integers(2, 5), n=st.integers(0, 120), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_equals_pymatgen(k: int, n: int, seed: int) -> None:
    formulas, energies = random_system(k, n, seed)
    hull = Hull(formulas, energies)
    assert np.abs(hull.above_hull - pymatgen_distances(formulas, energies)).max() < EXACT


@given(k=st.integers(2, 5), data=st.data())
@settings(max_examples=30, deadline=None)
def test_coplanar_points(k: int, data: st.DataObject) -> None:
    """Energies from a coarse grid put many points into one plane, on one line and at zero formation energy."""
    amounts = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=k, max_size=k).filter(any), max_size=25))
    grid = data.draw(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25]), min_size=len(amounts), max_size=len(amounts)))
    formulas = [*ELEMENTS[:k], *("".join(f"{s}{n}" for s, n in zip(ELEMENTS, row, strict=False) if n) for row in amounts)]
    energies = np.concatenate([np.zeros(k), [abs(e) if np.count_nonzero(row) == 1 else e for e, row in zip(grid, amounts, strict=True)]])
    hull = Hull(formulas, energies)
    expected = energies - [by_programme(hull, x) for x in hull.fractions]
    assert np.abs(hull.above_hull - expected).max() < EXACT
    for formula, x in zip(formulas, hull.fractions, strict=True):
        shares = hull.decomposition(formula)
        assert np.abs(mixture_of(hull, shares) - x).max() < EXACT
        assert sum(w * hull.energies[hull.ids.index(name)] for name, w in shares.items()) == pytest.approx(by_programme(hull, x), abs=EXACT)


@pytest.mark.parametrize(("k", "n"), [(6, 60), (7, 60), (8, 80), (6, 400)])
def test_many_elements_equal_the_programme(k: int, n: int) -> None:
    formulas, energies = random_system(k, n, seed=k * n)
    hull = Hull(formulas, energies)
    rows = np.random.default_rng(0).choice(len(formulas), 40, replace=False)
    expected = [energies[r] - by_programme(hull, hull.fractions[r]) for r in rows]
    assert np.abs(hull.above_hull[rows] - expected).max() < EXACT
    fresh = np.random.default_rng(1).integers(0, 4, (20, k)) + np.eye(k, dtype=int)[np.zeros(20, int)]
    expected = [by_programme(hull, x / x.sum()) for x in fresh]
    assert np.abs(hull.energy(fresh) - expected).max() < EXACT


def test_compositions_on_the_boundary_of_the_space() -> None:
    """A binary asked in a quaternary hull sees binary competitors only."""
    formulas, energies = random_system(4, 150, seed=5)
    hull = Hull(formulas, energies)
    inside = [k for k, f in enumerate(hull.counts) if not f[hull.elements.index("Na")] and not f[hull.elements.index("Al")]]
    small = Hull([formulas[k] for k in inside], energies[inside])
    asked = ["LiMg", "Li3Mg", "Li2Mg7", "Mg", "Li"]
    np.testing.assert_allclose(hull.energy(asked), small.energy(asked), atol=EXACT)


@given(k=st.integers(2, 4), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_short_cuts_give_the_facets_of_qhull(k: int, seed: int) -> None:
    """One compound of all elements, and any two elements: the same heights as with the general construction."""
    rng = np.random.default_rng(seed)
    n = 1 if k > 2 else int(rng.integers(1, 12))
    x = np.vstack([np.eye(k), rng.integers(1, 9, (n, k))])
    x = np.unique(x / x.sum(axis=1, keepdims=True), axis=0)
    energies = np.where(x.max(axis=1) == 1, 0.0, -rng.uniform(0.1, 2.0, len(x)))
    quick = facets_module.lower_facets(x, energies)
    assert quick is not None
    corners = facets_module._simplices(x, energies)
    assert corners is not None
    volume = np.abs(np.linalg.det(x[corners]))
    corners = corners[volume > 1e-12]
    planes = np.linalg.solve(x[corners], energies[corners][..., None])[..., 0]
    planes = planes[np.all(planes @ x.T <= energies + 1e-9, axis=1)]
    asked = rng.dirichlet(np.ones(k), 50)
    np.testing.assert_allclose(facets_module.summits(quick, asked), (asked @ planes.T).max(axis=1), atol=1e-10)
    assert np.abs(np.linalg.det(x[quick.corners])).sum() == pytest.approx(1.0)
    np.testing.assert_allclose(np.einsum("fk,fik->fi", quick.planes[quick.plane_of], x[quick.corners]), energies[quick.corners], atol=1e-10)


# --- degenerate systems ----------------------------------------------------------------------------------------------------------
def test_one_element() -> None:
    hull = Hull(["Al", "Al4", "Al2"], [-3.7, -3.5, -3.7], ids=["fcc", "hcp", "again"])
    assert hull.stable() == ["fcc", "again"]
    np.testing.assert_allclose(hull.above_hull, [0, 0.2, 0])
    assert hull.separation("hcp") == pytest.approx(0.2)
    assert hull.decomposition("Al") == {"fcc": 1.0}
    assert hull.chemical_potentials("Al") == {"Al": pytest.approx(-3.7)}


@pytest.mark.parametrize("k", [2, 3, 5, 7])
def test_only_elements(k: int) -> None:
    hull = Hull(ELEMENTS[:k], -np.arange(1.0, k + 1))
    assert set(hull.stable()) == set(hull.ids)
    middle = dict.fromkeys(ELEMENTS[:k], 1)
    assert hull.energy([middle])[0] == pytest.approx(-(k + 1) / 2)
    assert hull.decomposition(middle) == {str(i): pytest.approx(1 / k) for i in range(k)}


def test_everything_above_the_elements() -> None:
    hull = Hull(["Mg", "O", "MgO", "MgO2"], [-1.0, -4.0, -2.0, -2.5])
    assert hull.stable() == ["0", "1"]
    np.testing.assert_allclose(hull.above_hull, [0, 0, 0.5, 0.5])
    assert hull.separation("2") == pytest.approx(0.5)


def test_duplicated_compositions_and_ties() -> None:
    hull = Hull(["Mg", "O", "MgO", "Mg2O2", "O3Mg3"], [0, 0, -3.0, -2.9, -3.0], ids=["m", "o", "a", "b", "c"])
    assert hull.stable() == ["m", "o", "a", "c"]
    np.testing.assert_allclose(hull.above_hull, [0, 0, 0, 0.1, 0], atol=1e-12)
    assert hull.separation("b") == pytest.approx(-2.9)


def test_total_and_formation_energies_give_the_same_distances() -> None:
    formulas, energies = random_system(3, 60, seed=2)
    total = Hull(formulas, energies)
    formation = Hull(formulas, total.formation_energies())
    np.testing.assert_allclose(total.above_hull, formation.above_hull, atol=1e-12)
    assert np.all(formation.references == 0)


# --- what it tells -----------------------------------------------------------------------------------------------------------------
def test_spinel() -> None:
    hull = Hull(["Mg", "Al", "O", "MgO", "Al2O3", "MgAl2O4"], [-1.6, -3.7, -4.9, -6.31, -7.86, -7.487], ids=list("abcdef"))
    assert hull.stable() == list("abcdef")
    mixture = (2 * -6.31 + 5 * -7.86) / 7
    assert hull.separation("f") == pytest.approx(-7.487 - mixture)
    assert hull.decomposition_without("f") == {"e": pytest.approx(5 / 7), "d": pytest.approx(2 / 7)}
    assert hull.formula("f") == "MgAl2O4"
    # a defect spinel between spinel and alumina
    assert hull.decomposition("MgAl4O7") == {"f": pytest.approx(7 / 12), "e": pytest.approx(5 / 12)}
    mu = hull.chemical_potentials("MgAl4O7")
    assert mu["Mg"] + 4 * mu["Al"] + 7 * mu["O"] == pytest.approx(7 * -7.487 + 5 * -7.86)
    assert 2 * mu["Al"] + 3 * mu["O"] == pytest.approx(5 * -7.86)


@given(k=st.integers(2, 6), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_separation_is_the_distance_to_the_hull_without_that_composition(k: int, seed: int) -> None:
    formulas, energies = random_system(k, 25, seed)
    hull = Hull(formulas, energies)
    for row in range(k, len(formulas), 5):
        if np.count_nonzero(hull.counts[row]) == 1:
            continue
        others = np.any(hull.counts != hull.counts[row], axis=1)
        without = Hull([f for f, keep in zip(formulas, others, strict=True) if keep], energies[others])
        assert hull.separation(str(row)) == pytest.approx(without.above([formulas[row]], energies[[row]])[0], abs=EXACT)
        shares = hull.decomposition_without(str(row))
        assert np.abs(mixture_of(hull, shares) - hull.fractions[row]).max() < EXACT


@given(k=st.integers(2, 6), seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_chemical_potentials_support_the_hull(k: int, seed: int) -> None:
    formulas, energies = random_system(k, 30, seed)
    hull = Hull(formulas, energies)
    formula = formulas[-1]
    mu = hull.chemical_potentials(formula)
    x = hull.fractions[-1]
    value = sum(mu[s] * x[hull.elements.index(s)] for s in mu)
    assert value == pytest.approx(hull.energy([formula])[0], abs=EXACT)
    inside = [row for row in range(len(formulas)) if all(hull.elements[i] in mu for i in np.flatnonzero(hull.counts[row]))]
    for row in inside:
        assert sum(mu[s] * hull.fractions[row, hull.elements.index(s)] for s in mu) <= energies[row] + EXACT


def test_compositions_may_be_formulas_mappings_or_arrays() -> None:
    hull = Hull(["Mg", "Al", "O", "MgAl2O4"], [0, 0, 0, -3.4])
    assert hull.elements == ("Al", "Mg", "O")
    answers = [hull.energy([c])[0] for c in ("MgAl2O4", "Al(Mg0.5)O2", {"Mg": 2, "Al": 4, "O": 8}, {"Mg": 0.5, "Al": 1.0, "O": 2.0})]
    assert answers == pytest.approx([-3.4] * 4)
    assert hull.energy(np.array([[2, 1, 4], [0, 0, 3]])) == pytest.approx([-3.4, 0])
    assert list(Hull(["Mg", "O"], [0, 0], elements=["O", "Mg"]).elements) == ["O", "Mg"]


def test_above_is_negative_below_the_hull() -> None:
    hull = Hull(["Mg", "O", "MgO"], [0, 0, -3.0])
    assert hull.above(["MgO", "Mg3O"], [-3.1, -1.0]) == pytest.approx([-0.1, 0.5])


# --- growing -------------------------------------------------------------------------------------------------------------------------
@given(k=st.integers(2, 5), seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_growing_equals_building_anew(k: int, seed: int) -> None:
    formulas, energies = random_system(k, 40, seed)
    part = k + 10
    first = Hull(formulas[:part], energies[:part])
    before = first.above_hull.copy()
    grown = first.with_entries(formulas[part:], energies[part:], ids=[str(i) for i in range(part, len(formulas))])
    whole = Hull(formulas, energies)
    assert np.abs(grown.above_hull - whole.above_hull).max() < EXACT
    assert grown.stable() == whole.stable()
    np.testing.assert_array_equal(first.above_hull, before)
    assert len(first.ids) == part


def test_entries_above_the_hull_rebuild_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hull = Hull(["Mg", "Al", "O", "MgO"], [0, 0, 0, -3.0])
    hull.energy(["MgAlO"])
    calls = []
    built = hull_module.lower_facets
    monkeypatch.setattr(hull_module, "lower_facets", lambda *a: calls.append(1) or built(*a))
    above = hull.with_entries(["MgAl2O4", "MgO"], [-0.5, -2.9], ids=["s", "again"])
    assert above.energy(["MgAl2O4"])[0] == pytest.approx(hull.energy(["MgAl2O4"])[0])
    assert above.separation("s") == pytest.approx(-0.5 + 6 / 7)
    assert not calls
    below = above.with_entries(["MgAl2O4"], [-3.4], ids=["t"])
    assert below.energy(["MgAl2O4"])[0] == pytest.approx(-3.4)
    assert calls


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_growing_one_by_one_keeps_the_planes_of_other_systems(seed: int) -> None:
    """Eight elements, systems of two and three: after each new phase every distance equals that of a hull made anew."""
    rng = np.random.default_rng(seed)
    formulas, energies = list(ELEMENTS), [0.0] * 8
    hull = Hull(formulas, energies, ids=formulas)
    hull.energy([f"{a}{b}{c}" for a in ELEMENTS for b in ELEMENTS for c in ELEMENTS if a < b < c])
    for step in range(12):
        chosen = sorted(rng.choice(8, rng.integers(1, 4), replace=False))
        formula = "".join(f"{ELEMENTS[i]}{rng.integers(1, 5)}" for i in chosen)
        energy = float(rng.uniform(-1.0, 0.2)) if len(chosen) > 1 else float(rng.uniform(-0.1, 0.1))
        distance = hull.above([formula], [energy])[0]
        before = dict(hull._faces)
        hull = hull.with_entries([formula], [energy], ids=[f"new {step}"])
        formulas, energies = [*formulas, formula], [*energies, energy]
        mine = {hull.elements.index(ELEMENTS[i]) for i in chosen}
        for key, face in before.items():
            hit = distance < 0 and all(key >> k & 1 for k in mine)
            assert (hull._faces.get(key) is face) != hit
    whole = Hull(formulas, energies)
    np.testing.assert_allclose(hull.above_hull, whole.above_hull, atol=EXACT)
    asked = rng.integers(0, 3, (60, 8)) * (rng.random((60, 8)) < 0.4) + np.eye(8, dtype=int)[rng.integers(0, 8, 60)]
    np.testing.assert_allclose(hull.energy(asked), whole.energy(asked), atol=EXACT)


def test_a_frozen_hull_stays_beside_a_growing_one() -> None:
    start = Hull(["Mg", "Al", "O", "MgO", "Al2O3"], [0, 0, 0, -3.0, -3.3], ids=list("abcde"))
    grown = start.with_entries(["MgAl2O4"], [-3.4], ids=["s"])
    assert start.above(["MgAl2O4"], [-3.4])[0] < 0
    assert grown.above(["MgAl2O4"], [-3.4])[0] == pytest.approx(0)
    assert start.stable() == list("abcde")


# --- many questions --------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [3, 4])
def test_boxes_leave_out_no_plane_that_counts(k: int) -> None:
    """Thirty thousand compositions of a bowl with hundreds of planes, vertices, edges and faces of the simplex among them."""
    rng = np.random.default_rng(k)
    amounts = np.vstack([np.eye(k, dtype=int), rng.integers(0, 9, (900, k))])
    amounts = amounts[amounts.sum(axis=1) > 0]
    x = amounts / amounts.sum(axis=1, keepdims=True)
    energies = -2.0 * (1 - (x**2).sum(axis=1)) + rng.gamma(2.0, 0.02, len(x)) * (np.count_nonzero(amounts, axis=1) > 1)
    hull = Hull(["".join(f"{s}{n}" for s, n in zip(ELEMENTS, row, strict=False) if n) for row in amounts], energies, elements=ELEMENTS[:k])
    facets = hull._face(np.arange(k))[1]
    assert facets is not None
    assert len(facets.planes) > 100
    asked = np.vstack([rng.integers(0, 33, (30_000, k)), np.eye(k, dtype=int), np.eye(k, dtype=int) + 1])
    asked = asked[asked.sum(axis=1) > 0]
    plain = (hull.fractions_of(asked) @ facets.planes.T).max(axis=1)
    np.testing.assert_allclose(hull.energy(asked), plain, atol=1e-12)
    assert max(len(chosen) for chosen in facets.boxes.lists) < len(facets.planes)


def test_a_large_hull_can_be_asked_within_a_few_elements() -> None:
    formulas, energies = random_system(8, 120, seed=3)
    hull = Hull(formulas, energies)
    for names in (["O", "Li"], ["Na", "Al", "Cl"], list(ELEMENTS[::-1][:6])):
        amounts = np.random.default_rng(0).integers(0, 4, (20, len(names))) + np.eye(20, len(names), dtype=int)
        amounts[:, 0] += 1
        wide = [dict(zip(names, row.tolist(), strict=True)) for row in amounts]
        expected = hull.energy([{s: n for s, n in one.items() if n} for one in wide])
        np.testing.assert_allclose(hull.energy_in(names, amounts), expected, atol=EXACT)
    with pytest.raises(InputError, match="Fe"):
        hull.energy_in(["Fe", "O"], [[1, 1]])
    with pytest.raises(InputError, match="shape"):
        hull.energy_in(["O"], [[1, 1]])


def test_a_lower_element_shifts_the_references() -> None:
    hull = Hull(["Mg", "O", "MgO"], [-1.0, -4.8, -6.3], ids=["m", "o", "mo"])
    lower = hull.with_entries(["O"], [-4.9], ids=["o2"])
    assert lower.formation_energies()[2] == pytest.approx(-6.3 + (1.0 + 4.9) / 2)
    assert lower.stable() == ["m", "mo", "o2"]


def test_new_elements_can_be_added() -> None:
    hull = Hull(["Mg", "O", "MgO"], [0, 0, -3.0])
    wider = hull.with_entries(["Al", "MgAl2O4"], [0, -3.4], ids=["al", "s"])
    assert set(wider.elements) == {"Mg", "Al", "O"}
    assert "s" in wider.stable()
    with pytest.raises(InputError, match="pure element Al"):
        hull.with_entries(["MgAl2O4"], [-3.4])


def test_arrays_are_read_only() -> None:
    hull = Hull(["Mg", "O"], [0, 0])
    with pytest.raises(ValueError, match="read-only"):
        hull.energies[0] = -1


# --- refusals -----------------------------------------------------------------------------------------------------------------------
def test_missing_element_is_named() -> None:
    with pytest.raises(InputError, match=r"pure element Al.*one entry per element"):
        Hull(["Mg", "O", "MgAl2O4"], [0, 0, -3])
    hull = Hull(["Mg", "O"], [0, 0])
    with pytest.raises(InputError, match=r"MgAl2O4.*holds Al, which this hull lacks; its elements: Mg, O"):
        hull.energy(["MgO", "MgAl2O4"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_energies_that_are_no_numbers_are_named(bad: float) -> None:
    with pytest.raises(InputError, match=r"entry 'c' \(MgO\) has energy"):
        Hull(["Mg", "O", "MgO"], [0, 0, bad], ids=["a", "b", "c"])
    with pytest.raises(InputError, match="entry 'x'"):
        Hull(["Mg", "O"], [0, 0]).with_entries(["MgO"], [bad], ids=["x"])


@pytest.mark.parametrize(
    ("formulas", "energies", "ids", "message"),
    [
        ([], [], None, "needs entries"),
        (["Mg", "O"], [0.0], None, "numbers must agree"),
        (["Mg", "Mg"], [0.0, 1.0], ["a", "a"], "'a' occurs twice"),
        (["Mg", "Xx"], [0.0, 1.0], None, "Xx"),
        (["Mg", "mgo"], [0.0, 1.0], None, "mgo"),
        (["Mg", {}], [0.0, 1.0], None, "empty composition"),
        (["Mg", "O0"], [0.0, 1.0], None, "ratio of small integers"),
    ],
)
def test_bad_input(formulas: list[str], energies: list[float], ids: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hull(formulas, energies, ids)


def test_bad_questions() -> None:
    hull = Hull(["Mg", "O"], [0, 0])
    with pytest.raises(InputError, match="no entry 'zz'"):
        hull.separation("zz")
    with pytest.raises(InputError, match="shape"):
        hull.energy(np.ones((2, 3)))
    with pytest.raises(InputError, match="none negative"):
        hull.energy(np.array([[1, -1]]))


# --- speed ---------------------------------------------------------------------------------------------------------------------------
def test_thousands_of_entries_take_a_fraction_of_a_second() -> None:
    """Guards the order of magnitude; the figure itself comes from benchmarks/hull.py."""
    formulas, energies = random_system(4, 5000, seed=0)
    start = time.process_time()
    Hull(formulas, energies).above_hull  # noqa: B018
    assert time.process_time() - start < 1.0
