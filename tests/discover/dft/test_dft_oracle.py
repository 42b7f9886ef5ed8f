"""DFT oracles on a made-up code: repairs, budget, cache, prerelaxation, what is kept, and levels."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from naica.discover.dft import codes
from naica.discover.dft.codes import Code
from naica.discover.dft.oracle import DftOracle
from naica.discover.dft.protocol import DftProtocol
from naica.discover.oracle import Oracle, make_oracle
from naica.errors import ConfigError, InputError, MissingPart
from naica.structure import Crystal

FAILURES: list[str] = []  # what the next runs of the made-up code end with, first to last
RUNS: list[dict[str, Any]] = []


class Moody(EMT):
    """EMT that fails as long as there are failures left."""

    trouble = ""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        if self.trouble:
            raise RuntimeError(self.trouble)
        super().calculate(*args, **kwargs)


def _make(crystal: Crystal, protocol: DftProtocol, cutoff: float, changes: Mapping[str, Any], folder: Path) -> Calculator:
    RUNS.append({"changes": dict(changes), "cutoff": cutoff, "volume": crystal.volume})
    calc = Moody()
    calc.trouble = FAILURES.pop(0) if FAILURES else ""
    return calc


@pytest.fixture(autouse=True)
def made_up_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FAILURES.clear()
    RUNS.clear()
    fake = Code("gpaw", lambda: "1.0", lambda: "data 1", lambda: frozenset({"Cu", "Al", "O"}), _make, "log", u=True, least_cutoff=True)
    monkeypatch.setitem(codes.CODES, "gpaw", fake)  # type: ignore[arg-type]
    monkeypatch.setenv("NAICA_DFT_CACHE", str(tmp_path / "cache"))


def copper(a: float = 3.7) -> Crystal:
    return Crystal.from_ase(bulk("Cu", a=a))


def oracle(**protocol: Any) -> DftOracle:
    return DftOracle("gpaw", {"cutoff": 400, **protocol}, ["Cu"])


def test_a_call() -> None:
    made = make_oracle("gpaw", protocol={"cutoff": 400, "fmax": 0.01}, elements=["Cu"])
    assert isinstance(made, Oracle)
    done = made.evaluate([copper()])[0]
    assert (done.status, done.reason, done.key) == ("converged", "", copper().hash)
    assert done.crystal is not None
    assert done.crystal.volume == pytest.approx(11.6, abs=0.1)
    assert done.level == made.level
    assert "400 eV, protocol " in done.level.pseudo
    assert (done.level.code, done.level.version, done.level.functional) == ("gpaw", "1.0", "PBE")
    assert pickle.loads(pickle.dumps(made)).level == made.level


def test_levels_of_two_protocols_do_not_mix() -> None:
    assert not oracle().level.same(oracle(k_spacing=0.2).level)
    assert oracle().level.same(oracle(repairs=0).level)
    assert "U" in str(oracle(hubbard_u={"Cu": 4.0}).level)


def test_repairs_are_done_in_order_and_told() -> None:
    FAILURES.extend(["KohnShamConvergenceError: Did not converge!", "RuntimeError: Broken symmetry!"])
    done = oracle().evaluate([copper()])[0]
    assert done.status == "converged"
    assert done.reason == "repaired: gentler mixing, symmetry given up"
    assert [sorted(run["changes"]) for run in RUNS] == [[], ["maxiter", "mixer"], ["maxiter", "mixer", "symmetry"]]


def test_the_budget_is_kept() -> None:
    FAILURES.extend(["Did not converge!"] * 9)
    done = oracle(repairs=1).evaluate([copper()])[0]
    assert (done.status, len(RUNS)) == ("failed", 2)
    assert "Did not converge" in done.reason
    assert "repaired: gentler mixing" in done.reason
    FAILURES[:] = ["nobody knows this"] * 3
    assert oracle().evaluate([copper()])[0].status == "failed"
    assert len(RUNS) == 3


def test_more_steps_from_where_it_stopped() -> None:
    done = oracle(steps=2, fmax=1e-3).evaluate([copper(3.9)])[0]
    assert [run["volume"] for run in RUNS] == sorted((run["volume"] for run in RUNS), reverse=True)
    assert len(RUNS) == 2
    assert "more steps from the last geometry" in done.reason


def test_unfinished_ones_are_kept_only_when_asked_and_calm() -> None:
    asked = {"steps": 1, "fmax": 1e-4, "repairs": 0}
    assert oracle(**asked).evaluate([copper(3.65)])[0].status == "failed"
    kept = oracle(**asked, unfinished="keep").evaluate([copper(3.65)])[0]
    assert kept.status == "converged"
    assert "the last of 1 steps was kept" in kept.reason
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.15, seed=1)
    wild = oracle(**asked, unfinished="keep", kept_fmax=0.05, cell=False).evaluate([Crystal.from_ase(atoms)])[0]
    assert wild.status == "failed"


def test_results_are_kept_for_the_next_campaign() -> None:
    first = oracle().evaluate([copper()])[0]
    runs = len(RUNS)
    again = oracle().evaluate([copper()])[0]
    assert len(RUNS) == runs
    assert again.energy == first.energy
    assert "from the cache" in again.reason
    assert again.seconds == 0
    # another protocol, another structure, no cache: all pay
    oracle(k_spacing=0.2).evaluate([copper()])
    oracle().evaluate([copper(3.6)])
    DftOracle("gpaw", {"cutoff": 400}, ["Cu"], cache=False).evaluate([copper()])
    assert len(RUNS) == runs + 3


def test_failures_are_not_kept() -> None:
    FAILURES.append("nobody knows this")
    assert oracle().evaluate([copper()])[0].status == "failed"
    assert oracle().evaluate([copper()])[0].status == "converged"


def test_a_potential_relaxes_first() -> None:
    made = oracle(prerelax="emt", steps=0)
    made.warm()
    done = made.evaluate([copper(3.9)])[0]
    assert RUNS[-1]["volume"] == pytest.approx(11.6, abs=0.15)
    assert done.crystal is not None
    assert done.crystal.volume == pytest.approx(RUNS[-1]["volume"])
    assert made.hash != oracle(steps=0).hash
    # a potential that does not know the element leaves the structure as it is, and that is told
    rocksalt = Crystal.from_ase(bulk("CuO", "rocksalt", a=4.2))
    told = DftOracle("gpaw", {"cutoff": 700, "prerelax": "emt", "steps": 0}, ["Cu", "O"]).evaluate([rocksalt])[0]
    assert "emt could not relax it first" in told.reason
    assert RUNS[-1]["volume"] == pytest.approx(rocksalt.volume)


def test_an_automatic_cutoff_is_settled_once(tmp_path: Path) -> None:
    told: list[str] = []
    made = oracle(cutoff="auto")
    assert "not chosen yet" in str(made.level)
    facts = made.prepare(None, told.append)
    # EMT knows no cut-off, so the lowest rung is as good as the highest
    assert facts["settings"]["cutoff"] == 250.0
    assert told == facts["cutoff_check"]
    assert "250 eV" in str(made.level)
    later = oracle(cutoff="auto")
    runs = len(RUNS)
    assert later.prepare(facts)["hash"] == facts["hash"]
    assert later.level == made.level
    assert len(RUNS) == runs


def test_other_data_are_refused_on_resume() -> None:
    made = oracle()
    facts = made.prepare() | {"data": "data 0"}
    with pytest.raises(ConfigError, match="computed with data 0, here is data 1"):
        made.prepare(facts)


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"no data \(data 1\) for Xe"):
        DftOracle("gpaw", {"cutoff": 400}, ["Xe"])
    with pytest.raises(ConfigError, match="too low for O"):
        DftOracle("gpaw", {"cutoff": 400}, ["Cu", "O"])
    with pytest.raises(ConfigError, match=r"mp2020.*gpaw's energies have another zero"):
        oracle(corrections="mp2020")
    with pytest.raises(InputError, match="needs to know the elements"):
        DftOracle("gpaw", {"cutoff": "auto"}).prepare()
    foreign = Crystal([54], [[0, 0, 0]], np.eye(3) * 6)
    assert "no data for Xe" in oracle().evaluate([foreign])[0].reason
    oxide = Crystal.from_ase(bulk("CuO", "rocksalt", a=4.2))
    assert "too low for O" in oracle().evaluate([oxide])[0].reason


@pytest.mark.parametrize("name", ["cp2k", "espresso", "abinit"])
def test_codes_that_are_not_here_say_how_to_get_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPart, match=r"not installed.*apt install"):
        make_oracle(name, protocol={"cutoff": 400})


def test_sevennet_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sevenn", None)  # type: ignore[arg-type]
    made = make_oracle("sevennet-0")
    assert "SevenNet-0" in made.level.functional
    with pytest.raises(MissingPart, match="pip install sevenn"):
        made.warm()  # type: ignore[attr-defined]


def test_flat_cells_are_turned_into_compact_ones() -> None:
    flat = copper().supercell([[1, 0, 0], [2, 1, 0], [0, 3, 1]])
    done = oracle(steps=0).evaluate([flat])[0]
    whole = oracle(steps=0).evaluate([copper()])[0]
    assert done.crystal is not None
    assert np.linalg.norm(done.crystal.cell, axis=1).max() == pytest.approx(np.linalg.norm(copper().cell, axis=1).max())
    assert done.energy == pytest.approx(whole.energy, abs=1e-6)
