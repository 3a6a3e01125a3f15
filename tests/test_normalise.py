"""Normal form: what equations mean, written out in loops, and one program whatever a layer's names are."""

from __future__ import annotations

import keyword
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy as sp
from sympy import And, Eq, KroneckerDelta, Max, Min, Mod, Piecewise, Product, Sum, exp, oo, sin, tanh

import jaccomp.notation as jc
from jaccomp import check, layers
from jaccomp import compile as compile_layer
from jaccomp.layer import Layer
from jaccomp.lowering import lower
from jaccomp.normalise import normalise
from jaccomp.pipeline import derive, halves, prepare
from jaccomp.program import Program, verify
from jaccomp.reference.interpreter import evaluate
from jaccomp.spec import Spec, make_spec

N, D, K = jc.size("N D K")
n, i, j, k, t, q = (jc.index(name, stop) for name, stop in zip("nijktq", (N, D, D, D, N, N), strict=True))
m, below = jc.index("m", t + 1), jc.index("below", k + 1)
around, wide = jc.index("around", -2, 3), jc.index("wide", 2 * D)
w = jc.scalar("w", default=2, dtype="int64")
window = jc.index("window", Max(0, t - w), t + 1)
ahead = jc.index("ahead", t, Min(N, t + w))
few = jc.index("few", N - 3)
x, y, g, r, loss = jc.tensor("x", N, D), jc.tensor("y", N, D), jc.tensor("g", D), jc.tensor("r", N), jc.tensor("loss")
square, table, twice = jc.tensor("square", D, D), jc.tensor("table", K, D), jc.tensor("twice", N, 2 * D)
weights, top = jc.tensor("weights", N, N), jc.tensor("top", N, dtype="int64")
ids = jc.tensor("ids", N, dtype="int64")
pairs, chosen = jc.tensor("pairs", N, K, dtype="int64"), jc.tensor("chosen", N, K, D)
o, c = jc.index("o", (D - 1) // w + 1), jc.index("c", K)
strided = jc.tensor("strided", N, (D - 1) // w + 1)

SIZES = {"N": 4, "D": 5, "K": 3}
ARRAYS = {
    "x": np.random.default_rng(0).standard_normal((4, 5)),
    "g": np.random.default_rng(1).standard_normal(5),
    "square": np.random.default_rng(2).standard_normal((5, 5)),
    "table": np.random.default_rng(3).standard_normal((3, 5)),
    "ids": np.array([2, 0, 1, 2]),
    "pairs": np.array([[0, 2, 1], [1, 1, 0], [2, 2, 2], [0, 1, 2]]),
}
X, G, SQUARE, TABLE, IDS, PAIRS = ARRAYS.values()


def layer(*equations: Any, out: Any = y, scalars: Any = (), name: str = "meant") -> Layer:
    """A layer whose inputs are the known tensors that it reads."""
    targets = {e.lhs.base if isinstance(e.lhs, jc.Access) else e.lhs for e in equations}
    read = [one for e in equations for one in e.rhs.atoms(jc.Tensor) if one not in targets]
    inputs = [one for one in (x, g, square, table, ids, pairs) if one in read]
    outputs = out if isinstance(out, list) else [out]
    return Layer(name, inputs=inputs, outputs=outputs, equations=list(equations), scalars=list(scalars))


def value(one: Layer, sizes: dict[str, int] | None = None) -> list[np.ndarray]:
    """The outputs of the verified normal form."""
    program = verify(one.program)
    names = program.labels.name
    numbers = {s.name: (sizes or SIZES)[names(s.name)] for s in program.sizes}
    arrays = {name: ARRAYS[names(name)] for name in program.inputs}
    values = evaluate(program, arrays, numbers)
    return [values[name] for name in program.outputs]


def grid(f: Callable[..., float], *shape: int) -> np.ndarray:
    """`f` at every position of a shape."""
    return np.array([f(*at) for at in np.ndindex(*shape)]).reshape(shape)


def at(array: np.ndarray, *where: int, outside: float = 0.0) -> float:
    inside = all(0 <= one < extent for one, extent in zip(where, array.shape, strict=True))
    return float(array[where]) if inside else outside


MEANINGS: dict[str, tuple[Callable[[], Layer], Callable[[], Any]]] = {
    "a bound index of a free one's name": (
        lambda: layer(Eq(y[n, i], exp(x[n, i]) / Sum(exp(x[n, i]), i))),
        lambda: np.exp(X) / np.exp(X).sum(1, keepdims=True),
    ),
    "a bound index of a bound one's name": (
        lambda: layer(Eq(r[n], Sum(x[n, k] * Sum(x[n, k] ** 2, k), k)), out=r),
        lambda: X.sum(1) * (X**2).sum(1),
    ),
    "a sum of a sum over the same index": (
        lambda: layer(Eq(r[n], Sum(Sum(x[n, k] ** 2, k), k)), out=r), lambda: 5 * (X**2).sum(1),
    ),
    "explicit limits": (
        lambda: layer(Eq(y[t, i], sin(Sum(x[n, i], (n, 0, t))))), lambda: np.sin(np.cumsum(X, 0)),
    ),
    "explicit limits that are empty at first": (
        lambda: layer(Eq(y[n, i], Sum(x[n, k], (k, 0, i - 1)))),
        lambda: np.hstack([np.zeros((4, 1)), np.cumsum(X, 1)[:, :-1]]),
    ),
    "an empty range": (lambda: layer(Eq(y[n, i], x[n, i] + Sum(x[n, k], (k, 2, 1)))), lambda: X),
    "a range that another index bounds, listed inside": (
        lambda: layer(Eq(r[n], Sum(x[n, k] * x[n, below], below, k)), out=r),
        lambda: grid(lambda a: sum(X[a, b] * X[a, c] for b in range(5) for c in range(b + 1)), 4),
    ),
    "a range that another index bounds, listed outside": (
        lambda: layer(Eq(r[n], Sum(x[n, k] * x[n, below], k, below)), out=r),
        lambda: grid(lambda a: sum(X[a, b] * X[a, c] for b in range(5) for c in range(b + 1)), 4),
    ),
    "a range below zero": (
        lambda: layer(Eq(r[n], Sum(Sum(x[n, k] * around, k) ** 2 * (around + 3), around)), out=r),
        lambda: grid(lambda a: sum((X[a].sum() * b) ** 2 * (b + 3) for b in range(-2, 3)), 4),
    ),
    "a comparison beyond an index's own range": (
        lambda: layer(Eq(y[n, i], Sum(Piecewise((x[n, i], k >= 0), (1, True)), (k, -w, w - 1))), scalars=[w]),
        lambda: 2 * X + 2,
    ),
    "a window": (
        lambda: layer(Eq(y[t, i], Sum(x[window, i], window)), scalars=[w]),
        lambda: grid(lambda a, b: X[max(0, a - 2) : a + 1, b].sum(), 4, 5),
    ),
    "a window ahead": (
        lambda: layer(Eq(y[t, i], jc.MaxOver(x[ahead, i], ahead)), scalars=[w]),
        lambda: grid(lambda a, b: X[a : min(4, a + 2), b].max(), 4, 5),
    ),
    "floats": (
        lambda: layer(Eq(y[n, i], (x[n, i] ** 2.0 + 0.1) ** 0.5 + 0.2 * n)),
        lambda: np.sqrt(X**2 + 0.1) + 0.2 * np.arange(4)[:, None],
    ),
    "integer scalars in accesses, ranges and values": (
        lambda: layer(Eq(y[n, i], jc.pad(x[n, i - w]) * w + Sum(jc.pad(x[n, i + k]), (k, 0, w))), scalars=[w]),
        lambda: grid(lambda a, b: 2 * at(X, a, b - 2) + sum(at(X, a, b + c) for c in range(3)), 4, 5),
    ),
    "a remainder of an index": (lambda: layer(Eq(y[n, i], x[n, Mod(i + 1, D)])), lambda: np.roll(X, -1, 1)),
    "a remainder with a scalar": (
        lambda: layer(Eq(y[n, i], x[n, Mod(i - w, D)]), scalars=[w]), lambda: np.roll(X, 2, 1),
    ),
    "a divided index": (
        lambda: layer(Eq(twice[n, wide], x[n, wide // 2] * (Mod(wide, 2) + 1)), out=twice),
        lambda: np.repeat(X, 2, 1) * np.tile([1, 2], 5),
    ),
    "a negative stride": (lambda: layer(Eq(y[n, i], x[n, D - 1 - i])), lambda: X[:, ::-1]),
    "a diagonal": (
        lambda: layer(Eq(g[i], square[i, i] * sin(square[0, i])), out=g), lambda: np.diag(SQUARE) * np.sin(SQUARE[0]),
    ),
    "a diagonal written": (
        lambda: layer(Eq(jc.tensor("out2", D, D)[i, j], g[i] * KroneckerDelta(i, j)), out=jc.tensor("out2", D, D)),
        lambda: np.diag(G),
    ),
    "a transpose": (
        lambda: layer(Eq(jc.tensor("out2", D, D)[i, j], square[j, i]), out=jc.tensor("out2", D, D)), lambda: SQUARE.T,
    ),
    "a constant, and sizes and indices as numbers": (
        lambda: layer(Eq(y[n, i], x[n, i] * sp.sqrt(D) / (N + 1) + 10 ** (-2 * i / D)), Eq(r[n], 1), out=[y, r]),
        lambda: [X * math.sqrt(5) / 5 + 10 ** (-2 * np.arange(5) / 5), np.ones(4)],
    ),
    "deltas in a product, a power and an exponential": (
        lambda: layer(
            Eq(y[n, i], KroneckerDelta(n, i) ** 2 * x[n, i] + (x[n, i] - KroneckerDelta(n, i)) ** 2
               + exp(KroneckerDelta(n, i) * x[n, i]) / (1 + KroneckerDelta(i, D - 1)))
        ),
        lambda: grid(
            lambda a, b: (a == b) * X[a, b] + (X[a, b] - (a == b)) ** 2
            + math.exp((a == b) * X[a, b]) / (1 + (b == 4)), 4, 5,
        ),
    ),
    "deltas of data, and of sizes": (
        lambda: layer(Eq(r[n], Sum((x[n, k] - KroneckerDelta(ids[n], k)) ** 2, k) + KroneckerDelta(N, D)), out=r),
        lambda: ((X - (IDS[:, None] == np.arange(5))) ** 2).sum(1),
    ),
    "a scatter": (
        lambda: layer(Eq(y[n, i], Sum(KroneckerDelta(ids[q], n) * x[q, i], q))),
        lambda: np.array([X[a == IDS].sum(0) for a in range(4)]),
    ),
    "a guard before what lies outside": (
        lambda: layer(
            Eq(y[n, i], Piecewise((x[n, i - 1], i > 0), (x[n, i + 1], And(i < D - 1, x[n, i] > 0)), (7, True)))
        ),
        lambda: grid(lambda a, b: X[a, b - 1] if b else X[a, 1] if X[a, 0] > 0 else 7, 4, 5),
    ),
    "a guard inside a sum": (
        lambda: layer(Eq(y[n, i], Sum(Piecewise((exp(x[n, i + k]), i + k < D), (0, True)), k))),
        lambda: grid(lambda a, b: np.exp(X[a, b:]).sum(), 4, 5),
    ),
    "nested reductions": (
        lambda: layer(Eq(r[n], jc.MaxOver(Sum(x[n, i] * x[n, k], k), i) + Product(1 + x[n, k] ** 2, k)), out=r),
        lambda: (X * X.sum(1, keepdims=True)).max(1) + (1 + X**2).prod(1),
    ),
    "a product over two indices": (
        lambda: layer(Eq(r[n], Product(1 + x[n, k] * g[i], k, i)), out=r),
        lambda: np.array([(1 + np.outer(row, G)).prod() for row in X]),
    ),
    "an argument of an extremum as an index": (
        lambda: layer(
            Eq(top[n], jc.ArgMaxOver(x[n, k] - x[n, 0], k)),
            Eq(r[n], x[n, top[n]] + x[n, jc.ArgMinOver(x[n, k], k)]),
            out=r,
        ),
        lambda: X.max(1) + X.min(1),
    ),
    "ids of rank 2": (
        lambda: layer(Eq(chosen[n, c, i], table[pairs[n, c], i] * g[i]), out=chosen), lambda: TABLE[PAIRS] * G,
    ),
    "several outputs that read each other": (
        lambda: layer(
            Eq(y[n, i], x[n, i] * r[n]), Eq(r[n], sin(Sum(x[n, k], k))), Eq(loss, Sum(y[n, i], n, i)), out=[loss, y, r]
        ),
        lambda: [
            (X * np.sin(X.sum(1, keepdims=True))).sum(), X * np.sin(X.sum(1, keepdims=True)), np.sin(X.sum(1)),
        ],
    ),
    "a strided pad by a number": (
        lambda: layer(Eq(strided[n, o], Sum(jc.pad(x[n, w * o + k - 1], value=2) * g[k], k)), out=strided, scalars=[w]),
        lambda: grid(lambda a, b: sum(at(X, a, 2 * b + c - 1, outside=2) * G[c] for c in range(5)), 4, 3),
    ),
    "pads inside functions": (
        lambda: layer(Eq(y[n, i], exp(jc.pad(x[n, i - 1])) + jc.pad(x[n, i + 1], value=-1e30) / 2)),
        lambda: grid(lambda a, b: math.exp(at(X, a, b - 1)) + at(X, a, b + 1, outside=-1e30) / 2, 4, 5),
    ),
    "a pad that nothing is lost beside": (
        lambda: layer(Eq(y[n, i], jc.pad(x[n, i - 1], value=-1e30))),
        lambda: grid(lambda a, b: at(X, a, b - 1, outside=-1e30), 4, 5),
    ),
    "pads of divided indices": (
        lambda: layer(Eq(y[n, i], jc.pad(x[n, Mod(i, 3) - 1]) + jc.pad(x[n, i // 2 - 1], value=3))),
        lambda: grid(lambda a, b: at(X, a, b % 3 - 1) + at(X, a, b // 2 - 1, outside=3), 4, 5),
    ),
    "a maximum of padded reads": (
        lambda: layer(Eq(y[n, i], jc.MaxOver(jc.pad(x[n, i + around], value=-oo), around))),
        lambda: grid(lambda a, b: max(at(X, a, b + c, outside=-math.inf) for c in range(-2, 3)), 4, 5),
    ),
    "a padded intermediate read where it is 0": (
        lambda: layer(Eq(weights[n, t], jc.pad(x[n, t - 1])), Eq(r[n], Sum(exp(weights[n, t]), t)), out=r),
        lambda: grid(lambda a: sum(math.exp(at(X, a, b - 1)) for b in range(4)), 4),
    ),
    "pieces, one of them a maximum": (
        lambda: layer(Eq(twice[n, i], x[n, i]), Eq(twice[n, D + i], jc.MaxOver(x[n, k] * x[n, i], k)), out=twice),
        lambda: np.hstack([X, (X[:, :, None] * X[:, None, :]).max(1)]),
    ),
    "a triangle, 0 elsewhere": (
        lambda: layer(Eq(weights[t, m], jc.MaxOver(x[t, k] - 9 + x[m, k], k)), out=weights),
        lambda: grid(lambda a, b: (X[a] + X[b] - 9).max() if b <= a else 0, 4, 4),
    ),
    "a triangle read over itself": (
        lambda: layer(Eq(weights[t, m], x[t, 0] * x[m, 1]), Eq(y[t, i], Sum(tanh(weights[t, m]) * x[m, i], m))),
        lambda: np.tril(np.tanh(np.outer(X[:, 0], X[:, 1]))) @ X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MEANINGS)
def test_equations_mean_what_loops_over_them_compute(case: str) -> None:
    write, expected = MEANINGS[case]
    wanted = expected()
    for got, one in zip(value(write()), wanted if isinstance(wanted, list) else [wanted], strict=True):
        assert got.shape == np.shape(one)
        assert np.allclose(got, one, rtol=1e-13, atol=1e-15)


HARD = (
    "a range below zero", "a window", "a remainder with a scalar", "a divided index", "pads of divided indices",
    "a guard before what lies outside", "a guard inside a sum", "a strided pad by a number",
    "deltas in a product, a power and an exponential", "deltas of data, and of sizes", "pieces, one of them a maximum",
    "an argument of an extremum as an index", "a triangle read over itself",
    "a range that another index bounds, listed outside", "integer scalars in accesses, ranges and values",
)  # fmt: skip


@pytest.mark.parametrize("case", HARD)
def test_derivatives_of_hard_equations_climb_the_ladder(case: str) -> None:
    report = check(MEANINGS[case][0](), backend="numpy")
    assert report, [row for row in report.rows if not row.passed][:3]


def test_ranges_of_negative_length_are_empty() -> None:
    few_sums = layer(Eq(r[n], 1 + Sum(exp(x[n, 0] * few), few)), out=r)
    assert np.array_equal(value(few_sums, {**SIZES, "N": 4})[0], np.full(4, 2.0))
    program = few_sums.program
    assert np.array_equal(evaluate(program, {"x0": X[:1]}, {"s0": 1, "s1": 5})["v0"], [1.0])


def test_any_number_of_leading_axes_is_one_axis_to_the_program() -> None:
    many = jc.size("many", axes="any")
    index, given, out = jc.index("a", many), jc.tensor("given", many, D), jc.tensor("out2", many, D)
    program = Layer("many", inputs=[given], outputs=[out], equations=[Eq(out[index, i], given[index, i] * 2)]).program
    assert program.any_axes == ("s0",)
    assert [t.rank for t in program.tensors] == [2, 2]


def test_one_nested_expression_is_worth_its_named_steps() -> None:
    mean, var, rstd = jc.tensor("mean", N), jc.tensor("var", N), jc.tensor("rstd", N)
    eps = jc.scalar("eps", default=1e-5)
    total = Sum(x[n, k], k) / D
    spread = Sum((x[n, k] - Sum(x[n, j], j) / D) ** 2, k) / D
    nested = layer(Eq(y[n, i], (x[n, i] - total) / sp.sqrt(spread + eps)), scalars=[eps])
    steps = layer(
        Eq(mean[n], total),
        Eq(var[n], Sum((x[n, k] - mean[n]) ** 2, k) / D),
        Eq(rstd[n], 1 / sp.sqrt(var[n] + eps)),
        Eq(y[n, i], (x[n, i] - mean[n]) * rstd[n]),
        scalars=[eps],
    )
    assert np.allclose(value(nested)[0], value(steps)[0], rtol=1e-13)
    sums = [e for e in nested.program.equations if e.terms[0].bound]
    assert len(sums) == 2, "the two equal sums are one equation"
    assert check(nested, against=steps, backend="numpy")


# One program, whatever it is called


def renamed(spec: Spec, rng: random.Random) -> Spec:
    """The layer with every size, index, scalar and tensor called something else, all rebuilt from scratch."""
    letters = "abcdefghijklmnopqrsuvwxyzABCDEFGHIKLMOPRTUVWXYZ"
    names: dict[tuple[str, str], str] = {}

    def name(kind: str, old: str) -> str:
        while (kind, old) not in names:
            new = "".join(rng.choice(letters) for _ in range(rng.choice((1, 2, 5))))
            if new not in names.values() and new not in jc.RESERVED and not keyword.iskeyword(new):
                names[kind, old] = new
        return names[kind, old]

    def go(e: Any) -> Any:
        if isinstance(e, jc.Size):
            return jc.Size(name("size", e.name), e.axes, e.typical)
        if isinstance(e, jc.Scalar):
            return jc.Scalar(name("scalar", e.name), e.default, e.dtype)
        if isinstance(e, jc.Index):
            return jc.index(name("index", e.name), go(e.start), go(e.stop))
        if isinstance(e, jc.Tensor):
            return jc.tensor(name("tensor", e.name), *map(go, e.shape), dtype=e.dtype)
        return e.func(*map(go, e.args)) if e.args else e

    equations = [sp.Eq(go(e.left), go(e.right), evaluate=False) for e in reversed(spec.equations)][::-1]
    inputs, outputs, scalars = ([go(one) for one in group] for group in (spec.inputs, spec.outputs, spec.scalars))
    return make_spec(name("layer", spec.name), inputs, outputs, equations, scalars)


def canonical_part(program: Program) -> tuple[Any, ...]:
    """All of a program but what it prints."""
    return (
        program.sizes, program.scalars, program.inputs, program.outputs, program.tensors, program.equations,
        program.typical, program.any_axes,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*layers.names(), *MEANINGS])
def test_the_program_is_the_same_up_to_names(name: str) -> None:
    spec = MEANINGS[name][0]().spec if name in MEANINGS else layers.get(name).spec
    expected = canonical_part(normalise(spec))
    for seed in range(2):
        assert canonical_part(normalise(renamed(spec, random.Random(f"{name} {seed}")))) == expected


@pytest.mark.parametrize(
    "name",
    (
        "layernorm",
        "cross_entropy",
        "causal_attention",
        "conv2d",
        "lstm_cell",
        "rope",
        "maxpool2d",
        "embedding",
        "linear",
    ),
)
def test_the_kernels_are_the_same_up_to_names(name: str) -> None:
    def kernels(spec: Spec) -> list[str]:
        both = halves(derive(prepare(spec)))
        return [str(lower(replace(p, name=""))) for p in (both.forward, both.fwd, both.bwd)]

    spec = layers.get(name).spec
    assert kernels(renamed(spec, random.Random(name))) == kernels(spec)


past = jc.index("past", t + 1)
score = jc.tensor("score", N, N)


@pytest.mark.parametrize(
    "written",
    [
        Sum(Piecewise((score[t, q], q <= t), (0, True)) * x[q, i], q),
        Sum(Piecewise((score[t, q] * x[q, i], q < t + 1), (0, True)), q),
        Sum(x[q, i] * Piecewise((0, q > t), (score[t, q], True)), q),
        Sum(Piecewise((0, (q > t) | (q > t + w)), (score[t, q] * x[q, i], True)), q),
        Sum(Piecewise((Piecewise((score[t, q] * x[q, i], q <= t), (0, True)), q < t + 2), (0, True)), q),
    ],
)
def test_what_a_condition_leaves_of_a_sum_is_its_range(written: sp.Expr) -> None:
    def terms(right: sp.Expr, *more: Any) -> Any:
        spec = make_spec("causal", [score, x], [y], [Eq(y[t, i], right)], scalars=more)
        (term,) = normalise(spec).equations[0].terms
        return term.body, term.bound

    scalars = [w] if written.has(w) else []
    plain = Sum(score[t, past] * x[past, i], past)
    assert terms(written, *scalars) == terms(plain)
    spec = make_spec("causal", [score, x], [y], [Eq(y[t, i], written)], scalars=scalars)
    rng = np.random.default_rng(0)
    given = {"x0": rng.standard_normal((4, 4)), "x1": rng.standard_normal((4, 3))}
    found = evaluate(normalise(spec), given, {"s0": 4, "s1": 3})["v0"]
    np.testing.assert_allclose(found, np.tril(given["x0"]) @ given["x1"], rtol=1e-13)


def test_what_a_delta_excludes_is_never_counted() -> None:
    """Σ_k (1 - δ(i,k)) exp(x[k]): not the whole sum less exp(x[i]), which may be all of it."""
    others = Eq(y[t, i], sp.log(Sum((1 - KroneckerDelta(i, k)) * exp(x[t, k]), k)))
    given = np.array([[700.0, 1.0, 2.0], [1e3, 2e3, 3e3]])
    layer = Layer("others", inputs=[x], outputs=[y], equations=[others])
    found, pullback = compile_layer(layer, backend="numpy").vjp(given)
    wanted = [[np.logaddexp.reduce(np.delete(row, j)) for j in range(3)] for row in given]
    np.testing.assert_allclose(found, wanted, rtol=1e-13)
    (ct,) = pullback(np.eye(3)[:2])
    np.testing.assert_allclose(ct[0], [0.0, np.exp(1 - wanted[0][0]), np.exp(2 - wanted[0][0])], rtol=1e-12)


def test_what_a_delta_of_data_excludes_is_never_counted() -> None:
    margin = Sum((1 - KroneckerDelta(ids[n], k)) * Max(0, 1 + x[n, k] - x[n, ids[n]]), k)
    spec = make_spec("hinge", [x, ids], [r], [Eq(r[n], margin)])
    given = {"x0": np.array([[1e20, 0.0, 1e20]]), "x1": np.array([2])}
    assert evaluate(normalise(spec), given, {"s0": 1, "s1": 3})["v0"].tolist() == [0.0]


def test_components_may_be_written_one_by_one() -> None:
    point, turned = jc.tensor("point", N, 3), jc.tensor("turned", N, 3)
    a, b, c = (point[n, axis] for axis in range(3))
    spec = make_spec("turn", [point], [turned], [Eq(turned[n, j], e) for j, e in enumerate((b * c, a - c, a**2))])
    found = evaluate(normalise(spec), {"x0": np.array([[2.0, 3.0, 5.0]])}, {"s0": 1})["v0"]
    assert found.tolist() == [[15.0, -3.0, 4.0]]


@pytest.mark.parametrize(
    "written",
    [
        Sum(Piecewise((x[t, k], x[t, k] > 0), (0, True)), k),
        Sum(Piecewise((x[t, k], k <= i), (1, True)), k),
        Sum(Piecewise((x[t, k], (k < i) | (k > i)), (0, True)), k),
        Sum(Piecewise((x[t, k], i > 2), (0, True)), k),
    ],
)
def test_other_conditions_stay_in_the_body(written: sp.Expr) -> None:
    spec = make_spec("kept", [x], [y], [Eq(y[t, i], written)])
    assert any(t.body.has(Piecewise) for e in normalise(spec).equations for t in e.terms)


def test_the_order_of_construction_leaves_no_trace() -> None:
    def build(first: bool) -> Program:
        parts = [lambda: x[n, i] * Sum(exp(x[n, k]), k), lambda: g[i] ** 2, lambda: Sum(x[n, k] * g[k], k) * 3]
        made: dict[int, Any] = {}
        for position in range(3) if first else reversed(range(3)):
            made[position] = parts[position]()
        body = made[0] + made[1] + made[2] if first else made[2] + (made[1] + made[0])
        return normalise(make_spec("built", [x, g], [y], [Eq(y[n, i], body)]))

    assert canonical_part(build(True)) == canonical_part(build(False))
