"""Descriptors: values worked out from a row on demand. A family makes several values in one go; each says its unit and what it costs.

``needs`` tells how dear a family is: "formula", "structure", "table" (other rows too) or "potential" (energies and forces are computed, so
it runs only within a budget).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from naica.discover.screens.source import Row
from naica.errors import ConfigError, InputError

Needs = Literal["formula", "structure", "table", "potential"]
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """Values that are made together.

    Parameters
    ----------
    name : of the family, under which ``[options.NAME]`` of a screen sets it
    values : name → (unit, what it is)
    make : from a row and the options to the values; raises InputError or RunError where a row has none
    options : defaults
    """

    name: str
    needs: Needs
    values: Mapping[str, tuple[str, str]]
    make: Callable[..., Values]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, row: Row, options: Mapping[str, Any]) -> Values:
        """The values of a row."""
        return self.make(row, **{**self.options, **options})


# --- from the formula and the structure -----------------------------------------------------------------------------------------------
def _facts(row: Row) -> Values:
    from naica.discover.screens.electrodes import density

    crystal = row.crystal
    return {
        "n_atoms": len(crystal),
        "n_elements": len(crystal.composition),
        "volume_per_atom": crystal.volume / len(crystal),
        "density": density(crystal),
    }


def _symmetry(row: Row, tolerance: float) -> Values:
    from naica.structure.symmetry import prototype_label, symmetry

    found = symmetry(row.crystal, tolerance)
    return {
        "spacegroup_number": found.number,
        "spacegroup_symbol": found.symbol,
        "crystal_system": found.crystal_system,
        "prototype": prototype_label(row.crystal, tolerance),
    }


def _balance(row: Row) -> Values:
    from naica.structure.oxidation import is_balanced

    return {"balanced": is_balanced(row.source.counts(row.index))}


def _dimensionality(row: Row) -> Values:
    from naica.discover.screens.dimensionality import dimensionality

    found = dimensionality(row.crystal)
    scores = found.scores
    return {
        "dimensionality": found.kind,
        "dimensionality_score": found.score,
        **{f"score_{d}d": scores.get(f"{d}D", 0.0) for d in range(4)},
    }


def _cheon(row: Row, tolerance: float) -> Values:
    from naica.discover.screens.dimensionality import bonded_dimension

    return {"bonded_dimension": bonded_dimension(row.crystal, tolerance)}


def _paths(row: Row, ion: str, radius: float) -> Values:
    from naica.discover.screens.pathways import ion_paths

    found = ion_paths(row.crystal, ion)
    finite = [r if r > -1.0 else None for r in found.bottleneck]
    return {
        "path_dimension": found.dimension(radius),
        **{f"bottleneck_{d + 1}d": finite[d] for d in range(3)},
        "ion_site_radius": found.site,
    }


def _capacity(row: Row, ion: str) -> Values:
    from naica.discover.screens.electrodes import capacity, density, removable

    counts = row.source.counts(row.index)
    whole = capacity(counts, ion)
    try:
        share = removable(counts, ion) / counts[ion]
    except InputError:
        share = None
    rho = density(row.crystal)
    return {
        "capacity": whole,
        "volumetric_capacity": whole * rho,
        "redox_share": share,
        "redox_capacity": None if share is None else whole * share,
    }


def _perovskite(row: Row) -> Values:
    from naica.discover.screens.perovskites import perovskite, tolerance

    found = perovskite(row.crystal)
    if found is None:
        return {"perovskite": False}
    told: dict[str, Any] = {
        "perovskite": True, "a_site": "+".join(found.a), "b_site": "+".join(found.b), "x_site": "+".join(found.x), "tilt": found.tilt,
        "octahedral_distortion": found.distortion,
    }  # fmt: skip
    try:
        sizes = tolerance(found, row.crystal)
    except InputError:
        # ions without charges or radii leave the factors open; the network is a perovskite all the same
        return told
    return {**told, "goldschmidt_factor": sizes.t, "bartel_factor": sizes.tau}


# --- from the other rows ----------------------------------------------------------------------------------------------------------------
def _hull(row: Row) -> Values:
    return {"energy_above_hull": row.source.above_hull(row.index)}


def _voltage(row: Row, ion: str) -> Values:
    from naica.discover.screens.electrodes import capacity

    found = row.source.couple(row.crystal, row.index, ion)
    if found is None:
        return {}
    whole = capacity(row.source.counts(row.index), ion)
    return {
        "voltage": found.voltage,
        "charged_id": found.charged,
        "topotactic": found.topotactic,
        "host_distance": found.distance,
        "specific_energy": found.voltage * whole,
    }


# --- with a potential ---------------------------------------------------------------------------------------------------------------------
def _computed_voltage(row: Row, potential: str, ion: str, fmax: float, steps: int) -> Values:
    from naica.discover.screens.electrodes import computed_voltage
    from naica.potential.calculators import level_of

    return {"computed_voltage": computed_voltage(row.crystal, potential, ion, fmax, steps), "voltage_level": str(level_of(potential))}


def _phonons(row: Row, potential: str, width: float, fmax: float, soft: float) -> Values:
    from naica.potential.calculators import level_of
    from naica.potential.phonons import phonons

    found = phonons(row.crystal, potential, width=width, fmax=fmax)
    return {
        "lowest_phonon": found.lowest,
        "phonon_stable": found.lowest > -soft,
        "soft_at": " ".join(f"{q:.3f}" for q in found.lowest_at),
        "phonon_level": str(level_of(potential)),
    }


def _md(
    row: Row,
    potential: str,
    ion: str,
    charge: float,
    temperature: float,
    duration: float,
    drop: float,
    dt: float,
    width: float,
    seed: int,
    folder: str,
) -> Values:
    from naica.potential.calculators import level_of
    from naica.potential.conductivity import conductivity

    # an id may be the path of a file
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{row.formula}-{row.id}")
    place = Path(folder) / f"{name}.ntr"
    place.parent.mkdir(parents=True, exist_ok=True)
    found = conductivity(
        row.crystal, potential, place, species=ion, charge=charge or None, temperature=temperature, duration=duration, drop=drop, dt=dt,
        width=width,
        seed=seed,
    )  # fmt: skip
    return {
        "conductivity": found.conductivity.value,
        "conductivity_error": found.conductivity.sigma,
        "superionic": found.superionic,
        "superionic_probability": found.probability,
        "diffusion_resolved": found.diffusion.resolved,
        "framework_melted": found.melted,
        "conductivity_level": f"{level_of(potential)}, {temperature:g} K, {duration / 1000:g} ps",
    }


_LEVEL = ("", "the level of theory that was used")
FAMILIES: tuple[Family, ...] = (
    Family(
        "facts", "structure",
        {"n_atoms": ("1", "atoms in the cell"), "n_elements": ("1", "different elements"), "volume_per_atom": ("Å³/atom", "volume"),
         "density": ("g/cm³", "density")},
        _facts,
    ),
    Family(
        "symmetry", "structure",
        {"spacegroup_number": ("", "number of the space group"), "spacegroup_symbol": ("", "its symbol"),
         "crystal_system": ("", "triclinic … cubic"), "prototype": ("", "AFLOW-style label")},
        _symmetry, {"tolerance": 0.01},
    ),
    Family("balance", "formula", {"balanced": ("", "whether oxidation states add up to zero")}, _balance),
    Family(
        "dimensionality", "structure",
        {"dimensionality": ("", "0D molecules, 1D chains, 2D layers, 3D framework, or several (02D), by the best score"),
         "dimensionality_score": ("1", "its score, 0 to 1"), **{f"score_{d}d": ("1", f"score of {d}D alone") for d in range(4)}},
        _dimensionality,
    ),
    Family(
        "bonded_dimension", "structure", {"bonded_dimension": ("1", "dimension at one bond criterion: sum of Jmol radii + tolerance")},
        _cheon, {"tolerance": 0.45},
    ),
    Family(
        "paths", "structure",
        {"path_dimension": ("1", "directions in which the ion finds endless paths of at least `radius` Å"),
         **{f"bottleneck_{d}d": ("Å", f"narrowest free radius on the widest paths in {d} directions") for d in (1, 2, 3)},
         "ion_site_radius": ("Å", "free radius at the ion's widest site")},
        _paths, {"ion": "Li", "radius": 0.47},
    ),
    Family(
        "capacity", "structure",
        {"capacity": ("mAh/g", "theoretical, all ions out"), "volumetric_capacity": ("mAh/cm³", "the same by volume"),
         "redox_share": ("1", "share of the ions the metals' oxidation allows out"), "redox_capacity": ("mAh/g", "capacity of that share")},
        _capacity, {"ion": "Li"},
    ),
    Family(
        "perovskite", "structure",
        {"perovskite": ("", "whether its network is one"), "a_site": ("", "elements on A"), "b_site": ("", "elements on B"),
         "x_site": ("", "elements on X"), "tilt": ("degrees", "180 less the mean angle B–X–B"),
         "octahedral_distortion": ("1", "relative spread of B–X distances"), "goldschmidt_factor": ("1", "t"),
         "bartel_factor": ("1", "τ, perovskite expected below 4.18")},
        _perovskite,
    ),
    Family("hull", "table", {"energy_above_hull": ("eV/atom", "above the hull of this table's own formation energies")}, _hull),
    Family(
        "voltage", "table",
        {"voltage": ("V", "average, against the ion's metal, from two formation energies of this table"),
         "charged_id": ("", "the charged row"), "topotactic": ("", "whether the host keeps its structure"),
         "host_distance": ("1", "rms distance of host and charged row"), "specific_energy": ("Wh/kg", "voltage times capacity")},
        _voltage, {"ion": "Li"},
    ),
    Family(
        "computed_voltage", "potential",
        {"computed_voltage": ("V", "average, all ions out, host relaxed with and without them"), "voltage_level": _LEVEL},
        _computed_voltage, {"potential": "chgnet", "ion": "Li", "fmax": 0.05, "steps": 300},
    ),
    Family(
        "phonons", "potential",
        {"lowest_phonon": ("THz", "lowest frequency, below 0 imaginary"), "phonon_stable": ("", "no frequency below −`soft` THz"),
         "soft_at": ("", "its q"), "phonon_level": _LEVEL},
        _phonons, {"potential": "chgnet", "width": 10.0, "fmax": 0.005, "soft": 0.1},
    ),
    Family(
        "md", "potential",
        {"conductivity": ("mS/cm", "of the ion, by Nernst and Einstein"), "conductivity_error": ("mS/cm", "standard error"),
         "superionic": ("", "verdict at 10^1.18 mS/cm"), "superionic_probability": ("1", "that it is"),
         "diffusion_resolved": ("", "whether diffusion is told from shaking"), "framework_melted": ("", "whether the framework diffuses"),
         "conductivity_level": _LEVEL},
        _md,
        {"potential": "chgnet", "ion": "Li", "charge": 0.0, "temperature": 1000.0, "duration": 50_000.0, "drop": 10_000.0, "dt": 2.0,
         "width": 9.0, "seed": 0, "folder": "screen-md"},
    ),
)  # fmt: skip
_BY_VALUE = {value: family for family in FAMILIES for value in family.values}


def family_of(value: str) -> Family | None:
    """The family that makes a value; None if none does."""
    return _BY_VALUE.get(value)


def unit_of(value: str) -> str:
    """Unit of a descriptor's value."""
    return _BY_VALUE[value].values[value][0]


def checked_options(options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings of families, or a ConfigError that names the unknown family or key."""
    known = {family.name: family for family in FAMILIES}
    for name, settings in options.items():
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            raise ConfigError(
                f"[options.{name}] sets nothing; " + (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}"
            )
        for key, value in settings.items():
            if key not in known[name].options:
                raise ConfigError(f"[options.{name}] has no key {key!r}; known here: {', '.join(known[name].options) or 'none'}")
            default = known[name].options[key]
            number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
            if not (isinstance(value, type(default)) or number):
                raise ConfigError(f"[options.{name}] {key} = {value!r}; expected a {type(default).__name__} such as {default!r}")
    return {name: dict(settings) for name, settings in options.items()}
