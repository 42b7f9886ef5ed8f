"""Features in the frame of an edge: rotations into it, and linear maps there that cost L³ instead of L⁶ (Passaro and Zitnick, 2023).

Features are (n, (L + 1)², 2, C): components l, m in std order, then ordinary tensors (parity (−1)^l) and pseudo-tensors, then channels.
In a frame whose z is the edge, what may mix are components of equal |m|; of two parities only as a mirror through the edge allows::

    y_m  = a x_m  − b x'₋m ,    y₋m = b x'_m + a x₋m       x of the same parity, x' of the other

so turning the frame about the edge changes nothing, and inversion acts as it should.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from naica.nn.solid import harmonics, three_j


def std_harmonics(vectors: Tensor, most: int) -> Tensor:
    """(n, (most + 1)²) real harmonics of directions (n, 3) in std order (l = 1: y, z, x), ``Σ_m Y² = 2l + 1``; z is the polar axis."""
    # e3nn's order is std's for coordinates in the order y, z, x
    unit = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return harmonics(unit[:, [1, 2, 0]].t().contiguous(), most).t()


@cache
def _directions(most: int) -> tuple[Tensor, list[Tensor]]:
    """Directions (s, 3) that tell harmonics apart, and for each degree the pseudo-inverse (2l + 1, s) of their values."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(6 * most + 10, 3, generator=generator, dtype=torch.float64)
    values = std_harmonics(points, most)
    return points, [torch.linalg.pinv(values[:, degree**2 : (degree + 1) ** 2]) for degree in range(most + 1)]


def frames(vectors: Tensor) -> Tensor:
    """(E, 3, 3) rotations that take each vector to +z."""
    z = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    helper = torch.eye(3, dtype=z.dtype, device=z.device)[z.abs().argmin(dim=1)]
    x = torch.linalg.cross(helper, z)
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=1)


def wigner(turns: Tensor, most: int) -> list[Tensor]:
    """For l = 0 … `most` the (E, 2l + 1, 2l + 1) that turn components as the rotations (E, 3, 3) turn vectors."""
    points, inverse = _directions(most)
    points = points.to(turns)
    turned = torch.einsum("si,eji->esj", points, turns)
    values = std_harmonics(turned.reshape(-1, 3), most).view(len(turns), len(points), -1)
    return [torch.einsum("as,esb->eba", inverse[d].to(turns), values[:, :, d**2 : (d + 1) ** 2]) for d in range(most + 1)]


def turned(features: Tensor, d: list[Tensor], back: bool = False) -> Tensor:
    """Features (E, (L + 1)², 2, C) turned by the matrices of `wigner`, or turned back."""
    shape = features.shape
    flat = features.reshape(shape[0], shape[1], -1)
    parts = []
    for degree in range(int(shape[1] ** 0.5)):
        own = flat[:, degree**2 : (degree + 1) ** 2]
        parts.append(own if degree == 0 else (d[degree].transpose(1, 2) if back else d[degree]) @ own)
    return torch.cat(parts, dim=1).view(shape)


class FrameLinear(nn.Module):
    """A linear map of features in the frame of their edge that inversion and turns about the edge allow; its numbers are a subclass's.

    Parameters
    ----------
    degree : L of what comes in and goes out
    inputs, out : channels of each parity
    """

    order: Tensor
    back: Tensor

    def __init__(self, degree: int, inputs: int, out: int) -> None:
        super().__init__()
        self.degree, self.inputs, self.out = degree, inputs, out
        self.register_buffer("order", _by_order(degree), persistent=False)
        self.register_buffer("back", torch.argsort(_by_order(degree)), persistent=False)

    def matrices(self) -> tuple[list[Tensor], list[Tensor]]:
        """For |m| = 0 … L what maps each parity to itself, and for |m| = 1 … L what maps the other parity to it: (2, rows, columns) each.

        Rows are degree and channel of what comes in, degrees from |m| up; columns the same of what goes out.
        """
        raise NotImplementedError  # an abstract method

    def forward(self, x: Tensor) -> Tensor:
        """(E, (L + 1)², 2, inputs) → (E, (L + 1)², 2, out)."""
        edges, degree = len(x), self.degree
        same, other = self.matrices()
        # parity first, then components by |m|, so that each |m| is one matrix product
        x = x.permute(2, 0, 1, 3)[:, :, self.order]
        size = degree + 1
        parts = [torch.bmm(x[:, :, :size].reshape(2, edges, -1), same[0]).view(2, edges, size, self.out)]
        start = size
        for m in range(1, degree + 1):
            size = degree + 1 - m
            plus = x[:, :, start : start + size].reshape(2, edges, -1)
            minus = x[:, :, start + size : start + 2 * size].reshape(2, edges, -1)
            a, b = same[m], other[m - 1]
            parts.append((torch.bmm(plus, a) - torch.bmm(minus.flip(0), b)).view(2, edges, size, self.out))
            parts.append((torch.bmm(plus.flip(0), b) + torch.bmm(minus, a)).view(2, edges, size, self.out))
            start += 2 * size
        return torch.cat(parts, dim=2)[:, :, self.back].permute(1, 2, 0, 3)


class SO2Linear(FrameLinear):
    """The most general such map: a matrix of its own for each |m|."""

    def __init__(self, degree: int, inputs: int, out: int) -> None:
        super().__init__(degree, inputs, out)
        self.same = nn.ParameterList()
        self.other = nn.ParameterList()
        for m in range(degree + 1):
            rows, columns = (degree + 1 - m) * inputs, (degree + 1 - m) * out
            scale = (rows * (1 if m == 0 else 2)) ** -0.5
            self.same.append(nn.Parameter(scale * torch.randn(2, rows, columns)))
            if m:
                self.other.append(nn.Parameter(scale * torch.randn(2, rows, columns)))

    def matrices(self) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters as they are."""
        return list(self.same), list(self.other)


class ReducedProduct(FrameLinear):
    """The tensor product of features with the harmonics of their edge, ``Σ W_path [x_l₁ ⊗ Y_l₂]_l₃``, computed in the frame of the edge.

    There Y_l₂m is √(2 l₂ + 1) for m = 0 and nothing else, so the couplings of all l₂ add up to one small matrix for each |m|: the same
    function as the product written out, at the cost of a linear map. Paths with l₁ + l₂ + l₃ odd change the class of parity, others do not.
    """

    def __init__(self, degree: int, inputs: int, out: int) -> None:
        super().__init__(degree, inputs, out)
        self.paths = [(a, b, c) for a in range(degree + 1) for b in range(degree + 1) for c in range(abs(a - b), min(degree, a + b) + 1)]
        into = [sum(c == path[2] for path in self.paths) for c in range(degree + 1)]
        scale = torch.tensor([(into[c] * inputs) ** -0.5 for *_, c in self.paths])
        # by path and the parity of what goes out
        self.weight = nn.Parameter(scale[:, None, None, None] * torch.randn(len(self.paths), 2, inputs, out))
        for m in range(degree + 1):
            for name, values in zip(("same", "other"), _couplings(degree, m, self.paths), strict=True):
                self.register_buffer(f"{name}{m}", values, persistent=False)

    def matrices(self) -> tuple[list[Tensor], list[Tensor]]:
        """The couplings contracted with the weights of the paths."""
        found: dict[str, list[Tensor]] = {"same": [], "other": []}
        for name, parts in found.items():
            for m in range(self.degree + 1):
                if name == "other" and m == 0:
                    continue
                coupling = getattr(self, f"{name}{m}").to(self.weight.dtype)
                size = self.degree + 1 - m
                whole = torch.einsum("pij,pkcd->kicjd", coupling, self.weight)
                parts.append(whole.reshape(2, size * self.inputs, size * self.out))
        return found["same"], found["other"]


def _couplings(degree: int, m: int, paths: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    """(paths, l₁ − m, l₃ − m) couplings of the components m that keep m, and of those that turn m into −m."""
    size = degree + 1 - m
    same, other = (torch.zeros(len(paths), size, size, dtype=torch.float64) for _ in range(2))
    for p, (a, b, c) in enumerate(paths):
        if min(a, c) < m:
            continue
        # normalised so that the square of what comes out is the mean square of what goes in
        w = three_j(a, b, c) * ((2 * c + 1) * (2 * b + 1)) ** 0.5
        if (a + b + c) % 2:
            other[p, a - m, c - m] = w[a + m, b, c - m]
        else:
            same[p, a - m, c - m] = w[a + m, b, c + m]
    return same, other


def _by_order(degree: int) -> Tensor:
    """Components in std order → m = 0 of all l, then m = +1 of all, m = −1 of all, m = +2 and so on."""
    places = [l * l + l for l in range(degree + 1)]  # noqa: E741  the letter of the degree
    for m in range(1, degree + 1):
        places += [l * l + l + m for l in range(m, degree + 1)] + [l * l + l - m for l in range(m, degree + 1)]  # noqa: E741
    return torch.tensor(places)
