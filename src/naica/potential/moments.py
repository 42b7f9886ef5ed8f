"""Relaxation of magnetic moments: the least energy of a spin-dependent potential over the signed moments, with atoms fixed or moving.

The potential gives ``E(r, m)`` and its fields ``−∂E/∂m`` (eV/μ_B). Each crystal has a quasi-Newton search (L-BFGS-B, Byrd et al., SIAM J.
Sci. Comput. 16, 1190 (1995)) within ``|m| ≤ largest``. Moving atoms and moments take turns: moments at fixed atoms, then atoms and cell at
fixed moments, until neither moves. Each turn lowers the energy, so it ends.

An energy that is even in the moments has no field at m = 0 and many minima besides: what is found depends on the start. `tries` further
starts with random signs are searched as well, and the lowest counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from naica.errors import InputError
from naica.potential.evaluator import Evaluator, of
from naica.potential.relax import relax
from naica.potential.systems import Systems
from naica.structure import Crystal

Array = NDArray[np.float64]
_AT_BOUND = 1e-6
_MOST_TURNS = 30


@dataclass(frozen=True)
class RelaxedMoments:
    """What became of one crystal.

    `crystal` has the moments found in its ``info`` (None if nothing could be computed), `energy` is in eV for the whole cell, `moments` (n)
    in μ_B, `field` the largest |∂E/∂m| left, eV/μ_B, `force` the largest force left, eV/Å. `steps` counts evaluations for the moments, of
    all starts, `turns` how often atoms were moved.
    """

    status: Literal["converged", "not converged", "failed"]
    crystal: Crystal | None
    energy: float | None
    moments: Array | None
    field: float | None
    force: float | None
    steps: int
    turns: int
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class MomentGoal:
    """When moments are relaxed, and where the search starts.

    Parameters
    ----------
    field : eV/μ_B, largest slope left by any moment
    steps : most evaluations per start
    largest : μ_B, no moment grows beyond it
    first : μ_B, size of the moments of a start the crystal does not give itself: all parallel, or with random signs
    tries : further starts with random signs
    seed : of the signs
    """

    field: float = 1e-3
    steps: int = 300
    largest: float = 12.0
    first: float = 2.0
    tries: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.field > 0 and self.steps >= 1 and self.tries >= 0 and 0 < self.first <= self.largest):
            raise InputError(
                f"field {self.field}, steps {self.steps}, tries {self.tries}, first {self.first}, largest {self.largest}; "
                "expected field > 0 eV/μ_B, steps ≥ 1, tries ≥ 0 and 0 < first ≤ largest μ_B"
            )


def relax_moments(
    crystals: Crystal | Sequence[Crystal],
    model: Any,
    goal: MomentGoal | None = None,
    *,
    atoms: Mapping[str, Any] | None = None,
    dtype: str = "float64",
    progress: Callable[[int, int], None] | None = None,
) -> list[RelaxedMoments]:
    """Relax the moments of crystals, and with `atoms` positions and cells as well.

    Parameters
    ----------
    crystals : one or many; each starts from the ``moments`` (n) in its `info`, or from parallel ones
    model : a potential that depends on moments (trained with ``parts.spin = "collinear"``), by anything `relax` takes
    goal : when to stop
    atoms : settings of `relax` (``fmax``, ``steps``, ``cell`` …) where atoms move too; None keeps them
    progress : called with (done, total) after each crystal

    Returns
    -------
    One `RelaxedMoments` per crystal, in order. What goes wrong with one crystal is its `reason`, not an exception.

    Raises
    ------
    ConfigError, MissingPart
        If the model is unknown or not installed.
    InputError
        If the potential does not depend on moments, or moments in an `info` are not one number per atom.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r}; expected float32 or float64")
    goal = goal or MomentGoal()
    evaluator = of(model, getattr(torch, dtype))
    items = [crystals] if isinstance(crystals, Crystal) else list(crystals)
    done: list[RelaxedMoments] = []
    for crystal in items:
        done.append(_one(crystal, evaluator, goal, atoms, dtype))
        if progress is not None:
            progress(len(done), len(items))
    return done


@dataclass(frozen=True)
class _Found:
    """The end of one search: energy, moments, largest slope, evaluations, and what is wrong with it."""

    energy: float
    moments: Array
    field: float
    steps: int
    trouble: str


class _Sick(Exception):
    """The potential could not say anything."""


def _one(crystal: Crystal, evaluator: Evaluator, goal: MomentGoal, atoms: Mapping[str, Any] | None, dtype: str) -> RelaxedMoments:
    start, turns, force = time.perf_counter(), 0, None
    try:
        best, steps = _lowest(crystal, evaluator, goal)
        at = _with(crystal, best.moments)
        trouble = best.trouble
        while atoms is not None and not trouble:
            moved = relax(at, evaluator, **atoms, dtype=dtype)[0]
            if moved.crystal is None or moved.status == "failed":
                raise _Sick(moved.reason)
            turns, force = turns + 1, None if moved.forces is None else float(np.abs(moved.forces).max(initial=0.0))
            at = _with(moved.crystal, best.moments)
            trouble = moved.reason if moved.status != "converged" else ""
            best = _search(at, best.moments, evaluator, goal)
            steps += best.steps
            trouble = trouble or best.trouble
            # a search that had nothing to do leaves the atoms where they are at rest
            if best.steps <= 1 or trouble:
                break
            at = _with(at, best.moments)
            if turns >= _MOST_TURNS:
                trouble = f"atoms and moments still move each other after {turns} turns"
    except _Sick as error:
        return RelaxedMoments("failed", None, None, None, None, None, 0, turns, time.perf_counter() - start, str(error))
    status: Literal["converged", "not converged"] = "not converged" if trouble else "converged"
    seconds = time.perf_counter() - start
    return RelaxedMoments(status, at, best.energy, best.moments, best.field, force, steps, turns, seconds, trouble)


def _with(crystal: Crystal, moments: Array) -> Crystal:
    return crystal.replace(info={**crystal.info, "moments": moments})


def _lowest(crystal: Crystal, evaluator: Evaluator, goal: MomentGoal) -> tuple[_Found, int]:
    """The lowest end of all starts, sound ones first, and the evaluations of all."""
    given = crystal.info.get("moments")
    Systems.of(crystal)  # refuses moments that are not one number per atom
    starts = [np.full(len(crystal), goal.first) if given is None else np.asarray(given, dtype=np.float64)]
    draw = np.random.default_rng(goal.seed)
    starts += [goal.first * draw.choice([-1.0, 1.0], len(crystal)) for _ in range(goal.tries)]
    found = [_search(crystal, one, evaluator, goal) for one in starts]
    return min(found, key=lambda one: (bool(one.trouble), one.energy)), sum(one.steps for one in found)


def _search(crystal: Crystal, moments: Array, evaluator: Evaluator, goal: MomentGoal) -> _Found:
    """The minimum over the moments next to a start, atoms fixed."""
    from scipy.optimize import minimize

    systems, calls = Systems.of(crystal), 0

    def told(m: Array) -> tuple[float, Array]:
        nonlocal calls
        calls += 1
        found = evaluator.evaluate(systems.replace(moments=torch.from_numpy(np.array(m, dtype=np.float64))))
        if found.complaints:
            raise _Sick(found.complaints[0])
        if "moment_field" not in found.atoms:
            raise InputError(
                "this potential does not depend on moments; expected one trained with parts.spin = collinear (it gives moment_field)"
            )
        energy, slope = float(found.energy[0]), -found.atoms["moment_field"].double().numpy()
        if not (np.isfinite(energy) and np.isfinite(slope).all()):
            raise _Sick(f"energy {energy} eV or a field at moments up to {np.abs(m).max():.2f} μ_B is not finite")
        return energy, slope

    evaluator.forget()
    first = np.clip(moments, -goal.largest, goal.largest)
    energy, slope = told(first)
    if np.abs(slope).max() > goal.field:
        options = {"gtol": goal.field, "ftol": 0.0, "maxfun": goal.steps, "maxiter": goal.steps, "maxcor": 20}
        end = minimize(told, first, jac=True, method="L-BFGS-B", bounds=[(-goal.largest, goal.largest)] * len(first), options=options)
        first = np.asarray(end.x, dtype=np.float64)
        energy, slope = told(first)
    left = float(np.abs(slope).max())
    bound = np.flatnonzero(np.abs(first) > goal.largest - _AT_BOUND)
    trouble = ""
    if len(bound):
        trouble = f"the moment of atom {bound[0]} reached the largest allowed, {goal.largest:g} μ_B: no minimum below it"
    elif left > goal.field:
        trouble = f"a field of {left:.2g} eV/μ_B is left after {calls} evaluations"
    return _Found(energy, first, left, calls, trouble)
