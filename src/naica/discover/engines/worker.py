"""What happens inside a worker process: load the oracle once, answer calls, leave results in the spool, die with the parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace

from naica.discover.engines.spool import Spool
from naica.discover.oracle import Oracle, OracleResult, checked
from naica.structure import Crystal

_PR_SET_PDEATHSIG = 1
_oracle: list[Oracle] = []
_spool: list[Spool | None] = []
_trouble: list[str] = []


class NotLoaded(Exception):
    """The oracle cannot be loaded in a worker: no call can succeed."""


def start(rules: bytes, spool: Spool | None, load_limit: float) -> None:
    """Prepare this process: die with the parent, load the oracle within `load_limit` seconds."""
    _die_with_parent()
    # a load that hangs ends the process, which the parent sees; a load that raises is told by the first call
    alarm = threading.Timer(load_limit, os._exit, (98,))
    alarm.daemon = True
    alarm.start()
    try:
        made = pickle.loads(rules).oracle
        if hasattr(made, "warm"):
            made.warm()
        if "torch" in sys.modules:
            from naica import runtime

            runtime.threads(1)
        _oracle.append(made)
    except Exception as error:
        _trouble.append(f"{type(error).__name__}: {error}")
    finally:
        alarm.cancel()
    _spool.append(spool)


def _die_with_parent() -> None:
    """End this process when its parent is gone, however it went: kill -9 leaves no orphans."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(99)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


@dataclass(frozen=True)
class Order:
    """One attempt at one job; `last` says that no other will follow."""

    key: str
    crystal: Crystal
    attempt: int
    last: bool


def call(order: Order) -> OracleResult:
    """One oracle call in a worker; its result is in the spool before it is returned."""
    if _trouble:
        raise NotLoaded(_trouble[0])
    return answer(_oracle[0], _spool[0], order)


def answer(oracle: Oracle, spool: Spool | None, order: Order) -> OracleResult:
    """Ask the oracle once; whatever it throws or returns becomes a result. Final results go to the spool first."""
    start, key, crystal = time.perf_counter(), order.key, order.crystal
    try:
        answers = oracle.evaluate([crystal])
        result = answers[0] if isinstance(answers, list | tuple) and len(answers) == 1 else None
        if not isinstance(result, OracleResult):
            result = failure(oracle, key, f"the oracle returned {type(answers).__name__} instead of one result for one crystal")
        result = checked(crystal, result)
    except (Exception, SystemExit) as error:
        # memory and files may be there at the next attempt; other errors repeat themselves
        passing = isinstance(error, MemoryError | OSError)
        result = replace(failure(oracle, key, f"{type(error).__name__}: {error}"), retryable=passing)
    result = replace(result, key=key, attempts=order.attempt, seconds=time.perf_counter() - start)
    if spool is not None and (order.last or not result.retryable):
        try:
            spool.put(key, crystal, result)
        except OSError as error:
            # the result itself is sound; the parent writes it to the ledger, and stops there if the disk is full
            sys.stderr.write(f"naica: result of {key} not kept in {spool.folder}: {error}\n")
    return result


def failure(oracle: Oracle, key: str, reason: str) -> OracleResult:
    """A failed result."""
    return OracleResult(key, "failed", reason, None, None, None, None, 0.0, oracle.level)
