"""Spin–orbit coupling through the whole path: sources, blocks, sets, layouts, networks, bands; Kramers' pairs and rotations of spinors."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from naica.errors import ConfigError, InputError
from naica.hamiltonian import bands, checks
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.evaluate import errors
from naica.hamiltonian.graphs import sample
from naica.hamiltonian.layout import BlockLayout
from naica.hamiltonian.learn import HamiltonianConfig, brought_to_zero, fit, load, turned_sample
from naica.hamiltonian.model import HamiltonianModel
from naica.hamiltonian.sources import source
from naica.hamiltonian.spinors import angular_momentum, averaged, of_parts, parts_of, spin_turn, time_reversal_error
from naica.hamiltonian.store import HamiltonianSet
from naica.hamiltonian.two_centre import TwoCentre
from naica.structure import Crystal

DRAW = np.random.default_rng(8)
NETWORK = {"channels": 8, "degree": 3, "blocks": 2, "heads": 2, "gaussians": 16, "cutoff": 4.0}
TURN = Rotation.random(random_state=2).as_matrix()


def antimonide(seed: int = 0, shells: str = "1s1p", spin_orbit: float = 1.0):
    draw = np.random.default_rng(seed)
    cell = 2.9 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) + 0.1 * draw.normal(size=(3, 3))
    crystal = Crystal.from_fractional([49, 51], np.array([[0, 0, 0], [0.25, 0.25, 0.25]]) + 0.02 * draw.normal(size=(2, 3)), cell)
    return source("slater-koster")(crystal, {"shells": shells, "cutoff": 4.5, "spin_orbit": spin_orbit})


def model(architecture: str = "deeph2", **config) -> HamiltonianModel:
    items = [brought_to_zero(antimonide(k), False) for k in range(2)]
    torch.manual_seed(0)
    return HamiltonianModel(architecture, NETWORK | config, TwoCentre.fit(items, "H"), TwoCentre.fit(items, "S"), spin=True)


def test_a_lone_atom_has_the_levels_of_l_times_s():
    one = source("slater-koster")(Crystal(np.array([53]), np.zeros((1, 3))), {"shells": "1p1d", "spin_orbit": 0.6})
    levels = bands.eigenvalues(one, [0, 0, 0])
    p, d = levels[:6], levels[6:]
    # λ/2 (j(j+1) − l(l+1) − 3/4): l = 1 gives −λ twice and λ/2 four times, l = 2 gives −3λ/2 four times and λ six times
    np.testing.assert_allclose(p - p[2], 0.6 * np.array([-1.5, -1.5, 0, 0, 0, 0]), atol=1e-10)
    np.testing.assert_allclose(d - d[4], 0.6 * np.array([-2.5] * 4 + [0] * 6), atol=1e-10)


def test_angular_momentum_is_that_of_its_algebra():
    a = angular_momentum(Basis.named("C", "1s1p1d"))
    np.testing.assert_allclose(a[0] @ a[1] - a[1] @ a[0], a[2], atol=1e-12)
    square = -(a @ a).sum(0)
    np.testing.assert_allclose(square, np.diag([0] + [2] * 3 + [6] * 5), atol=1e-10)


def test_four_blocks_there_and_back_and_spins_turn_as_their_axes():
    blocks = DRAW.normal(size=(3, 4, 6)) + 1j * DRAW.normal(size=(3, 4, 6))
    np.testing.assert_allclose(of_parts(parts_of(blocks, 2, 3)), blocks, atol=1e-14)
    u = spin_turn(TURN)
    pauli = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    for axis in range(3):
        np.testing.assert_allclose(u @ pauli[axis] @ u.conj().T, np.einsum("b,bij->ij", TURN[:, axis], pauli), atol=1e-12)


@pytest.mark.parametrize("turn", [TURN, -np.eye(3), -TURN], ids=["rotation", "inversion", "both"])
def test_made_up_spinors_turn_with_the_structure(turn):
    one = antimonide(shells="1s1p1d")
    c = one.crystal
    moved = c.replace(positions=c.positions @ turn.T, cell=c.cell @ turn.T)
    after = source("slater-koster")(moved, {"shells": "1s1p1d", "cutoff": 4.5, "spin_orbit": 1.0})
    assert np.abs(one.blocks["H"].imag).max() > 0.1
    assert np.abs(checks.rotated(one, turn).blocks["H"] - after.blocks["H"]).max() < 1e-12
    assert all(f.passed for f in checks.findings(one))


def test_time_turned_back_gives_kramers_pairs():
    one = antimonide()
    assert time_reversal_error(one) < 1e-14
    for k in ([0, 0, 0], [0.5, 0, 0], [0.5, 0, 0.5]):
        e = bands.eigenvalues(one, k)
        np.testing.assert_allclose(e[::2], e[1::2], atol=1e-10)
    k = np.array([0.13, 0.21, -0.3])
    np.testing.assert_allclose(bands.eigenvalues(one, k), bands.eigenvalues(one, -k), atol=1e-10)
    # without a centre of inversion, pairs part between such points
    assert np.abs(bands.eigenvalues(one, k)[::2] - bands.eigenvalues(one, k)[1::2]).max() > 1e-4
    magnet = one.with_blocks(H=one.blocks["H"] + 0.1 * _zeeman(one))
    assert time_reversal_error(magnet) == pytest.approx(0.1, abs=1e-12)
    with pytest.raises(InputError, match="a magnet"):
        checks.accept(magnet, "made")
    with pytest.raises(InputError, match="a magnet"):
        fit([magnet], HamiltonianConfig(architecture_config=NETWORK, epochs=1))


def _zeeman(one):
    """σ_z ⊗ 1 on site."""
    found = np.zeros_like(one.blocks["H"])
    for p in np.flatnonzero(one.on_site):
        n = one.sizes[one.pairs[p, 0]] // 2
        found[one.starts[p] : one.starts[p + 1]] = np.kron(np.diag([1.0, -1.0]), np.eye(n)).ravel()
    return found


def test_no_coupling_gives_the_bands_without_spin_twice_and_as_many_electrons():
    plain, spin = antimonide(spin_orbit=0.0), antimonide(spin_orbit=1e-9)
    k = bands.mesh([2, 2, 2])
    a, b = bands.all_energies(plain, k), bands.all_energies(spin, k)
    np.testing.assert_allclose(np.repeat(a, 2, axis=1), b, atol=1e-7)
    assert spin.per_state == 1
    first, second = bands.filling(a, k, 8.0), bands.filling(b, k, 8.0, per_state=1)
    assert first.gap == pytest.approx(second.gap, abs=1e-6)
    np.testing.assert_allclose(bands.charges(plain, k), bands.charges(spin, k), atol=1e-6)
    density = bands.density_of_states(spin, k)
    assert np.trapezoid(density.total, density.energies) == pytest.approx(spin.n_orbitals, rel=1e-3)
    np.testing.assert_allclose(averaged(spin).blocks["H"], plain.blocks["H"], atol=1e-12)


def test_spinors_survive_the_disk(tmp_path):
    one = antimonide()
    (again,) = HamiltonianSet.write(tmp_path, [one], ["a"])
    assert again.spin
    assert again.blocks["H"].dtype == np.complex128
    for kind in one.blocks:
        np.testing.assert_array_equal(again.blocks[kind], one.blocks[kind])


def test_a_large_cell_of_spinors_is_solved_as_a_small_one(monkeypatch):
    one = antimonide()
    whole = bands.solve(one, [0, 0, 0], 6, around=-6.0)
    monkeypatch.setattr(bands, "DENSE_UP_TO", 4)
    np.testing.assert_allclose(bands.solve(one, [0, 0, 0], 6, around=-6.0).energies, whole.energies, atol=1e-6)


def test_the_layout_of_spinors_is_orthogonal_and_its_tensors_turn():
    layout = BlockLayout({6: Basis.named("C", "1s1p"), 8: Basis.named("O", "1p")}, spin=True)
    assert layout.most == 3
    np.testing.assert_allclose(layout.change.T @ layout.change, np.eye(layout.width), atol=1e-12)
    one = antimonide()
    whole = BlockLayout(one.basis, spin=True)
    for turn in (TURN, -TURN):
        proper = turn * np.sign(np.linalg.det(turn))
        before, after = (
            whole.split(sample(m, 4.0, whole, m.blocks["H"], dtype=torch.float64).hopping @ torch.from_numpy(whole.change))
            for m in (one, checks.rotated(one, turn))
        )
        from naica.hamiltonian.rotations import wigner_matrices

        d = wigner_matrices(proper, 3)
        for (degree, pseudo), part in before.items():
            sign = 1.0 if turn is TURN else (-1.0) ** (degree + pseudo)
            expected = sign * np.einsum("ab,nbc->nac", d[degree], part.numpy())
            np.testing.assert_allclose(after[degree, pseudo].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("turn", [TURN, -np.eye(3)], ids=["rotation", "inversion"])
@pytest.mark.parametrize("architecture", ["deeph2", "deeph-e3"])
def test_predicted_spinors_turn_with_the_structure_and_keep_kramers_pairs(architecture, turn):
    extra = {"average_neighbours": 10.0} if architecture == "deeph-e3" else {}
    config = {k: v for k, v in NETWORK.items() if architecture == "deeph2" or k != "heads"} | extra
    items = [brought_to_zero(antimonide(k), False) for k in range(2)]
    torch.manual_seed(0)
    m = HamiltonianModel(architecture, config, TwoCentre.fit(items, "H"), TwoCentre.fit(items, "S"), spin=True).double()
    one = antimonide(5)
    predicted = m.complete(one)
    assert np.abs(predicted.blocks["H"].imag).max() > 1e-3
    error = np.abs(checks.rotated(predicted, turn).blocks["H"] - m.complete(checks.rotated(one, turn)).blocks["H"]).max()
    assert error < 2e-5
    h = predicted.dense("H", [0.1, 0.2, 0.3])
    np.testing.assert_allclose(h, h.conj().T, atol=1e-12)
    e = bands.eigenvalues(predicted, [0.5, 0.5, 0])
    np.testing.assert_allclose(e[::2], e[1::2], atol=1e-10)


def test_deeph_of_2022_turns_spinors_in_its_frames():
    items = [brought_to_zero(antimonide(k), False) for k in range(2)]
    config = {"atoms": 16, "edges": 16, "hidden": 32, "layers": 2, "gaussians": 16, "cutoff": 4.0, "star": 3.9}
    m, one = HamiltonianModel("deeph", config, TwoCentre.fit(items, "H"), spin=True), antimonide(7)
    error = np.abs(checks.rotated(m.complete(one), TURN).blocks["H"] - m.complete(checks.rotated(one, TURN)).blocks["H"]).max()
    assert error < 2e-5


def test_labels_turned_for_a_network_that_is_not_equivariant():
    one, m = antimonide(3), model()
    s = sample(one, m.cutoff, m.layout, one.blocks["H"])
    torch.manual_seed(3)
    after = turned_sample(s, m.layout)
    turn = torch.linalg.lstsq(s.batch["edge_vector"].double(), after.batch["edge_vector"].double()).solution.T.numpy()
    again = checks.rotated(one, turn)
    truth = sample(again, m.cutoff, m.layout, again.blocks["H"])
    torch.testing.assert_close(after.hopping, truth.hopping, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.on_site, truth.on_site, atol=1e-4, rtol=0)


def test_spinors_are_learned_and_the_coupling_with_them(tmp_path):
    items = [antimonide(k) for k in range(2)]
    config = HamiltonianConfig(architecture_config=NETWORK, epochs=40, batch_size=2, learning_rate=1e-2, ema=0.9, validation=0.0)
    found = fit(items, config, tmp_path / "run")
    assert found.rows[-1]["best"] < 0.5 * found.rows[0]["best"]
    again, card = load(tmp_path / "run")
    assert card["outputs"]["spin"]
    truth = brought_to_zero(items[0], False)
    guess = again.complete(truth)
    imaginary = np.abs(truth.blocks["H"].imag)
    assert np.abs(guess.blocks["H"].imag - truth.blocks["H"].imag).mean() < 0.6 * imaginary.mean()
    judged = errors([(truth, guess)])
    assert 0 < judged.occupied < 1.0
    assert set(judged.shells) == {"s-s", "s-p", "p-p"}
    predicted = again.predict(antimonide(9).crystal)
    assert predicted.spin
    assert np.isrealobj(predicted.blocks["S"])
    with pytest.raises(InputError, match="without spin"):
        again.complete(antimonide(spin_orbit=0.0))
    with pytest.raises(InputError, match="one kind"):
        fit([items[0], antimonide(spin_orbit=0.0)], config)


def test_shells_need_one_degree_more_with_spin():
    with pytest.raises(ConfigError, match="one more for spin"):
        model(degree=2)


def test_relativistic_molecules_of_pyscf():
    pytest.importorskip("pyscf")
    sulphide = Crystal(np.array([16, 1, 1]), np.array([[0, 0, 0], [1.34, 0, 0], [-0.05, 1.33, 0.1]]))
    settings = {"spin_orbit": True, "grid": 1}
    one = source("pyscf")(sulphide, settings)
    assert one.spin
    assert one.electrons == 18
    assert all(f.passed for f in checks.findings(one))
    levels = bands.eigenvalues(one, [0, 0, 0])
    np.testing.assert_allclose(levels[::2], levels[1::2], atol=1e-6)
    # the 2p shell of sulphur splits by some 1.2 eV into j = 1/2 and 3/2
    assert levels[6] - levels[4] == pytest.approx(1.2, abs=0.2)
    after = source("pyscf")(sulphide.replace(positions=sulphide.positions @ TURN.T), settings)
    assert np.abs(checks.rotated(one, TURN).blocks["H"] - after.blocks["H"]).max() < 5e-3
    with pytest.raises(InputError, match="no forces with spin"):
        source("pyscf")(sulphide, {"spin_orbit": True, "forces": True})
