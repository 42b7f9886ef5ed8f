"""Novelty: what counts as new at each depth, and that distances are kept."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.data import CrystalTable
from naica.discover.ledger import Ledger
from naica.discover.novelty import Known, keep_verdicts, known_of, novelties, verdicts_of
from naica.errors import InputError, MissingPart
from naica.structure.crystal import Crystal


def rocksalt(a: str = "Na", b: str = "Cl", length: float = 5.64) -> Crystal:
    return Crystal.from_fractional([a, b], [[0, 0, 0], [0.5] * 3], length / 2 * (1 - np.eye(3)))


def zincblende(a: str = "Na", b: str = "Cl") -> Crystal:
    return Crystal.from_fractional([a, b], [[0, 0, 0], [0.25] * 3], 3.0 * (1 - np.eye(3)))


def rutile(u: float, c: float = 3.0) -> Crystal:
    sites = [[0, 0, 0], [0.5] * 3, [u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    return Crystal.from_fractional(["Ti", "Ti", "O", "O", "O", "O"], sites, np.diag([4.6, 4.6, c]))


def shaken(crystal: Crystal, size: float, seed: int = 0) -> Crystal:
    return crystal.replace(positions=crystal.positions + np.random.default_rng(seed).normal(size=(len(crystal), 3)) * size)


def test_verdicts_at_each_depth() -> None:
    known = Known({"salt": rocksalt(), "rutile": rutile(0.305)})
    assert known.novelty(rocksalt("K")).verdict == "new formula"
    assert known.novelty(zincblende()).verdict == "new prototype"
    assert known.novelty(rutile(0.10, 6.0)).verdict == "new structure"
    found = known.novelty(rutile(0.30))
    assert (found.verdict, found.match, found.is_new) == ("known", "rutile", False)
    assert found.distance is not None
    assert 0 < found.distance < 0.05


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100), st.floats(0.8, 1.25))
def test_descriptions_of_one_crystal_are_known(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    known = Known({"rutile": rutile(0.305)})
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    big = rutile(0.305).supercell([[1, 0, 0], [0, 1, 1], [0, 0, 2]]).scaled(factor)
    order = rng.permutation(len(big))
    other = Crystal(big.numbers[order], (big.positions[order] + rng.normal(size=3)) @ turn, big.cell @ turn)
    found = known.novelty(other)
    assert found.match == "rutile"
    assert found.distance == pytest.approx(0, abs=1e-5)


def test_noise_that_hides_the_symmetry_is_seen_through_at_formula_depth() -> None:
    known = Known({"rutile": rutile(0.305)})
    noisy = shaken(rutile(0.305), 0.12)
    assert known.novelty(noisy).verdict == "new prototype"
    found = known.novelty(noisy, depth="formula")
    assert found.match == "rutile"
    assert found.distance == pytest.approx(0.08, abs=0.06)


def test_the_nearest_of_several_matches_is_named_whatever_the_order() -> None:
    near, far = rutile(0.306), rutile(0.29)
    for items in ({"near": near, "far": far}, {"far": far, "near": near}):
        found = Known(items).novelty(rutile(0.305))
        assert (found.match, found.compared) == ("near", 2)


def test_molecules_and_stacked_atoms_have_no_label_but_are_compared() -> None:
    oxygen = Crystal(["O", "O"], [[0, 0, 0], [0, 0, 1.21]])
    known = Known({"oxygen": oxygen})
    assert known.novelty(oxygen.replace(positions=oxygen.positions + 1.0)).match == "oxygen"
    assert known.novelty(Crystal(["O", "O"], [[0, 0, 0], [0, 0, 2.0]])).verdict == "new structure"


def test_a_stream_is_compared_with_itself() -> None:
    known = Known([rocksalt()])
    stream = [rocksalt(length=5.7), rocksalt("K"), rocksalt("K", length=6.3), zincblende(), zincblende()]
    found = list(novelties(stream, known))
    assert [n.verdict for n in found] == ["known", "new formula", "known", "new prototype", "known"]
    assert found[2].match == stream[1].hash
    assert len(known) == 3
    assert known.formulas == {"NaCl", "KCl"}
    assert len(known.labels) == 3


def test_one_id_for_two_structures_is_refused() -> None:
    known = Known({"a": rocksalt()})
    known.add("a", rocksalt())
    assert len(known) == 1
    with pytest.raises(InputError, match="'a' already stands"):
        known.add("a", rocksalt("K"))
    with pytest.raises(InputError, match="depth"):
        known.novelty(rocksalt(), depth="deep")


def test_near_misses_are_kept_and_doubtful_verdicts_seen() -> None:
    known = Known({"rutile": rutile(0.305)})
    far = known.novelty(rutile(0.42), depth="formula")
    assert far.verdict == "new structure"
    assert far.match is None
    assert far.near[0].id == "rutile"
    assert not far.near[0].matches
    assert 0.3 < far.near[0].largest < 0.45
    assert not far.robust
    assert any("tolerance" in text for text in far.evidence)
    assert known.novelty(rutile(0.30), depth="formula").robust


def test_rows_of_a_table_wait_for_their_formula() -> None:
    table = CrystalTable.from_crystals([rocksalt(), rocksalt("K"), rutile(0.305)], ids=["a", "b", "c"])
    known = Known()
    known.add_table(table, "set:")
    assert len(known) == 3
    assert known.formulas == {"NaCl", "KCl", "TiO2"}
    assert known.novelty(rocksalt("K", length=6.3)).match == "set:b"
    assert known.novelty(rocksalt("Rb")).verdict == "new formula"
    assert len(known.labels) == 3
    with pytest.raises(InputError, match="'set:a' already"):
        known.add_table(table, "set:")


def test_a_reported_composition_is_not_claimed_as_new(tmp_path: Path) -> None:
    listed = tmp_path / "made.csv"
    listed.write_text("id,Formula\n1,NaCl\n2,K0.5Na0.5Cl\n")
    known = known_of((), [str(listed)])
    found = known.novelty(rocksalt())
    assert (found.verdict, found.reported, found.is_new) == ("formula reported", ("made:2",), False)
    assert known.novelty(rocksalt("K")).is_new
    # a structure of that composition is known too: then the geometry speaks, and the report stays as evidence
    known.add("cscl", Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5] * 3], 3.4 * np.eye(3)))
    found = known.novelty(rocksalt())
    assert (found.verdict, found.reported) == ("new prototype", ("made:2",))


def test_lists_and_tables_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such table"):
        known_of([str(tmp_path / "gone.parquet")])
    with pytest.raises(InputError, match="no such file"):
        known_of((), [str(tmp_path / "gone.csv")])
    bad = tmp_path / "bad.csv"
    bad.write_text("formula\nNaCl\nXx2\n")
    with pytest.raises(InputError, match="line 3"):
        known_of((), [str(bad)])


def test_verdicts_are_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert verdicts_of(ledger) == {}
    keep_verdicts(ledger, {"k": Known({"rutile": rutile(0.305)}).novelty(rutile(0.31), disorder=True)}, 1)
    told = verdicts_of(ledger)["k"]
    assert told["verdict"] == told["claim"] == "known"
    assert told["near"][0]["id"] == "rutile"
    assert told["disorder"] == []
    ledger.close()


def test_halite_is_known_to_materials_project() -> None:
    try:
        known = known_of(["mp20"])
    except MissingPart as error:
        pytest.skip(str(error))
    found = known.novelty(rocksalt(length=5.5), "formula", disorder=True)
    assert (found.verdict, found.robust, found.disorder) == ("known", True, ())
    assert found.match is not None
    assert found.match.startswith("mp20:mp-")
    # the same cell with elements nobody has put together in it
    assert known.novelty(rocksalt("Xe", "W")).verdict == "new formula"


@pytest.mark.parametrize("depth", ["label", "formula"])
def test_a_strained_and_shaken_supercell_is_seen_through(depth: str) -> None:
    # strain and noise take the symmetry, and for some of these the primitive cell the matcher needs
    sites = [[0, 0, 0], [0.5] * 3, [0.25] * 3, [0.75] * 3]
    cell = Crystal.from_fractional(["Al", "Mn", "Cu", "Cu"], sites, 2.98 * (1 - np.eye(3)))
    known = Known({"heusler": cell})
    strain = np.eye(3) + np.array([[0.008, 0.004, -0.006], [0.004, -0.009, 0.003], [-0.006, 0.003, 0.005]])
    big = cell.supercell([[1, 0, 0], [0, 1, 1], [0, 0, 2]])
    big = big.replace(positions=big.positions @ strain, cell=big.cell @ strain)
    seen = [known.novelty(shaken(big, 0.06, seed), depth) for seed in range(8)]  # type: ignore[arg-type]
    assert {found.match for found in seen} == {"heusler"}
    by_motif = [found for found in seen if found.motif is not None]
    assert by_motif
    assert all("smaller cell" in " ".join(found.evidence) for found in by_motif)
    # one manganese of two moved by an ångström is another structure, at whatever tolerance
    double = cell.supercell((1, 1, 2))
    moved = np.where(np.arange(8)[:, None] == int(np.flatnonzero(double.numbers == 25)[0]), [0.0, 0.0, 1.0], 0.0)
    assert known.novelty(double.replace(positions=double.positions + moved), depth).is_new  # type: ignore[arg-type]
