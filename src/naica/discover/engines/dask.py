"""Oracle calls and scoring by Dask: workers on this machine, of a scheduler that runs already, or jobs of a Slurm or PBS queue.

A worker makes each call in a process of its own below it, so a call that crashes or hangs costs that process alone and is told as by the
local pool; a worker that dies (killed, out of wall time) is the queue's business, and its call goes to another one. Before it calls, a
worker looks whether the answer lies in the spool, and it holds the call while it works: neither a scheduler that sends a call twice nor a
campaign that was killed and started anew pays twice.
"""

from __future__ import annotations

import logging
import pickle
import queue
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from naica.discover.config import EngineSection, JobSection
from naica.discover.engines.calls import Desk, Rules
from naica.discover.engines.pool import Crew
from naica.discover.engines.spool import Spool
from naica.discover.oracle import OracleResult
from naica.errors import InputError, MissingPart, NaicaError, RunError
from naica.structure import Crystal

_TICK = 0.2
_DEATHS = 5  # of workers under one call, before that call is blamed
_FRUITLESS = 3
_TOLD_EVERY = 60.0
_FETCH = 120.0
_REACH = 10.0

Orders = Iterator[tuple[str, tuple[Any, ...]]]
Finish = Callable[[str, Any, BaseException | None], None]


class _Vanished(Exception):
    """The scheduler is gone."""


# --- on this side ------------------------------------------------------------------------------------------------------------
def work_off(rules: Rules, desk: Desk, engine: EngineSection, workers: int, folder: Path) -> None:
    """Have the open jobs of a desk computed, and deliver each result.

    Raises
    ------
    InputError
        If the oracle cannot travel.
    MissingPart
        If Dask is not installed.
    RunError
        If the scheduler cannot be reached, or went away and does not come back.
    """
    packed = rules.packed(elsewhere=True)

    def finish(key: str, result: Any, error: BaseException | None) -> None:
        desk.deliver(result if error is None else _unanswered(key, error, rules))

    def state() -> tuple[int, Orders]:
        left = desk.from_spool()
        return len(left), ((key, (packed, key, crystal, desk.spool)) for key, crystal in left.items())

    _persist(engine, workers, folder, state, serve, finish)


def fill(
    tasks: Callable[[], Sequence[str]], make: Callable[[str], tuple[Any, ...]], work: Callable[..., None],
    finish: Callable[[str], None], engine: EngineSection, workers: int, folder: Path,
) -> None:  # fmt: skip
    """Have `work(*make(name))` done for each name that `tasks()` says is open; errors as in `work_off`."""

    def landed(name: str, result: Any, error: BaseException | None) -> None:
        if error is not None:
            raise RunError(f"{name}: {type(error).__name__}: {error}; finished pieces are kept: the same command goes on") from error
        finish(name)

    def state() -> tuple[int, Orders]:
        names = list(tasks())
        return len(names), ((name, make(name)) for name in names)

    _persist(engine, workers, folder, state, work, landed)


def _persist(
    engine: EngineSection, workers: int, folder: Path, state: Callable[[], tuple[int, Orders]], work: Callable[..., Any], finish: Finish,
) -> None:  # fmt: skip
    """Work until nothing is open, through losses of the scheduler, as long as each brings some progress."""
    fruitless = 0
    patience = _REACH
    while True:
        before, orders = state()
        if not before:
            return
        try:
            with _client(engine, workers, folder, patience) as (client, cluster):
                _work_off(client, cluster, orders, work, finish, engine)
            return
        except _Vanished as error:
            fruitless = fruitless + 1 if state()[0] == before else 1
            if fruitless >= _FRUITLESS:
                raise RunError(
                    f"the Dask scheduler went away {fruitless} times in a row ({error}); finished results are kept: "
                    "give the same command again once it runs, or another --engine"
                ) from error
            patience = engine.patience
            print(f"naica: the Dask scheduler went away ({error}); waiting {patience:g} s for it to come back", file=sys.stderr)


def _work_off(client: Any, cluster: Any, orders: Orders, work: Callable[..., Any], finish: Finish, engine: EngineSection) -> None:
    """Keep the workers in work, some orders ahead, and hand over what lands."""
    air: dict[str, Any] = {}
    landed: queue.SimpleQueue[str] = queue.SimpleQueue()
    told = time.monotonic()
    more = True
    try:
        while air or more:
            hands = sum(info["nthreads"] for info in client.scheduler_info(n_workers=-1)["workers"].values())
            while more and len(air) < max(2 * hands, 2):
                order = next(orders, None)
                if order is None:
                    more = False
                    break
                name, arguments = order
                # one thread of a worker makes one call at a time
                future = client.submit(work, *arguments, key=f"naica-{name}-{secrets.token_hex(4)}", pure=False)
                future.add_done_callback(lambda _, name=name: landed.put(name))
                air[name] = future
            if not air:
                return
            try:
                name = landed.get(timeout=_TICK)
            except queue.Empty:
                _look_after(client, cluster, air)
                if not hands and time.monotonic() - told > _TOLD_EVERY:
                    told = time.monotonic()
                    print(f"naica: no Dask worker yet ({engine.queue or engine.scheduler or 'this machine'}); waiting", file=sys.stderr)
                continue
            finish(name, *_read(air[name]))
            air.pop(name).release()
    finally:
        with suppress(Exception):
            client.cancel(list(air.values()), force=True)


def _look_after(client: Any, cluster: Any, air: Mapping[str, Any]) -> None:
    """Notice a lost scheduler, or a queue that takes no jobs."""
    if client.status != "running" or any(future.status in ("cancelled", "lost") for future in air.values()):
        raise _Vanished(f"connection {client.status}")
    if cluster is not None and str(getattr(cluster.status, "name", "")) == "failed":
        raise RunError("the queue takes no jobs of Dask workers; see its messages above. Finished results are kept")


def _read(future: Any) -> tuple[Any, BaseException | None]:
    """What a finished future holds: a result, or the error that it ended with."""
    if future.status in ("cancelled", "lost"):
        raise _Vanished("its calls were cancelled")
    try:
        error = future.exception(timeout=_FETCH)
        result = future.result(timeout=_FETCH) if error is None else None
    except (CancelledError, OSError, TimeoutError) as lost:
        raise _Vanished(f"a result could not be fetched: {type(lost).__name__}") from lost
    if isinstance(error, NaicaError):
        raise error
    return result, error


def _unanswered(key: str, error: BaseException, rules: Rules) -> OracleResult:
    """The result of a call that Dask gave up."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return rules.lost(key, "crashed", f"{_DEATHS + 1} Dask workers died while they made this call", 1)
    return rules.lost(key, "failed", f"the result did not arrive: {type(error).__name__}: {error}", 1)


# --- clusters ----------------------------------------------------------------------------------------------------------------
@contextmanager
def _client(engine: EngineSection, workers: int, folder: Path, patience: float) -> Iterator[tuple[Any, Any]]:
    """A client of the scheduler that the engine names, and the cluster where it is ours."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingPart('the engine "dask" needs Dask: pip install "naica[dask]"') from error
    ours = {"distributed.scheduler.allowed-failures": _DEATHS, "distributed.comm.timeouts.connect": f"{patience:g}s"}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(ours))
        stack.enter_context(_quiet())
        if engine.scheduler:
            client = stack.enter_context(_reached(distributed, engine.scheduler, patience))
            yield client, None
        else:
            cluster = stack.enter_context(_queue(engine, folder) if engine.queue else _local(distributed, workers, folder))
            yield stack.enter_context(distributed.Client(cluster)), cluster


@contextmanager
def _quiet() -> Iterator[None]:
    """What is wrong is said here, in a line; Dask's own log says it in pages."""
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _reached(distributed: Any, scheduler: str, patience: float) -> Iterator[Any]:
    """A client of a scheduler that runs already."""
    is_file = "://" not in scheduler and Path(scheduler).suffix == ".json"
    if is_file and not Path(scheduler).exists():
        raise RunError(f"there is no Dask scheduler file {scheduler}; start one with: dask scheduler --scheduler-file {scheduler}")
    where = {"scheduler_file": scheduler} if is_file else {"address": scheduler if "://" in scheduler else f"tcp://{scheduler}"}
    try:
        client = distributed.Client(**where, timeout=patience)
    except (OSError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {scheduler} ({error or type(error).__name__}); start one (dask scheduler) and its workers "
            "(dask worker ADDRESS), or choose another --engine. Nothing finished is lost: the same command goes on"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=5)


@contextmanager
def _local(distributed: Any, workers: int, folder: Path) -> Iterator[Any]:
    from naica.discover.engines.processes import main_untold

    folder.mkdir(parents=True, exist_ok=True)
    # workers are restarted as long as the cluster lives, so the script is kept from them as long
    with main_untold(), distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0", local_directory=str(folder),
        silence_logs="CRITICAL",
    ) as cluster:  # fmt: skip
        yield cluster


@contextmanager
def _queue(engine: EngineSection, folder: Path) -> Iterator[Any]:
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingPart('Dask workers as jobs of a queue need dask-jobqueue: pip install "naica[dask]"') from error
    command, kind = {"slurm": ("sbatch", dask_jobqueue.SLURMCluster), "pbs": ("qsub", dask_jobqueue.PBSCluster)}[engine.queue]
    if shutil.which(command) is None:
        raise RunError(f"engine.queue = {engine.queue!r}, but this machine has no {command}; start naica where jobs can be submitted")
    logs = folder / "jobs"
    logs.mkdir(parents=True, exist_ok=True)
    options = {**_asked(engine.job), **({"interface": engine.interface} if engine.interface else {})}
    if engine.python:
        options["python"] = engine.python
    cluster = kind(log_directory=str(logs), local_directory=str(folder), scheduler_options={"dashboard_address": ":0"}, **options)
    try:
        # the same least and most: jobs that end (killed, out of time) are replaced
        cluster.adapt(minimum_jobs=engine.jobs, maximum_jobs=engine.jobs, interval="2s")
        yield cluster
    finally:
        cluster.close()


def _asked(job: JobSection) -> dict[str, Any]:
    """A job's wishes in the words of dask-jobqueue: a process a core, each making one call at a time."""
    asked = {
        "cores": job.cores,
        "processes": job.cores,
        "memory": job.memory,
        "walltime": job.walltime,
        "queue": job.partition or None,
        "account": job.account or None,
        "job_extra_directives": list(job.directives),
        "job_script_prologue": ["export OMP_NUM_THREADS=1", *job.prologue],
    }
    return {name: value for name, value in asked.items() if value is not None}


# --- on a worker -------------------------------------------------------------------------------------------------------------
_here = threading.local()


def serve(packed: bytes, key: str, crystal: Crystal, spool: Spool | None) -> OracleResult:
    """On a worker: one call with all its attempts, unless its answer is there already."""
    if spool is None:
        return _asked_once(packed, key, crystal, None)
    with spool.claim(key):
        return spool.get(key, crystal) or _asked_once(packed, key, crystal, spool)


def _asked_once(packed: bytes, key: str, crystal: Crystal, spool: Spool | None) -> OracleResult:
    crew = _crew(packed, spool)
    results: list[OracleResult] = []
    crew.work_off({key: crystal}, results.append)
    return results[0]


def _crew(packed: bytes, spool: Spool | None) -> Crew:
    """The process below this thread of the worker; another oracle gets another one in its place."""
    kept: tuple[Any, Crew] | None = getattr(_here, "crew", None)
    name = (packed, spool)
    if kept is not None and kept[0] == name:
        return kept[1]
    if kept is not None:
        kept[1].close()
    try:
        rules = pickle.loads(packed)
    except Exception as error:
        raise InputError(f"a Dask worker cannot load the oracle ({type(error).__name__}: {error}); is naica the same there?") from error
    crew = Crew(rules, 1, spool, packed)
    _here.crew = (name, crew)
    return crew
