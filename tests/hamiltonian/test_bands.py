"""Electrons from matrices: known chains and sheets, filling, densities that add up, large cells as small ones."""

import numpy as np
import pytest

from naica.errors import InputError
from naica.hamiltonian import bands
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.sources import source
from naica.structure import Crystal


def chain(hopping: float = -1.0, overlap: float | None = None) -> OrbitalMatrices:
    """One s orbital per cell of 2 Å."""
    crystal = Crystal(np.array([1]), np.zeros((1, 3)), np.diag([2.0, 10, 10]))
    blocks = {"H": np.array([0.0, hopping])} | ({} if overlap is None else {"S": np.array([1.0, overlap])})
    return OrbitalMatrices(crystal, {1: Basis(1, (0,), "", 1.0)}, np.array([[0, 0], [0, 0]]), np.array([[0, 0, 0], [1, 0, 0]]), blocks)


def graphene() -> OrbitalMatrices:
    """π bands: two orbitals, nearest neighbours −2.7 eV."""
    cell = np.array([[2.46, 0, 0], [-1.23, 2.1304, 0], [0, 0, 12.0]])
    crystal = Crystal.from_fractional([6, 6], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]], cell, (True, True, False))
    images = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [-1, 0, 0], [0, 1, 0]])
    pairs = np.array([[0, 0], [1, 1], [0, 1], [0, 1], [0, 1]])
    return OrbitalMatrices(crystal, {6: Basis(6, (0,), "", 1.0)}, pairs, images, {"H": np.array([0.0, 0, -2.7, -2.7, -2.7])})


def test_a_chain_has_its_cosine():
    for k in (0.0, 0.1, 0.25, 0.5):
        assert bands.eigenvalues(chain(), [k, 0, 0])[0] == pytest.approx(-2 * np.cos(2 * np.pi * k))
        with_overlap = -2 * np.cos(2 * np.pi * k) / (1 + 0.4 * np.cos(2 * np.pi * k))
        assert bands.eigenvalues(chain(overlap=0.2), [k, 0, 0])[0] == pytest.approx(with_overlap)


def test_graphene_touches_at_k():
    energies = bands.eigenvalues(graphene(), [1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(energies, 0, atol=1e-8)
    np.testing.assert_allclose(bands.eigenvalues(graphene(), [0, 0, 0]), [-8.1, 8.1])


def test_half_a_chain_is_a_metal_and_its_level_is_zero():
    k = bands.mesh([201, 1, 1])
    filled = bands.filling(bands.all_energies(chain(), k), k, 1.0)
    assert filled.metal
    assert filled.fermi == pytest.approx(0, abs=0.02)


def test_gaps_direct_and_indirect():
    k = np.array([[0.0, 0, 0], [0.5, 0, 0]])
    direct = bands.filling(np.array([[0.0, 1.0], [-1.0, 2.0]]), k, 2.0)
    assert (direct.gap, direct.direct, direct.fermi) == (1.0, True, 0.5)
    indirect = bands.filling(np.array([[0.0, 2.0], [-1.0, 1.5]]), k, 2.0)
    assert (indirect.gap, indirect.direct) == (1.5, False)
    assert bands.filling(np.array([[0.0, 2.0], [-1.0, -0.5]]), k, 2.0).metal


def test_effective_mass_of_a_chain_in_three_directions():
    # ε = −2t cos(k a): m = ħ² / (2 t a²)
    found = bands.effective_masses(_cubic(), np.zeros(3), 0)
    np.testing.assert_allclose(found, 7.619964231 / (2 * 1.0 * 2.0**2), rtol=1e-3)
    with pytest.raises(InputError, match="three directions"):
        bands.effective_masses(graphene(), np.zeros(3), 0)


def _cubic() -> OrbitalMatrices:
    crystal = Crystal(np.array([1]), np.zeros((1, 3)), 2.0 * np.eye(3))
    images = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    return OrbitalMatrices(crystal, {1: Basis(1, (0,), "", 1.0)}, np.zeros((4, 2), dtype=int), images, {"H": np.array([0.0, -1, -1, -1])})


def test_densities_and_charges_add_up():
    salt = Crystal.from_fractional([11, 17], [[0, 0, 0], [0.5, 0.5, 0.53]], 2.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]))
    m = source("slater-koster")(salt, {"shells": "1s1p"})
    density = bands.density_of_states(m, bands.mesh([3, 3, 3]))
    assert np.trapezoid(density.total, density.energies) == pytest.approx(2 * m.n_orbitals, rel=1e-3)
    np.testing.assert_allclose(sum(density.parts.values()), density.total, atol=1e-8)
    assert set(density.parts) == {"Na s", "Na p", "Cl s", "Cl p"}
    assert bands.charges(m, bands.mesh([3, 3, 3])).sum() == pytest.approx(0, abs=1e-6)


def test_large_cells_are_solved_as_small_ones(monkeypatch):
    salt = Crystal.from_fractional([11, 17], [[0, 0, 0], [0.5, 0.5, 0.53]], 2.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]))
    m = source("slater-koster")(salt.supercell((3, 3, 3)), {"shells": "1s1p"})
    k = [0.1, 0.2, 0.0]
    whole = bands.solve(m, k, 12, around=-6.0, vectors=True)
    monkeypatch.setattr(bands, "DENSE_UP_TO", 10)
    few = bands.solve(m, k, 12, around=-6.0, vectors=True)
    np.testing.assert_allclose(few.energies, whole.energies, atol=1e-6)
    monkeypatch.setattr(bands, "_FILLED", 2.0)  # by a sparse factor
    np.testing.assert_allclose(bands.solve(m, k, 12, around=-6.0).energies, whole.energies, atol=1e-6)
    with pytest.raises(InputError, match="look around"):
        bands.solve(m, k, 12)


def test_nearly_singular_overlap_loses_its_worst_directions():
    m = chain(overlap=0.4999999)  # S(k = ½) = 2e-7
    found = bands.solve(m, [0.5, 0, 0])
    assert found.left_out == 1
    assert len(found.energies) == 0
    with pytest.raises(InputError, match="must never be cut"):
        bands.solve(chain(overlap=0.6), [0.5, 0, 0])


def test_a_path_has_its_special_points():
    labels = [label for _, label in bands.path(graphene(), 30, "GMKG").ticks]
    assert labels == ["Γ", "M", "K", "Γ"]


def test_a_strained_sheet_has_the_points_of_the_lattice_it_is_nearest_to():
    flat = graphene()
    stretch = np.eye(3) + np.diag([0.02, -0.01, 0])
    c = flat.crystal
    strained = flat.replace(crystal=c.replace(positions=c.positions @ stretch, cell=c.cell @ stretch))
    found = bands.path(strained, 30, "GMKG")
    assert [label for _, label in found.ticks] == ["Γ", "M", "K", "Γ"]
    # the hoppings are those of the flat sheet, so both bands still meet at K
    place = found.ticks[2][0]
    np.testing.assert_allclose(bands.eigenvalues(strained, found.kpoints[np.abs(found.distance - place).argmin()]), 0, atol=1e-6)
    with pytest.raises(InputError, match="its special points are"):
        bands.path(strained, 30, "GZZG")
