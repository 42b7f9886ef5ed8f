"""Fresh worker processes that do not run the user's script a second time."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.spawn
import sys
import threading
from typing import Any

_lock = threading.Lock()


def context(with_main: bool) -> Any:
    """A spawning context. Unless `with_main`, workers do not import the ``__main__`` module.

    Python's own spawn imports the caller's script in each worker, so a script without an ``if __name__ == "__main__"`` guard would start
    itself again and again. Workers here need importable names only; scripts that define the oracle themselves keep Python's way.
    """
    if with_main or sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    return _Context()


if sys.platform != "win32":
    from multiprocessing import popen_spawn_posix

    class _Popen(popen_spawn_posix.Popen):
        """Launches without telling the child where the main module lies."""

        def _launch(self, process_obj: Any) -> None:
            usual = multiprocessing.spawn.get_preparation_data

            def without_main(name: str) -> dict[str, Any]:
                told = usual(name)
                return {key: value for key, value in told.items() if not key.startswith("init_main")}

            with _lock:
                multiprocessing.spawn.get_preparation_data = without_main  # type: ignore[assignment]
                try:
                    super()._launch(process_obj)
                finally:
                    multiprocessing.spawn.get_preparation_data = usual

    class _Process(multiprocessing.context.SpawnProcess):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            return _Popen(process_obj)

    class _Context(multiprocessing.context.SpawnContext):
        Process = _Process
