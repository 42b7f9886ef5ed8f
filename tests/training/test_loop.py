import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise

import numpy as np
import pytest
import torch

from naica.errors import RunError
from naica.training.config import TrainConfig
from naica.training.loop import Watch, fit
from naica.training.run import _initial, fine_tune, prepare, train
from naica.training.schedule import rate

from .conftest import SMALL


def state(model):
    return torch.cat([t.flatten().double() for t in model.state_dict().values() if t.is_floating_point()])


def weights(model):
    return torch.cat([t.detach().flatten().double() for t in model.parameters()])


def member(table, parts, config, folder=None, watch=None, resume=True):
    material = prepare(table, "e", config, parts)
    model = _initial(material.target, config, config.seed)
    progress = fit(model, config, config.seed, material.part("train"), material.part("val"), folder, watch or Watch(), resume)
    return model, progress


class Killed(Exception):
    pass


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_an_interrupted_run_ends_where_an_undisturbed_one_ends(table, parts, tmp_path, dropout):
    config = TrainConfig(**SMALL, epochs=5, head={"hidden": [8], "dropout": dropout}, volume_augmentation=0.02)
    straight, _ = member(table, parts, config)
    folder = tmp_path / "member"
    folder.mkdir()
    for stop in (1, 3):

        def epoch(row, stop=stop):
            if row["epoch"] == stop:
                raise Killed

        with pytest.raises(Killed):
            member(table, parts, config, folder, Watch(epoch=epoch))
    resumed, progress = member(table, parts, config, folder)
    assert progress.epoch == 5
    assert float((state(straight) - state(resumed)).abs().max()) < 1e-6
    lines = (folder / "log.csv").read_text().splitlines()
    assert len(lines) == 6
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]


def _epochs(folder):
    return sum(log.read_text().count("\n") for log in folder.glob("member-*/log.csv"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_minus_nine_in_the_middle_of_a_run(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            sys.path.insert(0, sys.argv[2])
            from training.conftest import SMALL, LEVEL, Parts, energy, make
            import numpy as np
            from naica.data import CrystalTable, Label
            from naica.training import TrainConfig, train
            crystals = make(80)
            label = Label.of("formation_energy_per_atom", LEVEL)
            table = CrystalTable.from_crystals(crystals, {"e": [energy(c) for c in crystals]}, {"e": label})
            rows = np.arange(80)
            config = TrainConfig(**SMALL, epochs=10, members=2)
            train(table, "e", config, Parts(rows[:50], rows[50:65], rows[65:]), sys.argv[1], progress=False)
            """
        )
    )
    tests = os.path.dirname(os.path.dirname(__file__))
    run = [sys.executable, str(script)]
    subprocess.run([*run, str(tmp_path / "straight"), tests], check=True)
    kills = 0
    for _ in range(3):
        before = _epochs(tmp_path / "killed")
        process = subprocess.Popen([*run, str(tmp_path / "killed"), tests])
        while process.poll() is None and _epochs(tmp_path / "killed") < before + 4:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    subprocess.run([*run, str(tmp_path / "killed"), tests], check=True)
    from safetensors.torch import load_file

    a, b = (load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("straight", "killed"))
    assert max(float((a[k].double() - b[k].double()).abs().max()) for k in a) < 1e-6


def test_the_best_running_mean_is_what_is_kept(table, parts):
    seen = []
    config = TrainConfig(**SMALL, epochs=6, learning_rate=2e-2)
    model, progress = member(table, parts, config, watch=Watch(epoch=seen.append))
    assert progress.best == min(row["validation"] for row in seen)
    material = prepare(table, "e", config, parts)
    part = material.part("val")
    with torch.no_grad():
        values = model(part.graphs.batch(part.rows)).numpy()
    assert np.abs(values - part.labels).mean() == pytest.approx(progress.best, rel=1e-5)


def test_early_stop_and_time_budget(table, parts):
    _, progress = member(table, parts, TrainConfig(**SMALL, epochs=500, patience=2, learning_rate=1e-9))
    assert progress.epoch < 20
    assert progress.stale == 2
    started = time.monotonic()
    rates = []
    watch = Watch(epoch=lambda row: rates.append(row["learning_rate"]))
    _, progress = member(table, parts, TrainConfig(**SMALL, epochs=10**6, max_seconds=1.0), watch=watch)
    assert 1.0 <= progress.seconds < 3.0
    assert time.monotonic() - started < 10
    # the schedule has come to its end although the epochs have not
    assert rates[-1] < 0.1 * max(rates)


def test_a_budget_of_cpu_seconds_does_not_count_waiting(table, parts):
    def wait(share):
        time.sleep(0.02)

    rates = []
    watch = Watch(step=wait, epoch=lambda row: rates.append(row["learning_rate"]))
    config = TrainConfig(**SMALL, epochs=10**6, max_cpu_seconds=0.5)
    started = time.process_time()
    _, progress = member(table, parts, config, watch=watch)
    assert 0.5 <= progress.cpu_seconds < 1.5
    assert progress.cpu_seconds <= time.process_time() - started
    # it slept at every step, which the budget does not see
    assert progress.seconds > progress.cpu_seconds + 0.2
    assert rates[-1] < 0.1 * max(rates)


def test_it_learns_ten_structures_by_heart(table, parts):
    from .conftest import Parts

    ten = Parts(parts.train[:10], parts.train[:0], parts.test)
    settings = {**SMALL, "architecture_config": {"width": 32, "layers": 2}, "batch_size": 10, "ema": 0.98}
    ensemble = train(table, "e", TrainConfig(**settings, epochs=200, learning_rate=1e-2, weight_decay=0.0, loss="l1"), ten, progress=False)
    values = ensemble.predict(table.take(ten.train)).value
    assert np.abs(values - table.column("e")[ten.train]).mean() < 0.06 * ensemble.target.std


def test_a_run_folder_belongs_to_one_run(table, parts, tmp_path):
    config = TrainConfig(**SMALL, epochs=1)
    train(table, "e", config, parts, tmp_path / "run", progress=False)
    with pytest.raises(RunError, match=r"another training run \(different settings\)"):
        train(table, "e", TrainConfig(**{**SMALL, "batch_size": 8}, epochs=1), parts, tmp_path / "run", progress=False)
    with pytest.raises(RunError, match="different data"):
        train(table, "e", config, type(parts)(parts.train[1:], parts.val, parts.test), tmp_path / "run", progress=False)
    train(table, "e", TrainConfig(**{**SMALL, "batch_size": 8}, epochs=1), parts, tmp_path / "run", resume=False, progress=False)


def test_a_damaged_state_and_a_folder_that_cannot_be_made(table, parts, tmp_path):
    config = TrainConfig(**SMALL, epochs=1)
    train(table, "e", config, parts, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "member-0" / "state.pt"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RunError, match=r"cannot be resumed .*resume=False"):
        train(table, "e", config, parts, tmp_path / "run", progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the run folder"):
        train(table, "e", config, parts, tmp_path / "file" / "run", progress=False)


def test_a_state_file_is_never_unpickled_as_code(table, parts, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    config = TrainConfig(**SMALL, epochs=1)
    train(table, "e", config, parts, tmp_path / "run", progress=False)
    (tmp_path / "run" / "member-0" / "state.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunError, match="cannot be resumed"):
        train(table, "e", config, parts, tmp_path / "run", progress=False)
    assert not (tmp_path / "owned").exists()


def test_a_diverging_run_stops_with_a_reason(table, parts):
    broken = table.with_column("e", table.column("e") * 1e300, table.labels["e"])
    with pytest.raises(RunError, match=r"loss became .* in epoch 1; lower learning_rate"):
        member(
            broken.with_column("e", np.where(np.arange(80) == 3, 1e308, table.column("e")), table.labels["e"]),
            parts,
            TrainConfig(**SMALL, epochs=2),
        )


def test_tensorboard_and_csv(table, parts, tmp_path):
    train(table, "e", TrainConfig(**{**SMALL, "tensorboard": True}, epochs=2), parts, tmp_path / "run", progress=False)
    assert list((tmp_path / "run" / "member-0" / "tensorboard").glob("events.*"))
    header = (tmp_path / "run" / "member-0" / "log.csv").read_text().splitlines()[0]
    assert header.split(",")[:3] == ["epoch", "loss", "validation"]


def test_the_bar_says_where_we_are_and_quiet_is_quiet(table, parts, capfd):
    train(table, "e", TrainConfig(**SMALL, epochs=1), parts, progress=True)
    shown = capfd.readouterr()
    assert "training E_f" in shown.err
    train(table, "e", TrainConfig(**SMALL, epochs=1), parts, progress=False)
    silent = capfd.readouterr()
    assert silent.out == silent.err == ""


def test_training_leaves_the_callers_random_numbers_alone(table, parts):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(table, "e", TrainConfig(**SMALL, epochs=1), parts, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_schedule_shapes():
    curve = [rate(f, "one-cycle", 0.2) for f in np.linspace(0, 1, 101)]
    assert curve[0] == pytest.approx(0.04)
    assert max(curve) == pytest.approx(1.0, abs=1e-3)
    assert int(np.argmax(curve)) == 20
    assert curve[-1] == pytest.approx(1e-3)
    assert all(a >= b for a, b in pairwise(curve[20:]))
    assert rate(0.7, "constant", 0.2) == 1.0
    assert rate(0.02, "cosine", 0.9) == pytest.approx(1.0)


def test_fine_tuning_zero_rate_keeps_the_model_and_names_its_origin(trained, table, parts):
    tuned = fine_tune(
        trained, table, "e", epochs=1, learning_rate=1e-9, split=parts, progress=False, batch_size=16, tensorboard=False, weight_decay=0.0
    )
    assert tuned.target == trained.target
    assert tuned.card.lineage[0]["name"] == trained.card.name
    before, after = (e.predict(table).value for e in (trained, tuned))
    assert np.abs(before - after).max() < 0.25 * trained.target.std


def test_a_chain_goes_on_from_the_member_before(table, parts):
    config = TrainConfig(**SMALL, epochs=3, members=2, chain=True, learning_rate=1e-9, weight_decay=0.0)
    first, second = train(table, "e", config, parts, progress=False).members
    apart = train(table, "e", TrainConfig.from_dict({**config.to_dict(), "chain": False}), parts, progress=False).members
    near = float((weights(first) - weights(second)).abs().max())
    far = float((weights(apart[0]) - weights(apart[1])).abs().max())
    assert near < 0.2 * far
