import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from known import crystals, magnesium, perovskite, rock_salt, slab, spinel, water

from naica.errors import InputError
from naica.structure import Crystal
from naica.structure.convert import closest_pair, image_distances, lattice_points, min_distance, reduced_cell, supercell

PBC = st.tuples(st.booleans(), st.booleans(), st.booleans())


def assert_same(a: Crystal, b: Crystal, tolerance=1e-9):
    assert np.array_equal(a.numbers, b.numbers)
    assert np.abs(a.positions - b.positions).max() < tolerance
    assert np.abs(a.cell - b.cell).max() < tolerance
    assert np.array_equal(a.pbc, b.pbc)


# --- there and back ------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(crystals(), PBC)
def test_ase_round_trip_is_exact(crystal, pbc):
    crystal = crystal.replace(pbc=list(pbc))
    assert crystal.to_ase().pbc.tolist() == list(pbc)
    assert Crystal.from_ase(crystal.to_ase()).hash == crystal.hash


@settings(max_examples=60, deadline=None)
@given(crystals(), PBC.filter(any))
def test_pymatgen_round_trip(crystal, pbc):
    crystal = crystal.replace(pbc=list(pbc))
    assert_same(Crystal.from_pymatgen(crystal.to_pymatgen()), crystal)


@pytest.mark.parametrize("make", [water, slab, rock_salt])
def test_molecules_and_slabs_travel(make):
    crystal = make()
    assert Crystal.from_ase(crystal.to_ase()).hash == crystal.hash
    assert_same(Crystal.from_pymatgen(crystal.to_pymatgen()), crystal)


def test_a_slab_without_third_vector_gets_vacuum_in_pymatgen():
    crystal = slab().replace(cell=np.diag([2.56, 2.56, 0.0]))
    structure = crystal.to_pymatgen()
    assert structure.lattice.pbc == (True, True, False)
    assert structure.lattice.c == pytest.approx(1.8 + 10)
    assert np.allclose(structure.cart_coords, crystal.positions)


def test_site_properties_and_info_travel():
    crystal = rock_salt().replace(info={"id": "mp-22862", "site_properties": {"tags": np.array([3, 4]), "magmom": np.array([0.5, -0.5])}})
    for back in (Crystal.from_ase(crystal.to_ase()), Crystal.from_pymatgen(crystal.to_pymatgen())):
        assert back.info["id"] == "mp-22862"
        assert list(back.info["site_properties"]["tags"]) == [3, 4]
        assert list(back.info["site_properties"]["magmom"]) == [0.5, -0.5]


def test_results_of_a_calculator_come_into_info_and_go_back():
    from ase.build import bulk
    from ase.calculators.emt import EMT

    atoms = bulk("Cu").repeat(2)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    energy, stress = atoms.get_potential_energy(), atoms.get_stress(voigt=False)
    crystal = Crystal.from_ase(atoms)
    assert crystal.info["energy"] == pytest.approx(energy)
    assert crystal.info["forces"].shape == (8, 3)
    assert np.allclose(crystal.info["stress"], stress)
    again = crystal.to_ase()
    assert again.get_potential_energy() == pytest.approx(energy)
    assert np.allclose(again.get_stress(voigt=False), stress)
    assert "energy" not in again.info


def test_results_of_other_positions_are_not_taken():
    from ase.build import bulk
    from ase.calculators.emt import EMT

    atoms = bulk("Cu")
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.set_cell(atoms.cell * 1.1, scale_atoms=True)
    assert "energy" not in Crystal.from_ase(atoms).info


def test_oxidation_states_travel():
    from pymatgen.core import Structure

    structure = rock_salt().to_pymatgen()
    structure.add_oxidation_state_by_site([1, -1])
    crystal = Crystal.from_pymatgen(structure)
    assert crystal.info["site_properties"]["oxidation_state"].tolist() == [1, -1]
    back = crystal.to_pymatgen()
    assert isinstance(back, Structure)
    assert [str(s.specie) for s in back] == ["Na+", "Cl-"]


def test_charge_and_spin_of_a_molecule_travel():
    from pymatgen.core import Molecule

    molecule = Molecule(["O", "H"], [[0, 0, 0], [0, 0, 0.96]], charge=-1, spin_multiplicity=1)
    crystal = Crystal.from_pymatgen(molecule)
    assert crystal.info["charge"] == -1
    assert crystal.to_pymatgen().charge == -1


def test_disorder_is_refused_and_the_site_named():
    from pymatgen.core import Lattice, Structure

    mixed = Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}, "Cu"], [[0, 0, 0], [0.5] * 3])
    with pytest.raises(InputError, match=r"site 0 at \[0.0, 0.0, 0.0\] is disordered \(.*0\.5.*1 of 2 sites"):
        Crystal.from_pymatgen(mixed)
    partly_empty = Structure(Lattice.cubic(3), ["Cu", {"Li": 0.25}], [[0, 0, 0], [0.5] * 3])
    with pytest.raises(InputError, match=r"site 1 .*Li 0\.25"):
        Crystal.from_pymatgen(partly_empty)


def test_strangers_are_refused():
    from ase import Atoms
    from pymatgen.core import DummySpecies, Lattice, Structure

    with pytest.raises(InputError, match=r"expected ase.Atoms, found str"):
        Crystal.from_ase("NaCl")
    with pytest.raises(InputError, match=r"expected a pymatgen Structure or Molecule, found Lattice"):
        Crystal.from_pymatgen(Lattice.cubic(3))
    with pytest.raises(InputError, match="atomic number 0"):
        Crystal.from_ase(Atoms("X", positions=[[0, 0, 0]]))
    with pytest.raises(InputError, match="dummy species"):
        Crystal.from_pymatgen(Structure(Lattice.cubic(3), [DummySpecies("X")], [[0, 0, 0]]))
    with pytest.raises(InputError, match="site property 'tag' has 1 values for 2 atoms"):
        rock_salt().replace(info={"site_properties": {"tag": [1]}}).to_ase()


# --- supercells -----------------------------------------------------------------------------------------------------------
MATRICES = arrays(np.int64, (3, 3), elements=st.integers(-3, 3)).filter(lambda m: 0 < abs(round(np.linalg.det(m))) <= 20)


@settings(max_examples=80, deadline=None)
@given(MATRICES)
def test_lattice_points_are_all_classes_inside_the_cell(matrix):
    points = lattice_points(matrix)
    frac = points @ np.linalg.inv(matrix)
    assert len(points) == abs(round(np.linalg.det(matrix)))
    assert (frac > -1e-9).all()
    assert (frac < 1 - 1e-9).all()
    assert len({tuple(p) for p in points.tolist()}) == len(points)


@settings(max_examples=30, deadline=None)
@given(crystals(max_atoms=3), MATRICES)
def test_a_supercell_is_the_same_crystal(crystal, matrix):
    big = supercell(crystal, matrix)
    copies = abs(round(np.linalg.det(matrix)))
    assert len(big) == copies * len(crystal)
    assert big.volume == pytest.approx(copies * crystal.volume)
    # every atom of the supercell is an atom of the crystal moved by a lattice vector
    moves = (big.positions - np.tile(crystal.positions, (copies, 1))) @ np.linalg.inv(crystal.cell)
    assert np.abs(moves - np.round(moves)).max() < 1e-8
    assert min_distance(big) == pytest.approx(min_distance(crystal), abs=1e-8)


def test_counts_and_diagonal_matrices_agree_with_ase():
    crystal = rutile_with_tags()
    assert crystal.supercell([2, 1, 3]).hash == crystal.supercell(np.diag([2, 1, 3])).hash
    assert np.allclose(crystal.supercell([2, 1, 3]).positions, crystal.to_ase().repeat((2, 1, 3)).positions)
    assert crystal.supercell([2, 1, 3]).info["site_properties"]["tags"].tolist() == [0, 1, 2, 3, 4] * 6


def rutile_with_tags():
    return perovskite().replace(info={"site_properties": {"tags": np.arange(5)}})


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((3, 3)), "singular"),
        (np.eye(3) * 1.5, "integer"),
        (np.eye(2), "integer matrix"),
    ],
)
def test_bad_matrices(matrix, message):
    with pytest.raises(InputError, match=message):
        supercell(rock_salt(), matrix)


def test_a_slab_is_not_repeated_into_its_vacuum():
    with pytest.raises(InputError, match="without periodicity"):
        slab().supercell([1, 1, 2])
    assert len(slab().supercell([[1, 1, 0], [-1, 1, 0], [0, 0, 1]])) == 4


# --- distances ---------------------------------------------------------------------------------------------------------------
def shortest_by_brute_force(crystal: Crystal, reach=6) -> float:
    ranges = [range(-reach, reach + 1) if p else range(1) for p in crystal.pbc]
    steps = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3) @ crystal.cell
    vectors = crystal.positions[None, :, None] + steps[None, None] - crystal.positions[:, None, None]
    lengths = np.linalg.norm(vectors, axis=-1)
    home = np.flatnonzero((steps == 0).all(axis=1))[0]
    lengths[np.arange(len(crystal)), np.arange(len(crystal)), home] = np.inf
    return float(lengths.min())


@settings(max_examples=60, deadline=None)
@given(crystals(max_atoms=4), PBC)
def test_min_distance_agrees_with_brute_force(crystal, pbc):
    crystal = crystal.replace(pbc=list(pbc))
    assert min_distance(crystal) == pytest.approx(shortest_by_brute_force(crystal), abs=1e-9)


def test_min_distance_in_a_very_skewed_cell():
    skew = np.array([[1, 0, 0], [4, 1, 0], [3, -4, 1]])
    crystal = perovskite()
    sheared = Crystal(crystal.numbers, crystal.positions, skew @ crystal.cell, True)
    assert min_distance(sheared) == pytest.approx(3.905 / 2)


def test_known_distances():
    assert min_distance(Crystal([29], [[0, 0, 0]], [3.0, 4.0, 5.0])) == pytest.approx(3.0)
    assert closest_pair(Crystal([29], [[0, 0, 0]], [3.0, 4.0, 5.0]))[:2] == (0, 0)
    assert min_distance(Crystal([29], [[0, 0, 0]])) == float("inf")
    assert min_distance(slab()) == pytest.approx(np.sqrt(2 * 1.28**2 + 1.8**2))
    assert min_distance(slab().replace(cell=np.diag([2.56, 2.56, 0.0]))) == pytest.approx(np.sqrt(2 * 1.28**2 + 1.8**2))
    assert min_distance(magnesium()) == pytest.approx(np.hypot(3.21 / np.sqrt(3), 5.21 / 2))
    assert closest_pair(water())[2] == pytest.approx(np.hypot(0.763, 0.596))
    on_top = Crystal([1, 8, 8], [[2, 2, 2], [0, 0, 0], [5, 0, 0]], [5.0, 5.0, 5.0])
    assert set(closest_pair(on_top)[:2]) == {1, 2}
    assert min_distance(on_top) == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(crystals(max_atoms=3))
def test_neighbours_agree_with_ase(crystal):
    from ase.neighborlist import neighbor_list

    i, d = neighbor_list("id", crystal.to_ase(), 4.0)
    assert np.allclose(np.sort(image_distances(crystal, 0, 4.0)[1]), np.sort(d[i == 0]))


@settings(max_examples=30, deadline=None)
@given(crystals())
def test_reduced_cell_spans_the_same_lattice(crystal):
    change = reduced_cell(crystal) @ np.linalg.inv(crystal.cell)
    assert np.abs(change - np.round(change)).max() < 1e-8
    assert abs(np.linalg.det(change)) == pytest.approx(1)


def test_spinel_has_its_bond_lengths():
    assert min_distance(spinel()) == pytest.approx(1.9235, abs=0.01)
