"""Vectors of elements from formulas alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.data.atom2vec import atom2vec, cooccurrence, environments, read_formulas, shipped
from naica.data.cooccurrence import Cooccurrence, Vectors, without_rare
from naica.data.registry import dataset
from naica.errors import ConfigError, InputError

SALTS = [f"{a}{b}" for a in ("Li", "Na", "K", "Rb") for b in ("F", "Cl", "Br")]
OXIDES = ["Bi2Se3", "Bi2Te3", "MgO", "CaO", "SrO", "TiO2", "ZrO2", "CaTiO3", "SrTiO3", "SrZrO3", "Al2O3", "Na2O", "K2O", "MgAl2O4"]
FORMULAS = SALTS + OXIDES


@pytest.fixture(scope="module")
def found_vectors(materials_project) -> Vectors:
    return atom2vec(materials_project, 20)


@pytest.fixture(scope="module")
def materials_project() -> list[str]:
    found = dataset("compositions")
    if not found.present:
        pytest.skip("data set compositions is not on this machine (naica data pull compositions)")
    return read_formulas(found.path("mp_formation_decomposition.csv.gz"))


# --- the matrix -----------------------------------------------------------------------------------------------------------------------
def test_an_environment_is_the_rest_with_the_own_amount_before_it() -> None:
    assert dict(environments("Bi2Se3")) == {"Bi": "(2)Se3", "Se": "(3)Bi2"}
    assert dict(environments("Bi4Se6")) == dict(environments("Bi2Se3"))
    assert dict(environments("CaTiO3")) == {"Ca": "(1)TiO3", "Ti": "(1)CaO3", "O": "(3)CaTi"}
    assert dict(environments("Bi2Se3", amounts=False)) == {"Bi": "Se3", "Se": "Bi2"}
    assert environments("Fe") == []


def test_without_the_own_amount_different_environments_are_merged() -> None:
    """The published port's simplification: BiSe3 and Bi2Se3 are one environment of Bi, so Bi looks like what forms only one of them."""
    formulas = ["Bi2Se3", "BiSe3", "ScSe3", "Al2Se3"]
    kept, merged = (cooccurrence(formulas, amounts=a) for a in (True, False))
    bismuth, scandium, aluminium = (kept.names.index(s) for s in ("Bi", "Sc", "Al"))
    alike = {found.environments: (found.matrix @ found.matrix.T).toarray() for found in (kept, merged)}
    assert alike[kept.environments][bismuth, scandium] == alike[kept.environments][bismuth, aluminium] == 1
    assert alike[kept.environments][scandium, aluminium] == 0
    # merged, Bi counts its environment twice, and Sc and Al look the same
    assert alike[merged.environments][bismuth, scandium] == 2
    assert alike[merged.environments][scandium, aluminium] == 1


def test_elements_come_in_order_of_atomic_number_whatever_the_order_of_formulas() -> None:
    assert cooccurrence(["SrTiO3", "BiLi"]).names == ("Li", "O", "Ti", "Sr", "Bi")


def test_sodium_nitride_is_a_formula() -> None:
    assert dict(environments("NaN")) == {"Na": "(1)N", "N": "(1)Na"}
    with pytest.raises(InputError, match="sodium nitride"):
        environments(float("nan"))  # type: ignore[arg-type]


def test_a_row_that_is_no_formula_is_named() -> None:
    with pytest.raises(InputError, match="formula 2: "):
        atom2vec(["NaCl", "Xy2"], 1)
    with pytest.raises(InputError, match="no compounds"):
        atom2vec(["Na", "Fe"], 1)


def test_files_are_read_as_text(tmp_path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("id,formula\n1,NaN\n2,NaCl\n")
    assert read_formulas(path) == ["NaN", "NaCl"]
    path.write_text("id,name\n1,x\n")
    with pytest.raises(InputError, match="formula or composition"):
        read_formulas(path)


# --- the decomposition ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", ["raw", "normalised"])
def test_the_residual_is_the_tail_of_the_spectrum_and_falls_with_size(rows) -> None:
    found = cooccurrence(FORMULAS)
    dense = found.matrix.toarray()
    if rows == "normalised":
        dense = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    exact = np.linalg.svd(dense, compute_uv=False)
    before = np.inf
    for size in range(1, len(found.names) + 1):
        vectors = found.vectors(size, rows)
        # U_d from the vectors, and what is left of X outside of it
        basis = np.linalg.qr(vectors.values / np.where(vectors.singular[:size] > 1e-6, vectors.singular[:size], 1.0))[0]
        left = np.linalg.norm(dense - basis @ (basis.T @ dense))
        tail = np.sqrt((exact[size:] ** 2).sum())
        # a squared norm of order one holds 1e-10 of a norm; below that the Gram matrix has no more digits
        assert left**2 == pytest.approx(tail**2, abs=1e-10)
        assert vectors.residual**2 == pytest.approx(tail**2, abs=1e-10)
        assert left <= before + 1e-10
        before = left
        # inner products, which no sign or rotation changes
        u, s, _ = np.linalg.svd(dense, full_matrices=False)
        if size == len(exact) or exact[size - 1] - exact[size] > 1e-6:
            low = u[:, :size] * s[:size]
            assert vectors.values @ vectors.values.T == pytest.approx(low @ low.T, abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.permutations(FORMULAS))
def test_the_order_of_formulas_changes_no_similarity(order) -> None:
    # 4 lies in a gap of the spectrum: between equal singular values the directions would not be unique
    first = atom2vec(FORMULAS, 4)
    assert first.singular[3] - first.singular[4] > 1e-3
    other = atom2vec(order, 4)
    assert other.names == first.names
    assert other.cosines() == pytest.approx(first.cosines(), abs=1e-10)


def test_a_formula_listed_twice_changes_counts_and_no_binary_matrix() -> None:
    twice = [*FORMULAS, "CaTiO3"]
    assert (cooccurrence(twice, binary=True).matrix != cooccurrence(FORMULAS, binary=True).matrix).nnz == 0
    difference = cooccurrence(twice).matrix - cooccurrence(FORMULAS).matrix
    assert difference.sum() == 3
    # every formula twice rescales the counts: raw vectors twice as long, the same directions
    doubled = atom2vec(FORMULAS * 2, 4, rows="raw")
    once = atom2vec(FORMULAS, 4, rows="raw")
    assert doubled.values == pytest.approx(2 * once.values, abs=1e-9)
    assert doubled.cosines() == pytest.approx(once.cosines(), abs=1e-10)


def test_rare_elements_have_short_vectors_and_their_cosines_do_not_mind() -> None:
    found = atom2vec([*FORMULAS, "CsF", "CsCl"], 6, rows="raw")
    length = dict(zip(found.names, np.linalg.norm(found.values, axis=1), strict=True))
    assert length["Cs"] < length["Rb"]
    assert found.cosine("Cs", "Rb") > 0.95
    assert found.nearest("Cs", 1)[0][0] in ("K", "Rb", "Na", "Li")
    assert np.linalg.norm(found.directions, axis=1) == pytest.approx((np.linalg.norm(found.values, axis=1) > 0).astype(float))


def test_names_and_sizes_that_do_not_fit_are_refused() -> None:
    found = atom2vec(FORMULAS, 3)
    with pytest.raises(InputError, match="did you mean Na"):
        found.cosine("N", "K")
    with pytest.raises(ConfigError, match="expected 1 to"):
        atom2vec(FORMULAS, 50)
    with pytest.raises(ConfigError, match="unknown"):
        atom2vec(FORMULAS, 3, rows="scaled")


def test_rare_things_can_be_left_out_with_environments_only_they_had() -> None:
    found = without_rare(Cooccurrence.of([("a", "x"), ("a", "y"), ("b", "x"), ("c", "z")]), 2)
    assert (found.names, found.environments) == (("a",), ("x", "y"))


def test_written_vectors_are_read_again(tmp_path) -> None:
    found = atom2vec(FORMULAS, 5)
    found.write(tmp_path / "v.csv")
    again = Vectors.read(tmp_path / "v.csv")
    assert again.names == found.names
    assert again.values == pytest.approx(found.values, rel=1e-5, abs=1e-9)
    (tmp_path / "v.csv").write_text("name,v1\nNa,x\n")
    with pytest.raises(InputError, match="no vectors"):
        Vectors.read(tmp_path / "v.csv")


# --- real formulas --------------------------------------------------------------------------------------------------------------------
def test_groups_of_the_periodic_table_come_out(materials_project, found_vectors) -> None:
    found = found_vectors
    for a, b in (("K", "Rb"), ("Rb", "Cs"), ("K", "Cs")):
        assert found.cosine(a, b) > 0.9 > 0.3 > found.cosine(a, "Fe")
    assert {name for name, _ in found.nearest("Cl", 3)} == {"F", "Br", "I"}
    assert {name for name, _ in found.nearest("S", 3)} == {"O", "Se", "Te"}
    assert found.nearest("Zr", 1)[0][0] == "Hf"
    ninth = materials_project[::9]
    assert len(ninth) > 5000
    few = atom2vec(ninth, 20)
    assert min(few.cosine("K", "Rb"), few.cosine("Rb", "Cs"), few.cosine("K", "Cs")) > few.cosine("K", "Fe")


def test_the_shipped_vectors_are_what_the_list_gives(materials_project, found_vectors) -> None:
    assert "NaN" in materials_project
    found, kept = found_vectors, shipped()
    assert kept.names == found.names
    assert kept.cosines() == pytest.approx(found.cosines(), abs=1e-4)
