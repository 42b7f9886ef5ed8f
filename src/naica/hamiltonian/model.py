"""`HamiltonianModel`: an equivariant network whose tensors become blocks of H, hermitian by construction.

What it says of a structure is ``H = μ S + H₀ + T(d) + network``: H₀ the Hamiltonian of superposed atomic densities where a set has one
(else 0),
T the two-centre table fitted to what is left of the training part, the network the rest. The constant μ is set to 0: every training
structure is first brought to ⟨H, S⟩ = 0, or with H₀ to ⟨H − H₀, S⟩ = 0, so that one zero of energy serves all.

With spin–orbit coupling the network gives the four real blocks of `naica.hamiltonian.spinors`; tables are the same for both spins. SchNOrb
gives energies and S as well: forces are the slopes of its energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naica.errors import ConfigError, InputError
from naica.graphs.batch import Batch
from naica.graphs.spec import GraphSpec
from naica.hamiltonian.graphs import Sample, sample, unpadded
from naica.hamiltonian.layout import BlockLayout
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.spinors import REVERSE
from naica.hamiltonian.two_centre import TwoCentre, empty
from naica.nn.atoms import N_ELEMENTS
from naica.nn.so2 import wigner
from naica.structure import Crystal
from naica.training.property import config_dict

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model says of a sample.

    `pair` (P, w) and `own` (N, w) padded blocks, eV, added to the baseline; `overlap` (P, n²) S of pairs; `energy` (B) eV in 64 bits and
    `forces` (N, 3) eV/Å. None where the model has no such output.
    """

    pair: Tensor
    own: Tensor
    overlap: Tensor | None = None
    energy: Tensor | None = None
    forces: Tensor | None = None


class HamiltonianModel(nn.Module):
    """A network, its layout of blocks, and the tables beside it.

    Parameters
    ----------
    architecture, architecture_config : a backbone that gives tensors of atoms and edges (``deeph2``, ``deeph-e3``), or features of them in
        local frames (``deeph``) or in none (``schnorb``)
    baseline : two-centre table of what the network is added to
    overlap : two-centre table of S, for structures that come without; None if the basis is orthogonal
    on_h0 : whether the network is added to H₀ (which every structure must then bring along)
    spin : whether blocks are of spinors
    energies, overlaps : whether it predicts energies (with forces) and S (of pairs; an atom's own is the table's)

    Raises
    ------
    ConfigError
        If the network's tensors do not reach the degree the blocks need, or energies or overlaps are asked of one that has none.
    """

    on_site_scale: Tensor
    pair_scale: Tensor
    pair_decay: Tensor
    spin_own_scale: Tensor
    spin_scale: Tensor
    spin_decay: Tensor
    overlap_scale: Tensor
    overlap_decay: Tensor
    energy_scale: Tensor
    energy_shift: Tensor
    masks: Tensor

    def __init__(
        self,
        architecture: str,
        architecture_config: Mapping[str, Any] | None,
        baseline: TwoCentre,
        overlap: TwoCentre | None = None,
        on_h0: bool = False,
        *,
        spin: bool = False,
        energies: bool = False,
        overlaps: bool = False,
    ) -> None:
        from naica.models import backbone

        super().__init__()
        self.architecture, self.baseline, self.overlap, self.on_h0 = architecture, baseline, overlap, on_h0
        self.layout = BlockLayout(baseline.basis, spin)
        self.backbone = backbone(architecture, **(architecture_config or {}))
        self.architecture_config = config_dict(self.backbone.config)
        widths = cast(Mapping[str, int], self.backbone.widths)
        self.energies, self.overlaps = energies, overlaps
        if (energies or overlaps) and not getattr(self.backbone, "reads_energy", False):
            raise ConfigError(f"{architecture} predicts H alone; the network that has energies and overlaps beside it is schnorb")
        self.atom_out: nn.Module
        self.edge_out: nn.Module
        if "edge" in widths:
            atom = self.architecture_config.get("hidden", widths["edge"])
            self.atom_out, self.edge_out = _FramedBlocks(atom, self.layout), _FramedBlocks(widths["edge"], self.layout)
        elif (degree := self.architecture_config.get("degree")) is None:
            raise ConfigError(f"{architecture} gives no features of pairs; networks of Hamiltonians are deeph, deeph-e3, deeph2, schnorb")
        elif degree < self.layout.most:
            why = " (one more for spin)" if spin else ""
            raise ConfigError(f"{architecture} has tensors up to degree {degree}; these shells need {self.layout.most}{why}: set degree")
        else:
            self.atom_out, self.edge_out = (_TensorBlocks(widths["atom"], self.layout) for _ in range(2))
        self.register_buffer("masks", torch.zeros(N_ELEMENTS, self.layout.size), persistent=False)
        for z in self.layout.basis:
            self.masks[z] = torch.from_numpy(self.layout.mask(z)).float()
        self.register_buffer("on_site_scale", torch.ones(N_ELEMENTS))
        self.register_buffer("pair_scale", torch.zeros(N_ELEMENTS, N_ELEMENTS))
        self.register_buffer("pair_decay", torch.zeros(N_ELEMENTS, N_ELEMENTS))
        if spin:
            self.register_buffer("spin_own_scale", torch.ones(N_ELEMENTS))
            self.register_buffer("spin_scale", torch.zeros(N_ELEMENTS, N_ELEMENTS))
            self.register_buffer("spin_decay", torch.zeros(N_ELEMENTS, N_ELEMENTS))
        if overlaps:
            self.overlap_out = _FramedBlocks(widths["edge"], BlockLayout(baseline.basis))
            self.register_buffer("overlap_scale", torch.zeros(N_ELEMENTS, N_ELEMENTS))
            self.register_buffer("overlap_decay", torch.zeros(N_ELEMENTS, N_ELEMENTS))
        if energies:
            self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
            self.register_buffer("energy_shift", torch.zeros(N_ELEMENTS, dtype=torch.float64))

    @property
    def cutoff(self) -> float:
        """Å within which pairs are corrected by the network."""
        return cast(GraphSpec, self.backbone.needs).cutoff

    def scale_to(self, samples: list[Sample]) -> None:
        """Set the sizes of what the network adds: per species on site, per pair of species an exponential of the distance.

        Energies get a mean per element by least squares, and the size of the forces, or of what is left, per atom.
        """
        components, square = self.layout.components, self.layout.size**2
        groups = [("on_site_scale", "pair_scale", "pair_decay", slice(0, 1))]
        if self.layout.spin:
            groups.append(("spin_own_scale", "spin_scale", "spin_decay", slice(1, 4)))
        for own, scale, decay, part in groups:
            labels = [(s, s.on_site.view(-1, components, square)[:, part].square().mean((1, 2))) for s in samples if s.on_site is not None]
            sizes = torch.cat([size for _, size in labels])
            numbers = torch.cat([s.batch["number"] for s, _ in labels])
            for z in numbers.unique().tolist():
                getattr(self, own)[z] = max(float(sizes[numbers == z].mean().sqrt()), 1e-6)
            self._pair_sizes(
                scale,
                decay,
                [(s, s.hopping.view(-1, components, square)[:, part].square().mean((1, 2))) for s in samples if s.hopping is not None],
            )
        if self.overlaps:
            self._pair_sizes("overlap_scale", "overlap_decay", [(s, s.overlap.square().mean(1)) for s in samples if s.overlap is not None])
        if self.energies:
            self._energy_sizes(samples)

    def _pair_sizes(self, scale: str, decay: str, labels: list[tuple[Sample, Tensor]]) -> None:
        pairs: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for s, squares in labels:
            number, length = s.batch["number"], s.batch["edge_length"][s.there]
            i, j = number[s.batch["edge_receiver"][s.there]], number[s.batch["edge_sender"][s.there]]
            for a, b, d, size in zip(i.tolist(), j.tolist(), length.tolist(), squares.tolist(), strict=True):
                pairs.setdefault((min(a, b), max(a, b)), []).append((d, size))
        for (a, b), rows in pairs.items():
            d, size = np.array(rows).T
            logarithm, slope = _exponential(d, 0.5 * np.log(size + 1e-14))
            for x, y in ((a, b), (b, a)):
                getattr(self, scale)[x, y], getattr(self, decay)[x, y] = logarithm, slope

    def _energy_sizes(self, samples: list[Sample]) -> None:
        elements = sorted({int(z) for s in samples for z in s.batch["number"]})
        counts = np.array([[int((s.batch["number"] == z).sum()) for z in elements] for s in samples], dtype=np.float64)
        energies = np.array([float(s.energy) for s in samples if s.energy is not None])
        shift = np.linalg.lstsq(counts, energies, rcond=None)[0]
        for z, value in zip(elements, shift, strict=True):
            self.energy_shift[z] = value
        forces = torch.cat([s.forces for s in samples if s.forces is not None])
        self.energy_scale.fill_(max(float(forces.square().mean().sqrt()), 1e-3))

    def forward(self, s: Sample) -> tuple[Tensor, Tensor]:
        """(P, w) padded blocks of the pairs and (N, w) of the atoms with themselves, eV: what is added to the baseline."""
        return self._blocks(s, cast(dict[str, Tensor], self.backbone(s.batch)))

    def everything(self, s: Sample, twice: bool = False) -> Predicted:
        """All that the model predicts of a sample, by one pass of its network.

        Parameters
        ----------
        twice : keep the graph, so that a loss on forces can be differentiated
        """
        if not self.energies:
            told = cast(dict[str, Tensor], self.backbone(s.batch))
            return Predicted(*self._blocks(s, told), self._overlaps(s, told))
        with torch.enable_grad():
            vector = s.batch["edge_vector"].detach().requires_grad_()
            length = torch.linalg.vector_norm(vector, dim=1)
            told = cast(dict[str, Tensor], self.backbone(Batch({**s.batch, "edge_vector": vector, "edge_length": length}, s.batch.degree)))
            each = told["energy"].double() * self.energy_scale + self.energy_shift[s.batch["number"]]
            energy = each.new_zeros(s.batch.n_systems).index_add(0, s.batch["system"], each)
            (slope,) = torch.autograd.grad(energy.sum(), vector, create_graph=twice, retain_graph=True)
        forces = slope.new_zeros(len(each), 3).index_add(0, s.batch["edge_receiver"], slope)
        forces = forces.index_add(0, s.batch["edge_sender"], slope, alpha=-1)
        return Predicted(*self._blocks(s, told), self._overlaps(s, told), energy, forces)

    def _blocks(self, s: Sample, told: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        number = s.batch["number"]
        own = self.atom_out(told, "atom")
        sign = own.new_tensor(REVERSE[: self.layout.components])[:, None, None]
        own = (own + sign * own.transpose(2, 3)) / 2 * self._own_size(number).to(own.dtype)[:, :, None, None]
        directed = self.edge_out(told, "edge")
        pair = (torch.index_select(directed, 0, s.there) + sign * torch.index_select(directed, 0, s.back).transpose(2, 3)) / 2
        i, j, length = self._ends(s)
        size = torch.exp(self.pair_scale[i, j] - self.pair_decay[i, j] * length)[:, None]
        if self.layout.spin:
            spin = torch.exp(self.spin_scale[i, j] - self.spin_decay[i, j] * length)[:, None]
            size = torch.cat([size, spin.expand(-1, 3)], dim=1)
        pair = pair * (size * self._inside(length)[:, None]).to(pair.dtype)[:, :, None, None]
        masks = self.masks.to(own.dtype)
        mask_own = masks[number][:, None, :, None] * masks[number][:, None, None, :]
        mask_pair = masks[i][:, None, :, None] * masks[j][:, None, None, :]
        return (pair * mask_pair).flatten(1), (own * mask_own).flatten(1)

    def _overlaps(self, s: Sample, told: Mapping[str, Tensor]) -> Tensor | None:
        """(P, n²) S of the pairs, by a network that predicts it."""
        if not self.overlaps:
            return None
        directed = self.overlap_out(told, "edge")[:, 0]
        found = (torch.index_select(directed, 0, s.there) + torch.index_select(directed, 0, s.back).transpose(1, 2)) / 2
        i, j, length = self._ends(s)
        size = torch.exp(self.overlap_scale[i, j] - self.overlap_decay[i, j] * length) * self._inside(length)
        masks = self.masks.to(found.dtype)
        return (found * size.to(found.dtype)[:, None, None] * masks[i][:, :, None] * masks[j][:, None, :]).flatten(1)

    def _ends(self, s: Sample) -> tuple[Tensor, Tensor, Tensor]:
        """Atomic numbers of both atoms of each pair, and their distance."""
        number = s.batch["number"]
        i = torch.index_select(number, 0, torch.index_select(s.batch["edge_receiver"], 0, s.there))
        j = torch.index_select(number, 0, torch.index_select(s.batch["edge_sender"], 0, s.there))
        return i, j, torch.index_select(s.batch["edge_length"], 0, s.there)

    def _inside(self, length: Tensor) -> Tensor:
        """One within the cut-off, falling smoothly to zero just before it."""
        return (1 - (length / self.cutoff).clamp(max=1) ** 8).square()

    def _own_size(self, number: Tensor) -> Tensor:
        """(N, components) sizes of atoms' own blocks."""
        own = self.on_site_scale[number][:, None]
        return torch.cat([own, self.spin_own_scale[number][:, None].expand(-1, 3)], dim=1) if self.layout.spin else own

    # --- whole structures ------------------------------------------------------------------------------------------------------
    def base(self, matrices: OrbitalMatrices) -> Array:
        """Flat values of everything but the network, for the pairs of some matrices.

        Raises
        ------
        InputError
            If the model is added to H₀ and the structure has none, or an element is unknown.
        """
        table = self.baseline.blocks(matrices)
        if not self.on_h0:
            return table
        if "H0" not in matrices.blocks:
            raise InputError(
                "this model is added to the Hamiltonian of superposed atomic densities (H0), which the structure does not have"
            )
        return table + matrices.blocks["H0"]

    @torch.no_grad()
    def complete(self, matrices: OrbitalMatrices) -> OrbitalMatrices:
        """The matrices with H predicted (energy and forces with it, where the model has them); S and H₀ stay as they are.

        Raises
        ------
        InputError
            If the matrices are of spinors and the model is not, or the other way round.
        """
        if matrices.spin != self.layout.spin:
            words = ("with", "without") if matrices.spin else ("without", "with")
            raise InputError(f"the matrices are {words[0]} spin–orbit coupling, the model is {words[1]} it")
        self.eval()
        values = self.base(matrices)
        s = sample(matrices, self.cutoff, self.layout)
        found = self.everything(s)
        added = np.zeros_like(values)
        unpadded(matrices, self.layout, s.rows, found.pair.detach().double().numpy(), added)
        unpadded(matrices, self.layout, s.own, found.own.detach().double().numpy(), added)
        electrons = sum(self.layout.basis[int(z)].electrons for z in matrices.crystal.numbers) or None
        told: dict[str, Any] = {"reference": None, "fermi": None, "energy": None, "forces": None}
        if found.energy is not None and found.forces is not None:
            told |= {"energy": float(found.energy.detach()), "forces": found.forces.detach().double().numpy()}
        return matrices.with_blocks(H=values + added).replace(electrons=matrices.electrons or electrons, **told)

    @torch.no_grad()
    def predicted_overlap(self, matrices: OrbitalMatrices) -> Array:
        """Flat S by the network (pairs within its cut-off) and the table (atoms with themselves), for matrices without spin.

        Raises
        ------
        ConfigError
            If the network predicts no S.
        """
        if not self.overlaps or self.overlap is None:
            raise ConfigError("this model predicts no S; train one with overlap_weight above 0")
        self.eval()
        s = sample(matrices, self.cutoff, self.layout)
        found = self.everything(s).overlap
        assert found is not None
        own = np.repeat(matrices.on_site, np.diff(matrices.starts))
        values = np.where(own, self.overlap.blocks(matrices), 0.0)
        unpadded(matrices, BlockLayout(self.layout.basis), s.rows, found.detach().double().numpy(), values)
        return values

    def predict(self, crystal: Crystal) -> OrbitalMatrices:
        """H and S of a new structure, without any code.

        Raises
        ------
        InputError
            If the model needs H₀, or the structure has elements that it does not know.
        """
        if self.on_h0:
            raise InputError("this model is added to H0: make S and H0 of the structure first (source cp2k, one step), then model.complete")
        unknown = [int(z) for z in np.unique(crystal.numbers) if int(z) not in self.layout.basis]
        if unknown:
            from naica.structure.elements import symbol

            known = ", ".join(b.symbol for b in self.layout.basis.values())
            raise InputError(f"the model does not know {', '.join(symbol(z) for z in unknown)}; it was trained on {known}")
        basis = {int(z): self.layout.basis[int(z)] for z in np.unique(crystal.numbers)}
        reach = max(self.baseline.reach, self.overlap.reach if self.overlap else 0.0)
        bare = empty(crystal, basis, reach).replace(spin=self.layout.spin)
        if self.overlap is not None:
            bare = bare.with_blocks(S=self.overlap.blocks(bare))
        return self.complete(bare)


class _TensorBlocks(nn.Module):
    """Tensors (n, (L + 1)², 2, C) → padded blocks (n, components, size, size): a linear map per degree and parity, then `change`."""

    change: Tensor

    def __init__(self, channels: int, layout: BlockLayout) -> None:
        super().__init__()
        self.layout = layout
        # the trace of a block is a scalar: only ordinary scalars may have a bias
        self.maps = nn.ModuleDict({_key(*k): nn.Linear(channels, count, bias=k == (0, False)) for k, count in layout.counts.items()})
        self.register_buffer("change", torch.from_numpy(layout.change.T.copy()).float(), persistent=False)

    def forward(self, told: Mapping[str, Tensor], level: str) -> Tensor:
        """Features of a level → (n, components, size, size)."""
        tensors, found = told[f"{level}_tensor"], {}
        for degree, pseudo in self.layout.counts:
            found[degree, pseudo] = self.maps[_key(degree, pseudo)](tensors[:, degree**2 : (degree + 1) ** 2, int(pseudo)])
        irreps = self.layout.joined(found)
        return (irreps @ self.change.to(irreps.dtype)).view(len(irreps), self.layout.components, self.layout.size, self.layout.size)


class _FramedBlocks(nn.Module):
    """Features (n, C) in local frames → padded blocks there, turned back; without frames the laboratory's is meant."""

    def __init__(self, width: int, layout: BlockLayout) -> None:
        super().__init__()
        self.layout = layout
        self.map = nn.Linear(width, layout.width)

    def forward(self, told: Mapping[str, Tensor], level: str) -> Tensor:
        """Features of a level → (n, components, size, size)."""
        size = self.layout.size
        blocks = self.map(told[f"{level}_local"]).view(-1, self.layout.components, size, size)
        frame = told.get(f"{level}_frame")
        return blocks if frame is None else turned_blocks(blocks, frame.transpose(1, 2).to(blocks.dtype), self.layout)


def turned_blocks(blocks: Tensor, turns: Tensor, layout: BlockLayout) -> Tensor:
    """Padded blocks (n, components, size, size) turned by rotations (n, 3, 3), those of spin among themselves as well."""
    d = padded_turns(turns, layout)[:, None]
    found = d @ blocks @ d.transpose(2, 3)
    if layout.spin:
        found = torch.cat([found[:, :1], torch.einsum("nab,nbij->naij", turns, found[:, 1:])], dim=1)
    return found


def padded_turns(turns: Tensor, layout: BlockLayout) -> Tensor:
    """(n, size, size) how rotations (n, 3, 3) turn the orbitals of the padded block."""
    d = wigner(turns, max(layout.shells))
    whole = turns.new_zeros(len(turns), layout.size, layout.size)
    start = 0
    for shell in layout.shells:
        stop = start + 2 * shell + 1
        whole[:, start:stop, start:stop] = d[shell]
        start = stop
    return whole


def _key(degree: int, pseudo: bool) -> str:
    return f"{degree}{'pseudo' if pseudo else 'plain'}"


def _exponential(distance: Array, logarithm: Array) -> tuple[float, float]:
    """(log amplitude, decay) of sizes that fall with distance; by least squares over equal bins, so that the many far pairs do not rule."""
    bins = np.linspace(distance.min(), distance.max() + 1e-9, 12)
    place = np.digitize(distance, bins)
    x = np.array([distance[place == b].mean() for b in np.unique(place)])
    y = np.array([0.5 * np.log(np.mean(np.exp(2 * logarithm[place == b]))) for b in np.unique(place)])
    if len(x) < 2:
        return float(y[0]), 0.0
    slope, start = np.polyfit(x, y, 1)
    return float(start), float(-slope)
