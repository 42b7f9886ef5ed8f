"""CPU seconds of a piece of work; imports nothing, so that whoever times can tune the runtime first."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_of(work: Callable[[], object], repeats: int = 6, seconds: float = 12.0) -> float:
    """Least CPU seconds of one call, after one to warm up; at least two calls, at most `repeats`, none begun after `seconds` are spent."""
    work()
    found: list[float] = []
    while len(found) < 2 or (len(found) < repeats and sum(found) < seconds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)
