"""Energies and forces by name: ASE calculators, the level of theory each stands for, and the elements each knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from naica.data.labels import Level
from naica.errors import ConfigError, MissingPart
from naica.structure.elements import symbol

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


@dataclass(frozen=True)
class Known:
    """One named calculator: how to make it, what its energies mean, which elements it knows, its published error in eV/atom."""

    make: Callable[[], Calculator]
    level: Callable[[], Level]
    elements: tuple[str, ...]
    error: float | None = None


def calculator(name: str) -> Calculator:
    """The calculator called `name`: one of `CALCULATORS`, the folder of a learned energy, or ``package.module:factory`` (called as it is).

    Each process makes it once and shares it; calculators here are cheap to attach to one structure after the other.

    Raises
    ------
    ConfigError
        For unknown names; MissingPart where the calculator's package is not installed.
    """
    return _made(name)


def level_of(name: str) -> Level:
    """The level of theory of a calculator's energies. A potential's estimate never equals the DFT it was trained on."""
    if name in CALCULATORS:
        return CALCULATORS[name].level()
    if (learned := _learned(name)) is not None:
        return learned.level_of(name)
    factory(name)
    return Level(functional=name, code=name.partition(":")[0])


def elements_of(name: str) -> tuple[str, ...] | None:
    """Symbols a calculator knows; None where it does not say."""
    if name in CALCULATORS:
        return CALCULATORS[name].elements
    learned = _learned(name)
    return None if learned is None else learned.card_of(name).elements or None


def is_learned(name: str) -> bool:
    """Whether a name is the folder of a learned energy."""
    return name not in CALCULATORS and _learned(name) is not None


def error_of(name: str) -> float | None:
    """Published mean absolute error of a calculator's energies against the theory it estimates, eV/atom; None where there is none."""
    return CALCULATORS[name].error if name in CALCULATORS else None


def factory(name: str) -> Callable[..., object]:
    """The callable behind ``package.module:name``.

    Raises
    ------
    ConfigError
        If the text has no colon, the module cannot be imported or has no such name.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        near = get_close_matches(name, CALCULATORS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown calculator {name!r}; {hint}known: {', '.join(CALCULATORS)}, a model folder, or package.module:factory")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot load {name!r}: {error}; expected an importable package.module:factory") from error
    if not callable(found):
        raise ConfigError(f"{name!r} is a {type(found).__name__}, not something to call")
    return found


@cache
def _made(name: str) -> Calculator:
    if name in CALCULATORS:
        return CALCULATORS[name].make()
    learned = _learned(name)
    return factory(name)() if learned is None else learned.make(name)  # type: ignore[return-value]


def _learned(name: str) -> ModuleType | None:
    """The module of learned potentials, if `name` is the folder of a model, or ``FOLDER@LEVEL``; torch is loaded only then."""
    texts = [text for text in (name, name.rpartition("@")[0]) if text]
    if not any((Path(text) / part / "card.json").is_file() for text in texts for part in ("model", "")):
        return None
    from naica.potential import learned

    return learned


def _emt() -> Calculator:
    from ase.calculators.emt import EMT

    return EMT()


def _emt_level() -> Level:
    return Level(functional="EMT (effective-medium potential, ASE parameters)", code="ase", version=_version("ase"))


def _chgnet() -> Calculator:
    from naica.potential.universal import chgnet

    return chgnet()


def _chgnet_level() -> Level:
    # the energies estimate Materials Project's mixture of PBE and PBE+U after its MP2020 corrections, on which CHGNet was trained
    return Level(functional="CHGNet-0.3.0 (estimates PBE/PBE+U with MP2020 mixing)", code="chgnet", version=_version("chgnet"))


def _chgnet_r2scan() -> Calculator:
    from naica.potential.universal import chgnet

    return chgnet("r2scan")


def _chgnet_r2scan_level() -> Level:
    return Level(functional="CHGNet-r2SCAN (estimates r2SCAN, transfer from 0.3.0)", code="chgnet", version=_version("chgnet"))


def _m3gnet() -> Calculator:
    from naica.potential.universal import m3gnet

    return m3gnet()


def _m3gnet_level() -> Level:
    # trained on energies of Materials Project as the code gave them, without the corrections that make PBE and PBE+U comparable
    return Level(functional="M3GNet-MP-2021.2.8 (estimates PBE/PBE+U of MP, uncorrected)", code="naica")


def _sevennet() -> Calculator:
    try:
        from sevenn.calculator import SevenNetCalculator
    except ImportError as error:
        raise MissingPart(f"SevenNet is not installed ({error}); pip install sevenn") from error
    made: Calculator = SevenNetCalculator("7net-0", device="cpu")
    return made


def _sevennet_level() -> Level:
    return Level(functional="SevenNet-0 (estimates PBE/PBE+U of MPtrj, uncorrected)", code="sevenn", version=_version("sevenn"))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# EMT: the elements ASE has parameters for that were fitted to metals (H, C, N, O there serve demonstrations only)
_EMT_ELEMENTS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
# the 89 elements of MPtrj, CHGNet's training set: hydrogen to plutonium without Po, At, Rn, Fr, Ra (Deng et al. 2023)
_CHGNET_ELEMENTS = tuple(symbol(z) for z in range(1, 95) if z not in (84, 85, 86, 87, 88))

CALCULATORS: Mapping[str, Known] = {
    "emt": Known(_emt, _emt_level, _EMT_ELEMENTS),
    # error: CHGNet 0.3.0 on the test part of MPtrj, as published with the model
    "chgnet": Known(_chgnet, _chgnet_level, _CHGNET_ELEMENTS, error=0.029),
    "chgnet-r2scan": Known(_chgnet_r2scan, _chgnet_r2scan_level, _CHGNET_ELEMENTS, error=0.0168),
    # the same elements: its data lack Z = 84 to 88 too; error on the test part of MPF.2021.2.8
    "m3gnet-mp-2021": Known(_m3gnet, _m3gnet_level, _CHGNET_ELEMENTS, error=0.035),
    # trained on MPtrj as CHGNet was; a package of its own, `sevenn`, which is no dependency of naica
    "sevennet-0": Known(_sevennet, _sevennet_level, _CHGNET_ELEMENTS),
}
