"""Labelled sets of crystals: tables, units and levels of theory, splits, the registry of public sets. Knows no models."""

from naica.data.labels import Label as Label
from naica.data.labels import Level as Level
from naica.data.registry import DataSet as DataSet
from naica.data.registry import data_root as data_root
from naica.data.registry import dataset as dataset
from naica.data.registry import load_set as load_set
from naica.data.registry import sets as sets
from naica.data.splits import Split as Split
from naica.data.splits import split as split
from naica.data.table import CrystalTable as CrystalTable
