"""Chains of layers: one layer that computes and differentiates what its stages do one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.composition import Chain
from jaccomp.errors import SpecError, UsageError

MLP = jc.chain("mlp", fc1=L.linear, act=L.gelu, fc2=L.linear)
RESIDUAL = jc.chain("residual", norm=L.layernorm, fc=L.linear, sum=jc.stage(L.add, x="fc", z="input"))
CNN = jc.chain("cnn", conv=L.conv2d, norm=L.batchnorm, act=L.relu, pool=L.maxpool2d, mean=L.global_avgpool2d)
TEXT = jc.chain("text", emb=L.embedding, norm=L.rmsnorm, fc=L.linear, loss=L.cross_entropy)
BRANCHES = jc.chain(
    "branches",
    left=L.tanh,
    right=jc.stage(L.sigmoid, x="input"),
    both=jc.stage(L.multiply, x="left", z="right"),
    again=jc.stage(L.add, x="both", z="left"),
)
CELL = jc.chain("cell", cell=L.lstm_cell, head=jc.stage(L.linear, x="cell.h_next"))
SHARED = jc.chain(
    "shared",
    first=jc.stage(L.attention, q="input", k="input.keys", v="input.keys"),
    second=jc.stage(L.masked_attention, q="first", k="input.keys", v="input.keys", mask="input.bias"),
)


def by_stage(chain: Chain, arguments: dict[str, Any]) -> dict[str, Any]:
    """Every tensor of a chain, by running each stage's own kernel."""
    values = dict(arguments)
    for placed in chain.stages:
        kernel = jc.compile(placed.layer, backend="numpy")
        given = {own: values[name] for own, name in placed.inputs.items()}
        scalars = {own: values[name] for own, name in placed.scalars.items() if name in values}
        result = kernel(**given, **scalars)
        each = result if isinstance(result, tuple) else (result,)
        values |= dict(zip(placed.outputs.values(), each, strict=True))
    return values


def arguments(chain: Chain, sizes: dict[str, int], seed: int = 0, **others: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    numbers = {**sizes, **{k: v for k, v in others.items() if isinstance(v, int)}}
    drawn = {
        t.name: rng.integers(0, 2, shape) if t.dtype == "int64" else rng.standard_normal(shape)
        for t in chain.spec.inputs
        for shape in [tuple(int(e.xreplace({s: numbers[s.name] for s in e.free_symbols})) for e in t.shape)]
    }
    return {**drawn, **others}


CASES: dict[str, tuple[Chain, dict[str, int], dict[str, Any]]] = {
    "mlp": (MLP, {"N": 3, "D": 4, "O": 5, "fc2_O": 2}, {}),
    "residual": (RESIDUAL, {"N": 3, "D": 4}, {"norm_eps": 0.1}),
    "cnn": (CNN, {"N": 2, "C": 2, "H": 8, "W": 7, "O": 3, "KH": 3, "KW": 2}, {"conv_padding": 1, "pool_kernel": 2}),
    "text": (TEXT, {"N": 4, "V": 3, "D": 5, "O": 2}, {}),
    "branches": (BRANCHES, {"N": 6}, {}),
    "shared": (SHARED, {"B": 2, "N": 3, "M": 4, "D": 5}, {}),
    "cell": (CELL, {"N": 2, "I": 3, "H": 4, "O": 2}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_chain_computes_what_its_stages_do(name: str) -> None:
    chain, sizes, others = CASES[name]
    call = arguments(chain, sizes, **others)
    result = jc.compile(chain)(**call)
    each = result if isinstance(result, tuple) else (result,)
    values = by_stage(chain, call)
    assert len(each) == len(chain.spec.outputs)
    for tensor, found in zip(chain.spec.outputs, each, strict=True):
        np.testing.assert_allclose(found, values[tensor.name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["mlp", "residual", "branches", "text"])
def test_the_jacobian_is_the_sum_over_paths_of_products(name: str) -> None:
    chain, sizes, others = CASES[name]
    call = arguments(chain, sizes, **others)
    of = chain.spec.outputs[-1].name
    wrt = next(t.name for t in chain.spec.inputs if t.dtype == "real")
    kernel = jc.compile(chain, backend="numpy")
    dense = kernel.jacobian(**call, of=of, wrt=wrt)
    dense = dense.reshape(-1, call[wrt].size)
    values = by_stage(chain, call)
    total = np.zeros_like(dense)
    for path in chain.factors(of, wrt):
        product = np.eye(len(dense))
        for block in path:
            placed = next(p for p in chain.stages if p.layer.name == block.layer and fits(p, block, values, product))
            given = {own: values[inner] for own, inner in placed.inputs.items()}
            scalars = {own: values[inner] for own, inner in placed.scalars.items() if inner in values}
            local = jc.compile(placed.layer, backend="numpy").jacobian(**given, **scalars, of=block.of, wrt=block.wrt)
            product = product @ local.reshape(product.shape[1], -1)
        total += product
    np.testing.assert_allclose(total, dense, rtol=1e-11, atol=1e-12)


def fits(placed: Any, block: Any, values: dict[str, Any], product: Any) -> bool:
    return bool(np.size(values[placed.outputs[block.of]]) == product.shape[1])


def test_parameters_are_named_for_their_stage_and_sizes_joined() -> None:
    assert [t.name for t in MLP.spec.inputs] == ["x", "fc1_W", "fc1_b", "fc2_W", "fc2_b"]
    assert [str(t.shape) for t in MLP.spec.inputs[1:]] == ["(O, D)", "(O,)", "(fc2_O, O)", "(fc2_O,)"]
    assert [t.name for t in TEXT.spec.inputs] == [
        "ids", "emb_table", "norm_g", "fc_W", "fc_b", "loss_labels",
    ]  # fmt: skip
    assert [s.name for s in CNN.spec.scalars][:3] == ["conv_stride", "conv_padding", "conv_dilation"]
    assert [t.name for t in CNN.spec.outputs] == ["norm_mean", "norm_var", "y"], "what nothing reads is an output"
    assert [t.name for t in RESIDUAL.spec.inputs if t.name.startswith("fc")] == ["fc_W", "fc_b"]
    assert RESIDUAL.spec.inputs[3].shape[0] == RESIDUAL.spec.inputs[3].shape[1], "the residual makes it square"


def test_stages_share_a_further_input_of_the_chain() -> None:
    assert [t.name for t in SHARED.spec.inputs] == ["q", "keys", "bias"]
    assert [str(t.shape) for t in SHARED.spec.inputs] == ["(B, N, D)", "(B, M, D)", "(N, M)"]
    pair = jc.chain("pair", left=jc.stage(L.tanh, x="input.z"), both=jc.stage(L.add, x="left", z="input.z"))
    assert [t.name for t in pair.spec.inputs] == ["z"]
    x = np.arange(3.0)
    np.testing.assert_allclose(jc.compile(pair, backend="numpy")(z=x), np.tanh(x) + x, rtol=1e-15)


def test_a_later_stage_says_how_many_axes_an_earlier_one_has() -> None:
    heads = jc.chain("heads", fc=L.linear, act=L.tanh, norm=L.instancenorm)
    assert [str(t.shape) for t in heads.spec.inputs] == ["(norm_N, C, H, D)", "(O, D)", "(O,)", "(C,)", "(C,)"]
    assert [str(t.shape) for t in heads.spec.outputs] == ["(norm_N, C, H, O)"]
    call = arguments(heads, {"norm_N": 2, "C": 3, "H": 2, "D": 4, "O": 5})
    kernel = jc.compile(heads, backend="numpy")
    np.testing.assert_allclose(kernel(**call), by_stage(heads, call)["y"], rtol=1e-12)
    fed = jc.chain("fed", fc=L.linear, loss=L.cross_entropy)
    assert str(fed.spec.inputs[0].shape) == "(N, D)", "one axis keeps its name"


def test_chains_nest_and_are_told_apart() -> None:
    twice = jc.chain("twice", first=MLP, second=MLP)
    assert [t.name for t in twice.spec.inputs][:3] == ["x", "first_fc1_W", "first_fc1_b"]
    sizes = {s.name: 2 + k for k, s in enumerate(twice.spec.sizes)}
    call = arguments(twice, sizes)
    np.testing.assert_allclose(jc.compile(twice, backend="numpy")(**call), by_stage(twice, call)["y"], rtol=1e-12)
    assert twice.serialise() != MLP.serialise()


def test_a_chain_of_one_is_its_layer() -> None:
    one = jc.chain(only=L.softmax)
    assert [str(b) for b in one.jacobians().values()] == [str(b) for b in L.softmax.jacobians().values()]


def test_a_stage_that_stands_twice_is_compiled_once() -> None:
    kernels = MLP.kernels(backend="numpy")
    assert list(kernels) == ["fc1", "act", "fc2"] and kernels["fc1"] is kernels["fc2"]


def test_a_name_that_is_taken_gives_way() -> None:
    N = jc.size("N")
    n = jc.index("n", N)
    x, fc_y, y = jc.tensor("x fc_y y", N)
    from sympy import Eq, tanh

    odd = jc.Layer("odd", inputs=[x], outputs=[y], equations=[Eq(fc_y[n], tanh(x[n])), Eq(y[n], fc_y[n] ** 2)])
    made = jc.chain("made", fc=odd, fc_fc=odd)
    names = [t.name for t in (*made.spec.inputs, *made.spec.outputs, *made.spec.intermediates)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jc.chain(), "chain 'chain': it has no stage"),
        (lambda: jc.chain(fc=3), "stage 'fc': 3 is no layer"),
        (lambda: jc.chain(a=L.tanh, b=jc.stage(L.tanh, z="a")), "tanh has no input 'z'"),
        (lambda: jc.chain(a=L.tanh, b=jc.stage(L.add, x="c", z="a")), "input 'x' reads 'c', no stage before it"),
        (lambda: jc.chain(a=L.lstm_cell, b=jc.stage(L.tanh, x="a.y")), "stage 'a' has no output 'y'"),
        (lambda: jc.chain(a=L.tanh, b=jc.stage(L.embedding, ids="a")), "input 'ids' is int64, but a is real"),
        (
            lambda: jc.chain(a=jc.stage(L.embedding, ids="input.z"), b=jc.stage(L.add, x="a", z="input.z")),
            r"input 'z' is real, but input.z is int64",
        ),
        (lambda: jc.chain(a=jc.stage(L.tanh, x="input.for")), "input 'for': the name is"),
        (lambda: jc.chain(a=L.cross_entropy, b=L.softmax), r"x has shape \(N, D\), but a.loss is \(\)"),
        (
            lambda: jc.chain(a=L.linear.bind(O=3), b=L.linear.bind(D=4)),
            r"x has shape \(N, 4\), but a.y is \(N, 3\). 4 cannot be 3",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


def test_factors_of_what_there_is_not() -> None:
    with pytest.raises(UsageError, match="factors of chain 'mlp': no stage has 'q'"):
        MLP.factors("q", "x")
    assert MLP.factors("act_y", "fc2_W") == (), "no path leads there"
