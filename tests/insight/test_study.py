import csv
import json

import numpy as np
import pytest

from naica.data import CrystalTable, Label, Level
from naica.errors import InputError
from naica.insight.rules import written
from naica.insight.study import StudySettings, default_training, study
from naica.insight.study_files import page, remarks, write_study
from naica.structure import Crystal
from naica.structure.elements import element
from naica.training.config import TrainConfig

PLACES = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
ELEMENTS = ["Li", "Na", "K", "Mg", "Ca", "Sr", "Ti", "Zr", "V", "Nb", "Al", "Ga"]
WORTH = {e: (element(e).group - 7) ** 2 / 60 for e in ELEMENTS}


@pytest.fixture(scope="module")
def table():
    """Perovskites whose label is what stands on B, and a little of what stands on A."""
    pairs = [(a, b) for a in ELEMENTS for b in ELEMENTS]
    labels = [WORTH[b] + 0.1 * WORTH[a] for a, b in pairs]
    crystals = [Crystal([element(a).number, element(b).number, 8, 8, 8], PLACES * 4.0, np.eye(3) * 4.0) for a, b in pairs]
    label = {"e": Label.of("formation_energy_per_atom", Level("PBE"))}
    names = [f"{a}{b}O3" for a, b in pairs]
    table = CrystalTable.from_crystals(crystals, {"e": np.array(labels)}, label, names)
    return table.with_column("A", [a for a, _ in pairs]).with_column("B", [b for _, b in pairs])


@pytest.fixture(scope="module")
def small():
    settings = {**default_training(epochs=10, members=2).to_dict(), "batch_size": 8, "learning_rate": 0.02, "ema": 0.9}
    return TrainConfig.from_dict({**settings, "architecture_config": {"width": 16, "layers": 1, "atoms": "described"}})


def means(result):
    return [(one.kind, c.element, c.mean) for one in result.maps for c in one.contributions]


SETTINGS = StudySettings(threshold=0.3, fractions=(0.6, 0.1, 0.3), min_share=0.05)


@pytest.fixture(scope="module")
def found(table, small, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    beside = {"hand-made": written({"A": "groups 13-15", "B": "groups 4-6"}, ELEMENTS)}
    return study(table, "e", out, SETTINGS, small, beside=beside, progress=False), out


def test_sites_add_up_and_the_map_follows_what_was_put_in(found):
    result, _ = found
    assert result.exactness < 1e-4
    of_b = next(m for m in result.maps if m.kind == "B")
    names = [c.element for c in of_b.contributions]
    assert np.corrcoef([c.mean for c in of_b.contributions], [WORTH[n] for n in names])[0, 1] > 0.9
    assert of_b.with_labels > 0.9
    assert of_b.between_networks > 0.9
    assert set(of_b.spread) == set(names)
    assert {m.kind for m in result.maps} == set("ABX")
    assert sum(c.crystals for c in of_b.contributions) == result.rows["held out"]


def test_the_rule_is_found_and_holds(found):
    result, _ = found
    rule = result.mined.best.rule
    assert rule.conditions["B"].elements <= {e for e in ELEMENTS if WORTH[e] < 0.3}
    assert result.rules["mined"][1].enrichment.low > 1
    assert result.rules["mined"][0] == result.mined.best


def test_held_out_labels_have_no_part_in_the_rule(table, tmp_path):
    """They may be anything: networks, map and rule stay the same, only the rule's success changes."""
    from naica.data.splits import split

    brief = TrainConfig.from_dict({**default_training(1, 1).to_dict(), "architecture_config": {"width": 4, "layers": 1}})
    held = split(table, "composition", SETTINGS.fractions, SETTINGS.seed).test
    spoiled = np.array(table.column("e"))
    spoiled[held] = np.random.default_rng(0).permutation(spoiled[held])
    other = table.with_column("e", spoiled, table.labels["e"])
    true, false = (study(t, "e", tmp_path / str(k), SETTINGS, brief, progress=False) for k, t in enumerate((table, other)))
    assert true.mined == false.mined
    assert means(true) == means(false)
    assert true.rules["mined"][0] == false.rules["mined"][0]
    assert true.rules["mined"][1].hits > false.rules["mined"][1].hits


def test_a_second_run_goes_on_where_the_first_ended(found, table, small):
    result, out = found
    written_at = (out / "member-0" / "state.pt").stat().st_mtime_ns
    again = study(table, "e", out, SETTINGS, small, progress=False)
    assert (out / "member-0" / "state.pt").stat().st_mtime_ns == written_at
    assert means(again) == means(result)
    assert again.mined == result.mined


def test_what_is_written(found, tmp_path):
    result, _ = found
    files = {p.name for p in write_study(result, tmp_path)}
    assert files == {"elements.csv", "rules.csv", "study.html", *(f"{k}.{e}" for k in "ABX" for e in ("png", "svg"))}
    rows = list(csv.DictReader((tmp_path / "elements.csv").open()))
    assert {r["site"] for r in rows} == set("ABX")
    assert all(r["unit"] == "eV per site" for r in rows)
    assert (tmp_path / "B.png").read_bytes()[:4] == b"\x89PNG"
    shown = page(result)
    assert "rules were tried" in shown
    assert "hand-made" in shown
    assert "<script" not in shown
    assert any("largest miss" in line for line in remarks(result))
    json.dumps([r["enrichment"] for r in csv.DictReader((tmp_path / "rules.csv").open())])


def test_what_cannot_be_studied_is_refused(table, small, tmp_path, found):
    from naica.training import load

    with pytest.raises(InputError, match="no column 'C'"):
        study(table, "e", tmp_path, StudySettings(columns=("A", "C")), small, progress=False)
    with pytest.raises(InputError, match=r"head\.pooling is 'mean'"):
        study(table, "e", tmp_path, SETTINGS, TrainConfig.from_dict({"head": {"pooling": "mean"}}), progress=False)
    other, model = StudySettings(threshold=0.3, seed=1), load(str(found[1] / "model"))
    with pytest.raises(InputError, match="learned from other rows"):
        study(table, "e", tmp_path, other, small, model=model, progress=False)


def test_a_model_of_the_same_rows_is_taken(found, table, small, tmp_path):
    from naica.training import load

    again = study(table, "e", tmp_path, SETTINGS, small, model=load(str(found[1] / "model")), progress=False)
    assert not any(tmp_path.iterdir())
    assert means(again) == means(found[0])
