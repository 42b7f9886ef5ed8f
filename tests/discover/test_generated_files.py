"""Output of generative models: every kind of file, and all the nonsense in it as reasons."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from naica.discover.generated_files import read_generated
from naica.errors import ConfigError
from naica.structure import Crystal
from naica.structure.io import write


def rocksalt(a: str, b: str, length: float) -> Crystal:
    return Crystal.from_fractional([a, b], [[0, 0, 0], [0.5] * 3], length / 2 * (1 - np.eye(3)))


SALTS = [rocksalt("Na", "Cl", 5.64), rocksalt("Mg", "O", 4.21), rocksalt("K", "F", 5.35)]


@pytest.fixture
def cifs(tmp_path: Path) -> list[str]:
    texts = []
    for at, crystal in enumerate(SALTS):
        path = tmp_path / f"{at}.cif"
        write(crystal, path)
        texts.append(path.read_text())
        path.unlink()
    return texts


def formulas(path: Path) -> list[str]:
    return [one.crystal.formula if one.crystal else f"! {one.reason}" for one in read_generated(path)]


def test_folder_and_archive_of_cifs(tmp_path: Path, cifs: list[str]) -> None:
    home = tmp_path / "out" / "deeper"
    home.mkdir(parents=True)
    (home / "b.cif").write_text("".join(cifs[:2]))
    (home / "a.cif").write_text("data_nonsense\n_cell_length_a nan\n")
    (home / "c.cif").write_text("")
    (home / "notes.txt").write_text("not a structure")
    found = list(read_generated(tmp_path / "out"))
    assert [one.name for one in found] == ["deeper/a.cif#1", "deeper/b.cif#1", "deeper/b.cif#2", "deeper/c.cif"]
    assert [one.crystal.formula for one in found if one.crystal] == ["NaCl", "MgO"]
    assert found[0].reason
    assert found[3].reason == "the file is empty"
    with zipfile.ZipFile(tmp_path / "generated_crystals_cif.zip", "w") as archive:
        for at, text in enumerate(cifs):
            archive.writestr(f"gen_{at}.cif", text)
        archive.writestr("gen_9.cif", "rubbish")
    assert formulas(tmp_path / "generated_crystals_cif.zip")[:3] == ["NaCl", "MgO", "KF"]
    assert formulas(tmp_path / "generated_crystals_cif.zip")[3].startswith("! ")


def test_extended_xyz_with_a_broken_frame(tmp_path: Path) -> None:
    path = tmp_path / "generated_crystals.extxyz"
    write(SALTS, path)
    frames = path.read_text().splitlines()
    frames[6] = "Xx 0 0 zero"  # an atom line of the second frame
    path.write_text("\n".join(frames) + "\n")
    found = formulas(path)
    assert (found[0], found[2]) == ("NaCl", "KF")
    assert found[1].startswith("! ")
    path.write_text("\n".join(frames[:4]) + "\nno count\nrest\n")
    found = formulas(path)
    assert len(found) == 2
    assert found[1].startswith("! ")
    # molecules are no candidates of a crystal campaign
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    assert formulas(path) == ["! has no full cell"]


def test_json_lines(tmp_path: Path) -> None:
    salt = SALTS[0]
    rows = [
        {"numbers": salt.numbers.tolist(), "cell": salt.cell.tolist(), "positions": salt.positions.tolist()},
        {"species": salt.symbols, "lattice": salt.cell.tolist(), "frac_coords": salt.fractional.tolist()},
        {"structure": salt.to_pymatgen().as_dict()},
        {"species": ["Na", "Qq"], "lattice": salt.cell.tolist(), "frac_coords": salt.fractional.tolist()},
        {"numbers": [11, 17], "lattice": [[1, 0, 0]] * 3, "positions": [[0, 0, 0], [0.5, 0, 0]]},
        {"energy": 3},
        [1, 2],
    ]
    path = tmp_path / "out.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n{broken\n")
    found = formulas(path)
    assert found[:3] == ["NaCl"] * 3
    assert all(f.startswith("! ") for f in found[3:])
    assert "Qq" in found[3]
    assert "expected numbers" in found[5]
    assert len(found) == 8


def test_what_cannot_be_opened_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_generated(tmp_path / "missing")
    with pytest.raises(ConfigError, match="holds no structures"):
        read_generated(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK but no archive")
    with pytest.raises(ConfigError, match="no sound ZIP"):
        list(read_generated(tmp_path / "bad.zip"))
