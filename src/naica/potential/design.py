"""Rows of the design matrix of a linear potential: what energies, forces and stresses of a structure are in units of the coefficients.

Energies, forces and stresses of ACE are linear in its coefficients. Forces are ``−Σ_i (∂B_i/∂A_i) (∂A_i/∂r)``: for each atom the derivative
of its invariants by its densities times that of its densities by the positions of its neighbours and by strain. The first is sparse and
written into dense blocks (an invariant depends on the densities of its own angular momenta alone), so that all the work is batched matrix
products in 64 bits; the sum over atoms is a sum of whole rows. Memory is bounded by working on a few atoms at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from naica.graphs.batch import Batch
from naica.models.ace import ACE, Surroundings
from naica.nn.solid import harmonic_slopes, harmonics
from naica.potential.derivatives import differentiated
from naica.potential.systems import Systems
from naica.structure import Crystal

Floats = NDArray[np.float64]

# bytes of the largest temporary
_MEMORY = 64_000_000
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, eq=False)
class Rows:
    """One structure (n atoms) in units of the coefficients (C of all elements, one row of the model's after the other).

    Parameters
    ----------
    energy : (C) eV
    forces : (3n, C) eV/Å, or None
    stress : (6, C) eV/Å³ in the order xx yy zz yz xz xy, or None; no rows without three periods
    fixed : energy (), forces (3n) and stress (6) of the repulsive core, which has no coefficients
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    fixed: Mapping[str, Tensor]


class DesignMatrix:
    """Makes the rows of one model; what does not depend on the structure is prepared once.

    Parameters
    ----------
    model : its coefficients do not matter
    """

    def __init__(self, model: ACE) -> None:
        self.model = ACE(model.config).double().requires_grad_(False)
        m = self.model
        self.width, self.columns = m.width, m.width * len(m.config.elements)
        components = [(c.element * m.radial_count + c.n, c.l, c.l**2 + k) for c in m.invariants.channels for k in range(2 * c.l + 1)]
        # components sorted by l: those one block needs lie together
        by_l = sorted(range(len(components)), key=lambda k: (components[k][1], k))
        self.radial_of = torch.tensor([components[k][0] for k in by_l], dtype=torch.long)
        self.lm_of = torch.tensor([components[k][2] for k in by_l], dtype=torch.long)
        self.l_of = torch.tensor([float(components[k][1]) for k in by_l], dtype=torch.float64)
        momenta = np.array([components[k][1] for k in by_l], dtype=np.int64)
        self.l_ends = [tuple(np.searchsorted(momenta, [l, l + 1]).tolist()) for l in range(m.l_max + 1)]  # noqa: E741
        self._blocks(np.argsort(by_l))

    def _blocks(self, rank_by_l: NDArray[np.int64]) -> None:
        """Invariants grouped by the set of their angular momenta; where each derivative goes in the group's dense blocks."""
        table, polynomial = self.model.invariants, self.model.polynomial
        sets = [tuple(sorted({table.channels[c].l for c in members})) for members in table.members]
        kinds = sorted(set(sets))
        group_of = np.array([kinds.index(s) for s in sets], dtype=np.int64)
        order = np.argsort(group_of, kind="stable")
        place = np.argsort(order)
        self.group_ends = [tuple(np.searchsorted(group_of[order], [g, g + 1]).tolist()) for g in range(len(kinds))]
        pairs = self.model.pairs
        self.order = torch.from_numpy(np.concatenate([np.arange(pairs), pairs + place]))  # where each column is, ordered by groups
        starts: dict[tuple[int, int], int] = {}
        self.blocks: list[tuple[int, int, int]] = []  # group, l, first place in the flat list of derivatives
        size = 0
        for g, kind in enumerate(kinds):
            for l in kind:  # noqa: E741
                starts[g, l] = size
                self.blocks.append((g, l, size))
                size += (self.group_ends[g][1] - self.group_ends[g][0]) * (self.l_ends[l][1] - self.l_ends[l][0])
        self.block_size = size
        by_class = np.argsort(table.component_class, kind="stable")
        momentum = self.l_of.numpy().astype(np.int64)
        self.derivatives: list[tuple[int, Tensor, Tensor, csr_matrix, Tensor]] = []
        monomials = {2: polynomial.count, 3: len(table.pairs), 4: len(table.triples)}
        for nu, (b, k, x, w) in polynomial.derivatives().items():
            # terms come sorted by invariant and component
            new = np.concatenate([[True], (b[1:] != b[:-1]) | (k[1:] != k[:-1])])
            matrix = csr_matrix((w, (np.cumsum(new) - 1, x)), shape=(int(new.sum()), monomials[nu]))
            invariant, component = b[new], rank_by_l[by_class[k[new]]]
            g, l = group_of[invariant], momentum[component]  # noqa: E741
            first = np.array([starts[key] for key in zip(g.tolist(), l.tolist(), strict=True)], dtype=np.int64)
            row = place[invariant] - np.array([e[0] for e in self.group_ends])[g]
            many = np.array([e[1] - e[0] for e in self.group_ends])[g]
            column = component - np.array([e[0] for e in self.l_ends])[l]
            where = torch.from_numpy(first + column * many + row)
            self.derivatives.append((nu, torch.from_numpy(invariant), torch.from_numpy(k[new]), matrix, where))

    @torch.no_grad()
    def rows(self, crystal: Crystal, forces: bool = True, stress: bool = True) -> Rows:
        """The rows of a structure.

        Raises
        ------
        InputError
            If it has an element the model does not know, or two atoms on one place.
        """
        systems = Systems.of(crystal)
        batch = systems.batch(self.model.needs.cutoff)
        stress = stress and bool(crystal.pbc.all())
        kinds = self.model.kinds_of(batch)
        around = Surroundings.of(batch, kinds, self.model.needs.cutoff)
        n = len(kinds)
        energy = torch.zeros(self.columns, dtype=torch.float64)
        # one row per atom and direction, six for strain, one for what fills up
        out = torch.zeros(3 * n + 7 if forces or stress else 0, self.columns, dtype=torch.float64)
        sums = self._Sums(self, batch, around, forces or stress)
        for kind, atoms in self.model.by_kind(kinds):
            chosen = torch.arange(n) if atoms is None else atoms
            columns = slice(kind * self.width, (kind + 1) * self.width)
            for part in chosen.split(sums.atoms_at_a_time):
                sums.add(part, energy[columns], out[:, columns])
        # sums are made in the order of the groups
        out = out.view(len(out), self.columns // self.width, self.width)[:, :, self.order].reshape(len(out), self.columns)
        volume = float(systems.volume[0])
        return Rows(
            energy,
            -out[: 3 * n] if forces else None,
            out[3 * n : 3 * n + 6] / volume if stress else None,
            self._fixed(batch),
        )

    def _fixed(self, batch: Batch) -> dict[str, Tensor]:
        def core(inner: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            around = Surroundings.of(inner, self.model.kinds_of(inner), self.model.needs.cutoff)
            return self.model.core_energy(around).sum().view(1), {}

        found = differentiated(core, batch)
        stress = torch.stack([found.stress[0, a, b] for a, b in VOIGT])
        return {"energy": found.energy[0], "forces": found.forces.reshape(-1), "stress": stress}

    class _Sums:
        """Densities of one structure and their derivatives."""

        def __init__(self, design: DesignMatrix, batch: Batch, around: Surroundings, slopes: bool) -> None:
            self.design, self.around, self.slopes = design, around, slopes
            m = design.model
            n = around.shape[0]
            self.pair_sums, density = m.sums(around)
            flat = density.reshape(n, -1)
            with torch.enable_grad():
                length = around.length.clone().requires_grad_()
                core = m.core_energy(replace(around, length=length))
                gate = m.gate(core)
                self.gate_slope = torch.autograd.grad(gate.sum(), length)[0] if gate.requires_grad else torch.zeros_like(length)
            self.gate, self.gated = gate.detach(), bool((core > 0).any())
            self.components = torch.index_select(flat, 1, cast(Tensor, m.polynomial.select)).T.contiguous()
            if slopes:
                self._differentiate(batch)
                widest = 3 * int(torch.bincount(self.column_atom, minlength=n).max()) + 6
            else:
                widest = 1
            per_atom = 8 * max(widest * max(design.width, len(design.radial_of)), design.block_size)
            self.atoms_at_a_time = max(1, _MEMORY // per_atom)

        def _differentiate(self, batch: Batch) -> None:
            """Slopes of radial functions and harmonics by position; columns: the atoms within reach of each atom, itself the first."""
            m, around = self.design.model, self.around
            n = around.shape[0]
            r0 = m.r0(around)
            self.radial, self.radial_slope = (m.by_element(f, around) for f in m.radial_pair(around.length, r0))
            self.pair_slope = m.by_element(m.radial_pair(around.length, r0, pair=True)[1], around)
            self.unit = around.vectors / around.length
            self.angular = harmonics(self.unit, m.l_max)
            self.angular_slope = harmonic_slopes(self.angular, m.l_max)
            receiver, sender = batch["edge_receiver"], batch["edge_sender"]
            itself = torch.arange(n) * n + torch.arange(n)
            codes, place = torch.unique(torch.cat([itself, receiver * n + sender]), return_inverse=True)
            self.column_atom, self.column_target = codes // n, codes % n
            self.self_column, edge_column = place[:n], place[n:]
            self.slot_column = torch.full((around.shape[0] * around.shape[1],), -1, dtype=torch.long)
            self.slot_column[around.slot] = edge_column

        def add(self, atoms: Tensor, energy: Tensor, out: Tensor) -> None:
            """Add what some atoms of one element contribute to the energy's row (width) and to the rows `out` (3n + 7, width)."""
            d, m = self.design, self.design.model
            flat, values = self._derivatives(atoms)
            values = torch.cat([self.pair_sums[atoms], values.T], dim=1)
            energy += self.gate[atoms] @ values
            if not self.slopes:
                return
            slots = self.around.shape[1]
            cells = (atoms[:, None] * slots + torch.arange(slots)).reshape(-1)
            local, many = self._local_columns(atoms, cells)
            n = len(atoms)
            by_component = self._position_slopes(cells, n, local, many)
            total = torch.empty(n, 3 * many + 6, m.width, dtype=torch.float64)
            total[:, :, : m.pairs] = self._pair_slopes(cells, n, local, many)
            started = set()
            for g, l, start in d.blocks:  # noqa: E741
                first, last = d.group_ends[g]
                low, high = d.l_ends[l]
                block = flat[:, start : start + (high - low) * (last - first)].view(n, high - low, last - first)
                part = torch.bmm(by_component[:, :, low:high], block)
                if g in started:
                    total[:, :, m.pairs + first : m.pairs + last] += part
                else:
                    total[:, :, m.pairs + first : m.pairs + last] = part
                started.add(g)
            if self.gated:
                turned = self._with_self(self.unit[:, cells].T[:, :, None] * self.gate_slope[cells][:, None, None], cells, n, local, many)
                by_group = torch.empty_like(values)
                by_group[:, d.order] = values
                total.mul_(self.gate[atoms][:, None, None]).add_(turned * by_group[:, None, :])
            out.index_add_(0, self._targets(atoms, many), total.view(-1, m.width))

        def _derivatives(self, atoms: Tensor) -> tuple[Tensor, Tensor]:
            """(n, block_size) derivatives of the invariants by the densities, and the invariants (B, n)."""
            d = self.design
            a = self.components[:, atoms]
            known = d.model.polynomial.monomials(a) if d.derivatives else {}
            flat = torch.zeros(len(atoms), d.block_size, dtype=torch.float64)
            invariants = torch.zeros(len(d.model.invariants), len(atoms), dtype=torch.float64)
            for nu, b, k, matrix, place in d.derivatives:
                values = torch.from_numpy(matrix @ known[nu].numpy())
                invariants.index_add_(0, b, values * a[k] / nu)
                flat[:, place] = values.T
            return flat, invariants

        def _local_columns(self, atoms: Tensor, cells: Tensor) -> tuple[Tensor, int]:
            """The column of each slot of some atoms, counted from the atom's first; and the largest number of columns."""
            first = torch.searchsorted(self.column_atom, atoms)
            last = torch.searchsorted(self.column_atom, atoms, right=True)
            many = int((last - first).max())
            column = self.slot_column[cells]
            slots = self.around.shape[1]
            local = column - first.repeat_interleave(slots)
            # empty slots go to a column that is thrown away
            return torch.where(column < 0, torch.full_like(local, many), local), many

        def _gathered(self, values: Tensor, strain: Tensor, n: int, local: Tensor, many: int) -> Tensor:
            """Slopes by edge (M, 3, K) → by column (n, 3 · many + 6, K): images of one atom added, the atom itself the rest."""
            slots, width = self.around.shape[1], values.shape[2]
            target = torch.arange(n).repeat_interleave(slots) * (many + 1) + local
            found = values.new_zeros(n * (many + 1), 3 * width).index_add_(0, target, values.reshape(len(values), -1))
            found = found.view(n, many + 1, 3, width)[:, :many]
            result = values.new_empty(n, 3 * many + 6, width)
            result[:, : 3 * many] = found.reshape(n, 3 * many, width)
            result[:, 3 * many :] = strain
            return result

        def _position_slopes(self, cells: Tensor, n: int, local: Tensor, many: int) -> Tensor:
            """(n, 3 · many + 6, K): densities by positions and strain."""
            d = self.design
            radial, slope = self.radial[:, cells][d.radial_of].T, self.radial_slope[:, cells][d.radial_of].T
            angular, unit, length = self.angular[:, cells][d.lm_of].T, self.unit[:, cells].T, self.around.length[cells][:, None]
            turned = self.angular_slope[:, :, cells][:, d.lm_of].permute(2, 0, 1)
            over = radial / length
            along = slope * angular - over * angular * d.l_of
            values = unit[:, :, None] * along[:, None, :] + turned * over[:, None, :]
            return self._with_self(values, cells, n, local, many)

        def _pair_slopes(self, cells: Tensor, n: int, local: Tensor, many: int) -> Tensor:
            """(n, 3 · many + 6, pair functions)."""
            values = self.unit[:, cells].T[:, :, None] * self.pair_slope[:, cells].T[:, None, :]
            return self._with_self(values, cells, n, local, many)

        def _with_self(self, values: Tensor, cells: Tensor, n: int, local: Tensor, many: int) -> Tensor:
            slots, width = self.around.shape[1], values.shape[2]
            values[local == many] = 0.0
            vectors = self.around.vectors[:, cells].T.reshape(n, slots, 3)
            by_slot = values.view(n, slots, 3, width)
            strain = torch.stack(
                [
                    0.5 * (_contracted(vectors[:, :, a], by_slot[:, :, b]) + _contracted(vectors[:, :, b], by_slot[:, :, a]))
                    for a, b in VOIGT
                ],
                dim=1,
            )
            result = self._gathered(values, strain, n, local, many)
            own = by_slot.sum(1)
            place = self.self_column[cells.view(n, slots)[:, 0] // slots] - torch.searchsorted(
                self.column_atom, cells.view(n, slots)[:, 0] // slots
            )
            rows = torch.arange(n)
            for axis in range(3):
                result[rows, 3 * place + axis] -= own[:, axis]
            return result

        def _targets(self, atoms: Tensor, many: int) -> Tensor:
            """(n · (3 · many + 6)) the row each column is added to."""
            n = self.around.shape[0]
            rubbish = 3 * n + 6
            first = torch.searchsorted(self.column_atom, atoms)
            count = torch.searchsorted(self.column_atom, atoms, right=True) - first
            column = first[:, None] + torch.arange(many)
            inside = torch.arange(many) < count[:, None]
            target = self.column_target[column.clamp(max=len(self.column_target) - 1)]
            rows = torch.where(inside[:, :, None], 3 * target[:, :, None] + torch.arange(3), torch.full((1, 1, 3), rubbish))
            strain = (3 * n + torch.arange(6)).expand(len(atoms), 6)
            return torch.cat([rows.reshape(len(atoms), -1), strain], dim=1).reshape(-1)


def _contracted(weights: Tensor, values: Tensor) -> Tensor:
    """(n, D), (n, D, K) → (n, K)."""
    return torch.bmm(weights[:, None, :], values)[:, 0]
