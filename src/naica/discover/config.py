"""The campaign file: what a TOML may say, its defaults, and errors that name the key."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from naica.discover.dft.protocol import DftProtocol
from naica.discover.random_search import Search
from naica.errors import ConfigError
from naica.structure.elements import element

DFT_ORACLES = ("gpaw", "cp2k", "espresso", "abinit", "vasp")


class Section(BaseModel):
    """A part of the file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(Section):
    """What is known before the first round. Elements and compounds are computed by the oracle, so all energies share one level."""

    elements: bool = Field(default=True, description="compute the elemental references first")
    compounds: tuple[str, ...] = Field(default=(), description='known compounds as "formula: prototype", for example "MgO: rocksalt"')
    files: tuple[str, ...] = Field(default=(), description="structure files of further known compounds")


class Pool(Section):
    """A campaign after the fact: candidates are the rows of a table of known results, and the oracle is that table."""

    table: str = Field(description="name of a registered data set, or the path of a Parquet table")
    column: str = Field(description="label that the oracle tells")
    start_fraction: float = Field(default=0.05, gt=0, lt=1, description="share of the rows known at the start, drawn at random")


class RandomSearch(Section):
    """Random structures of a formula, relaxed by a potential, in the manner of AIRSS."""

    potential: str = Field(default="", description="potential that relaxes them; empty for the oracle's own")
    structures: int = Field(default=100, ge=1, description="random structures per formula")
    least_completed: int = Field(default=10, ge=1, description="relaxations that must complete for a formula to count")
    max_atoms: int = Field(default=20, ge=1, description="largest cell")
    volume_range: tuple[float, float] = Field(default=(0.7, 1.2), description="volumes to draw, in units of atoms in contact")
    separation: float = Field(default=0.75, gt=0, le=1.2, description="least distances in units of the sum of contact radii")
    max_operations: int = Field(default=48, ge=1, description="most symmetry operations; 1 is none")
    fmax: float = Field(default=0.1, gt=0, description="eV/Å")
    steps: int = Field(default=200, ge=1, description="most steps of a relaxation")
    block: int = Field(default=20, ge=1, description="structures relaxed together and kept in one file")
    keep: int = Field(default=3, ge=1, description="distinct structures of a formula that become candidates")

    def search(self, seed: int) -> Search:
        """The settings of `naica.discover.random_search`."""
        return Search(seed=seed, **{k: v for k, v in self if k not in ("potential", "keep")})


class Generate(Section):
    """Which generators propose candidates."""

    prototypes: bool = Field(default=True, description="decorate the prototype library")
    substitution: bool = Field(default=True, description="ionic substitution on known compounds")
    saps: bool = Field(default=True, description="symmetry-aware partial substitution")
    n_elements: tuple[int, ...] = Field(default=(3,), description="numbers of different elements a candidate may have")
    balanced: bool = Field(default=True, description="prototypes: only charge-balanced decorations")
    max_atoms: int = Field(default=32, ge=1, description="largest cell that may be proposed")
    substitution_threshold: float = Field(default=1e-3, gt=0, lt=1, description="smallest substitution probability")
    max_per_round: int = Field(default=20_000, ge=1, description="cap on new candidates per generator and round")
    families: tuple[Literal["perovskite", "layered", "framework"], ...] = Field(
        default=(), description="only prototypes of these families; empty for the whole library"
    )
    files: tuple[str, ...] = Field(
        default=(), description="output of generative models: folders, ZIP archives, CIF, extended XYZ or JSON-lines files"
    )
    parents: tuple[str, ...] = Field(
        default=(), description="data sets or Parquet tables whose crystals are parents of substitution and SAPS in round 1"
    )
    per_parent: int = Field(default=50, ge=1, description="partial substitutions of one parent of a table")
    first_look: int = Field(
        default=0, ge=0, description="make prototypes and substitutions by the million, keep so many by table look-up; 0 for no such look"
    )
    compositions: bool = Field(default=False, description="compositions first: oxidation rule, composition network, random search")
    states: Literal["common", "icsd"] = Field(default="common", description="oxidation states of the rule")
    relaxed: int = Field(default=2, ge=0, description="elements of a formula that may lie between two oxidation states")
    max_amount: int = Field(default=8, ge=1, description="largest amount in a formula")
    near_hull: float = Field(default=0.05, description="eV/atom above the hull up to which a formula is searched")
    compositions_per_round: int = Field(default=4, ge=1, description="formulas searched in a round")
    composition_model: str = Field(default="composition-formation-energy", description="network that ranks formulas")
    random_search: RandomSearch = RandomSearch()


class Learner(Section):
    """How the filter learns from the campaign's labels."""

    strategy: Literal["correct", "train"] = Field(
        default="correct", description="correct a prior, or train an ensemble on the labels alone"
    )
    prior: str = Field(default="formation-energy", description="model that is corrected (strategy 'correct')")
    members: int = Field(default=4, ge=2, description="networks in the ensemble (strategy 'train')")
    visits: int = Field(default=45_000, ge=1, description="structures each network sees in round 1; later rounds start from its weights")


class Filter(Section):
    """The cascade: a cheap look at everything, ensemble × volume scan on what may matter."""

    quick_limit: float = Field(default=0.25, description="eV/atom above the criterion that survive the quick look")
    limit: float = Field(default=0.10, description="eV/atom above the criterion that may be picked")
    volumes: int = Field(default=21, ge=1, description="isotropic scalings in the full look; an odd number holds the guessed volume itself")
    # nine of ten predicted volumes of known crystals are within 9 % (benchmarks/calibrate_volume.py); GNoME scans 0.8 to 1.2
    volume_range: tuple[float, float] = Field(default=(0.9, 1.1), description="smallest and largest scaling of the volume")
    recalibrate: Literal["none", "scale", "isotonic"] = Field(
        default="isotonic", description="how the campaign's own results correct error bars and probabilities of stability"
    )
    recalibrate_after: int = Field(default=12, ge=2, description="results needed before anything is corrected")
    relax_with: str = Field(default="", description='potential that relaxes survivors before they are judged, "m3gnet-mp-2021" for example')
    relax_limit: float = Field(default=0.25, description="eV/atom above the criterion that may be relaxed")
    relax_most: int = Field(default=200, ge=1, description="new relaxations per round, the most promising first")
    relax_steps: int = Field(default=100, ge=1, description="most optimiser steps per relaxation")
    relax_fmax: float = Field(default=0.1, gt=0, description="eV/Å, largest force left")
    relax_energy: bool = Field(
        default=True, description="the potential's own energy counts too, once enough results say how it compares with the oracle's"
    )


class Pick(Section):
    """Which candidates are worth an oracle call."""

    per_round: int = Field(default=12, ge=1, description="oracle calls per round")
    explore: float = Field(default=0.1, ge=0, le=1, description="share drawn where the model is least sure")
    control: float = Field(default=0.1, ge=0, le=1, description="share drawn at random from all candidates, to measure enrichment")
    per_formula: int = Field(default=2, ge=1, description="polymorphs of one composition per round")
    diversity: float = Field(
        default=0.7, gt=0, le=1, description="factor on a candidate's score for each one already picked with its prototype or formula"
    )

    distinct: bool = Field(default=True, description="polymorphs of one composition picked in a round must not match each other")
    unbalanced: float = Field(default=0.3, gt=0, le=1, description="factor on the score of a candidate whose charges cannot balance")

    @model_validator(mode="after")
    def _shares(self) -> Pick:
        if self.explore + self.control > 1:
            raise ValueError("explore + control exceed 1")
        return self


class NoveltySection(Section):
    """What finds are compared with, beside the campaign's own start."""

    against: tuple[str, ...] = Field(default=(), description="tables of known structures: registered sets or Parquet files")
    formulas: tuple[str, ...] = Field(default=(), description="CSV files with a column formula: compounds known by composition alone")


class OracleSection(Section):
    """Who computes energies."""

    name: str = Field(
        default="chgnet", description="gpaw, cp2k, espresso, abinit, vasp, a potential, a model folder, table, or package.module:factory"
    )
    workers: int = Field(default=2, ge=0, description="worker processes; 0 computes in the campaign's own process")
    timeout: float = Field(default=300.0, gt=0, description="seconds after which a call is given up")
    retries: int = Field(default=1, ge=0, description="further attempts after a crash or a time-out")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the oracle, for example fmax and steps")


class JobSection(Section):
    """What one job of a queue asks for; jobs of Dask are workers that make many calls, those of AiiDA one call each."""

    cores: int = Field(default=1, ge=1, description="cores of a job; Dask makes one call at a time on each")
    memory: str = Field(default="4GiB", description="memory of a job")
    walltime: str = Field(default="24:00:00", pattern=r"^\d+:[0-5]\d:[0-5]\d$", description="hours:minutes:seconds")
    partition: str = Field(default="", description="partition or queue")
    account: str = Field(default="", description="account or project")
    directives: tuple[str, ...] = Field(default=(), description='further lines for the scheduler, for example "--qos=low"')
    prologue: tuple[str, ...] = Field(default=(), description="shell lines before the work, for example module load")


class EngineSection(Section):
    """Where the work is done. Nothing here changes what a campaign finds, so it may change between two starts."""

    name: Literal["here", "pool", "dask", "aiida"] = Field(default="pool", description="in this process, local processes, Dask, AiiDA")
    scheduler: str = Field(default="", description="Dask: address or scheduler file of a running scheduler; empty starts workers")
    queue: Literal["", "slurm", "pbs"] = Field(default="", description="where workers or calls become jobs; empty: this machine")
    jobs: int = Field(default=2, ge=1, description="jobs in the queue at once")
    interface: str = Field(default="", description="Dask: network interface by which jobs reach this process, for example ib0")
    profile: str = Field(default="", description="AiiDA: a profile of yours, for example on PostgreSQL; empty makes one in the run folder")
    computer: str = Field(default="", description="AiiDA: a computer set up in that profile; empty: this machine")
    python: str = Field(default="", description="the interpreter that workers and jobs run; empty: this one")
    patience: float = Field(default=60.0, gt=0, description="seconds to wait for a scheduler or a daemon that went away")
    shard: int = Field(default=2048, ge=1, description="candidates scored in one piece")
    job: JobSection = JobSection()


def engine_named(text: str, section: EngineSection) -> EngineSection:
    """The engine of a command line: ``here``, ``pool``, ``dask``, ``aiida``, with ``dask:ADDRESS``, ``dask:slurm``, ``aiida:PROFILE``, ….

    Raises
    ------
    ConfigError
        For a name that is none of these.
    """
    name, _, more = text.partition(":")
    changes: dict[str, Any] = {"name": name}
    if more in ("slurm", "pbs") and name in ("dask", "aiida"):
        changes |= {"queue": more, "scheduler": ""}
    elif more and name == "dask":
        changes |= {"scheduler": more, "queue": ""}
    elif more and name == "aiida":
        changes |= {"profile": more}
    elif more or name not in ("here", "pool", "dask", "aiida"):
        raise ConfigError(
            f"unknown engine {text!r}; expected here, pool, dask, dask:ADDRESS, dask:slurm, dask:pbs, aiida, aiida:PROFILE or aiida:slurm"
        )
    return section.model_copy(update=changes)


class Stable(Section):
    """When a computed candidate counts as found."""

    by: Literal["hull", "label"] = Field(default="hull", description="distance to the campaign's own hull, or the oracle's label itself")
    threshold: float = Field(default=0.001, description="eV/atom")


class Stop(Section):
    """When no further round begins, beside the number of rounds; each rule is off until it is given. May change between two starts."""

    calls: int | None = Field(default=None, ge=1, description="oracle calls in all, start included")
    hit_rate: float | None = Field(default=None, gt=0, le=1, description="exploit arm's hit rate below this in so many rounds in a row")
    rounds: int = Field(default=2, ge=1, description="rounds in a row for hit_rate")
    expected_hits: float | None = Field(
        default=None, gt=0, description="sum of the probabilities of stability of all candidates left falls below this"
    )
    precision: float | None = Field(default=None, gt=0, description="eV/atom: mean absolute error of the last round's predictions reached")
    precision_after: int = Field(default=5, ge=1, description="predictions a round needs for precision to count")
    at_least: int = Field(default=1, ge=1, description="rounds done in any case")


class CampaignConfig(Section):
    """A whole campaign file."""

    title: str = ""
    elements: tuple[str, ...] = ()
    rounds: int = Field(default=3, ge=1)
    seed: int = 0
    folder: str = Field(default="", description="run folder; default campaigns/<file name>")
    start: Start = Start()
    pool: Pool | None = None
    generate: Generate = Generate()
    learner: Learner = Learner()
    filter: Filter = Filter()
    pick: Pick = Pick()
    novelty: NoveltySection = NoveltySection()
    oracle: OracleSection = OracleSection()
    engine: EngineSection = EngineSection()
    protocol: DftProtocol = Field(default_factory=DftProtocol, description="of an oracle of density functional theory")
    stable: Stable = Stable()
    stop: Stop = Stop()

    @model_validator(mode="after")
    def _whole(self) -> CampaignConfig:
        for symbol in self.elements:
            element(symbol)
        if self.pool is None and not self.elements:
            raise ValueError('elements is missing; for example elements = ["Mg", "Al", "O"]')
        if self.pool is None and self.stable.by == "label":
            raise ValueError("stable.by = 'label' needs a [pool] whose table tells the label")
        if "protocol" in self.model_fields_set and self.oracle.name not in DFT_ORACLES and self.protocol != DftProtocol():
            raise ValueError(f"[protocol] is for {', '.join(DFT_ORACLES)}; the oracle here is {self.oracle.name!r}: take the section out")
        return self


def read_config(path: str | Path) -> CampaignConfig:
    """Read a campaign file.

    Raises
    ------
    ConfigError
        If the file is missing, is no TOML, or holds an unknown key or a value out of range; the message names file, key and cure.
    """
    file = Path(path)
    if not file.exists():
        near = get_close_matches(file.name, [p.name for p in file.parent.glob("*.toml")] if file.parent.is_dir() else [], n=1)
        raise ConfigError(f"no campaign file {file}" + (f"; did you mean {file.parent / near[0]}?" if near else ""))
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    return parse_config(raw, str(file))


def parse_config(raw: dict[str, Any], source: str = "configuration") -> CampaignConfig:
    """A configuration from plain dictionaries; errors as in `read_config`."""
    try:
        return CampaignConfig(**raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(e) for e in error.errors())) from error


def _explain(problem: Any) -> str:
    """One line for one problem pydantic found."""
    place = [str(p) for p in problem["loc"]]
    key = ".".join(place) or "file"
    if problem["type"] == "extra_forbidden":
        known = list(_section(place[:-1]).model_fields)
        near = get_close_matches(place[-1], known, n=1, cutoff=0.5)
        return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}")
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    return f"{key}: {problem['msg'].removeprefix('Value error, ')} (found {problem.get('input')!r})"


def _section(place: list[str]) -> type[BaseModel]:
    part: type[BaseModel] = CampaignConfig
    for name in place:
        annotation = part.model_fields[name].annotation if name in part.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        found = [a for a in options if isinstance(a, type) and issubclass(a, BaseModel)]
        if not found:
            return part
        part = found[0]
    return part
