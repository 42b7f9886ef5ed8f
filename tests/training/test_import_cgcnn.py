"""The published CGCNN checkpoints: read safely, reproduced to 1e-3, their padding quirk only on request."""

import pickle
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from naica.data.registry import dataset
from naica.errors import InputError, NaicaError
from naica.structure import Crystal
from naica.structure.io import read
from naica.training import load
from naica.training.import_cgcnn import import_cgcnn

# predictions of the released code (float32) on the ten CIFs it ships with
COLUMNS = {
    "formation-energy-per-atom": ("formation_energy_per_atom", "eV/atom"),
    "band-gap": ("band_gap", "eV"),
    "efermi": ("fermi_energy", "eV"),
    "final-energy-per-atom": ("energy_per_atom", "eV/atom"),
    "bulk-moduli": ("log_bulk_modulus", "log10(GPa)"),
    "shear-moduli": ("log_shear_modulus", "log10(GPa)"),
    "poisson-ratio": ("poisson_ratio", "1"),
    "semi-metal-classification": ("is_metal", ""),
}
REFERENCE = {
    "1000041": (-2.1133, 4.7741, -0.6838, -3.3883, 1.3808, 0.9818, 0.3125, 0.0000),
    "1000050": (-2.1395, 4.3820, 0.3649, -3.2870, 1.2745, 0.9500, 0.2616, 0.0000),
    "1101051": (-1.1314, 2.0293, 1.9347, -3.5113, 1.8491, 1.5264, 0.2828, 0.0158),
    "1507756": (-3.5268, 1.9110, 2.8408, -8.0577, 2.0781, 1.8947, 0.2499, 0.0280),
    "7206075": (-3.3803, 2.6892, 2.2210, -8.8911, 2.2460, 1.6967, 0.3440, 0.2118),
    "9000046": (0.0052, 1.7813, 0.1850, -9.1754, 2.0832, 1.9970, 0.2060, 0.7432),
    "9009743": (-2.2412, 4.9817, -0.5166, -3.2381, 1.2010, 0.7691, 0.2817, 0.0000),
    "9011050": (0.0181, 1.5326, 2.6271, -4.5260, 1.6139, 1.4681, 0.2306, 0.6765),
    "9011998": (0.0906, 0.9554, 4.2369, -5.4018, 1.9132, 1.7246, 0.2522, 0.3305),
    "9012304": (0.4017, 2.0029, 9.2066, -8.3404, 2.1957, 2.2025, 0.2295, 0.9352),
}


def published(file: str) -> Path:
    try:
        return dataset("cgcnn_pretrained").path(file)
    except NaicaError as error:
        pytest.skip(f"the published checkpoints are not on this machine: {error}")


@cache
def samples() -> list[Crystal]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [read(published(f"{name}.cif")) for name in REFERENCE]


@pytest.mark.parametrize("padding", ["correct", "original"])
@pytest.mark.parametrize("column", list(COLUMNS))
def test_reproduces_the_released_code(column, padding):
    model = import_cgcnn(published(f"{column}.pth.tar"), padding=padding)
    prediction = model.predict(samples())
    assert (prediction.quantity, prediction.unit) == COLUMNS[column]
    expected = [row[list(COLUMNS).index(column)] for row in REFERENCE.values()]
    np.testing.assert_allclose(prediction.value, expected, atol=2e-4)


def test_parameter_count_is_the_published_one():
    model = import_cgcnn(published("formation-energy-per-atom.pth.tar")).members[0]
    count = sum(p.numel() for p in model.parameters())
    table = model.backbone.embedding.weight.numel()
    assert count - table + 92 * 64 + 64 == 96_641


BOX = np.eye(3) * 12.0
NA_FIRST = Crystal(["Na", "Cl"], [[0, 0, 0], [0, 0, 2.4]], BOX)
CL_FIRST = Crystal(["Cl", "Na"], [[0, 0, 2.4], [0, 0, 0]], BOX)
LONE = Crystal(["Na"], [[0, 0, 0]], np.eye(3) * 9.0)


def test_padding_quirk_is_there_on_request_only():
    file = published("formation-energy-per-atom.pth.tar")
    released = import_cgcnn(file, padding="original").predict([NA_FIRST, CL_FIRST, LONE]).value
    np.testing.assert_allclose(released, [-1.334, -2.343, 0.056], atol=1e-3)
    ours = import_cgcnn(file).predict([NA_FIRST, CL_FIRST]).value
    assert ours[0] == pytest.approx(ours[1], abs=1e-5)


def test_invariances_with_published_weights():
    model = import_cgcnn(published("formation-energy-per-atom.pth.tar"))
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for crystal in samples()[:5]:
        moved = crystal.replace(positions=crystal.positions @ turn.T, cell=crystal.cell @ turn.T)
        others = [crystal.supercell((2, 1, 1)), moved, crystal.replace(numbers=crystal.numbers[::-1], positions=crystal.positions[::-1])]
        np.testing.assert_allclose(model.predict(others).value, model.predict([crystal]).value[0], atol=5e-6)


def test_saved_and_loaded_is_the_same(tmp_path):
    model = import_cgcnn(published("band-gap.pth.tar"), padding="original")
    again = load(model.save(tmp_path / "gap"))
    np.testing.assert_array_equal(again.predict(samples()).value, model.predict(samples()).value)
    assert again.card.architecture_config["padding"] == "original"
    assert again.card.metrics["val"]["mae"] == pytest.approx(0.369, abs=1e-3)


def test_elements_without_features_are_warned_about():
    model = import_cgcnn(published("formation-energy-per-atom.pth.tar"))
    prediction = model.predict([Crystal.from_fractional(["Lr", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 4)])
    assert "Lr" in prediction.warnings[0][0]


# --- bad files ---------------------------------------------------------------------------------------------------------------
class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    file = tmp_path / "evil.pth.tar"
    torch.save({"state_dict": {}, "args": Evil()}, file)
    with pytest.raises(InputError, match="holds more than numbers"):
        import_cgcnn(file)
    file.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(InputError):
        import_cgcnn(file)
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken zip"])
def test_broken_files_name_themselves(tmp_path, content):
    file = tmp_path / "broken.pth.tar"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.pth\.tar"):
        import_cgcnn(file)
    with pytest.raises(InputError, match="no such file"):
        import_cgcnn(tmp_path / "absent")


def small_checkpoint(**changes):
    """A checkpoint like those of the released script, 8 features wide, with random weights."""
    torch.manual_seed(0)
    widths = {"embedding": (8, 3), "convs.0.fc_full": (16, 57), "conv_to_fc": (6, 8), "fcs.0": (6, 6), "fc_out": (1, 6)}
    state = {}
    for name, (out, inputs) in widths.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(out, inputs), torch.randn(out)
    for name, width in (("bn1", 16), ("bn2", 8)):
        state |= {f"convs.0.{name}.{part}": torch.rand(width) + 0.5 for part in ("weight", "bias", "running_mean", "running_var")}
    state |= changes.pop("state", {})
    for key in changes.pop("without", ()):
        del state[key]
    return {"state_dict": state, "normalizer": {"mean": 1.0, "std": 2.0}, "epoch": 3, "args": {}, **changes}


@pytest.fixture
def features(tmp_path):
    (tmp_path / "atom_init.json").write_text('{"11": [1, 0, 0], "17": [0, 1, 1]}')
    return tmp_path


def test_own_checkpoint_with_two_hidden_layers(features):
    torch.save(small_checkpoint(), features / "own.pth.tar")
    with pytest.raises(InputError, match="pass quantity="):
        import_cgcnn(features / "own.pth.tar")
    model = import_cgcnn(features / "own.pth.tar", quantity="band_gap")
    assert model.card.elements == ("Na", "Cl")
    state = small_checkpoint()["state_dict"]
    expected = state["embedding.weight"] @ torch.tensor([0.0, 1.0, 1.0]) + state["embedding.bias"]
    torch.testing.assert_close(model.members[0].backbone.embedding.weight[17].detach(), expected)
    assert np.isfinite(model.predict([NA_FIRST]).value).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ("convs.0.bn2.running_var",)}, "missing convs.0.bn2.running_var"),
        ({"without": ("embedding.weight",)}, "embedding.weight missing"),
        ({"state": {"gate.weight": torch.ones(1)}}, "unknown gate.weight"),
        ({"state": {"fc_out.bias": torch.ones(3)}}, "fc_out.bias is"),
        ({"state": {"fc_out.bias": torch.tensor([float("nan")])}}, "not finite"),
        ({"normalizer": {}}, "no normalizer"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(features, changes, message):
    torch.save(small_checkpoint(**changes), features / "own.pth.tar")
    with pytest.raises(InputError, match=message):
        import_cgcnn(features / "own.pth.tar", quantity="band_gap")


def test_element_features_must_fit(features):
    torch.save(small_checkpoint(), features / "own.pth.tar")
    (features / "other.json").write_text('{"11": [1, 0]}')
    with pytest.raises(InputError, match="element 11 has 2 features; the checkpoint was trained with 3"):
        import_cgcnn(features / "own.pth.tar", quantity="band_gap", atom_features=features / "other.json")
    (features / "other.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="no file of element features"):
        import_cgcnn(features / "own.pth.tar", quantity="band_gap", atom_features=features / "other.json")
