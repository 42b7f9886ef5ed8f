"""Set2Set: a set of vectors read several times by a recurrent query, so that the result does not depend on their order.

Vinyals, Bengio & Kudlur, Order Matters, ICLR 2016. From a query q and a state c, both zero at first, each pass does::

    q*, c = LSTM([q ⊕ r], c);   a_i = softmax_i(m_i · q*);   r = Σ_i a_i m_i;   q = q*

and ``[q ⊕ r]`` of the last pass is the result. The softmax goes over the members of each set.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from naica.errors import ConfigError

Gates = Literal["logistic", "hard"]


class Set2Set(nn.Module):
    """Sets of vectors → one vector each, twice as long as their members.

    Parameters
    ----------
    inputs : length of the vectors
    width : length they are mapped to first (MEGNet); None takes them as they are
    passes : how often each set is read
    gates : ``logistic``, as in any LSTM, or ``hard``: clip(0.2 x + 0.5, 0, 1), as in Keras up to version 2
    carry : False starts every pass with an empty cell state. The forget gate then does nothing. So did the MEGNet of 2018 to 2021, by
        mistake, and weights trained with it want it so
    """

    def __init__(self, inputs: int, width: int | None = None, passes: int = 3, gates: Gates = "logistic", carry: bool = True) -> None:
        super().__init__()
        if passes < 1 or gates not in get_args(Gates):
            raise ConfigError(f"{passes} passes with gates {gates!r}; expected at least 1, and logistic or hard")
        self.passes, self.gates, self.carry = passes, gates, carry
        self.width = inputs if width is None else width
        self.project = nn.Identity() if width is None else nn.Linear(inputs, width)
        # gates in the order input, forget, candidate, output
        self.recurrent = nn.Linear(2 * self.width, 4 * self.width)
        with torch.no_grad():
            nn.init.xavier_uniform_(self.recurrent.weight)
            self.recurrent.bias.zero_()
            self.recurrent.bias[self.width : 2 * self.width] = 1.0

    def forward(self, values: Tensor, sets: Tensor, n_sets: int, counts: Tensor | None = None) -> Tensor:
        """Vectors (n, inputs) and the set (n) each belongs to → (n_sets, 2 · width); empty sets read zeros.

        `counts` (n) says how many equal members each stands for.
        """
        members = self.project(values)
        state = members.new_zeros(n_sets, 2 * self.width)
        cell = members.new_zeros(n_sets, self.width)
        for _ in range(self.passes):
            enter, forget, candidate, leave = self.recurrent(state).chunk(4, dim=1)
            cell = self._gate(enter) * torch.tanh(candidate) + (self._gate(forget) * cell if self.carry else 0)
            query = self._gate(leave) * torch.tanh(cell)
            state = torch.cat([query, read(members, query, sets, counts)], dim=1)
        return state

    def _gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) if self.gates == "logistic" else (0.2 * x + 0.5).clamp(0, 1)


def read(members: Tensor, query: Tensor, sets: Tensor, counts: Tensor | None = None) -> Tensor:
    """What each set's query (B, C) makes of its members (n, C): their mean weighted by softmax of the products with it, (B, C)."""
    score = (members * torch.index_select(query, 0, sets)).sum(1)
    weight = softmax(score, sets, len(query), counts)
    return members.new_zeros(query.shape).index_add(0, sets, members * weight[:, None])


def softmax(score: Tensor, sets: Tensor, n_sets: int, counts: Tensor | None = None) -> Tensor:
    """Softmax of scores (n) within each of the sets (n) they belong to, each counted `counts` times and its share multiplied by that."""
    with torch.no_grad():
        # the largest of a set only keeps the exponentials in range: the result does not depend on it
        top = score.new_zeros(n_sets).scatter_reduce(0, sets, score, "amax", include_self=False)
    weight = torch.exp(score - torch.index_select(top, 0, sets))
    weight = weight if counts is None else weight * counts
    total = weight.new_zeros(n_sets).index_add(0, sets, weight)
    return weight / torch.index_select(total, 0, sets)
