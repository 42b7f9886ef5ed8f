"""Runs oracle calls in persistent worker processes: time-outs, crashes and retries end in a status, never in a stuck campaign."""

from __future__ import annotations

import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naica.discover import worker
from naica.discover.oracle import Oracle, OracleResult, Status
from naica.discover.spool import Spool, fingerprint
from naica.errors import InputError, RunError
from naica.structure import Crystal

if TYPE_CHECKING:
    from pebble import ProcessPool

_LOAD_LIMIT = 300.0
_TICK = 0.2
_RESTARTS = 3


def run(
    oracle: Oracle,
    jobs: Mapping[str, Crystal],
    workers: int = 1,
    timeout: float | None = 300.0,
    retries: int = 1,
    *,
    on_result: Callable[[OracleResult], None] = lambda result: None,
    spool: str | Path | None = None,
) -> None:
    """Evaluate jobs and hand over each result as it comes, in the calling thread.

    Parameters
    ----------
    oracle : anything with `name`, `level`, `evaluate`; it must pickle unless `workers` is 0
    jobs : key → crystal; equal crystals are computed once and reported under each of their keys (all but the first with 0 seconds and
        0 attempts, as they cost nothing)
    workers : processes, each with one thread; 0 computes in this process
    timeout : seconds per call; the worker that exceeds it is killed, others go on. In this process (`workers` 0) it interrupts Python
        code in the main thread only
    retries : further attempts after a crash, a time-out, or a failure the oracle calls retryable
    on_result : called once per key; an exception from it stops the run (finished results stay in the spool)
    spool : folder where workers leave each result before reporting it; results found there are handed over instead of computed, and a
        file goes once `on_result` has returned

    Raises
    ------
    InputError
        If the oracle cannot travel to a process.
    RunError
        If workers die or hang while loading the oracle.
    """
    if workers < 0 or retries < 0 or (timeout is not None and timeout <= 0):
        raise InputError(f"workers = {workers}, retries = {retries}, timeout = {timeout}; expected ≥ 0, ≥ 0 and > 0")
    place = Spool(Path(spool), fingerprint(oracle)) if spool is not None else None
    desk = _Desk(jobs, on_result, place)
    left = desk.from_spool()
    rules = _Rules(oracle, timeout, retries)
    if left and workers == 0:
        _run_here(left, rules, desk)
    elif left:
        _run_in_processes(left, min(workers, len(left)), rules, desk)


@dataclass(frozen=True)
class _Rules:
    """Who is asked, for how long, how often."""

    oracle: Oracle
    timeout: float | None
    retries: int

    def lost(self, key: str, status: Status, reason: str, attempt: int) -> OracleResult:
        """The result of an attempt that brought none."""
        tries = f" ({attempt} attempts)" if attempt > 1 else ""
        return OracleResult(key, status, reason + tries, None, None, None, None, 0.0, self.oracle.level, attempt)

    def again(self, result: OracleResult, attempt: int) -> bool:
        """True if another attempt is worth it and allowed."""
        return attempt <= self.retries and (result.retryable or result.status in ("crashed", "timed out"))


class _Desk:
    """Hands over results: each key once, equal crystals together, spool files dropped once delivered."""

    def __init__(self, jobs: Mapping[str, Crystal], on_result: Callable[[OracleResult], None], spool: Spool | None) -> None:
        self.jobs, self.on_result, self.spool = jobs, on_result, spool
        groups: dict[tuple[str, str], list[str]] = {}
        for key, crystal in jobs.items():
            # a table may tell rows of equal structure apart by their id
            groups.setdefault((crystal.hash, str(crystal.info.get("id"))), []).append(key)
        self.twins = {keys[0]: keys[1:] for keys in groups.values()}

    def from_spool(self) -> dict[str, Crystal]:
        """Deliver what lies finished in the spool; returns the jobs left, one per distinct crystal."""
        left = {}
        for key in self.twins:
            found = self.spool.get(key, self.jobs[key]) if self.spool else None
            if found is not None:
                self.deliver(found)
            else:
                left[key] = self.jobs[key]
        return left

    def deliver(self, result: OracleResult) -> None:
        """Hand over one result under its key and those of its twins."""
        self.on_result(result)
        for other in self.twins[result.key]:
            self.on_result(replace(result, key=other, seconds=0.0, attempts=0))
        if self.spool:
            self.spool.drop(result.key)


# --- in this process ---------------------------------------------------------------------------------------------------------
class _TimeUp(BaseException):
    """The time of a call in this process is over; no oracle's ``except Exception`` may swallow it."""


@contextmanager
def _clock(timeout: float | None) -> Iterator[None]:
    can = timeout is not None and hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not can:
        yield
        return

    def ring(*_: Any) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout or 0.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _run_here(jobs: Mapping[str, Crystal], rules: _Rules, desk: _Desk) -> None:
    oracle = rules.oracle
    if hasattr(oracle, "warm"):
        oracle.warm()
    for key, crystal in jobs.items():
        start = time.perf_counter()
        for attempt in range(1, rules.retries + 2):
            order = worker.Order(key, crystal, attempt, attempt > rules.retries)
            try:
                with _clock(rules.timeout):
                    result = worker.answer(oracle, desk.spool, order)
            except _TimeUp:
                result = rules.lost(key, "timed out", f"no answer within {rules.timeout:g} s", attempt)
            if not rules.again(result, attempt):
                desk.deliver(replace(result, seconds=time.perf_counter() - start))
                break


# --- in worker processes -----------------------------------------------------------------------------------------------------
@dataclass
class _Flight:
    """One attempt at one job on its way."""

    key: str
    attempt: int
    spent: float
    began: float | None = None

    @property
    def seconds(self) -> float:
        """Time in all attempts so far."""
        return self.spent + (time.perf_counter() - self.began if self.began is not None else 0.0)


def _run_in_processes(jobs: Mapping[str, Crystal], workers: int, rules: _Rules, desk: _Desk) -> None:
    oracle = rules.oracle
    try:
        packed = pickle.dumps(oracle)
    except Exception as error:
        raise InputError(
            f"oracle {oracle.name!r} cannot travel to worker processes ({error}); give it as package.module:factory, or use workers = 0"
        ) from error
    waiting = [_Flight(key, 1, 0.0) for key in jobs]
    fruitless = 0
    while waiting:
        before = len(waiting)
        pool = _pool(packed, workers, desk.spool)
        try:
            waiting = _work_off(pool, jobs, waiting, rules, desk)
        finally:
            pool.stop()
            pool.join()
        fruitless = fruitless + 1 if len(waiting) == before else 0
        if fruitless >= _RESTARTS:
            raise RunError(
                f"worker processes die while loading oracle {oracle.name!r}, {fruitless} times in a row; "
                "try it alone with workers = 0 to see why. Finished results are kept: the same command goes on"
            )


def _work_off(pool: ProcessPool, jobs: Mapping[str, Crystal], flights: list[_Flight], rules: _Rules, desk: _Desk) -> list[_Flight]:
    """Fly until all have landed; returns those still in the air when the whole pool broke down."""

    def launch(flight: _Flight) -> Any:
        order = worker.Order(flight.key, jobs[flight.key], flight.attempt, flight.attempt > rules.retries)
        return pool.schedule(worker.call, args=(order,), timeout=rules.timeout)

    air = {launch(flight): flight for flight in flights}
    while air:
        landed, _ = wait(air, timeout=_TICK, return_when=FIRST_COMPLETED)
        for future, flight in air.items():
            if flight.began is None and future.running():
                flight.began = time.perf_counter()
        for future in landed:
            flight = air[future]
            try:
                result = _landed(future, flight, rules)
            except BrokenProcessPool:
                return [replace(f, began=None) for f in air.values()]
            del air[future]
            if result.status in ("crashed", "timed out") and desk.spool:
                # killed after it had finished, while the report was on its way
                result = desk.spool.get(flight.key, jobs[flight.key]) or result
            if rules.again(result, flight.attempt):
                retry = _Flight(flight.key, flight.attempt + 1, result.seconds)
                air[launch(retry)] = retry
            else:
                desk.deliver(result)
    return []


def _landed(future: Any, flight: _Flight, rules: _Rules) -> OracleResult:
    """The result of one finished attempt."""
    from pebble import ProcessExpired

    key, attempt = flight.key, flight.attempt
    try:
        result: OracleResult = future.result()
        return replace(result, seconds=result.seconds + flight.spent)
    except worker.NotLoaded as error:
        raise RunError(f"oracle {rules.oracle.name!r} cannot be loaded in a worker process: {error}") from error
    except BrokenProcessPool:
        raise
    except TimeoutError:
        lost = rules.lost(key, "timed out", f"no answer within {rules.timeout:g} s; its worker was killed", attempt)
        return replace(lost, seconds=flight.spent + (rules.timeout or 0.0))
    except ProcessExpired as error:
        lost = rules.lost(key, "crashed", f"the worker process died ({_exit(error.exitcode)})", attempt)
    except Exception as error:
        lost = rules.lost(key, "failed", f"the result did not arrive: {type(error).__name__}: {error}", attempt)
    return replace(lost, seconds=flight.seconds)


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
    return f"exit code {code}"


def _pool(packed: bytes, workers: int, spool: Spool | None) -> ProcessPool:
    from pebble import ProcessPool

    from naica.discover.processes import context

    needs_main = b"__main__" in packed
    return ProcessPool(
        max_workers=workers, max_tasks=0, initializer=worker.start, initargs=(packed, spool, _LOAD_LIMIT), context=context(needs_main)
    )
