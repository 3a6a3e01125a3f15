"""Matrix forms of every block of the library: true in both layouts, the same up to names, and LaTeX that compiles."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
from dense import SMALL, assert_close, jacobian
from identities import IDENTITIES
from latex import check_compiles
from library_formulas import CASES
from matrix_values import World, dense, world
from points import Point
from test_normalise import renamed

import jaccomp as jc
from jaccomp.errors import UsageError
from jaccomp.jacobian import Jacobian
from jaccomp.layers import get, names
from jaccomp.matrix.derivation import derived
from jaccomp.matrix.form import LAYOUTS, Layout, MatrixForm, matrix_form

WINDOWS = (
    "avgpool1d", "avgpool2d", "causal_conv1d", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d",
    "depthwise_conv2d", "maxpool1d", "maxpool2d",
)  # fmt: skip


def form(one: Jacobian, layout: Layout = "numerator") -> MatrixForm | None:
    return matrix_form(one._program, one._block, one._letters, layout)


@cache
def blocks(name: str) -> tuple[Point, dict[tuple[str, str], Any]]:
    point = Point(get(name), SMALL.get(name, CASES[name]))
    return point, jacobian(point, point.program, point.inputs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_a_form_is_the_dense_block(name: str, layout: Layout) -> None:
    layer = get(name)
    point, expected = blocks(name)
    label = point.program.labels.name
    canonical = {label(n): n for n in (*point.program.inputs, *point.program.outputs)}
    for (of, wrt), one in layer.jacobians().items():
        found = form(one, layout)
        if found is None:
            continue
        own = expected[canonical[of], canonical[wrt]]
        value = dense(found, world(layer, point, found))
        size = np.abs(own).max(initial=0.0)
        assert_close(value, (own.ravel(), np.abs(own).ravel() + size), f"{name} {found}")


SECOND = ("softmax", "rmsnorm", "bilinear", "quadratic", "l2_normalize", "tanh", "cosine_similarity", "cross_entropy")


@pytest.mark.parametrize("name", SECOND)
def test_the_forms_of_a_vjp_are_its_dense_blocks(name: str) -> None:
    twice = get(name).vjp()
    point = Point(get(name), SMALL.get(name, CASES[name]))
    program, backward = twice.program, twice.derivation.vjp
    rng = np.random.default_rng(1)
    cotangents = {x: rng.standard_normal(point.shape(x, program)) for x in program.inputs if x not in point.inputs}
    inputs = {**point.inputs, **cotangents}
    expected = jacobian(point, program, inputs)
    zeros = {s: np.zeros(point.shape(s, backward)) for s in twice.derivation.seeds}
    arrays = {k: np.asarray(v) for k, v in inputs.items()}
    arrays |= point.evaluate(twice.prepared, inputs) | point.evaluate(backward, inputs | zeros)
    canonical = {program.labels.name(n): n for n in (*program.inputs, *program.outputs)}
    found = {pair: form(one) for pair, one in twice.jacobians().items()}
    assert any(found.values())
    for (of, wrt), one in found.items():
        if one is not None:
            value = dense(one, World(arrays, point.sizes | point.scalars, one.derived.names))
            own = expected[canonical[of], canonical[wrt]]
            assert_close(value, (own.ravel(), np.abs(own).ravel() + np.abs(own).max(initial=0.0)), str(one))


def test_only_windows_have_no_form() -> None:
    missing = {name for name in names() for one in get(name).jacobians().values() if form(one) is None}
    assert missing == set(WINDOWS)


@pytest.mark.parametrize("name", names())
def test_a_form_is_the_same_up_to_names(name: str) -> None:
    layer = get(name)
    other = jc.Layer.of_spec(renamed(layer.spec, random.Random(name)))
    for one, twin in zip(layer.jacobians().values(), other.jacobians().values(), strict=True):
        first, second = (derived(block._program, block._block) for block in (one, twin))
        assert first == second


HOSTILE = ("x_1", "é", "_x_".strip("_") + "__y", "sigma", "I", "漢", "log_p", "T1_", "hat", "diag")


def hostile_softmax(x: str, y: str, n: str, i: str, N: str, D: str) -> jc.Layer:
    rows, width = jc.size(N), jc.size(D)
    row, column, inner = jc.index(n, rows), jc.index(i, width), jc.index("zz", width)
    given, out = jc.tensor(x, rows, width), jc.tensor(y, rows, width)
    body = sp.exp(given[row, column]) / sp.Sum(sp.exp(given[row, inner]), inner)
    return jc.Layer("hostile", inputs=[given], outputs=[out], equations=[sp.Eq(out[row, column], body)])


def test_names_of_users_are_words_and_never_commands(tmp_path: Path) -> None:
    formulas = []
    for k, name in enumerate(HOSTILE):
        words = [name, *(HOSTILE[(k + step) % len(HOSTILE)] for step in range(1, 6))]
        found = form(hostile_softmax(*words).jacobian())
        assert found is not None
        y, n = words[1], words[2]
        assert found.text == f"diag({y}) - {y} {y}ᵀ"
        assert found.over == (n,)
        formulas.append(found.latex_statement)
    check_compiles(formulas, tmp_path)


def test_an_identity_beside_a_tensor_called_i_says_its_size() -> None:
    N, D = jc.size("N D")
    n, i, k = jc.index("n", N), jc.index("i", D), jc.index("k", D)
    x, y, norm = jc.tensor("x", N, D), jc.tensor("I", N, D), jc.tensor("norm", N)
    layer = jc.Layer(
        "unit",
        inputs=[x],
        outputs=[y],
        equations=[sp.Eq(norm[n], sp.sqrt(sp.Sum(x[n, k] ** 2, k))), sp.Eq(y[n, i], x[n, i] / norm[n])],
    )
    found = form(layer.jacobian())
    assert found is not None and found.text == "(I_D - I Iᵀ)/norm"


def test_every_form_of_the_library_compiles(tmp_path: Path) -> None:
    found = [form(one, layout) for name in names() for one in get(name).jacobians().values() for layout in LAYOUTS]
    check_compiles([one.latex_statement for one in found if one is not None], tmp_path)


def test_a_statement_says_for_which_rows_and_what_its_names_are() -> None:
    found = form(get("softmax").jacobian())
    assert found is not None
    assert str(found) == "for each n: ∂y[n,:]/∂x[n,:] = diag(y) - y yᵀ, where y = y[n,:] ∈ ℝ^D"
    assert found.latex_statement == (
        r"\text{for each } n\colon\quad \frac{\partial y_{n,:}}{\partial x_{n,:}} = "
        r"\operatorname{diag}\left(y\right) - y \, y^{\top},\quad \text{where } y = y_{n,:} \in \mathbb{R}^{D}"
    )


def test_the_denominator_layout_is_the_transpose() -> None:
    linear = get("linear").jacobian(wrt="x")
    assert [one.text for one in (form(linear, layout) for layout in LAYOUTS) if one is not None] == ["W", "Wᵀ"]
    quadratic = get("bilinear").jacobian(wrt="W")
    assert [one.text for one in (form(quadratic, layout) for layout in LAYOUTS) if one is not None] == [
        "I_O ⊗ xᵀ ⊗ zᵀ",
        "I_O ⊗ x ⊗ z",
    ]


def test_a_block_that_every_row_shares_is_written_whole_too() -> None:
    found = form(get("linear").jacobian(wrt="x"))
    assert found is not None and (found.text, found.whole) == ("W", "I_N ⊗ W")
    assert found.latex_whole == r"I_{N} \otimes W"
    same = form(get("matmul").jacobian(wrt="x"))
    own = form(get("softmax").jacobian())
    assert own is not None and own.whole is None
    assert same is not None and same.whole is None, "z differs for each n"
    outer = IDENTITIES["outer_product_u"].layer.jacobian(wrt="u")
    found = form(outer)
    assert found is not None and (found.text, found.whole) == ("v", "I_N ⊗ v")


def test_a_block_of_zeros_is_zero() -> None:
    found = form(get("batchnorm").jacobian(of="mean", wrt="g"))
    assert found is not None and (found.text, found.latex) == ("0", "0")


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"layout 'rows': there is none of that name.\s+It is one of numerator, denomi"
    ):
        form(get("softmax").jacobian(), "rows")  # type: ignore[arg-type]


# What has no words of its own is written out


N, D, E = jc.size("N D E")
n, i, j, e = jc.index("n", N), jc.index("i", D), jc.index("j", D), jc.index("e", E)
x, y = jc.tensor("x", N, D), jc.tensor("y", N)
W, b, hidden = jc.tensor("W", E, D), jc.tensor("b", E), jc.tensor("h", N, E)


def text(layer: jc.Layer, wrt: str = "x") -> str | None:
    found = form(layer.jacobian(wrt=wrt))
    return None if found is None else found.text


def layer(inputs: Any, output: Any, left: Any, right: Any) -> jc.Layer:
    return jc.Layer("own", inputs=inputs, outputs=[output], equations=[sp.Eq(left, right)])


def test_a_nameless_sum_of_squares_is_a_norm() -> None:
    own = layer([x], y, y[n], 1 / (1 + sp.Sum(x[n, i] ** 2, i)))
    assert text(own) == "-2 y² xᵀ"
    own = layer([x], y, y[n], sp.sin(sp.Sum(x[n, i] ** 2, i)))
    assert text(own) == "2 cos(‖x‖²) xᵀ"


def test_second_derivatives_are_forms_too() -> None:
    assert text(get("logsumexp").vjp()) == "ct_y (diag(exp(x - y 1)) - exp(x - y 1) exp(x - y 1)ᵀ)"
    assert text(get("log_softmax").vjp()) == "(1ᵀ ct_y) (exp(y) exp(y)ᵀ - diag(exp(y)))"
    assert text(get("l2_normalize").vjp(), "ct_y") == "(I - y yᵀ)/norm"
    assert text(get("rope").vjp(), "ct_y") == "blockdiag_p [cos(angle), sin(angle); -sin(angle), cos(angle)]"


def test_arrays_along_one_of_two_axes_are_outer_products() -> None:
    u = jc.tensor("u", E)
    product, added = (
        layer([x, u], y, y[n], sp.Sum(sp.sin(inside), i, e)) for inside in (x[n, i] * u[e], x[n, i] + u[e])
    )
    assert text(product, "u") == "xᵀ cos(x uᵀ)"
    assert text(added) == "1ᵀ cos(u 1ᵀ + 1 xᵀ)"


def test_a_nameless_product_of_a_matrix_is_written_in_place() -> None:
    own = layer([x, W, b], hidden, hidden[n, e], sp.sin(sp.Sum(W[e, i] * x[n, i], i) + b[e]))
    assert text(own) == "diag(cos(b + (W x))) W"


def test_a_group_of_channels_is_an_axis_of_its_own() -> None:
    found = form(get("groupnorm").jacobian(wrt="x"))
    assert found is not None and found.over == ("n", "a")
    assert found.text == "rstd diag(g ⊗ 1) (I - 1 1ᵀ/(H W K) - xhat xhatᵀ/(H W K))"
    assert "g = g[a·K:K+a·K] ∈ ℝ^K" in found.where


def test_the_derivative_of_a_cubic_form_is_refused() -> None:
    T = jc.tensor("T", D, D, D)
    k = jc.index("k", D)
    own = layer([x, T], y, y[n], sp.Sum(T[i, j, k] * x[n, i] * x[n, j] * x[n, k], i, j, k))
    assert text(own) is None
