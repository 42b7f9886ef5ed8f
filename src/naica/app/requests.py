"""What a user can ask for, as frozen data. Every face (command line, later HTTP) fills these in; `naica.app.actions_*` answer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

DEFAULT_MODEL = "formation-energy"
DEFAULT_POTENTIAL = "chgnet"


@dataclass(frozen=True)
class PredictRequest:
    """Predict a property of the structures in `files` (files or folders). `strict`: any bad file makes the command fail.

    `state`: state variables for all of them (numbers, or names such as a level of theory), instead of what the files say.
    `interval`: also ends of an interval that holds the label with this probability.
    """

    files: tuple[Path, ...]
    model: str = DEFAULT_MODEL
    strict: bool = False
    state: Mapping[str, float | str] = field(default_factory=dict)
    interval: float | None = None


@dataclass(frozen=True)
class ExplainRequest:
    """Share a prediction out among the atoms of each structure.

    `method`: of `naica.insight.attribution.METHODS`; ``auto`` is exact where the model can. `deletion_test`: is it faithful?
    """

    files: tuple[Path, ...]
    model: str = DEFAULT_MODEL
    method: str = "auto"
    deletion_test: bool = False


@dataclass(frozen=True)
class SiteMapRequest:
    """Average site contributions per element (and kind of site, where `columns` name the elements there) over the crystals of a source.

    `rows`: only so many, drawn at random.
    """

    source: str
    model: str
    out: Path
    columns: tuple[str, ...] = ()
    method: str = "auto"
    rows: int | None = None


@dataclass(frozen=True)
class SourceRequest:
    """Where labelled crystals come from: a Parquet table, a CSV, a folder of CIFs with its CSV, or the name of a public set.

    `column`, `quantity` and `unit` may name several, with commas between; one quantity or unit is that of all columns.
    """

    source: str
    column: str | None = None
    quantity: str | None = None
    unit: str | None = None
    level: str | None = None
    csv: Path | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are named."""
        return tuple(name.strip() for name in (self.column or "").split(",") if name.strip())


@dataclass(frozen=True)
class SiteStudyRequest:
    """Train on a part of a source, map the contributions of sites on held-out crystals, mine a design rule and judge it there.

    `model`: look at this one instead of training. `beside`: further rules by name, for each kind of site its words.
    """

    source: SourceRequest
    out: Path
    columns: tuple[str, ...] = ("A", "B")
    threshold: float = 0.2
    epochs: int = 40
    members: int = 2
    seed: int = 0
    min_share: float = 0.01
    model: str | None = None
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainRequest:
    """Train an ensemble on one column or several. `settings` override the keys of the config file.

    `state`: columns that are state variables, inputs beside the structure.
    `start`: go on from this model (a shipped one's name or a model folder) instead of from random weights; `freeze`: what of it is not
    trained.
    `element`: the symbol that ``split="element"`` holds out.
    """

    source: SourceRequest
    out: Path
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["published", "random", "composition", "prototype", "element"] = "random"
    seed: int = 0
    resume: bool = True
    start: str | None = None
    element: str | None = None
    state: tuple[str, ...] = ()
    freeze: str | None = None


@dataclass(frozen=True)
class EvaluateRequest:
    """Measure a model on labelled crystals; `part` picks a part of a split.

    `split` None is the split the model was trained with, if this is its table, else the set's published one.
    `fidelity` declares that labels of another level of theory are meant to be compared; `element` is what ``split="element"`` holds out.
    `plot` and `calibration` are pictures to write.
    """

    model: str
    source: SourceRequest
    part: str = "test"
    split: Literal["published", "random", "composition", "prototype", "element", "none"] | None = None
    seed: int = 0
    plot: Path | None = None
    fidelity: bool = False
    element: str | None = None
    calibration: Path | None = None


@dataclass(frozen=True)
class RelaxRequest:
    """Relax structures with a potential; write the results to `out` (a file, or a folder with one CIF each).

    `pressure` in GPa; `volume` False keeps volumes; `symmetry` keeps space groups; `batch`: atoms relaxed at once by potentials of ours;
    `moments` also relaxes the magnetic moments of a potential that depends on them, alone if `still`, from `tries` further starts.
    """

    files: tuple[Path, ...]
    model: str = DEFAULT_POTENTIAL
    out: Path | None = None
    fmax: float = 0.05
    steps: int = 300
    cell: bool = True
    pressure: float = 0.0
    volume: bool = True
    symmetry: bool = False
    optimiser: Literal["auto", "lbfgs", "fire"] = "auto"
    batch: int = 200
    dtype: Literal["float32", "float64"] = "float64"
    moments: bool = False
    still: bool = False
    tries: int = 0


@dataclass(frozen=True)
class ConvertRequest:
    """Write the structures of `files` into one file, or one file for each into the folder `out` (one that exists, or a name ending in /).

    `format` is that of the files in a folder; a single file's format follows from its name. `strict`: any bad file makes the command fail.
    """

    files: tuple[Path, ...]
    out: str
    format: Literal["cif", "poscar", "extxyz", "json"] | None = None
    strict: bool = False


@dataclass(frozen=True)
class GraphRequest:
    """Describe the graph naica makes of a structure file."""

    file: Path
    kind: Literal["nearest", "radius"] = "nearest"
    cutoff: float = 8.0
    neighbours: int = 12


@dataclass(frozen=True)
class ImportRequest:
    """Turn published weights of another code into a naica model folder."""

    architecture: str
    file: Path
    out: Path
    padding: Literal["correct", "original"] = "correct"


@dataclass(frozen=True)
class HullRequest:
    """Judge the entries of a table: a CSV with columns `formula` and `energy` (eV/atom; optional `id`), or crystals (a Parquet table, a
    registered set) with a `column` of formation energies. `elements` keeps those of one system.

    `formula` asks about one composition, `potentials` (element → Δμ, eV/atom) opens the system, `grow` is a second table that is added to a
    hull that grows beside the first; `plot` and `plot_mu` are pictures to write.
    """

    file: Path
    tolerance: float = 1e-8
    total: bool = False
    formula: str | None = None
    potentials: tuple[str, ...] = ()
    grow: Path | None = None
    byproducts: tuple[str, ...] = ()
    reactants: int = 2
    plot: Path | None = None
    plot_mu: Path | None = None
    elements: str = ""
    column: str = ""


@dataclass(frozen=True)
class DiscoverRequest:
    """Start a campaign, or go on with it where its folder already holds one."""

    config: Path
    folder: Path | None = None
    rounds: int | None = None
    budget: int | None = None
    dry_run: bool = False
    engine: str | None = None


@dataclass(frozen=True)
class CampaignRequest:
    """Look at the campaign in `folder`; `out` is where a report or an export goes."""

    folder: Path
    out: Path | None = None
