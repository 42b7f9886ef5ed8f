import numpy as np
import pytest
import torch

from naica.errors import InputError
from naica.structure import Crystal
from naica.training import build, fit_correction
from naica.training.check import check, samples
from naica.training.property import PropertyModel


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build("cgcnn", width=16, layers=2)


class Broken(PropertyModel):
    """A model with one law broken on purpose."""

    def __init__(self, how):
        torch.manual_seed(0)
        super().__init__("cgcnn", {"width": 16, "layers": 1}, build(width=8).head_config, build(width=8).target)
        self.how = how
        self.calls = 0

    def forward(self, batch):
        value = super().forward(batch)
        extra = torch.zeros_like(value)
        first = torch.cumsum(batch["n_atoms"], 0) - batch["n_atoms"]
        if self.how == "first atom":
            return value + 0.01 * batch["number"][first].to(value.dtype)
        if self.how == "direction":
            along = batch["edge_vector"][:, 0].abs()
            return value + 0.01 * extra.index_add(0, batch["system"][batch["edge_receiver"]], along) / batch["n_atoms"]
        if self.how == "handedness":
            x, y, z = batch["edge_vector"].unbind(1)
            each = (x * torch.roll(y, 1) * torch.roll(z, 2)).to(value.dtype)
            return value + 0.01 * extra.index_add(0, batch["system"][batch["edge_receiver"]], each) / batch["n_atoms"]
        if self.how == "size":
            return value * batch["n_atoms"].to(value.dtype)
        if self.how == "batch mean":
            return value - 0.1 * value.mean()
        if self.how == "mood":
            self.calls += 1
            return value + 0.1 * self.calls
        if self.how == "last edge":
            last = torch.zeros_like(value).index_copy(0, batch["system"][batch["edge_receiver"]], batch["edge_length"].to(value.dtype))
            return value + 0.1 * last
        if self.how == "NaN":
            # the mean over no edges
            count = extra.index_add(0, batch["system"][batch["edge_receiver"]], torch.ones_like(batch["edge_length"], dtype=value.dtype))
            return value + 0 * count / count
        if self.how == "half":
            return value.half().to(value.dtype) if value.dtype == torch.float32 else value
        raise AssertionError(self.how)


def test_every_architecture_obeys():
    from naica.models import ARCHITECTURES

    torch.manual_seed(0)
    for name in ("cgcnn", "gnome", "gnome-composition"):
        assert name in ARCHITECTURES
        report = check(build(name))
        assert report.passed, str(report)
    report = check(build("cgcnn", head={"pooling": "sites"}))
    assert "sites" in [row.law for row in report.rows]
    assert report.passed, str(report)


@pytest.mark.parametrize(
    ("how", "law"),
    [
        ("first atom", "permutation"),
        ("direction", "rotation"),
        ("handedness", "rotation"),
        ("size", "supercell"),
        ("batch mean", "batch = single"),
        ("mood", "repeatable"),
        ("last edge", "edge order"),
        ("NaN", "finite"),
        ("half", "dtype"),
    ],
)
def test_a_broken_model_fails_the_right_row(how, law):
    report = check(Broken(how))
    assert not report.passed
    assert law in report.failed
    untouched = {"first atom": "rotation", "direction": "permutation", "size": "rotation", "batch mean": "repeatable", "half": "rotation"}
    if how in untouched:
        assert untouched[how] not in report.failed
    assert f"✗ {law}" in str(report)


def test_shipped_trained_and_corrected_models_obey(trained, table):
    assert check("formation-energy").passed
    assert check(trained).passed
    corrected = fit_correction(trained, table, "e")
    report = check(corrected)
    assert report.passed, str(report)
    assert "save and load" in [row.law for row in report.rows]


def test_ones_own_crystals_and_plain_data(model):
    crystal = Crystal.from_fractional([12, 8], [[0, 0, 0], [0.5, 0.5, 0.52]], 4.2 * np.eye(3))
    report = check(model, [crystal])
    plain = report.to_dict()
    assert plain["passed"] is True
    assert {"law", "what", "error", "tolerance", "note", "fatal", "passed"} == set(plain["rows"][0])


def test_the_check_leaves_the_model_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    check(model)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_samples_are_what_they_say():
    found = samples()
    assert len(found) == 8
    assert min(len(c) for c in found) == 1
    assert [c.pbc.sum() for c in found[-3:]] == [2, 0, 0]


def test_what_a_model_refuses_is_left_out_and_told():
    report = check(build("megnet", lone="refused"))
    assert report.passed
    assert "Ar" in report.left_out[0]
    assert "isolated" in str(report)
    with pytest.raises(InputError, match="refuses every structure"):
        check(build("megnet", lone="refused"), [Crystal(["Ar"], [[0, 0, 0]])])


def test_sites_of_an_extensive_quantity_add_up():
    report = check(build("cgcnn", "energy", {"pooling": "sites"}))
    assert "sites" in {row.law for row in report.rows}
    assert report.passed


def test_a_model_with_a_state_is_tried_at_one():
    assert check(build("cgcnn", head={"state": ("temperature",)})).passed
