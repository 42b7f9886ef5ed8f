"""MPNN: message passing neural networks for molecules, with the variants of the paper.

Gilmer, Schoenholz, Riley, Vinyals & Dahl, Neural message passing for quantum chemistry, ICML 2017. For T steps with the same weights::

    m_v = Σ_w A(e_vw) h_w + b,    h_v ← GRU(h_v, m_v),    ŷ = R({h_v})

``message="edge-network"``: A is a network of the bond features; ``"ggnn"``: one matrix for each kind of bond (GG-NN). A has 2 d rows: the
paper's matrices for incoming and for outgoing edges, which in a molecule meet the same neighbours with the same features. The GRU has no
biases and resets before its matrix: ``z = σ(m W_z + h U_z), r = σ(m W_r + h U_r), h̃ = tanh(m W + (r ⊙ h) U), h' = (1 − z) h + z h̃``.
Readouts: ``Σ_v σ(i(h_v)) ⊙ j(h_v)`` with the identity on j, or Set2Set with additive attention.

``edges="pairs"`` joins all atoms and gives the edge network their distance; all ordered pairs take part, as in the released code, each atom
with itself too. ``attention`` weighs the messages of an atom's neighbours with a softmax; ``virtual`` adds a node per molecule that hears
from and speaks to all its atoms (the paper's master node).

Batches are flat: there are no padded atoms whose messages, gates or attention would have to be masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from naica.errors import ConfigError
from naica.graphs import Batch, GraphSpec
from naica.nn import Gaussians, SplitLinear, molecules, sum_edges, sum_systems
from naica.nn.set2set import softmax

Message = Literal["edge-network", "ggnn"]
Readout = Literal["set2set", "gated-sum", "atoms"]
Edges = Literal["bonds", "pairs"]
Query = Literal["standard", "released"]
# 4 bond types, conjugated or not, in a ring or not
_KINDS_OF_EDGES = 4 * 2 * 2
_GAUSSIANS = 16
_FARTHEST = 8.0


class GRU(nn.Module):
    """The paper's gated unit: no biases, and the reset gate acts on h before its matrix (torch's acts after)."""

    def __init__(self, message: int, width: int) -> None:
        super().__init__()
        self.of_message = nn.Linear(message, 3 * width, bias=False)
        self.of_state = nn.Linear(width, 2 * width, bias=False)
        self.of_reset = nn.Linear(width, width, bias=False)

    def forward(self, message: Tensor, state: Tensor) -> Tensor:
        """Messages (n, message), states (n, width) → (n, width)."""
        update, reset, candidate = self.of_message(message).chunk(3, dim=1)
        more_update, more_reset = self.of_state(state).chunk(2, dim=1)
        z, r = torch.sigmoid(update + more_update), torch.sigmoid(reset + more_reset)
        return (1 - z) * state + z * torch.tanh(candidate + self.of_reset(r * state))


class EdgeNetwork(nn.Module):
    """Edge features (n, inputs) → matrices (n, width, out); without hidden layers a linear map without bias."""

    def __init__(self, inputs: int, hidden: int, layers: int, width: int, out: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(inputs, hidden), nn.ReLU()]
            inputs = hidden
        last = nn.Linear(inputs, width * out, bias=layers > 0)
        self.shape = (width, out)
        # h and A h of one size: the default of a layer knows `inputs`, not the width the matrix is applied to
        nn.init.normal_(last.weight, std=(inputs * width) ** -0.5)
        self.network = nn.Sequential(*parts, last)

    def forward(self, edges: Tensor) -> Tensor:
        """(n, inputs) → (n, width, out)."""
        return self.network(edges).view(-1, *self.shape)


class Attention(nn.Module):
    """Weights of an atom's neighbours: softmax of ``a · leaky(W [h_v ⊕ h_w ⊕ e_vw])``, times their number.

    Veličković et al., Graph attention networks, ICLR 2018, with the edge in the score.
    """

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.joined, self.score = SplitLinear(width, width, edge_width, width), nn.Linear(width, 1, bias=False)

    def forward(self, state: Tensor, edges: Tensor, batch: Batch) -> Tensor:
        """(E, 1) weights."""
        score = self.score(nn.functional.leaky_relu(self.joined(state, state, edges, batch), 0.2))[:, 0]
        weight = softmax(score, batch["edge_receiver"], len(state))
        # a mean would forget how many neighbours there are
        degree = torch.bincount(batch["edge_receiver"], minlength=len(state)).to(weight.dtype)
        return (weight * torch.index_select(degree, 0, batch["edge_receiver"]))[:, None]


class AdditiveSet2Set(nn.Module):
    """Set2Set with the attention energy ``vᵀ tanh(W m + x)``; the LSTM reads only its own last ``[m ⊕ read]``.

    ``query="released"`` repeats the released code's cell candidate ``tanh(σ(·))``; ``"standard"`` takes tanh alone.
    """

    def __init__(self, inputs: int, width: int, passes: int, query: Query) -> None:
        super().__init__()
        self.passes, self.query, self.width = passes, query, width
        self.embed, self.recurrent = nn.Linear(inputs, width), nn.Linear(2 * width, 4 * width)
        self.of_query, self.energy = nn.Linear(width, width, bias=False), nn.Linear(width, 1, bias=False)

    def forward(self, values: Tensor, batch: Batch) -> Tensor:
        """Atoms (N, inputs) → (B, 2 · width)."""
        members, sets = self.embed(values), batch["system"]
        state = members.new_zeros(batch.n_systems, 2 * self.width)
        cell = members.new_zeros(batch.n_systems, self.width)
        for _ in range(self.passes):
            enter, forget, candidate, leave = self.recurrent(state).chunk(4, dim=1)
            candidate = torch.sigmoid(candidate) if self.query == "released" else candidate
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
            energy = self.energy(torch.tanh(torch.index_select(self.of_query(hidden), 0, sets) + members))[:, 0]
            read = sum_systems(members * softmax(energy, sets, batch.n_systems)[:, None], batch)
            state = torch.cat([hidden, read], dim=1)
        return state


class MPNN(nn.Module):
    """Messages, gated updates and a readout; the network on top is the head's."""

    @dataclass(frozen=True)
    class Config:
        """Settings, by the names of the paper's variants (see the module's text).

        `width` of the atom states, message passing `steps`, hidden `edge_width` and `edge_layers` of the edge network; `passes` of Set2Set.
        ``readout="atoms"`` gives the atoms' last states instead, for site contributions and extensive targets.
        """

        message: Message = "edge-network"
        readout: Readout = "set2set"
        edges: Edges = "bonds"
        width: int = 50
        steps: int = 6
        edge_width: int = 50
        edge_layers: int = 2
        passes: int = 6
        query: Query = "standard"
        attention: bool = False
        virtual: bool = False

        def __post_init__(self) -> None:
            for name, kind in (("message", Message), ("readout", Readout), ("edges", Edges), ("query", Query)):
                if getattr(self, name) not in get_args(kind):
                    raise ConfigError(f"{name} {getattr(self, name)!r} is unknown; expected one of {', '.join(get_args(kind))}")
            if min(self.width, self.edge_width, self.passes) < 1 or min(self.steps, self.edge_layers) < 0:
                raise ConfigError("width, edge_width and passes must be at least 1, steps and edge_layers at least 0")

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        c, known = self.config, molecules.widths()
        d, e = c.width, known["bonds"]
        self.embed = nn.Linear(known["message"], d)
        # a distance where all atoms are joined; kinds of bonds alone otherwise
        self.radial = Gaussians(0.0, _FARTHEST, _GAUSSIANS) if c.edges == "pairs" else None
        e_in = e + (_GAUSSIANS if self.radial else 0)
        if c.message == "ggnn":
            self.matrices = nn.Parameter(torch.randn(molecules.N_BONDS, d, 2 * d) * d**-0.5)
        else:
            self.network = EdgeNetwork(e_in, c.edge_width, c.edge_layers, d, 2 * d)
        self.bias = nn.Parameter(torch.zeros(2 * d))
        self.attention = Attention(d, e_in) if c.attention else None
        self.gru = GRU(2 * d, d)
        if c.virtual:
            self.speak, self.hear, self.virtual_gru = nn.Linear(d, 2 * d), nn.Linear(d, 2 * d), GRU(2 * d, d)
        if c.readout == "set2set":
            self.set2set = AdditiveSet2Set(d, d, c.passes, c.query)
        elif c.readout == "gated-sum":
            self.gate, self.core = nn.Linear(d, 2 * d), nn.Linear(d, 2 * d)

    @property
    def needs(self) -> GraphSpec:
        """The graph this model wants."""
        return GraphSpec(self.config.edges)

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features by level."""
        return {"atom": self.config.width} if self.config.readout == "atoms" else {"system": 2 * self.config.width}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch of molecular graphs → features (B, 2 · width), or with ``readout="atoms"`` (N, width)."""
        state = self.states(batch)
        if self.config.readout == "atoms":
            return {"atom": state}
        if self.config.readout == "set2set":
            return {"system": self.set2set(state, batch)}
        return {"system": sum_systems(torch.sigmoid(self.gate(state)) * self.core(state), batch)}

    def states(self, batch: Batch) -> Tensor:
        """Atom states (N, width) after the last step."""
        features = molecules.bonds(batch)
        edges = features if self.radial is None else torch.cat([features, self.radial(batch["edge_length"]).to(features.dtype)], dim=1)
        messages = self._messages(batch, edges)
        state = torch.relu(self.embed(molecules.atoms_message(batch)))
        virtual = state.new_zeros(batch.n_systems, self.config.width)
        for _ in range(self.config.steps):
            of_edges = messages.of(state)
            if self.attention is not None:
                of_edges = of_edges * self.attention(state, edges, batch)
            heard = sum_edges(of_edges, batch) + self.bias
            if self.config.virtual:
                heard = heard + torch.index_select(self.speak(virtual), 0, batch["system"])
                virtual = self.virtual_gru(sum_systems(self.hear(state), batch), virtual)
            state = self.gru(heard, state)
        return state

    def _messages(self, batch: Batch, edges: Tensor) -> _Grouped | _Each:
        if self.config.message == "ggnn":
            kind = batch["edge_chemistry"][:, 0]
            # atoms that are not bonded have the matrix zero
            return _Grouped(torch.cat([torch.zeros_like(self.matrices[:1]), self.matrices]), kind, batch["edge_sender"])
        if self.radial is not None:
            return _Each(self.network(edges), batch["edge_sender"])
        codes = batch["edge_chemistry"]
        kind = (codes[:, 0] - 1).clamp(min=0) * 4 + codes[:, 1] * 2 + codes[:, 2]
        first = torch.zeros(_KINDS_OF_EDGES, dtype=torch.int64, device=kind.device)
        first.scatter_(0, kind, torch.arange(len(kind), device=kind.device))
        return _Grouped(self.network(edges[first]) if len(edges) else edges.new_zeros(0, *self.network.shape), kind, batch["edge_sender"])


class _Grouped:
    """Messages over edges of few kinds: one matrix product per kind, nothing per edge."""

    def __init__(self, matrices: Tensor, kind: Tensor, sender: Tensor) -> None:
        order = torch.argsort(kind, stable=True)
        self.matrices, self.back = matrices, torch.argsort(order)
        self.sizes = torch.bincount(kind, minlength=len(matrices)).tolist()
        self.sender = torch.index_select(sender, 0, order)

    def of(self, state: Tensor) -> Tensor:
        """States (N, d) → A h of every edge (E, 2 d)."""
        if not len(self.sender):
            return state.new_zeros(0, 2 * state.shape[1])
        sent = torch.index_select(state, 0, self.sender).split(self.sizes)
        found = [part @ matrix for part, matrix in zip(sent, self.matrices, strict=True) if len(part)]
        return torch.index_select(torch.cat(found), 0, self.back)


class _Each:
    """Messages where every edge has its own matrix: made once, used in every step."""

    def __init__(self, matrices: Tensor, sender: Tensor) -> None:
        self.matrices, self.sender = matrices, sender

    def of(self, state: Tensor) -> Tensor:
        """States (N, d) → A h of every edge (E, 2 d)."""
        return torch.bmm(torch.index_select(state, 0, self.sender)[:, None], self.matrices)[:, 0]
