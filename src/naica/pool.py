"""Work on many things of one kind in several processes, in their order.

``NAICA_JOBS`` says in how many; by default as many as there are cores. A library's pool serves (joblib): its workers neither fork torch's
threads nor run the caller's script again, as those of the standard library do, so it works from a script, a notebook and a test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PER_TASK = 32


def in_processes(
    work: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    least: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """`work` on all items, some at a time; one result per item, in their order.

    Parameters
    ----------
    work : from some items to as many results; an importable function (or a partial one)
    items : what is to be done
    least : fewer items than these are done in this process, because starting others would cost more
    progress : called with (items done, items in all)
    """
    jobs = 1 if len(items) < least else int(os.environ.get("NAICA_JOBS") or os.cpu_count() or 1)
    tasks = [items[k : k + _PER_TASK] for k in range(0, len(items), _PER_TASK)]
    parts: Iterable[list[Result]] = map(work, tasks)
    if jobs > 1:
        from joblib import Parallel, delayed

        parts = Parallel(jobs, return_as="generator")(delayed(work)(task) for task in tasks)
    done: list[Result] = []
    for part in parts:
        done += part
        if progress:
            progress(len(done), len(items))
    return done
