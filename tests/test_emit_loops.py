"""Emitted kernels, compiled and compared with the brute-force evaluation, at edges and at every number of threads."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy as sp
from lowered import built, check, run, sample

from jaccomp.calculus.vjp import vjp
from jaccomp.emit.expressions import Spelling
from jaccomp.emit.loops import emit_kernel
from jaccomp.errors import StageError
from jaccomp.lowering import lower
from jaccomp.program import (
    AXES,
    Equation,
    Labels,
    Program,
    Scalar,
    Tensor,
    Term,
    at_least,
    bound_symbol,
    equal,
    in_range,
    scalar_map,
    size_symbol,
    verify,
)

N, D, H, K = (size_symbol(f"s{k}") for k in range(4))
i, j, k, l = AXES[:4]  # noqa: E741
b, c, d, e, f = (bound_symbol(n) for n in range(5))
HALF = sp.Rational(-1, 2)


def program(
    name: str, tensors: tuple[Tensor, ...], *equations: Equation, scalars: tuple[Scalar, ...] = (), **changes: Any
) -> Program:
    """A verified program; what no equation defines is an input, what nothing reads an output."""
    targets = [q.target for q in equations]
    inputs = tuple(t.name for t in tensors if t.name not in targets)
    read = {a.base.name for q in equations for t in q.terms for x in (t.body, *(c.expr for c in t.domain))
            for a in x.atoms(type(tensors[0][tuple(tensors[0].shape)]))}  # fmt: skip
    outputs = changes.pop("outputs", tuple(t for t in targets if t not in read))
    free: dict[str, sp.Symbol] = {}
    known = {s.name for s in scalars}
    for tensor in tensors:
        for extent in tensor.shape:
            free.update({s.name: s for s in extent.free_symbols if s.name not in known})
    sizes = tuple(free[n] for n in sorted(free))
    return verify(Program(name, sizes, scalars, inputs, outputs, tensors, equations, **changes))


def layernorm() -> Program:
    x, g, bias = Tensor("x0", (N, D)), Tensor("x1", (D,)), Tensor("x2", (D,))
    mean, rstd, y = Tensor("v0", (N,)), Tensor("v1", (N,)), Tensor("v2", (N, D))
    square = Tensor("v3", (N,))
    eps = Scalar("c0", "real", 1e-5)
    return program(
        "layernorm", (x, g, bias, mean, square, rstd, y),
        Equation("v0", (i,), (Term(x[i, b] / D, (b,), in_range(b, D)),)),
        Equation("v3", (i,), (Term((x[i, b] - mean[i,]) ** 2 / D, (b,), in_range(b, D)),)),
        scalar_map("v1", 1, (square[i,] + eps.symbol) ** HALF),
        scalar_map("v2", 2, g[j,] * (x[i, j] - mean[i,]) * rstd[i,] + bias[j,]),
        scalars=(eps,),
    )  # fmt: skip


def softmax() -> Program:
    x, top, y, z, p = (Tensor("x0", (N, D)), Tensor("v0", (N,)), Tensor("v1", (N, D)), Tensor("v2", (N,)),
                       Tensor("v3", (N, D)))  # fmt: skip
    return program(
        "softmax", (x, top, y, z, p),
        Equation("v0", (i,), (Term(x[i, b], (b,), in_range(b, D)),), "max"),
        scalar_map("v1", 2, sp.exp(x[i, j] - top[i,])),
        Equation("v2", (i,), (Term(y[i, b], (b,), in_range(b, D)),)),
        scalar_map("v3", 2, y[i, j] / z[i,]),
    )  # fmt: skip


def convolution() -> Program:
    """y[n,h] = Σ_{c,r} x[n,c,S*h + r - P] w[c,r]: strided, padded, S and P unknown until the call."""
    s, p = Scalar("c0", "int64", 2), Scalar("c1", "int64", 1)
    length = sp.floor((H + 2 * p.symbol - K) / s.symbol) + 1
    x, w, y = Tensor("x0", (N, D, H)), Tensor("x1", (D, K)), Tensor("v0", (N, length))
    at = s.symbol * j + c - p.symbol
    domain = (*in_range(b, D), *in_range(c, K), *in_range(at, H))
    return program(
        "convolution", (x, w, y), Equation("v0", (i, j), (Term(x[i, b, at] * w[b, c], (b, c), domain),)), scalars=(s, p)
    )


def windows() -> Program:
    """y[n,o,h] = b[o] + Σ_{c,r} x[n,c,S*h + Q*r - P] w[o,c,r]: many channels, dilated as well."""
    s, p, q = Scalar("c0", "int64", 2), Scalar("c1", "int64", 1), Scalar("c2", "int64", 1)
    length = sp.floor((H + 2 * p.symbol - q.symbol * (K - 1) - 1) / s.symbol) + 1
    x, w, bias, y = Tensor("x0", (N, D, H)), Tensor("x1", (D, D, K)), Tensor("x2", (D,)), Tensor("v0", (N, D, length))
    o, h = AXES[1:3]
    at = s.symbol * h + q.symbol * c - p.symbol
    domain = (*in_range(b, D), *in_range(c, K), *in_range(at, H))
    terms = (Term(bias[o,]), Term(x[i, b, at] * w[o, b, c], (b, c), domain))
    return program("windows", (x, w, bias, y), Equation("v0", (i, o, h), terms), scalars=(s, p, q))


def embedding() -> Program:
    ids, table, y = Tensor("x0", (N,), "int64"), Tensor("x1", (K, D)), Tensor("v0", (N, D))
    return program("embedding", (ids, table, y), scalar_map("v0", 2, table[ids[i,], j]))


def attention() -> Program:
    """Causal attention: scores, a row maximum, exponentials, their sum, the output."""
    q, key, v = Tensor("x0", (N, D, H)), Tensor("x1", (N, D, H)), Tensor("x2", (N, D, H))
    s, top, x, z, p, y = (Tensor("v0", (N, D, D)), Tensor("v1", (N, D)), Tensor("v2", (N, D, D)), Tensor("v3", (N, D)),
                          Tensor("v4", (N, D, D)), Tensor("v5", (N, D, H)))  # fmt: skip
    causal = (at_least(b, 0), at_least(j, b))
    seen = (at_least(j, k),)
    return program(
        "attention", (q, key, v, s, top, x, z, p, y),
        Equation("v0", (i, j, k), (Term(q[i, j, b] * key[i, k, b] * H**HALF, (b,), in_range(b, H)),)),
        Equation("v1", (i, j), (Term(s[i, j, b], (b,), causal),), "max"),
        Equation("v2", (i, j, k), (Term(sp.exp(s[i, j, k] - top[i, j]), (), seen),)),
        Equation("v3", (i, j), (Term(x[i, j, b], (b,), causal),)),
        Equation("v4", (i, j, k), (Term(x[i, j, k] / z[i, j], (), seen),)),
        Equation("v5", (i, j, k), (Term(p[i, j, b] * v[i, b, k], (b,), causal),)),
    )  # fmt: skip


def gates() -> Program:
    """Two halves of an axis, and a product of them: y[n,h] = z[n,h] z[n,h+H]."""
    z, y = Tensor("x0", (N, 2 * H)), Tensor("v0", (N, H))
    return program("gates", (z, y), scalar_map("v0", 2, z[i, j] * sp.tanh(z[i, j + H])))


def parity() -> Program:
    """Pieces by parity: y[n,2k] = x[n,2k+1], y[n,2k+1] = -x[n,2k]."""
    x, y = Tensor("x0", (N, 2 * D)), Tensor("v0", (N, 2 * D))
    even = Term(x[i, 2 * b + 1], (b,), (*in_range(b, D), equal(j, 2 * b)))
    odd = Term(-x[i, 2 * b], (b,), (*in_range(b, D), equal(j, 2 * b + 1)))
    return program("parity", (x, y), Equation("v0", (i, j), (even, odd)))


def groups() -> Program:
    """Sums over groups of an axis, and their effect: y[n,c] = x[n,c] - Σ_k x[n, g K + k] where c = g K + r."""
    x, m, y = Tensor("x0", (N, D * K)), Tensor("v0", (N, D)), Tensor("v1", (N, D * K))
    term = Term(
        x[i, b * K + c] - m[i, b], (b, c), (*in_range(b, D), *in_range(c, K), equal(j, b * K + c))
    )  # fmt: skip
    return program(
        "groups", (x, m, y),
        Equation("v0", (i, j), (Term(x[i, j * K + b], (b,), in_range(b, K)),)),
        Equation("v1", (i, j), (term,)),
    )  # fmt: skip


def pooling() -> Program:
    """Overlapping windows: y[n,h] = max_r x[n, 2h + r], and where the maximum is."""
    length = sp.floor((H - 3) / 2) + 1
    x, y, at = Tensor("x0", (N, H)), Tensor("v0", (N, length)), Tensor("v1", (N, length), "int64")
    window = (Term(x[i, 2 * j + b], (b,), in_range(b, sp.Integer(3))),)
    return program(
        "pooling", (x, y, at), Equation("v0", (i, j), window, "max"), Equation("v1", (i, j), window, "argmax")
    )


def batchnorm() -> Program:
    x, m, y = Tensor("x0", (N, D, H)), Tensor("v0", (D,)), Tensor("v1", (N, D, H))
    domain = (*in_range(b, N), *in_range(c, H))
    return program(
        "batchnorm", (x, m, y),
        Equation("v0", (i,), (Term(x[b, i, c], (b, c), domain),)),
        scalar_map("v1", 3, x[i, j, k] - m[j,]),
    )  # fmt: skip


def dense() -> Program:
    """Linear, bias and an activation, as one sum of terms and a map."""
    x, w, bias, h, y = (
        Tensor("x0", (N, D)),
        Tensor("x1", (H, D)),
        Tensor("x2", (H,)),
        Tensor("v0", (N, H)),
        Tensor("v1", (N, H)),
    )
    return program(
        "dense", (x, w, bias, h, y),
        Equation("v0", (i, j), (Term(bias[j,]), Term(x[i, b] * w[j, b], (b,), in_range(b, D)))),
        scalar_map("v1", 2, h[i, j] * (1 + sp.erf(h[i, j] * 2**HALF)) / 2),
    )  # fmt: skip


def one_hot() -> Program:
    """p[n,c] - [labels[n] = c], and the loss's pieces."""
    x, labels, y = Tensor("x0", (N, D)), Tensor("x1", (N,), "int64"), Tensor("v0", (N, D))
    hit = Term(sp.S.NegativeOne, (), (equal(labels[i,], j),))
    return program("one_hot", (x, labels, y), Equation("v0", (i, j), (Term(x[i, j]), hit)))


def cell() -> Program:
    """The pullback of two gates and a product: a cotangent in pieces, of which one reads a map beside its place."""
    x, w, c, ct = Tensor("x0", (N, D)), Tensor("x1", (2 * H, D)), Tensor("x2", (N, H)), Tensor("ct_v1", (N, H))
    ct_c, ct_z = Tensor("v0", (N, H)), Tensor("v1", (N, 2 * H))
    ct_x, ct_w, ct_b = Tensor("ct_x0", (N, D)), Tensor("ct_x1", (2 * H, D)), Tensor("ct_x2", (2 * H,))
    first = Term(c[i, j] * ct_c[i, j], (), (at_least(H - 1, j),))
    second = Term(sp.exp(-(c[i, j - H] ** 2)) * ct_c[i, j - H], (), (at_least(j, H),))
    return program(
        "cell", (x, w, c, ct, ct_c, ct_z, ct_x, ct_w, ct_b),
        scalar_map("v0", 2, sp.tanh(ct[i, j]) * c[i, j]),
        Equation("v1", (i, j), (first, second)),
        Equation("ct_x0", (i, j), (Term(ct_z[i, b] * w[b, j], (b,), in_range(b, 2 * H)),)),
        Equation("ct_x1", (i, j), (Term(ct_z[b, i] * x[b, j], (b,), in_range(b, N)),)),
        Equation("ct_x2", (i,), (Term(ct_z[b, i], (b,), in_range(b, N)),)),
    )  # fmt: skip


def pairs() -> Program:
    """Sums over different loops into one place: y[n] = Σ_d x[n,d] w[d] - Σ_dk x[n,d]² t[d,k]² / 2 + Σ_k q[n,k]² / 2."""
    x, w, t, q, y = (Tensor(f"x{k}", s) for k, s in enumerate(((N, D), (D,), (D, H), (N, H), (N,))))
    y = replace(y, name="v0")
    each = (*in_range(b, D), *in_range(c, H))
    terms = (
        Term(x[i, b] * w[(b,)], (b,), in_range(b, D)),
        Term(-(x[i, b] ** 2) * t[b, c] ** 2 / 2, (b, c), each),
        Term(q[i, b] ** 2 / 2, (b,), in_range(b, H)),
    )
    return program("pairs", (x, w, t, q, y), Equation("v0", (i,), terms))


def weighted() -> Program:
    """A mean of rows, and a sum in a triangle, each with factors that its loops do not change."""
    x, a, y, z = Tensor("x0", (N, D)), Tensor("x1", (N,)), Tensor("v0", (N,)), Tensor("v1", (N,))
    triangle = (*in_range(b, D), *in_range(c, b + 1))
    return program(
        "weighted", (x, a, y, z),
        Equation("v0", (i,), (Term(3 * x[i, b] / (a[i,] * D), (b,), in_range(b, D)),)),
        Equation("v1", (i,), (Term(x[i, b] * x[i, c] / a[i,], (b, c), triangle),)),
    )  # fmt: skip


def diagonal() -> Program:
    x, y, z = Tensor("x0", (N, N)), Tensor("v0", (N,)), Tensor("v1", ())
    return program(
        "diagonal", (x, y, z), scalar_map("v0", 1, x[i, i] ** 3),
        Equation("v1", (), (Term(x[b, c] ** 2, (b, c), (*in_range(b, N), *in_range(c, b + 1))),)),
    )  # fmt: skip


FORWARD = (
    layernorm,
    softmax,
    convolution,
    windows,
    embedding,
    attention,
    gates,
    parity,
    groups,
    pooling,
    batchnorm,
    dense,
    pairs,
    one_hot,
    cell,
    weighted,
    diagonal,
)
SMOOTH = tuple(one for one in FORWARD if one not in (one_hot, cell))
SIZES = {"s0": (0, 1, 3, 5, 70), "s1": (1, 2, 4, 7, 9), "s2": (6, 5, 8, 3, 7), "s3": (3, 4, 2, 5, 3)}


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    found = {make.__name__: make() for make in FORWARD}
    found.update({f"{make.__name__}_vjp": vjp(make()) for make in SMOOTH})
    return found


@pytest.fixture(scope="module")
def module(programs: dict[str, Program]) -> Any:
    return built("loops_under_test", programs)


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("key", [*(m.__name__ for m in FORWARD), *(f"{m.__name__}_vjp" for m in SMOOTH)])
def test_a_kernel_computes_its_program(programs: dict[str, Program], module: Any, key: str, case: int) -> None:
    chosen = programs[key]
    sizes = {s.name: SIZES[s.name][case] for s in chosen.sizes}
    check(module, key, chosen, sizes, ids=sizes.get("s3", 1) if key.startswith("embedding") else sizes.get("s1", 1))


@pytest.mark.parametrize(("size", "inner"), [(200, 67), (33, 300)])
def test_tiles_and_partial_sums_agree_beyond_one_block(
    programs: dict[str, Program], module: Any, size: int, inner: int
) -> None:
    for key in ("layernorm_vjp", "dense", "dense_vjp", "embedding_vjp", "batchnorm", "softmax"):
        chosen = programs[key]
        values = {"s0": size, "s1": inner, "s2": 5, "s3": 4}
        check(module, key, chosen, {s.name: values[s.name] for s in chosen.sizes}, ids=4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extrema_of_rows_keep_nans_infinities_and_tiny_values(dtype: Any) -> None:
    x, top, low = Tensor("x0", (N, D)), Tensor("v0", (N,)), Tensor("v1", (N,))
    over = in_range(b, D)
    both = program(
        "extrema", (x, top, low),
        Equation("v0", (i,), (Term(x[i, b], (b,), over),), "max"),
        Equation("v1", (i,), (Term(2 * x[i, b], (b,), over),), "min"),
    )  # fmt: skip
    module = built("extrema_under_test", {"extrema": both})
    tiny = np.finfo(dtype).smallest_subnormal
    rows = np.zeros((8, 67), dtype)
    rows[0] = np.linspace(-3, 5, 67)
    rows[1] = -np.inf
    rows[2, 40] = np.inf
    rows[3, 11] = np.nan
    rows[4, 66] = -np.nan
    rows[5, 3], rows[5, 50] = tiny, -tiny
    rows[6] = -np.linspace(1, 2, 67)
    rows[7, :2] = np.inf, -np.nan
    found = run(module, "extrema", both, {"x0": rows}, {"s0": 8, "s1": 67}, dtype=dtype)
    np.testing.assert_array_equal(found["v0"], rows.max(axis=1))
    np.testing.assert_array_equal(found["v1"], 2 * rows.min(axis=1))
    empty = run(module, "extrema", both, {"x0": np.zeros((2, 0))}, {"s0": 2, "s1": 0}, dtype=dtype)
    assert np.all(empty["v0"] == -np.inf) and np.all(empty["v1"] == np.inf)


def test_an_empty_sum_is_zero_whatever_its_factor(programs: dict[str, Program], module: Any) -> None:
    arrays = {"x0": np.zeros((3, 0)), "x1": np.zeros(3)}
    for dtype in (np.float32, np.float64):
        found = run(module, "weighted", programs["weighted"], arrays, {"s0": 3, "s1": 0}, dtype=dtype)
        assert np.all(found["v0"] == 0) and np.all(found["v1"] == 0)


@pytest.mark.parametrize("sizes", [(300, 5, 140), (513, 3, 70), (3, 9, 300)])
def test_pieces_computed_again_agree_beyond_one_tile(
    programs: dict[str, Program], module: Any, sizes: tuple[int, int, int]
) -> None:
    check(module, "cell", programs["cell"], dict(zip(("s0", "s1", "s2"), sizes, strict=True)))


def test_causal_attention_beyond_one_tile(programs: dict[str, Program], module: Any) -> None:
    for key in ("attention", "attention_vjp"):
        check(module, key, programs[key], {"s0": 2, "s1": 67, "s2": 3})


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_strides_and_padding_of_a_convolution(
    programs: dict[str, Program], module: Any, stride: int, padding: int
) -> None:
    for key in ("convolution", "convolution_vjp"):
        sizes = {"s0": 2, "s1": 3, "s2": 9, "s3": 3}
        chosen = programs[key]
        given = {"c0": stride, "c1": padding}
        arrays = sample(
            replace(chosen, scalars=tuple(replace(s, default=given[s.name]) for s in chosen.scalars)), sizes
        )
        check(module, key, chosen, sizes, scalars=given, arrays=arrays)


@pytest.mark.parametrize("sizes", [(2, 3, 9, 3), (1, 5, 40, 2), (5, 70, 17, 4)])
@pytest.mark.parametrize("given", [(1, 0, 1), (1, 2, 1), (2, 1, 1), (2, 3, 2), (3, 1, 3), (1, 1, 0), (5, 0, 1)])
def test_sums_through_windows(
    programs: dict[str, Program], module: Any, sizes: tuple[int, ...], given: tuple[int, int, int]
) -> None:
    for key in ("windows", "windows_vjp"):
        chosen = programs[key]
        scalars = dict(zip(("c0", "c1", "c2"), given, strict=True))
        named = tuple(replace(s, default=scalars[s.name]) for s in chosen.scalars)
        values = {s.name: dict(zip(("s0", "s1", "s2", "s3"), sizes, strict=True))[s.name] for s in chosen.sizes}
        check(module, key, chosen, values, scalars=scalars, arrays=sample(replace(chosen, scalars=named), values))


def test_an_output_that_is_not_wanted_changes_nothing_else(programs: dict[str, Program], module: Any) -> None:
    chosen = programs["layernorm_vjp"]
    sizes = {"s0": 50, "s1": 9}
    arrays = sample(chosen, sizes)
    whole = run(module, "layernorm_vjp", chosen, arrays, sizes)
    for name in chosen.outputs:
        alone = run(module, "layernorm_vjp", chosen, arrays, sizes, wanted=(name,))
        np.testing.assert_allclose(alone[name], whole[name], rtol=1e-13)
    assert run(module, "layernorm_vjp", chosen, arrays, sizes, wanted=()) == {}


def test_an_unwanted_output_that_others_read_is_computed_aside(module: Any, programs: dict[str, Program]) -> None:
    chosen = programs["softmax"]
    kept = replace(chosen, outputs=("v2", "v3"))
    aside = built("aside_under_test", {"softmax": kept}, ("f64",))
    sizes = {"s0": 5, "s1": 4}
    arrays = sample(kept, sizes)
    whole = run(aside, "softmax", kept, arrays, sizes)
    alone = run(aside, "softmax", kept, arrays, sizes, wanted=("v3",))
    assert np.array_equal(whole["v3"], alone["v3"])


def test_names_of_any_kind_become_c_names() -> None:
    labels = Labels(
        {"x0": "class", "x1": "größe", "x2": "λ", "s0": "int", "s1": "for", "c0": "restrict", "v2": "y\n*/"}
    )
    text = emit_kernel(lower(replace(layernorm(), labels=labels)), "forward", "f32")
    assert "class_" in text and "grosse" not in text and "lambda" in text and "int_" in text and "for_" in text
    assert "*/" not in text
    assert text.isascii() or all(ord(ch) < 128 for line in text.splitlines() for ch in line.split("#")[0])


def test_labels_change_names_only() -> None:
    plain = emit_kernel(lower(layernorm()), "forward", "f64")
    other = emit_kernel(lower(replace(layernorm(), labels=Labels({"x0": "alpha", "v1": "omega"}))), "forward", "f64")
    strip = lambda text: [line.split("#")[0].rstrip() for line in text.splitlines()]  # noqa: E731
    assert [s.replace("alpha", "x0").replace("omega", "v1") for s in strip(other)] == strip(plain)


def test_float32_arithmetic_is_not_widened() -> None:
    text = emit_kernel(lower(dense()), "forward", "f32")
    assert "double" not in text
    assert "<float>" in text and "jc_erf_f32" in text


def spelled(expr: sp.Expr, dtype: Any = "f32") -> str:
    return Spelling(dtype, {N: "N", i: "i"}, lambda a: f"{a.name}[{a.indices[0]}]").real(expr)


def test_scalars_are_spelled_in_their_dtype() -> None:
    x = Tensor("x0", (N,))[i,]
    assert spelled(x**2) == "x0[i0] * x0[i0]"
    assert spelled(x**HALF) == "jc_rsqrt_f32(x0[i0])"
    assert spelled(1 / x, "f64") == "1.0 / x0[i0]"
    assert spelled(x / N) == "x0[i0] / (<float>N)"
    assert spelled(sp.Rational(1, 3) * x) == "<float>0.3333333333333333 * x0[i0]"
    assert spelled(2 * sp.sqrt(2 / sp.pi) * x) == "<float>1.5957691216057308 * x0[i0]"
    assert spelled(1 + 2 * x) == "<float>1.0 + <float>2.0 * x0[i0]" and spelled(1 + 2 * x, "f64") == "1 + 2 * x0[i0]"
    assert spelled(sp.Max(x, 0), "f64") == "jc_max_f64(0, x0[i0])"
    assert spelled(sp.Piecewise((x, x > 0), (-x, True))) == "(x0[i0] if x0[i0] > 0 else -x0[i0])"
    assert spelled(sp.Piecewise((sp.S.One, x > 0), (x, True))) == "(<float>1.0 if x0[i0] > 0 else x0[i0])"


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(StageError, match="no spelling for the function besselj"):
        spelled(sp.besselj(0, Tensor("x0", (N,))[i,]))


def test_a_bound_that_another_always_exceeds_is_not_spelled() -> None:
    spelling = Spelling("f32", {N: "N", D: "D"}, lambda a: "")
    assert spelling.bound((sp.S.Zero, 3 * N), largest=True) == "3 * N"
    assert spelling.bound((4 * N, 3 * N), largest=False) == "3 * N"
    assert spelling.bound((N, D), largest=False) == "jc_min(N, D)"


def test_a_loop_from_zero_and_a_call_name_only_what_they_need() -> None:
    x, total = Tensor("x0", (N, D)), Tensor("v0", (N,))
    rows = program("rows", (x, total), Equation("v0", (i,), (Term(sp.tanh(x[i, b]), (b,), in_range(b, D)),)))
    text = emit_kernel(lower(rows), "forward", "f32")
    assert "range(0, " not in text
    block = text[text.index("cdef struct") : text.index("cdef int forward_f32")]
    assert "Py_ssize_t s1" in block and "Py_ssize_t s0" not in block


def test_a_quotient_of_sizes_is_divided_once_a_call() -> None:
    text = emit_kernel(lower(pooling()), "forward", "f32")
    assert text.count("jc_floordiv(") == 1 and "cdef Py_ssize_t quotient = jc_floordiv(s2 - 3, 2)" in text


def test_a_run_of_zeros_is_one_call() -> None:
    text = emit_kernel(lower(vjp(embedding())), "bwd", "f32")
    calls = re.findall(r"jc_fill_f32\((.*)\)", text)
    assert len(calls) == 1 and calls[0].endswith(", 0") and "_last - " in calls[0]


def test_a_copied_row_is_one_call_and_each_block_ends_in_a_fence() -> None:
    text = emit_kernel(lower(embedding()), "forward", "f32")
    (call,) = re.findall(r"jc_copy_f32\((.*)\)", text)
    target, source, following, count, whole = re.split(r", (?![^(]*\))", call)
    assert "[" in source and target.isidentifier() and count.isidentifier() and " * " in whole
    assert "jc_min(1, " in following, "the row of the next iteration, and of none beyond the last"
    assert text.count("jc_stream_fence()") == 1


def test_results_go_through_a_line_that_is_streamed_where_they_outgrow_the_cache() -> None:
    x, y = Tensor("x0", (N, D)), Tensor("v0", (N, D))
    tangents = program("tangents", (x, y), scalar_map("v0", 2, sp.tanh(x[i, j])))
    text = emit_kernel(lower(tangents), "forward", "f32")
    assert re.search(r"into = jc_beside_f32\(line, v0 \+ first_[^,]*, last_ - first_, s0 \* s1\)", text)
    assert "jc_leave_f32(" in text and text.count("jc_stream_fence()") == 1
    module = built("tangents", {"forward": tangents})
    for rows, columns in ((3, 7), (2048, 1024), (4099, 513), (1030, 1029)):
        check(module, "forward", tangents, {"s0": rows, "s1": columns})


def test_loops_of_arithmetic_go_over_whole_vectors_and_the_parts_at_their_ends() -> None:
    text = emit_kernel(lower(layernorm()), "forward", "f32")
    assert "u0_lanes" not in text and text.count("jc_total_f32(") == 2
    assert "jc_pass_f32(v2 + " in text and "jc_before_f32(v2 + start, s1, s0 * s1)" in text
    module = built("vectors", {"forward": layernorm(), "bwd": vjp(layernorm())})
    for rows, columns in ((0, 5), (3, 0), (1, 1), (2, 15), (5, 64), (3, 131), (1030, 1029), (4100, 517)):
        check(module, "forward", layernorm(), {"s0": rows, "s1": columns})
    for rows, columns in ((0, 5), (3, 0), (2, 15), (33, 131), (1030, 1029)):
        check(module, "bwd", vjp(layernorm()), {"s0": rows, "s1": columns})


def test_exponentials_and_extrema_of_rows_go_over_whole_vectors() -> None:
    text = emit_kernel(lower(softmax()), "forward", "f32")
    row = text[: text.index("cdef struct")]
    assert "jc_looks_ahead_f32(s1, s0 * s1, 1)" in row
    assert "jc_each_exp_f32(" in row and "jc_each_max_f32(" in row and "jc_order_f32" not in row
    (kept,) = re.findall(r"(t\d*) = jc_each_exp_f32\(jc_load_f32", row)
    assert re.search(rf"jc_store_f32\([^;\n]*, {kept}\)", row) and f"_lanes[lane] += {kept}" in row
    module = built("exponentials_in_vectors", {"forward": softmax(), "bwd": vjp(softmax())})
    for rows, columns in ((0, 5), (3, 0), (1, 1), (2, 15), (3, 16), (5, 64), (3, 131), (1030, 1029)):
        check(module, "forward", softmax(), {"s0": rows, "s1": columns})
        check(module, "bwd", vjp(softmax()), {"s0": rows, "s1": columns})


def test_what_a_vector_loop_does_not_change_is_computed_before_it() -> None:
    x, y = Tensor("x0", (N, D)), Tensor("v0", (N, D))
    scaled = program("scaled", (x, y), scalar_map("v0", 2, x[i, j] / D / N))
    text = emit_kernel(lower(scaled), "forward", "f32")
    (before,) = re.findall(r"(?m)^    (t\d*) = .*<float>s", text)
    assert re.search(rf"jc_pass_f32\(.*{before} \* jc_load_f32", text)


def test_a_choice_that_a_vector_loop_does_not_change_is_made_before_it() -> None:
    """y = Σ_n x[n] cases(0 if g = 0; 1/g otherwise): no vector is multiplied by a choice of two numbers."""
    x, g, y = Tensor("x0", (N,)), Tensor("x1", ()), Tensor("v0", ())
    inverse = sp.Piecewise((0, sp.Eq(g[()], 0)), (1 / g[()], True))
    total = Equation("v0", (), (Term(x[(b,)] * inverse, (b,), in_range(b, N)),))
    chosen = program("chosen", (x, g, y), total)
    module = built("chosen", {"forward": chosen})
    for size in (5, 70, 0):
        check(module, "forward", chosen, {"s0": size})


def test_the_last_loop_over_a_row_asks_for_the_next_row() -> None:
    text = emit_kernel(lower(layernorm()), "forward", "f32")
    row = text[: text.index("cdef struct")]
    assert row.count("= jc_looks_ahead_f32(s1, s0 * s1, 0)") == 1
    (asked,) = re.findall(r"jc_ahead_f32\((.*), looks\)", row)
    assert asked.startswith("x0 + ") and asked.endswith(" + s1")
    assert row.index("jc_ahead_f32") < row.index("jc_pass_f32") and row.index("jc_looks") > row.rindex("jc_total")


def test_a_long_run_of_which_one_place_is_added_to_is_stored_past_the_cache() -> None:
    x, labels, y = Tensor("x0", (N, D)), Tensor("x1", (N,), "int64"), Tensor("v0", (N, D))
    hit = Term(sp.S.NegativeOne, (), (equal(labels[i,], j),))
    one = program("mended", (x, labels, y), Equation("v0", (i, j), (Term(2 * x[i, j]), hit)))
    text = emit_kernel(lower(one), "forward", "f32")
    assert "jc_if_long_f32(s1, s0 * s1)" in text and text.count("jc_stream_fence()") == 1
    module = built("mended", {"forward": one})
    for rows, columns in ((0, 3), (2, 1), (5, 70), (1100, 1001), (260, 4099)):
        check(module, "forward", one, {"s0": rows, "s1": columns}, ids=columns)


def test_pairs_of_neighbours_are_read_and_written_a_vector_of_each_at_once() -> None:
    x, y = Tensor("x0", (N, D, 2 * H)), Tensor("v0", (N, D, 2 * H))
    even, odd = x[i, j, 2 * b], x[i, j, 2 * b + 1]
    at = (*in_range(b, H), equal(AXES[2], 2 * b)), (*in_range(b, H), equal(AXES[2], 2 * b + 1))
    turned = Equation("v0", AXES[:3], (Term(3 * even - odd, (b,), at[0]), Term(even + 5 * odd, (b,), at[1])))
    turn = program("turn", (x, y), turned)
    text = emit_kernel(lower(turn), "forward", "f32")
    assert "jc_load_odds_f32(x0 + 2 * " in text and "jc_pass_pairs_f32(v0 + 2 * " in text
    module = built("pairs", {"forward": turn})
    for sizes in ((0, 2, 3), (2, 3, 0), (1, 1, 1), (3, 5, 7), (2, 3, 16), (1, 7, 33), (4, 5000, 33)):
        check(module, "forward", turn, dict(zip(("s0", "s1", "s2"), sizes, strict=True)))


def test_what_several_results_are_made_of_is_a_vector_of_one_step() -> None:
    x, r, total, mean, y = (Tensor(name, (N, D)) for name in ("x0", "x1", "v0", "v1", "v2"))
    mean = replace(mean, shape=(N,))
    centred = program(
        "centred", (x, r, total, mean, y),
        scalar_map("v0", 2, x[i, j] + r[i, j]),
        Equation("v1", (i,), (Term(total[i, b] / D, (b,), in_range(b, D)),)),
        scalar_map("v2", 2, total[i, j] * (total[i, j] - mean[i,])),
    )  # fmt: skip
    both = vjp(centred)
    text = emit_kernel(lower(both), "bwd", "f32")
    (name,) = set(re.findall(r"jc_pass_f32\(ct_x[01] \+ \w+, (\w+), streams2?\)", text))
    assert re.search(rf"cdef lanes_f32 .*\b{name}\b", text) and not re.search(rf"cdef float .*\b{name}\b", text)
    module = built("shared", {"bwd": both})
    for rows, columns in ((0, 5), (3, 0), (1, 1), (5, 64), (3, 131), (1030, 1029)):
        check(module, "bwd", both, {"s0": rows, "s1": columns})


def test_each_row_function_asks_what_is_wanted_or_is_spared_it() -> None:
    text = emit_kernel(lower(vjp(layernorm())), "bwd", "f32")
    whole, some = re.findall(r"(?ms)^cdef inline void bwd_nest\d_row(?:_some)?_f32\([^)]*ct_x0.*?^\n", text)
    assert "want" not in whole and "if want_ct_x0" in some


def test_what_a_nest_reads_again_is_no_line() -> None:
    x, y, total = Tensor("x0", (N, D)), Tensor("v0", (N, D)), Tensor("v1", (N,))
    text = emit_kernel(
        lower(
            program(
                "summed", (x, y, total),
                scalar_map("v0", 2, sp.exp(x[i, j])),
                Equation("v1", (i,), (Term(y[i, b], (b,), in_range(b, D)),)),
                outputs=("v0", "v1"),
            )
        ), "forward", "f32",
    )  # fmt: skip
    assert "jc_line" not in text


def test_a_row_that_is_turned_around_or_read_through_data_is_no_copy() -> None:
    x, order, y = Tensor("x0", (N, D)), Tensor("x1", (D,), "int64"), Tensor("v0", (N, D))
    for body in (x[i, D - 1 - j], x[i, order[j,]], -x[i, j]):
        text = emit_kernel(lower(program("turned", (x, order, y), scalar_map("v0", 2, body))), "forward", "f32")
        assert "jc_copy" not in text


def test_no_block_is_left_without_iterations() -> None:
    """74 iterations in blocks of 2 are 37 blocks: with 64, half of the threads would have nearly nothing to do."""
    text = emit_kernel(lower(layernorm()), "forward", "f32")
    span = text.index("span = jc_ceildiv(total, jc_max(1, blocks))")
    assert text.index("blocks = jc_ceildiv(total, span)") > span
