"""The top of the package: what is public, and what it costs to look at it."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import naica

HEAVY = ("torch", "numpy", "pymatgen", "ase", "pyarrow", "lightning", "plotly", "pandas", "scipy", "chgnet", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded after `code` ran in a fresh interpreter."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *{{m.split('.')[0] for m in sys.modules}})"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split("MODULES")[-1].split())


def test_import_loads_nothing_heavy():
    assert loaded_by("import naica; dir(naica)") & set(HEAVY) == set()


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["predict", "--help"], ["discover", "--help"], ["data", "--help"]])
def test_help_loads_nothing_heavy(command):
    code = f"from naica.app.cli import main\ntry:\n    main({command!r})\nexcept SystemExit:\n    pass"
    assert loaded_by(code) & set(HEAVY) == set()


def test_help_answers_at_once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, "-m", "naica.app.cli", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "discover" in shown.stdout
    # about 0.2 s of CPU time; the peers take 3 to 13 s
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.0


def test_data_layers_know_no_tensors():
    modules = "naica.structure.io, naica.structure.symmetry, naica.data.registry, naica.data.splits, naica.data.clean"
    assert "torch" not in loaded_by(f"import {modules}")


@pytest.mark.parametrize("name", naica.__all__)
def test_every_public_name_is_there_and_documented(name):
    found = getattr(naica, name)
    assert callable(found)
    assert found.__doc__


def test_all_homes_and_type_hints_name_the_same():
    tree = ast.parse(Path(naica.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    hinted = {alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert hinted == set(naica.__all__) == set(naica._HOMES)
    assert set(naica.__all__) <= set(dir(naica))


def test_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="no attribute 'bnads'; public names: read, write"):
        _ = naica.bnads
