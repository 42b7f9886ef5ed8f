"""SMILES to geometry and geometry to bonds."""

import numpy as np
import pytest

from naica.errors import InputError
from naica.structure import Crystal

pytest.importorskip("rdkit", reason="needs the extra: pip install 'naica[molecules]'")

from naica.structure.molecule import chemistry, from_smiles, parse, place_all


def test_a_molecule_is_a_crystal_without_periodicity():
    ethanol = from_smiles("CCO")
    assert isinstance(ethanol, Crystal)
    assert not ethanol.pbc.any()
    assert ethanol.symbols == ["C", "C", "O"]
    assert ethanol.info["smiles"] == "CCO"
    # bond lengths of a real conformer, not of a drawing (1.5 on paper for every bond)
    first, second = (np.linalg.norm(ethanol.positions[a] - ethanol.positions[b]) for a, b in ((0, 1), (1, 2)))
    assert 1.45 < first < 1.60
    assert 1.35 < second < 1.50


def test_geometry_has_three_dimensions():
    camphor = from_smiles("CC1(C)C2CCC1(C)C(=O)C2")
    spread = np.linalg.svd(camphor.positions - camphor.positions.mean(0), compute_uv=False)
    assert spread[2] > 1.0


def test_hydrogens_stay_if_asked_for():
    whole = from_smiles("CCO", hydrogens=True)
    assert whole.symbols == ["C", "C", "O"] + ["H"] * 6
    np.testing.assert_allclose(whole.positions[:3], from_smiles("CCO").positions)


def test_same_seed_same_conformer():
    assert from_smiles("CCCCO") == from_smiles("CCCCO")
    assert from_smiles("CCCCO", seed=1) != from_smiles("CCCCO", seed=2)


def test_fragments_of_a_salt_do_not_overlap():
    salt = from_smiles("[Na+].[Cl-].CC(=O)[O-]")
    assert salt.min_distance() > 1.1
    sodium = np.linalg.norm(salt.positions - salt.positions[0], axis=1)
    assert np.sort(sodium)[1] > 2.5


@pytest.mark.parametrize(
    ("smiles", "said"),
    [
        ("C1CC", "not a SMILES"),
        ("", "not a SMILES"),
        ("C(C)(C)(C)(C)C", "valence"),
        ("*CC", "placeholder"),
        ("c1cccc1", "kekul"),
    ],
)
def test_bad_smiles_say_why(smiles, said):
    with pytest.raises(InputError, match=f"(?i){said}"):
        from_smiles(smiles)


def test_bulk_keeps_the_good_and_says_why_of_the_bad():
    found = place_all(["CC", "C1CC", "O"])
    assert [isinstance(one, str) for one in found] == [False, True, False]
    assert "C1CC" in found[1]


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1O", "CC(=O)N", "C#N", "OC1CC1", "O=C=O", "[H][H]", "[Ar]", "CS(=O)(=O)C", "c1ccoc1"])
def test_bonds_perceived_from_the_geometry_are_those_of_the_smiles(smiles):
    from rdkit import Chem

    whole = from_smiles(smiles, hydrogens=True)
    seen = chemistry(whole.numbers, whole.positions)
    assert [atom.GetAtomicNum() for atom in seen.GetAtoms()] == whole.numbers.tolist()
    assert Chem.CanonSmiles(Chem.MolToSmiles(Chem.RemoveHs(seen))) == Chem.CanonSmiles(smiles)


def test_charge_is_needed_where_there_is_one():
    ammonium = from_smiles("[NH4+]", hydrogens=True)
    with pytest.raises(InputError, match="charge 0"):
        chemistry(ammonium.numbers, ammonium.positions)
    seen = chemistry(ammonium.numbers, ammonium.positions, charge=1)
    assert seen.GetAtomWithIdx(0).GetFormalCharge() == 1


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1", "C=C", "c1ccoc1", "CC(=O)N", "C1CC1C=O", "c1ccc2ccccc2c1"])
def test_geometry_without_hydrogens_is_refused(smiles):
    bare = from_smiles(smiles)
    with pytest.raises(InputError, match="are all hydrogens there"):
        chemistry(bare.numbers, bare.positions)


def test_smiles_of_another_molecule_is_refused():
    ethanol = from_smiles("CCO")
    with pytest.raises(InputError, match="another order"):
        chemistry(ethanol.numbers[::-1].copy(), ethanol.positions[::-1].copy(), "CCO")
    # the same elements in the same order, but the carbons swapped
    butane = from_smiles("CCCC")
    with pytest.raises(InputError, match="Å apart"):
        chemistry(butane.numbers, butane.positions[[0, 3, 2, 1]], "CCCC")


def test_parse_drops_explicit_hydrogens():
    assert parse("[H]C([H])([H])[H]").GetNumAtoms() == 1
