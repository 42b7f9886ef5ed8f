"""What screens ask of structures: dimensionality, paths for ions, perovskites, electrodes, on crystals whose answers are known."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.data.registry import dataset
from naica.discover.screens.dimensionality import bonded_dimension, dimensionality
from naica.discover.screens.electrodes import Hosts, capacity, density, removable, voltage, without
from naica.discover.screens.networks import Network
from naica.discover.screens.pathways import PASSABLE, ion_paths
from naica.discover.screens.perovskites import TAU_LIMIT, perovskite, shannon_radius, tolerance, tolerance_of
from naica.errors import InputError, MissingPart
from naica.structure import Crystal
from naica.structure.composition import parse_formula
from naica.structure.prototypes import PROTOTYPES, prototype


def turned(crystal: Crystal, seed: int) -> Crystal:
    """The same crystal in another cell, order, place and direction."""
    rng = np.random.default_rng(seed)
    big = crystal.supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    order = rng.permutation(len(big))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return Crystal(big.numbers[order], (big.positions[order] + rng.normal(size=3)) @ turn, big.cell @ turn)


# --- networks -------------------------------------------------------------------------------------------------------------------------
def test_a_network_counts_independent_translations() -> None:
    net = Network(3)
    assert net.join(0, 1, (0, 0, 0))
    assert net.dimension(0) == 0
    assert net.join(1, 0, (1, 0, 0))
    assert not net.join(0, 1, (-2, 0, 0)), "a multiple of a known translation adds nothing"
    assert net.join(0, 0, (1, 1, 0))
    assert not net.join(1, 1, (5, -3, 0))
    assert sorted(net.dimensions) == [0, 2]
    assert net.join(2, 0, (7, 0, 3))
    assert net.dimension(2) == 2
    assert net.join(2, 2, (0, 0, 1))
    assert net.dimensions == [3]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), *[st.integers(-2, 2)] * 3), max_size=25), st.randoms())
def test_the_order_of_bonds_does_not_matter(bonds: list[tuple[int, ...]], rnd) -> None:
    shuffled = list(bonds)
    rnd.shuffle(shuffled)
    answers = []
    for order in (bonds, shuffled):
        net = Network(5)
        for a, b, *image in order:
            net.join(a, b, image)
        answers.append([net.dimension(k) for k in range(5)])
    assert answers[0] == answers[1]


# --- dimensionality ----------------------------------------------------------------------------------------------------------------------
KNOWN = {
    "iodine": "0D", "alpha-sulfur": "0D", "alpha-nitrogen": "0D", "gamma-selenium": "1D", "silicon-disulfide": "1D", "graphite": "2D",
    "molybdenite": "2D", "cadmium-iodide": "2D", "hexagonal-boron-nitride": "2D", "black-phosphorus": "2D", "vanadium-pentoxide": "2D",
    "rocksalt": "3D", "diamond": "3D", "perovskite": "3D", "alpha-quartz": "3D",
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), KNOWN.items())
def test_known_dimensionalities(name: str, kind: str) -> None:
    found = dimensionality(prototype(name).crystal())
    assert found.kind == kind
    assert found.score > 0.5
    assert sum(found.scores.values()) == pytest.approx(1.0)


def test_white_phosphorus_and_mercury_bromide_are_molecules() -> None:
    edge = 2.21 / np.sqrt(2) / 2
    corners = edge * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert dimensionality(Crystal([15] * 4, corners, np.eye(3) * 6.5)).kind == "0D"
    row = np.array([[0, 0, 0], [0, 0, 2.48], [0, 0, -2.48]])
    assert dimensionality(Crystal([80, 35, 35], row, np.diag([4.6, 6.8, 9.2]))).kind == "0D"


@pytest.mark.parametrize("name", ["molybdenite", "gamma-selenium", "bismuth-telluride", "lithium-nitride"])
def test_dimensionality_does_not_depend_on_the_description(name: str) -> None:
    crystal = prototype(name).crystal()
    found, other = dimensionality(crystal), dimensionality(turned(crystal, 1))
    assert other.kind == found.kind
    assert other.score == pytest.approx(found.score, abs=1e-6)
    assert bonded_dimension(turned(crystal, 2)) == bonded_dimension(crystal)


def test_scores_agree_with_ase() -> None:
    from ase.geometry.dimensionality import analyze_dimensionality

    for name in ("cadmium-iodide", "bismuth-iodide", "iodine", "alpha-NaFeO2", "lithium-nitride"):
        crystal = prototype(name).crystal()
        theirs = {k.dimtype: k.score for k in analyze_dimensionality(crystal.to_ase(), method="RDA", merge=True)}
        ours = dimensionality(crystal).scores
        for kind, score in theirs.items():
            assert ours.get(kind, 0.0) == pytest.approx(score, abs=1e-6), (name, kind)


def test_one_criterion_sees_layers_chains_and_frameworks() -> None:
    wanted = {"molybdenite": 2, "gamma-selenium": 1, "iodine": 0, "diamond": 3}
    assert {name: bonded_dimension(prototype(name).crystal()) for name in wanted} == wanted


def test_a_molecule_has_no_dimensionality() -> None:
    with pytest.raises(InputError, match="does not repeat"):
        dimensionality(Crystal(["O", "O"], [[0, 0, 0], [0, 0, 1.2]]))


# --- paths ----------------------------------------------------------------------------------------------------------------------------
def lithium_cobaltate() -> Crystal:
    """LiCoO2 as measured: a = 2.816 Å, c = 14.05 Å, z(O) = 0.2605."""
    centring = np.array([[0, 0, 0], [2 / 3, 1 / 3, 1 / 3], [1 / 3, 2 / 3, 2 / 3]])
    sites = np.array([[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605], [0, 0, -0.2605]])
    cell = [[2.816, 0, 0], [-1.408, 1.408 * np.sqrt(3), 0], [0, 0, 14.05]]
    return Crystal.from_fractional(["Li", "Co", "O", "O"] * 3, (centring[:, None] + sites).reshape(-1, 3), cell)


def test_the_window_of_the_layered_oxide_by_hand() -> None:
    # the face of the LiO6 octahedron: one edge a, two across the layer; its circumradius less the radius of oxide
    height = 2 * (0.2605 - 1 / 6) * 14.05
    side = np.sqrt(height**2 + 2.816**2 / 3)
    area = 2.816 / 2 * np.sqrt(side**2 - 2.816**2 / 4)
    found = ion_paths(lithium_cobaltate())
    assert found.bottleneck[1] == pytest.approx(2.816 * side**2 / (4 * area) - 1.26, abs=2e-3)


def test_textbook_paths_of_lithium() -> None:
    olivine = prototype("olivine-ordered").crystal()
    layered = lithium_cobaltate()
    spinel = prototype("spinel").crystal(["Li", "Mn", "O"])
    spinel = spinel.scaled(8.24**3 / 4 / spinel.volume)
    found = {name: ion_paths(c).dimension(PASSABLE) for name, c in (("olivine", olivine), ("layered", layered), ("spinel", spinel))}
    assert found == {"olivine": 1, "layered": 2, "spinel": 3}
    fluoride = prototype("rocksalt").crystal(["Li", "F"])
    assert ion_paths(fluoride.scaled(4.03**3 / 4 / fluoride.volume)).dimension(PASSABLE) == 0


def test_bottlenecks_shrink_with_directions_and_grow_with_volume() -> None:
    crystal = prototype("olivine-ordered").crystal()
    found = ion_paths(crystal)
    assert found.site >= found.bottleneck[0] >= found.bottleneck[1] >= found.bottleneck[2]
    assert ion_paths(crystal.scaled(1.15)).bottleneck[0] > found.bottleneck[0]


def test_paths_do_not_depend_on_the_description() -> None:
    for name in ("antifluorite", "gamma-LiAlO2"):
        crystal = prototype(name).crystal()
        here, there = ion_paths(crystal), ion_paths(turned(crystal, 3))
        assert np.allclose(here.bottleneck, there.bottleneck, atol=2e-3)
        assert there.site == pytest.approx(here.site, abs=1e-6)


def test_paths_need_ions_with_radii() -> None:
    with pytest.raises(InputError, match="no balanced oxidation states"):
        ion_paths(prototype("half-heusler").crystal(["Li", "Mg", "Al"]))
    with pytest.raises(InputError, match="no ionic radius is tabulated for H"):
        ion_paths(prototype("rocksalt").crystal(["Li", "H"]))
    with pytest.raises(InputError, match="has no Li"):
        ion_paths(prototype("rocksalt").crystal())


# --- perovskites --------------------------------------------------------------------------------------------------------------------------
def test_perovskites_of_the_library_and_nothing_else() -> None:
    found = {name for name in PROTOTYPES if perovskite(prototype(name).crystal()) is not None}
    assert found == {
        "perovskite", "perovskite-tetragonal", "perovskite-I4mcm", "perovskite-R3c", "perovskite-Pnma", "elpasolite"
    }  # fmt: skip


def test_places_tilt_and_size() -> None:
    crystal = prototype("perovskite-Pnma").crystal()
    places = perovskite(turned(crystal, 4))
    assert places is not None
    assert (places.a, places.b, places.x) == (("Ca",), ("Ti",), ("O",))
    assert 20 < places.tilt < 28  # CaTiO3: Ti–O–Ti near 156°
    sizes = tolerance(places, crystal)
    assert sizes.t == pytest.approx(0.966, abs=2e-3)
    assert sizes.tau is not None
    assert sizes.tau < TAU_LIMIT


def test_tolerance_factors_as_published() -> None:
    try:
        path = dataset("perovskite_experimental").path("abx3_perovskite_labels.csv")
    except MissingPart as error:
        pytest.skip(str(error))
    with path.open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    right, differences = [], []
    for row in rows:
        found = tolerance_of(*(float(row[k]) for k in ("rA (Ang)", "rB (Ang)", "rX (Ang)")), float(row["nA"]))
        differences.append(abs(found.t - float(row["t"])))
        right.append((found.tau is not None and found.tau < TAU_LIMIT) == (float(row["exp_label"]) > 0))
    assert max(differences) < 0.01
    assert np.mean(right) == pytest.approx(0.92, abs=0.01)  # the published accuracy of τ


def test_shannon_radii_and_their_gaps() -> None:
    assert shannon_radius("Sr", 2, 12) == pytest.approx(1.44)
    assert shannon_radius("Ti", 4, 6) == pytest.approx(0.605)
    assert shannon_radius("O", -2, 6) == pytest.approx(1.40)
    assert shannon_radius("Eu", 3, 6) == pytest.approx(0.947)
    with pytest.raises(InputError, match="no Shannon radius"):
        shannon_radius("Br", 5, 6)


# --- electrodes ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("formula", "wanted"), [("LiCoO2", 274), ("LiMn2O4", 148), ("LiFePO4", 170), ("Li2Mn2O4", 286)])
def test_theoretical_capacities(formula: str, wanted: int) -> None:
    assert round(capacity(parse_formula(formula)), 0) in (wanted, wanted - 1)
    assert capacity(parse_formula(formula)) == pytest.approx(wanted, abs=0.6)


def test_what_oxidation_allows_out() -> None:
    counts = {f: {s: int(n) for s, n in parse_formula(f).items()} for f in ("LiFePO4", "Li2MnO3", "LiCoO2", "Li2FeSiO4")}
    assert removable(counts["LiFePO4"]) == 1
    assert removable(counts["Li2MnO3"]) == 0, "manganese is in its highest state already"
    assert removable(counts["LiCoO2"]) == 1
    assert removable(counts["Li2FeSiO4"]) == 1, "iron gives one electron of two"


def test_voltage_from_energies_of_one_level() -> None:
    # ΔG of Li + ½ Cl2 → LiCl as formation energy per formula gives the voltage of that cell
    assert voltage(-4.0, 0.0, 1) == pytest.approx(4.0)
    # total energies with the metal's energy say the same as formation energies
    metal, host = -1.9, -20.0
    assert voltage(host + metal - 3.5, host, 1, metal) == pytest.approx(3.5)
    assert voltage(-6.0, 0.0, 2) == pytest.approx(3.0)
    with pytest.raises(InputError, match="more than none"):
        voltage(-1, 0, 0)


def test_a_host_meets_its_charged_structure() -> None:
    layered = prototype("alpha-NaFeO2").crystal(["Li", "Co", "O"])
    empty = without(layered)
    other = prototype("rutile").crystal(["Co", "O"])
    crystals = [empty.scaled(0.97), other]
    hosts = Hosts(["host", "rutile"], ["CoO2", "CoO2"], [-1.00, -1.10], lambda row: crystals[row])
    found = hosts.couple(layered, -1.75)
    assert found is not None
    assert (found.charged, found.topotactic) == ("host", True)
    assert found.voltage == pytest.approx(4 * 1.75 - 3 * 1.00)
    assert Hosts(["x"], ["FeO2"], [0.0], lambda row: other).couple(layered, -1.75) is None
    only = Hosts(["rutile"], ["CoO2"], [-1.10], lambda row: other).couple(layered, -1.75)
    assert only is not None
    assert not only.topotactic
    with pytest.raises(InputError, match="has no Li"):
        without(other)


def test_density_of_salt() -> None:
    crystal = prototype("rocksalt").crystal()
    assert density(crystal.scaled(5.64**3 / 4 / crystal.volume)) == pytest.approx(2.165, abs=0.01)
