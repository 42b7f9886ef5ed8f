"""What is drawn of a crystal: images on faces, bonds, edges; and the still picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.app.scene import gradients, make_scene, svg, view, view_quaternion


def scene_of(atoms):
    return make_scene(atoms.numbers, atoms.positions, atoms.cell[:])


def test_rocksalt_has_27_drawn_atoms_and_54_bonds():
    scene = scene_of(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    assert Counter(scene.numbers.tolist()) == {11: 14, 17: 13}
    # the 3 x 3 x 3 grid of half a lattice constant: 3 directions x 9 lines x 2 steps
    assert len(scene.bonds) == 54


def test_caesium_chloride_has_a_full_cube():
    scene = scene_of(bulk("CsCl", "cesiumchloride", a=4.12))
    assert Counter(scene.numbers.tolist()) == {55: 8, 17: 1}
    assert len(scene.bonds) == 8


def test_metals_are_not_bonded_beside_anions_but_among_themselves():
    oxide = scene_of(bulk("MgO", "rocksalt", a=4.21, cubic=True))
    assert all({oxide.numbers[i], oxide.numbers[j]} == {12, 8} for i, j in oxide.bonds)
    assert len(scene_of(bulk("Cu", "fcc", a=3.6, cubic=True)).bonds) > 0


def test_an_atom_just_below_a_face_counts_as_on_it():
    shifted = bulk("CsCl", "cesiumchloride", a=4.12)
    shifted.positions -= 1e-4
    assert len(scene_of(shifted).numbers) == 9


@given(st.integers(0, 10_000), st.lists(st.integers(-3, 3), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_scene_is_the_crystal_seen_through_its_cell(seed, shift):
    """Every drawn atom is a lattice translate of a real one and lies in the cell; moving atoms by lattice vectors changes nothing."""
    random = np.random.default_rng(seed)
    cell = np.eye(3) * random.uniform(4, 7, 3) + random.uniform(-1.5, 1.5, (3, 3))
    fractional = random.uniform(0.05, 0.95, (5, 3))
    fractional[0, 0] = fractional[1, 2] = 0.0
    numbers = random.choice([8, 12, 26], 5)
    scene = make_scene(numbers, fractional @ cell, cell)
    inside = scene.positions @ np.linalg.inv(cell)
    assert inside.min() > -0.03
    assert inside.max() < 1.03
    assert len(inside) == 5 + 2
    away = (inside[:, None] - fractional[None]) - np.round(inside[:, None] - fractional[None])
    nearest = np.abs(away).max(-1).argmin(1)
    assert np.abs(away).max(-1).min(1).max() < 1e-9
    assert (numbers[nearest] == scene.numbers).all()
    moved = make_scene(numbers, (fractional + np.array(shift)) @ cell, cell)
    assert np.allclose(moved.positions, scene.positions, atol=1e-9)
    assert (moved.bonds == scene.bonds).all()


def test_dictionary_is_centred_on_the_cell():
    data = scene_of(bulk("NaCl", "rocksalt", a=5.64, cubic=True)).to_dict()
    assert np.allclose(np.mean(data["corners"], axis=0), 0)
    assert len(data["xyz"]) == len(data["elements"]) == 27


def test_picture_is_well_formed_and_draws_every_atom():
    scene = scene_of(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    root = ElementTree.fromstring(f"<svg>{svg(scene)}</svg>")
    circles = [e for e in root.iter() if e.tag == "circle"]
    assert len(circles) == 27
    assert {c.get("fill") for c in circles} == {"url(#atom-Na)", "url(#atom-Cl)"}
    for circle in circles:
        x, y, r = (float(circle.get(k)) for k in ("cx", "cy", "r"))
        assert r <= x <= 240 - r
        assert r <= y <= 240 - r


def test_gradients_define_what_pictures_use():
    ids = {e.get("id") for e in ElementTree.fromstring(gradients({"Na", "Cl"})).iter() if e.tag == "radialGradient"}
    assert ids == {"atom-Na", "atom-Cl"}
    assert atomic_numbers["Na"] == 11


def test_view_is_a_rotation_and_its_quaternion():
    from scipy.spatial.transform import Rotation

    assert np.allclose(view() @ view().T, np.eye(3))
    assert np.linalg.det(view()) == pytest.approx(1)
    assert np.allclose(Rotation.from_quat(view_quaternion()).as_matrix(), view(), atol=1e-5)
    # the c axis points up in the picture
    assert (view() @ [0, 0, 1])[1] > 0.9
