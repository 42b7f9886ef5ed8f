"""Answers about materials from a potential: transport, equation of state, elasticity, phonons, structure, melting, export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naica.app.answer import Answer, Table, number
from naica.app.requests_properties import (
    ConductivityRequest,
    ElasticRequest,
    EosRequest,
    ExportRequest,
    MeltRequest,
    PhononRequest,
    StructureRequest,
    TransportRequest,
)
from naica.app.structures import read_structures
from naica.errors import InputError, NaicaError, RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from naica.potential.transport import Arrhenius, Diffusion, Estimate
    from naica.structure import Crystal

Report = Callable[[int, int], None]
_GPA = 160.21766208


def _silent(done: int, total: int) -> None:
    """For callers that need no progress."""


# --- transport ----------------------------------------------------------------------------------------------------------------------------
def transport(request: TransportRequest, progress: Report = _silent) -> Answer:
    """Diffusivities with errors; with several temperatures the activation energy.

    Raises
    ------
    InputError
        For unreadable trajectories, unknown species, or numbers of temperatures that do not fit.
    """
    from naica.potential import transport as physics
    from naica.potential.walk import read_walk

    given = request.temperatures
    if len(given) not in (0, 1, len(request.files)):
        raise InputError(f"{len(given)} temperatures for {len(request.files)} trajectories; give one for all, or one each")
    kelvin = [given[k if len(given) > 1 else 0] if given else None for k in range(len(request.files))]
    runs, rules = [], []
    for k, (file, warm) in enumerate(zip(request.files, kelvin, strict=True)):
        walk = read_walk(file, interval=request.interval, temperature=warm)
        walk = walk.after(request.drop) if request.drop else walk
        runs.append(physics.diffusion(walk, request.species, begin=request.begin, end=request.end))
        rules.append(_or_none(lambda walk=walk: physics.analyser_fit(walk, request.species)))  # type: ignore[misc]
        progress(k + 1, len(request.files))
    line, remark = None, ""
    known = [run.temperature for run in runs if run.temperature is not None]
    if len(known) > 1 and np.ptp(known) > _SAME:
        groups = [physics.merged(group) for group in _by_temperature(runs)]
        try:
            line = physics.arrhenius(groups)
        except InputError as error:
            remark = str(error)
    else:
        groups = runs
    pictures = _transport_pictures(request.plot, runs, groups, line)
    rows = [_transport_row(run, rule, request.charge) for run, rule in zip(runs, rules, strict=True)]
    data = {
        "species": request.species,
        "charge": request.charge,
        "runs": rows,
        "arrhenius": None if line is None else _line_data(line, groups, request),
        "written": [str(path) for path in pictures],
    }
    blocks: list[Table | str] = [_transport_table(rows)]
    if line is not None:
        blocks.append(_line_words(data["arrhenius"], request))  # type: ignore[arg-type]
    notes = [f"{run.name}: {_UNSETTLED}" for run in runs if run.unsettled > run.tracer.value / 10]
    notes += [f"{run.name}: no diffusion is resolved" for run in runs if not run.resolved]
    notes += [remark] if remark else []
    return Answer(data, tuple(blocks), (*notes, *(f"wrote {path}" for path in pictures)))


# K, within which runs count as being at one temperature
_SAME = 15.0
_UNSETTLED = "the displacement is not a straight line yet; its error says how far that may go. Run longer"


def _or_none(compute: Callable[[], float]) -> float | None:
    try:
        return compute()
    except InputError:
        return None


def _by_temperature(runs: Sequence[Diffusion]) -> list[list[Diffusion]]:
    """Runs whose temperatures follow each other closely; each group is one system's."""
    groups: list[list[Diffusion]] = []
    for run in sorted((run for run in runs if run.temperature is not None), key=lambda one: one.temperature or 0.0):
        last = groups[-1][0] if groups else None
        if last is not None and abs((run.temperature or 0) - (last.temperature or 0)) <= _SAME and run.atoms == last.atoms:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _pair(value: Estimate | None) -> dict[str, float] | None:
    return None if value is None else {"value": value.value, "sigma": value.sigma}


def _transport_row(run: Diffusion, rule: float | None, charge: float | None) -> dict[str, Any]:
    known = charge is not None and run.temperature is not None and run.density is not None
    return {
        "file": run.name,
        "atoms": run.atoms,
        "temperature": run.temperature,
        "duration_ps": run.duration / 1e3,
        "fit_fs": list(run.fit),
        "diffusivity_cm2_s": _pair(run.tracer),
        "collective_diffusivity_cm2_s": _pair(run.collective),
        "haven_ratio": _pair(run.haven),
        "pymatgen_rule_cm2_s": rule,
        "conductivity_mS_cm": _pair(run.conductivity(charge)) if known else None,  # type: ignore[arg-type]
        "collective_conductivity_mS_cm": _pair(run.conductivity(charge, collective=True)) if known else None,  # type: ignore[arg-type]
        "unsettled_cm2_s": run.unsettled,
        "moving_together": run.together,
        "resolved": run.resolved,
        "msd": {"lag_fs": run.displacement.lag, "A2": run.displacement.mean, "sigma_A2": run.displacement.sigma},
    }


def _shown(pair: dict[str, float] | None, scale: float = 1.0, digits: int = 2) -> str:
    return "–" if pair is None else f"{number(pair['value'] * scale, digits)} ± {number(pair['sigma'] * scale, digits)}"


def _transport_table(rows: Sequence[dict[str, Any]]) -> Table:
    heads = ("file", "T (K)", "D (1e-5 cm²/s)", "D collective", "Haven ratio", "σ (mS/cm)", "lags (ps)", "pymatgen's D")
    cells = tuple(
        (
            Path(row["file"]).name,
            number(row["temperature"], 0),
            _shown(row["diffusivity_cm2_s"], 1e5),
            _shown(row["collective_diffusivity_cm2_s"], 1e5),
            _shown(row["haven_ratio"]),
            _shown(row["conductivity_mS_cm"], digits=1),
            f"{row['fit_fs'][0] / 1e3:.2g}–{row['fit_fs'][1] / 1e3:.3g}",
            "–" if row["pymatgen_rule_cm2_s"] is None else number(row["pymatgen_rule_cm2_s"] * 1e5, 2),
        )
        for row in rows
    )
    return Table(heads, cells, right=heads[1:])


def _line_data(line: Arrhenius, groups: Sequence[Diffusion], request: TransportRequest) -> dict[str, Any]:
    from naica.potential.transport import nernst_einstein

    found: dict[str, Any] = {
        "activation_energy_eV": _pair(line.activation),
        "ln_prefactor_cm2_s": _pair(line.log_prefactor),
        "chi_squared": line.chi_squared,
        "temperatures": list(line.temperatures),
        "left_out": list(line.left_out),
    }
    if request.at is not None:
        value, width = line.at(request.at)
        found["extrapolated"] = {"temperature": request.at, "diffusivity_cm2_s": value, "factor": float(np.exp(width))}
        density = groups[0].density
        if request.charge is not None and density is not None:
            found["extrapolated"]["conductivity_mS_cm"] = nernst_einstein(value, density, request.charge, request.at)
    return found


def _line_words(data: dict[str, Any], request: TransportRequest) -> str:
    text = f"activation energy {_shown(data['activation_energy_eV'], digits=3)} eV from {len(data['temperatures'])} temperatures"
    if "extrapolated" in data:
        far = data["extrapolated"]
        text += f"; at {far['temperature']:g} K D = {far['diffusivity_cm2_s']:.2e} cm²/s within a factor {far['factor']:.2f}"
        if "conductivity_mS_cm" in far:
            text += f", σ = {far['conductivity_mS_cm']:.3g} mS/cm"
    return text


def _transport_pictures(folder: Path | None, runs: Sequence[Diffusion], groups: Sequence[Diffusion], line: Arrhenius | None) -> list[Path]:
    if folder is None:
        return []
    from naica.insight.property_plots import arrhenius_plot, msd_plot

    names = [Path(run.name).stem for run in runs] if line is None else None
    written = [_saved(msd_plot(runs, names), folder / "msd.png")]
    if line is not None:
        written.append(_saved(arrhenius_plot(groups, line), folder / "arrhenius.png"))
    return written


def _saved(figure: Figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise RunError(f"cannot write {path}: {error}") from error
    return path


def conductivity(request: ConductivityRequest, progress: Report = _silent) -> Answer:
    """GNoME's protocol from a structure to the verdict; resumes from the trajectory it wrote."""
    from naica.potential.conductivity import conductivity as run

    crystal = _one(request.file)
    found = run(
        crystal,
        request.model,
        request.out,
        species=request.species,
        charge=request.charge,
        temperature=request.temperature,
        duration=request.duration * 1e3,
        drop=request.drop * 1e3,
        dt=request.dt,
        width=request.width,
        relax=request.relax,
        seed=request.seed,
        dtype="float32" if request.fast else "float64",
        progress=lambda pace: progress(pace.done, pace.total),
    )
    data = {
        "formula": crystal.formula,
        "model": request.model,
        "temperature": request.temperature,
        "conductivity_mS_cm": _pair(found.conductivity),
        "published_rule_mS_cm": found.published_rule,
        "superionic": found.superionic,
        "probability": found.probability,
        "threshold_mS_cm": found.threshold,
        "framework_displacement_A": found.framework,
        "melted": found.melted,
        "diffusion": _transport_row(found.diffusion, None, found.charge),
        "trajectory": str(request.out),
    }
    verdict = "superionic" if found.superionic else "not superionic"
    words = [
        f"{crystal.formula}: σ({request.temperature:g} K) = {_shown(data['conductivity_mS_cm'], digits=1)} mS/cm"  # type: ignore[arg-type]
        f" (pymatgen's rule: {number(found.published_rule, 1)})",
        f"{verdict} (threshold {found.threshold:.2f} mS/cm); probability of being above it {found.probability:.0%}",
    ]
    if found.melted:
        words.append(f"the framework melted (it moved by {found.framework:.1f} Å): this is the conductivity of a liquid")
    notes = [f"trajectory: {request.out}"]
    if request.plot:
        from naica.insight.property_plots import msd_plot

        notes.append(f"wrote {_saved(msd_plot([found.diffusion]), request.plot)}")
    return Answer(data, tuple(words), tuple(notes))


# --- statics ------------------------------------------------------------------------------------------------------------------------------
def _one(file: Path) -> Crystal:
    good, bad = read_structures([file])
    if bad:
        raise InputError(f"{bad[0].name}: {bad[0].reason}")
    return good[0].crystal


def eos(request: EosRequest, progress: Report = _silent) -> Answer:
    """Equations of state; what fails is a row with its reason. Exit code 2 if all failed."""
    from naica.insight.property_plots import eos_plot
    from naica.potential.eos import EQUATIONS, equation_of_state, fit

    good, bad = read_structures(request.files)
    rows: list[dict[str, Any]] = [{"file": one.name, "error": one.reason} for one in bad]
    notes = []
    for k, named in enumerate(good):
        try:
            first = equation_of_state(
                named.crystal, request.model, span=request.span, points=request.points, relax=request.relax, fmax=0.01
            )
            curves = [first, *(fit(first.volumes, first.energies, form, first.atoms) for form in EQUATIONS if form != first.form)]
            rows += [_eos_row(named.name, named.crystal.formula, curve) for curve in curves]
            if request.plot:
                path = request.plot if request.plot.suffix else request.plot / f"{Path(named.name).stem}-eos.png"
                notes.append(f"wrote {_saved(eos_plot(curves, named.crystal.formula), path)}")
        except NaicaError as error:
            rows.append({"file": named.name, "error": str(error)})
        progress(k + 1, len(good))
    done = [row for row in rows if "error" not in row]
    heads = ("file", "formula", "form", "V₀ (Å³/atom)", "E₀ (eV/atom)", "B₀ (GPa)", "B₀'", "rms (meV/atom)")
    cells = tuple(
        (
            row["file"],
            row["formula"],
            row["form"],
            _shown(row["volume_A3_per_atom"], digits=4),
            number(row["energy_eV_per_atom"]["value"], 5),
            _shown(row["bulk_modulus_GPa"]),
            _shown(row["bulk_modulus_slope"]),
            number(row["rms_meV_per_atom"], 4),
        )
        for row in done
    )
    blocks = ((Table(heads, cells, right=heads[3:]),) if done else ()) + tuple(
        f"{row['file']}: {row['error']}" for row in rows if "error" in row
    )
    return Answer({"model": request.model, "results": rows}, blocks, tuple(notes), exit_code=0 if done else 2)


def _eos_row(name: str, formula: str, curve: Any) -> dict[str, Any]:
    return {
        "file": name,
        "formula": formula,
        "form": curve.form,
        "volume_A3_per_atom": _pair(curve.volume * (1 / curve.atoms)),
        "energy_eV_per_atom": _pair(curve.energy * (1 / curve.atoms)),
        "bulk_modulus_GPa": _pair(curve.bulk * _GPA),
        "bulk_modulus_slope": _pair(curve.slope),
        "rms_meV_per_atom": curve.rms / curve.atoms * 1000,
        "volumes_A3": curve.volumes,
        "energies_eV": curve.energies,
    }


def elastic(request: ElasticRequest, progress: Report = _silent) -> Answer:
    """Elastic tensors and moduli; what fails is a row with its reason. Exit code 2 if all failed."""
    from naica.potential.elastic import elasticity

    good, bad = read_structures(request.files)
    rows: list[dict[str, Any]] = [{"file": one.name, "error": one.reason} for one in bad]
    blocks: list[Table | str] = []
    for k, named in enumerate(good):
        try:
            found = elasticity(
                _standard(named.crystal) if request.conventional else named.crystal,
                request.model,
                strain=request.strain,
                relax=request.relax,
                relax_atoms=not request.clamped,
                progress=progress,
            )
        except NaicaError as error:
            rows.append({"file": named.name, "error": str(error)})
            continue
        m = found.moduli
        row = {
            "file": named.name,
            "formula": named.crystal.formula,
            "tensor_GPa": m.tensor,
            "clamped_tensor_GPa": found.clamped.tensor,
            **{f"{what}_{by}_GPa": value for what in ("bulk", "shear") for by, value in zip(_BOUNDS, getattr(m, what), strict=True)},
            "young_GPa": m.young,
            "poisson": m.poisson,
            "universal_anisotropy": m.anisotropy,
            "stable": m.stable,
            "debye_temperature_K": m.debye_temperature(found.crystal) if m.stable else None,
            "strains": found.strains,
            "rms_GPa": found.rms,
            "pressure_GPa": found.pressure,
        }
        rows.append(row)
        names = ("xx", "yy", "zz", "yz", "xz", "xy")
        kind = "atoms relaxed" if found.relaxed is not None else "atoms clamped"
        tensor = tuple((name, *(number(value, 1) for value in line)) for name, line in zip(names, m.tensor, strict=True))
        blocks.append(Table(("C (GPa)", *names), tensor, f"{named.name}: {named.crystal.formula}, {kind}", right=names))
        debye = "" if row["debye_temperature_K"] is None else f", Debye temperature {row['debye_temperature_K']:.0f} K"
        fate = "mechanically stable" if m.stable else f"mechanically unstable: lowest eigenvalue {m.eigenvalues.min():.1f} GPa"
        blocks.append(
            f"bulk modulus {m.bulk[2]:.1f} GPa (Reuss {m.bulk[1]:.1f}, Voigt {m.bulk[0]:.1f}), shear {m.shear[2]:.1f} "
            f"({m.shear[1]:.1f}, {m.shear[0]:.1f}), Young {m.young:.1f} GPa, Poisson {m.poisson:.3f}, "
            f"anisotropy {m.anisotropy:.2f}{debye}; {fate}"
        )
        progress(k + 1, len(good))
    failed = [f"{row['file']}: {row['error']}" for row in rows if "error" in row]
    return Answer({"model": request.model, "results": rows}, (*blocks, *failed), (), exit_code=0 if blocks else 2)


def _standard(crystal: Crystal) -> Crystal:
    """The conventional cell in its standard orientation."""
    from naica.structure.symmetry import symmetry

    return symmetry(crystal).conventional


_BOUNDS = ("voigt", "reuss", "hill")


def phonons(request: PhononRequest, progress: Report = _silent) -> Answer:
    """Phonons, the verdict on dynamical stability, thermal properties."""
    from naica.potential.phonons import phonons as run

    crystal = _one(request.file)
    found = run(crystal, request.model, width=request.width, displacement=request.displacement, relax=request.relax)
    progress(1, 1)
    n = len(found.primitive)
    thermal = found.thermal
    data = {
        "file": str(request.file),
        "formula": crystal.formula,
        "model": request.model,
        "stable": found.stable,
        "lowest_THz": found.lowest,
        "lowest_at": list(found.lowest_at),
        "highest_THz": float(found.bands.frequency.max()),
        "supercell": list(found.supercell),
        "displacements": found.displacements,
        "atoms_in_primitive_cell": n,
        "path": [{"distance": place, "point": name} for place, name in found.bands.ticks],
        "thermal": {
            "temperature_K": thermal["temperature"],
            "free_energy_eV": thermal["free_energy"],
            "entropy_eV_K": thermal["entropy"],
            "heat_capacity_eV_K": thermal["heat_capacity"],
        },
    }
    rows = []
    for kelvin in (0, 100, 300, 600, 1000):
        k = int(np.abs(thermal["temperature"] - kelvin).argmin())
        per_mole = 96485.33212 / n
        rows.append(
            (
                f"{thermal['temperature'][k]:.0f}",
                number(thermal["free_energy"][k] / n, 4),
                number(thermal["entropy"][k] * per_mole, 2),
                number(thermal["heat_capacity"][k] * per_mole, 2),
            )
        )
    heads = ("T (K)", "free energy (eV/atom)", "entropy (J/K/mol atoms)", "heat capacity (J/K/mol atoms)")
    notes = [f"{found.displacements} displaced cells of {' × '.join(map(str, found.supercell))}"]
    if request.plot:
        from naica.insight.property_plots import phonon_plot

        notes.append(f"wrote {_saved(phonon_plot(found, crystal.formula), request.plot)}")
    if request.out:
        notes.append(f"wrote {_phonon_arrays(found, request.out)}")
    return Answer(data, (f"{crystal.formula}: {found.verdict}", Table(heads, tuple(rows), right=heads)), tuple(notes))


def _phonon_arrays(found: Any, out: Path) -> Path:
    path = out if out.suffix == ".npz" else out.with_suffix(".npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            force_constants=found.force_constants,
            q=found.bands.q,
            distance=found.bands.distance,
            frequency_THz=found.bands.frequency,
            dos_frequency_THz=found.dos_frequency,
            dos=found.dos,
        )
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    return path


# --- structure and melting ----------------------------------------------------------------------------------------------------------------
def rdf(request: StructureRequest, progress: Report = _silent) -> Answer:
    """Radial distribution, coordination numbers, Lindemann's index; vibrational states where asked for."""
    from naica.insight.property_plots import radial_plot, vibration_plot
    from naica.potential.structure_functions import lindemann, radial_distribution, vibrations
    from naica.potential.walk import read_walk

    walk = read_walk(request.file, interval=request.interval)
    walk = walk.after(request.drop) if request.drop else walk
    found = radial_distribution(walk, request.radius)
    rows = []
    for a, b in found.partial:
        try:
            count, radius = found.coordination(a, b)
        except InputError:
            count, radius = float("nan"), float("nan")
        peak = int(found.partial[a, b].argmax())
        row = {"centre": a, "neighbour": b, "peak_A": float(found.r[peak]), "peak": float(found.partial[a, b][peak])}
        rows.append({**row, "coordination": count, "within_A": radius})
    shake = _or_none(lambda: lindemann(walk))
    data: dict[str, Any] = {"file": str(request.file), "frames": found.frames, "pairs": rows, "lindemann": shake, "r_A": found.r}
    data["g"] = {f"{a}-{b}": g for (a, b), g in found.partial.items()}
    heads = ("pair", "peak at (Å)", "height", "coordination", "within (Å)")
    cells = tuple(
        (
            f"{row['centre']}–{row['neighbour']}",
            number(row["peak_A"], 2),
            number(row["peak"], 2),
            number(row["coordination"], 2),
            number(row["within_A"], 2),
        )
        for row in rows
    )
    blocks: list[Table | str] = [Table(heads, cells, right=heads[1:])]
    if shake is not None:
        blocks.append(f"Lindemann's index {shake:.3f}")
    notes = []
    if request.plot:
        notes.append(f"wrote {_saved(radial_plot(found), request.plot)}")
    if request.vibrations:
        states = vibrations(walk)
        data["vibrations"] = {"frequency_THz": states.frequency, "states_per_THz": states.states}
        blocks.append(f"highest vibrational density at {states.frequency[states.states.argmax()]:.2f} THz")
        if request.plot:
            path = request.plot.with_name(f"{request.plot.stem}-vibrations{request.plot.suffix}")
            notes.append(f"wrote {_saved(vibration_plot(states), path)}")
    progress(1, 1)
    return Answer(data, tuple(blocks), tuple(notes))


def melt(request: MeltRequest, progress: Report = _silent) -> Answer:
    """A point of the melting line from two phases side by side. Exit code 2 if one of them took over."""
    from naica.potential.melting import coexistence

    crystal = _one(request.file)
    total = 3 * request.settle + request.steps
    begun = {name: k * request.settle for k, name in enumerate(("1-solid", "2-half", "3-both", "4-alone"))}
    found = coexistence(
        crystal,
        request.model,
        request.guess,
        request.out,
        repeats=request.repeats,
        dt=request.dt,
        steps=request.steps,
        settle=request.settle,
        seed=request.seed,
        progress=lambda name, pace: progress(begun[name] + pace.done, total),
    )
    last = float(found.solid[-1])
    data = {
        "formula": crystal.formula,
        "model": request.model,
        "temperature_K": _pair(found.temperature),
        "pressure_GPa": _pair(found.pressure),
        "solid_share": last,
        "both_phases": found.both,
        "time_fs": found.time,
        "kelvin": found.kelvin,
        "solid": found.solid,
    }
    words = f"{crystal.formula}: melts at {_shown(_pair(found.temperature), digits=1)} K, {_shown(_pair(found.pressure), digits=3)} GPa"
    if not found.both:
        words = f"one phase took over ({last:.0%} solid at the end): guess {'lower' if last < 0.5 else 'higher'}, or take a longer cell"
    notes = []
    if request.plot:
        from naica.insight.property_plots import coexistence_plot

        notes.append(f"wrote {_saved(coexistence_plot(found), request.plot)}")
    return Answer(data, (words,), tuple(notes), exit_code=0 if found.both else 2)


# --- export -------------------------------------------------------------------------------------------------------------------------------
def export(request: ExportRequest) -> Answer:
    """Write a potential for other programs, and try it.

    Raises
    ------
    InputError
        If nothing is asked for.
    """
    if request.lammps is None and request.program is None:
        raise InputError("say what to write: --lammps driver.py, --program potential.pt2, or both")
    crystal = _one(request.structure)
    data: dict[str, Any] = {"model": request.model, "structure": str(request.structure)}
    words: list[Table | str] = []
    if request.lammps is not None:
        from naica.potential.export_lammps import Session, script
        from naica.potential.single_points import computed

        with Session(crystal, request.model) as session:
            session.run(0)
            ours = computed([crystal], request.model)[0]
            gap = abs(session.thermo("pe") - ours.energy) / len(crystal)
            far = float(np.abs(session.forces - ours.forces).max())
        path = script(request.model, str(request.structure), request.lammps)
        data["lammps"] = {"file": str(path), "energy_error_eV_per_atom": gap, "force_error_eV_A": far}
        words.append(f"{path}: tried in LAMMPS, energies within {gap:.0e} eV/atom, forces within {far:.0e} eV/Å of ours")
    if request.program is not None:
        from naica.potential.export_program import export_program

        done = export_program(request.model, request.program, crystal)
        data["program"] = {"file": str(done.path), "energy_error_eV_per_atom": done.energy_error, "force_error_eV_A": done.force_error}
        words.append(
            f"{done.path}: loaded again, energies within {done.energy_error:.0e} eV/atom, forces within {done.force_error:.0e} eV/Å of ours"
        )
    return Answer(data, tuple(words))
