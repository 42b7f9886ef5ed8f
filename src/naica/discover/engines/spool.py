"""Finished oracle calls on disk: a worker leaves its result here before it reports, so a call survives the death of who ordered it.

One small JSON file per call, written aside and renamed, so a file is whole or absent. Numbers survive exactly (shortest round-trip text).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from naica.data.labels import Level
from naica.discover.oracle import Oracle, OracleResult
from naica.structure import Crystal

_FORMAT = 1
_ATOMS = ("numbers", "positions", "cell", "pbc")
_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def fingerprint(oracle: Oracle) -> str:
    """What must agree for an old result to answer a new call: the oracle's name, level of theory and settings."""
    return json.dumps([oracle.name, asdict(oracle.level), getattr(oracle, "settings", {})], sort_keys=True, default=str)


@dataclass(frozen=True)
class Spool:
    """A folder of finished calls of one oracle."""

    folder: Path
    fingerprint: str

    def path(self, key: str) -> Path:
        """The file of a call."""
        safe = key if _SAFE.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()[:32]
        return self.folder / f"{safe}.json"

    def put(self, key: str, asked: Crystal, result: OracleResult) -> None:
        """Keep a finished call.

        Raises
        ------
        OSError
            If the folder cannot be written; the caller still has the result.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"format": _FORMAT, "key": key, "asked": asked.hash, "oracle": self.fingerprint, "result": plain(result)})
        aside = self.folder / f".{self.path(key).name}.{os.getpid()}"
        try:
            with aside.open("w", encoding="utf-8") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            aside.replace(self.path(key))
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def get(self, key: str, asked: Crystal) -> OracleResult | None:
        """The finished call of this key, structure and oracle; None if there is none, or if the file is another call's."""
        try:
            kept = json.loads(self.path(key).read_text(encoding="utf-8"))
            same = (kept["format"], kept["key"], kept["asked"], kept["oracle"]) == (_FORMAT, key, asked.hash, self.fingerprint)
            return revived(kept["result"], key, asked) if same else None
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def drop(self, key: str) -> None:
        """Forget a call that is recorded elsewhere now."""
        # a file that cannot be removed does no harm: who has recorded the call does not ask for it again
        with suppress(OSError):
            self._claim(key).unlink(missing_ok=True)
            self.path(key).unlink()

    def _claim(self, key: str) -> Path:
        return self.folder / f".{self.path(key).stem}.claim"

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold a call for oneself: who comes second waits until the first has left its result, or has died.

        A lock of the operating system, so it ends with its holder, and no clock is asked. File systems without locks give none; then two
        who are sent for the same call at the same time both compute it, and the first result counts.
        """
        handle = None
        try:
            import fcntl

            self.folder.mkdir(parents=True, exist_ok=True)
            handle = self._claim(key).open("w")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except (OSError, ImportError):
            pass
        try:
            yield
        finally:
            if handle is not None:
                handle.close()


def plain(result: OracleResult) -> dict[str, Any]:
    """A result as values that JSON keeps exactly."""
    crystal = result.crystal
    return {
        "status": result.status,
        "reason": result.reason,
        "energy": result.energy,
        "forces": None if result.forces is None else np.asarray(result.forces).tolist(),
        "stress": None if result.stress is None else np.asarray(result.stress).tolist(),
        "seconds": result.seconds,
        "level": asdict(result.level),
        "attempts": result.attempts,
        "retryable": result.retryable,
        "crystal": None if crystal is None else {part: getattr(crystal, part).tolist() for part in _ATOMS},
    }


def revived(plain: dict[str, Any], key: str, asked: Crystal) -> OracleResult:
    """The result of `plain`, under a key and with the asked crystal's info."""
    atoms, forces, stress = plain["crystal"], plain["forces"], plain["stress"]
    return OracleResult(
        key=key,
        status=plain["status"],
        reason=plain["reason"],
        crystal=None if atoms is None else Crystal(**{part: atoms[part] for part in _ATOMS}, info=asked.info),
        energy=plain["energy"],
        forces=None if forces is None else np.array(forces),
        stress=None if stress is None else np.array(stress),
        seconds=plain["seconds"],
        level=Level(**plain["level"]),
        attempts=plain["attempts"],
        retryable=plain["retryable"],
    )
