from pathlib import Path

import pytest

from naica.discover.config import parse_config, read_config
from naica.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["mg-al-o.toml", "perovskites.toml"])
def test_examples_are_valid(name: str) -> None:
    assert read_config(EXAMPLES / name).title


def test_misspelt_key_names_file_key_and_cure(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('elements = ["Mg", "O"]\n[pick]\nper_rond = 3\n')
    with pytest.raises(ConfigError, match=r"x\.toml: unknown key 'pick\.per_rond'; did you mean 'per_round'\?"):
        read_config(file)


def test_misspelt_section() -> None:
    with pytest.raises(ConfigError, match="unknown key 'orcale'; did you mean 'oracle'"):
        parse_config({"elements": ["Mg"], "orcale": {}})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "elements is missing"),
        ({"elements": ["Mg", "Xx"]}, "unknown element symbol 'Xx'"),
        ({"elements": ["Mg"], "rounds": 0}, r"rounds: .*greater than or equal to 1.*found 0"),
        ({"elements": ["Mg"], "pick": {"explore": 0.7, "control": 0.7}}, "exceed 1"),
        ({"elements": ["Mg"], "stable": {"by": "label"}}, "needs a \\[pool\\]"),
    ],
)
def test_bad_values_say_what_and_where(raw: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(raw)


def test_missing_file_proposes_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "campaign.toml").write_text("")
    with pytest.raises(ConfigError, match=r"did you mean .*campaign\.toml"):
        read_config(tmp_path / "campain.toml")


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("elements = \nrounds = 3\n")
    with pytest.raises(ConfigError, match=r"x\.toml is not valid TOML: .*line 1"):
        read_config(file)
