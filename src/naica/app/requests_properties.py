"""What a user can ask of a potential about a material, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from naica.app.requests import DEFAULT_POTENTIAL


@dataclass(frozen=True)
class TransportRequest:
    """Diffusion of a species in trajectories; those at one temperature are runs of one system, several temperatures give an Arrhenius line.

    `temperatures`: K, one for all or one each. `begin`, `end`: lags of the fit, fs. `drop`, `interval`: fs. `at`: K, where to extrapolate
    to. `plot`: folder for pictures.
    """

    files: tuple[Path, ...]
    species: str
    charge: float | None = None
    temperatures: tuple[float, ...] = ()
    begin: float | None = None
    end: float | None = None
    drop: float = 0.0
    interval: float | None = None
    at: float | None = None
    plot: Path | None = None


@dataclass(frozen=True)
class ConductivityRequest:
    """Run GNoME's protocol on a structure; `duration` and `drop` in ps, `dt` in fs, `width` in Å."""

    file: Path
    out: Path
    model: str = DEFAULT_POTENTIAL
    species: str | None = None
    charge: float | None = None
    temperature: float = 1000.0
    duration: float = 50.0
    drop: float = 10.0
    dt: float = 2.0
    width: float = 9.0
    relax: bool = True
    seed: int = 0
    fast: bool = False
    plot: Path | None = None


@dataclass(frozen=True)
class EosRequest:
    """Equations of state of structures."""

    files: tuple[Path, ...]
    model: str = DEFAULT_POTENTIAL
    span: float = 0.06
    points: int = 11
    relax: bool = True
    plot: Path | None = None


@dataclass(frozen=True)
class ElasticRequest:
    """Elastic tensors of structures; `conventional`: of their standard cells, whose axes the tensor's then are."""

    files: tuple[Path, ...]
    model: str = DEFAULT_POTENTIAL
    strain: float = 0.005
    relax: bool = True
    clamped: bool = False
    conventional: bool = True


@dataclass(frozen=True)
class PhononRequest:
    """Phonons of a structure; `out`: a folder for force constants, bands and thermal properties."""

    file: Path
    model: str = DEFAULT_POTENTIAL
    width: float = 10.0
    displacement: float = 0.01
    relax: bool = True
    plot: Path | None = None
    out: Path | None = None


@dataclass(frozen=True)
class StructureRequest:
    """Radial distribution of a trajectory; with `vibrations` also its vibrational states."""

    file: Path
    radius: float = 8.0
    drop: float = 0.0
    interval: float | None = None
    vibrations: bool = False
    plot: Path | None = None


@dataclass(frozen=True)
class MeltRequest:
    """Solid and liquid of a structure side by side; `guess` in K."""

    file: Path
    out: Path
    guess: float
    model: str = DEFAULT_POTENTIAL
    repeats: tuple[int, int, int] = (3, 3, 8)
    steps: int = 4000
    settle: int = 1000
    dt: float = 2.0
    seed: int = 0
    plot: Path | None = None


@dataclass(frozen=True)
class ExportRequest:
    """A potential for other programs: `lammps` a Python driver to write, `program` a torch.export file to write."""

    model: str
    structure: Path
    lammps: Path | None = None
    program: Path | None = None
