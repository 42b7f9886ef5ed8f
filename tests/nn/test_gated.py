"""Gated networks: the pieces equal the whole; the compiled function equals the plain one, with its derivatives, on one thread and two."""

import pytest
import torch

from naica.nn import activations
from naica.nn.compiled import SWITCH, library, reason
from naica.nn.edge_product import Tabled
from naica.nn.gated import Factor, GatedNetwork, Rows, _Args

EDGES, ATOMS = 1203, 37  # not a multiple of the tile
FACTORS = ("none", "given", "made", "silu")


def case(inputs: int, norm: bool, factor: str, summed: bool, layers: int = 2):
    """A network and a call of it."""
    torch.manual_seed(0)
    net = GatedNetwork([64, 64, inputs], [64] * layers, norm=norm).requires_grad_(False)
    for p in net.parameters():
        p.add_(0.1 * torch.randn_like(p))
    first = torch.sort(torch.randint(0, ATOMS, (EDGES,)))[0]
    atoms, extra = torch.randn(ATOMS, 64, requires_grad=True), torch.randn(20, 64, requires_grad=True)
    receiver, sender, edge = net.split()
    rows = (
        Rows(atoms, receiver, first),
        Rows(atoms, sender, torch.randint(0, ATOMS, (EDGES,))),
        Rows(extra, 0.1 * torch.randn(128, 64), torch.randint(-1, 20, (EDGES,))),
    )
    given = {
        "none": None,
        "given": torch.randn(EDGES, 64, requires_grad=True),
        "made": Factor(torch.randn(EDGES, 3, requires_grad=True), torch.randn(64, 3)),
        "silu": Factor(torch.randn(EDGES, 3, requires_grad=True), torch.randn(64, 3), silu=True),
    }[factor]
    x = torch.randn(EDGES, inputs, requires_grad=True)
    leaves = [x, atoms, extra] + ([] if given is None else [given.functions if isinstance(given, Factor) else given])
    return _Args(net, edge, rows, given, summed, residual=summed or inputs == 64), x, leaves


def close(ours, theirs, tolerance=3e-6):
    assert float((ours - theirs).detach().abs().max()) < tolerance * float(theirs.detach().abs().max())


def test_pieces_are_the_whole():
    torch.manual_seed(1)
    net = GatedNetwork([5, 5, 7], [6, 4], norm=True).double()
    atoms, x = torch.randn(4, 5).double(), torch.randn(9, 7).double()
    i, j = torch.sort(torch.randint(0, 4, (9,)))[0], torch.randint(0, 4, (9,))
    receiver, sender, edge = net.split()
    whole = net(torch.cat([atoms[i], atoms[j], x], dim=1))
    torch.testing.assert_close(net.on_edges(x, edge, [Rows(atoms, receiver, i), Rows(atoms, sender, j)]), whole)
    summed = net.on_edges(x, edge, [Rows(atoms, receiver, i), Rows(atoms, sender, j)], summed=True)
    torch.testing.assert_close(summed, torch.zeros(4, 4).double().index_add(0, i, whole))
    value, gate = net.first.chunk(2)
    second = net.later[0]
    joined = torch.cat([atoms[i], atoms[j], x], dim=1)
    silu, norm = torch.nn.functional.silu, net.norm
    core = silu(norm[0](silu(joined @ value.T + net.first_bias[:6]) @ second[0] + net.later_bias[0][0]))
    open_share = torch.sigmoid(norm[1](silu(joined @ gate.T + net.first_bias[6:]) @ second[1] + net.later_bias[0][1]))
    torch.testing.assert_close(whole, core * open_share)


@pytest.mark.skipif(library("gated") is None, reason=f"no compiled functions here: {reason('gated')}")
class TestCompiled:
    @pytest.mark.parametrize(
        ("inputs", "summed", "factor", "norm", "threads"),
        [
            *(
                (inputs, summed, factor, norm, 1)
                for inputs, summed in ((64, False), (31, True))
                for factor in FACTORS
                for norm in (False, True)
            ),
            (64, True, "none", True, 1),
            (9, False, "given", False, 1),
            (64, True, "silu", True, 2),
        ],
    )
    def test_equals_plain(self, inputs, summed, factor, norm, threads):
        args, x, leaves = case(inputs, norm, factor, summed)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert args.net._compiled(x, args)
            ours, theirs = args.fused(x), args.plain(x)
            close(ours, theirs)
            upstream = torch.randn_like(ours)
            for a, b in zip(*(torch.autograd.grad(y, leaves, upstream) for y in (ours, theirs)), strict=True):
                close(a, b)
            with torch.no_grad():
                close(args.fused(x), theirs)
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("width", [16, 32, 48, 128])
    def test_other_widths(self, width):
        torch.manual_seed(2)
        net = GatedNetwork([width, 5], [width, width], norm=True).requires_grad_(False)
        atoms, x = torch.randn(7, width, requires_grad=True), torch.randn(50, 5, requires_grad=True)
        first, second = net.split()
        args = _Args(net, second, (Rows(atoms, first, torch.sort(torch.randint(0, 7, (50,)))[0]),), None, True, True)
        assert net._compiled(x, args)
        ours, theirs = args.fused(x), args.plain(x)
        close(ours, theirs)
        for a, b in zip(*(torch.autograd.grad(y.square().sum(), [x, atoms]) for y in (ours, theirs)), strict=True):
            close(a, b)

    @pytest.mark.parametrize("norm", [False, True])
    def test_tables_of_the_first_layer_and_of_the_factor(self, norm):
        args, _, _ = case(31, norm, "none", True)
        atoms, length = args.rows[0].features, (0.1 + 2.1 * torch.rand(EDGES)).requires_grad_()  # some beyond the last node
        whole = Tabled(torch.randn(9, 2, 1, 128 + 64), 0.25, length)
        as_factor = Tabled(whole.table[..., 128:].contiguous(), 0.25, length)
        x = torch.randn(EDGES, 31, requires_grad=True)
        both = _Args(args.net, None, args.rows, whole, True, False), None
        for call, given in (both, (_Args(args.net, args.weight, args.rows, as_factor, False, False), x)):
            assert args.net._compiled(given, call)
            ours, theirs = call.fused(given), call.plain(given)
            close(ours, theirs)
            leaves = [length, atoms] + ([] if given is None else [x])
            upstream = torch.randn_like(ours)
            for a, b in zip(*(torch.autograd.grad(y, leaves, upstream) for y in (ours, theirs)), strict=True):
                close(a, b, 1e-5)
        # the first layer and the factor are what the columns say
        read = whole.read()[:, 0]
        exact = args.net.on_edges(read[:, :128], torch.eye(128), args.rows, read[:, 128:], summed=True)
        close(both[0].fused(None), exact, 1e-5)

    def test_one_layer_without_bias(self):
        torch.manual_seed(3)
        net = GatedNetwork([9], [64], bias=False).requires_grad_(False)
        x = torch.randn(101, 9, requires_grad=True)
        args = _Args(net, net.first, (), None, False, False)
        assert net._compiled(x, args)
        close(args.fused(x), args.plain(x))
        close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (args.fused(x), args.plain(x))))

    def test_twice_differentiable(self):
        args, x, leaves = case(64, True, "silu", True)
        found = []
        for y in (args.fused(x), args.plain(x)):
            slopes = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
            found.append(torch.autograd.grad(sum(s.square().sum() for s in slopes), leaves))
        for a, b in zip(*found, strict=True):
            close(a, b, 1e-5)

    def test_what_is_not_a_number_stays_so(self):
        args, x, _ = case(64, False, "given", False)
        with torch.no_grad():
            x[5, 3] = torch.nan
            y = args.fused(x)
        assert bool(y[5].isnan().all())
        assert not bool(y[:5].isnan().any())

    def test_weights_that_learn_go_the_plain_way(self):
        args, x, _ = case(64, False, "none", False)
        args.net.requires_grad_(True)
        assert not args.net._compiled(x, args)
        assert not args.net.double()._compiled(x.double(), args)


def seconds(function, inputs):
    """Value, first derivatives, and derivatives of those."""
    y = function(*inputs)
    wave = torch.sin(torch.arange(y.numel()) * 1.0).view_as(y)
    slopes = torch.autograd.grad((y.square() * wave).sum(), inputs, create_graph=True)
    again = torch.autograd.grad(sum((s * torch.cos(3 * wave.flatten()[: s.numel()].view_as(s))).square().sum() for s in slopes), inputs)
    return [y, *slopes, *again]


@pytest.mark.skipif(library("gated") is None, reason="no compiled functions here")
@pytest.mark.parametrize("kind", ["silu", "gate", "linear gate", "norm"])
def test_activations_in_training_equal_torchs(kind):
    torch.manual_seed(4)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = ((3 * torch.randn(83, 64)).requires_grad_() for _ in range(2))
        assert activations._worth(a)
        norm = torch.nn.LayerNorm(64)
        with torch.no_grad():
            norm.weight.add_(0.3 * torch.randn(64))
        silu, sigmoid = torch.nn.functional.silu, torch.sigmoid
        ours, theirs, inputs = {
            "silu": (activations.silu, silu, [a]),
            "gate": (activations.gate, lambda x, y: silu(x) * sigmoid(y), [a, b]),
            "linear gate": (lambda x, y: activations.gate(x, y, False), lambda x, y: x * sigmoid(y), [a, b]),
            "norm": (lambda x, *_: activations.normalised(x, norm), lambda x, *_: norm(x), [a, norm.weight, norm.bias]),
        }[kind]
        for one, two in zip(seconds(ours, inputs), seconds(theirs, inputs), strict=True):
            close(one, two, 5e-6)
    finally:
        torch.set_num_threads(before)


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    library.cache_clear()
    try:
        assert library("gated") is None
        assert SWITCH in reason("gated")
        monkeypatch.setenv(SWITCH, "1")
        monkeypatch.setenv("CC", "no-such-compiler")
        monkeypatch.setenv("PATH", "")
        library.cache_clear()
        assert library("gated") is None
        assert "compiler" in reason("gated")
    finally:
        library.cache_clear()
