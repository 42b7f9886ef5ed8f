"""Relaxation of many crystals in one flat batch, kept full from a queue: who has converged leaves, who waits comes in.

Degrees of freedom of a system of n atoms are the positions z in its first cell and, where the cell may change, n times the logarithm U of
its deformation (the Fréchet filter of ASE, so that both converge alike)::

    r = z exp(U),   h = h₀ exp(U),   −∂E/∂z = F exp(U),   ∂E/∂U = Q [ (Qᵀ S Q) ∘ Φ ] Qᵀ,   S = V (σ + p) exp(−U),
    U = Q diag(λ) Qᵀ,   Φ_ij = (e^λi − e^λj) / (λi − λj)

L-BFGS (Liu and Nocedal, Math. Program. 45, 503 (1989)) with steps of at most 0.2 Å; where it goes astray, the crystal starts again with
FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)), which is slow and hard to upset. Everything is by system: what happens to one
does not depend on the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import ConfigError, InputError
from naica.potential.evaluator import Evaluated, Evaluator
from naica.potential.systems import Systems
from naica.structure import Crystal

Array = NDArray[np.float64]
Method = Literal["auto", "lbfgs", "fire"]

# a relaxation that leaves these bounds has left the basin the structure was meant to describe
MOST_VOLUME_CHANGE = 3.0
LEAST_DISTANCE = 0.5
FARTHEST_FORCE = 1e3

_LONGEST_STEP = 0.2  # Å
_MEMORY = 25  # pairs of L-BFGS
_FIRST_CURVATURE = 70.0  # eV/Å², before anything is known
_SOFTEST, _STIFFEST = 5.0, 500.0
_FIRE = {"first": 0.1, "most": 1.0, "grow": 1.1, "shrink": 0.5, "mix": 0.1, "fade": 0.99, "wait": 5}


@dataclass(frozen=True)
class Relaxed:
    """What became of one crystal.

    `energy` in eV for the whole cell, `forces` (n, 3) eV/Å, `stress` (3, 3) eV/Å³ (None for molecules and slabs), `steps` of the optimiser,
    `seconds` of wall clock (in a batch: its share of it). `crystal` is the relaxed one, or the last sound one if it did not converge; None
    if nothing could be computed.
    """

    status: Literal["converged", "not converged", "failed"]
    crystal: Crystal | None
    energy: float | None
    forces: Array | None
    stress: Array | None
    steps: int
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Goal:
    """When a relaxation is done, and what may change.

    Parameters
    ----------
    fmax : eV/Å, largest force left on any atom and on the cell's logarithm
    steps : most steps per crystal and method; 0 computes each crystal as it is
    cell : whether cells change (of what repeats in three directions)
    volume : False keeps volumes and relaxes shapes only
    pressure : eV/Å³ from outside
    symmetry : keep the space group each crystal has at the start
    method : ``auto`` is L-BFGS, then FIRE where that goes astray
    max_seconds : per crystal
    batch_atoms : atoms in a batch at most, unless a single crystal is larger
    """

    fmax: float = 0.05
    steps: int = 300
    cell: bool = True
    volume: bool = True
    pressure: float = 0.0
    symmetry: bool = False
    method: Method = "auto"
    max_seconds: float | None = None
    batch_atoms: int = 200

    def __post_init__(self) -> None:
        if not self.fmax > 0 or self.steps < 0:
            raise InputError(f"fmax = {self.fmax}, steps = {self.steps}; expected fmax > 0 (eV/Å) and steps ≥ 0")
        if self.method not in ("auto", "lbfgs", "fire"):
            raise ConfigError(f"unknown optimiser {self.method!r}; expected auto, lbfgs or fire")
        if self.batch_atoms < 1 or not np.isfinite(self.pressure):
            raise InputError(f"batches of {self.batch_atoms} atoms, {self.pressure} eV/Å³; expected at least 1, and a finite number")

    def alone(self) -> Goal:
        """The same with one crystal at a time."""
        return replace(self, batch_atoms=1)


def optimise(
    crystals: Sequence[Crystal],
    evaluator: Evaluator,
    goal: Goal,
    fixed: Sequence[Sequence[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Relaxed]:
    """Relax crystals, slabs and molecules, some at a time; one `Relaxed` each, in their order, whatever happens to any of them.

    Parameters
    ----------
    fixed : for each crystal the indices of atoms whose fractional coordinates stay
    progress : called with (done, total) whenever some are done
    """
    if fixed is not None and len(fixed) != len(crystals):
        raise InputError(f"{len(fixed)} lists of fixed atoms for {len(crystals)} crystals; expected one each")
    done: dict[int, Relaxed] = {}
    batch = _Batch(evaluator, goal)
    queue = deque(_Member(k, one, _refused(one, evaluator), tuple(fixed[k]) if fixed else ()) for k, one in enumerate(crystals))
    while queue or len(batch):
        told = len(done)
        while queue and (not len(batch) or batch.atoms + len(queue[0].crystal) <= goal.batch_atoms):
            member = queue.popleft()
            if member.refused:
                done[member.index] = Relaxed("failed", None, None, None, None, 0, 0.0, member.refused)
            elif (trouble := batch.enter(member)) is not None:
                done[member.index] = Relaxed("failed", None, None, None, None, 0, 0.0, trouble)
        if len(batch):
            ended, again = batch.advance()
            done.update(ended)
            queue.extendleft(again)
        if progress is not None and len(done) > told:
            progress(len(done), len(crystals))
    return [done[k] for k in range(len(crystals))]


def _refused(crystal: Crystal, evaluator: Evaluator) -> str:
    known = evaluator.elements
    foreign = [s for s in crystal.composition if known is not None and s not in known]
    return f"the potential does not know {', '.join(foreign)}; it knows {', '.join(known or ())}" if foreign else ""


@dataclass
class _Member:
    """A crystal on its way: what earlier methods cost and why they failed."""

    index: int
    crystal: Crystal
    refused: str = ""
    fixed: tuple[int, ...] = ()
    fire: bool = False
    earlier: int = 0
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    steps: int = 0

    @property
    def method(self) -> str:
        return "FIRE" if self.fire else "L-BFGS"


class _Batch:
    """The crystals that are being relaxed. A system's rows are its n atoms and the three rows of its cell."""

    def __init__(self, evaluator: Evaluator, goal: Goal) -> None:
        self.evaluator, self.goal = evaluator, goal
        self.members: list[_Member] = []
        self.start: Systems | None = None
        self.rows: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}
        self.groups: list[_Group | None] = []
        self._waiting: list[tuple[_Member, Systems, _Group | None]] = []
        self._clock = 0.0

    def __len__(self) -> int:
        return len(self.members) + len(self._waiting)

    @property
    def atoms(self) -> int:
        """Atoms in it, and about to be."""
        return sum(len(m.crystal) for m in self.members) + sum(len(m.crystal) for m, _, _ in self._waiting)

    # --- who comes and goes -------------------------------------------------------------------------------------------------------------
    def enter(self, member: _Member) -> str | None:
        """Take a crystal in, or say why it cannot be."""
        group = None
        try:
            system = Systems.of(member.crystal)
        except InputError as error:
            return str(error)
        if self.goal.symmetry:
            try:
                group = _Group.of(member.crystal)
            except InputError as error:
                return f"its symmetry cannot be kept: {error}"
        if any(not 0 <= k < len(member.crystal) for k in member.fixed):
            return f"fixed atoms {list(member.fixed)} of {len(member.crystal)} atoms; indices start at 0"
        member.fire = member.fire or self.goal.method == "fire"
        self._waiting.append((member, system, group))
        return None

    def _admit(self) -> None:
        """Join those who wait."""
        if not self._waiting:
            return
        fresh = Systems.join([system for _, system, _ in self._waiting])
        rows, own = _blank(fresh, [m for m, _, _ in self._waiting], self.goal)
        self.evaluator.select(range(len(self.members)), len(self._waiting))
        self.members += [member for member, _, _ in self._waiting]
        self.groups += [group for _, _, group in self._waiting]
        if self.start is None or not len(self.start):
            self.start, self.rows, self.own = fresh, rows, own
        else:
            self.start = Systems.join([self.start, fresh])
            self.rows = {name: torch.cat([value, rows[name]]) for name, value in self.rows.items()}
            self.own = {name: torch.cat([value, own[name]]) for name, value in self.own.items()}
        self._waiting = []
        self._lay_out()

    def _keep(self, kept: Sequence[int]) -> None:
        """Let the others go."""
        assert self.start is not None
        if len(kept) == len(self.members):
            return
        chosen = torch.tensor(list(kept), dtype=torch.int64)
        mask = torch.zeros(len(self.members), dtype=torch.bool)
        mask[chosen] = True
        rows = mask[self.system]
        self.rows = {name: value[rows] for name, value in self.rows.items()}
        self.own = {name: value[chosen] for name, value in self.own.items()}
        self.start = self.start.take(kept)
        self.evaluator.select(kept)
        self.members, self.groups = [self.members[k] for k in kept], [self.groups[k] for k in kept]
        self._lay_out()

    def _lay_out(self) -> None:
        """Which rows are atoms, which are cells."""
        assert self.start is not None
        sizes = self.start.n_atoms + 3
        self.system = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        ends = torch.cumsum(sizes, 0)
        self.cell_rows = (ends - 3)[:, None] + torch.arange(3)
        atom = torch.ones(len(self.system), dtype=torch.bool)
        atom[self.cell_rows.flatten()] = False
        self.atom_rows = torch.nonzero(atom)[:, 0]

    # --- one step -----------------------------------------------------------------------------------------------------------------------
    def advance(self) -> tuple[dict[int, Relaxed], list[_Member]]:
        """One evaluation of all, and a step of those that go on; who is done, and who starts again with FIRE."""
        self._clock = time.perf_counter()
        self._admit()
        assert self.start is not None
        ended: dict[int, Relaxed] = {}
        again: list[_Member] = []
        systems, grow = self._systems()
        found = self.evaluator.evaluate(systems)
        forces, cell_forces = self._forces(systems, grow, found)
        left = self._longest(forces, cell_forces)
        self._share()
        leaving = self._judge(systems, found, left, ended, again)
        kept = [k for k in range(len(self.members)) if k not in leaving]
        if leaving:
            atoms = systems.atoms_of(kept)
            forces, cell_forces = forces[atoms], cell_forces[kept]
            self._keep(kept)
        if kept:
            self._step(forces, cell_forces)
        lost = self._out_of_bounds()
        for k, reason in lost.items():
            self._fail(self.members[k], reason, ended, again)
        if lost:
            self._keep([k for k in range(len(self.members)) if k not in lost])
        self._share()
        return ended, again

    def _share(self) -> None:
        """Charge the time since the last look at the clock to the members, by their atoms."""
        now = time.perf_counter()
        total = max(sum(len(m.crystal) for m in self.members), 1)
        for member in self.members:
            member.seconds += (now - self._clock) * len(member.crystal) / total
        self._clock = now

    def _systems(self) -> tuple[Systems, Tensor]:
        """Where everything is now, and exp(U)."""
        assert self.start is not None
        x = self.rows["x"]
        logarithm = x[self.cell_rows] / self.start.n_atoms[:, None, None]
        values, axes = torch.linalg.eigh(logarithm)
        self.spectrum = values, axes
        grow = (axes * torch.exp(values)[:, None, :]) @ axes.transpose(1, 2)
        # a cell that never changed stays as it is to the last bit
        same = (logarithm == 0).flatten(1).all(dim=1)
        grow = torch.where(same[:, None, None], torch.eye(3, dtype=torch.float64), grow)
        positions = (x[self.atom_rows][:, :, None] * grow[self.start.system]).sum(1)
        return self.start.replace(positions=positions, cell=self.start.cell @ grow), grow

    def _forces(self, systems: Systems, grow: Tensor, found: Evaluated) -> tuple[Tensor, Tensor]:
        """Forces on the degrees of freedom: (N, 3) and (B, 3, 3)."""
        assert self.start is not None
        forces = (found.forces[:, :, None] * grow[systems.system]).sum(1) * self.own_mobile[:, None]
        values, axes = self.spectrum
        free = self.own["cell"]
        volume = torch.where(free, systems.volume, torch.zeros_like(values[:, 0]))
        eye = torch.eye(3, dtype=torch.float64)
        stress = torch.where(free[:, None, None], found.stress, torch.zeros_like(found.stress))
        push = volume[:, None, None] * (stress + self.goal.pressure * eye)
        push = push @ ((axes * torch.exp(-values)[:, None, :]) @ axes.transpose(1, 2))
        inner = axes.transpose(1, 2) @ (push + push.transpose(1, 2)) @ axes / 2
        gap = values[:, :, None] - values[:, None, :]
        middle = torch.exp((values[:, :, None] + values[:, None, :]) / 2)
        half = gap / 2
        ratio = torch.where(half.abs() < 1e-5, 1 + half * half / 6, torch.sinh(half) / torch.where(half == 0, torch.ones_like(half), half))
        slope = axes @ (inner * middle * ratio) @ axes.transpose(1, 2)
        if not self.goal.volume:
            slope = slope - slope.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * eye
        cell_forces = -slope / self.start.n_atoms[:, None, None]
        for k, group in enumerate(self.groups):
            if group is not None:
                atoms = systems.atoms_of([k])
                forces[atoms] = group.vectors(forces[atoms])
                cell_forces[k] = group.matrix(cell_forces[k])
        return forces, cell_forces

    @property
    def own_mobile(self) -> Tensor:
        """(N) whether an atom may move."""
        return self.rows["mobile"][self.atom_rows]

    def _longest(self, forces: Tensor, cell_forces: Tensor) -> Tensor:
        """(B) the largest force on an atom or a row of the cell."""
        assert self.start is not None
        largest = torch.zeros(len(self.members), dtype=torch.float64)
        largest.scatter_reduce_(0, self.start.system, (forces * forces).sum(1), "amax")
        return torch.maximum(largest, (cell_forces * cell_forces).sum(2).amax(1)).sqrt()

    def _judge(self, systems: Systems, found: Evaluated, left: Tensor, ended: dict[int, Relaxed], again: list[_Member]) -> set[int]:
        """Who leaves the batch, and with what result."""
        leaving = set()
        largest = torch.zeros(len(self.members), dtype=torch.float64)
        largest.scatter_reduce_(0, systems.system, found.forces.abs().amax(1), "amax")
        energy, strongest, nearest, rest = (t.tolist() for t in (found.energy, largest, found.nearest, left))
        for k, member in enumerate(self.members):
            trouble = _trouble(found.complaints.get(k), energy[k], strongest[k], nearest[k])
            if not trouble and not np.isfinite(rest[k]):
                trouble = "there is no stress to relax the cell with; keep the cell"
            late = self.goal.max_seconds is not None and member.seconds > self.goal.max_seconds
            if trouble:
                self._fail(member, trouble, ended, again)
            elif rest[k] < self.goal.fmax or not self.goal.steps:
                ended[member.index] = self._outcome(k, systems, found, "converged", "")
            elif late:
                reason = f"not finished within {self.goal.max_seconds:g} s ({member.earlier + member.steps} steps)"
                ended[member.index] = Relaxed("failed", None, None, None, None, member.earlier + member.steps, member.seconds, reason)
            elif member.steps >= self.goal.steps:
                force = float(found.forces[systems.atoms_of([k])].norm(dim=1).max())
                wanted = f"largest force {force:.3f} eV/Å, wanted {self.goal.fmax:g} on atoms and cell"
                ended[member.index] = self._outcome(k, systems, found, "not converged", f"not converged in {member.steps} steps: {wanted}")
            else:
                continue
            leaving.add(k)
        return leaving

    def _outcome(self, k: int, systems: Systems, found: Evaluated, status: Literal["converged", "not converged"], reason: str) -> Relaxed:
        member, atoms = self.members[k], systems.atoms_of([k])
        crystal = member.crystal
        if member.steps:
            changes = {"positions": systems.positions[atoms].numpy()}
            if bool(self.own["cell"][k]):
                changes["cell"] = systems.cell[k].numpy()
            crystal = crystal.replace(**changes)
        stress = found.stress[k].numpy().copy() if member.crystal.pbc.all() else None
        steps = member.earlier + member.steps
        return Relaxed(status, crystal, float(found.energy[k]), found.forces[atoms].numpy(), stress, steps, member.seconds, reason)

    def _fail(self, member: _Member, reason: str, ended: dict[int, Relaxed], again: list[_Member]) -> None:
        """Start again with FIRE if that was not tried and a step was made, else give up."""
        reasons = (*member.reasons, f"{reason} ({member.method}, step {member.steps})")
        spent = member.earlier + member.steps
        if member.fire or self.goal.method != "auto" or not member.steps:
            ended[member.index] = Relaxed("failed", None, None, None, None, spent, member.seconds, "; ".join(reasons))
        else:
            again.append(_Member(member.index, member.crystal, "", member.fixed, True, spent, member.seconds, reasons))

    def _out_of_bounds(self) -> dict[int, str]:
        """Who left the bounds with the last step: nothing is computed for it."""
        if not self.members:
            return {}
        assert self.start is not None
        x = self.rows["x"]
        trace = x[self.cell_rows].diagonal(dim1=1, dim2=2).sum(1) / self.start.n_atoms
        finite = torch.ones(len(self.members), dtype=torch.bool)
        finite[self.system[~torch.isfinite(x).all(dim=1)]] = False
        ratio = torch.exp(trace.clamp(-50, 50)).tolist()
        found = {}
        for k, sound in enumerate(finite.tolist()):
            if not sound:
                found[k] = "a position or the cell is not a finite number"
            elif not 1 / MOST_VOLUME_CHANGE <= ratio[k] <= MOST_VOLUME_CHANGE:
                found[k] = f"the volume changed by a factor {ratio[k]:.3g} (bounds {1 / MOST_VOLUME_CHANGE:.2g} to {MOST_VOLUME_CHANGE:g})"
        return found

    def _step(self, forces: Tensor, cell_forces: Tensor) -> None:
        """Move everybody, each by its method."""
        f = torch.zeros_like(self.rows["x"])
        f[self.atom_rows] = forces
        f[self.cell_rows.flatten()] = cell_forces.reshape(-1, 3)
        fire = self.own["fire"]
        move = torch.zeros_like(f)
        if not bool(fire.all()):
            move = self._lbfgs(f)
        if bool(fire.any()):
            move = torch.where(fire[self.system][:, None], self._fire(f), move)
        self.rows["x_before"], self.rows["f_before"] = self.rows["x"], f
        self.rows["x"] = self.rows["x"] + move
        self.own["count"] = self.own["count"] + 1
        for member in self.members:
            member.steps += 1

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        """(B) scalar products."""
        return torch.zeros(len(self.members), dtype=torch.float64).index_add_(0, self.system, (a * b).sum(1))

    def _lbfgs(self, f: Tensor) -> Tensor:
        """Steps of L-BFGS, none longer than the longest allowed."""
        began = self.own["count"] > 0
        s, y = self.rows["x"] - self.rows["x_before"], self.rows["f_before"] - f
        along = self._dot(s, y)
        # a pair without positive curvature would turn steps uphill: it is left out
        good = began & (along > 1e-12)
        weight = torch.where(good, 1 / torch.where(good, along, torch.ones_like(along)), torch.zeros_like(along))
        mask = good[self.system][:, None, None]
        self.rows["s"] = torch.where(mask, torch.cat([s[:, None], self.rows["s"][:, :-1]], 1), self.rows["s"])
        self.rows["y"] = torch.where(mask, torch.cat([y[:, None], self.rows["y"][:, :-1]], 1), self.rows["y"])
        self.own["rho"] = torch.where(good[:, None], torch.cat([weight[:, None], self.own["rho"][:, :-1]], 1), self.own["rho"])
        rho = self.own["rho"]
        pairs = int((rho > 0).sum(1).amax())
        q, alphas = f, []
        for k in range(pairs):
            alpha = rho[:, k] * self._dot(self.rows["s"][:, k], q)
            q = q - alpha[self.system][:, None] * self.rows["y"][:, k]
            alphas.append(alpha)
        # the latest pair tells the scale of the curvature; a fixed guess as ASE's takes twice as many steps
        newest = self.rows["y"][:, 0]
        curvature = torch.where(rho[:, 0] > 0, rho[:, 0] * self._dot(newest, newest), torch.full_like(along, _FIRST_CURVATURE))
        q = q / curvature.clamp(_SOFTEST, _STIFFEST)[self.system][:, None]
        for k in reversed(range(pairs)):
            beta = rho[:, k] * self._dot(self.rows["y"][:, k], q)
            q = q + (alphas[k] - beta)[self.system][:, None] * self.rows["s"][:, k]
        longest = torch.zeros(len(self.members), dtype=torch.float64).scatter_reduce_(0, self.system, (q * q).sum(1), "amax").sqrt()
        return q * (_LONGEST_STEP / longest.clamp(min=_LONGEST_STEP))[self.system][:, None]

    def _fire(self, f: Tensor) -> Tensor:
        """Steps of FIRE."""
        v, dt, mix, since = self.rows["v"], self.own["dt"], self.own["mix"], self.own["since"]
        power, ff, vv = self._dot(f, v), self._dot(f, f), self._dot(v, v)
        down = power > 0
        turned = (mix * (vv / ff.clamp(min=1e-300)).sqrt())[self.system][:, None] * f
        v = torch.where(down[self.system][:, None], (1 - mix)[self.system][:, None] * v + turned, torch.zeros_like(v))
        fast = down & (since > _FIRE["wait"])
        moving = self.own["count"] > 0
        dt = torch.where(fast, (dt * _FIRE["grow"]).clamp(max=_FIRE["most"]), torch.where(down | ~moving, dt, dt * _FIRE["shrink"]))
        self.own["mix"] = torch.where(fast, mix * _FIRE["fade"], torch.where(down, mix, torch.full_like(mix, _FIRE["mix"])))
        self.own["since"] = torch.where(down, since + 1, torch.zeros_like(since))
        self.own["dt"] = dt
        v = v + dt[self.system][:, None] * f
        self.rows["v"] = v
        move = dt[self.system][:, None] * v
        length = self._dot(move, move).sqrt()
        return move * (_LONGEST_STEP / length.clamp(min=_LONGEST_STEP))[self.system][:, None]


def _blank(systems: Systems, members: Sequence[_Member], goal: Goal) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is remembered of systems that just came in, by row and by system."""
    sizes = systems.n_atoms.tolist()
    parts, mobile = [], []
    for positions, member in zip(systems.positions.split(sizes), members, strict=True):
        parts += [positions, torch.zeros(3, 3, dtype=torch.float64)]
        flag = torch.ones(len(positions) + 3, dtype=torch.float64)
        flag[list(member.fixed)] = 0
        mobile.append(flag)
    x = torch.cat(parts)
    r, b = len(x), len(systems)
    blank = torch.zeros(r, 3, dtype=torch.float64)
    history = torch.zeros(r, _MEMORY, 3, dtype=torch.float64)
    rows = {"x": x, "x_before": x, "f_before": blank, "v": blank, "s": history, "y": history, "mobile": torch.cat(mobile)}
    own = {
        "cell": systems.pbc.all(dim=1) & goal.cell,
        "fire": torch.tensor([member.fire for member in members]),
        "count": torch.zeros(b, dtype=torch.int64),
        "rho": torch.zeros(b, _MEMORY, dtype=torch.float64),
        "dt": torch.full((b,), _FIRE["first"], dtype=torch.float64),
        "mix": torch.full((b,), _FIRE["mix"], dtype=torch.float64),
        "since": torch.zeros(b, dtype=torch.int64),
    }
    return rows, own


def _trouble(complaint: str | None, energy: float, strongest: float, nearest: float) -> str:
    """What is wrong with the numbers of a system; nothing if they are sound."""
    if complaint is not None:
        return complaint
    if not np.isfinite(energy) or not np.isfinite(strongest):
        return f"energy {energy} eV or a force is not a finite number"
    if nearest < LEAST_DISTANCE:
        return f"two atoms came within {nearest:.2f} Å (least allowed {LEAST_DISTANCE} Å)"
    if strongest > FARTHEST_FORCE:
        return f"a force of {strongest:.3g} eV/Å (limit {FARTHEST_FORCE:g})"
    return ""


@dataclass(frozen=True, eq=False)
class _Group:
    """The space group of a crystal as it acts on vectors at its atoms (m operations).

    `images` (m, n): where each atom goes; `turns` (m, 3, 3): what happens to row vectors.
    """

    images: Tensor
    turns: Tensor

    @classmethod
    def of(cls, crystal: Crystal, tolerance: float = 1e-2) -> _Group:
        """Found with a tolerance in Å (InputError without three periodic directions)."""
        from naica.structure.symmetry import symmetry

        found = symmetry(crystal, tolerance)
        fractional = crystal.fractional
        inverse = np.linalg.inv(crystal.cell)
        images, turns = [], []
        for rotation, translation in zip(found.rotations, found.translations, strict=True):
            moved = fractional @ rotation.T + translation
            offset = moved[:, None, :] - fractional[None]
            offset -= np.rint(offset)
            distance = np.linalg.norm(offset @ crystal.cell, axis=2) + 1e6 * (crystal.numbers[:, None] != crystal.numbers[None])
            image = distance.argmin(axis=1)
            if len(set(image.tolist())) < len(image):
                continue  # at this tolerance the operation does not permute the atoms: it is not kept
            left, _, right = np.linalg.svd(inverse @ rotation.T @ crystal.cell)
            images.append(image)
            turns.append(left @ right)
        return cls(torch.from_numpy(np.array(images)), torch.from_numpy(np.array(turns)))

    def vectors(self, rows: Tensor) -> Tensor:
        """(n, 3) vectors at the atoms, averaged over the group."""
        turned = torch.einsum("na,gab->gnb", rows, self.turns)
        return torch.zeros_like(rows).index_add_(0, self.images.flatten(), turned.reshape(-1, 3)) / len(self.turns)

    def matrix(self, tensor: Tensor) -> Tensor:
        """(3, 3) averaged over the group."""
        return torch.einsum("gba,bc,gcd->ad", self.turns, tensor, self.turns) / len(self.turns)
