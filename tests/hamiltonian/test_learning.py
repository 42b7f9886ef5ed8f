"""Layouts, tables and networks of Hamiltonians: exact changes of basis, equivariance, hermiticity, learning, saving, exact resume."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from naica.errors import ConfigError, InputError
from naica.hamiltonian import checks
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.evaluate import compared, errors
from naica.hamiltonian.graphs import joined, sample
from naica.hamiltonian.layout import BlockLayout
from naica.hamiltonian.learn import HamiltonianConfig, brought_to_zero, fit, load, save, turned_sample
from naica.hamiltonian.model import HamiltonianModel
from naica.hamiltonian.rotations import wigner_matrices
from naica.hamiltonian.sources import source
from naica.hamiltonian.two_centre import TwoCentre
from naica.models import backbone
from naica.nn.so2 import ReducedProduct, frames, std_harmonics, turned, wigner
from naica.nn.solid import three_j
from naica.potential.systems import Systems
from naica.structure import Crystal

DRAW = np.random.default_rng(4)
SMALL = {"channels": 8, "degree": 2, "blocks": 2, "heads": 2, "gaussians": 16, "cutoff": 4.0}


def salt(seed: int, shells: str = "1s1p"):
    draw = np.random.default_rng(seed)
    cell = 2.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) + 0.15 * draw.normal(size=(3, 3))
    crystal = Crystal.from_fractional([11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) + 0.03 * draw.normal(size=(2, 3)), cell)
    return source("slater-koster")(crystal, {"shells": shells, "cutoff": 5.0})


NETWORKS = {
    "deeph2": SMALL,
    "deeph-e3": {"channels": 8, "degree": 2, "blocks": 2, "gaussians": 16, "cutoff": 4.0, "average_neighbours": 10.0},
    "deeph": {"atoms": 16, "edges": 16, "hidden": 32, "layers": 2, "gaussians": 16, "cutoff": 4.0, "star": 3.9},
    "schnorb": {"width": 16, "factors": 16, "directions": 4, "interactions": 1, "degree": 1, "gaussians": 16, "cutoff": 4.0},
}


def model(shells: str = "1s1p", architecture: str = "deeph2", **config) -> HamiltonianModel:
    items = [brought_to_zero(salt(k, shells), False) for k in range(3)]
    torch.manual_seed(0)
    return HamiltonianModel(architecture, NETWORKS[architecture] | config, TwoCentre.fit(items, "H"), TwoCentre.fit(items, "S"))


# --- layout --------------------------------------------------------------------------------------------------------------
def test_irreps_are_an_orthogonal_change_of_basis_that_turns_as_tensors():
    layout = BlockLayout({6: Basis.named("C", "2s2p1d"), 1: Basis.named("H", "1s1p"), 8: Basis.named("O", "1s2p")})
    assert layout.size == 2 + 6 + 5
    change = layout.change
    np.testing.assert_allclose(change.T @ change, np.eye(layout.size**2), atol=1e-12)
    turn = Rotation.random(random_state=3).as_matrix()
    d = wigner_matrices(turn, 4)
    whole = np.zeros((layout.size, layout.size))
    start = 0
    for shell in layout.shells:
        whole[start : start + 2 * shell + 1, start : start + 2 * shell + 1] = d[shell]
        start += 2 * shell + 1
    block = DRAW.normal(size=(layout.size, layout.size))
    before = layout.split(torch.from_numpy((block.ravel() @ change)[None]))
    after = layout.split(torch.from_numpy(((whole @ block @ whole.T).ravel() @ change)[None]))
    for (degree, pseudo), part in before.items():
        turned = np.einsum("ab,nbc->nac", d[degree], part.numpy())
        np.testing.assert_allclose(after[degree, pseudo].numpy(), turned, atol=1e-12)


def test_a_transposed_block_has_its_signs():
    layout = BlockLayout({6: Basis.named("C", "1p1d")})
    block = DRAW.normal(size=(layout.size, layout.size))
    a, b = (layout.split(torch.from_numpy((x.ravel() @ layout.change)[None])) for x in (block, block.T))
    channels = [c for c in layout.channels if c.degree == 1 and not c.pseudo]
    for k, c in enumerate(channels):
        other = next(i for i, o in enumerate(channels) if (o.left, o.right) == (c.right, c.left))
        sign = (-1) ** (layout.shells[c.left] + layout.shells[c.right] - 1)
        np.testing.assert_allclose(b[1, False][0, :, other], sign * a[1, False][0, :, k], atol=1e-12)


# --- tables --------------------------------------------------------------------------------------------------------------
def test_overlaps_are_two_centre_and_come_back_for_new_structures():
    table = TwoCentre.fit([salt(k) for k in range(40)], "S")
    fresh = salt(99)
    assert np.abs(table.blocks(fresh) - fresh.blocks["S"]).max() < 2e-3
    alone = table.matrices(fresh.crystal, 5.0)
    np.testing.assert_allclose(alone.blocks["S"], table.blocks(fresh), atol=1e-10)
    with pytest.raises(InputError, match="no two-centre table for C"):
        table.blocks(source("slater-koster")(Crystal(np.array([6]), np.zeros((1, 3))), {}))


# --- networks ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("turn", [Rotation.random(random_state=1).as_matrix(), -np.eye(3)], ids=["rotation", "inversion"])
@pytest.mark.parametrize(
    ("architecture", "shells"), [("deeph2", "1s1p"), ("deeph2", "1s1p1d"), ("deeph-e3", "1s1p1d"), ("deeph", "1s1p1d")]
)
def test_predicted_blocks_turn_with_the_structure(turn, architecture, shells):
    if architecture == "deeph" and np.linalg.det(turn) < 0:
        pytest.skip("local frames are right-handed: DeepH of 2022 knows no mirrors")
    m, one = model(shells, architecture, degree=4), salt(7, shells)
    predicted = m.complete(one)
    assert np.abs(predicted.blocks["H"] - m.base(one)).max() > 1e-3
    error = np.abs(checks.rotated(predicted, turn).blocks["H"] - m.complete(checks.rotated(one, turn)).blocks["H"]).max()
    assert error < 2e-5


@pytest.mark.parametrize("architecture", ["deeph2", "deeph-e3"])
def test_the_network_turns_to_the_last_digit_in_64_bits(architecture):
    torch.manual_seed(0)
    network = backbone(architecture, **NETWORKS[architecture]).double()
    crystal, turn = salt(3).crystal, Rotation.random(random_state=5).as_matrix()
    for q in (turn, -turn):
        a = network(Systems.of(crystal).batch(4.0))["atom_tensor"]
        moved = crystal.replace(positions=crystal.positions @ q.T, cell=crystal.cell @ q.T)
        b = network(Systems.of(moved).batch(4.0))["atom_tensor"]
        sign = np.sign(np.linalg.det(q))
        d = wigner_matrices(q * sign, 2)
        for degree in range(3):
            own = torch.einsum("ab,nbpc->napc", torch.from_numpy(d[degree]), a[:, degree**2 : (degree + 1) ** 2])
            own = own * torch.tensor([sign**degree, sign ** (degree + 1)]).view(1, 1, 2, 1)
            torch.testing.assert_close(b[:, degree**2 : (degree + 1) ** 2], own, atol=1e-10, rtol=0)


def test_numbering_atoms_differently_changes_nothing():
    m, one = model(), salt(5)
    order = [1, 0]
    swapped = one.crystal.replace(numbers=one.crystal.numbers[order], positions=one.crystal.positions[order])
    again = source("slater-koster")(swapped, {"shells": "1s1p", "cutoff": 5.0})
    from naica.hamiltonian.bands import eigenvalues

    k = [0.1, 0.2, 0.3]
    np.testing.assert_allclose(eigenvalues(m.complete(again), k), eigenvalues(m.complete(one), k), atol=1e-4)


def test_many_structures_in_one_batch_are_as_one_by_one():
    m = model()
    samples = [sample(salt(k), m.cutoff, m.layout) for k in range(3)]
    pair, own = m(joined(samples))
    single = [m(s) for s in samples]
    torch.testing.assert_close(pair, torch.cat([p for p, _ in single]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own, torch.cat([o for _, o in single]), atol=1e-5, rtol=1e-5)


def test_shells_beyond_the_networks_degree_are_refused():
    with pytest.raises(ConfigError, match="set degree"):
        model("1s1p1d", degree=2)


def test_the_product_in_the_frame_is_the_product_written_out():
    torch.manual_seed(0)
    product, degree = ReducedProduct(3, 4, 5).double(), 3
    vector, x = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 16, 2, 4, dtype=torch.float64)
    d = wigner(frames(vector), degree)
    fast = turned(product(turned(x, d)), d, back=True)
    harmonics, slow = std_harmonics(vector, degree), torch.zeros_like(fast)
    for p, (a, b, c) in enumerate(product.paths):
        coupling = torch.tensor(three_j(a, b, c) * (2 * c + 1) ** 0.5)
        for parity in (0, 1):
            came = x[:, a * a : (a + 1) ** 2, parity ^ ((a + b + c) % 2)]
            out = torch.einsum("eac,eb,abd->edc", came, harmonics[:, b * b : (b + 1) ** 2], coupling)
            slow[:, c * c : (c + 1) ** 2, parity] += out @ product.weight[p, parity]
    torch.testing.assert_close(fast, slow, atol=1e-10, rtol=0)


def test_a_straight_chain_has_no_local_frames_and_others_do_not_mind():
    chain = source("slater-koster")(Crystal(np.array([6, 6]), np.array([[0, 0, 0], [1.4, 0, 0.0]])), {"shells": "1s1p", "cutoff": 5.0})
    items = [brought_to_zero(chain, False)]
    with pytest.raises(InputError, match="on one line"):
        HamiltonianModel("deeph", NETWORKS["deeph"], TwoCentre.fit(items, "H")).complete(chain)
    assert np.isfinite(HamiltonianModel("deeph2", SMALL, TwoCentre.fit(items, "H")).complete(chain).blocks["H"]).all()


def test_turned_labels_are_those_of_the_turned_structure():
    m, one = model("1s1p1d", degree=4), salt(2, "1s1p1d")
    s = sample(one, m.cutoff, m.layout, one.blocks["H"])
    torch.manual_seed(3)
    after = turned_sample(s, m.layout)
    solved = torch.linalg.lstsq(s.batch["edge_vector"].double(), after.batch["edge_vector"].double()).solution.T.numpy()
    again = checks.rotated(one, solved)
    truth = sample(again, m.cutoff, m.layout, again.blocks["H"])
    torch.testing.assert_close(after.hopping, truth.hopping, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.on_site, truth.on_site, atol=1e-4, rtol=0)


def test_schnorb_is_symmetric_but_turns_only_as_it_has_learned():
    m, one = model("1s1p", "schnorb"), salt(7)
    predicted = m.complete(one)
    dense = predicted.dense("H", [0.1, 0.2, 0.3])
    np.testing.assert_allclose(dense, dense.conj().T, atol=1e-12)
    assert len(m.backbone.blocks) == 2 * 1 + 1
    turn = Rotation.random(random_state=1).as_matrix()
    assert np.abs(checks.rotated(predicted, turn).blocks["H"] - m.complete(checks.rotated(one, turn)).blocks["H"]).max() > 1e-4


@pytest.mark.parametrize("architecture", ["deeph-e3", "deeph", "schnorb"])
def test_the_other_networks_learn_one_structure(architecture):
    one = salt(1)
    config = HamiltonianConfig(
        architecture=architecture, architecture_config=NETWORKS[architecture], epochs=60, learning_rate=8e-3, ema=0.9, validation=0.0
    )
    found = fit([one], config).rows
    assert found[-1]["best"] < 0.25 * found[0]["best"]


def test_it_learns_and_beats_its_baseline_and_survives_the_disk(tmp_path):
    items = [salt(k) for k in range(12)]
    config = HamiltonianConfig(architecture_config=SMALL, epochs=25, batch_size=2, learning_rate=8e-3)
    found = fit(items, config, tmp_path / "run")
    fresh = [salt(50), salt(51)]
    judged = compared(found.model, [brought_to_zero(m, False) for m in fresh])
    assert judged["model"].ranges["all"] < 0.6 * judged["two-centre table"].ranges["all"]
    again, card = load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict(fresh[0].crystal).blocks["H"], found.model.predict(fresh[0].crystal).blocks["H"])
    assert card["structures"] == 12
    with pytest.raises(InputError, match="does not know C"):
        again.predict(Crystal(np.array([6]), np.zeros((1, 3))))


def test_fine_tuning_starts_from_what_is_known(tmp_path):
    config = HamiltonianConfig(architecture_config=SMALL, epochs=2, batch_size=4)
    first = fit([salt(k) for k in range(6)], config).model
    place = save(first, tmp_path / "first")
    start, _ = load(place)
    begun = fit(
        [salt(60)], HamiltonianConfig(architecture_config=SMALL, epochs=1, learning_rate=1e-9, ema=0.0, validation=0.0), start=start
    ).model
    np.testing.assert_allclose(begun.predict(salt(61).crystal).blocks["H"], first.predict(salt(61).crystal).blocks["H"], atol=1e-4)


def test_bands_of_a_new_structure_on_superposed_atoms(tmp_path):
    from naica.app.cli import main
    from naica.hamiltonian.sources import superposed
    from naica.structure.io import write

    config = HamiltonianConfig(architecture_config=SMALL, on_h0=True, epochs=3, batch_size=2)
    found = fit([salt(k) for k in range(3)], config, tmp_path / "run").model
    fresh = salt(40)
    with pytest.raises(InputError, match="added to H0"):
        found.predict(fresh.crystal)
    begun = superposed(fresh.crystal, load(tmp_path / "run")[1]["source"])
    np.testing.assert_allclose(begun.blocks["H0"], fresh.blocks["H0"], atol=1e-12)
    write(fresh.crystal, tmp_path / "salt.cif")
    picture = tmp_path / "bands.png"
    with pytest.raises(SystemExit) as left:
        main(["bands", str(tmp_path / "salt.cif"), "--model", str(tmp_path / "run"), "--points", "12", "--no-dos", "--out", str(picture)])
    assert not left.value.code
    assert picture.stat().st_size > 10_000
    with pytest.raises(ConfigError, match="makes no H0"):
        superposed(fresh.crystal, {"source": "tblite"})


def test_errors_see_no_gauge_and_count_all():
    true = salt(1)
    same = errors([(true, true.with_blocks(H=true.blocks["H"] + 2.5 * true.blocks["S"]))])
    assert same.ranges["all"] < 1e-12
    assert same.occupied < 1e-8
    worse = errors([(true, true.with_blocks(H=true.blocks["H"] + 0.01 * (np.arange(len(true.blocks["H"])) % 2)))], bands=False)
    assert 0 < worse.ranges["all"] < 0.011


_RUN = """
import sys
sys.path[:0] = {path!r}
from test_learning import SMALL, salt
from naica.hamiltonian.learn import HamiltonianConfig, fit
import os
def tell(row):
    if {stop} and row["epoch"] == {stop}:
        os._exit(9)
fit([salt(k) for k in range(4)], HamiltonianConfig(architecture_config=SMALL, epochs=4, batch_size=2), {folder!r}, progress=tell)
"""


def test_a_killed_training_ends_where_an_undisturbed_one_ends(tmp_path):
    here = str(__import__("pathlib").Path(__file__).parent)

    def run(folder: str, stop: int) -> int:
        code = textwrap.dedent(_RUN.format(path=[here], folder=folder, stop=stop))
        return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode

    assert run(str(tmp_path / "a"), 0) == 0
    assert run(str(tmp_path / "b"), 2) == 9
    assert run(str(tmp_path / "b"), 0) == 0
    a, b = load(tmp_path / "a")[0], load(tmp_path / "b")[0]
    for name, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], value, atol=0, rtol=0)
    with pytest.raises(ConfigError, match="other settings"):
        fit([salt(0)], HamiltonianConfig(architecture_config=SMALL, epochs=7), tmp_path / "a")
