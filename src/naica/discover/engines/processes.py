"""Fresh worker processes that have one thread each and do not run the user's script a second time."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.process
import multiprocessing.spawn
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def context(with_main: bool) -> Any:
    """A spawning context whose workers start with one thread per numerical library.

    Unless `with_main`, workers do not import the ``__main__`` module. Python's own spawn imports the caller's script in each worker, so a
    script without an ``if __name__ == "__main__"`` guard would start itself again and again. Workers here need importable names only;
    scripts that define the oracle themselves keep Python's way.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    return _WithMain() if with_main else _WithoutMain()


@contextmanager
def _one_thread() -> Iterator[None]:
    # numerical libraries read these when they are loaded, so they must stand before the child starts
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def main_untold() -> Iterator[None]:
    """Processes spawned meanwhile do not import the ``__main__`` module."""
    usual = multiprocessing.spawn.get_preparation_data

    def without_main(name: str) -> dict[str, Any]:
        return {key: value for key, value in usual(name).items() if not key.startswith("init_main")}

    multiprocessing.spawn.get_preparation_data = without_main  # type: ignore[assignment]
    try:
        yield
    finally:
        multiprocessing.spawn.get_preparation_data = usual


if sys.platform != "win32":
    from multiprocessing.popen_spawn_posix import Popen

    class _Child(multiprocessing.context.SpawnProcess):
        def start(self) -> None:
            # Python lets no daemonic process (a worker of Dask is one) have children, lest they outlive it; ours watch their parent
            own = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
            daemonic = own.pop("daemon", None)
            try:
                super().start()
            finally:
                if daemonic is not None:
                    own["daemon"] = daemonic

    class _Process(_Child):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            with _lock, _one_thread():
                return Popen(process_obj)

    class _ProcessWithoutMain(_Child):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            with _lock, _one_thread(), main_untold():
                return Popen(process_obj)

    class _WithMain(multiprocessing.context.SpawnContext):
        Process = _Process  # type: ignore[assignment]

    class _WithoutMain(multiprocessing.context.SpawnContext):
        Process = _ProcessWithoutMain  # type: ignore[assignment]
