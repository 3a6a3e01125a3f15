"""What the tests of the module frame share: layers with every kind of argument, as modules and as NumPy kernels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from sympy import Eq, KroneckerDelta, Sum, sqrt

from jaccomp.build import compile_module, load_module
from jaccomp.calculus.vjp import jvp, vjp
from jaccomp.emit.bundle import Bundle, Formula
from jaccomp.emit.loops import emit_kernel
from jaccomp.emit.module import emit_module
from jaccomp.layer import Layer
from jaccomp.lowering import lower
from jaccomp.notation import ArgMaxOver, MaxOver, index, scalar, size, tensor
from jaccomp.numpy_kernel import NumpyKernel
from jaccomp.program import AXES, Equation, Labels, Program, Tensor, Term, replace
from jaccomp.reference.interpreter import evaluate

N, D, H, K, V = size("N D H K V")
A = size("A", axes="any")
n, d, h, k, v, a = index("n", N), index("d", D), index("h", H), index("k", K), index("v", V), index("a", A)
eps = scalar("eps", default=1e-6)
stride, padding = scalar("stride", default=1, dtype="int64"), scalar("padding", default=0, dtype="int64")
shift = scalar("shift", dtype="int64")


def _rmsnorm() -> Layer:
    x, y, g, ms = tensor("x", N, D), tensor("y", N, D), tensor("g", D), tensor("ms", N)
    body = [Eq(ms[n], Sum(x[n, d] ** 2, d) / D), Eq(y[n, d], x[n, d] * g[d] / sqrt(ms[n] + eps))]
    return Layer(
        "rmsnorm", inputs=[x, g], scalars=[eps], outputs=[y], equations=body, doc='Root-mean-square \\ "norm".'
    )


def _scaled() -> Layer:
    """Any number of leading axes, and a factor of rank 0."""
    x, y, factor, total = tensor("x", A, D), tensor("y", A, D), tensor("factor"), tensor("total", A)
    body = [Eq(y[a, d], factor * x[a, d]), Eq(total[a], Sum(x[a, d], d))]
    return Layer("scaled", inputs=[x, factor], outputs=[y, total], equations=body)


def _glu() -> Layer:
    """An extent to be solved."""
    x, y = tensor("x", N, 2 * H + 1), tensor("y", N, H)
    return Layer("halves", inputs=[x], outputs=[y], equations=[Eq(y[n, h], x[n, h] * x[n, h + H] + x[n, 2 * H])])


def _loss() -> Layer:
    """A result of rank 0 whose cotangent says nothing of any shape."""
    x, loss = tensor("x", N), tensor("loss")
    return Layer("total", inputs=[x], outputs=[loss], equations=[Eq(loss, Sum(3 * x[n], n))])


def _repeat() -> Layer:
    """A size that no input determines, and a scalar without a default."""
    x, y, c = tensor("x"), tensor("y", K), scalar("c")
    return Layer("repeat", inputs=[x], scalars=[c], outputs=[y], equations=[Eq(y[k], c * x)])


def _window() -> Layer:
    """Accesses that only a call can check."""
    x, w = tensor("x", H), tensor("w", K)
    OH = (H - K) // stride + 1
    o, y = index("o", OH), tensor("y", OH)
    r = index("r", K)
    body = [Eq(y[o], Sum(w[r] * x[stride * o + r + shift], r))]
    return Layer("window", inputs=[x, w], scalars=[stride, shift], outputs=[y], equations=body)


def _embedding() -> Layer:
    table, ids, y = tensor("table", V, D), tensor("ids", N, K, dtype="int64"), tensor("y", N, K, D)
    return Layer("embedding", inputs=[ids, table], outputs=[y], equations=[Eq(y[n, k, d], table[ids[n, k], d])])


def _onehot() -> Layer:
    labels, x, y = tensor("labels", N, dtype="int64"), tensor("x", N, D), tensor("y", N, D)
    body = [Eq(y[n, d], x[n, d] - KroneckerDelta(labels[n], d))]
    return Layer("onehot", inputs=[x, labels], outputs=[y], equations=body)


def _rowmax() -> Layer:
    """A result that is integer."""
    x, top, where = tensor("x", N, D), tensor("top", N), tensor("where", N, dtype="int64")
    body = [Eq(top[n], MaxOver(x[n, d], d)), Eq(where[n], ArgMaxOver(x[n, d], d))]
    return Layer("rowmax", inputs=[x], outputs=[top, where], equations=body)


def _keywords() -> Layer:
    """Names that are words of C, of Cython, or not ASCII."""
    double, restrict, bint = tensor("double", N), tensor("restrict", N), tensor("bint", N)
    λ = scalar("λ", default=2.0)
    body = [Eq(bint[n], λ * double[n] + restrict[n])]
    return Layer("void", inputs=[double, restrict], scalars=[λ], outputs=[bint], equations=body)


def _linear() -> Layer:
    """A matrix product."""
    x, W, y = tensor("x", N, D), tensor("W", H, D), tensor("y", N, H)
    return Layer("linear", inputs=[x, W], outputs=[y], equations=[Eq(y[n, h], Sum(x[n, d] * W[h, d], d))])


MAKERS = {
    "rmsnorm": _rmsnorm, "scaled": _scaled, "halves": _glu, "total": _loss, "repeat": _repeat, "window": _window,
    "embedding": _embedding, "onehot": _onehot, "rowmax": _rowmax, "void": _keywords, "linear": _linear,
}  # fmt: skip


@cache
def programs(name: str) -> dict[str, Program]:
    """forward, bwd and jvp as derived; for rmsnorm a fwd that keeps a statistic, and the bwd that reads it."""
    forward = MAKERS[name]().program
    if name == "rmsnorm":
        return {"forward": forward, **_with_residual(forward), "jvp": jvp(forward)}
    return {"forward": forward, "bwd": vjp(forward), "jvp": jvp(forward)}


def _with_residual(forward: Program) -> dict[str, Program]:
    """rmsnorm as it would be simplified: fwd keeps rstd."""
    rows, columns = forward.tensor("x0").shape
    i0, i1 = AXES[:2]
    x, g, ms, y = (forward.tensor(name) for name in ("x0", "x1", "v0", forward.outputs[0]))
    rstd, ct_y = Tensor("r0", (rows,)), Tensor("ct_" + y.name, y.shape)
    mean = forward.definition("v0")
    assert mean is not None
    half = forward.scalars[0].symbol
    fwd = replace(
        forward,
        outputs=(y.name, "r0"),
        tensors=(x, g, ms, rstd, y),
        labels=Labels({**forward.labels.names, "r0": "rstd"}),
        equations=(
            mean,
            Equation("r0", (i0,), (Term(1 / sqrt(ms[i0,] + half)),)),
            Equation(y.name, (i0, i1), (Term(x[i0, i1] * g[i1,] * rstd[i0,]),)),
        ),
    )
    # The VJP of  y = x g rstd(x): ct_x = rstd (g ct_y - x rstd² Σ g ct_y x / D), ct_g = Σ ct_y x rstd.
    product = Tensor("v9", (rows,))
    (b0,) = mean.terms[0].bound
    over_rows = tuple(c.over({columns: rows}) for c in mean.terms[0].domain)
    bwd = replace(
        forward,
        inputs=("x0", "x1", "r0", ct_y.name),
        outputs=("ct_x0", "ct_x1"),
        tensors=(x, g, rstd, ct_y, product, replace(x, name="ct_x0"), replace(g, name="ct_x1")),
        labels=fwd.labels,
        equations=(
            Equation("v9", (i0,), (Term(g[b0,] * ct_y[i0, b0] * x[i0, b0] / columns, (b0,), mean.terms[0].domain),)),
            Equation(
                "ct_x0", (i0, i1),
                (Term(rstd[i0,] * (g[i1,] * ct_y[i0, i1] - x[i0, i1] * rstd[i0,] ** 2 * product[i0,])),),
            ),
            Equation("ct_x1", (i0,), (Term(ct_y[b0, i0] * x[b0, i0] * rstd[b0,], (b0,), over_rows),)),
        ),
    )  # fmt: skip
    return {"fwd": fwd, "bwd": bwd}


def bundle(name: str, roles: tuple[str, ...] | None = None, dtypes: tuple[str, ...] = ("f32", "f64")) -> Bundle:
    """The layer's programs, lowered, with the kernels of `roles` (all there are by default)."""
    lowered = {role: lower(program) for role, program in programs(name).items()}
    built = [role for role in lowered if roles is None or role in roles]
    forward = programs(name)["forward"]
    formulas: Mapping[tuple[str, str], Formula] = {
        ("y", "x"): Formula('δ(n,m) "quoted" \\ rstd[n]', r"\delta_{nm}", "block diagonal"),
    }
    return Bundle(
        name=name,
        programs=programs(name),  # type: ignore[arg-type]
        kernels={(role, dtype): emit_kernel(lowered[role], role, dtype) for role in built for dtype in dtypes},  # type: ignore[misc, arg-type]
        residuals=("r0",) if name == "rmsnorm" else (),
        formulas=formulas if name == "rmsnorm" else {},
        equations=("ms[n] = Σ_d x[n,d]² / D", "y[n,d] = x[n,d] g[d] (ms[n] + eps)^(-1/2)") if name == "rmsnorm" else (),
        doc=forward.doc,
        spec_hash="0123",
    )


@cache
def module(name: str) -> ModuleType:
    """The layer compiled: forward, fwd, bwd and jvp, in both dtypes."""
    return load_module(name, compile_module(emit_module(bundle(name))))


@cache
def kernel(name: str) -> NumpyKernel:
    """The layer without a compiler."""
    return NumpyKernel(bundle(name, ()), evaluate)


BACKENDS: Mapping[str, Any] = {"module": module, "numpy": kernel}
