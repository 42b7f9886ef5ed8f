"""One line per epoch: CSV for people and spreadsheets, TensorBoard for those who watch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from naica.errors import RunError


class History:
    """Writes ``log.csv`` and TensorBoard events into a folder.

    Parameters
    ----------
    folder : None writes nothing
    tensorboard : whether to write events as well
    """

    def __init__(self, folder: Path | None, tensorboard: bool) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        self._events: Any = None

    def write(self, row: dict[str, float]) -> None:
        """Append one epoch."""
        if self.folder is None:
            return
        path = self.folder / "log.csv"
        try:
            fresh = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                if fresh:
                    writer.writeheader()
                writer.writerow({key: f"{value:.8g}" for key, value in row.items()})
        except OSError as error:
            raise RunError(f"cannot write the training log {path}: {error}") from error
        if self.tensorboard:
            for key, value in row.items():
                self._writer().add_scalar(key, value, int(row["epoch"]))

    def rewind(self, rows: list[dict[str, float]]) -> None:
        """Make the CSV hold just these epochs: a kill may fall between log and state."""
        if self.folder is None:
            return
        path = self.folder / "log.csv"
        path.unlink(missing_ok=True)
        keep, self.tensorboard = self.tensorboard, False
        for row in rows:
            self.write(row)
        self.tensorboard = keep

    def close(self) -> None:
        """Flush the events."""
        if self._events is not None:
            self._events.close()

    def _writer(self) -> Any:
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.folder / "tensorboard")) if self.folder else None
        return self._events
