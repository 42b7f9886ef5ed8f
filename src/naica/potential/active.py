"""Active learning: simulate with a committee, label what it doubts, retrain, and stop when the promised error is met.

A round: dynamics start from labelled frames at several temperatures. Frames drawn at random from the plain dynamics are labelled first;
their errors, which the committee could not know, make the promise (conformal, over frames). Frames on which the committee's forces
differ most are labelled too: of the plain dynamics, and of dynamics pushed towards disagreement (uncertainty-driven dynamics: Kulichenko
et al., Nat. Comput. Sci. 3, 230, 2023)::

    E_bias = A [exp(−σ_E² / (N_M N_A B²)) − 1],   σ_E² = ½ Σ_m (E_m − Ē)²

with M members and N_A atoms. All new labels then join the training set, and the committee is trained on from where it stands.

Everything a round decides follows from the settings and from what earlier rounds left on disk, and every label is on disk the moment it is
known: a run killed anywhere and started again ends where an undisturbed one ends, and pays for no label twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.data import CrystalTable, Label
from naica.errors import ConfigError, InputError, RunError
from naica.graphs.batch import Batch
from naica.potential import evaluator as evaluators
from naica.potential import md
from naica.potential.calculators import elements_of, level_of
from naica.potential.derivatives import Evaluation
from naica.potential.fit import fit
from naica.potential.frames import Frames, frames
from naica.potential.learned import LearnedPotential
from naica.potential.saved import Potential, read_potential
from naica.potential.settings import FitConfig
from naica.potential.systems import Systems
from naica.structure import Crystal
from naica.structure.elements import symbol
from naica.training.config import from_mapping, inside

Report = Callable[[int, int], None]
_SHARE = 0.9
_LEAST_DISTANCE = 0.7  # Å; dynamics that bring atoms closer have left what means anything
_BIAS_SHARE = 0.36  # of the mean force: how strong the bias is set (Kulichenko et al.)
_MOST_BIAS = 10.0  # eV
STATE = "learn.json"


@dataclass(frozen=True)
class LearnConfig:
    """Settings of active learning.

    Parameters
    ----------
    fit : of the committee's first training; `members` at least 2
    further_epochs : of each later round, on from the weights of the one before
    temperatures : K of the dynamics, in turn
    systems, steps, dt, friction : dynamics of a round: how many at once, how many steps of how many fs, friction in 1/fs
    every : steps between two frames that may be taken
    judged, queried : frames labelled in a round: at random for the promise, and for their disagreement
    biased : whether dynamics driven by disagreement add candidates
    stop_spread : eV/Å; dynamics that reach a force spread beyond it are stopped, the potential means nothing there
    rounds : at most so many
    seed : of everything random
    """

    fit: FitConfig = field(default_factory=lambda: FitConfig(members=4, epochs=60, tensorboard=False))
    further_epochs: int = 30
    temperatures: tuple[float, ...] = (300.0, 600.0, 1000.0)
    systems: int = 12
    steps: int = 400
    dt: float = 2.0
    friction: float = 0.02
    every: int = 20
    judged: int = 10
    queried: int = 10
    biased: bool = True
    stop_spread: float = 3.0
    rounds: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.fit, Mapping):
            object.__setattr__(self, "fit", FitConfig.from_dict({"members": 4, "epochs": 60, "tensorboard": False, **self.fit}))
        object.__setattr__(self, "temperatures", tuple(float(t) for t in self.temperatures))
        if self.fit.members < 2:
            raise ConfigError("active learning asks where members of a committee differ: fit.members must be at least 2")
        if self.judged < 9:
            raise ConfigError(f"judged = {self.judged}; a promise for 90 % of new frames takes at least 9 frames")
        for name in ("systems", "steps", "every", "queried", "rounds", "further_epochs"):
            inside(name, getattr(self, name), 1, 10**9)
        for name in ("dt", "friction", "stop_spread"):
            inside(name, getattr(self, name), 1e-6, 100.0)
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ConfigError(f"temperatures = {self.temperatures}; expected at least one above 0 K")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> LearnConfig:
        """From plain data (TOML, JSON); ConfigError for unknown keys and values out of range."""
        return from_mapping(cls, settings, "active learning")


@dataclass(frozen=True, eq=False)
class Learned:
    """What came of it.

    Parameters
    ----------
    potential : the last committee, with its promise on the card
    met : whether the target error was reached
    rounds : of each: ``round``, ``frames`` (learned from), ``new`` (labels of this round), ``promise`` (eV/Å), ``forces_mae`` and
        ``energy_mae`` (of the judged frames), ``oracle_calls`` (so far), ``failed``
    reason : one sentence
    """

    potential: Potential
    met: bool
    rounds: list[dict[str, Any]]
    reason: str


def learn(
    start: Frames | CrystalTable | str | Path,
    oracle: str,
    target_error: float,
    *,
    out: str | Path,
    config: LearnConfig | None = None,
    resume: bool = True,
    progress: Report = lambda done, total: None,
) -> Learned:
    """Learn until 9 of 10 new frames have a force error (root mean square over components) below the target.

    Parameters
    ----------
    start : a few frames; their labels are made anew by the oracle where they are of another level of theory
    oracle : name of a calculator (``emt``, ``chgnet``, a potential's folder, ``package.module:factory``)
    target_error : eV/Å
    out : run folder; the committee ends up in ``model``
    config : settings
    resume : False starts anew
    progress : called with (rounds done, rounds at most)

    Raises
    ------
    InputError
        If the oracle does not know an element of the frames, or no frame can be labelled.
    RunError
        If the folder holds another run.
    """
    config = config or LearnConfig()
    given = start if isinstance(start, Frames) else frames(start, fidelity=True)
    run = _Run(Path(out), oracle, target_error, config, given)
    run.claim(resume)
    labelled = run.first_labels()
    rounds: list[dict[str, Any]] = []
    potential: Potential | None = None
    while True:
        number = len(rounds)
        potential = run.trained(number, labelled, potential)
        record, new = run.round(number, labelled, potential)
        rounds.append(record)
        progress(len(rounds), config.rounds)
        met = record["promise"] <= target_error
        if met or len(rounds) >= config.rounds:
            break
        labelled = CrystalTable.concat([labelled, new])
    return run.concluded(potential, met, rounds)


class _Run:
    """One run: its folder and settings."""

    def __init__(self, folder: Path, oracle: str, target: float, config: LearnConfig, start: Frames) -> None:
        inside("target_error", target, 1e-6, 1e3)
        self.folder, self.oracle, self.target, self.config, self.start = folder, oracle, target, config, start
        known = elements_of(oracle)
        unknown = [symbol(z) for z in start.elements if known is not None and symbol(z) not in known]
        if unknown:
            raise InputError(f"the oracle {oracle} does not know {', '.join(unknown)}; it knows {', '.join(known or ())}")
        self.level = level_of(oracle)
        self._evaluator: evaluators.Evaluator | None = None

    def claim(self, resume: bool) -> None:
        """Make the folder this run's own; RunError if it is another's."""
        settings = json.loads(json.dumps({**asdict(self.config), "fit": self.config.fit.to_dict()}, default=list))
        settings.pop("rounds")
        mine = {"oracle": self.oracle, "start": self.start.digest(), "settings": settings}
        path = self.folder / STATE
        if not resume and self.folder.exists():
            for old in (path, *self.folder.glob("labels/*.json")):
                old.unlink(missing_ok=True)
            for record in self.folder.glob("round-*/*.parquet"):
                record.unlink()
            for state in self.folder.glob("round-*/fit/**/state.pt"):
                state.unlink()
        elif path.exists() and json.loads(path.read_text(encoding="utf-8")) != mine:
            raise RunError(f"{self.folder} holds a run with another oracle, start or settings; take another folder, or --fresh")
        _write(path, json.dumps(mine, indent=1))

    # --- labels --------------------------------------------------------------------------------------------------------------------
    def first_labels(self) -> CrystalTable:
        """The frames to start from, labelled by the oracle."""
        own = self.start.level_of_theory
        if own is not None and own.same(self.level) and {"energy", "forces"} <= set(self.start.labels):
            names = ("id", "numbers", "positions", "cell", "pbc", "energy", "forces", *(n for n in ("stress",) if n in self.start.labels))
            return CrystalTable(self.start.table.arrow.select(list(names)))
        found, failed = self.labelled(list(self.start.table))
        if not len(found):
            raise InputError(f"the oracle {self.oracle} labelled none of {len(self.start)} frames to start from: {failed}")
        return found

    def labelled(self, crystals: Sequence[Crystal]) -> tuple[CrystalTable, str]:
        """Crystals with energy, forces and stress of the oracle, those that failed left out; and the reason of the first of these."""
        kept: list[Crystal] = []
        labels: list[dict[str, Any]] = []
        failed = ""
        for crystal in crystals:
            label = self._label(crystal)
            if "reason" in label:
                failed = failed or str(label["reason"])
                continue
            kept.append(crystal)
            labels.append(label)
        names = ("energy", "forces", "stress")
        columns = {name: [label[name] for label in labels] for name in names}
        made = {name: Label.of(name, self.level) for name in names}
        return CrystalTable.from_crystals(kept, columns, made), failed

    def _label(self, crystal: Crystal) -> dict[str, Any]:
        """One call of the oracle, or what it said earlier."""
        path = self.folder / "labels" / f"{crystal.hash}.json"
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        if self._evaluator is None:
            self._evaluator = evaluators.of(self.oracle)
        found = self._evaluator.evaluate(Systems.of(crystal))
        energy = float(found.energy[0])
        if found.complaints or not np.isfinite(energy):
            label: dict[str, Any] = {"reason": found.complaints.get(0, f"energy {energy}")}
        else:
            stress = found.stress[0].ravel().tolist() if crystal.pbc.all() else None
            label = {"energy": energy, "forces": found.forces.ravel().tolist(), "stress": stress}
        _write(path, json.dumps(label))
        return label

    @property
    def calls(self) -> int:
        """Labels that were paid for so far."""
        return len(list(self.folder.glob("labels/*.json")))

    # --- a round -------------------------------------------------------------------------------------------------------------------
    def trained(self, number: int, labelled: CrystalTable, before: Potential | None) -> Potential:
        """The committee of a round; read from disk if it is there."""
        folder = self.folder / f"round-{number}" / "fit"
        config = self.config.fit.replace(test=0.0)
        if before is not None:
            config = config.replace(epochs=self.config.further_epochs)
        return fit(frames(labelled), config, out=folder, start=before, name=f"{self.folder.resolve().name}, round {number}")

    def round(self, number: int, labelled: CrystalTable, potential: Potential) -> tuple[dict[str, Any], CrystalTable]:
        """Simulate, choose, label, judge; what an earlier start of the same round left is taken."""
        folder = self.folder / f"round-{number}"
        path, record = folder / "new.parquet", folder / "record.json"
        if path.exists() and record.exists():
            return dict(json.loads(record.read_text(encoding="utf-8"))), CrystalTable.read(path)
        committee = potential.learned(torch.float32)
        judged, queried = self._candidates(number, labelled, committee)
        random_labels, failed = self.labelled(judged)
        new, also_failed = self.labelled(queried)
        told = _errors(committee, random_labels)
        promise = _promise(told["frames"])
        found = {
            "round": number,
            "frames": len(labelled),
            "new": len(random_labels) + len(new),
            "promise": promise,
            "forces_mae": told["forces_mae"],
            "energy_mae": told["energy_mae"],
            "oracle_calls": self.calls,
            "failed": failed or also_failed,
        }
        table = CrystalTable.concat([random_labels, new]) if len(new) else random_labels
        folder.mkdir(parents=True, exist_ok=True)
        table.write(folder / "new.part")
        os.replace(folder / "new.part", path)
        _write(record, json.dumps(found, indent=1))
        return found, table

    def _candidates(self, number: int, labelled: CrystalTable, committee: LearnedPotential) -> tuple[list[Crystal], list[Crystal]]:
        """Frames drawn at random from plain dynamics, and those with the largest spread of all dynamics."""
        c = self.config
        draw = np.random.default_rng([c.seed, number])
        begin = [labelled[int(row)] for row in draw.integers(0, len(labelled), c.systems)]
        heat = np.resize(np.array(c.temperatures), c.systems)
        plain = self._walks(begin, heat, committee, number)
        flat = [(walk, place) for walk, frames_ in enumerate(plain) for place in range(len(frames_))]
        chosen = draw.permutation(len(flat))[: c.judged]
        judged = [plain[flat[k][0]][flat[k][1]][1] for k in chosen]
        left = [
            [seen for place, seen in enumerate(frames_) if (walk, place) not in {flat[k] for k in chosen}]
            for walk, frames_ in enumerate(plain)
        ]
        if c.biased:
            left += self._walks(begin, heat, _driven(committee, labelled, number), number, 1)
        # one frame of each dynamics at most, so that the new ones differ from each other
        best = [max(frames_, key=lambda seen: seen[0]) for frames_ in left if frames_]
        best.sort(key=lambda seen: -seen[0])
        return judged, [crystal for _, crystal in best[: c.queried]]

    def _walks(
        self, begin: Sequence[Crystal], heat: NDArray[np.float64], potential: Any, number: int, kind: int = 0
    ) -> list[list[tuple[float, Crystal]]]:
        """For every system the frames it passed, each with its largest force spread; frames beyond what means anything are left out."""
        c = self.config
        walker = evaluators.Batched(potential, torch.float32)
        ensemble = md.Langevin(c.dt, c.friction)
        seed = torch.arange(len(begin)) + 1000 * (2 * number + kind) + 100_003 * c.seed
        state = md.init(Systems.of(begin), walker, ensemble, heat, seed=seed)
        found: list[list[tuple[float, Crystal]]] = [[] for _ in begin]
        alive = np.ones(len(begin), dtype=bool)
        for step in range(1, c.steps + 1):
            state = md.step(state, walker, ensemble)
            if step % c.every and step % 5:
                continue
            spread = _largest_spread(potential, state.systems)
            nearest = state.nearest.numpy()
            good = np.isfinite(spread) & (spread < c.stop_spread) & ~(nearest < _LEAST_DISTANCE)
            lost = alive & ~good
            for k in np.flatnonzero(lost):
                # the last frame before it went astray is worth a label if it was still a structure
                crystal = state.systems.take([int(k)]).crystals()[0]
                if np.isfinite(crystal.positions).all() and np.isfinite(spread[k]) and not nearest[k] < _LEAST_DISTANCE:
                    found[k].append((float(spread[k]), crystal))
            alive &= good
            if step % c.every == 0:
                for k in np.flatnonzero(alive):
                    found[k].append((float(spread[k]), state.systems.take([int(k)]).crystals()[0]))
            if not alive.any():
                break
        return found

    def concluded(self, potential: Potential, met: bool, rounds: list[dict[str, Any]]) -> Learned:
        """The committee in its folder, with the promise on its card."""
        last = rounds[-1]
        kept = f"9 of 10 new frames of such dynamics have a force error below {last['promise']:.3g} eV/Å"
        reason = (
            f"target {self.target:g} eV/Å met after {len(rounds)} rounds and {last['oracle_calls']} labels: {kept}"
            if met
            else f"target {self.target:g} eV/Å not met in {len(rounds)} rounds: {kept}. Allow more rounds, or train longer (fit.epochs)"
        )
        card = replace(
            potential.card,
            name=self.folder.resolve().name,
            error={**potential.card.error, "frame_force_rmse": last["promise"]},
            note=reason,
        )
        final = Potential(potential.members, card)
        final.save(self.folder / "model")
        return Learned(final, met, rounds, reason)


def _errors(committee: LearnedPotential, table: CrystalTable) -> dict[str, Any]:
    """Errors on labelled frames: of each frame (root mean square over its force components), and mean ones."""
    found = committee.compute(list(table))
    force_errors = [
        np.asarray(one.forces) - np.asarray(label).reshape(-1, 3)
        for one, label in zip(found, table.arrow["forces"].to_pylist(), strict=True)
    ]
    energies = [abs(one.energy - e) / len(one.forces) for one, e in zip(found, table.column("energy"), strict=True)]
    return {
        "frames": [float(np.sqrt((error**2).mean())) for error in force_errors],
        "forces_mae": float(np.abs(np.concatenate(force_errors)).mean()) if force_errors else float("inf"),
        "energy_mae": float(np.mean(energies)) if energies else float("inf"),
    }


def _promise(errors: Sequence[float]) -> float:
    """What 9 of 10 new frames stay below, by the rank of split conformal prediction; infinite with too few frames."""
    rank = int(np.ceil((len(errors) + 1) * _SHARE))
    return float(np.sort(errors)[rank - 1]) if rank <= len(errors) else float("inf")


# --- dynamics towards disagreement -----------------------------------------------------------------------------------------------------
class Driven:
    """A committee with the bias of uncertainty-driven dynamics: it goes where its members' energies differ.

    Parameters
    ----------
    committee : the potential
    strength : A, eV
    width : B, eV: the disagreement per ``√(members · atoms)`` at which the bias acts most
    """

    def __init__(self, committee: LearnedPotential, strength: float, width: float) -> None:
        self.committee, self.strength, self.width = committee, strength, width

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.committee.cutoff

    def evaluate(self, batch: Batch) -> Evaluation:
        """The committee's mean, and the bias on top."""
        found = self.committee.evaluate_members(batch)
        mean = self.committee.mean_of(found)
        energy, forces = bias(found, batch, self.strength, self.width)
        return Evaluation(mean.energy + energy, mean.forces + forces.to(mean.forces.dtype), mean.stress, mean.atoms)


def bias(found: Sequence[Evaluation], batch: Batch, strength: float, width: float) -> tuple[Tensor, Tensor]:
    """Energies (B) in eV and forces (N, 3) in eV/Å of the bias, from what the members say."""
    energies, forces = torch.stack([one.energy for one in found]), torch.stack([one.forces.double() for one in found])
    apart = energies - energies.mean(0)
    norm = len(found) * batch["n_atoms"].double() * width**2
    share = torch.exp(-0.5 * (apart**2).sum(0) / norm)
    # ∂(σ²)/∂r = −Σ_m (E_m − Ē)(f_m − f̄), and the force is −∂E_bias/∂r
    pull = (apart[:, batch["system"], None] * (forces - forces.mean(0))).sum(0)
    return strength * (share - 1), -strength * (share / norm)[batch["system"], None] * pull


def _driven(committee: LearnedPotential, labelled: CrystalTable, number: int) -> Driven:
    """The bias set so that it pulls with about a third of the mean force on labelled frames, width at their median disagreement."""
    rows = np.random.default_rng(number).permutation(len(labelled))[:16]
    systems = Systems.of([labelled[int(row)] for row in rows])
    batch = systems.batch(committee.cutoff, dtype=committee.dtype)
    found = committee.evaluate_members(batch)
    energies = torch.stack([one.energy for one in found])
    apart = 0.5 * ((energies - energies.mean(0)) ** 2).sum(0)
    width = float((apart / (len(found) * batch["n_atoms"].double())).sqrt().median().clamp(min=1e-6))
    _, pull = bias(found, batch, 1.0, width)
    typical = float(committee.mean_of(found).forces.norm(dim=1).mean())
    mean_pull = float(pull.norm(dim=1).mean())
    return Driven(committee, min(_BIAS_SHARE * typical / max(mean_pull, 1e-9), _MOST_BIAS), width)


def _largest_spread(potential: Any, systems: Systems) -> NDArray[np.float64]:
    """(B) eV/Å: the largest spread of the members' forces on an atom of each system; NaN where it cannot be computed."""
    committee = potential.committee if isinstance(potential, Driven) else potential
    found = evaluators.Batched(committee, torch.float32).evaluate(systems)
    sigma = found.atoms["force_sigma"].numpy()
    largest = np.full(len(systems), -np.inf)
    np.maximum.at(largest, systems.system.numpy(), np.where(np.isfinite(sigma), sigma, np.inf))
    return largest


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(text, encoding="utf-8")
        os.replace(path.with_suffix(".part"), path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder") from error


def resumed(folder: str | Path) -> Potential:
    """The committee a run left in its folder."""
    return read_potential(folder)
