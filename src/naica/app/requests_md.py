"""What a user can ask of dynamics, as frozen data; `naica.app.actions_md` answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class MdRequest:
    """Molecular dynamics of the structures in `files`, side by side; goes on with the trajectory `out` if it is there.

    `settings` are the ensemble's own (relaxation, friction, barostat, shape). `pressure` in GPa, `temperature` and `ramp_to` in K, `dt` in
    fs.
    """

    files: tuple[Path, ...]
    model: str
    out: Path
    ensemble: str = "nvt"
    temperature: float = 300.0
    steps: int = 1000
    dt: float = 1.0
    supercell: tuple[int, int, int] = (1, 1, 1)
    ramp_to: float | None = None
    ramp_steps: int = 0
    pressure: float = 0.0
    seed: int = 0
    every: int = 10
    checkpoint: int = 1000
    velocities: bool = False
    dtype: Literal["float32", "float64"] = "float32"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrajectoryRequest:
    """Look at a trajectory, from step `first` on; write every `stride`-th frame of `system` to `out`."""

    file: Path
    out: Path | None = None
    system: int | None = None
    first: int = 0
    stride: int = 1
