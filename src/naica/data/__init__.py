"""Labelled sets of crystals: tables, units and levels of theory, splits, the registry of public sets. Knows no models."""

from naica.data.labels import Label as Label
from naica.data.labels import Level as Level
from naica.data.table import CrystalTable as CrystalTable
