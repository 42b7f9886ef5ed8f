"""The protocol: its hash, its meshes, cut-offs that are too low, and the convergence check on a made-up code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from naica.discover.config import parse_config
from naica.discover.dft.protocol import LEAST_CUTOFF, DftProtocol, converged_cutoff, protocol_of, refuse_low_cutoff
from naica.discover.dft.protocol import test_crystal as crystal_for
from naica.errors import ConfigError
from naica.structure import Crystal


def silicon() -> Crystal:
    return Crystal.from_ase(bulk("Si", a=5.43))


def test_hash_holds_what_decides_an_energy() -> None:
    base = DftProtocol(cutoff=400)
    mine = base.hash("gpaw", "data 1")
    assert mine == DftProtocol(cutoff=400).hash("gpaw", "data 1")
    assert mine == base.changed(repairs=0).hash("gpaw", "data 1")
    others = {"cutoff": 500, "k_spacing": 0.2, "width": 0.05, "functional": "LDA", "hubbard_u": {"Fe": 4.0}, "steps": 0, "prerelax": "emt"}
    hashes = {base.changed(**{name: value}).hash("gpaw", "data 1") for name, value in others.items()}
    assert len(hashes | {mine, base.hash("gpaw", "data 2"), base.hash("cp2k", "data 1")}) == len(others) + 3


def test_order_of_a_table_does_not_matter() -> None:
    first, second = DftProtocol(hubbard_u={"Ni": 6.2, "Fe": 5.3}), DftProtocol(hubbard_u={"Fe": 5.3, "Ni": 6.2})
    assert first.hash("gpaw", "") == second.hash("gpaw", "")
    assert first.u == "Fe: 5.3, Ni: 6.2"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"kspacing": 0.3}, "kspacing.*known: functional"),
        ({"steps": -1}, "steps"),
        ({"cutoff": "automatic"}, "cutoff"),
        ({"cutoff": -3.0}, "expected eV, or 'auto'"),
        ({"hubbard_u": {"Xx": 3.0}}, "Xx"),
        ({"functional": "PBEsol", "corrections": "mp2020"}, "fitted to PBE"),
    ],
)
def test_bad_values(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        protocol_of(raw)
    with pytest.raises(ConfigError, match="protocol"):
        parse_config({"elements": ["Si"], "oracle": {"name": "gpaw"}, "protocol": raw})


def test_a_campaign_file_holds_it() -> None:
    config = parse_config({"elements": ["Si"], "oracle": {"name": "gpaw"}, "protocol": {"cutoff": 350, "hubbard_u": {"Fe": 4}}})
    assert config.protocol == DftProtocol(cutoff=350, hubbard_u={"Fe": 4.0})
    assert type(config).model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ConfigError, match=r"\[protocol\] is for gpaw.*'chgnet'"):
        parse_config({"elements": ["Si"], "protocol": {"cutoff": 350}})


def test_meshes() -> None:
    protocol = DftProtocol(k_spacing=0.25)
    assert protocol.mesh(silicon()) == (9, 9, 9)
    doubled = silicon().supercell([2, 1, 1])
    assert protocol.mesh(doubled) == (5, 9, 9)
    # equal cells but for rounding have equal meshes
    edge = DftProtocol(k_spacing=2 * math.pi * float(np.linalg.norm(np.linalg.inv(silicon().cell)[:, 0])) / 6)
    for factor in (1 - 1e-9, 1 + 1e-9):
        assert edge.mesh(silicon().scaled(factor)) == (6, 6, 6)


def test_moments() -> None:
    iron = Crystal.from_ase(bulk("Fe"))
    assert DftProtocol().first_moments(silicon()) is None
    assert DftProtocol().first_moments(iron) == [3.0]
    assert DftProtocol(moments={"Fe": 1.5}).first_moments(iron) == [1.5]
    assert DftProtocol(spin="none").first_moments(iron) is None
    assert DftProtocol(spin="ferromagnetic").first_moments(silicon()) == [0.6, 0.6]


def test_known_traps_are_refused() -> None:
    refuse_low_cutoff(300, ["Si", "Al"])
    for symbol in "OFN":
        with pytest.raises(ConfigError, match=f"400 eV is too low for {symbol}.*59 GPa"):
            refuse_low_cutoff(400, ["Mg", symbol])
        refuse_low_cutoff(LEAST_CUTOFF[symbol], ["Mg", symbol])


class Fake:
    """Energies whose error falls exponentially with the cut-off, faster for soft elements."""

    def __init__(self, **scale: float) -> None:
        self.scale, self.calls = scale, 0

    def __call__(self, crystal: Crystal, cutoff: float) -> tuple[float, float]:
        self.calls += 1
        hardest = max(self.scale.get(s, 1.0) for s in crystal.composition)
        error = math.exp(-cutoff / hardest)
        per_atom = crystal.volume / len(crystal)
        return len(crystal) * (-3.0 + 0.001 * (per_atom - 20) ** 2 + 50 * error * (20 / per_atom)), -error


def test_the_cutoff_is_that_of_the_hardest_element(tmp_path: Path) -> None:
    compute = Fake(Al=40.0, Ca=70.0)
    told: list[str] = []
    protocol = DftProtocol(cutoff_energy=0.002, cutoff_stress=0.5)
    chosen, trials = converged_cutoff(["Ca", "Al"], compute, protocol, tmp_path, lambda t: told.append(str(t)))
    by_element = {s: [t for t in trials if t.symbol == s] for s in ("Al", "Ca")}
    for mine in by_element.values():
        assert [t.good for t in mine[-2:]] == [True, True]
        assert not any(t.good for t in mine[:-2])
        # the error is within the criterion at the choice, and was not one rung below
        assert all((t.energy_error <= 0.002 and t.stress_error <= 0.5) == t.good for t in mine)
    assert by_element["Al"][-2].cutoff < by_element["Ca"][-2].cutoff == chosen
    assert len(told) == len(trials)
    assert "meV/atom" in told[0]
    # found again without a calculation, for a second campaign with one more element only that one is paid for
    before = compute.calls
    assert converged_cutoff(["Al", "Ca"], compute, protocol, tmp_path)[0] == chosen
    assert compute.calls == before
    assert converged_cutoff(["Al", "Ca"], compute, protocol.changed(cutoff_energy=0.05, cutoff_stress=5.0), tmp_path)[0] < chosen


def test_one_small_error_may_be_luck() -> None:
    errors = {250.0: 0.010, 300.0: 0.0, 350.0: 0.006, 400.0: 0.001, 450.0: 0.0}

    def compute(crystal: Crystal, cutoff: float) -> tuple[float, float]:
        return len(crystal) * errors.get(cutoff, 0.0) * crystal.volume, 0.0

    chosen, trials = converged_cutoff(["Al"], compute, DftProtocol(cutoff_energy=0.002))
    assert [t.cutoff for t in trials if t.good] == [300.0, 400.0, 450.0]
    assert chosen == 400.0


def test_floors_hold_whatever_the_check_finds() -> None:
    assert converged_cutoff(["O"], Fake(), DftProtocol())[0] == LEAST_CUTOFF["O"]
    assert converged_cutoff(["O"], Fake(), DftProtocol(), floors=False)[0] < LEAST_CUTOFF["O"]


@pytest.mark.parametrize(("symbol", "formula"), [("Si", "Si"), ("Na", "Na"), ("O", "AlO"), ("Cl", "AlCl"), ("P", "AlP")])
def test_every_element_has_a_small_crystal(symbol: str, formula: str) -> None:
    name, crystal = crystal_for(symbol)
    assert name == formula
    assert len(crystal) <= 4
    assert 1.5 < crystal.min_distance() < 4.0
