import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import crystals, perovskite, rock_salt, slab, water

from naica.errors import InputError
from naica.structure import Crystal


def test_importing_structure_loads_no_heavy_package():
    code = (
        "import sys, naica.structure, naica.structure.convert, naica.structure.io, naica.structure.symmetry, naica.structure.oxidation, "
        "naica.structure.match\n"
        "naica.structure.oxidation.guess_oxidation('MgAl2O4')\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'ase', 'pymatgen', 'moyopy', 'torch', 'scipy', 'monty', 'pandas'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_hash_is_the_same_on_every_machine_and_in_every_version():
    # a stored campaign is keyed by these digits: never change them without a migration
    assert rock_salt().hash == GOLDEN


GOLDEN = "f0544fa64a8506286cbbbe65a4cd2986"


@settings(max_examples=60, deadline=None)
@given(crystals(), st.sampled_from([1e-12, 1e-14, 0.0]))
def test_hash_ignores_info_and_the_last_bits(crystal, noise):
    again = crystal.replace(positions=crystal.positions + noise, info={"name": "x"})
    same_bins = np.array_equal(*(np.floor(c.positions / 1e-6 + 0.3183098861837907) for c in (crystal, again)))
    assert (again.hash == crystal.hash) == same_bins
    assert crystal.replace(info={"a": 1}) == crystal
    assert hash(crystal.replace(info={"a": 1})) == hash(crystal)


def test_hash_survives_rounding_noise_at_tidy_coordinates():
    # a/4 of a cell given to five decimals lies on a half of 1e-6; rounding there would break ties by the last bit
    a = 4.21253
    plain = Crystal([12], [[a / 4, a / 2, a / 3]], [a, a, a])
    noisy = plain.replace(positions=plain.positions + 3e-16, cell=plain.cell * (1 + 2e-16))
    assert plain.hash == noisy.hash


@settings(max_examples=40, deadline=None)
@given(crystals(), st.integers(0, 2))
def test_hash_sees_every_part(crystal, axis):
    moved = crystal.positions.copy()
    moved[0, axis] += 1e-4
    cell = crystal.cell.copy()
    cell[axis, axis] += 1e-4
    numbers = crystal.numbers.copy()
    numbers[-1] = numbers[-1] % 94 + 1
    others = [crystal.replace(positions=moved), crystal.replace(cell=cell), crystal.replace(numbers=numbers), crystal.replace(pbc=False)]
    assert len({c.hash for c in [crystal, *others]}) == 5


def test_parts_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        rock_salt().positions[0, 0] = 1.0


def test_changed_atoms_forget_the_energy_of_the_old_ones():
    salt = rock_salt().replace(info={"energy": -6.7, "forces": np.zeros((2, 3)), "id": "a", "site_properties": {"tag": [1, 2]}})
    moved = salt.scaled(1.1)
    assert set(moved.info) == {"id", "site_properties"}
    assert set(salt.replace(info=salt.info).info) == set(salt.info)
    assert set(salt.wrapped().info) == set(salt.info)
    assert set(salt.replace(numbers=[11], positions=[[0, 0, 0]]).info) == {"id"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crystal([], []), "without atoms"),
        (lambda: Crystal([0], [[0, 0, 0]]), "atomic number 0 is no element"),
        (lambda: Crystal([104], [[0, 0, 0]]), "atomic number 104 is no element"),
        (lambda: Crystal(["Xx"], [[0, 0, 0]]), "unknown element symbol 'Xx'.*did you mean"),
        (lambda: Crystal([1], [[0, 0]]), r"positions have shape \(1, 2\); expected \(1, 3\)"),
        (lambda: Crystal([1], [[0, 0, np.nan]]), "NaN"),
        (lambda: Crystal([1], [[0, 0, 0]], np.eye(2)), r"cell has shape \(2, 2\)"),
        (lambda: Crystal([1], [[0, 0, 0]], [[1, 0, 0], [2, 0, 0], [0, 0, 1]], True), "no volume"),
        (lambda: Crystal([1], [[0, 0, 0]], np.zeros((3, 3)), True), "no volume"),
        (lambda: rock_salt().replace(colour="red"), "no part called colour"),
        (lambda: water().fractional, "no full cell"),
        (lambda: rock_salt().supercell([2, 2]), "three counts"),
    ],
)
def test_bad_input_says_what_is_wrong(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_what_it_says_of_itself():
    assert repr(water()) == "<Molecule H2O, 3 atoms>"
    assert repr(slab()).startswith("<Slab Cu, 2 atoms")
    assert perovskite().formula == "SrTiO3"
    assert perovskite().chemical_system == "O-Sr-Ti"
