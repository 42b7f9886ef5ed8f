"""Published models of other codes by name: their files are a data set, read and turned into a naica model when somebody asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from naica.training.ensemble import Ensemble


@dataclass(frozen=True)
class Published:
    """Where a published model lies and what reads it: set and file of ``naica.data.registry``, ``module:function`` and its options.

    `quantity`: what it predicts, a name of ``naica.fields``.
    """

    data: str
    file: str
    reader: str
    quantity: str
    options: Mapping[str, Any] = field(default_factory=dict)


_QUANTITIES = {
    "formation-energy": "formation_energy_per_atom",
    "energy": "energy_per_atom",
    "band-gap": "band_gap",
    "fermi-energy": "fermi_energy",
    "bulk-modulus": "log_bulk_modulus",
    "shear-modulus": "log_shear_modulus",
    "poisson-ratio": "poisson_ratio",
    "metal": "is_metal",
    "homo": "homo_energy",
    "lumo": "lumo_energy",
    "gap": "band_gap",
    "atomization-energy": "atomization_energy",
    "heat-capacity": "heat_capacity",
}


def _quantity(name: str) -> str:
    """Of a name behind the year or set: ``2018-band-gap``, ``qm9-gap``."""
    return _QUANTITIES[name.partition("-")[2]]


def _megnet() -> dict[str, Published]:
    reader = "naica.training.import_megnet:import_megnet"
    files = {
        "2018-formation-energy": "mp-2018.6.1/formation_energy",
        "2018-band-gap": "mp-2018.6.1/band_gap_regression",
        "2018-metal": "mp-2018.6.1/band_classification",
        "2018-bulk-modulus": "mp-2018.6.1/log10K",
        "2018-shear-modulus": "mp-2018.6.1/log10G",
        "2019-formation-energy": "mp-2019.4.1/formation_energy",
        "2019-fermi-energy": "mp-2019.4.1/efermi",
        "2019-bulk-modulus": "mp-2019.4.1/log10K",
        "2019-shear-modulus": "mp-2019.4.1/log10G",
        "qm9-homo": "qm9-2018.6.1/HOMO",
        "qm9-lumo": "qm9-2018.6.1/LUMO",
        "qm9-gap": "qm9-2018.6.1/gap",
        "qm9-atomization-energy": "qm9-2018.6.1/U0",
        "qm9-heat-capacity": "qm9-2018.6.1/Cv",
    }
    found = {f"megnet-{name}": Published("megnet_pretrained", f"{file}.hdf5", reader, _quantity(name)) for name, file in files.items()}
    gap = "mf_2020_pbe_gllb_hse_exp/0.hdf5"
    # the level of theory of the prediction: one for all structures, or the column `fidelity` (0 to 3) of each
    found["megnet-2020-band-gap"] = Published("megnet_pretrained", gap, reader, "band_gap")
    for k, level in enumerate(("pbe", "gllb-sc", "hse", "experiment")):
        found[f"megnet-2020-band-gap-{level}"] = Published("megnet_pretrained", gap, reader, "band_gap", {"fidelity": k})
    return found


def _cgcnn() -> dict[str, Published]:
    reader = "naica.training.import_cgcnn:import_cgcnn"
    files = {
        "formation-energy": "formation-energy-per-atom",
        "energy": "final-energy-per-atom",
        "band-gap": "band-gap",
        "fermi-energy": "efermi",
        "bulk-modulus": "bulk-moduli",
        "shear-modulus": "shear-moduli",
        "poisson-ratio": "poisson-ratio",
        "metal": "semi-metal-classification",
    }
    return {
        f"cgcnn-2018-{name}": Published("cgcnn_pretrained", f"{file}.pth.tar", reader, _QUANTITIES[name]) for name, file in files.items()
    }


PUBLISHED: Mapping[str, Published] = {**_cgcnn(), **_megnet()}


@cache
def load_published(name: str) -> Ensemble:
    """The published model called `name`, a key of `PUBLISHED`.

    Raises
    ------
    MissingPart
        If its files are not on this machine; the message says how to get them.
    """
    from naica.data.registry import dataset

    known = PUBLISHED[name]
    module, _, function = known.reader.partition(":")
    return getattr(import_module(module), function)(dataset(known.data).path(known.file), name=name, **known.options)
