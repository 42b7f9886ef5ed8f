"""Several levels in one potential, and going on from a potential: references first, frozen layers, replay against forgetting."""

import numpy as np
import pytest
import torch
from labelled import EMT_LEVEL, crystals, emt_frames, table

from naica import load
from naica.data import CrystalTable, Label, Level
from naica.errors import ConfigError, LevelError
from naica.potential.fit import fit
from naica.potential.frames import Frames, frames
from naica.potential.model import PotentialModel, PotentialParts
from naica.potential.settings import FitConfig, Weights
from naica.potential.systems import Systems
from naica.structure import Crystal

NETWORK = {"width": 16, "interactions": 2, "gaussians": 12, "cutoff": 4.5}
SMALL = FitConfig(
    architecture="schnet", architecture_config=NETWORK, epochs=2, tensorboard=False, batch_size=4, test=0.2, learning_rate=5e-3, ema=0.9
)
LOW, HIGH = Level("low"), Level("high")


def clusters(n: int, seed: int) -> list[Crystal]:
    """Four argon-like atoms at random."""
    draw = np.random.default_rng(seed)
    corners = 2.0 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return [
        Crystal(np.full(4, 18), corners * draw.uniform(0.95, 1.35) + 0.25 * draw.normal(size=(4, 3)), None, (False,) * 3) for _ in range(n)
    ]


def pairs(crystal: Crystal) -> np.ndarray:
    r = crystal.positions
    return np.array([np.linalg.norm(r[i] - r[j]) for i in range(4) for j in range(i)])


def low(crystal: Crystal) -> float:
    """A Morse potential."""
    return float(((1 - np.exp(-1.2 * (pairs(crystal) - 3.2))) ** 2 - 1).sum())


def high(crystal: Crystal) -> float:
    """1.3 times the low level, and something smooth on top; another zero of energies too."""
    return 1.3 * low(crystal) + 0.2 * float(np.exp(-((pairs(crystal) - 5.0) ** 2)).sum()) - 20.0


def energies(items: list[Crystal], law, level: Level) -> CrystalTable:
    ids = [f"{level.functional}-{k}" for k in range(len(items))]
    return CrystalTable.from_crystals(items, {"energy": [law(c) for c in items]}, {"energy": Label.of("energy", level)}, ids)


def test_many_cheap_labels_beside_few_dear_ones():
    """Chen et al.'s situation as a toy: 1000 low and 20 high; the error at the high level is three times lower than without the low."""
    config = FitConfig(
        architecture="schnet",
        architecture_config={"width": 16, "interactions": 1, "gaussians": 16, "cutoff": 7.0},
        parts=PotentialParts(hidden=8),
        epochs=25,
        batch_size=40,
        balance="frames",
        learning_rate=1e-2,
        validation=0.0,
        test=0.0,
        tensorboard=False,
        weight_decay=0.0,
        ema=0.95,
    )
    cheap, dear, test = energies(clusters(1000, 0), low, LOW), energies(clusters(20, 1), high, HIGH), clusters(200, 2)
    both = fit(CrystalTable.concat([cheap, dear], fidelity=True), config, fidelity=True)
    alone = fit(dear, config.replace(epochs=300, batch_size=10))
    wanted = np.array([high(c) for c in test])

    def error(potential) -> float:
        return float(np.abs(np.array([one.energy for one in potential.compute(test)]) - wanted).mean())

    assert both.card.levels == ("low", "high")
    assert both.card.speaking == "high"
    assert error(both) < error(alone) / 3
    # another level, another answer: the low one knows its own energies
    low_error = np.abs(np.array([one.energy for one in both.at_level("low").compute(test)]) - [low(c) for c in test]).mean()
    assert low_error < 0.3
    assert error(both.at_level("low")) > 10


def test_a_level_is_chosen_when_a_potential_is_opened(tmp_path):
    given = CrystalTable.concat([table(12), table(4, seed=1, level=Level("other"))], fidelity=True)
    made = fit(given, SMALL, out=tmp_path, fidelity=True)
    crystal = crystals(1, seed=9)[0]
    last, first = load(tmp_path).compute(crystal)[0], load(f"{tmp_path}@EMT").compute(crystal)[0]
    assert made.card.speaking == "other"
    assert load(f"{tmp_path}@EMT").card.level_of_theory == Level("EMT")
    assert last.energy != first.energy
    assert last.energy == made.compute(crystal)[0].energy
    with pytest.raises(LevelError, match="it speaks EMT, other"):
        load(f"{tmp_path}@third")
    from naica.potential.calculators import calculator, level_of

    assert calculator(f"{tmp_path}@EMT") is not None
    assert "estimates EMT" in str(level_of(f"{tmp_path}@EMT"))


def test_a_batch_asks_each_system_at_its_level():
    torch.manual_seed(0)
    model = PotentialModel("schnet", NETWORK, PotentialParts(levels=("a", "b")), references=[{29: -1.0}, {29: -5.0}]).double()
    torch.nn.init.constant_(model.differences[0].share, 0.3)
    batch = Systems.of(crystals(2)).batch(model.cutoff)
    first, second = model(batch), model.at_level("b")(batch)
    batch["level"] = torch.tensor([1, 0])
    mixed = model(batch)
    assert float(mixed[0]) == pytest.approx(float(second[0]))
    assert float(mixed[1]) == pytest.approx(float(first[1]))
    assert float(second[0] + 20) == pytest.approx(1.3 * float(first[0] + 4))
    # forces are slopes at either level
    assert model.compute(batch).forces.abs().max() > 0
    with pytest.raises(ConfigError, match="speaks a, b"):
        model.at_level("c")


def test_going_on_without_a_step_moves_the_references_alone():
    old = fit(emt_frames(12), SMALL)
    moved = table(8, seed=3, level=Level("shifted"))
    values = np.array(moved.column("energy")) + 4 * 1.75
    new = fit(moved.with_column("energy", values, moved.labels["energy"]), SMALL.replace(epochs=0), start=old)
    probe = crystals(5, seed=8)
    a, b = old.compute(probe), new.compute(probe)
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x.forces, y.forces)
        assert y.energy - x.energy == pytest.approx(b[0].energy - a[0].energy, abs=1e-9)
    # the shift is what the labels ask for, up to the old potential's own error
    assert (b[0].energy - a[0].energy) / 4 == pytest.approx(1.75, abs=0.3)
    assert new.card.lineage[0]["level"] == "EMT"
    same = fit(table(8, seed=3), SMALL.replace(epochs=0), start=old)
    assert same.compute(probe)[0].energy == a[0].energy


def test_frozen_layers_stay():
    old = fit(emt_frames(12), SMALL)
    new = fit(emt_frames(8, seed=2), SMALL.replace(freeze="backbone"), start=old)
    for name, tensor in old.members[0].state_dict().items():
        same = torch.equal(tensor, new.members[0].state_dict()[name])
        assert same == (not name.startswith("readout")), name
    first = fit(emt_frames(8, seed=2), SMALL.replace(freeze=1), start=old).members[0]
    changed = {n for n, t in first.state_dict().items() if not torch.equal(t, old.members[0].state_dict()[n])}
    assert not any(name.startswith("backbone.interactions.0.") for name in changed)
    assert any(name.startswith("backbone.interactions.1.") for name in changed)
    assert all(p.requires_grad for p in first.parameters())
    with pytest.raises(ConfigError, match="freeze"):
        fit(emt_frames(8), SMALL.replace(freeze="nonsense"), start=old)


def test_replay_remembers():
    config = SMALL.replace(epochs=40, test=0.0, validation=0.0, learning_rate=1e-2)
    old_frames = emt_frames(24)
    old = fit(old_frames, config)
    # the new frames are of compressed cells: another corner of the same surface
    new_frames = frames(_compressed(10))
    tune = config.replace(epochs=60, replay_share=0.6)
    forgetful, mindful = fit(new_frames, tune, start=old), fit(new_frames, tune, start=old, replay=old_frames)

    def error(potential, given: Frames) -> float:
        found = potential.compute(list(given.table))
        return float(np.sqrt(np.mean((np.concatenate([one.forces for one in found]) - given.labels["forces"]) ** 2)))

    assert mindful.card.data["rows"]["replayed"] == 24
    assert error(mindful, old_frames) < 0.7 * error(forgetful, old_frames)
    assert error(mindful, new_frames) < 0.5 * error(old, new_frames)


def _compressed(n: int) -> CrystalTable:
    from labelled import computed

    items = [c.replace(positions=0.93 * c.positions, cell=0.93 * c.cell) for c in crystals(n, seed=5, rattle=0.1)]
    energy, forces, stress = zip(*(computed(c) for c in items), strict=True)
    labels = {name: Label.of(name, EMT_LEVEL) for name in ("energy", "forces", "stress")}
    return CrystalTable.from_crystals(items, {"energy": energy, "forces": forces, "stress": stress}, labels)


def test_replay_of_another_level_gives_both():
    old_frames = emt_frames(12)
    old = fit(old_frames, SMALL)
    moved = table(6, seed=3, level=Level("shifted"))
    values = np.array(moved.column("energy")) + 4 * 1.75
    new = fit(moved.with_column("energy", values, moved.labels["energy"]), SMALL.replace(epochs=1), start=old, replay=old_frames)
    assert new.card.levels == ("EMT", "shifted")
    probe = crystals(1, seed=8)[0]
    difference = new.compute(probe)[0].energy - new.at_level("EMT").compute(probe)[0].energy
    assert difference / 4 == pytest.approx(1.75, abs=0.4)
    assert set(new.card.metrics["replayed"]) >= {"forces_rmse"}


def test_a_network_without_a_place_for_an_element_is_told():
    with pytest.raises(LevelError, match="levels of theory"):
        fit(CrystalTable.concat([table(4), table(4, seed=1, level=Level("other"))], fidelity=True), SMALL)
    old = fit(emt_frames(8), SMALL)
    # this network has a vector for every element: gold is learned, not refused
    assert fit(emt_frames(8, elements=("Cu", "Au")), SMALL.replace(epochs=1), start=old).card.elements == ("Cu", "Au")


def test_moments_and_charges_are_read_out_per_atom():
    items = crystals(20)
    draw = np.random.default_rng(0)
    signs = draw.choice([-1, 1], size=(20, 4))
    size = [np.array([np.tanh(np.linalg.norm(c.positions[k] - c.positions[(k + 1) % 4])) for k in range(4)]) for c in items]
    moments = [(m * s).tolist() if k % 4 else None for k, (m, s) in enumerate(zip(size, signs, strict=True))]
    charges = [(m - m.mean()).tolist() for m in size]
    given = table(20).with_column("magmom", moments, Label.of("magmom", EMT_LEVEL))
    given = given.with_column("charge", charges, Label.of("partial_charge", EMT_LEVEL))
    config = SMALL.replace(
        epochs=15, parts=PotentialParts(sites=("magmom", "charge")), weights=Weights(magmom=1.0, charge=1.0), learning_rate=1e-2
    )
    found = fit(given, config)
    assert found.card.metrics["train"]["magmom_mae"] < 0.15
    assert found.card.metrics["train"]["charge_mae"] < 0.15
    told = found.compute(items[0])[0].atoms
    assert told["magmom"].min() >= 0
    assert told["charge"].shape == (4,)
    with pytest.raises(ConfigError, match="expected some of magmom, charge"):
        PotentialParts(sites=("spin",))
