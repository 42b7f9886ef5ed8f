"""`HamiltonianModel`: an equivariant network whose tensors become blocks of H, hermitian by construction.

What it says of a structure is ``H = μ S + H₀ + T(d) + network``: H₀ the Hamiltonian of superposed atomic densities where a set has one
(else 0),
T the two-centre table fitted to what is left of the training part, the network the rest. The constant μ is set to 0: every training
structure is first brought to ⟨H, S⟩ = 0, or with H₀ to ⟨H − H₀, S⟩ = 0, so that one zero of energy serves all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naica.errors import ConfigError, InputError
from naica.graphs.spec import GraphSpec
from naica.hamiltonian.graphs import Sample, sample, unpadded
from naica.hamiltonian.layout import BlockLayout
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.two_centre import TwoCentre, empty
from naica.nn.atoms import N_ELEMENTS
from naica.nn.so2 import wigner
from naica.structure import Crystal
from naica.training.property import config_dict

Array = NDArray[np.float64]


class HamiltonianModel(nn.Module):
    """A network, its layout of blocks, and the tables beside it.

    Parameters
    ----------
    architecture, architecture_config : a backbone that gives tensors of atoms and edges (``deeph2``, ``deeph-e3``), or features of them in
        local frames (``deeph``) or in none (``schnorb``)
    baseline : two-centre table of what the network is added to
    overlap : two-centre table of S, for structures that come without; None if the basis is orthogonal
    on_h0 : whether the network is added to H₀ (which every structure must then bring along)

    Raises
    ------
    ConfigError
        If the network's tensors do not reach the degree the blocks need.
    """

    on_site_scale: Tensor
    pair_scale: Tensor
    pair_decay: Tensor
    masks: Tensor

    def __init__(
        self,
        architecture: str,
        architecture_config: Mapping[str, Any] | None,
        baseline: TwoCentre,
        overlap: TwoCentre | None = None,
        on_h0: bool = False,
    ) -> None:
        from naica.models import backbone

        super().__init__()
        self.architecture, self.baseline, self.overlap, self.on_h0 = architecture, baseline, overlap, on_h0
        self.layout = BlockLayout(baseline.basis)
        self.backbone = backbone(architecture, **(architecture_config or {}))
        self.architecture_config = config_dict(self.backbone.config)
        widths = cast(Mapping[str, int], self.backbone.widths)
        self.atom_out: nn.Module
        self.edge_out: nn.Module
        if "edge" in widths:
            atom = self.architecture_config.get("hidden", widths["edge"])
            self.atom_out, self.edge_out = _FramedBlocks(atom, self.layout), _FramedBlocks(widths["edge"], self.layout)
        elif (degree := self.architecture_config.get("degree")) is None:
            raise ConfigError(f"{architecture} gives no features of pairs; networks of Hamiltonians are deeph, deeph-e3, deeph2, schnorb")
        elif degree < self.layout.most:
            raise ConfigError(f"{architecture} has tensors up to degree {degree}; these shells need {self.layout.most}: set degree")
        else:
            self.atom_out, self.edge_out = (_TensorBlocks(widths["atom"], self.layout) for _ in range(2))
        self.register_buffer("masks", torch.zeros(N_ELEMENTS, self.layout.size), persistent=False)
        for z in self.layout.basis:
            self.masks[z] = torch.from_numpy(self.layout.mask(z)).float()
        self.register_buffer("on_site_scale", torch.ones(N_ELEMENTS))
        self.register_buffer("pair_scale", torch.zeros(N_ELEMENTS, N_ELEMENTS))
        self.register_buffer("pair_decay", torch.zeros(N_ELEMENTS, N_ELEMENTS))

    @property
    def cutoff(self) -> float:
        """Å within which pairs are corrected by the network."""
        return cast(GraphSpec, self.backbone.needs).cutoff

    def scale_to(self, samples: list[Sample]) -> None:
        """Set the sizes of what the network adds: per species on site, per pair of species an exponential of the distance."""
        on_site: dict[int, list[float]] = {}
        pairs: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for s in samples:
            assert s.hopping is not None
            assert s.on_site is not None
            number = s.batch["number"]
            for z, size in zip(number.tolist(), s.on_site.square().mean(1).tolist(), strict=True):
                on_site.setdefault(z, []).append(size)
            i, j = number[s.batch["edge_receiver"][s.there]], number[s.batch["edge_sender"][s.there]]
            length = s.batch["edge_length"][s.there]
            for a, b, d, size in zip(i.tolist(), j.tolist(), length.tolist(), s.hopping.square().mean(1).tolist(), strict=True):
                pairs.setdefault((min(a, b), max(a, b)), []).append((d, size))
        for z, sizes in on_site.items():
            self.on_site_scale[z] = max(float(np.sqrt(np.mean(sizes))), 1e-6)
        for (a, b), rows in pairs.items():
            d, size = np.array(rows).T
            logarithm, slope = _exponential(d, 0.5 * np.log(size + 1e-14))
            for x, y in ((a, b), (b, a)):
                self.pair_scale[x, y], self.pair_decay[x, y] = logarithm, slope

    def forward(self, s: Sample) -> tuple[Tensor, Tensor]:
        """(P, n²) padded blocks of the pairs and (N, n²) of the atoms with themselves, eV: what is added to the baseline."""
        told = cast(dict[str, Tensor], self.backbone(s.batch))
        number = s.batch["number"]
        own = self.atom_out(told, "atom")
        own = (own + own.transpose(1, 2)) / 2 * self.on_site_scale[number][:, None, None]
        directed = self.edge_out(told, "edge")
        pair = (torch.index_select(directed, 0, s.there) + torch.index_select(directed, 0, s.back).transpose(1, 2)) / 2
        i = torch.index_select(number, 0, torch.index_select(s.batch["edge_receiver"], 0, s.there))
        j = torch.index_select(number, 0, torch.index_select(s.batch["edge_sender"], 0, s.there))
        length = torch.index_select(s.batch["edge_length"], 0, s.there)
        inside = (1 - (length / self.cutoff).clamp(max=1) ** 8).square()
        size = torch.exp(self.pair_scale[i, j] - self.pair_decay[i, j] * length) * inside
        pair = pair * size.to(pair.dtype)[:, None, None]
        mask_own = self.masks[number][:, :, None] * self.masks[number][:, None, :]
        mask_pair = self.masks[i][:, :, None] * self.masks[j][:, None, :]
        return (pair * mask_pair).flatten(1), (own * mask_own).flatten(1)

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
        """The matrices with H predicted; S and H₀ stay as they are."""
        self.eval()
        values = self.base(matrices)
        s = sample(matrices, self.cutoff, self.layout)
        pair, own = self(s)
        added = np.zeros_like(values)
        unpadded(matrices, self.layout, s.rows, pair.double().numpy(), added)
        unpadded(matrices, self.layout, s.own, own.double().numpy(), added)
        electrons = sum(self.layout.basis[int(z)].electrons for z in matrices.crystal.numbers) or None
        return matrices.with_blocks(H=values + added).replace(electrons=matrices.electrons or electrons, reference=None, fermi=None)

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
        bare = empty(crystal, basis, reach)
        if self.overlap is not None:
            bare = bare.with_blocks(S=self.overlap.blocks(bare))
        return self.complete(bare)


class _TensorBlocks(nn.Module):
    """Tensors (n, (L + 1)², 2, C) → padded blocks (n, size, size), by one linear map per degree and parity and the change of basis."""

    change: Tensor

    def __init__(self, channels: int, layout: BlockLayout) -> None:
        super().__init__()
        self.layout = layout
        # the trace of a block is a scalar: only ordinary scalars may have a bias
        self.maps = nn.ModuleDict({_key(*k): nn.Linear(channels, count, bias=k == (0, False)) for k, count in layout.counts.items()})
        self.register_buffer("change", torch.from_numpy(layout.change.T.copy()).float(), persistent=False)

    def forward(self, told: Mapping[str, Tensor], level: str) -> Tensor:
        """Features of a level → (n, size, size)."""
        tensors, found = told[f"{level}_tensor"], {}
        for degree, pseudo in self.layout.counts:
            found[degree, pseudo] = self.maps[_key(degree, pseudo)](tensors[:, degree**2 : (degree + 1) ** 2, int(pseudo)])
        irreps = self.layout.joined(found)
        return (irreps @ self.change.to(irreps.dtype)).view(len(irreps), self.layout.size, self.layout.size)


class _FramedBlocks(nn.Module):
    """Features (n, C) in local frames → padded blocks there, turned back; without frames the laboratory's is meant."""

    def __init__(self, width: int, layout: BlockLayout) -> None:
        super().__init__()
        self.layout = layout
        self.map = nn.Linear(width, layout.size**2)

    def forward(self, told: Mapping[str, Tensor], level: str) -> Tensor:
        """Features of a level → (n, size, size)."""
        size = self.layout.size
        blocks = self.map(told[f"{level}_local"]).view(-1, size, size)
        if f"{level}_frame" not in told:
            return blocks
        turn = padded_turns(told[f"{level}_frame"], self.layout).to(blocks.dtype)
        return turn.transpose(1, 2) @ blocks @ turn


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
