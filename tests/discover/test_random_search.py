"""Random structures keep symmetry, volume and distances; searches stop anywhere and go on."""

import json
from pathlib import Path

import numpy as np
import pytest

from naica.discover import random_search
from naica.discover.random_search import (
    Search,
    contact_volume,
    least_distances,
    push_apart,
    random_crystals,
    search_formula,
)
from naica.errors import InputError, RunError
from naica.structure import Crystal
from naica.structure.convert import image_distances
from naica.structure.symmetry import symmetry

FEW = Search(structures=12, max_atoms=10, seed=1)


def worst_overlap(crystal: Crystal, separation: float) -> float:
    """Largest share of a least distance that is missing, over all pairs and images."""
    least, worst = least_distances(crystal.numbers, separation), 0.0
    for i in range(len(crystal)):
        atoms, distances = image_distances(crystal, i, float(least.max()))
        worst = max([worst, *(1 - distances / least[i, atoms])])
    return worst


@pytest.fixture(scope="module", params=["TiO2", "MgAl2O4", "CuAu"])
def drawn(request: pytest.FixtureRequest) -> list[Crystal]:
    return random_crystals(request.param, FEW)


def test_formula_volume_and_distances(drawn: list[Crystal]) -> None:
    assert len(drawn) == FEW.structures
    assert len({c.formula for c in drawn}) == 1
    assert len({len(c) for c in drawn}) > 1 or len(drawn[0]) > FEW.max_atoms // 2
    for crystal in drawn:
        assert len(crystal) <= FEW.max_atoms
        assert worst_overlap(crystal, FEW.separation) < 0.025
        # a push may add 8 growths of 3 %, a thin cell some more
        assert FEW.volume_range[0] <= crystal.volume / contact_volume(crystal.numbers) * 1.001 < 2 * FEW.volume_range[1]


def test_most_have_the_symmetry_they_were_drawn_with(drawn: list[Crystal]) -> None:
    for crystal in drawn:
        asked, found = crystal.info["spacegroup"], symmetry(crystal)
        group = random_search._group(asked)
        # atoms may happen to sit more symmetrically than asked, never less
        assert len(found.rotations) >= len(group.rotations)
    assert len({c.info["spacegroup"] for c in drawn}) > 3


def test_the_same_draw_again_and_another_with_another_seed() -> None:
    a, b = random_crystals("TiO2", FEW), random_crystals("TiO2", FEW)
    assert all(np.allclose(x.positions, y.positions, atol=1e-9) for x, y in zip(a, b, strict=True))
    other = random_crystals("TiO2", Search(structures=12, max_atoms=10, seed=2))
    assert [c.info["spacegroup"] for c in other] != [c.info["spacegroup"] for c in a]


def test_no_symmetry_on_request() -> None:
    assert {c.info["spacegroup"] for c in random_crystals("TiO2", Search(structures=5, max_operations=1))} == {1}


@pytest.mark.parametrize("number", [2, 62, 139, 166, 194, 225, 227])
def test_special_positions_are_those_of_the_tables(number: int) -> None:
    # multiplicities of the International Tables, divided by the centring
    known = {
        2: {1, 2}, 62: {4, 8}, 139: {1, 2, 4, 8, 16}, 166: {1, 2, 3, 6, 12}, 194: {2, 4, 6, 12, 24}, 225: {1, 2, 6, 8, 12, 24, 48},
        227: {2, 4, 8, 12, 24, 48},
    }  # fmt: skip
    sites = {m for m, _, _ in random_search._group(number).sites}
    assert sites <= known[number]
    assert {max(known[number]), min(known[number])} <= sites


def test_pushing_leaves_what_has_room_and_gives_up_on_what_has_none() -> None:
    salt = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5] * 3], 2.82 * (1 - np.eye(3)))
    (kept,) = push_apart([salt], 0.75)
    assert kept is not None
    assert np.allclose(kept.positions, salt.positions)
    assert push_apart([salt.scaled(0.1)], 0.75, swells=2) == [None]
    with pytest.raises(InputError, match="one size"):
        push_apart([salt, salt.supercell((2, 1, 1))], 0.75)


def test_wrong_requests() -> None:
    with pytest.raises(InputError, match="19 atoms in a formula unit"):
        random_crystals("Li15Si4", Search(max_atoms=10))
    with pytest.raises(InputError, match="random search"):
        Search(structures=0)


def test_a_search_stops_anywhere_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import naica.potential.relax as home

    asked: list[int] = []
    real = home.relax

    def counted(crystals, *args, **options):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(crystals))
        return real(crystals, *args, **options)

    search = Search(structures=12, block=4, max_atoms=4, least_completed=5, steps=80)
    monkeypatch.setattr(home, "relax", counted)
    with pytest.raises(KeyboardInterrupt):
        search_formula("CuAu", "emt", search, tmp_path)
    monkeypatch.setattr(home, "relax", real)
    later: list[int] = []
    monkeypatch.setattr(home, "relax", lambda c, *a, **k: later.append(len(c)) or real(c, *a, **k))
    found = search_formula("CuAu", "emt", search, tmp_path)
    assert (asked, later) == ([4, 4], [4])
    again = search_formula("CuAu", "emt", search, tmp_path)
    assert later == [4]
    assert again.energies == found.energies
    whole = search_formula("CuAu", "emt", search)
    assert found.energies == pytest.approx(whole.energies, abs=1e-6)
    assert found.tried == 12
    assert found.completed + sum(found.failures.values()) == 12
    assert found.counts is (found.completed >= 5)
    assert list(found.energies) == sorted(found.energies)
    best = found.distinct(3)
    assert best[0][0] == found.energies[0]
    with pytest.raises(RunError, match="another search"):
        search_formula("CuAu", "emt", Search(structures=12, block=4, max_atoms=4, seed=5), tmp_path)


def test_too_few_completed_do_not_count(tmp_path: Path) -> None:
    found = search_formula("CuAu", "emt", Search(structures=3, least_completed=3, max_atoms=4, steps=1, fmax=1e-4))
    assert not found.counts
    assert found.failures
    # a damaged folder is told, not swallowed
    (tmp_path / "CuAu").mkdir()
    (tmp_path / "CuAu" / "search.json").write_text(json.dumps({}))
    with pytest.raises(RunError, match="another formula"):
        search_formula("CuAu", "emt", Search(structures=3), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("formula", "known"), [("CuAu", "copper-gold"), ("Cu3Au", "copper-gold-3")])
def test_finds_the_ordered_alloys(formula: str, known: str) -> None:
    from naica.potential.relax import relax
    from naica.structure.prototypes import prototype

    symbols = ["Cu", "Au"]
    (reference,) = relax(prototype(known).crystal(symbols), "emt", 0.02, 300)
    assert reference.energy is not None
    found = search_formula(formula, "emt", Search(structures=40, max_atoms=4, fmax=0.02, steps=300, seed=2))
    assert found.counts
    assert found.energies[0] == pytest.approx(reference.energy / len(prototype(known).crystal(symbols)), abs=2e-3)
