"""Products of neighbours with harmonics of their directions, summed on every atom: the message of equivariant networks.

Atoms j have features h of several degrees, edges have weights R per path and channel. A path couples one input with one degree of harmonics
to one output::

    A_i[m₃, k] = Σ_{e: j → i} R_e[k] Σ_{m₁} T_e[m₁, m₃] h_j[m₁, k],      T_e[m₁, m₃] = Σ_{m₂} C[m₁, m₂, m₃] Y_e[m₂]

The turns T do not depend on the channel: one small matrix product gives those of all paths from the harmonics, and what is left is linear in
each of R, T, h and the cotangent of A. So every derivative, of any order, is again such a sum over edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from naica.errors import ConfigError
from naica.nn.so3 import coupling


class Path(NamedTuple):
    """Input (its place), degree of the harmonics, output (its place), and the place in the output's stack. Paths on one place are summed."""

    source: int
    degree: int
    target: int
    slot: int


@dataclass(frozen=True)
class EdgeProduct:
    """Which products are made.

    Parameters
    ----------
    inputs : degrees of the features of senders
    outputs : degree of each output, and how many results are stacked in it
    paths : what is multiplied; degree 0 takes the input as it is, weighted
    """

    inputs: tuple[int, ...]
    outputs: tuple[tuple[int, int], ...]
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        for path in self.paths:
            first, (result, slots) = self.inputs[path.source], self.outputs[path.target]
            if not abs(first - path.degree) <= result <= first + path.degree or not 0 <= path.slot < slots:
                raise ConfigError(f"{path} does not lead from degree {first} to place {path.slot} of {slots} of degree {result}")

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where the turns of each path begin in a row of T; the last number is the length of a row."""
        found = [0]
        for path in self.paths:
            found.append(found[-1] + self.size(path))
        return tuple(found)

    def size(self, path: Path) -> int:
        """Numbers of T: (2l₁ + 1)(2l₃ + 1), or none where the input is taken as it is."""
        return (2 * self.inputs[path.source] + 1) * (2 * self.outputs[path.target][0] + 1) if path.degree else 0

    def turns(self, harmonics: Tensor) -> Tensor:
        """Harmonics of edges (E, (L + 1)²) → T (E, numbers), path by path, m₁ before m₃."""
        return harmonics @ _couplings(self, harmonics.shape[1], harmonics.dtype, harmonics.device)

    def __call__(self, weights: Tensor, turns: Tensor, inputs: Sequence[Tensor], receiver: Tensor, sender: Tensor) -> list[Tensor]:
        """The sums on every atom.

        Parameters
        ----------
        weights : R (E, paths, K)
        turns : T (E, numbers)
        inputs : h, each (N, 2l + 1, K)
        receiver, sender : (E); receivers never decrease

        Returns
        -------
        (N, 2l + 1, stacked, K) for each output.
        """
        return plain(self, weights, turns, inputs, receiver, sender)


@cache
def _couplings(product: EdgeProduct, components: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(components, numbers) from harmonics to turns."""
    found = torch.zeros(components, product.starts[-1], dtype=torch.float64)
    for path, start in zip(product.paths, product.starts, strict=False):
        if path.degree:
            block = coupling(product.inputs[path.source], path.degree, product.outputs[path.target][0]).transpose(0, 1).flatten(1)
            found[path.degree**2 : (path.degree + 1) ** 2, start : start + block.shape[1]] = block
    return found.to(dtype=dtype, device=device)


def plain(product: EdgeProduct, weights: Tensor, turns: Tensor, inputs: Sequence[Tensor], receiver: Tensor, sender: Tensor) -> list[Tensor]:
    """The same sums by operations of torch, one path after the other."""
    n, k = inputs[0].shape[0], inputs[0].shape[2]
    at_edges = [torch.index_select(h, 0, sender) for h in inputs]
    stacks: list[list[Tensor | None]] = [[None] * slots for _, slots in product.outputs]
    for p, (path, start) in enumerate(zip(product.paths, product.starts, strict=False)):
        rows, columns = 2 * product.inputs[path.source] + 1, 2 * product.outputs[path.target][0] + 1
        message = at_edges[path.source]
        if path.degree:
            turn = turns[:, start : start + rows * columns].view(-1, rows, columns)
            message = torch.bmm(turn.transpose(1, 2), message)
        message = message * weights[:, p, None]
        before = stacks[path.target][path.slot]
        base = message.new_zeros(n, columns, k) if before is None else before
        stacks[path.target][path.slot] = base.index_add(0, receiver, message)
    results = []
    for (degree, _), stack in zip(product.outputs, stacks, strict=True):
        filled = [inputs[0].new_zeros(n, 2 * degree + 1, k) if part is None else part for part in stack]
        results.append(torch.stack(filled, dim=2))
    return results
