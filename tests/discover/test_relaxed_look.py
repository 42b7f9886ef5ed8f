"""The second look: relaxing with a potential before judging, its translation of energies, and a campaign that is killed in it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.discover.test_campaign import ALLOY

from naica.discover.campaign import Campaign
from naica.discover.config import Filter, parse_config
from naica.discover.filter import Scores
from naica.discover.ledger import Ledger
from naica.discover.relaxed_look import Guess, RelaxedLook, judged_again, relax_some, translation
from naica.discover.summary import summary
from naica.errors import ConfigError, MissingPart
from naica.structure import Crystal

FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def alloy(symbols: list[str], a: float = 3.8) -> Crystal:
    return Crystal.from_fractional(symbols, FCC, np.eye(3) * a)


@dataclass(frozen=True)
class Line:
    """A judge to whom the label is the distance."""

    threshold: float = 0.0

    def distance(self, formulas, labels):
        return np.asarray(labels, dtype=float)

    def labels(self, entries):
        return np.zeros(len(entries))


class ByVolume:
    """A model that calls a crystal worse the further it is from 12 Å³ per atom."""

    def predict(self, crystals, volume_factors=(1.0,), members=None):
        @dataclass
        class Seen:
            value: np.ndarray
            sigma: np.ndarray

        value = np.array([abs(c.volume / len(c) - 12.0) / 10 for c in crystals])
        return Seen(value, np.full(len(crystals), 0.1))


def scores(n: int, distance: float) -> Scores:
    full = np.full(n, distance)
    return Scores(full, full.copy(), np.full(n, 0.1), full.copy(), np.full(n, 0.5), np.ones(n))


def test_relaxing_some_says_what_became_of_each() -> None:
    config = Filter(relax_with="emt", relax_fmax=0.05, relax_steps=60)
    good, foreign = relax_some([alloy(["Cu"] * 4, 3.9), alloy(["Mg"] * 4, 4.5)], config)
    assert good.usable
    assert good.status == "converged"
    assert good.crystal is not None
    assert good.crystal.volume / 4 == pytest.approx(11.6, abs=0.3)
    assert not foreign.usable
    assert "does not know Mg" in foreign.reason
    (short,) = relax_some([alloy(["Cu", "Cu", "Cu", "Au"], 4.6)], config.model_copy(update={"relax_steps": 1}))
    assert short.status == "not converged"
    assert short.usable
    assert "1 step" in short.reason


def test_translation_undoes_a_change_of_references_and_knows_its_error() -> None:
    rng = np.random.default_rng(0)
    names = ["Al", "Cu", "Au"]
    crystals = [alloy([str(s) for s in rng.choice(names, 4)]) for _ in range(40)] + [alloy([s] * 4) for s in names]
    shift = {"Al": 3.0, "Cu": -2.0, "Au": 0.5}
    labels = np.array([0.0 if len(c.composition) == 1 else rng.normal(-0.3, 0.2) for c in crystals])

    def energies(noise: float) -> list[float]:
        wrong = rng.normal(0, noise, len(crystals))
        return [
            4 * (y + w) - sum(n * shift[s] for s, n in c.composition.items()) for c, y, w in zip(crystals, labels, wrong, strict=True)
        ]  # fmt: skip

    found = translation(crystals, energies(0.0), list(labels))
    assert found is not None
    assert found.error == pytest.approx(0.01)
    exact = energies(0.0)
    assert [found(c, e) for c, e in zip(crystals, exact, strict=True)] == pytest.approx(labels.tolist(), abs=2e-3)
    assert found(alloy(["Ni"] * 4), -1.0) is None
    noisy = translation(crystals, energies(0.08), list(labels))
    assert noisy is not None
    assert noisy.error == pytest.approx(0.08, rel=0.4)
    assert translation(crystals[:5], exact[:5], list(labels[:5])) is None


def test_relaxed_rows_are_judged_anew_and_the_others_stay() -> None:
    relaxed = alloy(["Cu"] * 4, 3.63)
    before = scores(3, 0.5)
    guesses = {
        0: Guess("converged", "", relaxed, -1.0, 9, 0.1),
        2: Guess("failed", "atoms came within 0.3 Å", None, None, 5, 0.1),
    }
    after = judged_again(before, guesses, ByVolume(), ["Cu"] * 3, Line())
    assert after.distance[0] == pytest.approx(abs(relaxed.volume / 4 - 12) / 10)
    assert after.probability[0] == pytest.approx(0.5 - 0.0171, abs=0.02)
    assert after.distance[1:].tolist() == [0.5, 0.5]
    assert before.distance[0] == 0.5
    assert judged_again(before, {1: guesses[2]}, ByVolume(), ["Cu"] * 3, Line()) is before


def test_the_potentials_word_counts_by_its_error() -> None:
    relaxed = alloy(["Cu"] * 4, 3.63)
    guesses = {0: Guess("converged", "", relaxed, 0.0, 9, 0.1)}
    names = [alloy([str(s) for s in np.random.default_rng(k).choice(["Cu", "Au"], 4)]) for k in range(30)]
    words = translation(names, [0.0] * 30, [0.0] * 30)
    assert words is not None
    values = [
        judged_again(scores(1, 0.5), guesses, ByVolume(), ["Cu"], Line(), replace(words, error=error)).value[0]
        for error in (1e-3, 0.1, 1e3)
    ]
    ensemble = abs(relaxed.volume / 4 - 12) / 10
    assert values[0] == pytest.approx(0.0, abs=1e-3)
    assert values[1] == pytest.approx(ensemble / 2, abs=1e-3)
    assert values[2] == pytest.approx(ensemble, abs=1e-3)


LOOKS = {"quick_limit": 2.0, "limit": 1.0, "volumes": 1, "relax_with": "emt", "relax_limit": 1.5, "relax_most": 40}
FILE = {**ALLOY, "rounds": 1, "filter": LOOKS}


def test_a_campaign_relaxes_first_and_starts_the_oracle_there(tmp_path: Path) -> None:
    Campaign(parse_config(FILE), tmp_path / "run").run()
    ledger = Ledger(tmp_path / "run")
    facts = ledger.stage(1, "judge")
    assert facts is not None
    look = facts["relaxed_look"]
    assert look["relaxed"]["converged"] > 10
    assert sum(look["relaxed"].values()) <= 40
    # one candidate, two relaxations: the potential's is the oracle's start, so nothing is left to do for the same potential
    rows = ledger.rows(
        "select r.structure, c.structure, r.energy, c.energy from calls c join relaxed r on r.key = c.key where c.round = 1 "
        "and c.status = 'converged' and r.status = 'converged'"
    )
    assert rows
    for before, after, potential, oracle in rows:
        assert oracle == pytest.approx(potential, abs=0.05)
        assert ledger.structure(after).volume == pytest.approx(ledger.structure(before).volume, rel=0.03)
    told = summary(tmp_path / "run", structures=False)["filter"]["cuts"]["now"]
    assert [c["name"] for c in told["control"]["cuts"]] == ["quick look", "full look", "relaxed look"]
    for find in summary(tmp_path / "run", structures=False)["finds"]:
        assert find["novelty"]["claim"]
        assert find["novelty"]["evidence"] is not None
    ledger.close()


def test_what_was_relaxed_is_not_relaxed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from naica.discover import relaxed_look

    ledger = Ledger(tmp_path)
    config = Filter(relax_with="emt", relax_limit=1.0, relax_most=2, relax_energy=False)
    crystals = [alloy(["Cu"] * 4, a) for a in (3.5, 3.6, 3.7, 3.8)]
    calls = []
    real = relaxed_look.relax_some

    def counted(items, *rest):
        calls.append(len(items))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(items, *rest)

    monkeypatch.setattr(relaxed_look, "relax_some", counted)
    monkeypatch.setattr(relaxed_look, "_PORTION", 1)
    keys, before = list("abcd"), scores(4, 0.5)
    before.distance[:] = [0.4, 0.3, 0.2, 2.0]
    look = RelaxedLook(ledger, config)
    with pytest.raises(KeyboardInterrupt):
        look.take(keys, crystals, ["Cu"] * 4, before, ByVolume(), Line(), [])
    assert ledger.rows("select count(*) from relaxed")[0][0] == 1
    _, looks, facts = RelaxedLook(ledger, config).take(keys, crystals, ["Cu"] * 4, before, ByVolume(), Line(), [])
    # the one that was paid for, and the next two most promising; the last is too far away
    assert {row[0] for row in looks} == {"a", "b", "c"}
    assert sum(calls) == 4
    assert facts["relaxed"] == {"converged": 3, "not converged": 0, "failed": 0}
    assert look.structure("d") is None
    assert look.structure("c") is not None
    ledger.close()


def test_an_unknown_potential_is_said_at_once(tmp_path: Path) -> None:
    raw = {**FILE, "filter": {**LOOKS, "relax_with": "m3gnet-mp-2020"}}
    with pytest.raises(ConfigError, match="m3gnet-mp-2021"):
        Campaign(parse_config(raw), tmp_path / "run").run()


@pytest.mark.slow
def test_a_universal_potential_brings_a_swollen_salt_back() -> None:
    config = Filter(relax_with="m3gnet-mp-2021", relax_fmax=0.05)
    salt = Crystal.from_fractional(["Na", "Cl"], [[0, 0, 0], [0.5] * 3], 5.64 / 2 * (1 - np.eye(3)))
    try:
        guesses = relax_some([salt.scaled(f) for f in (0.9, 1.2)], config)
    except MissingPart as error:
        pytest.skip(str(error))
    for guess in guesses:
        assert guess.status == "converged"
        assert guess.crystal is not None
        # PBE is 5.69 Å
        assert (4 * guess.crystal.volume) ** (1 / 3) == pytest.approx(5.69, abs=0.06)
