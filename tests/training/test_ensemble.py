import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from naica.data import CrystalTable
from naica.errors import ConfigError, InputError, RunError
from naica.graphs import GraphSet, GraphSpec, graph
from naica.structure import Crystal
from naica.training import card as cards
from naica.training import load
from naica.training.calibration import sigma, spread
from naica.training.ensemble import lowest

from .conftest import make


@pytest.fixture
def saved(trained, tmp_path):
    return trained.save(tmp_path / "model")


def test_every_kind_of_source_gives_the_same_values(trained, table):
    crystals = [table[k] for k in range(7)]
    expected = trained.predict(crystals).value
    graphs = GraphSet.build(crystals, GraphSpec())
    for source in (tuple(crystals), (c for c in crystals), table.take(np.arange(7)), graphs, graph(crystals)):
        assert trained.predict(source).value == pytest.approx(expected, abs=1e-6)
    assert trained.predict(crystals[3]).value[0] == pytest.approx(expected[3], abs=1e-6)


def test_streams_are_cut_into_portions(trained, table, monkeypatch):
    from naica.training import stream

    whole = trained.predict(table)
    monkeypatch.setattr(stream, "CHUNK_CRYSTALS", 9)
    monkeypatch.setattr(stream, "MAX_EDGES", 100)
    told = []
    cut = trained.predict((c for c in table), progress=lambda done, total: told.append((done, total)))
    assert cut.value == pytest.approx(whole.value, abs=1e-6)
    assert len(cut) == len(cut.warnings) == 80
    assert told[-1] == (80, None)
    assert len(told) > 15


def enclosed_minimum(curve, factors):
    """Lowest value and its factor; at the edge of the scan it counts for nothing, then the unscaled volume does."""
    k = min(range(len(curve)), key=lambda i: curve[i])
    return (curve[factors.index(1.0)], 1.0) if factors[k] in (min(factors), max(factors)) else (curve[k], factors[k])


def test_a_minimum_at_the_edge_of_the_scan_does_not_count():
    factors = np.array([0.8, 0.9, 1.0, 1.1, 1.2])
    values = np.array([[1.0, 5, 3], [2, 4, 2], [3, 3, 1], [4, 2, 2], [5, 1, 3]])
    assert lowest(values, factors).tolist() == [2, 2, 2]
    assert lowest(values + np.array([[0], [-9], [0], [0], [0]]), factors).tolist() == [1, 1, 1]
    assert lowest(values[:2], factors[:2]).tolist() == [0, 1, 1]


def test_the_volume_scan_takes_each_members_minimum_then_the_median(trained, table):
    crystals = [table[k] for k in range(5)]
    factors = (0.8, 0.9, 1.0, 1.2)
    found = trained.predict(crystals, volume_factors=factors)
    with torch.no_grad():
        by_hand = np.array([[m(graph(crystals).scaled(f)).numpy() for f in factors] for m in trained.members])
    expected = [[enclosed_minimum(curve, factors)[0] for curve in member.T] for member in by_hand]
    assert found.members == pytest.approx(np.array(expected), abs=1e-6)
    assert found.value == pytest.approx(np.median(expected, axis=0), abs=1e-6)
    assert found.best_volume == pytest.approx([enclosed_minimum(curve, factors)[1] for curve in np.median(by_hand, axis=0).T])
    high, low = np.percentile(found.members, [75, 25], axis=0)
    assert spread(found.members) == pytest.approx((high - low) / 1.349)
    assert found.sigma == pytest.approx(sigma(found.members, trained.card.calibration))
    alone = trained.predict(crystals, members=1)
    assert alone.members.shape == (1, 5)


def test_scaling_the_batch_is_scaling_the_crystal(trained, table):
    crystal = table[0]
    a = trained.predict(crystal, volume_factors=(1.1,)).value
    b = trained.predict(crystal.scaled(1.1)).value
    assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("factors", [(), (0.0,), (float("nan"),), (9.0,)])
def test_impossible_volumes_and_members_are_refused(trained, table, factors):
    with pytest.raises(ConfigError, match="volume_factors"):
        trained.predict(table[0], volume_factors=factors)
    with pytest.raises(ConfigError, match="this ensemble has 3"):
        trained.predict(table[0], members=4)


def test_what_training_did_not_see_is_said(trained, table):
    odd = Crystal.from_fractional([26, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.3 * (np.ones((3, 3)) - np.eye(3)) / 2)
    wide = table[0].scaled(4.0)
    usual = table[1]
    found = trained.predict([odd, wide, usual]).warnings
    assert any("element Fe was not in the training set" in w for w in found[0])
    assert any("outside of the training range" in w and "Å³/atom" in w for w in found[1])
    assert not any("element" in w or "Å³" in w for w in found[2])


def test_molecules_are_said_to_be_no_crystals(trained, table):
    inside = sorted(trained.card.elements)[0]
    lone, pair = Crystal([inside], [[0, 0, 0]]), Crystal([inside] * 2, [[0, 0, 0], [0, 0, 2.0]])
    found = trained.predict([lone, pair, table[0]]).warnings
    assert any("a lone atom: the training set held crystals only" in w for w in found[0])
    assert any("not periodic in three directions: the training set held crystals only" in w for w in found[1])
    assert not any("crystals" in w for w in found[2])
    assert trained.card.ranges["periodic"] == (1.0, 1.0)
    # an older card does not say it; its range of volumes does
    older = replace(trained, card=replace(trained.card, ranges={k: v for k, v in trained.card.ranges.items() if k != "periodic"}))
    assert older.predict([lone, pair, table[0]]).warnings == found
    mixed = replace(trained, card=replace(trained.card, ranges={**trained.card.ranges, "periodic": (0.0, 1.0)}))
    assert not any("crystals" in w for w in mixed.predict(pair).warnings[0])
    molecules = replace(trained, card=replace(trained.card, ranges={"periodic": (0.0, 0.0)}))
    assert "a crystal: the training set held none" in molecules.predict(table[0]).warnings[0]


def test_wrong_sources_are_refused(trained, table):
    with pytest.raises(InputError, match="cannot predict for str"):
        trained.predict("NaCl.cif")
    with pytest.raises(InputError, match="cannot predict for a int"):
        trained.predict([table[0], 3])
    with pytest.raises(InputError, match="holds no structure"):
        trained.predict([])
    with pytest.raises(InputError, match="the model needs"):
        trained.predict(GraphSet.build([table[0]], GraphSpec("radius", 4.0)))
    on_one_place = Crystal.from_fractional([11, 17], [[0, 0, 0], [0, 0, 0]], 5 * np.eye(3))
    with pytest.raises(InputError):
        trained.predict([table[0], on_one_place])


def test_a_saved_model_is_the_same_model(trained, saved, table):
    again = load(saved)
    assert (again.predict(table).members == trained.predict(table).members).all()
    assert json.loads(again.card.to_json()) == json.loads(trained.card.to_json())
    assert again.card.level == trained.card.level
    assert sorted(p.name for p in saved.iterdir()) == ["card.json", "weights.safetensors"]


def test_half_precision_storage_is_close(trained, table, tmp_path):
    half = load(trained.save(tmp_path / "half", half=True))
    full_size = (trained.save(tmp_path / "full") / "weights.safetensors").stat().st_size
    assert (tmp_path / "half" / "weights.safetensors").stat().st_size < 0.7 * full_size
    assert half.predict(table).value == pytest.approx(trained.predict(table).value, abs=0.01 * trained.target.std)


def test_the_card_tells_the_story(trained):
    card = trained.card
    assert set(card.elements) == {"O", "F", "Na", "Mg", "S", "Cl", "K", "Ca", "Li"}
    assert card.ranges["atoms"] == (2.0, 2.0)
    assert card.ranges["label"][0] < card.ranges["label"][1]
    assert card.data["rows"] == {"train": 50, "val": 15, "test": 15}
    assert card.metrics["test"]["mae"] > 0
    assert len(card.metrics["test"]["member_mae"]) == 3
    assert card.calibration.n == 15
    assert card.training["config"]["epochs"] == 15
    assert [m["seed"] for m in card.training["members"]] == [0, 1, 2]
    assert {"torch", "naica"} <= set(card.versions)


def _edit(folder, **changes):
    path = folder / "card.json"
    raw = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            raw.pop(key)
        else:
            raw[key] = value
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 99}, r"card format 99 .* reads up to \d+: upgrade naica"),
        ({"format": 0}, "format 0, which no naica ever wrote"),
        ({"format": None}, "no format version"),
        ({"head": None}, "incomplete: head missing"),
        ({"surprise": 1}, "unknown entries surprise"),
        ({"architecture": "transformer"}, "cannot build the model: unknown architecture"),
        ({"architecture_config": {"width": 32, "layers": 1}}, "does not fit its card .*wrong shape"),
        ({"architecture_config": {"width": 16, "layers": 2}}, "does not fit its card .*missing"),
        ({"members": 4}, "does not fit its card"),
        ({"target": {"quantity": "luck", "kind": "regression", "mean": 0, "std": 1}}, "does not know"),
    ],
)
def test_cards_that_do_not_fit_are_refused(saved, changes, says):
    _edit(saved, **changes)
    with pytest.raises(InputError, match=says):
        load(saved)


def _from_format_0(old):
    return {**{key: value for key, value in old.items() if key != "net"}, "architecture": old["net"], "format": 1}


def test_older_cards_are_upgraded(saved, table, monkeypatch, trained):
    path = saved / "card.json"
    raw = json.loads(path.read_text())
    raw["format"], raw["net"] = 0, raw.pop("architecture")
    path.write_text(json.dumps(raw))
    monkeypatch.setitem(cards.UPGRADES, 0, _from_format_0)
    assert (load(saved).predict(table).value == trained.predict(table).value).all()


def test_damaged_weights_are_refused(saved, tmp_path):
    weights = saved / "weights.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:4], b"", b"\xff" * 100):
        weights.write_bytes(broken)
        with pytest.raises(InputError, match=r"weights\.safetensors is damaged or no safetensors file"):
            load(saved)
    weights.unlink()
    with pytest.raises(InputError, match="no weights"):
        load(saved)
    (saved / "card.json").write_text("{")
    with pytest.raises(InputError, match="no model card"):
        load(saved)


def test_weights_that_are_not_numbers_are_refused(saved):
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / "weights.safetensors")
    tensors["member1.backbone.embedding.weight"][3, 3] = float("nan")
    save_file(tensors, saved / "weights.safetensors")
    with pytest.raises(InputError, match=r"not finite \(member 1"):
        load(saved)


def test_a_pickle_in_disguise_is_not_opened(saved, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    (saved / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="damaged or no safetensors"):
        load(saved)
    assert not (tmp_path / "owned").exists()


def test_a_folder_that_cannot_be_written(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the model"):
        trained.save(tmp_path / "file" / "model")


def test_unknown_models_get_a_hint():
    with pytest.raises(InputError, match=r"did you mean 'formation-energy'\?"):
        load("formation_energy")
    with pytest.raises(InputError, match="no model"):
        load("/no/such/folder")


def test_the_shipped_model_answers(tmp_path):
    import naica
    from naica.training.zoo import shipped

    folder = shipped()["formation-energy"]
    assert sum(f.stat().st_size for f in folder.iterdir()) < 2 * 1024**2
    salt = Crystal.from_fractional([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 5.64 * np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]))
    found = naica.predict(salt)
    # Materials Project: -2.1 eV/atom
    assert abs(found.value[0] + 2.1) < 0.15
    assert 0 < found.sigma[0] < 0.2
    assert found.unit == "eV/atom"
    assert found.to_dicts()[0]["sigma"] == found.sigma[0]
    assert found.warnings == ((),)
    card = naica.load("formation-energy").card
    assert card.level.functional == "PBE"
    assert "legacy" in card.level.corrections
    assert card.metrics["test"]["n"] == 2208
    assert naica.predict(CrystalTable.from_crystals(make(3)), "formation-energy").value.shape == (3,)
