"""Potentials are learned, resumed after a kill to the last digit, saved and opened, and refuse what they never saw."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled import crystals, emt_frames, table

from naica import load, relax
from naica.data import CrystalTable, Level
from naica.errors import ConfigError, InputError, LevelError, RunError
from naica.potential.examples import Examples, steps
from naica.potential.fit import fit
from naica.potential.frames import Frames, frames
from naica.potential.loop import Data, Training, Watch
from naica.potential.model import PotentialModel
from naica.potential.references import least_squares
from naica.potential.settings import FitConfig, Weights

NETWORK = {"width": 16, "interactions": 2, "gaussians": 12, "cutoff": 4.5}
SMALL = FitConfig(
    architecture="schnet", architecture_config=NETWORK, epochs=2, tensorboard=False, batch_size=4, test=0.2, learning_rate=5e-3, ema=0.9
)


def test_a_network_learns_its_frames_by_heart():
    found = fit(emt_frames(6), SMALL.replace(epochs=120, test=0.0, validation=0.0, batch_size=2, learning_rate=1e-2))
    assert found.card.metrics["train"]["forces_rmse"] < 0.08
    assert found.card.metrics["train"]["energy_rmse"] < 0.01
    given = emt_frames(6)
    spread = np.sqrt((given.labels["forces"] ** 2).mean())
    assert spread > 0.3  # it had something to learn


def test_references_and_scale_come_from_the_training_part():
    given = emt_frames(30, elements=("Cu", "Au"))
    found = least_squares(given, np.arange(30))
    energies, counts = given.labels["energy"], given.counts
    numbers = given.table.flat()[1].reshape(-1, 4)
    told = np.array([sum(found[int(z)] for z in row) for row in numbers])
    assert np.std((energies - told) / counts) < 0.9 * np.std(energies / counts)
    model = fit(given, SMALL.replace(epochs=0)).members[0]
    assert float(model.scale) == pytest.approx(np.sqrt((given.labels["forces"] ** 2).mean()), rel=0.2)
    assert model.references[29] != 0
    assert model.references[79] != 0


def test_saved_and_opened_it_says_the_same(tmp_path):
    made = fit(emt_frames(12), SMALL.replace(tensorboard=True), out=tmp_path / "run", name="copper")
    opened = load(tmp_path / "run")
    crystal = crystals(1, seed=5)[0]
    a, b = made.compute(crystal)[0], opened.compute(crystal)[0]
    assert a.energy == b.energy
    assert np.array_equal(a.forces, b.forces)
    assert opened.card.elements == ("Cu",)
    assert opened.card.level_of_theory == Level("EMT")
    assert {"train", "validation", "test"} <= set(opened.card.metrics)
    assert opened.card.data["rows"] == {"train": 9, "validation": 1, "test": 2}
    assert (tmp_path / "run/member-0/log.csv").read_text().count("\n") == 3
    assert list((tmp_path / "run/member-0/tensorboard").glob("events*"))
    # graphs lie on disk and are mapped into memory the next time
    needs = made.members[0].needs
    again = Examples.build(emt_frames(12), needs, tmp_path / "run/graphs.bin")
    assert not again.graphs.vectors.flags.writeable
    relaxed = relax(crystal, str(tmp_path / "run"), fmax=10.0)[0]
    assert relaxed.status == "converged"
    gold = crystals(1, seed=6, elements=("Au",))[0]
    assert "does not know Au" in relax(gold, str(tmp_path / "run"))[0].reason
    with pytest.raises(InputError, match="never saw Au"):
        opened.compute(gold)


def test_a_damaged_card_is_told(tmp_path):
    folder = fit(emt_frames(8), SMALL.replace(epochs=1)).save(tmp_path / "model")
    card = json.loads((folder / "card.json").read_text())
    for change, message in (({"format": 99}, "upgrade naica"), ({"members": 2}, "does not fit"), ({"colour": 1}, "unknown entries colour")):
        (folder / "card.json").write_text(json.dumps(card | change))
        with pytest.raises(InputError, match=message):
            load(folder)


class _Stop(Exception):
    pass


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "state.pt", weights_only=True)


@pytest.mark.parametrize("at", [3, 7, 12])
def test_a_run_that_was_interrupted_ends_where_an_undisturbed_one_ends(tmp_path, at):
    given = emt_frames(16)
    config = SMALL.replace(epochs=4, validation=0.2, test=0.0, checkpoint_steps=2, stage_two=Weights(energy=10.0), stage_two_from=0.5)
    examples = Examples.build(given, PotentialModel("schnet", NETWORK).needs)
    data = Data(examples, np.arange(13), np.arange(13, 16))

    def train(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        seen = 0

        def step(share: float) -> None:
            nonlocal seen
            seen += 1
            if stop is not None and seen > stop:
                raise _Stop

        torch.manual_seed(0)
        Training(PotentialModel("schnet", NETWORK), config, 0, data, folder, Watch(step)).run()
        return _state(folder)

    whole = train(tmp_path / "whole", None)
    with pytest.raises(_Stop):
        train(tmp_path / "cut", at)
    again = train(tmp_path / "cut", None)
    for part in ("model", "average", "kept"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, again[part][name]), (part, name)
    drop = ("seconds", "cpu_seconds", "rows")
    assert {k: v for k, v in whole["progress"].items() if k not in drop} == {k: v for k, v in again["progress"].items() if k not in drop}
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "cut")]
    assert [row.split(",")[:5] for row in logs[0]] == [row.split(",")[:5] for row in logs[1]]


SCRIPT = """
import sys
from labelled import emt_frames
from naica.potential.fit import fit
from naica.potential.settings import FitConfig
config = FitConfig(architecture="schnet", architecture_config={network}, epochs=6, batch_size=2, tensorboard=False, checkpoint_steps=3)
fit(emt_frames(30), config, out=sys.argv[1])
"""


def test_killed_without_warning_it_goes_on(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(network=NETWORK))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}

    def start(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(tmp_path / folder)], env=environment)

    config = FitConfig(architecture="schnet", architecture_config=NETWORK, epochs=6, batch_size=2, tensorboard=False, checkpoint_steps=3)
    fit(emt_frames(30), config, out=tmp_path / "whole")
    running = start("cut")
    state = tmp_path / "cut/member-0/state.pt"
    deadline = time.monotonic() + 60
    while not state.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert state.exists()
    assert start("cut").wait(120) == 0
    a, b = load(tmp_path / "whole").members[0].state_dict(), load(tmp_path / "cut").members[0].state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_folder_belongs_to_one_run(tmp_path):
    fit(emt_frames(8), SMALL, out=tmp_path)
    with pytest.raises(ConfigError, match="other learning_rate"):
        fit(emt_frames(8), SMALL.replace(learning_rate=1e-4), out=tmp_path)
    with pytest.raises(ConfigError, match="other frames"):
        fit(emt_frames(9), SMALL, out=tmp_path)
    assert fit(emt_frames(9), SMALL, out=tmp_path, resume=False).card.data["rows"]["train"] == 6


def test_a_diverging_run_stops_with_the_reason(tmp_path):
    with pytest.raises(RunError, match=r"diverged in epoch .* Lower learning_rate"):
        fit(emt_frames(8), SMALL.replace(learning_rate=10.0, optimizer="adam", clip=0.0, epochs=60, schedule="constant"), out=tmp_path)


def test_a_committee_tells_its_spread(tmp_path):
    found = fit(emt_frames(12), SMALL.replace(members=2), out=tmp_path)
    assert len(found.members) == 2
    opened = load(tmp_path).compute(crystals(1, seed=3))[0]
    assert opened.atoms["force_sigma"].shape == (4,)
    assert opened.atoms["force_sigma"].min() > 0


def test_missing_labels_are_masked_field_by_field():
    whole = table(12)
    forces = [None if k % 2 else f for k, f in enumerate(whole.arrow["forces"].to_pylist())]
    energies = [e if k % 3 else None for k, e in enumerate(whole.arrow["energy"].to_pylist())]
    gaps = whole.with_column("forces", forces, whole.labels["forces"]).with_column("energy", energies, whole.labels["energy"])
    given = frames(gaps)
    assert given.coverage == {"energy": 8, "forces": 6, "stress": 10}
    assert len(given) == 10  # two have neither
    assert "without forces" in given.report()
    assert "neither an energy nor forces" in given.report()
    found = fit(given, SMALL.replace(epochs=3))
    assert np.isfinite(found.card.metrics["train"]["forces_rmse"])
    assert all(torch.isfinite(p).all() for p in found.members[0].parameters())


def test_energies_alone_can_be_learned():
    whole = table(12)
    given = frames(CrystalTable(whole.arrow.drop_columns(["forces", "stress"])))
    found = fit(given, SMALL.replace(epochs=3))
    assert found.card.metrics["train"]["energy_rmse"] < 1.0
    assert "forces_rmse" not in found.card.metrics["train"]


def test_bad_frames_are_rows_with_a_reason():
    whole = table(8)
    forces, energies, positions = (whole.arrow[n].to_pylist() for n in ("forces", "energy", "positions"))
    forces[0][2] = 1e4
    forces[1][5] = float("nan")
    forces[2] = forces[2][:-3]
    energies[3] = float("inf")
    positions[4][3:6] = [x + 0.05 for x in positions[4][:3]]
    odd = whole.with_column("forces", forces, whole.labels["forces"]).with_column("energy", energies, whole.labels["energy"])
    odd = odd.with_column("positions", positions)
    given = frames(odd)
    reasons = {r.row: r.reason for r in given.rejected}
    assert "larger than" in reasons[0]
    assert "NaN on some atoms" in reasons[1]
    assert "9 numbers for 4 atoms" in reasons[2].replace("forces has ", "")
    assert "infinite" in reasons[3]
    examples = Examples.build(given, PotentialModel("schnet", NETWORK).needs)
    assert len(examples) == 3
    assert any("two atoms within" in r.reason for r in examples.rejected)


def test_levels_do_not_mix_silently():
    low, high = table(6), table(6, seed=1, level=Level("other"))
    with pytest.raises(LevelError, match="level of theory"):
        CrystalTable.concat([low, high])
    both = CrystalTable.concat([low, high], fidelity=True)
    with pytest.raises(LevelError, match="fidelity=True"):
        frames(both)
    assert frames(both, fidelity=True).levels == ("EMT", "other")


def test_batches_hold_what_single_frames_hold():
    given = emt_frames(5)
    model = PotentialModel("schnet", NETWORK, references={29: -3.0})
    examples = Examples.build(given, model.needs)
    batch, wanted = examples.batch(np.array([3, 1, 4]))
    together = model.compute(batch)
    for place, row in enumerate((3, 1, 4)):
        one, label = examples.batch(np.array([row]))
        alone = model.compute(one)
        assert float(together.energy[place]) == pytest.approx(float(alone.energy[0]), abs=1e-5)
        torch.testing.assert_close(together.stress[place], alone.stress[0], atol=1e-6, rtol=1e-4)
        assert torch.equal(wanted.forces[4 * place : 4 * place + 4], label.forces)
        assert float(wanted.energy[place]) == given.labels["energy"][row]


def test_steps_hold_as_many_forces_each():
    atoms = np.array([1, 1, 1, 1, 100, 100, 2, 2, 50, 50])
    plan = steps(atoms * 10, atoms, 3, 10_000, balanced=True)
    assert np.concatenate(plan).tolist() == list(range(10))
    held = [atoms[part].sum() for part in plan]
    assert max(held) <= 3 * atoms.mean() + 50
    assert all(len(part) == 1 for part in steps(atoms * 10, atoms, 3, 5, balanced=False))
    assert [len(part) for part in steps(atoms * 0, atoms, 3, 10_000, balanced=False)] == [3, 3, 3, 1]


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        FitConfig.from_dict({"learning_rat": 1.0})
    with pytest.raises(ConfigError, match="nothing to learn"):
        Weights(energy=0.0, forces=0.0)
    given = FitConfig.from_dict({"stage_two": {"energy": 100.0}, "parts": {"sites": ["magmom"]}})
    assert given.stage_two == Weights(energy=100.0)
    assert FitConfig.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    with pytest.raises(InputError, match="no such file, nor a registered set"):
        frames("no-such-set:Cu")


def test_frames_stay_with_their_trajectory():
    from naica.potential.parts import cut

    given = emt_frames(40)
    given = replace(given, table=given.table.with_column("trajectory", [f"t{k // 2}" for k in range(40)]))
    assert isinstance(given, Frames)
    examples = Examples.build(given, PotentialModel("schnet", NETWORK).needs)
    chosen = cut(examples, SMALL, np.zeros(0, np.int64))
    owner = [{k // 2 for k in rows.tolist()} for rows in (chosen.train, chosen.validation, chosen.test)]
    assert not (owner[0] & owner[1])
    assert not (owner[0] | owner[1]) & owner[2]


def test_the_linear_potential_goes_through_the_same_door(tmp_path):
    network = {"cutoff": 4.0, "degrees": [5.0, 4.0], "pair_functions": 4, "l_max": 2}
    found = fit(emt_frames(20), SMALL.replace(architecture="ace", architecture_config=network, members=2), out=tmp_path)
    assert found.card.metrics["test"]["forces_rmse"] < 0.2
    opened = load(tmp_path).compute(crystals(1, seed=3))[0]
    assert opened.atoms["force_sigma"].max() > 0
    assert (tmp_path / "posterior.npz").exists()
