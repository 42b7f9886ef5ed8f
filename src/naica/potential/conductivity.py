"""Ionic conductivity from scratch, by the protocol of GNoME: molecular dynamics at 1000 K, and the verdict superionic or not.

Merchant et al., Nature 624, 80 (2023), Methods: 50 ps at 1000 K in steps of 2 fs with a Nosé–Hoover thermostat that relaxes within 40
steps; the first 10 ps are dropped; the diffusivity is as pymatgen's analyser has it, the conductivity by Nernst and Einstein; superionic
above 10^1.18 mS/cm.
The paper does not say how large its cells were: here a cell is repeated until its faces are at least `width` apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naica.errors import InputError, RunError
from naica.potential.simulate import Pace, md
from naica.potential.single_points import relaxed, repeats_for, whole
from naica.potential.transport import MOBILE, SUPERIONIC, Diffusion, Estimate, analyser_fit, diffusion, nernst_einstein
from naica.potential.walk import Walk, read_walk
from naica.structure import Crystal

CHARGES = {"Li": 1.0, "Na": 1.0, "K": 1.0, "Mg": 2.0, "Ca": 2.0}


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether it is superionic.

    Parameters
    ----------
    diffusion : what the trajectory says of the mobile ions
    charge : of the ion, e
    conductivity : mS/cm at `diffusion.temperature`, with its standard error
    published_rule : mS/cm, with the diffusivity as pymatgen's analyser fits it; None where it holds the trajectory to be too short
    superionic : whether `published_rule` is above the threshold, as GNoME decided; without one, whether `conductivity` is
        and diffusion is resolved
    probability : that the true conductivity is above it, from `conductivity` and its error
    threshold : mS/cm
    framework : root mean square displacement of the other atoms between the first and last tenth, Å; a framework that melts has no verdict
    melted : whether the framework diffuses
    """

    diffusion: Diffusion
    charge: float
    conductivity: Estimate
    published_rule: float | None
    superionic: bool
    probability: float
    threshold: float
    framework: float
    melted: bool


def mobile_ion(crystal: Crystal) -> str:
    """The mobile ion: the first of Li, Na, K, Mg, Ca that is in it.

    Raises
    ------
    InputError
        If none is.
    """
    found = next((species for species in MOBILE if species in crystal.composition), None)
    if found is None:
        raise InputError(f"{crystal.formula} has no mobile species of {', '.join(MOBILE)}; name the ion that should move, and its charge")
    return found


def conductivity(
    crystal: Crystal,
    model: Any,
    path: str | Path,
    *,
    species: str | None = None,
    charge: float | None = None,
    temperature: float = 1000.0,
    duration: float = 50_000.0,
    drop: float = 10_000.0,
    dt: float = 2.0,
    width: float = 9.0,
    relax: bool = True,
    seed: int = 0,
    every: int = 25,
    dtype: str = "float64",
    progress: Callable[[Pace], None] | None = None,
) -> Verdict:
    """Run the protocol; a run that was interrupted goes on from the trajectory at `path`.

    Parameters
    ----------
    model : a name, a folder, a potential, an ASE calculator
    path : of the trajectory (.ntr)
    species, charge : the mobile ion; None: found by `mobile_ion`, with its usual charge
    temperature : K
    duration, drop : fs, of the run and of what is left out at its start
    dt : fs
    width : Å, at least between opposite faces of the simulated cell
    relax : relax cell and atoms before
    every : steps between frames

    Raises
    ------
    InputError
        For what is no crystal, has no mobile species, or times that do not fit.
    RunError
        If the relaxation fails or the run leaves the potential's region.
    """
    whole(crystal)
    ion = species or mobile_ion(crystal)
    if ion not in crystal.composition:
        raise InputError(f"{crystal.formula} has no {ion}")
    if charge is None and ion not in CHARGES:
        raise InputError(f"give the charge of {ion} in e")
    if not 0 <= drop < duration:
        raise InputError(f"{duration / 1e3:g} ps of which the first {drop / 1e3:g} ps are dropped; expected less dropped than run")
    path = Path(path)
    cell = crystal if not relax else _relaxed_once(crystal, model, path)
    large = cell.supercell(repeats_for(cell, width))
    done = md(
        large,
        model,
        "nvt",
        temperature,
        round(duration / dt),
        dt=dt,
        path=path,
        seed=seed,
        every=every,
        dtype=dtype,
        relaxation=40 * dt,
        progress=progress,
    )
    if done.stopped:
        raise RunError(f"the run was stopped at step {done.stopped[0].step}: {done.stopped[0].reason}")
    return judged(read_walk(path).after(drop), ion, CHARGES[ion] if charge is None else charge, temperature)


def judged(walk: Walk, species: str, charge: float = 1.0, temperature: float | None = None, threshold: float = SUPERIONIC) -> Verdict:
    """The verdict on a trajectory whose start was dropped already.

    Parameters
    ----------
    temperature : K; None: what the trajectory says
    threshold : mS/cm

    Raises
    ------
    InputError
        For an unknown species, a trajectory that is too short, or one without volume or temperature.
    """
    found = diffusion(walk, species, temperature=temperature)
    sigma = found.conductivity(charge)
    assert found.density is not None
    assert found.temperature is not None
    try:
        published = nernst_einstein(analyser_fit(walk, species), found.density, charge, found.temperature)
    except InputError:
        published = None
    # the published rule has no error bar; our own number decides only where diffusion is told from shaking
    superionic = published > threshold if published is not None else found.resolved and sigma.value > threshold
    others = [name for name in walk.species if name != species]
    far, melted = 0.0, False
    for name in others:
        rest = diffusion(walk, name, framework=others, temperature=temperature)
        shift = max(0.0, float(rest.displacement.mean[-1]))
        far = max(far, shift**0.5)
        # solids shake; what left its place by more than an interatomic distance and still goes on has melted
        melted = melted or (rest.resolved and shift > 9.0)
    return Verdict(found, charge, sigma, published, superionic, sigma.above(threshold), threshold, far, melted)


def _relaxed_once(crystal: Crystal, model: Any, path: Path) -> Crystal:
    """Relaxed, or what an earlier start of this run had relaxed it to: a resumed run must begin from the same cell."""
    from naica.structure.io import read, write

    kept = path.with_suffix(".relaxed.json")
    if kept.is_file():
        found = read(kept)
        if not isinstance(found, Crystal) or found.composition != crystal.composition:
            raise InputError(f"{kept} holds another structure; name another trajectory, or remove the file")
        return found
    made = relaxed(crystal, model, 0.02)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(made.replace(info={}), kept)
    return made
