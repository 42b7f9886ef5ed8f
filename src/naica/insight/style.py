"""Colours and words all pictures share. Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart."""

from __future__ import annotations

import re

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE = "#6B7280", "#D1D5DB"
ARM_COLOURS = {"exploit": BLUE, "explore": ORANGE, "control": GREY}
ARM_SYMBOLS = {"exploit": "circle", "explore": "square", "control": "diamond"}
SEQUENTIAL = "Cividis"
"""Colour scale that runs evenly from dark to light for every kind of colour vision."""


def subscripts(formula: str) -> str:
    """A formula as HTML: ``Al2O3`` → ``Al<sub>2</sub>O<sub>3</sub>``."""
    return re.sub(r"(\d+(?:\.\d+)?)", r"<sub>\1</sub>", formula)


def arm_colour(arm: str) -> str:
    """The colour of an arm of a campaign."""
    return ARM_COLOURS.get(arm, PURPLE)
