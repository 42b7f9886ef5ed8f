"""Oracle calls in the campaign's own process, one after the other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from naica.discover.engines import worker
from naica.discover.engines.calls import Desk, Rules
from naica.structure import Crystal


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


def work_off(jobs: Mapping[str, Crystal], rules: Rules, desk: Desk) -> None:
    """Compute jobs one by one and deliver each."""
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
