"""What a layer may not be: each refusal says where, what, why and what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy as sp
from sympy import Eq, KroneckerDelta, Max, Piecewise, Sum, exp, oo

import jaccomp.notation as jc
from jaccomp.errors import SpecError
from jaccomp.layer import Layer
from jaccomp.spec import exact

N, D, K = jc.size("N D K")
n, i, k, t, c = jc.index("n", N), jc.index("i", D), jc.index("k", D), jc.index("t", N), jc.index("c", D)
m, other_i = jc.index("m", t + 1), jc.index("i", K)
x, y = jc.tensor("x y", N, D)
twice, square = jc.tensor("y", N, 2 * D), jc.tensor("p", N, N)
g, loss, r, h = jc.tensor("g", D), jc.tensor("loss"), jc.tensor("r", N), jc.tensor("h", N)
maximum = jc.tensor("m", N)
labels, whole = jc.tensor("labels", N, dtype="int64"), jc.tensor("whole", N, dtype="int64")
eps, shift = jc.scalar("eps", default=1e-6), jc.scalar("shift", dtype="int64")
a, s = sp.Symbol("a"), sp.Symbol("s", integer=True)


def layer(*equations: Any, name: str = "bad", inputs: Any = (x,), outputs: Any = (y,), **more: Any) -> Any:
    """The program, for some refusals need the calculus of indices."""
    return Layer(name, inputs=list(inputs), outputs=list(outputs), equations=list(equations), **more).program


KNOWN = (
    "Known: Abs, Heaviside, KroneckerDelta, Max, Min, Mod, Piecewise, acos, acosh, asin, asinh, atan, atan2, atanh, "
    "ceiling, cos, cosh, cot, coth, csc, csch, erf, erfc, exp, floor, log, sec, sech, sign, sin, sinh, tan, tanh."
)
DECIDED = (
    "Eq of equal sides is True; of what can never be equal (nan, oo, a fraction for an int64 tensor) False, and so is "
    "==. Write Eq(y[n, i], ...) of a real expression."
)
WHOLE = "Index with indices, sizes, int64 scalars and tensors."
DECLARE = "Declare it with jc.size, jc.index, jc.scalar or jc.tensor."
RANGE = "Declare it: jc.index('k', D), or jc.index('k', start, stop)."
PIECES = "Pieces differ on one axis: consecutive ranges (y[i], y[i + D1]) or all remainders (y[2*i], y[2*i + 1])."
INTEGERS = "Integers come from indices, int64 tensors, floor and ArgMaxOver; declare it real for anything else."
INFINITE = "oo stands outside pad, Piecewise or a reducer.\n  Give the finite value meant."

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # The examples of the published page, word for word.
    "labels == c": (
        lambda: layer(
            Eq(loss, Sum(Piecewise((x[n, c], labels[n] == c), (0, True)), n, c)),
            name="nll", inputs=[x, labels], outputs=[loss],
        ),
        "layer 'nll': input 'labels' is never read.\n  Python decides == before jaccomp sees it: labels[n] == c is "
        "False. Write Eq(labels[n], c) or KroneckerDelta(labels[n], c).",
    ),
    "Max over an index": (
        lambda: layer(Eq(maximum[n], Max(k, x[n, k])), name="rowmax", outputs=[maximum]),
        "layer 'rowmax', equation m[n] = Max(k, x[n, k]): index k is neither on the left nor bound.\n  SymPy's Max "
        "compares its arguments. For a maximum over k write jc.MaxOver(x[n, k], k).",
    ),
    # What SymPy or Python decided.
    "True": (
        lambda: layer(Eq(r[n], x[n, 0]), Eq(y[n, i], y[n, i])),
        f"layer 'bad', equation 2 of 2: it is True: SymPy, or Python, had already decided it.\n  {DECIDED}",
    ),
    "False": (
        lambda: layer(Eq(whole[n], sp.Rational(1, 2)), outputs=[whole]),
        f"layer 'bad', equation 1 of 1: it is False: SymPy, or Python, had already decided it.\n  {DECIDED}",
    ),
    "nan": (
        lambda: layer(Eq(y[n, i], x[n, i] + float("nan"))),
        f"layer 'bad', equation 1 of 1: it is False: SymPy, or Python, had already decided it.\n  {DECIDED}",
    ),
    "zoo": (
        lambda: layer(Eq(y[n, i], x[n, i] + sp.zoo)),
        f"layer 'bad', equation 1 of 1: it is False: SymPy, or Python, had already decided it.\n  {DECIDED}",
    ),
    "the imaginary unit": (
        lambda: layer(Eq(y[n, i], x[n, i] * sp.sqrt(-1))),
        "layer 'bad', equation y[n, i] = I*x[n, i]: I stands in it.\n  Equations are real; write what it should be "
        "where that is known.",
    ),
    "a pad by nan": (
        lambda: layer(Eq(y[n, i], jc.pad(x[n, i - 1], sp.nan))),
        "layer 'bad', equation y[n, i] = Pad(x[n, i - 1], nan): nan stands in it.\n  Equations are real; write what "
        "it should be where that is known.",
    ),
    # Infinities.
    "oo in a product": (
        lambda: layer(Eq(y[n, i], exp(x[n, i] * oo))),
        f"layer 'bad', equation y[n, i] = exp(oo*x[n, i]): {INFINITE}",
    ),
    "oo times Piecewise": (
        lambda: layer(Eq(y[n, i], Piecewise((x[n, i], i > 0), (0, True)) * oo)),
        f"layer 'bad', equation y[n, i] = oo*Piecewise((x[n, i], i > 0), (0, True)): {INFINITE}",
    ),
    # Reading and declaring.
    "an input never read": (
        lambda: layer(Eq(y[n, i], x[n, i]), inputs=[x, g]),
        "layer 'bad': input 'g' is never read.\n  Read it in an equation, or leave it out. Python decides == before "
        "jaccomp sees it: g[i] == c is False. Write Eq(g[i], c) or KroneckerDelta(g[i], c).",
    ),
    "an intermediate never read": (
        lambda: layer(Eq(y[n, i], x[n, i]), Eq(r[n], x[n, 0])),
        "layer 'bad': intermediate 'r' is never read.\n  Read it in an equation, or leave it out. Python decides == "
        "before jaccomp sees it: r[n] == c is False. Write Eq(r[n], c) or KroneckerDelta(r[n], c).",
    ),
    "a scalar never read": (
        lambda: layer(Eq(y[n, i], x[n, i]), scalars=[eps]),
        "layer 'bad': scalar 'eps' is never read.\n  Use it in an equation, or leave it out.",
    ),
    "a scalar not declared": (
        lambda: layer(Eq(y[n, i], x[n, i] * eps)),
        "layer 'bad': scalar 'eps' is used but not declared.\n  Add it to scalars=[...].",
    ),
    "a symbol": (
        lambda: layer(Eq(y[n, i], x[n, i] * a)),
        f"layer 'bad', equation y[n, i] = a*x[n, i]: the symbol a was not declared.\n  {DECLARE}",
    ),
    "an Idx of SymPy": (
        lambda: layer(Eq(y[n, i], x[n, sp.Idx("q", D)])),
        f"layer 'bad', equation y[n, i] = x[n, q]: the symbol q was not declared.\n  {DECLARE}",
    ),
    "an IndexedBase": (
        lambda: layer(Eq(y[n, i], sp.IndexedBase("A")[n] + x[n, i])),
        f"layer 'bad', equation y[n, i] = x[n, i] + A[n]: the symbol A[n] was not declared.\n  {DECLARE}",
    ),
    "a symbol in an extent": (
        lambda: layer(Eq(jc.tensor("q", s)[n], x[n, 0]), outputs=[jc.tensor("q", s)]),
        f"layer 'bad': the symbol s in an extent of 'q' was not declared.\n  {DECLARE}",
    ),
    "a symbol as a sum's index": (
        lambda: layer(Eq(r[n], Sum(x[n, s], (s, 0, D - 1))), outputs=[r]),
        f"layer 'bad', equation r[n] = Sum(x[n, s], (s, 0, D - 1)): s in Sum is not an index.\n  {RANGE}",
    ),
    "a function": (
        lambda: layer(Eq(y[n, i], sp.gamma(x[n, i]))),
        f"layer 'bad', equation y[n, i] = gamma(x[n, i]): gamma is a function that jaccomp does not know.\n  {KNOWN}",
    ),
    "an undefined function": (
        lambda: layer(Eq(y[n, i], sp.Function("f")(x[n, i]))),
        f"layer 'bad', equation y[n, i] = f(x[n, i]): f is a function that jaccomp does not know.\n  {KNOWN}",
    ),
    "a tensor never defined": (
        lambda: layer(Eq(y[n, i], x[n, i] * g[i])),
        "layer 'bad': 'g' is read but never defined.\n  Add it to inputs, or give it an equation.",
    ),
    "an output never defined": (
        lambda: layer(Eq(r[n], x[n, 0])),
        "layer 'bad': output 'y' has no equation.\n  Add Eq(y[...], ...).",
    ),
    "an input defined": (
        lambda: layer(Eq(x[n, i], 1), Eq(y[n, i], x[n, i])),
        "layer 'bad': input 'x' has an equation.\n  An input is given by the caller.",
    ),
    "an input twice": (
        lambda: layer(Eq(y[n, i], x[n, i]), inputs=[x, x]),
        "layer 'bad': 'x' stands twice in inputs.\n  Name it once.",
    ),
    "two tensors of a name": (
        lambda: layer(Eq(y[n, i], x[n, i] + jc.tensor("x", N)[n])),
        "layer 'bad': two tensors are named 'x', of shapes (N, D) and (N,).\n  Give one of them another name.",
    ),
    "a size and a scalar of a name": (
        lambda: layer(Eq(y[n, i], x[n, i] * jc.scalar("N")), scalars=[jc.scalar("N")]),
        "layer 'bad': 'N' names a size and a scalar.\n  Give one of them another name.",
    ),
    # Tensors and their indices.
    "a tensor without indices": (
        lambda: layer(Eq(y[n, i], exp(x))),
        "layer 'bad', equation y[n, i] = exp(x): tensor 'x' of rank 2 stands without indices.\n  Write x[i, j].",
    ),
    "a left side without indices": (
        lambda: layer(Eq(y, x[n, i])),
        "layer 'bad', equation y = x[n, i]: 'y' has 2 axes, the left side 0 indices.\n  Write y[i, j] on the left.",
    ),
    "the wrong rank": (
        lambda: layer(Eq(y[n, i], x[n])),
        "layer 'bad', equation y[n, i] = x[n]: x[n] has 1 index, but 'x' has 2 axes (N, D).\n  Give one index for "
        "each axis.",
    ),
    "an index that is not whole": (
        lambda: layer(Eq(y[n, i], x[n, i / 2])),
        f"layer 'bad', equation y[n, i] = x[n, i/2]: i/2 in x[n, i/2] is not an integer.\n  {WHOLE}",
    ),
    "a real tensor as index": (
        lambda: layer(Eq(y[n, i], x[n, g[i]]), inputs=[x, g]),
        "layer 'bad', equation y[n, i] = x[n, g[i]]: g[i], the second axis of x[n, g[i]], is a real tensor's value.\n"
        "  Declare 'g' with dtype='int64'.",
    ),
    "a rounded real tensor as index": (
        lambda: layer(Eq(y[n, i], x[n, sp.floor(g[i])]), inputs=[x, g]),
        "layer 'bad', equation y[n, i] = x[n, floor(g[i])]: floor(g[i]) in x[n, floor(g[i])] is not an integer.\n"
        f"  {WHOLE}",
    ),
    "a real scalar as index": (
        lambda: layer(Eq(y[n, i], x[n, i + eps]), scalars=[eps]),
        f"layer 'bad', equation y[n, i] = x[n, eps + i]: eps + i in x[n, eps + i] is not an integer.\n  {WHOLE}",
    ),
    "an index over another size": (
        lambda: layer(Eq(y[n, i], x[i, n])),
        "layer 'bad', equation y[n, i] = x[i, n]: index i runs over 0..D - 1, but the first axis of 'x' has size N.\n"
        "  Declare both with the same size, or use two indices.",
    ),
    "an index with two ranges": (
        lambda: layer(Eq(y[n, i], x[n, i] * other_i)),
        "layer 'bad', equation y[n, i] = x[n, i]*i: index i has two ranges, 0..D - 1 and 0..K - 1.\n  Every index has "
        "one range: give the second another name.",
    ),
    "a free index": (
        lambda: layer(Eq(r[n], x[n, k]), outputs=[r]),
        "layer 'bad', equation r[n] = x[n, k]: index k is neither on the left nor bound.\n  Bind it, as in Sum(..., "
        "k), or put it on the left.",
    ),
    "a free index in a range on the left": (
        lambda: layer(Eq(r[m], x[m, 0]), outputs=[r]),
        "layer 'bad', equation r[m] = x[m, 0]: range of m: index t is neither on the left nor bound.\n  Bind it, as in "
        "Sum(..., t), or put it on the left.",
    ),
    "a reduction without an index": (
        lambda: layer(Eq(r[n], jc.MaxOver(x[n, 0])), outputs=[r]),
        "layer 'bad', equation r[n] = MaxOver(x[n, 0], ): MaxOver has no index.\n  Name what it runs over: "
        "jc.MaxOver(x[n, k], k).",
    ),
    "limits in MaxOver": (
        lambda: layer(Eq(r[n], jc.MaxOver(x[n, k], (k, 0, n))), outputs=[r]),
        "layer 'bad', equation r[n] = MaxOver(x[n, k], (k, 0, n)): (k, 0, n) in MaxOver is not an index.\n"
        f"  {RANGE}",
    ),
    "a Piecewise without an end": (
        lambda: layer(Eq(y[n, i], Piecewise((x[n, i], x[n, i] > 0)))),
        "layer 'bad', equation y[n, i] = Piecewise((x[n, i], x[n, i] > 0)): Piecewise((x[n, i], x[n, i] > 0)) has no "
        "value where none of its conditions holds.\n  End it with (value, True), as (0, True).",
    ),
    "a fraction as an end of a range": (
        lambda: layer(Eq(r[n], Sum(x[n, k], (k, 0, D / 2))), outputs=[r]),
        "layer 'bad', equation r[n] = Sum(x[n, k], (k, 0, D/2)): D/2 + 1, an end of the range of k, is not an "
        "integer.\n  Divide with //, or declare an integer scalar.",
    ),
    # Left sides.
    "an expression on the left": (
        lambda: layer(Eq(2 * y[n, i], x[n, i])),
        "layer 'bad', equation 2*y[n, i] = x[n, i]: the left side 2*y[n, i] is not an access.\n  The left side names "
        "what is defined: Eq(y[n, i], ...), or Eq(loss, ...) of a tensor of rank 0.",
    ),
    "data on the left": (
        lambda: layer(Eq(r[labels[n]], x[n, 0]), inputs=[x, labels], outputs=[r]),
        "layer 'bad', equation r[labels[n]] = x[n, 0]: the left side is indexed by data, labels[n].\n  Write a sum "
        "over the source with KroneckerDelta(ids[n], v) instead.",
    ),
    "an index twice on the left": (
        lambda: layer(Eq(square[n, n], x[n, 0]), outputs=[square]),
        "layer 'bad', equation p[n, n] = x[n, 0]: index n stands twice on the left.\n  Use two indices and a "
        "KroneckerDelta of them.",
    ),
    "an index beyond what it writes": (
        lambda: layer(Eq(y[n, jc.index("q", D + 1)], x[n, 0])),
        "layer 'bad', equation y[n, q] = x[n, 0]: index q runs over 0..D, but axis 1 of 'y' has extent D.\n  Let it "
        "run over the extent of the axis that it writes.",
    ),
    "two definitions": (
        lambda: layer(Eq(y[n, i], x[n, i]), Eq(y[n, i], 2 * x[n, i])),
        "layer 'bad', equation y[n, i] = x[n, i]: 'y' has 2 equations that each write all of it.\n  A tensor is "
        "defined once: add the right sides, or name one of the tensors differently.",
    ),
    "pieces that overlap": (
        lambda: layer(Eq(twice[n, i], x[n, i]), Eq(twice[n, i + D - 1], x[n, i]), outputs=[twice]),
        "layer 'bad', equation y[n, i] = x[n, i]: the pieces of 'y' cannot be proved to cover each element of it "
        f"exactly once.\n  {PIECES}",
    ),
    "pieces that leave a gap": (
        lambda: layer(Eq(twice[n, 2 * i], x[n, i]), outputs=[twice]),
        "layer 'bad', equation y[n, 2*i] = x[n, i]: the left side of 'y' cannot be proved to cover each element of it "
        f"exactly once.\n  {PIECES}",
    ),
    "a read outside a triangle": (
        lambda: layer(Eq(square[t, m], x[t, 0] + x[m, 0]), Eq(r[t], exp(Sum(square[t, n], n))), outputs=[r]),
        "layer 'bad', equation r[t] = exp(Sum(p[t, n], (n, 0, N - 1))): 'p' is read outside the domain that its "
        "equation, with p[t, m] on the left, writes.\n  Read it over the same triangle, or write it everywhere.",
    ),
    "a fraction for integers": (
        lambda: layer(Eq(whole[n], Sum(x[n, k], k)), outputs=[whole]),
        "layer 'bad', equation whole[n] = Sum(x[n, k], (k, 0, D - 1)): 'whole' is int64, but the right side is not "
        f"integer arithmetic.\n  {INTEGERS}",
    ),
    "rounded data for integers": (
        lambda: layer(Eq(whole[n], sp.floor(x[n, 0])), outputs=[whole]),
        "layer 'bad', equation whole[n] = floor(x[n, 0]): 'whole' is int64, but the right side is not integer "
        f"arithmetic.\n  {INTEGERS}",
    ),
    # Order.
    "a recurrence": (
        lambda: layer(Eq(h[0], x[0, 0]), Eq(h[t + 1], h[t] + x[t, 0]), outputs=[h]),
        "layer 'bad', equation h[t + 1] = h[t] + x[t, 0]: 'h' is defined by itself: a recurrence over an index.\n  "
        "Recurrences are refused for now: write one step as a layer and loop over it.",
    ),
    "a cycle": (
        lambda: layer(Eq(r[n], exp(Sum(h[t], t)) + x[n, 0]), Eq(h[n], r[n]), Eq(y[n, i], r[n] * x[n, i])),
        "layer 'bad', equation r[n] = exp(Sum(h[t], (t, 0, N - 1))) + x[n, 0]: 'r', 'h' depend on each other in a "
        "cycle.\n  Each tensor is defined from inputs and from tensors defined without it.",
    ),
    # Extents and ranges that depend on data.
    "an extent that depends on data": (
        lambda: layer(
            Eq(jc.tensor("q", labels[0])[n], x[n, 0]), inputs=[x, labels], outputs=[jc.tensor("q", labels[0])]
        ),
        "layer 'bad': the extent labels[0] of 'q' depends on data or on an index.\n  Extents are expressions in sizes "
        "and integer scalars; data-dependent output sizes are refused.",
    ),
    "a range that depends on data": (
        lambda: layer(Eq(r[n], Sum(x[n, k], (k, 0, labels[n] - 1))), inputs=[x, labels], outputs=[r]),
        "layer 'bad', equation r[n] = Sum(x[n, k], (k, 0, labels[n] - 1)): the range 0..labels[n] - 1 of an index "
        "reads a tensor.\n  Ranges that depend on data are refused for now; mask the body with Piecewise.",
    ),
    "a range that stops at a maximum": (
        lambda: layer(Eq(r[n], Sum(x[n, k], (k, 0, Max(n, D - n) - 1))), outputs=[r]),
        "layer 'bad', equation r[n] = Sum(x[n, k], (k, 0, Max(n, D - n) - 1)): the range 0..Max(D - n, n) - 1 starts "
        "at a minimum, or stops at a maximum.\n  A range starts at integer expressions or their Max, and stops at "
        "integer expressions or their Min.",
    ),
    "a divided read outside its tensor": (
        lambda: layer(Eq(y[n, i], x[n, i // 2 + 3])),
        "layer 'bad', equation y[n, i] = x[n, floor(i/2) + 3]: x[n, floor(i/2) + 3] divides an index and cannot be "
        "proved to lie inside 'x'.\n  Write jc.pad of it, or declare the index over a range that the division keeps "
        "inside.",
    ),
    # Arguments of Layer.
    "a name that is no text": (
        lambda: layer(Eq(y[n, i], x[n, i]), name=3),  # type: ignore[arg-type]
        "layer 3: the name is not a string.\n  The first argument of jc.Layer is its name.",
    ),
    "an equation that is none": (
        lambda: layer(x[n, i]),
        "layer 'bad', equation 1 of 1: x[n, i] is not an equation.\n  Write sympy.Eq(target[indices], expression).",
    ),
    "equations that are no list": (
        lambda: Layer("bad", inputs=[x], outputs=[y], equations=Eq(y[n, i], x[n, i])),
        "layer 'bad': equations is Eq(y[n, i], x[n, i]).\n  Pass a list: equations=[Eq(...), ...].",
    ),
    "inputs that are no list": (
        lambda: Layer("bad", inputs=x, outputs=[y], equations=[Eq(y[n, i], x[n, i])]),
        "layer 'bad': inputs is x.\n  Pass a list: inputs=[...], each made by jc.tensor.",
    ),
    "an access among inputs": (
        lambda: layer(Eq(y[n, i], x[n, i]), inputs=[x[n, i]]),
        "layer 'bad': x[n, i] in inputs was not made by jc.tensor. An access such as x[n, i] is not a tensor: name x "
        "itself.\n  Declare it with jc.tensor.",
    ),
    "a size among scalars": (
        lambda: layer(Eq(y[n, i], x[n, i]), scalars=[N]),
        "layer 'bad': N in scalars was not made by jc.scalar.\n  Declare it with jc.scalar.",
    ),
    "no outputs": (
        lambda: layer(Eq(y[n, i], x[n, i]), outputs=[]),
        "layer 'bad': it has no output.\n  Name at least one tensor in outputs=[...].",
    ),
    "doc that is no text": (
        lambda: layer(Eq(y[n, i], x[n, i]), doc=3),
        "layer 'bad': doc is 3.\n  Pass a string.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_where_what_why_and_what_to_do(case: str) -> None:
    write, message = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        write()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "expr",
    [
        Piecewise((x[n, i], x[n, i] < 0), (2 * x[n, i], x[n, i] >= 0)),
        Piecewise((-oo, i > n), (x[n, i], True)),
        jc.pad(x[n, i - 1], -oo) + 1,
        jc.MaxOver(Max(x[n, k], -oo), k),
        x[n, jc.ArgMaxOver(x[n, k], k)],
        x[n, labels[n]] * KroneckerDelta(labels[n], i),
        Sum(x[n, k] * x[n, jc.index("q", k + 1)], k, jc.index("q", k + 1)),
        Sum(x[n, k] * x[n, jc.index("q", k + 1)], jc.index("q", k + 1), k),
    ],
    ids=str,
)
def test_what_is_near_a_refusal_and_legal(expr: Any) -> None:
    inputs = [x, labels] if expr.has(labels) else [x]
    assert layer(Eq(y[n, i], expr), inputs=inputs).outputs == ("v0",)


def test_floats_are_their_shortest_decimal() -> None:
    z = x[n, i]
    assert exact(0.1 * z + 0.2) == z / 10 + sp.Rational(1, 5)
    assert exact(z**0.5) == sp.sqrt(z)
    assert exact(z**2.0 * 1e-30) == z**2 / sp.Integer(10) ** 30
    assert exact(sp.Float(0.1, precision=24) * z) == z / 10
    assert exact(Max(z, 1.5)) == Max(z, sp.Rational(3, 2))


def test_one_text_for_one_spec_and_another_for_another() -> None:
    def text(power: int) -> str:
        return Layer("power", inputs=[x], outputs=[y], equations=[Eq(y[n, i], x[n, i] ** power)]).spec.serialise()

    assert text(2) == text(2)
    assert text(2) != text(3)
