"""OpenMX, ABACUS and FHI-aims: files written here in their documented formats from known matrices, by names of orbitals and not by the
tables of `naica.hamiltonian.basis`; read back, accepted by the tests of an import, refused when wrong or cut off."""

import struct

import numpy as np
import pytest

from naica.errors import InputError
from naica.hamiltonian import checks
from naica.hamiltonian.readers import deeph, deeph_dock, read
from naica.hamiltonian.sources import source
from naica.structure import Crystal

# orbitals of each shell as naica has them, and as the codes do, by name; a minus is a sign
STD = ["s", "y z x", "xy yz z2 xz x2-y2", "f-3 f-2 f-1 f0 f1 f2 f3"]
OPENMX = ["s", "x y z", "z2 x2-y2 xy xz yz", "f0 f1 f-1 f2 f-2 f3 f-3"]
ABACUS = ["s", "z -x -y", "z2 -xz -yz x2-y2 xy", "f0 -f1 -f-1 f2 f-2 -f3 -f-3"]
AIMS = ["s", "y z -x", "xy yz z2 -xz x2-y2", "f-3 f-2 f-1 f0 -f1 f2 -f3"]
SHELLS = "2s1p1d1f"


def made(spin: float = 0.0, moved: bool = True):
    """Two atoms, one of them in another cell, all shells to f."""
    cell = 2.6 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) + 0.1 * np.array([[1, 2, 0], [0, -1, 3], [2, 0, 1]])
    places = np.array([[0.1, 0, 0], [0.55, 0.46, 0.43]]) + (np.array([[1, 0, -1], [0, 2, 0]]) if moved else 0)
    return source("slater-koster")(
        Crystal.from_fractional([12, 8], places, cell), {"shells": SHELLS, "spin_orbit": spin, "cutoff": 4.2}
    ).replace(fermi=-2.5)


def matrix(shells: tuple[int, ...], names: list[str]) -> np.ndarray:
    """What brings std orbitals into a code's order and signs, by names."""
    rows = []
    size = sum(2 * s + 1 for s in shells)
    start = 0
    for shell in shells:
        own = STD[shell].split()
        for name in names[shell].split():
            row = np.zeros(size)
            plain = name.removeprefix("-") if name not in own else name
            row[start + own.index(plain)] = 1.0 if name == plain else -1.0
            rows.append(row)
        start += 2 * shell + 1
    return np.array(rows)


def both_ways(m, kind: str, names: list[str]) -> dict[tuple[int, ...], np.ndarray]:
    """(R, i, j) → blocks of a code, both directions of each pair; of spinors with spin outside."""
    found = {}
    turn = {z: matrix(b.shells, names) for z, b in m.basis.items()}
    if m.spin:
        turn = {z: np.kron(np.eye(2), t) for z, t in turn.items()}
    for p, (i, j) in enumerate(m.pairs.tolist()):
        a, b = (turn[int(m.crystal.numbers[k])] for k in (i, j))
        block = a @ m.block(kind, p) @ b.T
        found[(*m.images[p].tolist(), i, j)] = block
        found[(*(-m.images[p]).tolist(), j, i)] = block.conj().T
    return found


def same(again, one, energy: float, length: float):
    """Equal up to rounding of what was written, and accepted."""
    np.testing.assert_allclose(again.crystal.positions, one.crystal.positions, atol=length)
    order = {(*p, *r): k for k, (p, r) in enumerate(zip(again.pairs.tolist(), again.images.tolist(), strict=True))}
    for kind, limit in (("H", energy), ("S", 1e-8)):
        for p, (pair, image) in enumerate(zip(one.pairs.tolist(), one.images.tolist(), strict=True)):
            if (*pair, *image) in order:
                np.testing.assert_allclose(again.block(kind, order[(*pair, *image)]), one.block(kind, p), atol=limit)
            else:
                assert np.abs(one.block(kind, p)).max() < 1e-7
    assert again.spin == one.spin
    assert checks.bond_error(again) < 1e-6


# --- OpenMX -------------------------------------------------------------------------------------------------------------
def openmx(path, m, names=OPENMX):
    """A .scfout of version 3.9 with its input at the end."""
    hartree, bohr = 27.2113845, 0.529177249
    h, s = both_ways(m, "H", names), both_ways(m, "S", names)
    atoms = len(m.crystal)
    images = sorted({key[:3] for key in h})
    around = [[key for key in h if key[3] == i] for i in range(atoms)]
    sizes = [m.basis[int(z)].size for z in m.crystal.numbers]
    out = struct.pack("<7i", atoms, 4 * 3 + (3 if m.spin else 0), 0, 0, 0, len(images) - 1, 1)
    out += np.zeros((len(images), 4)).tobytes()
    out += np.array([[0, *r] for r in images], dtype="<i4").tobytes()
    out += np.array([*sizes, *(len(a) - 1 for a in around)], dtype="<i4").tobytes()
    for what in (lambda k: k[4] + 1, lambda k: images.index(k[:3])):
        out += b"".join(np.array([what(k) for k in a], dtype="<i4").tobytes() for a in around)
    for rows in (m.crystal.cell, np.eye(3), m.crystal.positions):
        out += (np.column_stack([np.zeros(len(rows)), rows]) / bohr).astype("<f8").tobytes()
    keys = [k for a in around for k in a]

    def flat(of) -> bytes:
        return b"".join(np.ascontiguousarray(of(k)).astype("<f8").tobytes() for k in keys)

    zeros = flat(lambda k: np.zeros((sizes[k[3]], sizes[k[4]])))
    if m.spin:
        part = {
            k: (b[: len(b) // 2, : b.shape[1] // 2], b[len(b) // 2 :, b.shape[1] // 2 :], b[: len(b) // 2, b.shape[1] // 2 :])
            for k, b in h.items()
        }
        for take in (lambda x: x[0].real, lambda x: x[1].real, lambda x: x[2].real, lambda x: 0.7 * x[2].imag):
            out += flat(lambda k, take=take: take(part[k]) / hartree)
        # the last imaginary part is added to the fourth real one
        for take in (lambda x: x[0].imag, lambda x: x[1].imag, lambda x: 0.3 * x[2].imag):
            out += flat(lambda k, take=take: take(part[k]) / hartree)
        out += flat(lambda k: s[k][: sizes[k[3]], : sizes[k[4]]])
    else:
        out += flat(lambda k: h[k] / hartree) + flat(lambda k: s[k])
    out += zeros * (3 + 3 + (4 if m.spin else 1) + 2)
    out += struct.pack("<i10d", 1, m.fermi / hartree, 300.0, *[0.0] * 6, m.electrons, 0.0)
    letters = "".join(f"{'spdf'[k]}{m.basis[12].shells.count(k)}" for k in range(4))
    lines = [
        "<Definition.of.Atomic.Species",
        f" Mg  Mg9.0-{letters}  Mg_PBE19",
        f" O  O6.0-{letters}  O_PBE19",
        "Definition.of.Atomic.Species>",
    ]
    lines += ["<Atoms.SpeciesAndCoordinates", " 1 Mg 0 0 0 1 1", " 2 O 0 0 0 3 3", "Atoms.SpeciesAndCoordinates>"]
    out += struct.pack("<i", len(lines)) + b"".join((line + "\n").encode().ljust(256, b"\0") for line in lines)
    path.write_bytes(out)
    return path


@pytest.mark.parametrize("spin", [0.0, 0.5], ids=["paired", "spinors"])
def test_openmx(tmp_path, spin):
    one = made(spin)
    path = openmx(tmp_path / "mgo.scfout", one)
    (again,) = read(path)
    same(again, one, 1e-7, 1e-8)
    assert again.fermi == pytest.approx(-2.5)
    assert again.electrons == 8
    assert again.basis[8].text == SHELLS
    whole = path.read_bytes()
    (tmp_path / "half.scfout").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="ends in the middle"):
        read(tmp_path / "half.scfout")
    # without the input at its end, the run's protocol is asked for
    cut = whole[: whole.rfind(b"<Definition.of") - 4]
    (tmp_path / "bare.scfout").write_bytes(cut)
    with pytest.raises(InputError, match=r"put the run's \.out beside it"):
        read(tmp_path / "bare.scfout")
    (tmp_path / "bare.out").write_text(whole[len(cut) + 4 :].replace(b"\0", b"").decode())
    same(read(tmp_path / "bare.scfout")[0], one, 1e-7, 1e-8)
    wrong = openmx(tmp_path / "wrong.scfout", one, STD)
    with pytest.raises(InputError, match="order or signs of the orbitals"):
        read(wrong)


def test_openmx_of_other_versions_and_spins_are_refused(tmp_path):
    path = openmx(tmp_path / "x.scfout", made())
    whole = path.read_bytes()
    for flags, words in ((2 * 4, "has format 2"), (3 * 4 + 1, "two spin channels")):
        path.write_bytes(whole[:4] + struct.pack("<i", flags) + whole[8:])
        with pytest.raises(InputError, match=words):
            read(path)


# --- ABACUS -------------------------------------------------------------------------------------------------------------
def abacus(folder, m, names=ABACUS, new: bool = False):
    """OUT.… with a log and two sparse matrices."""
    rydberg, bohr = 13.605698, 0.529177
    place = folder / "OUT.ABACUS"
    place.mkdir(parents=True)
    sizes = [m.basis[int(z)].size * (2 if m.spin else 1) for z in m.crystal.numbers]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for kind, name, unit in (
        ("H", "hrs1_nao" if new else "data-HR-sparse_SPIN0", rydberg),
        ("S", "srs1_nao" if new else "data-SR-sparse_SPIN0", 1.0),
    ):
        blocks = both_ways(m, kind, names)
        images = sorted({key[:3] for key in blocks})
        head = (
            f" --- Ionic Step 1 ---\n # print {kind} matrix in real space\n 1 # number of spin directions\n 1 # spin index\n"
            f" {starts[-1]} # number of localized basis\n {len(images)} # number of Bravais lattice vector R\n\n"
            " user_defined_lattice\n 5.0\n #-------#\n # CSR Format #\n #-------#\n\n"
            if new
            else f"STEP: 0\nMatrix Dimension of {kind}(R): {starts[-1]}\nMatrix number of {kind}(R): {len(images)}\n"
        )
        lines = [head.rstrip("\n")]
        for image in images:
            full = np.zeros((starts[-1],) * 2, dtype=complex)
            for key, block in blocks.items():
                if key[:3] == image:
                    inside = block
                    if m.spin:
                        a, b = (n // 2 for n in block.shape)
                        inside = block.reshape(2, a, 2, b).transpose(1, 0, 3, 2).reshape(2 * a, 2 * b)
                    full[starts[key[3]] : starts[key[3] + 1], starts[key[4]] : starts[key[4] + 1]] = inside / unit
            rows, columns = np.nonzero(np.abs(full) > 1e-10)
            values = [f"({v.real:.12e},{v.imag:.12e})" if m.spin else f"{v.real:.12e}" for v in full[rows, columns]]
            ends = np.searchsorted(rows, np.arange(starts[-1] + 1))
            lines.append(" ".join(map(str, [*image, len(rows)])))
            if len(rows):
                for title, words in (("values", values), ("column indices", columns), ("row pointers", ends)):
                    lines += [f" # CSR {title}"] if new else []
                    lines.append(" " + " ".join(map(str, words)))
        (place / f"{name}.csr").write_text("\n".join(lines) + "\n")
    count = [f"                L={k}, number of zeta = {m.basis[12].shells.count(k)}" for k in range(4)]
    log = [
        "WELCOME TO ABACUS v3",
        "READING UNITCELL INFORMATION",
        f"lattice constant (Bohr) = {1 / bohr:.14f}",
        "lattice constant (Angstrom) = 1",
    ]
    for k, symbol in enumerate(("Mg", "O")):
        log += [f"READING ATOM TYPE {k + 1}", f"            atom label = {symbol}", *count, "  number of atom for this type = 1"]
    log += ["DIRECT COORDINATES", "    atom  x  y  z  mag"]
    log += [f"taud_{s}1 " + " ".join(f"{x:.12f}" for x in f) + " 0.0" for s, f in zip(("Mg", "O"), m.crystal.fractional, strict=True)]
    log += ["Lattice vectors: (Cartesian coordinate: in unit of a_0)", *("  ".join(f"{x:+.12f}" for x in row) for row in m.crystal.cell)]
    log += [f"nspin = {4 if m.spin else 1}", " electron number of element Mg = 2", " electron number of element O = 6"]
    log += [f"AUTOSET number of electrons: = {m.electrons:g}", f"EFERMI = {m.fermi} eV"]
    (place / "running_scf.log").write_text("\n".join(log) + "\n")
    return folder


@pytest.mark.parametrize(("spin", "new"), [(0.0, False), (0.0, True), (0.5, False)], ids=["paired", "new head", "spinors"])
def test_abacus(tmp_path, spin, new):
    one = made(spin)
    folder = abacus(tmp_path / "run", one, new=new)
    (again,) = read(folder)
    same(again, one, 1e-6, 1e-6)
    assert again.fermi == -2.5
    assert again.electrons == 8
    assert (again.basis[12].electrons, again.basis[8].electrons) == (2, 6)
    file = next((folder / "OUT.ABACUS").glob("hrs1*" if new else "data-HR*"))
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="still writing"):
        read(folder)
    with pytest.raises(InputError, match="order or signs of the orbitals"):
        read(abacus(tmp_path / "wrong", one, STD))


def test_what_abacus_lacks_is_told(tmp_path):
    folder = abacus(tmp_path / "run", made())
    log = folder / "OUT.ABACUS" / "running_scf.log"
    text = log.read_text()
    log.write_text(text.replace("number of zeta", "number of"))
    with pytest.raises(InputError, match="does not tell the shells"):
        read(folder)
    log.write_text(text)
    (folder / "OUT.ABACUS" / "data-HR-sparse_SPIN1.csr").write_text("")
    with pytest.raises(InputError, match="two spin channels"):
        read(folder)
    (folder / "OUT.ABACUS" / "data-HR-sparse_SPIN1.csr").unlink()
    (folder / "OUT.ABACUS" / "data-SR-sparse_SPIN0.csr").unlink()
    with pytest.raises(InputError, match="out_mat_hs2 1"):
        read(folder)


# --- FHI-aims -----------------------------------------------------------------------------------------------------------
def aims(folder, m, names=AIMS, upper: bool = True):
    """Sparse matrices of one triangle, R with the opposite sign and counted from wrapped atoms."""
    folder.mkdir(parents=True)
    c, hartree = m.crystal, 27.211386245988
    whole = np.rint(c.fractional - 1e-8).astype(int)
    sizes = [m.basis[int(z)].size for z in c.numbers]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    n = int(starts[-1])
    blocks = {kind: both_ways(m, kind, names) for kind in ("H", "S")}
    images = sorted({tuple(int(x) for x in -(np.array(k[:3]) + whole[k[4]] - whole[k[3]])) for k in blocks["H"]})
    first, last, columns, values = [], [], [], {"H": [], "S": []}
    for image in images:
        full = {kind: np.zeros((n, n)) for kind in blocks}
        for kind, own in blocks.items():
            for key, block in own.items():
                if tuple(-(np.array(key[:3]) + whole[key[4]] - whole[key[3]])) == image:
                    full[kind][starts[key[3]] : starts[key[3] + 1], starts[key[4]] : starts[key[4] + 1]] = block
        kept = (np.abs(full["H"]) > 1e-12) & (np.triu(np.ones((n, n), bool)) if upper else np.tril(np.ones((n, n), bool)))
        begins, ends = [], []
        for row in range(n):
            there = np.flatnonzero(kept[row])
            begins.append(len(columns) + 1 if len(there) else 0)
            columns += (there + 1).tolist()
            ends.append(len(columns) if len(there) else -1)
            for kind in values:
                values[kind] += full[kind][row, there].tolist()
        first.append(begins)
        last.append(ends)
    dummy = ["999999999 999999999 999999999"]
    lines = [f"n_hamiltonian_matrix_size: {len(columns) + 1}", f"n_cells_in_hamiltonian: {len(images) + 1}", f"n_basis: {n}", "cell_index"]
    lines += [" ".join(map(str, i)) for i in images] + dummy
    lines += ["index_hamiltonian(1,:,:)", *(" ".join(map(str, r)) for r in first), " ".join(["0"] * n)]
    lines += ["index_hamiltonian(2,:,:)", *(" ".join(map(str, r)) for r in last), " ".join(["-1"] * n)]
    lines += ["column_index_hamiltonian", *map(str, columns), "0"]
    (folder / "rs_indices.out").write_text("\n".join(lines) + "\n")
    for kind, name, unit in (("H", "hamiltonian", hartree), ("S", "overlap", 1.0)):
        rows = [f"{v / unit:.14e}" for v in values[kind]]
        (folder / f"rs_{name}.out").write_text("\n".join([*rows, "0.69828765656-139"]) + "\n")
    rows = ["", "   fn.   type   at.   n   l   m"]
    for atom, z in enumerate(c.numbers):
        for shell in m.basis[int(z)].shells:
            rows += [f"{len(rows) + k - 1:6d} atomic {atom + 1} {shell + 1} {shell} {o}" for k, o in enumerate(range(-shell, shell + 1))]
    (folder / "basis-indices.out").write_text("\n".join(rows) + "\n")
    geometry = ["lattice_vector " + " ".join(f"{x:.12f}" for x in row) for row in c.cell]
    geometry += ["atom " + " ".join(f"{x:.12f}" for x in r) + f" {s}" for r, s in zip(c.positions, ("Mg", "O"), strict=True)]
    (folder / "geometry.in").write_text("\n".join(geometry) + "\n")
    (folder / "aims.out").write_text(f"  | Chemical potential (Fermi level):    {m.fermi:.8f} eV\n")
    return folder


@pytest.mark.parametrize("upper", [True, False], ids=["upper", "lower"])
def test_fhi_aims(tmp_path, upper):
    one = made()
    folder = aims(tmp_path / "run", one, upper=upper)
    (again,) = read(folder)
    same(again, one, 1e-8, 1e-10)
    assert again.fermi == -2.5
    assert again.basis[8].electrons == 8
    with pytest.raises(InputError, match="order or signs of the orbitals"):
        read(aims(tmp_path / "wrong", one, STD))
    text = (folder / "rs_hamiltonian.out").read_text()
    (folder / "rs_hamiltonian.out").write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="it is cut off"):
        read(folder)
    (folder / "rs_overlap.out").unlink()
    with pytest.raises(InputError, match="output_rs_matrices plain"):
        read(folder)


# --- spinors of DeepH -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [deeph, deeph_dock], ids=["deeph", "deeph-dock"])
def test_deeph_folders_with_spinors_there_and_back(kind, tmp_path):
    one = source("slater-koster")(
        Crystal.from_fractional([8, 12], [[0, 0, 0], [0.5, 0.46, 0.53]], 2.6 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])),
        {"shells": "1s1p", "spin_orbit": 0.5, "cutoff": 3.5},
    ).replace(fermi=-1.0)
    again = read(kind.write(one, tmp_path / "folder"))[0]
    assert again.spin
    for name in ("H", "S"):
        np.testing.assert_allclose(again.blocks[name], one.blocks[name], atol=1e-12)
