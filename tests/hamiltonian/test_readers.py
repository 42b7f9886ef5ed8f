"""Matrices of other codes: real files of each, bands against the code's own, there and back, damaged files told."""

import gzip
import shutil

import numpy as np
import pytest

from naica.data.registry import dataset
from naica.errors import ConfigError, InputError
from naica.hamiltonian import bands, checks
from naica.hamiltonian.readers import arrays, deeph, deeph_dock, read
from naica.hamiltonian.sources import source
from naica.structure import Crystal

PUBLISHED = dataset("hamiltonians")
needs_data = pytest.mark.skipif(not PUBLISHED.present, reason="the set hamiltonians is not here; naica data pull hamiltonians")
SIESTA = "silicon_wannier90_siesta"


def made(shells: str = "2s1p1d"):
    cell = 2.6 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) + 0.1 * np.array([[1, 2, 0], [0, -1, 3], [2, 0, 1]])
    return source("slater-koster")(Crystal.from_fractional([8, 12], [[0, 0, 0], [0.5, 0.46, 0.53]], cell), {"shells": shells})


@needs_data
@pytest.mark.parametrize(
    ("file", "count", "orbitals"),
    [
        ("water_hf_sto3g.npz", 900, 7),
        ("ethane_sto3g.npz", 900, 16),
        ("pentacene_sto3g.npz", 10, 124),
        ("graphene_cp2k_sto3g.npz", 26, 10),
        ("graphene_e2g_khf_sto3g.npz", 42, 10),
        ("si64_dft_sp.npz", 1, 256),
    ],
)
def test_published_matrices(file, count, orbitals):
    found = arrays.read(PUBLISHED.path(file))
    assert len(found) == count
    assert found[0].n_orbitals == orbitals
    for one in (found[0], found[-1]):
        assert checks.bond_error(one) < 1e-6
        assert all(f.passed for f in checks.findings(one))


@needs_data
def test_silicon_of_siesta_has_siestas_bands_and_level():
    (one,) = read(PUBLISHED.path(f"{SIESTA}/silicon.HSX.gz"))
    assert one.basis[14].text == "2s2p1d"
    assert checks.band_error(one) < 1e-3
    assert checks.bond_error(one) < 1e-6
    assert one.fermi == pytest.approx(-3.82271, abs=1e-4)
    assert one.electrons == 8


@needs_data
def test_silicon_of_wannier90_has_its_interpolated_bands():
    (one,) = read(PUBLISHED.path(f"{SIESTA}/silicon_hr.dat.gz"))
    kpoints = np.loadtxt(PUBLISHED.path(f"{SIESTA}/silicon_band.kpt.gz"), skiprows=1)[:, :3]
    own = np.loadtxt(PUBLISHED.path(f"{SIESTA}/silicon_band.dat.gz"))[:, 1].reshape(-1, len(kpoints)).T
    found = np.stack([bands.eigenvalues(one, k) for k in kpoints[::7]])
    np.testing.assert_allclose(found, np.sort(own[::7], axis=1), atol=2e-3)


@needs_data
def test_levels_of_theory_of_one_archive_stay_apart():
    path = PUBLISHED.path("ethane_sto3g.npz")
    assert arrays.levels(path) == ["H_b3lyp", "H_hf"]
    first, second = (arrays.read_level(path, name)[0] for name in arrays.levels(path))
    assert not first.level.same(second.level)
    assert np.abs(first.blocks["H"] - second.blocks["H"]).max() > 1.0
    np.testing.assert_array_equal(first.blocks["S"], second.blocks["S"])


@needs_data
def test_a_half_written_file_is_told(tmp_path):
    whole = gzip.decompress(PUBLISHED.path(f"{SIESTA}/silicon.HSX.gz").read_bytes())
    (tmp_path / "half.HSX").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="still writing"):
        read(tmp_path / "half.HSX")
    shutil.copy(PUBLISHED.path(f"{SIESTA}/silicon_hr.dat.gz"), tmp_path / "lone_hr.dat.gz")
    with pytest.raises(InputError, match=r"lone\.win"):
        read(tmp_path / "lone_hr.dat.gz")


@pytest.mark.parametrize("kind", [deeph, deeph_dock], ids=["deeph", "deeph-dock"])
def test_deeph_folders_there_and_back(kind, tmp_path):
    one = made().replace(fermi=-3.2)
    again = read(kind.write(one, tmp_path / "folder"))[0]
    assert again.crystal == one.crystal
    assert again.fermi == -3.2
    np.testing.assert_array_equal(again.pairs, one.pairs)
    np.testing.assert_array_equal(again.images, one.images)
    for name in ("H", "S"):
        np.testing.assert_allclose(again.blocks[name], one.blocks[name], atol=1e-12)


def test_deeph_orders_orbitals_as_openmx_does(tmp_path):
    import h5py

    one = made("1p")
    deeph.write(one, tmp_path)
    with h5py.File(tmp_path / "overlaps.h5") as file:
        stored = file["[0, 0, 0, 1, 2]"][:]
    pair = next(p for p in range(len(one.pairs)) if tuple(one.pairs[p]) == (0, 1) and not one.images[p].any())
    # std has y z x, OpenMX x y z
    np.testing.assert_allclose(stored[0, 1], one.block("S", pair)[2, 0])


def test_what_nobody_recognises_and_what_is_missing(tmp_path):
    (tmp_path / "x.txt").write_text("nothing")
    with pytest.raises(InputError, match="no reader recognises"):
        read(tmp_path / "x.txt")
    with pytest.raises(ConfigError, match="known: deeph"):
        read(tmp_path / "x.txt", "castep")
    deeph.write(made(), tmp_path / "d")
    (tmp_path / "d" / "orbital_types.dat").unlink()
    with pytest.raises(InputError, match=r"has no orbital_types\.dat"):
        read(tmp_path / "d", "deeph")
    deeph.write(made(), tmp_path / "e")
    (tmp_path / "e" / "orbital_types.dat").write_text("0 1\n0 1\n")
    with pytest.raises(InputError, match="its atoms have 4 and 4 orbitals"):
        read(tmp_path / "e")
