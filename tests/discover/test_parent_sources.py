"""A campaign whose candidates come from files, tables, a first look at everything, and compositions first; killed and resumed."""

import json
from pathlib import Path

import numpy as np
import pytest

from naica.data import CrystalTable, Label, Level
from naica.discover.campaign import Campaign
from naica.discover.compositions import OxidationRule, stand_in
from naica.discover.config import parse_config
from naica.discover.judge import HullJudge
from naica.discover.ledger import Entry, Ledger
from naica.errors import ConfigError
from naica.structure import Crystal
from naica.structure.prototypes import FAMILIES, PROTOTYPES, prototype
from naica.training.config import TrainConfig
from naica.training.run import train

BASE = {
    "elements": ["Cu", "Au"],
    "rounds": 1,
    "seed": 3,
    "generate": {"n_elements": [2], "balanced": False, "substitution": False, "saps": False, "prototypes": False, "max_atoms": 8},
    "filter": {"quick_limit": 5.0, "limit": 5.0, "volumes": 3},
    "pick": {"per_round": 4},
    "oracle": {"name": "emt", "workers": 0},
}


def campaign(folder: Path, **generate: object) -> Campaign:
    return Campaign(parse_config({**BASE, "generate": {**BASE["generate"], **generate}}), folder)


def candidates(folder: Path) -> list[tuple]:
    return Ledger(folder).rows("select origin, status, formula, parent, coalesce(reason, ''), key from candidates order by key")


def ordered(a: str, b: str, length: float, count: int = 1) -> Crystal:
    """CsCl, or L1_2 with three of b."""
    if count == 1:
        return Crystal.from_fractional([a, b], [[0, 0, 0], [0.5] * 3], length * np.eye(3))
    return Crystal.from_fractional([a, b, b, b], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], length * np.eye(3))


def test_files_with_duplicates_and_nonsense(tmp_path: Path) -> None:
    good, twin = ordered("Cu", "Au", 3.06), ordered("Au", "Cu", 3.9, 3)
    pure = Crystal.from_fractional(["Cu"], [[0, 0, 0]], 2.6 * np.eye(3))
    rows = [pure, good, good, good.scaled(1.02), twin, ordered("Cu", "Ag", 3.1), good.scaled(20.0), good.scaled(0.02)]
    raw = [{"numbers": c.numbers.tolist(), "cell": c.cell.tolist(), "positions": c.positions.tolist()} for c in rows]
    (tmp_path / "made.jsonl").write_text("\n".join([*map(json.dumps, raw), "{nonsense"]) + "\n")
    outcome = campaign(tmp_path / "run", files=[str(tmp_path / "made.jsonl")]).run()
    found = candidates(tmp_path / "run")
    kept = [row for row in found if row[1] != "rejected"]
    assert sorted(row[2] for row in kept) == ["Cu3Au", "CuAu"]
    assert {row[0] for row in found} == {"generated"}
    assert all(row[3].startswith("file:made.jsonl#") for row in found)
    reasons = " | ".join(row[4] for row in found if row[1] == "rejected")
    for text in (
        "same atoms as an earlier",
        "same symmetry and sites",
        "holds Ag",
        "Å³ per atom",
        "JSONDecodeError",
        "number of elements 1; the campaign takes 2",
    ):
        assert text in reasons
    assert outcome.calls == 2 + 2
    told = Ledger(tmp_path / "run").stage(1, "propose")
    assert told is not None
    assert next(iter(told["sources"].values()))["read"] == 9
    with pytest.raises(ConfigError, match="no such file"):
        campaign(tmp_path / "none", files=["missing.cif"]).run()


def composition_network(folder: Path) -> Path:
    """A small network that has seen a few alloys: formation energies of −0.1 eV/atom and less."""
    formulas = [f"Cu{a}Au{b}" for a in range(1, 9) for b in range(1, 9)]
    label = Label.of("formation_energy_per_atom", Level("EMT", code="test"))
    energies = np.array([-0.1 - 0.002 * k for k in range(len(formulas))])
    table = CrystalTable.from_crystals([stand_in(f) for f in formulas], {"e": energies}, {"e": label}, formulas)
    config = TrainConfig("gnome-composition", {"width": 8, "steps": 2}, epochs=2, tensorboard=False)
    return train(table, "e", config, progress=False, out=folder).save(folder / "named")


def test_compositions_first_and_a_kill_in_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import naica.potential.relax as home

    options = {
        "compositions": True, "max_amount": 3, "compositions_per_round": 2, "near_hull": 5.0,
        "composition_model": str(composition_network(tmp_path / "net")),
        "random_search": {"structures": 6, "least_completed": 2, "max_atoms": 4, "block": 3, "fmax": 0.2, "keep": 2},
    }  # fmt: skip
    whole = campaign(tmp_path / "whole", **options)
    assert whole.run().why == "finished"
    found = candidates(tmp_path / "whole")
    told = Ledger(tmp_path / "whole").stage(1, "propose")["sources"]["compositions"]
    assert told["structures"] == 12
    assert told["near the hull"] == 2
    assert {row[0] for row in found} == {"random"}
    assert all(row[3] == f"composition:{row[2]}" for row in found)
    assert any(row[1] == "computed" for row in found)

    real, asked = home.relax, []

    def dies(crystals, model, fmax, *args, **more):
        if fmax == 0.2:
            if len(asked) == 3:
                raise KeyboardInterrupt
            asked.append(len(crystals))
        return real(crystals, model, fmax, *args, **more)

    monkeypatch.setattr(home, "relax", dies)
    with pytest.raises(KeyboardInterrupt):
        campaign(tmp_path / "killed", **options).run()
    monkeypatch.setattr(home, "relax", lambda c, m, f, *a, **k: (asked.append(len(c)) if f == 0.2 else None) or real(c, m, f, *a, **k))
    assert campaign(tmp_path / "killed", **options).run().why == "finished"
    # four blocks of three in all: none was relaxed twice
    assert asked == [3, 3, 3, 3]
    again = candidates(tmp_path / "killed")
    assert sorted(row[2:5] for row in again) == sorted(row[2:5] for row in found)


def test_too_few_completed_is_a_row_with_the_reason(tmp_path: Path) -> None:
    options = {
        "compositions": True, "max_amount": 1, "compositions_per_round": 1, "near_hull": 5.0, "prototypes": True,
        "composition_model": str(composition_network(tmp_path / "net")),
        "random_search": {"structures": 3, "least_completed": 3, "max_atoms": 2, "steps": 1, "fmax": 1e-4},
    }  # fmt: skip
    campaign(tmp_path / "run", **options).run()
    rejected = [row for row in candidates(tmp_path / "run") if row[0] == "random"]
    assert [(row[1], row[2]) for row in rejected] == [("rejected", "CuAu")]
    assert "of 3 random structures completed; 3 are needed" in rejected[0][4]


def test_parents_from_a_table_and_a_first_look(tmp_path: Path) -> None:
    ions = {"elements": ["Mg", "O", "S"], "rounds": 1}
    salt = PROTOTYPES["rocksalt"].crystal()
    table = CrystalTable.from_crystals([salt, PROTOTYPES["zincblende"].crystal(), PROTOTYPES["laves-C15"].crystal()])
    table.write(tmp_path / "parents.parquet")
    wants = {
        "n_elements": [2],
        "prototypes": False,
        "saps": False,
        "substitution_threshold": 1e-5,
        "parents": [str(tmp_path / "parents.parquet")],
    }
    from naica.discover.sources import Sources

    plain = Sources(parse_config({**ions, "generate": wants}), None, None, frozenset(), {})
    offers = list(plain.offers(1))
    assert {"MgO", "MgS"} <= {o.structure and o.recipe and _made(o).formula for o in offers}
    assert plain.counts["tables"]["dropped: no oxidation states can be assigned"] == 1

    looked = Sources(parse_config({**ions, "generate": {**wants, "first_look": 3, "prototypes": True}}), tmp_path, None, frozenset(), {})
    best = list(looked.offers(1))
    assert len(best) == 3
    assert looked.counts["first look"]["kept"] == 3
    assert all(_made(o).formula in ("MgO", "MgS", "MgO2", "MgS2", "MgSO3", "SO2", "SO3", "Mg2S", "MgSO4") for o in best)
    # with a hull of its own, a campaign ranks by the distance from it
    symbols = ("Mg", "O", "S")
    pure = [Crystal.from_fractional([s], [[0, 0, 0]], 2.6 * np.eye(3)) for s in symbols]
    judge = HullJudge([Entry(s, 0, 0.0, c, 0.0) for s, c in zip(symbols, pure, strict=True)], symbols, 0.001)
    by_hull = Sources(parse_config({**ions, "generate": {**wants, "first_look": 50}}), tmp_path / "hull", judge, frozenset({"MgO"}), {})
    assert "MgO" not in {_made(o).formula for o in by_hull.offers(1)}
    assert by_hull.counts["first look"]["known"] > 0
    with pytest.raises(ConfigError, match="cannot be used"):
        list(Sources(parse_config({**ions, "generate": {**wants, "parents": ["no-such-set"]}}), None, None, frozenset(), {}).offers(1))


def _made(offer):
    from naica.discover.recipes import realise

    return realise(offer.recipe, {} if offer.structure is None else {offer.recipe.parent: offer.structure})


def test_families_are_what_their_names_say() -> None:
    from pymatgen.analysis.dimensionality import get_dimensionality_larsen
    from pymatgen.analysis.graphs import StructureGraph
    from pymatgen.analysis.local_env import JmolNN

    assert {name for names in FAMILIES.values() for name in names} <= set(PROTOTYPES)
    for name in ("cadmium-iodide", "molybdenite", "bismuth-iodide", "hexagonal-boron-nitride", "graphite", "brucite"):
        structure = prototype(name).crystal().to_pymatgen()
        assert "layered" in prototype(name).families
        assert get_dimensionality_larsen(StructureGraph.from_local_env_strategy(structure, JmolNN())) == 2
    for name in FAMILIES["framework"]:
        assert "layered" not in prototype(name).families
    assert prototype("elpasolite").families == {"perovskite"}


def test_old_files_of_campaigns_still_hold() -> None:
    plain = parse_config({"elements": ["Mg", "O"]})
    assert not plain.generate.compositions
    assert not plain.generate.first_look
    assert plain.generate.files == plain.generate.parents == ()
    assert OxidationRule(plain.generate.states, plain.generate.relaxed) == OxidationRule()
