"""What every engine shares: who is asked and how often, and the desk where each result is handed over once."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from naica.discover.engines.spool import Spool
from naica.discover.oracle import Oracle, OracleResult, Status
from naica.errors import InputError
from naica.structure import Crystal


@dataclass(frozen=True)
class Rules:
    """Who is asked, for how long (seconds), and how often again."""

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

    def packed(self, elsewhere: bool = False) -> bytes:
        """These rules as bytes that other processes understand.

        Raises
        ------
        InputError
            If the oracle cannot travel; `elsewhere` says that the processes do not come from this script, so what it defines is not there.
        """
        try:
            data = pickle.dumps(self)
        except Exception as error:
            raise InputError(
                f"oracle {self.oracle.name!r} cannot travel to worker processes ({error}); give it as package.module:factory, "
                "or use workers = 0"
            ) from error
        if elsewhere and b"__main__" in data:
            raise InputError(
                f"oracle {self.oracle.name!r} is defined in the script itself, which workers elsewhere do not have; "
                "put it into a module they can import and give it as package.module:factory"
            )
        return data


class Desk:
    """Hands over results: each key once, equal crystals together, spool files dropped once delivered."""

    def __init__(self, jobs: Mapping[str, Crystal], on_result: Callable[[OracleResult], None], spool: Spool | None) -> None:
        self.jobs, self.on_result, self.spool = jobs, on_result, spool
        groups: dict[tuple[str, str], list[str]] = {}
        for key, crystal in jobs.items():
            # a table may tell rows of equal structure apart by their id
            groups.setdefault((crystal.hash, str(crystal.info.get("id"))), []).append(key)
        self.twins = {keys[0]: keys[1:] for keys in groups.values()}
        self.open = dict.fromkeys(self.twins)

    def from_spool(self) -> dict[str, Crystal]:
        """Deliver what lies finished in the spool; returns the jobs left, one per distinct crystal."""
        for key in list(self.open):
            found = self.spool.get(key, self.jobs[key]) if self.spool else None
            if found is not None:
                self.deliver(found)
        return {key: self.jobs[key] for key in self.open}

    def deliver(self, result: OracleResult) -> None:
        """Hand over one result under its key and those of its twins; a second one of the same call is let go."""
        if result.key not in self.open:
            return
        self.on_result(result)
        for other in self.twins[result.key]:
            self.on_result(replace(result, key=other, seconds=0.0, attempts=0))
        del self.open[result.key]
        if self.spool:
            self.spool.drop(result.key)
