"""Windows, open systems and reactions: against pymatgen, against the hull's own planes, and against reactions known by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.discover.hull import Hull
from naica.discover.phases import balance, diagram, falling_apart, open_system, synthesis, window
from naica.errors import InputError

ELEMENTS = ("Li", "Fe", "P", "O")
OXIDES = Hull(
    ["Mg", "Al", "O", "MgO", "Al2O3", "MgAl2O4", "MgAl2"],
    [-1.6, -3.7, -4.9, -6.31, -7.86, -7.487, -3.05],
    ids=["mg", "al", "o", "periclase", "corundum", "spinel", "alloy"],
)


def random_hull(k: int, seed: int, n: int = 25) -> Hull:
    rng = np.random.default_rng(seed)
    reference = rng.uniform(-5, -1, k)
    formulas, energies = list(ELEMENTS[:k]), list(reference)
    for _ in range(n):
        chosen = rng.choice(k, rng.integers(2, k + 1), replace=False)
        amounts = rng.integers(1, 4, len(chosen))
        formulas.append("".join(f"{ELEMENTS[i]}{a}" for i, a in zip(chosen, amounts, strict=True)))
        energies.append(float(amounts @ reference[chosen] / amounts.sum() + rng.uniform(-1.5, 0.2)))
    return Hull(formulas, energies)


def pymatgen_entries(hull: Hull) -> dict:
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Composition

    return {i: PDEntry(Composition(hull.formula(i)), e * Composition(hull.formula(i)).num_atoms)
            for i, e in zip(hull.ids, hull.energies, strict=True)}  # fmt: skip


# --- windows -----------------------------------------------------------------------------------------------------------------------
@given(k=st.integers(2, 4), seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_ranges_equal_a_linear_programme(k: int, seed: int) -> None:
    """Lowest and highest Δμ under x·μ = e for the phase and x_q·μ ≤ e_q for all others."""
    from scipy.optimize import linprog

    hull = random_hull(k, seed)
    e = hull.formation_energies()
    for id in hull.stable()[:6]:
        row = hull.row(id)
        used = np.flatnonzero(hull.counts[row])
        inside = [r for r in range(len(e)) if not np.any(np.delete(hull.counts[r], used))]
        found = window(hull, id)
        for j, s in enumerate(found.elements):
            for sign, bound in zip((1, -1), found.ranges[s], strict=True):
                answer = linprog(
                    sign * np.eye(len(used))[j], A_ub=hull.fractions[np.ix_(inside, used)], b_ub=e[inside],
                    A_eq=hull.fractions[[row]][:, used], b_eq=e[[row]], bounds=(None, None),
                )  # fmt: skip
                assert answer.status == 0
                assert sign * answer.fun == pytest.approx(bound, abs=1e-7)


def test_range_of_oxygen_equals_pymatgens() -> None:
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Composition, Element

    theirs = PhaseDiagram(list(pymatgen_entries(OXIDES).values())).get_chempot_range_stability_phase(Composition("MgAl2O4"), Element("O"))
    reference = float(OXIDES.references[OXIDES.elements.index("O")])
    low, high = sorted(theirs[Element("O")])
    assert (low - reference, high - reference) == pytest.approx(window(OXIDES, "spinel").ranges["O"], abs=1e-6)


def test_spinel_window_by_hand() -> None:
    """It touches MgO and Al2O3 where oxygen is at equilibrium, and no Δμ of oxygen exceeds 0."""
    found = window(OXIDES, "spinel")
    assert found.elements == ("Al", "Mg", "O")
    np.testing.assert_allclose(found.corners @ np.array([2, 1, 4]) / 7, OXIDES.formation_energies()[OXIDES.row("spinel")], atol=1e-9)
    assert found.ranges["O"][1] == pytest.approx(0, abs=1e-9)
    together = {phase for corner in found.beside for phase in corner}
    assert {"MgO", "Al2O3", "O"} <= together
    outline = found.pair("Mg", "O")
    area = 0.5 * sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True))
    assert area > 0
    with pytest.raises(InputError, match="no pair of elements"):
        found.pair("Mg", "Li")
    high = OXIDES.with_entries(["Mg2Al2O5"], [-7.0], ids=["other"])
    with pytest.raises(InputError, match="above the hull"):
        window(high, "other")


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_regions_tile_the_diagram(seed: int) -> None:
    """At random Δμ of two elements: at most one region holds the point, and its phase binds the third element most deeply there."""
    hull = random_hull(3, seed)
    names = ("Li", "Fe", "P")
    regions = diagram(hull, names, floor=-3.0)
    x = hull.fractions_of([hull.formula(i) for i in hull.ids])[:, [hull.elements.index(s) for s in names]]
    e = hull.formation_energies()
    rng = np.random.default_rng(seed)
    for mu in rng.uniform(-3, 0, (30, 2)):
        third = x[:, 2] > 0
        bound = np.full(len(e), np.inf)
        bound[third] = (e[third] - x[third, :2] @ mu) / x[third, 2]
        condensed = bool(np.any(x[~third, :2] @ mu > e[~third] + 1e-9))
        inside = [i for i, p in regions.items() if _holds(p, mu)]
        if condensed:
            assert not inside
        else:
            best = np.sort(bound)
            assert len(inside) == 1 or best[1] - best[0] < 1e-6
            assert bound[hull.row(inside[0])] == pytest.approx(best[0], abs=1e-9)


def _holds(polygon: np.ndarray, p: np.ndarray) -> bool:
    sides = np.roll(polygon, -1, axis=0) - polygon
    return bool(np.all(sides[:, 0] * (p[1] - polygon[:, 1]) - sides[:, 1] * (p[0] - polygon[:, 0]) >= -1e-9))


# --- open systems ------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mu", [0.0, -1.0, -2.5, -4.0])
def test_open_system_equals_pymatgens_grand_potential(mu: float) -> None:
    from pymatgen.analysis.phase_diagram import GrandPotentialPhaseDiagram
    from pymatgen.core import Composition, Element

    hull = random_hull(4, seed=11, n=40)
    reference = float(hull.references[hull.elements.index("O")])
    theirs = GrandPotentialPhaseDiagram(list(pymatgen_entries(hull).values()), {Element("O"): reference + mu})
    names = {e.original_entry.composition.reduced_formula for e in theirs.stable_entries}
    mine = open_system(hull, {"O": mu})
    assert {Composition(mine.formulas[i]).reduced_formula for i in mine.stable(1e-7)} == names


def test_reducing_takes_oxygen_away() -> None:
    assert set(open_system(OXIDES, {"O": 0.0}).stable()) == {"periclase", "corundum", "spinel"}
    assert set(open_system(OXIDES, {"O": -8.0}).stable()) == {"mg", "al", "alloy"}
    with pytest.raises(InputError, match="0 \\(the element itself\\) or less"):
        open_system(OXIDES, {"O": 0.1})
    with pytest.raises(InputError, match="Fe"):
        open_system(OXIDES, {"Fe": -1})
    with pytest.raises(InputError, match="at least one must be left"):
        open_system(OXIDES, dict.fromkeys(OXIDES.elements, -1.0))


# --- reactions -------------------------------------------------------------------------------------------------------------------------
def test_spinel_from_its_oxides_and_from_the_alloy() -> None:
    found = synthesis(OXIDES, "spinel", reactants=2)
    told = {str(r): r for r in found.routes}
    oxides = told.get("MgO + Al2O3 → MgAl2O4") or told["Al2O3 + MgO → MgAl2O4"]
    mixture = (2 * -6.31 + 5 * -7.86) / 7
    assert oxides.energy == pytest.approx(-7.487 - mixture)
    assert oxides.margin == pytest.approx(0)
    assert found.depth == pytest.approx(mixture + 7.487)
    assert {formula for _, _, formula in found.rivals} == {"MgO", "Al2O3"}
    burnt = next(r for r in found.routes if {f for _, _, f in r.reactants} == {"MgAl2", "O"})
    assert sorted((f, n) for n, _, f in burnt.reactants) == [("MgAl2", 1), ("O", 4)]
    assert burnt.energy < oxides.energy
    assert all(r.reactants for r in synthesis(OXIDES, "spinel", elements=False).routes)
    assert not any("O" in {f for _, _, f in r.reactants} for r in synthesis(OXIDES, "spinel", elements=False).routes)


def test_a_byproduct_may_leave() -> None:
    """BaCO3 + TiO2 → BaTiO3 + CO2, with made-up energies."""
    hull = Hull(
        ["Ba", "C", "O", "Ti", "BaCO3", "TiO2", "BaTiO3", "CO2"],
        [0, 0, 0, 0, -2.5, -3.2, -3.5, -1.4],
        ids=["Ba", "C", "O", "Ti", "BaCO3", "TiO2", "BaTiO3", "CO2"],
    )
    found = synthesis(hull, "BaTiO3", reactants=2, byproducts=["CO2"])
    route = next(r for r in found.routes if {f for _, _, f in r.reactants} == {hull.formula("BaCO3"), hull.formula("TiO2")})
    assert [(n, i) for n, i, _ in route.products] == [(1, "BaTiO3"), (1, "CO2")]
    assert sorted((n, i) for n, i, _ in route.reactants) == [(1, "BaCO3"), (1, "TiO2")]
    assert route.energy == pytest.approx((5 * -3.5 + 3 * -1.4 - 5 * -2.5 - 3 * -3.2) / 8)


@given(k=st.integers(2, 4), seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_every_reaction_balances_exactly_and_costs_what_it_says(k: int, seed: int) -> None:
    hull = random_hull(k, seed)
    target = hull.ids[-1]
    for route in synthesis(hull, target, reactants=3, most=None).routes:
        total = np.zeros(k, dtype=int)
        energy = 0.0
        for sign, side in ((-1, route.reactants), (1, route.products)):
            for n, key, _ in side:
                assert n > 0
                counts = hull.counts[hull.row(key)]
                total += sign * n * counts
                energy += sign * n * counts.sum() * hull.energies[hull.row(key)]
        assert not total.any()
        atoms = sum(n * hull.counts[hull.row(key)].sum() for n, key, _ in route.reactants)
        assert route.energy == pytest.approx(energy / atoms, abs=1e-9)
        if route.margin is not None:
            assert route.margin >= 0


def test_balance_is_exact_and_unique() -> None:
    assert balance([[1, 0], [0, 1]], [3, 4]) == [3, 4]
    assert balance([[3, 1], [1, 3]], [1, 1]) == [Fraction(1, 4), Fraction(1, 4)]
    assert balance([[1, 1], [2, 2]], [1, 1]) is None
    assert balance([[1, 0]], [1, 1]) is None


def test_a_decomposition_in_whole_numbers() -> None:
    assert falling_apart(OXIDES, "MgAl4O7") in ("MgAl4O7 → MgAl2O4 + Al2O3", "MgAl4O7 → Al2O3 + MgAl2O4")
    assert falling_apart(OXIDES, "MgAl2O4") == "MgAl2O4 → MgAl2O4"
    assert set(falling_apart(OXIDES, "Mg3Al2O6").split(" → ")[1].split(" + ")) == {"MgAl2O4", "2MgO"}


def test_bad_questions() -> None:
    with pytest.raises(InputError, match="1 to 4"):
        synthesis(OXIDES, "spinel", reactants=9)
    with pytest.raises(InputError, match="CO2"):
        synthesis(OXIDES, "spinel", byproducts=["CO2"])
    with pytest.raises(InputError, match="three elements"):
        diagram(OXIDES, ["Mg", "O"])
    with pytest.raises(InputError, match="negative"):
        diagram(OXIDES, ["Mg", "Al", "O"], floor=1.0)
