"""The audit finds nothing where nothing is wrong and each thing that is; second opinions and trails say where numbers are from."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from naica.discover.audit import audit
from naica.discover.config import parse_config
from naica.discover.ledger import Ledger
from naica.discover.opinion import ask
from naica.discover.oracle import make_oracle
from naica.discover.proposals import Proposal
from naica.discover.provenance import versions
from naica.discover.recipes import Recipe, realise
from naica.discover.screens import ScreenConfig, screen
from naica.discover.screens.source import ledger_table
from naica.discover.summary import summary
from naica.errors import InputError, RunError
from naica.structure import Crystal
from naica.structure.prototypes import reference_structure

SAME = "ase.calculators.emt:EMT"
CU, AU = 29, 79


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of one round in Cu–Au, its calls by EMT, as the loop would have left it."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    config = parse_config({"elements": ["Cu", "Au"], "rounds": 1, "oracle": {"name": "emt", "workers": 0}})
    ledger = Ledger(folder)
    for key, value in (("config", config.model_dump_json()), ("name", "alloy"), ("versions", json.dumps(versions())), ("started", "0")):
        ledger.set_meta(key, value)
    oracle = make_oracle("emt")

    def call(key: str, crystal: Crystal):
        from dataclasses import replace

        return replace(oracle.evaluate([crystal])[0], key=key)

    ledger.record_calls([call(f"start-{s}", reference_structure(s)) for s in ("Cu", "Au")], 0)
    recipes = [
        Recipe("prototype:copper-gold", ((1, CU), (2, AU))),
        Recipe("prototype:copper-gold-3", ((1, CU), (2, AU))),
        Recipe("prototype:cesium-chloride", ((1, CU), (2, AU))),
    ]
    crystals = {r.key: realise(r, {}) for r in recipes}
    proposals = [
        Proposal(r.key, r.pack(), "prototype", r.parent, crystals[r.key].formula, r.name, f"{r.name}|{crystals[r.key].formula}")
        for r in recipes
    ]
    with ledger.write() as db:
        ledger.finish(db, 0, "compute", {"calls": 2}, 1.0)
        ledger.add_candidates(db, proposals, 1)
        db.execute("update candidates set status = 'picked', arm = 'exploit', picked = 1, value = -0.05, sigma = 0.02, volume = 1.0")
        for stage, data in (
            ("learn", {"labels": 2}),
            ("propose", {"proposed": 3, "new": 3}),
            ("judge", {"scored": 3}),
            ("pick", {"picked": 3}),
        ):
            ledger.finish(db, 1, stage, data, 0.1)
    ledger.record_calls([call(key, crystal) for key, crystal in crystals.items()], 1)
    with ledger.write() as db:
        ledger.finish(db, 1, "compute", {"calls": 3}, 1.0)
    ledger.close()
    (folder / "models" / "round-01").mkdir(parents=True)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def spoil(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        for statement in statements:
            db.execute(statement)


def wrong(folder: Path, **options) -> dict[str, list[str]]:
    return {c.name: c.wrong for c in audit(folder, **{"recompute": 0, **options}) if c.wrong}


def test_a_sound_ledger_passes_every_check(made: Path) -> None:
    checks = {c.name: c for c in audit(made, recompute=5)}
    assert {name: c.wrong for name, c in checks.items() if c.wrong} == {}
    assert checks["structures"].looked_at >= 5
    assert checks["energies"].looked_at == 5
    assert checks["hull"].looked_at == 5
    assert "linear programme" in checks["hull"].verified
    assert checks["lineage"].looked_at == 3


@pytest.mark.parametrize(
    ("statement", "where", "said"),
    [
        ("update calls set energy = energy + 0.3 where round = 1", "energies", "now"),
        ("update calls set energy = null where key like 'start-Cu'", "calls", "converged with energy None"),
        ("delete from structures where hash = (select structure from calls where round = 1 limit 1)", "structures", "is missing"),
        (
            "update structures set hash = 'feed' where hash = (select structure from calls where key = 'start-Au')",
            "structures",
            "content of",
        ),
        ("delete from calls where key = (select key from calls where round = 1 limit 1)", "picks", "never computed"),
        ("update candidates set decoration = 'one'", "paid twice", "computed twice"),
        ("update candidates set formula = 'CuAu2'", "lineage", "the ledger says CuAu2"),
        ("update candidates set recipe = x'ffff'", "lineage", "cannot be read"),
        ("update calls set level = 'PBE' where round = 0", "level of theory", "2 levels"),
        ("update stages set data = '{\"picked\": 7}' where stage = 'pick'", "stages", "recorded 7 picks"),
        ("delete from stages where stage = 'judge'", "stages", "without the stage judge"),
        ("update candidates set status = 'failed'", "picks", "the candidate failed"),
        ("delete from meta where key = 'versions'", "versions", "no versions"),
    ],
)
def test_each_damage_is_seen(copy: Path, statement: str, where: str, said: str) -> None:
    spoil(copy, statement)
    found = wrong(copy, recompute=5 if where == "energies" else 0)
    assert where in found
    assert any(said in text for text in found[where]), found


def test_results_that_wait_in_the_spool_are_told(copy: Path) -> None:
    (copy / "spool").mkdir()
    (copy / "spool" / "x.json").write_text('{"key": "x"}')
    (copy / "spool" / "torn.json").write_text("{")
    check = next(c for c in audit(copy, recompute=0) if c.name == "spool")
    assert any("the next start takes it" in text for text in check.remarks)
    assert any("torn.json cannot be read" in text for text in check.wrong)


def test_no_campaign_no_audit(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no campaign"):
        audit(tmp_path)


# --- trails ----------------------------------------------------------------------------------------------------------------------------
def test_every_number_of_a_find_goes_back_to_its_call(made: Path) -> None:
    story = summary(made)
    assert story["finds"], "EMT orders copper and gold"
    campaign = story["trail"]["campaign"]
    assert "EMT" in campaign["level"]
    assert campaign["versions"]["naica"]
    ledger = Ledger(made)
    for find in story["finds"]:
        told = story["trail"]["finds"][find["id"]]
        n = told["structure"]["n_atoms"]
        parts = sum(p["n"] * campaign["references"][s]["energy_per_atom"] for s, p in told["energy"]["references"].items())
        assert (told["energy"]["total"] - parts) / n == pytest.approx(find["formation_energy"])
        assert ledger.structure(told["structure"]["hash"]).formula == find["formula"]
        recipe = Recipe.unpack(bytes.fromhex(told["recipe"]["packed"]))
        assert recipe.key == told["recipe"]["key"] == find["id"]
        assert told["call"]["status"] == "converged"
        mixture = sum(c["fraction"] * c["formation_energy"] for c in told["hull"]["competing"])
        assert find["formation_energy"] - mixture == pytest.approx(find["separation_energy"], abs=1e-9)
    ledger.close()
    json.dumps(story["trail"])


# --- second opinions ---------------------------------------------------------------------------------------------------------------------
def test_the_same_physics_under_another_name_agrees(copy: Path) -> None:
    told = ask(copy, SAME)
    assert told["first"] != told["second"]
    assert (told["agree"], told["of"]) == (len(told["finds"]), len(told["finds"]))
    assert told["of"] > 0
    assert told["mad"] == pytest.approx(0.0, abs=1e-3)
    for find in told["finds"]:
        assert find["second_separation"] == pytest.approx(find["first_separation"], abs=2e-3)
    assert summary(copy, structures=False)["opinions"][0]["agree"] == told["agree"]
    assert wrong(copy) == {}, "opinions do not disturb the ledger"


def test_a_second_opinion_is_computed_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from naica.discover.oracle import CalculatorOracle

    asked = []
    real = CalculatorOracle.evaluate

    def counted(self, crystals):
        asked.extend(crystals)
        return real(self, crystals)

    monkeypatch.setattr(CalculatorOracle, "evaluate", counted)
    ask(copy, SAME)
    first = len(asked)
    assert first >= 4
    spoil(copy, "delete from opinions where key = (select key from opinions where key not like 'start%' limit 1)")
    ask(copy, SAME)
    assert len(asked) == first + 1


def test_disagreement_and_silence_are_told(copy: Path) -> None:
    ask(copy, SAME)
    finds = summary(copy, structures=False)["finds"]
    spoil(copy, f"update opinions set energy = energy + 1 where key = '{finds[0]['id']}'")
    verdict = summary(copy, structures=False)["opinions"][0]
    assert {f["id"]: f["verdict"] for f in verdict["finds"]}[finds[0]["id"]] == "only the first"
    assert verdict["agree"] < verdict["of"]
    spoil(copy, "update opinions set status = 'failed', reason = 'no luck' where key like 'start-Au'")
    assert summary(copy, structures=False)["opinions"][0]["missing"] == ["Au"]
    with pytest.raises(RunError, match=r"no energy for Au.*no luck"):
        ask(copy, SAME)


def test_a_second_opinion_needs_another_level(copy: Path) -> None:
    with pytest.raises(InputError, match="another level"):
        ask(copy, "emt")


# --- the ledger as a table ---------------------------------------------------------------------------------------------------------------
def test_a_screen_over_a_ledger(made: Path) -> None:
    table = ledger_table(made)
    assert len(table) == 5
    assert table.labels["formation_energy_per_atom"].level is not None
    config = ScreenConfig(rule=[{"value": "energy_above_hull", "max": 0.001, "unit": "eV/atom"}, {"value": "round", "min": 1}])
    found = screen(config, table)
    assert set(found.table.ids) == {f["id"] for f in summary(made, structures=False)["finds"]}
    assert "EMT" in found.levels["energy_above_hull"]
