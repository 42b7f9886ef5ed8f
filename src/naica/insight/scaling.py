"""How the error falls with the number of labels: a power law, its exponent, and how sure that is.

Merchant et al., Nature 624, 80 (2023), Fig. 1e: the test error of a network on materials follows ``error = a · n^(−b)`` over decades.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from naica.errors import InputError


@dataclass(frozen=True)
class PowerLaw:
    """``error = prefactor · n^(−exponent)``; `exponent_error` is one standard error, `r2` of the straight line in logarithms."""

    prefactor: float
    exponent: float
    exponent_error: float
    r2: float

    def at(self, n: ArrayLike) -> NDArray[np.float64]:
        """The error it expects with `n` labels."""
        return self.prefactor * np.asarray(n, dtype=np.float64) ** -self.exponent

    def labels_for(self, error: float) -> float:
        """How many labels it expects to be needed for `error`; an extrapolation as soon as that is more than were measured."""
        return float((self.prefactor / error) ** (1 / self.exponent))


def fit_power_law(labels: ArrayLike, errors: ArrayLike) -> PowerLaw:
    """Least squares in logarithms.

    Parameters
    ----------
    labels, errors : (n) sizes of the training part and test errors, both positive; a size may come several times (seeds)

    Raises
    ------
    InputError
        For fewer than three sizes, or numbers that are not positive.
    """
    n, e = np.asarray(labels, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if len(n) != len(e) or len(np.unique(n)) < 3 or not ((n > 0) & (e > 0)).all():
        raise InputError(f"a power law needs at least three sizes, each with a positive error; got {len(np.unique(n))} sizes")
    x, y = np.log(n), np.log(e)
    slope, offset = np.polyfit(x, y, 1)
    rest = y - (slope * x + offset)
    variance = float(rest @ rest) / max(1, len(x) - 2) / float(((x - x.mean()) ** 2).sum())
    spread = float(((y - y.mean()) ** 2).sum())
    return PowerLaw(float(np.exp(offset)), float(-slope), variance**0.5, 1 - float(rest @ rest) / spread if spread else 1.0)


def scaling_plot(curves: dict[str, tuple[ArrayLike, ArrayLike]], quantity: str, path: str | Path) -> dict[str, PowerLaw]:
    """Errors against labels on logarithmic axes with the fitted laws, written to `path` (PNG or PDF).

    Parameters
    ----------
    curves : by name (sizes, errors)
    quantity : a name of fields.py; gives axis and unit

    Raises
    ------
    InputError
        As `fit_power_law`.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    from naica.fields import field

    laws = {name: fit_power_law(*curve) for name, curve in curves.items()}
    figure, axes = plt.subplots(figsize=(5.2, 3.8), constrained_layout=True)
    for k, (name, (sizes, errors)) in enumerate(curves.items()):
        n = np.asarray(sizes, dtype=np.float64)
        line = np.geomspace(n.min(), n.max(), 50)
        law = laws[name]
        axes.plot(n, np.asarray(errors), "o", color=f"C{k}", markersize=4)
        label = f"{name}: $n^{{-{law.exponent:.2f} \\pm {law.exponent_error:.2f}}}$"
        axes.plot(line, law.at(line), "-", color=f"C{k}", linewidth=1, label=label)
    axes.set(xscale="log", yscale="log", xlabel="training crystals", ylabel=f"test MAE, {field(quantity).axis}")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)
    return laws
