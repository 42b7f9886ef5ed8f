"""Matrices of many structures by AiiDA: an engine for `naica.hamiltonian.workflow.make`, one process with provenance for each try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naica.discover.config import EngineSection
from naica.discover.engines import aiida
from naica.errors import MissingPart, RunError
from naica.hamiltonian.workflow import Task, perform
from naica.structure import Crystal

_FILE = "matrices.h5"


@dataclass(frozen=True)
class MatricesWork:
    """What a job does: run the source in a process of its own for so many seconds at most, and leave the matrices as a file."""

    code: str
    settings: Mapping[str, Any]
    tries: int
    seconds: float

    def __call__(self, crystal: Crystal, name: str, folder: Path) -> dict[str, Any]:
        """Status and reason. A missing program is raised: it is no outcome, and may be there the next time."""
        from pebble import ProcessPool

        with ProcessPool(1) as pool:
            task = Task(name, crystal, self.code, self.settings, folder / _FILE, self.tries)
            try:
                pool.schedule(perform, (task,)).result(timeout=self.seconds)
            except MissingPart:
                raise
            except TimeoutError:
                pool.stop()
                return {"status": "failed", "reason": f"not finished within {self.seconds:g} s"}
            except Exception as error:
                return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        return {"status": "converged", "reason": ""}


@dataclass(frozen=True)
class AiidaMatrices:
    """The engine: where AiiDA is (`engine`), its own place (`folder`), and how many processes are under way at once."""

    engine: EngineSection
    folder: Path
    workers: int

    def __call__(self, tasks: Sequence[Task], seconds: float) -> Iterator[tuple[Task, BaseException | None]]:
        """Run tasks and yield each with its error."""
        groups: dict[tuple[str, int, str], list[Task]] = {}
        for task in tasks:
            groups.setdefault((task.code, task.tries, repr(sorted(task.settings.items()))), []).append(task)
        for (code, tries, basis), group in groups.items():
            settings = dict(group[0].settings)
            protocol = {"code": code, "settings": settings, "tries": tries, "seconds": seconds}
            by_name = {task.name: task for task in group}
            ended = aiida.carry_out(
                MatricesWork(code, settings, tries, seconds), {task.name: task.crystal for task in group}, basis=f"{code} {tries} {basis}",
                protocol=protocol, tries=1, engine=self.engine, at_once=self.engine.jobs if self.engine.queue else self.workers,
                folder=self.folder, files=(_FILE,),
            )  # fmt: skip
            for name, outcome, reason, fetch in ended:
                task = by_name[name]
                if outcome is not None and outcome["status"] == "converged":
                    fetch(_FILE, task.path)
                    yield task, None
                else:
                    yield task, RunError(reason if outcome is None else outcome["reason"])
