"""Pictures of vectors: how alike things are, as a map of cosines, and as a plane in which like things lie together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naica.errors import InputError
from naica.insight import style
from naica.structure.elements import element

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from naica.data.cooccurrence import Vectors

Floats = NDArray[np.float64]
_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.BLACK, style.GREY)
_MOST_POINTS = 3000


def family(symbol: str) -> str:
    """What chemists call an element's neighbours in the table: used to colour and order, never to learn."""
    one = element(symbol)
    if one.block == "f" or one.number in (57, 89):
        return "f block"
    if one.block == "d":
        return "transition metals"
    names = {1: "alkali metals", 2: "alkaline earths", 15: "pnictogens", 16: "chalcogens", 17: "halogens", 18: "noble gases"}
    return "hydrogen" if symbol == "H" else names.get(one.group, "groups 13 and 14")


def similarity_map(vectors: Vectors, path: str) -> None:
    """Cosines of all pairs of elements as a picture, elements in order of group and period."""
    order = sorted(range(len(vectors.names)), key=lambda k: _table_order(vectors.names[k]))
    names = [vectors.names[k] for k in order]
    figure, axes = _figure(0.1 * len(names) + 1.5)
    shown = axes.imshow(vectors.cosines()[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, fontsize=4.5, rotation=90)
    axes.set_yticks(range(len(names)), names, fontsize=4.5)
    axes.tick_params(length=0, pad=1)
    for k in range(1, len(names)):
        if _table_order(names[k])[0] != _table_order(names[k - 1])[0]:
            axes.axhline(k - 0.5, color=style.GREY, lw=0.3)
            axes.axvline(k - 0.5, color=style.GREY, lw=0.3)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="cosine of the vectors")
    figure.savefig(path, dpi=200)


def _table_order(symbol: str) -> tuple[int, int, int]:
    one = element(symbol)
    # the f block stands between groups 3 and 4
    place = 35 if one.block == "f" or one.number in (57, 89) else 10 * one.group
    return place, one.period, one.number


def plane(vectors: Vectors, groups: Sequence[str], path: str, labels: Mapping[str, str] | None = None, seed: int = 0) -> None:
    """The directions drawn in a plane so that like things lie together (t-SNE), coloured by group; `labels` stand beside points."""
    place = tsne(vectors.directions, seed=seed)
    figure, axes = _figure(6.0)
    many = sorted(set(groups), key=lambda name: -sum(g == name for g in groups))
    for k, name in enumerate(many):
        rows = [i for i, g in enumerate(groups) if g == name]
        marker = "os^Dv"[k // len(_COLOURS) % 5]
        axes.scatter(*place[rows].T, s=22, c=_COLOURS[k % len(_COLOURS)], marker=marker, lw=0, alpha=0.85, label=f"{name} ({len(rows)})")
    for name, (x, y) in zip(vectors.names, place, strict=True):
        if labels is not None and name in labels:
            axes.annotate(labels[name], (x, y), fontsize=6, xytext=(2, 2), textcoords="offset points")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("near in this plane means alike; the axes mean nothing", fontsize=7)
    axes.legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=200)


def _figure(side: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(side, 12.0) * 1.25, min(side, 12.0)), layout="constrained")
    return figure, figure.subplots()


def tsne(points: Floats, perplexity: float = 15.0, steps: int = 600, seed: int = 0) -> Floats:
    """Points (n, d) in a plane (n, 2) with their neighbourhoods kept: van der Maaten & Hinton, J. Mach. Learn. Res. 9, 2579 (2008).

    Exact, with early exaggeration; n² memory.

    Raises
    ------
    InputError
        For more than 3,000 points, or fewer than four.
    """
    n = len(points)
    if not 4 <= n <= _MOST_POINTS:
        raise InputError(f"a plane of {n} points; expected 4 to {_MOST_POINTS}: keep the ones that occur most")
    share = _neighbourhoods(points, min(perplexity, (n - 1) / 3))
    # the two directions of largest spread are a start that does not depend on chance but for a little noise
    centred = points - points.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    place = centred @ axes.T
    place = 1e-2 * (place / place.std() + 1e-3 * np.random.default_rng(seed).normal(size=(n, 2)))
    speed, gain = np.zeros_like(place), np.ones_like(place)
    for step in range(steps):
        early = step < steps // 3
        away = place[:, None] - place
        closeness = 1 / (1 + (away**2).sum(axis=2))
        np.fill_diagonal(closeness, 0.0)
        pull = (share * (12 if early else 1) - closeness / closeness.sum()) * closeness
        slope = 4 * (pull.sum(axis=1)[:, None] * place - pull @ place)
        gain = np.maximum(np.where(slope * speed > 0, gain * 0.8, gain + 0.2), 0.01)
        speed = (0.5 if early else 0.8) * speed - max(n / 12, 20) * gain * slope
        place = place + speed
        place -= place.mean(axis=0)
    return place


def _neighbourhoods(points: Floats, perplexity: float) -> Floats:
    """Symmetric shares (n, n), sum 1: Gaussians around each point that hold `perplexity` neighbours."""
    square = ((points[:, None] - points) ** 2).sum(axis=2) if len(points) <= 500 else _squares(points)
    np.fill_diagonal(square, np.inf)
    square = square - square.min(axis=1, keepdims=True)
    low, high = np.full(len(points), 1e-6), np.full(len(points), 1e12)
    for _ in range(80):
        sharpness = np.sqrt(low * high)
        share = np.exp(-square * sharpness[:, None])
        share /= share.sum(axis=1, keepdims=True)
        entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(axis=1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, sharpness, low), np.where(wide, high, sharpness)
    return np.asarray((share + share.T) / (2 * len(points)))


def _squares(points: Floats) -> Floats:
    size = (points**2).sum(axis=1)
    return np.maximum(size[:, None] + size - 2 * points @ points.T, 0.0)
