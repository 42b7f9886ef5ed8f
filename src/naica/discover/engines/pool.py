"""Oracle calls in persistent worker processes: time-outs, crashes and retries end in a status, never in a stuck campaign."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from naica.discover.engines import worker
from naica.discover.engines.calls import Rules
from naica.discover.engines.spool import Spool
from naica.discover.oracle import OracleResult
from naica.errors import RunError
from naica.structure import Crystal

if TYPE_CHECKING:
    from pebble import ProcessPool

_LOAD_LIMIT = 300.0
_TICK = 0.2
_END_LIMIT = 8.0
_RESTARTS = 3


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

    def late(self, timeout: float | None) -> bool:
        """True if this attempt has had more than its time."""
        return timeout is not None and self.began is not None and time.perf_counter() - self.began > timeout


class Crew:
    """Worker processes that have loaded one oracle, kept from one set of jobs to the next; close them when done.

    Parameters
    ----------
    rules : who is asked, and how often
    size : processes, each with one thread
    spool : where they leave results
    packed : the rules as bytes, where they are at hand already

    Raises
    ------
    InputError
        If the oracle cannot travel to a process.
    """

    def __init__(self, rules: Rules, size: int, spool: Spool | None, packed: bytes | None = None) -> None:
        self.rules, self.size, self.spool = rules, size, spool
        self.packed = packed or rules.packed()
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, at once."""
        if self._pool is not None:
            _end(self._pool)
            self._pool = None

    def work_off(self, jobs: Mapping[str, Crystal], deliver: Callable[[OracleResult], None]) -> None:
        """Compute jobs and deliver each result as it comes, in the calling thread.

        Raises
        ------
        RunError
            If the processes die or hang while loading the oracle.
        """
        waiting = [_Flight(key, 1, 0.0) for key in jobs]
        fruitless = 0
        while waiting:
            before = len(waiting)
            try:
                waiting = self._fly(jobs, waiting, deliver)
            except BaseException:
                self.close()
                raise
            if waiting:
                self.close()
            fruitless = fruitless + 1 if len(waiting) == before else 0
            if fruitless >= _RESTARTS:
                raise RunError(
                    f"worker processes die while loading oracle {self.rules.oracle.name!r}, {fruitless} times in a row; "
                    "try it alone with workers = 0 to see why. Finished results are kept: the same command goes on"
                )

    def _fly(self, jobs: Mapping[str, Crystal], flights: list[_Flight], deliver: Callable[[OracleResult], None]) -> list[_Flight]:
        """Fly until all have landed; returns those still in the air when the whole pool broke down."""
        rules = self.rules
        pool = self._pool = self._pool or _pool(self.packed, self.size, self.spool)

        def launch(flight: _Flight) -> Any:
            order = worker.Order(flight.key, jobs[flight.key], flight.attempt, flight.attempt > rules.retries)
            # no time limit of the pool's: it reads the clock on the wall, which may be set
            return pool.schedule(worker.call, args=(order,))

        try:
            air = {launch(flight): flight for flight in flights}
        except RuntimeError:
            # a pool kept from earlier whose processes have died in between takes no orders
            return flights
        while air:
            landed, _ = wait(air, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future, flight in air.items():
                if flight.began is None and future.running():
                    flight.began = time.perf_counter()
            late = [future for future, flight in air.items() if future not in landed and flight.late(rules.timeout)]
            for future in [*landed, *late]:
                flight = air[future]
                try:
                    result = _timed_out(future, flight, rules) if future in late else _landed(future, flight, rules)
                except BrokenProcessPool:
                    return [replace(f, began=None) for f in air.values()]
                del air[future]
                if result.status in ("crashed", "timed out") and self.spool:
                    # killed after it had finished, while the report was on its way
                    result = self.spool.get(flight.key, jobs[flight.key]) or result
                if rules.again(result, flight.attempt):
                    retry = _Flight(flight.key, flight.attempt + 1, result.seconds)
                    air[launch(retry)] = retry
                else:
                    deliver(result)
        return []


def _end(pool: ProcessPool) -> None:
    """Stop a pool. An interrupt may have come while a lock was held that the pool's own threads wait for; then its processes are killed."""
    from pebble.pool.process import WORKERS_NAME

    def stop() -> None:
        pool.stop()
        pool.join()

    stopping = threading.Thread(target=stop, daemon=True, name="end of pool")
    stopping.start()
    stopping.join(_END_LIMIT)
    if stopping.is_alive():
        for process in multiprocessing.active_children():
            if process.name == WORKERS_NAME:
                process.kill()


def _timed_out(future: Any, flight: _Flight, rules: Rules) -> OracleResult:
    """The result of an attempt that takes too long; giving it up kills its worker, and the pool starts another."""
    future.cancel()
    lost = rules.lost(flight.key, "timed out", f"no answer within {rules.timeout:g} s; its worker was killed", flight.attempt)
    return replace(lost, seconds=flight.spent + (rules.timeout or 0.0))


def _landed(future: Any, flight: _Flight, rules: Rules) -> OracleResult:
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

    from naica.discover.engines.processes import context

    needs_main = b"__main__" in packed
    return ProcessPool(
        max_workers=workers, max_tasks=0, initializer=worker.start, initargs=(packed, spool, _LOAD_LIMIT), context=context(needs_main)
    )
