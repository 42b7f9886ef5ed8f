"""Oracle calls by AiiDA: each is one AiiDA process with its provenance (structure and protocol in, result out), run through the daemon.

Nobody has to set anything up: without a profile of the user's, one is made in the run folder, on SQLite and with AiiDA's own broker, so
there is no service. A process is found again by its label, so whoever was killed (this process, the daemon, the machine) and starts anew
takes up what was submitted: a finished one is read, one under way is waited for, and only one that died without a result is made again.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from naica.discover.config import EngineSection
from naica.discover.engines.calls import Desk, Rules
from naica.discover.engines.pool import Crew
from naica.discover.engines.spool import fingerprint, plain, revived
from naica.discover.oracle import OracleResult
from naica.errors import MissingPart, RunError
from naica.structure import Crystal

_TICK = 0.5
_OWN = "naica"
_STARTS = 3  # of the daemon in a row without progress
_ALL_DIE = 3
_OVER = ("finished", "excepted", "killed")
Fetch = Callable[[str, Path], None]
Ended = tuple[str, "dict[str, Any] | None", str, Fetch]


@dataclass(frozen=True)
class OracleWork:
    """What a job does: ask the oracle, with all attempts, in a process below its own."""

    packed: bytes

    def __call__(self, crystal: Crystal, name: str, folder: Path) -> dict[str, Any]:
        """The call's outcome as plain values."""
        results: list[OracleResult] = []
        with Crew(pickle.loads(self.packed), 1, None, self.packed) as crew:
            crew.work_off({name: crystal}, results.append)
        return plain(results[0])


def work_off(rules: Rules, desk: Desk, engine: EngineSection, workers: int, folder: Path) -> None:
    """Have the open jobs of a desk computed, and deliver each result.

    Raises
    ------
    InputError
        If the oracle cannot travel.
    MissingPart
        If AiiDA is not installed.
    RunError
        If a profile or its daemon does not work; finished results are kept.
    """
    left = desk.from_spool()
    oracle = rules.oracle
    protocol = {"oracle": oracle.name, "level": asdict(oracle.level), "settings": getattr(oracle, "settings", {}),
                "timeout": rules.timeout, "retries": rules.retries}  # fmt: skip

    ended = carry_out(
        OracleWork(rules.packed(elsewhere=True)), left, basis=fingerprint(oracle), protocol=protocol, tries=rules.retries + 1,
        engine=engine, at_once=engine.jobs if engine.queue else workers, folder=folder,
    )  # fmt: skip
    for key, outcome, reason, _ in ended:
        lost = rules.lost(key, "crashed", f"the job died without a result ({reason})", rules.retries + 1)
        desk.deliver(lost if outcome is None else revived(outcome, key, desk.jobs[key]))


def carry_out(
    work: Callable[[Crystal, str, Path], dict[str, Any]],
    items: Mapping[str, Crystal],
    *,
    basis: str,
    protocol: Mapping[str, Any],
    tries: int,
    engine: EngineSection,
    at_once: int,
    folder: Path,
    files: tuple[str, ...] = (),
) -> Iterator[Ended]:
    """Have `work(crystal, name, folder)` done for each item by one AiiDA process each, and tell of each as it ends.

    Parameters
    ----------
    work : what a job does in its folder; it pickles, and returns plain values
    items : name → crystal
    basis : what must agree, beside structure and name, for an old process to answer a new call
    protocol : what is done, in words and numbers, kept as a node of the provenance
    tries : processes per item, where one dies without an outcome
    engine, folder : the profile, the computer, the queue, and where an own profile lies
    at_once : processes under way at the same time
    files : names and patterns of files that the provenance keeps

    Yields
    ------
    name, outcome (None if it died each time), why it died, and a function that copies one of the job's files (name there, place here)
    """
    with _profile(engine, folder) as service:
        label = {name: _label(name, crystal, f"{basis} {folder}") for name, crystal in items.items()}
        calls = _Calls(service, items, label, tries)

        def make(name: str) -> int:
            return service.submit(work, protocol, items[name], name, label[name], files)

        starts, since = 0, time.monotonic()
        while calls.open:
            try:
                service.keep_alive()
                calls.launch(make, at_once)
                landed = calls.land()
            except service.troubles as error:
                starts += 1
                if starts > _STARTS:
                    raise RunError(
                        f"AiiDA's daemon of profile {service.profile!r} went away {starts} times ({type(error).__name__}: {error}); "
                        f"what was submitted is kept: see `{service.how} verdi daemon status`, then give the same command again"
                    ) from error
                print(f"naica: AiiDA's daemon does not answer ({type(error).__name__}: {error}); starting it anew", file=sys.stderr)
                service.restart()
                # a submission that broke off may have left its process: it is found by its label
                calls.look_up()
                since = time.monotonic()
                continue
            yield from landed
            yield from calls.lost()
            if landed:
                starts, since = 0, time.monotonic()
                continue
            if time.monotonic() - since > engine.patience:
                service.revive(calls.air)
                since = time.monotonic()
            time.sleep(_TICK)


class _Calls:
    """Calls and their AiiDA processes: which wait, which are under way, which died."""

    def __init__(self, service: _Service, items: Mapping[str, Crystal], label: Mapping[str, str], tries: int) -> None:
        self.service, self.label, self.tries = service, label, tries
        self.waiting, self.air = list(items), dict[str, int]()
        self.deaths = dict.fromkeys(items, 0)
        self.read, self.mine = set[int](), set[int]()
        # calls whose every process died, and why; they are told once it is clear that not all die
        self.losses: dict[str, tuple[int, str]] = {}
        self.ended: list[Ended] = []
        self.answered = False
        self.look_up()

    @property
    def open(self) -> bool:
        """True while something waits or is under way."""
        return bool(self.waiting or self.air)

    def look_up(self) -> None:
        """Find processes that exist already."""
        self.known = self.service.known(set(self.label.values()))

    def launch(self, make: Callable[[str], int], at_once: int) -> None:
        """Take up or make processes until enough are under way."""
        while self.waiting and len(self.air) < at_once:
            name = self.waiting[0]
            # a process that exists already is read or waited for, the newest first
            there = [pk for pk in self.known.get(self.label[name], []) if pk not in self.read]
            if there:
                self.air[name] = there[-1]
            else:
                self.air[name] = make(name)
                self.mine.add(self.air[name])
            self.waiting.pop(0)

    def land(self) -> list[Ended]:
        """What came of the processes that are over."""
        over = [name for name, state in self.service.states(self.air).items() if state in _OVER]
        for name in over:
            pk = self.air[name]
            outcome, reason = self.service.outcome(pk)
            del self.air[name]
            self.read.add(pk)
            # deaths of an earlier start do not count: what killed them may be mended
            self.deaths[name] += outcome is None and pk in self.mine
            if outcome is not None:
                self.answered = True
                self.ended.append((name, outcome, "", self.service.fetcher(pk)))
            elif self.deaths[name] < self.tries:
                self.waiting.append(name)
            else:
                self.losses[name] = pk, reason
        ended, self.ended = self.ended, []
        return ended

    def lost(self) -> Iterator[Ended]:
        """Calls that died each time, once it is clear that not all do.

        Raises
        ------
        RunError
            If the first calls all died: then it is not them.
        """
        if self.answered or not self.open:
            losses, self.losses = self.losses, {}
            for name, (pk, reason) in losses.items():
                yield name, None, reason, self.service.fetcher(pk)
        elif len(self.losses) >= _ALL_DIE:
            pk, reason = list(self.losses.values())[-1]
            raise RunError(
                f"the first {len(self.losses)} calls all died without an outcome ({reason}); nothing is recorded for them: mend it, then "
                f"give the same command again (the last one's folder: `{self.service.how} verdi calcjob gotocomputer {pk}`)"
            )


def _label(name: str, crystal: Crystal, basis: str) -> str:
    what = hashlib.sha256("\0".join((basis, name, crystal.hash, str(crystal.info.get("id")))).encode()).hexdigest()[:32]
    return f"{name[:60]} {what}"


# --- the profile and its daemon ----------------------------------------------------------------------------------------------
@contextmanager
def _profile(engine: EngineSection, folder: Path) -> Iterator[_Service]:
    try:
        import aiida  # noqa: F401
    except ImportError as error:
        raise MissingPart('the engine "aiida" needs AiiDA: pip install "naica[aiida]" (or: make aiida)') from error
    service = _Service(engine, folder)
    try:
        yield service
    finally:
        service.close()


class _Service:
    """AiiDA as this engine uses it: a profile, its daemon, and processes by their labels."""

    def __init__(self, engine: EngineSection, folder: Path) -> None:
        import aiida.engine.daemon.client as daemon
        from aiida.common.exceptions import AiidaException
        from aiida.manage import get_manager
        from aiida.manage.configuration import get_config, load_profile, reset_config
        from aiida.manage.configuration.settings import AiiDAConfigDir

        if daemon.VERDI_BIN is None:
            # an environment that is used without being activated has its programs beside its interpreter
            daemon.VERDI_BIN = shutil.which("verdi", path=str(Path(sys.executable).parent))
        self.engine, self.own = engine, not engine.profile
        self.home = folder / ".aiida"
        self.profile = engine.profile or _OWN
        self.how = f"AIIDA_PATH={folder}" if self.own else ""
        self.started = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            AiiDAConfigDir.set(self.home if self.own else None)
            reset_config()
            config = get_config(create=True)
            if self.profile not in config.profile_names:
                if not self.own:
                    known = ", ".join(config.profile_names) or "none"
                    raise RunError(f"there is no AiiDA profile {self.profile!r} (known: {known}); set one up with verdi presto")
                _make_profile(config)
            try:
                load_profile(self.profile, allow_switch=True)
                self.manager = get_manager()
                self.manager.get_profile_storage()
            except AiidaException as error:
                raise RunError(f"AiiDA's profile {self.profile!r} cannot be opened: {error}") from error
        self.client = self.manager.get_daemon_client()
        self.troubles = _troubles()
        self.code = self._code()
        self.works: dict[int, Any] = {}

    # --- the daemon ---------------------------------------------------------------------------------------------------------
    def keep_alive(self) -> None:
        """Start the daemon unless it runs."""
        if not self._runs():
            self.manager.reset_broker()
            self.manager.reset_runner()
            if self.own:
                self._sweep()
            self.client.start_daemon(1, timeout=int(max(self.engine.patience, 30)))
            self.started = True
            broker: Any = self.manager.get_broker()
            end = time.monotonic() + self.engine.patience
            while hasattr(broker, "check_service_reachable") and not broker.check_service_reachable() and time.monotonic() < end:
                time.sleep(_TICK)

    def _runs(self) -> bool:
        # AiiDA's own answer trusts the daemon's file, which a killed daemon leaves behind
        if self.client.get_daemon_pid() is None:
            return False
        try:
            self.client._check_pid_file()
        except self.troubles:
            return False
        return True

    def restart(self) -> None:
        """Forget connections to a daemon that is gone, and start it if it is."""
        for forget in (self.manager.reset_broker, self.manager.reset_runner):
            with suppress(Exception):
                forget()
        time.sleep(_TICK)
        with suppress(*self.troubles):
            self.keep_alive()

    def _sweep(self) -> None:
        """End what a killed daemon of our own profile left running; whose it is, the environment says."""
        import psutil

        left = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if ("verdi" in command or "circus" in command) and process.environ().get("AIIDA_PATH") == str(self.home):
                    process.kill()
                    left.append(process)
        psutil.wait_procs(left, timeout=10)

    def close(self) -> None:
        """Stop the daemon if it was started here or belongs to this run folder, and let go of the profile."""
        if self.started or self.own:
            with suppress(Exception):
                self.client.stop_daemon(wait=True, timeout=30)
            if self.own:
                with suppress(Exception):
                    self._sweep()
        with suppress(Exception):
            self.manager.unload_profile()

    # --- processes ----------------------------------------------------------------------------------------------------------
    def known(self, labels: set[str]) -> dict[str, list[int]]:
        """Processes that exist under some labels, oldest first."""
        from aiida.orm import CalcJobNode, QueryBuilder

        found: dict[str, list[int]] = {}
        query = QueryBuilder().append(CalcJobNode, project=["id", "label"])
        query.order_by({CalcJobNode: "id"})
        for pk, label in query.all():
            if label in labels:
                found.setdefault(label, []).append(pk)
        return found

    def submit(
        self, work: Callable[..., Any], protocol: Mapping[str, Any], crystal: Crystal, name: str, label: str, files: tuple[str, ...]
    ) -> int:
        """A new process; its node carries the label from the moment it exists."""
        from aiida.engine import submit
        from aiida.plugins import CalculationFactory

        from naica.discover.engines.aiida_call import structure_of, text_of

        self.keep_alive()
        described, packed = self._work(work, protocol)
        info = {key: value for key, value in crystal.info.items() if isinstance(value, str | int | float)}
        call = {"name": name, "info": info, "crystal": text_of(crystal)}
        inputs = {
            "code": self.code,
            "structure": structure_of(crystal),
            "protocol": described,
            "work": packed,
            "call": _dict(call),
            "metadata": {"label": label, "description": f"{crystal.formula}: {protocol}"[:250], "options": self._options(files)},
        }
        calculation: Any = CalculationFactory("naica.call")
        return int(submit(calculation, inputs).pk or 0)

    def _work(self, work: Callable[..., Any], protocol: Mapping[str, Any]) -> tuple[Any, Any]:
        """Protocol and work as nodes, the same ones for all calls."""
        from aiida.orm import SinglefileData

        if id(work) not in self.works:
            packed = SinglefileData(io.BytesIO(pickle.dumps(work)), filename="work.pkl")
            self.works[id(work)] = (_dict(dict(protocol)).store(), packed.store())
        described, packed = self.works[id(work)]
        return described, packed

    def states(self, air: Mapping[str, int]) -> dict[str, str]:
        """How processes stand, by name."""
        from aiida.orm import CalcJobNode, QueryBuilder

        query = QueryBuilder().append(CalcJobNode, filters={"id": {"in": list(air.values())}}, project=["id", "attributes.process_state"])
        stand = dict(query.all()) if air else {}
        return {name: stand.get(pk) or "created" for name, pk in air.items()}

    def outcome(self, pk: int) -> tuple[dict[str, Any] | None, str]:
        """What a process left, or None and why there is nothing."""
        import json

        from aiida.orm import load_node

        node, said = load_node(pk), ""
        try:
            files = node.outputs.retrieved.base.repository
            said = " ".join(files.get_object_content("job.err").strip().splitlines()[-1:])
            return json.loads(files.get_object_content("outcome.json")), ""
        except (OSError, ValueError, AttributeError):
            return None, f"AiiDA process {pk}: {said or node.exit_message or node.process_state.value}"

    def fetcher(self, pk: int) -> Fetch:
        """A function that copies a file of a process: its name there, its place here, in one step."""

        def fetch(name: str, place: Path) -> None:
            from aiida.orm import load_node

            aside = place.with_name(f".{place.name}.{os.getpid()}")
            aside.write_bytes(load_node(pk).outputs.retrieved.base.repository.get_object_content(name, mode="rb"))
            aside.replace(place)

        return fetch

    def revive(self, air: Mapping[str, int]) -> None:
        """Call up again processes that nobody was ever told of: whoever made them was killed before saying so."""
        from aiida.engine.processes.control import revive_processes
        from aiida.orm import load_node

        stuck: list[Any] = [load_node(air[name]) for name, state in self.states(air).items() if state == "created"]
        if stuck:
            with suppress(Exception):
                revive_processes(stuck)

    # --- where jobs run -----------------------------------------------------------------------------------------------------
    def _code(self) -> Any:
        """The interpreter on the computer that the engine names; made where it is not known yet."""
        from aiida.common.exceptions import AiidaException, NotExistent
        from aiida.orm import Computer, InstalledCode, load_code

        engine = self.engine
        where = engine.computer or (f"naica-{engine.queue or 'direct'}")
        python = engine.python or sys.executable
        try:
            try:
                computer = Computer.collection.get(label=where)
            except NotExistent:
                if engine.computer:
                    raise RunError(
                        f"AiiDA's profile {self.profile!r} knows no computer {where!r}; set it up with verdi computer setup"
                    ) from None
                scheduler = {"": "core.direct", "slurm": "core.slurm", "pbs": "core.pbspro"}[engine.queue]
                place = self.home.parent / "jobs"
                computer = Computer(
                    label=where, hostname="localhost", transport_type="core.local", scheduler_type=scheduler, workdir=str(place)
                ).store()
                computer.configure(safe_interval=0.0, use_login_shell=False)
                computer.set_minimum_job_poll_interval(1.0)
                computer.set_default_mpiprocs_per_machine(1)
            name = f"python-{hashlib.sha256(python.encode()).hexdigest()[:8]}"
            try:
                return load_code(f"{name}@{where}")
            except NotExistent:
                return InstalledCode(label=name, computer=computer, filepath_executable=python).store()
        except AiidaException as error:
            raise RunError(f"AiiDA cannot set up {where!r} in profile {self.profile!r}: {error}") from error

    def _options(self, files: tuple[str, ...]) -> dict[str, Any]:
        job, queue = self.engine.job, self.engine.queue
        options: dict[str, Any] = {
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "withmpi": False,
            "prepend_text": "\n".join(["export OMP_NUM_THREADS=1", *job.prologue]),
            "additional_retrieve_list": list(files),
        }
        if not self.engine.computer and os.environ.get("PYTHONPATH"):
            known = [os.path.abspath(place) for place in os.environ["PYTHONPATH"].split(os.pathsep) if place]
            options["environment_variables"] = {"PYTHONPATH": os.pathsep.join(known)}
        if queue:
            hours, minutes, seconds = (int(part) for part in job.walltime.split(":"))
            options |= {"max_wallclock_seconds": hours * 3600 + minutes * 60 + seconds}
            options["resources"]["num_cores_per_mpiproc"] = job.cores
            sign = {"slurm": "#SBATCH", "pbs": "#PBS"}[queue]
            amount = job.memory.replace("iB", "").replace("B", "")
            memory = f"--mem={amount}" if queue == "slurm" else f"-l mem={amount.lower()}b"
            options["custom_scheduler_commands"] = "\n".join(f"{sign} {line}" for line in (memory, *job.directives))
            options |= {key: value for key, value in (("queue_name", job.partition), ("account", job.account)) if value}
        return options


def _dict(content: dict[str, Any]) -> Any:
    import json

    from aiida.orm import Dict

    return Dict(json.loads(json.dumps(content, default=str)))


def _troubles() -> tuple[type[Exception], ...]:
    """What AiiDA raises when its daemon or broker is not there."""
    from aiida.common.exceptions import InvalidOperation
    from aiida.engine.daemon.client import DaemonException
    from kiwipy import CommunicatorClosed, DeliveryFailed

    return (DaemonException, ConnectionError, InvalidOperation, CommunicatorClosed, DeliveryFailed, TimeoutError)


def _make_profile(config: Any) -> None:
    """A profile without services: SQLite, and the broker that comes with the daemon."""
    from aiida.manage.configuration import create_profile
    from aiida.plugins import BrokerFactory

    broker = "core.zeromq"
    create_profile(
        config, name=_OWN, email="naica@localhost", storage_backend="core.sqlite_dos", storage_config={}, broker_backend=broker,
        broker_config=BrokerFactory(broker).get_default_config(),
    )  # fmt: skip
    config.set_option("runner.poll.interval", 1, scope=_OWN)
    config.set_option("warnings.development_version", False)
    config.set_default_profile(_OWN, overwrite=True)
    config.store()
