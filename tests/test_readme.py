"""The README's Python example runs, as it stands there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    value, sigma = (float(t) for t in re.match(r"NaCl: (-?[\d.]+) ± ([\d.]+) eV/atom$", first).groups())
    # DFT (PBE, Materials Project): -2.1 eV/atom
    assert abs(value + 2.1) < 0.2
    assert 0 < sigma < 0.5
    # NaCl3 falls apart into half NaCl and half Cl
    assert float(second.strip("[]")) == pytest.approx(-0.5 - value / 2, abs=0.01)


def test_picture_and_pages_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[1] / target).exists(), target


def test_first_screen_has_the_two_commands() -> None:
    screen = "\n".join(README.splitlines()[:20])
    assert "make demo" in screen
    assert "make test" in screen
