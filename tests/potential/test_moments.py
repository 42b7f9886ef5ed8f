"""Relaxed moments are the minima that models of Landau and Heisenberg have on paper, with atoms still and moving."""

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from naica.app.cli import main
from naica.errors import InputError
from naica.potential.derivatives import differentiated
from naica.potential.lennard_jones import LennardJones
from naica.potential.model import PotentialModel, PotentialParts
from naica.potential.moments import MomentGoal, relax_moments
from naica.potential.saved import Potential, PotentialCard
from naica.structure import Crystal
from naica.structure.io import write

CUTOFF, SPRING, LENGTH = 3.0, 4.0, 2.4


class Landau:
    """``Σ_i (−a m²/2 + b m⁴/4) − ½ Σ_ij J(r) m_i m_j + ¼ Σ_ij k (r − r₀)²``, J = J₀ (1 − r/r_c)²; b = 0 has no minimum."""

    cutoff = CUTOFF

    def __init__(self, a: float, b: float, coupling: float) -> None:
        self.a, self.b, self.coupling = a, b, coupling

    def exchange(self, r):
        return self.coupling * (1 - r / CUTOFF) ** 2

    def evaluate(self, batch):
        def energy(local):
            m, r = local["moments"], local["edge_length"]
            i, j = local["edge_receiver"], local["edge_sender"]
            own = -self.a * m**2 / 2 + self.b * m**4 / 4
            pairs = -0.5 * self.exchange(r) * m[i] * m[j] + 0.25 * SPRING * (r - LENGTH) ** 2
            sites = own.index_add(0, i, pairs)
            return torch.zeros(local.n_systems, dtype=m.dtype).index_add(0, local["system"], sites), {}

        return differentiated(energy, batch, spins=True)


def chain(n: int = 4) -> Crystal:
    """Atoms in a row 2 Å apart, two neighbours each."""
    return Crystal.from_fractional([26] * n, [[k / n, 0, 0] for k in range(n)], np.diag([2.0 * n, 9.0, 9.0]))


def dimer() -> Crystal:
    return Crystal(np.array([26, 26]), np.array([[0.0, 0, 0], [2.2, 0, 0]]), np.zeros((3, 3)), np.zeros(3, dtype=bool))


@pytest.mark.parametrize(("coupling", "signs"), [(3.0, [1, 1, 1, 1]), (-3.0, [1, -1, 1, -1])])
def test_size_and_order_on_a_chain(coupling, signs):
    model = Landau(1.0, 0.5, coupling)
    one = chain().replace(info={"moments": 0.3 * np.array(signs)})
    found = relax_moments(one, model, MomentGoal(field=1e-6))[0]
    z_j = 2 * abs(model.exchange(2.0))
    assert found.status == "converged"
    assert found.field < 1e-6
    assert found.turns == 0
    np.testing.assert_allclose(found.moments, np.sqrt((1.0 + z_j) / 0.5) * np.array(signs), rtol=1e-5)
    assert found.energy == pytest.approx(-4 * (1.0 + z_j) ** 2 / (4 * 0.5) + 4 * SPRING / 2 * 0.4**2, rel=1e-8)
    np.testing.assert_array_equal(found.crystal.info["moments"], found.moments)
    np.testing.assert_array_equal(found.crystal.positions, one.positions)


def test_the_order_is_found_from_random_signs():
    model = Landau(1.0, 0.5, -3.0)
    parallel, searched = (relax_moments(chain(), model, MomentGoal(tries=tries))[0] for tries in (0, 12))
    assert np.ptp(np.sign(parallel.moments)) == 0
    assert searched.energy < parallel.energy - 0.1
    np.testing.assert_array_equal(np.sign(searched.moments) * np.sign(searched.moments[0]), [1, -1, 1, -1])


def test_atoms_follow_their_moments():
    model = Landau(0.5, 0.5, 2.0)
    still = relax_moments(dimer(), model, MomentGoal(field=1e-6))[0]
    moved = relax_moments(dimer(), model, MomentGoal(field=1e-6), atoms={"fmax": 1e-5})[0]
    exact = minimize_scalar(
        lambda r: SPRING / 2 * (r - LENGTH) ** 2 - (0.5 + model.exchange(r)) ** 2 / (2 * 0.5), bounds=(1.2, 3), method="bounded"
    )
    r = np.linalg.norm(np.diff(moved.crystal.positions, axis=0))
    assert moved.status == "converged"
    assert moved.force < 1e-5
    assert moved.turns > 1
    assert r == pytest.approx(exact.x, abs=1e-4)
    assert moved.energy == pytest.approx(exact.fun, abs=1e-7)
    assert moved.energy < still.energy


def test_what_cannot_be_relaxed_is_told():
    runaway, sound = relax_moments([chain(), chain()], Landau(1.0, 0.0, 1.0), MomentGoal(largest=5.0)), Landau(1.0, 0.5, 1.0)
    assert {one.status for one in runaway} == {"not converged"}
    assert "largest allowed, 5" in runaway[0].reason
    short = relax_moments(chain().replace(info={"moments": [0.1, 0.2, 0.3, 0.1]}), sound, MomentGoal(field=1e-9, steps=2))[0]
    assert short.status == "not converged"
    assert "is left after" in short.reason
    with pytest.raises(InputError, match="does not depend on moments"):
        relax_moments(chain(), LennardJones())
    with pytest.raises(InputError, match="moments of shape"):
        relax_moments(chain().replace(info={"moments": [1.0]}), sound)
    with pytest.raises(InputError, match="expected field > 0"):
        MomentGoal(field=0)


def test_no_moments_are_a_stationary_point_that_stays():
    found = relax_moments(chain().replace(info={"moments": np.zeros(4)}), Landau(1.0, 0.5, 1.0))[0]
    assert found.status == "converged"
    assert not found.moments.any()
    assert found.steps == 1


def test_the_command_relaxes_moments_of_a_trained_potential(tmp_path, capsys):
    torch.manual_seed(0)
    model = PotentialModel("schnet", {"width": 8, "interactions": 1, "cutoff": 3.0}, PotentialParts(spin="collinear"))
    with torch.no_grad():  # moments cost energy where they are large
        model.spins.network[0].weight[:, 8] = torch.linspace(0.1, 1.0, 64)
        model.spins.network[2].weight.fill_(0.05)
    card = PotentialCard("iron", "schnet", model.architecture_config, model.parts.to_dict(), 1, elements=("Fe",))
    Potential((model,), card).save(tmp_path / "model")
    write(chain(), tmp_path / "chain.json")
    with pytest.raises(SystemExit) as left:
        main(["relax", str(tmp_path / "chain.json"), "--model", str(tmp_path / "model"), "--moments", "--still", "--tries", "1", "--json"])
    row = json.loads(capsys.readouterr().out)["results"][0]
    assert left.value.code in (0, None)
    assert row["status"] == "converged"
    assert len(row["moments"]) == 4
    assert row["volume_change"] == 0
    with pytest.raises(SystemExit) as left:
        main(["relax", str(tmp_path / "chain.json"), "--model", str(tmp_path / "model"), "--still"])
    assert left.value.code
    assert "--moments" in capsys.readouterr().err
