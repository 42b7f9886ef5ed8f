import numpy as np
import pytest

from naica.errors import InputError
from naica.training import TrainConfig, train
from naica.training.gather import gather

from .conftest import SMALL


def test_members_of_separate_runs_make_the_ensemble_of_one_run(table, parts, tmp_path):
    both = train(table, "e", TrainConfig(**SMALL, epochs=2, members=2, seed=4), parts, progress=False)
    for seed in (4, 5):
        train(table, "e", TrainConfig(**SMALL, epochs=2, seed=seed), parts, tmp_path / str(seed), progress=False)
    joined = gather([tmp_path / "4", tmp_path / "5"], table, "e", parts, "joined")
    assert (joined.predict(table).members == both.predict(table).members).all()
    assert joined.card.calibration == both.card.calibration
    assert [m["seed"] for m in joined.card.training["members"]] == [4, 5]


def test_runs_that_do_not_belong_together_are_refused(table, parts, tmp_path):
    train(table, "e", TrainConfig(**SMALL, epochs=1), parts, tmp_path / "a", progress=False)
    other = {**SMALL, "architecture_config": {"width": 8, "layers": 1}}
    train(table, "e", TrainConfig(**other, epochs=1), parts, tmp_path / "b", progress=False)
    with pytest.raises(InputError, match="do not go together: different architecture_config"):
        gather([tmp_path / "a", tmp_path / "b"], table, "e", parts)
    with pytest.raises(InputError, match="learned from other rows"):
        gather([tmp_path / "a"], table, "e", type(parts)(parts.train[:-1], parts.val, parts.test))
    with pytest.raises(InputError, match="is no run folder"):
        gather([tmp_path], table, "e", parts)
    with pytest.raises(InputError, match="no run folders"):
        gather([], table, "e", parts)
    state = tmp_path / "a" / "member-0" / "state.pt"
    state.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="is damaged"):
        gather([tmp_path / "a"], table, "e", parts)
    assert np.isfinite(table.column("e")).all()
