"""Environments of the packages that `potentials.py` times beside naica: one each, because their requirements do not fit together.

python benchmarks/potential_environments.py FOLDER            # all; some minutes and 6 GB
python benchmarks/potential_environments.py FOLDER mace       # one of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

TORCH = "torch==2.13.0"
# what to install after torch; schnetpack's own requirements ask for an old sympy that today's torch refuses, so it comes without them
ENVIRONMENTS: dict[str, list[list[str]]] = {
    "schnetpack": [
        ["ase", "numpy", "h5py", "pyyaml", "hydra-core", "torchmetrics", "pytorch_lightning", "hydra-colorlog", "rich", "fasteners"],
        ["dirsync", "torch-ema", "matscipy", "vesin", "progressbar", "tensorboardX"],
        ["--no-deps", "schnetpack==2.1.1"],
    ],
    "nequip": [["nequip==0.19.1"]],
    "mace": [["mace-torch==0.3.16"]],
    "matgl": [["matgl==4.1.2", "chgnet==0.4.2"]],
}


def main() -> None:
    """Make the environments that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(ENVIRONMENTS), help=f"of {', '.join(ENVIRONMENTS)}")
    args = parser.parse_args()
    for name in args.names:
        place = args.folder / name
        python = place / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
        for packages in ([TORCH], *ENVIRONMENTS[name]):
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
        print(f"{name}: {python}")


if __name__ == "__main__":
    main()
