import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naica.errors import InputError
from naica.insight.roc import roc_curve, roc_plot
from naica.training.evaluation import roc_auc


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(pairs):
    score, actual = (np.array(x, dtype=float) for x in zip(*pairs, strict=True))
    if len(set(actual)) < 2:
        with pytest.raises(InputError, match="one class"):
            roc_curve(score, actual)
        return
    curve = roc_curve(score, actual)
    assert curve.area == pytest.approx(roc_auc(score, actual))
    assert (curve.false_positive[0], curve.true_positive[0]) == (0, 0)
    assert (curve.false_positive[-1], curve.true_positive[-1]) == (1, 1)
    assert (np.diff(curve.false_positive) >= 0).all()
    assert (np.diff(curve.true_positive) >= 0).all()
    # every point is what its threshold gives
    for fpr, tpr, threshold in zip(curve.false_positive, curve.true_positive, curve.threshold, strict=True):
        assert tpr == pytest.approx((score[actual == 1] >= threshold).mean())
        assert fpr == pytest.approx((score[actual == 0] >= threshold).mean())


def test_pictures_of_one_and_of_many_classes(tmp_path):
    draw = np.random.default_rng(0)
    actual = (draw.random(80) < 0.4).astype(float)
    one = {"metal": (actual + draw.normal(size=80), actual)}
    roc_plot(one, tmp_path / "deep" / "one.png")
    assert (tmp_path / "deep" / "one.png").read_bytes().startswith(b"\x89PNG")
    roc_plot({f"t{k}": one["metal"] for k in range(12)}, tmp_path / "many.svg")
    text = (tmp_path / "many.svg").read_text()
    assert text.count("<path") > 12
    with pytest.raises(InputError, match="no ROC curve of metal"):
        roc_plot({"metal": (actual, np.ones(80))}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
