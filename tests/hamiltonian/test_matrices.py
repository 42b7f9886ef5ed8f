"""Blocks in one convention: both directions of a pair are one, μ S is no physics, H(k) is hermitian, sets survive the disk."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from naica.errors import InputError
from naica.hamiltonian import checks
from naica.hamiltonian.bands import eigenvalues
from naica.hamiltonian.basis import CONVENTIONS, Basis, convention
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.sources import source
from naica.hamiltonian.store import HamiltonianSet, write_shard
from naica.structure import Crystal

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
SALT = Crystal.from_fractional([11, 17], [[0, 0, 0], [0.5, 0.46, 0.53]], 2.4 * FCC + 0.1 * np.array([[1, 2, 0], [0, -1, 3], [2, 0, 1]]))


def made(crystal: Crystal = SALT, shells: str = "2s1p1d") -> OrbitalMatrices:
    return source("slater-koster")(crystal, {"shells": shells})


def turned(turn: np.ndarray) -> Crystal:
    return SALT.replace(positions=SALT.positions @ turn.T, cell=SALT.cell @ turn.T)


@pytest.mark.parametrize("text", ["2s2p1d", "1s", "3s2p1d1f"])
def test_shells_by_words(text):
    assert Basis.named("C", text).text == text


@pytest.mark.parametrize("wrong", ["2x", "", "2", "s2"])
def test_wrong_words_are_refused(wrong):
    with pytest.raises(InputError):
        Basis.named("C", wrong)


@pytest.mark.parametrize("name", list(CONVENTIONS))
def test_conventions_have_a_way_back(name):
    basis, other = Basis.named("C", "2s2p1d1f"), Basis.named("H", "2s1p")
    block = np.random.default_rng(0).normal(size=(basis.size, other.size))
    one = convention(name)
    np.testing.assert_array_equal(one.from_std(one.to_std(block, basis, other), basis, other), block)


@pytest.mark.parametrize("name", ["openmx", "abacus", "siesta", "fhi-aims", "pyscf"])
def test_the_bond_test_finds_a_wrong_convention(name):
    m = made(shells="2s1p1d")
    assert checks.bond_error(m) < 1e-12
    bases = [m.basis[int(z)] for z in m.crystal.numbers]
    blocks = [
        convention(name).from_std(m.block("S", p), bases[i], bases[j]) for p, (i, j) in enumerate(m.pairs)
    ]  # as the code would have written it, read as if it were std
    wrong = m.with_blocks(S=np.concatenate([b.ravel() for b in blocks]))
    assert checks.bond_error(wrong) > 3e-3
    with pytest.raises(InputError, match="order or signs of the orbitals"):
        checks.accept(wrong, "made")


@pytest.mark.parametrize("turn", [Rotation.random(random_state=1).as_matrix(), -np.eye(3)], ids=["rotation", "inversion"])
def test_matrices_turn_with_the_structure(turn):
    assert np.abs(checks.rotated(made(), turn).blocks["H"] - made(turned(turn)).blocks["H"]).max() < 1e-12


def test_both_directions_are_one_pair_and_disagreement_is_told():
    m = made()
    both, images, blocks = [], [], []
    for p in np.random.default_rng(0).permutation(len(m.pairs)):
        i, j = m.pairs[p]
        both += [(i, j), (j, i)]
        images += [m.images[p], -m.images[p]]
        blocks += [m.block("H", p), m.block("H", p).T]
    again = OrbitalMatrices.from_pairs(m.crystal, m.basis, np.array(both), np.array(images), {"H": blocks})
    np.testing.assert_allclose(again.blocks["H"], m.blocks["H"], atol=1e-14)
    blocks[0] = blocks[0] + 1.0
    with pytest.raises(InputError, match="not hermitian"):
        OrbitalMatrices.from_pairs(m.crystal, m.basis, np.array(both), np.array(images), {"H": blocks})
    with pytest.raises(InputError, match="with itself"):
        OrbitalMatrices.from_pairs(m.crystal, m.basis, np.array([(0, 1)]), np.zeros((1, 3)), {"H": [m.block("H", 1)]})


def test_h_of_k_is_hermitian_and_does_not_depend_on_whole_lattice_vectors():
    m, k = made(), np.array([0.13, -0.27, 0.41])
    h = m.dense("H", k)
    np.testing.assert_allclose(h, h.conj().T, atol=1e-13)
    moved = SALT.replace(positions=SALT.positions + np.array([[1, 0, -2], [0, 3, 1]]) @ SALT.cell)
    np.testing.assert_allclose(eigenvalues(made(moved), k), eigenvalues(m, k), atol=1e-10)


def test_a_supercell_has_the_folded_bands():
    big = made(SALT.supercell((2, 1, 1)))
    folded = np.sort(np.concatenate([eigenvalues(made(), [0, 0, 0]), eigenvalues(made(), [0.5, 0, 0])]))
    np.testing.assert_allclose(eigenvalues(big, [0, 0, 0]), folded, atol=1e-10)


def test_gauge_is_found_and_taken_out():
    m = made()
    shifted = m.with_blocks(H=m.blocks["H"] + 1.7 * m.blocks["S"])
    assert shifted.gauge("H") == pytest.approx(m.gauge("H") + 1.7)
    back = shifted.shifted(shifted.gauge())
    np.testing.assert_allclose(back.blocks["H"], m.shifted(m.gauge()).blocks["H"], atol=1e-12)
    np.testing.assert_allclose(eigenvalues(shifted, [0.1, 0, 0]) - 1.7, eigenvalues(m, [0.1, 0, 0]), atol=1e-10)


def test_a_truncated_overlap_is_refused():
    m = made()
    own = np.repeat(m.on_site, np.diff(m.starts))
    cut = m.with_blocks(S=np.where(own, 1.0, 12.0) * m.blocks["S"])  # what is left of S when far blocks are gone is not positive
    with pytest.raises(InputError, match="S was truncated"):
        checks.accept(cut, "cut")


def test_missing_basis_is_named():
    m = made()
    with pytest.raises(InputError, match="no basis for Cl"):
        OrbitalMatrices(m.crystal, {11: m.basis[11]}, m.pairs, m.images, {})


def test_sets_on_disk(tmp_path):
    water = Crystal(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]]))
    items = [made(), made(SALT.supercell((1, 1, 2))), made(water)]
    found = HamiltonianSet.write(tmp_path, items, ["a", "b", "c"], per_shard=2)
    assert len(found) == 3
    assert found.names == ["a", "b", "c"]
    for one, again in zip(items, found, strict=True):
        assert again.crystal == one.crystal
        assert again.basis == dict(one.basis)
        for kind in one.blocks:
            np.testing.assert_array_equal(again.blocks[kind], one.blocks[kind])
    assert not list(tmp_path.glob("*.tmp"))
    (tmp_path / "shard-0009.h5").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"shard-0009.*make its structures again"):
        len(HamiltonianSet(tmp_path))


def test_a_shard_needs_the_same_matrices_of_all(tmp_path):
    with pytest.raises(InputError, match="no H0"):
        write_shard(tmp_path / "x.h5", [made(), made().replace(blocks={k: v for k, v in made().blocks.items() if k != "H0"})])
