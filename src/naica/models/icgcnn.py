"""iCGCNN: crystal graphs with Voronoi faces as edges, edge updates and three-body terms.

Park & Wolverton, Phys. Rev. Materials 4, 063801 (2020). Edges are the faces of Voronoi cells and start from their distance, solid angle,
area and pyramid volume. With ``z = v_i ⊕ v_j ⊕ u_ij`` and ``z₃ = v_i ⊕ v_j ⊕ v_l ⊕ u_ij ⊕ u_il`` (j, l two different faces of i)::

    v_i  ← softplus( v_i  + BN( Σ_j  gate(z) )  + BN( 1/11 Σ_j Σ_l gate(z₃) ) )
    u_ij ← softplus( u_ij + BN(      gate'(z) ) + BN( 1/11     Σ_l gate'(z₃) ) ),      gate(z) = σ(a) ⊙ softplus(c), [a ⊕ c] = BN( W z + b )

four gates with weights of their own; atoms and edges are updated at once, both from the old state. The 1/11 is ours (behind a batch norm
it has no effect; it keeps the sums of an untrained network small). "Three-body" means the joint features of
two neighbours of one centre: no angle is an input, directions are felt through the faces.

A pre-activation of a pair of faces is a sum, ``W z₃ + b = A_ij + B_il``, so matrices act on edges only and not on the M² pairs, its batch
norm needs no pair either (`PairNorm`), and exponentials factorise (`gated_pairs`): what is left per pair are a reciprocal and a logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import Gaussians, SplitLinear, sum_edges
from naica.nn.atoms import Start, element_vectors

# numbers of one temporary in a sum over pairs: it should stay in the processor's cache
_CHUNK = 200_000
# exponentials of two parts are multiplied; beyond this the product could overflow 32 bits
_LARGEST = 40.0
# sums over a second neighbour are divided by an ordinary number of them, so that untrained triples do not outweigh pairs
_PARTNERS = 11.0
# solid angle, area and volume of an ordinary face
_TYPICAL = (1.0, 5.0, 2.5)


class Norm(nn.BatchNorm1d):
    """Batch norm that uses what it knows where there are fewer than two rows to learn from."""

    def forward(self, x: Tensor) -> Tensor:
        """(rows, C) → (rows, C)."""
        if self.training and len(x) > 1:
            return super().forward(x)
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        return (x - mean) * (self.weight * torch.rsqrt(variance + self.eps)) + self.bias


class PairNorm(nn.BatchNorm1d):
    """Batch norm of ``a_j + b_l`` over all ordered pairs of different edges of one atom, without forming the pairs.

    The mean needs sums over edges, weighted with the partners each has; the mean square needs, besides these,
    ``Σ_{j≠l} a_j b_l = (Σ_j a_j)(Σ_l b_l) − Σ_j a_j b_j`` of every atom.
    """

    def forward(self, a: Tensor, b: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Parts (E, C) and (E, C) → parts (E, C) and (E, C) whose sums over pairs are normed."""
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        if self.training:
            partners = (_degrees(batch) - 1).to(a.dtype)
            pairs = float((partners * (partners + 1)).sum())
            if pairs > 1:
                mean, variance = self._statistics(a, b, partners, pairs, batch)
                self._remember(mean.detach(), variance.detach(), pairs)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (a - mean) * scale + self.bias, b * scale

    @staticmethod
    def _statistics(a: Tensor, b: Tensor, partners: Tensor, pairs: float, batch: Batch) -> tuple[Tensor, Tensor]:
        # about their means, so that squares do not cancel
        first, second = a.detach().mean(0), b.detach().mean(0)
        a, b = a - first, b - second
        weight = partners[batch["edge_receiver"]]
        mean = weight @ (a + b) / pairs
        cross = sum_edges(a, batch) * sum_edges(b, batch) - sum_edges(a * b, batch)
        square = (weight @ (a * a + b * b) + 2 * cross.sum(0)) / pairs
        return mean + first + second, (square - mean * mean).clamp(min=0)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, pairs: float) -> None:
        momentum = self.momentum or 0.1
        cast(Tensor, self.running_mean).lerp_(mean, momentum)
        cast(Tensor, self.running_var).lerp_(variance * (pairs / (pairs - 1)), momentum)
        cast(Tensor, self.num_batches_tracked).add_(1)


@dataclass(frozen=True)
class Chunk:
    """Some atoms with nearly equally many edges: their edges (n, M), which of these exist (n, M), and which pairs (n, M, M, 1)."""

    edges: Tensor
    there: Tensor
    pairs: Tensor

    def dense(self, values: Tensor) -> Tensor:
        """Edge values (E, C) → (n, M, C); what does not exist repeats some other edge."""
        return torch.index_select(values, 0, self.edges.view(-1)).view(*self.edges.shape, -1)


def chunks(batch: Batch, width: int) -> list[Chunk]:
    """All atoms with two edges or more, in groups for which a value of `width` numbers per pair fits the cache."""
    degree = _degrees(batch)
    first = torch.cumsum(degree, 0) - degree
    order = torch.argsort(degree, descending=True, stable=True)
    sizes = degree[order].tolist()
    last = next((k for k, size in enumerate(sizes) if size < 2), len(sizes))
    found, start = [], 0
    while start < last:
        most = sizes[start]
        stop = min(last, start + max(1, _CHUNK // (most * most * width)))
        atoms = order[start:stop]
        place = torch.arange(most, device=degree.device)
        there = place < degree[atoms][:, None]
        edges = torch.where(there, first[atoms][:, None] + place, first[atoms][:, None])
        pairs = there[:, :, None] & there[:, None] & (place[:, None] != place)
        found.append(Chunk(edges, there, pairs[..., None]))
        start = stop
    return found


def _degrees(batch: Batch) -> Tensor:
    return torch.bincount(batch["edge_receiver"], minlength=len(batch["number"]))


def gated_pairs(a: Tensor, b: Tensor, batch: Batch, groups: list[Chunk]) -> Tensor:
    """``Σ_{l≠j} σ(g) ⊙ softplus(c)`` with ``[g ⊕ c] = a_j + b_l`` over the other edges l of j's atom: (E, 2C), (E, 2C) → (E, C).

    Differentiable any number of times if lengths ask for gradients (then all pairs are formed); else once, with no pair kept.
    """
    plain = torch.compiler.is_compiling() or batch["edge_length"].requires_grad
    if plain or len(a) == 0 or max(float(part.detach().abs().max()) for part in (a, b)) > _LARGEST:
        return _plain_pairs(a, b, groups)
    return cast(Tensor, _GatedPairs.apply(a, b, groups))


def _plain_pairs(a: Tensor, b: Tensor, groups: list[Chunk]) -> Tensor:
    result = a.new_zeros(len(a), a.shape[1] // 2)
    for group in groups:
        # partner l first, edge j second: sums over the earlier place are the faster ones
        gate, core = (group.dense(b)[:, :, None] + group.dense(a)[:, None]).chunk(2, dim=-1)
        summed = (torch.sigmoid(gate) * F.softplus(core) * group.pairs).sum(1)
        result = result.index_put((group.edges[group.there],), summed[group.there])
    return result


class _GatedPairs(torch.autograd.Function):
    """Keeps the two edge values and forms pairs group by group, in either direction."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, groups: list[Chunk]) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.groups = groups
        result = a.new_zeros(len(a), a.shape[1] // 2)
        for group, _, open_share, _, soft in _parts(a, b, groups):
            result[group.edges[group.there]] = open_share.mul_(soft).sum(1)[group.there]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        to_a, to_b = torch.zeros_like(a), torch.zeros_like(b)
        for group, shut, open_share, grown, soft in _parts(a, b, ctx.groups):
            upstream = group.dense(gradients[0])
            # d/dg = σ (1 − σ) softplus with 1 − σ = e^-g σ,  d/dc = σ(g) σ(c)
            by_gate = soft.mul_(open_share).mul_(shut.mul_(open_share))
            by_core = grown.div_(grown + 1).mul_(open_share)
            of_a = torch.cat([upstream * by_gate.sum(1), upstream * by_core.sum(1)], dim=-1)
            of_b = torch.cat([by_gate.mul_(upstream[:, None]).sum(2), by_core.mul_(upstream[:, None]).sum(2)], dim=-1)
            places = group.edges[group.there]
            to_a[places], to_b[places] = of_a[group.there], of_b[group.there]
        return to_a, to_b, None


def _parts(a: Tensor, b: Tensor, groups: list[Chunk]) -> Iterator[tuple[Chunk, Tensor, Tensor, Tensor, Tensor]]:
    """For every group (n, M, M, C): e^-g, σ(g) with zeros where there is no pair, e^c and softplus(c), from products of exponentials."""
    gate_a, core_a, gate_b, core_b = (torch.exp(x) for part in (a, b) for x in (-part.chunk(2, 1)[0], part.chunk(2, 1)[1]))
    for group in groups:
        shut = group.dense(gate_b)[:, :, None] * group.dense(gate_a)[:, None]
        open_share = (shut + 1).reciprocal_().mul_(group.pairs)
        grown = group.dense(core_b)[:, :, None] * group.dense(core_a)[:, None]
        yield group, shut, open_share, grown, torch.log1p(grown)


class Convolution(nn.Module):
    """One update of atoms and, if `updates`, of edges; after the last layer nobody reads the edges."""

    def __init__(self, width: int, edge_width: int, triples: bool, triple_width: int, norms: bool, updates: bool) -> None:
        super().__init__()
        self.width, self.updates = width, updates
        self.gates = width + edge_width if updates else width
        out = 2 * self.gates
        self.pair = SplitLinear(width, width, edge_width, out)
        self.norm_pair = Norm(out) if norms else None
        self.norm_atoms = Norm(width) if norms else None
        self.norm_edges = Norm(edge_width) if norms and updates else None
        self.triples = triples
        if not triples:
            return
        narrow = triple_width or self.gates
        whole = nn.Linear(3 * width + 2 * edge_width, 2 * narrow)  # initialised as a map of the joined vector would be
        self.parts = (width, width, edge_width, width, edge_width)
        self.triple_weight, self.triple_bias = whole.weight, whole.bias
        self.norm_triple = PairNorm(2 * narrow) if norms else None
        self.widen = nn.Linear(narrow, self.gates, bias=False) if triple_width else None
        self.norm_atoms_triple = Norm(width) if norms else None
        self.norm_edges_triple = Norm(edge_width) if norms and updates else None

    def forward(self, atoms: Tensor, edges: Tensor, batch: Batch, groups: list[Chunk]) -> tuple[Tensor, Tensor]:
        """Atoms (N, C), edges (E, D) → the same after the update."""
        values = self.pair(atoms, atoms, edges, batch)
        gate, core = _maybe(self.norm_pair, values).chunk(2, dim=1)
        messages = torch.sigmoid(gate) * F.softplus(core)
        atom_sum = _maybe(self.norm_atoms, sum_edges(messages[:, : self.width], batch))
        edge_sum = _maybe(self.norm_edges, messages[:, self.width :]) if self.updates else None
        if self.triples:
            joint = self._joint(atoms, edges, batch, groups)
            atom_sum = atom_sum + _maybe(self.norm_atoms_triple, sum_edges(joint[:, : self.width], batch))
            if edge_sum is not None:
                edge_sum = edge_sum + _maybe(self.norm_edges_triple, joint[:, self.width :])
        return F.softplus(atoms + atom_sum), edges if edge_sum is None else F.softplus(edges + edge_sum)

    def _joint(self, atoms: Tensor, edges: Tensor, batch: Batch, groups: list[Chunk]) -> Tensor:
        """(E, gates) Sums over the second neighbour of the gates of ``z₃``."""
        centre, first, first_edge, second, second_edge = self.triple_weight.split(self.parts, dim=1)
        sender = batch["edge_sender"]
        a = F.linear(edges, first_edge) + torch.index_select(F.linear(atoms, first), 0, sender)
        a = a + torch.index_select(F.linear(atoms, centre, self.triple_bias), 0, batch["edge_receiver"])
        b = F.linear(edges, second_edge) + torch.index_select(F.linear(atoms, second), 0, sender)
        if self.norm_triple is not None:
            a, b = self.norm_triple(a, b, batch)
        joint = gated_pairs(a, b, batch, groups) / _PARTNERS
        return joint if self.widen is None else self.widen(joint)


def _maybe(norm: Norm | None, values: Tensor) -> Tensor:
    return values if norm is None else norm(values)


class ICGCNN(nn.Module):
    """The convolutions of iCGCNN; pooling and the layers after it are the head's."""

    @dataclass(frozen=True)
    class Config:
        """Settings.

        Parameters
        ----------
        width, edge_width, layers : features of atoms and of edges, and updates of both
        cutoff : Å; Voronoi cells are cut at half of it, and the Gaussians of the distance end there
        faces : faces per atom at most, the largest ones (those that tie with the last stay): the triples grow as its square
        gaussians : of the distance
        triples : three-body terms
        triple_width : gates of the three-body terms, widened by a linear map to `width` and `edge_width`: the cost of the triples is
            proportional to it. 0 gives every feature a gate of its own, as in the paper
        descriptors : solid angle, area and volume of the faces as edge features; without them only the distance
        norms : batch norms in the gates and on the sums
        atoms : ``learned`` vector per element or ``described`` by the periodic table
        """

        width: int = 64
        edge_width: int = 32
        layers: int = 3
        cutoff: float = 8.0
        faces: int = 12
        gaussians: int = 41
        triples: bool = True
        triple_width: int = 16
        descriptors: bool = True
        norms: bool = True
        atoms: Start = "described"

        def __post_init__(self) -> None:
            if self.width < 1 or self.edge_width < 1 or self.layers < 0 or self.triple_width < 0:
                sizes = f"width {self.width}, edge_width {self.edge_width}, {self.layers} layers, triple_width {self.triple_width}"
                raise ConfigError(f"{sizes}; expected at least 1, 1, 0 and 0")
            if self.atoms not in get_args(Start):
                raise ConfigError(f"atoms {self.atoms!r} is unknown; expected 'learned' or 'described'")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c = self.config
        self.embedding = element_vectors(c.atoms, c.width)
        self.radial = Gaussians(0.0, c.cutoff, c.gaussians)
        self.edge_embedding = nn.Linear(c.gaussians + (len(_TYPICAL) if c.descriptors else 0), c.edge_width)
        self.convolutions = nn.ModuleList(
            Convolution(c.width, c.edge_width, c.triples, c.triple_width, c.norms, updates=layer < c.layers - 1)
            for layer in range(c.layers)
        )

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec("voronoi", self.config.cutoff, self.config.faces)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width}

    def edge_features(self, batch: Batch) -> Tensor:
        """(E, gaussians + 3) Distance, and solid angle, area and volume of the face in units of an ordinary one."""
        distance = self.radial(batch["edge_length"])
        if not self.config.descriptors:
            return distance
        faces = [
            batch[name] / size for name, size in zip(("edge_solid_angle", "edge_face_area", "edge_face_volume"), _TYPICAL, strict=True)
        ]
        return torch.cat([distance, torch.stack(faces, dim=1).to(distance.dtype)], dim=1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of crystal graphs → atom features (N, width)."""
        atoms = self.embedding(batch["number"])
        edges = self.edge_embedding(self.edge_features(batch).to(atoms.dtype))
        c = self.config
        groups = chunks(batch, c.triple_width or c.width + c.edge_width) if c.triples else []
        for convolution in self.convolutions:
            atoms, edges = convolution(atoms, edges, batch, groups)
        return {"atom": atoms}
