"""Set2Set: against torch's own LSTM cell, and the laws of sets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from naica.errors import ConfigError
from naica.nn.set2set import Set2Set, softmax


def reader(inputs=5, width=4, **options) -> Set2Set:
    torch.manual_seed(0)
    return Set2Set(inputs, width, **options).double()


def plain(module: Set2Set, members: torch.Tensor) -> torch.Tensor:
    """One set, with torch's LSTM cell: its gates come in the same order; all of its input is the query and what was read."""
    m = module.project(members)
    w = module.width
    cell = nn.LSTMCell(2 * w, w).double()
    with torch.no_grad():
        cell.weight_ih.copy_(module.recurrent.weight)
        cell.bias_ih.copy_(module.recurrent.bias)
        cell.weight_hh.zero_()
        cell.bias_hh.zero_()
    state, c = torch.zeros(1, 2 * w).double(), torch.zeros(1, w).double()
    for _ in range(module.passes):
        query, carried = cell(state, (torch.zeros(1, w).double(), c))
        c = carried if module.carry else torch.zeros_like(c)
        attention = torch.softmax(m @ query[0], dim=0)
        state = torch.cat([query, (attention[:, None] * m).sum(0)[None]], dim=1)
    return state[0]


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_as_written_with_an_lstm_cell(passes, carry):
    module = reader(passes=passes, carry=carry)
    values = torch.randn(7, 5).double()
    sets = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    found = module(values, sets, 2)
    torch.testing.assert_close(found[0], plain(module, values[:3]))
    torch.testing.assert_close(found[1], plain(module, values[3:]))


def test_what_the_released_defects_change():
    values, sets = torch.randn(6, 5).double(), torch.zeros(6, dtype=torch.long)
    usual, forgetful, hard = (
        reader(carry=c, gates=g)(values, sets, 1) for c, g in ((True, "logistic"), (False, "logistic"), (True, "hard"))
    )
    assert float((usual - forgetful).detach().abs().max()) > 1e-3
    assert float((usual - hard).detach().abs().max()) > 1e-3
    # with an empty cell state the forget gate does nothing
    module = reader(carry=False)
    before = module(values, sets, 1).detach()
    with torch.no_grad():
        module.recurrent.weight[4:8] += 3.0
        module.recurrent.bias[4:8] -= 2.0
    torch.testing.assert_close(module(values, sets, 1).detach(), before)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 1000))
def test_order_and_copies_do_not_matter(members, copies, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(members, 5, generator=generator).double()
    order = torch.randperm(members, generator=generator)
    module = reader()
    one = module(values, torch.zeros(members, dtype=torch.long), 1)
    torch.testing.assert_close(module(values[order], torch.zeros(members, dtype=torch.long), 1), one)
    # the mean is weighted: a supercell reads as the cell does
    repeated = values.repeat(copies, 1)
    torch.testing.assert_close(module(repeated, torch.zeros(len(repeated), dtype=torch.long), 1), one)


def test_counts_stand_for_copies():
    module = reader()
    values, counts = torch.randn(4, 5).double(), torch.tensor([3, 1, 2, 5])
    sets = torch.tensor([0, 0, 1, 1])
    spread = module(values.repeat_interleave(counts, 0), sets.repeat_interleave(counts), 2)
    torch.testing.assert_close(module(values, sets, 2, counts.double()), spread)


def test_softmax_of_large_scores_and_empty_sets():
    weight = softmax(torch.tensor([1000.0, 1000.0, -1000.0]), torch.tensor([0, 0, 2]), 3)
    torch.testing.assert_close(weight, torch.tensor([0.5, 0.5, 1.0]))
    found = reader()(torch.randn(2, 5).double(), torch.tensor([0, 2]), 3)
    assert bool(torch.isfinite(found).all())
    assert float(found[1, 4:].detach().abs().max()) == 0.0


def test_settings_out_of_range():
    for wrong in ({"passes": 0}, {"gates": "soft"}):
        with pytest.raises(ConfigError):
            Set2Set(4, **wrong)
