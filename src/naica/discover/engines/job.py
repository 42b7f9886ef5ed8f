"""What a job of AiiDA runs in its folder: read the order, do the work, leave the outcome in one step."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

from naica.structure import Crystal


def main() -> None:
    """``order.json`` and ``work.pkl`` in, ``outcome.json`` out."""
    folder = Path.cwd()
    order = json.loads((folder / "order.json").read_text())
    crystal = Crystal(**order["crystal"], info=order["info"])
    work = pickle.loads((folder / "work.pkl").read_bytes())
    outcome = work(crystal, order["name"], folder)
    aside = folder / ".outcome.json"
    aside.write_text(json.dumps(outcome))
    os.replace(aside, folder / "outcome.json")


if __name__ == "__main__":
    main()
