"""DIRECT sampling covers what it samples from."""

import numpy as np
import pytest
from labelled import emt_frames

from naica.errors import InputError
from naica.potential.direct import composition_features, coverage, direct, model_features, principal

pytest.importorskip("sklearn")


def blobs(seed: int = 0, size: int = 30, count: int = 10, width: int = 12) -> np.ndarray:
    draw = np.random.default_rng(seed)
    centres = 10 * draw.normal(size=(count, width))
    return np.concatenate([c + 0.1 * draw.normal(size=(size, width)) for c in centres])


def test_one_of_each_blob():
    found = direct(blobs(), n=10, per_cluster=1)
    assert found.clusters == 10
    assert sorted(row // 30 for row in found.rows.tolist()) == list(range(10))


def test_scaling_the_features_changes_nothing():
    features = blobs()
    scaled = features * np.random.default_rng(1).uniform(1e-3, 1e3, features.shape[1])
    assert np.array_equal(direct(features, n=20, per_cluster=2).rows, direct(scaled, n=20, per_cluster=2).rows)


def test_enough_per_cluster_takes_every_member_once():
    assert np.array_equal(direct(blobs(), n=10, per_cluster=30).rows, np.arange(300))


def test_it_covers_better_than_chance():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        # dense middle, sparse tails, as trajectories have
        features = draw.standard_t(2, size=(600, 6)) @ draw.normal(size=(6, 8))
        found = direct(features, n=40)
        assert found.coverage >= found.random_coverage


def test_kaisers_rule():
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(500, 3))
    features = np.concatenate([hidden @ draw.normal(size=(3, 12)) + 0.01 * draw.normal(size=(500, 12)), np.ones((500, 2))], axis=1)
    space, kept, variance = principal(features)
    assert kept <= 3
    assert variance > 0.9
    assert space.shape == (500, kept)


def test_ranks_run_from_the_centre_outwards():
    line = np.column_stack([np.arange(11.0), np.arange(11.0)])
    found = direct(line, n=1, per_cluster=3)
    assert 5 in found.rows  # nearest the centre
    assert {0, 10} & set(found.rows.tolist())  # and one farthest from it
    smallest = direct(line, n=1, per_cluster=2, select="smallest", sizes=np.array([9, 9, 1, 9, 9, 2, 9, 9, 9, 9, 9]))
    assert smallest.rows.tolist() == [2, 5]


def test_whole_coverage_is_one():
    space = np.random.default_rng(0).normal(size=(50, 2))
    assert coverage(space, np.arange(50)) == 1.0
    assert coverage(space, np.arange(1)) < 0.1


def test_features_of_frames():
    from naica.potential.fit import fit
    from naica.potential.settings import FitConfig

    given = emt_frames(12, elements=("Cu", "Au"))
    assert composition_features(given).shape == (12, 3)
    network = {"width": 8, "interactions": 1, "gaussians": 8, "cutoff": 4.0}
    model = fit(given, FitConfig(architecture="schnet", architecture_config=network, epochs=0, tensorboard=False))
    features = model_features(model, given)
    assert features.shape == (12, 16)
    assert len(direct(features, n=4).rows) == 4


def test_what_cannot_be_sampled_is_told():
    with pytest.raises(InputError, match="same features"):
        direct(np.ones((5, 3)))
    with pytest.raises(InputError, match="ask for fewer"):
        direct(blobs(size=1), n=30)
