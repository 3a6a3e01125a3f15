"""Emitted JavaScript against NumPy's interpreter, for every layer and every block, and its scalar functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from dense import SMALL
from javascript import Session, apply, needs_node
from library_formulas import CASES
from points import Point

from jaccomp import pipeline
from jaccomp.calculus.vjp import real_inputs, real_outputs, vjp
from jaccomp.emit.javascript import comment, module
from jaccomp.emit.templates import template_directory
from jaccomp.errors import StageError
from jaccomp.layers import get
from jaccomp.program import (
    AXES,
    Equation,
    Labels,
    Program,
    Reducer,
    Scalar,
    Tensor,
    Term,
    at_least,
    bound_symbol,
    equal,
    in_range,
    size_symbol,
    verify,
)
from jaccomp.reference.interpreter import evaluate

TOLERANCE = 1e-12


@cache
def programs(name: str) -> dict[str, Program]:
    derivation = get(name).derivation
    found = {"forward": pipeline.computable(derivation.program)}
    for of in real_outputs(derivation.program):
        for wrt in real_inputs(derivation.program):
            found[f"∂{of}/∂{wrt}"] = pipeline.jacobian_program(derivation, of, wrt)
    return found


def same(found: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    """Equal where not finite; elsewhere within the tolerance of the tensor's largest entry, or of what it cancels."""
    assert list(found) == list(expected)
    everything = np.concatenate([np.ravel(v) for v in expected.values()])
    floor = 1e-3 * np.abs(everything[np.isfinite(everything)]).max(initial=0.0)
    for target, value in expected.items():
        assert found[target].shape == value.shape, what
        finite = np.isfinite(value)
        np.testing.assert_array_equal(found[target][~finite], value[~finite], f"{what}, {target}")
        scale = np.abs(value[finite]).max(initial=floor)
        error = np.abs(found[target][finite] - value[finite]).max(initial=0.0)
        assert error <= TOLERANCE * scale, f"{what}, {target}: {error} of {scale}"


@needs_node
def test_every_layer_and_every_block_is_as_numpy_computes_it(tmp_path: Path) -> None:
    session, wanted = Session(), []
    for name in CASES:
        point = Point(get(name), SMALL.get(name, CASES[name]))
        for key, program in programs(name).items():
            session.call(program, point.sizes, point.scalars, point.inputs)
            wanted.append((f"{name} {key}", point.evaluate(program, point.inputs)))
    found = session.results(tmp_path)
    assert len(found) == len(wanted) > 250
    for (what, expected), one in zip(wanted, found, strict=True):
        same(one, expected, what)


def allowed(name: str, value: int) -> Point | None:
    """The layer with all sizes of one value, or None where it has no such sizes."""
    case = SMALL.get(name, CASES[name])
    sizes = dict.fromkeys(case.sizes, value)
    try:
        draw = {key: one for key, one in case.draw.items() if key not in ("ids", "labels", "z", "p")}
        whole = {t.name: _zeros for t in get(name).spec.inputs if t.dtype == "int64"}
        point = Point(get(name), replace(case, sizes=sizes, draw={**draw, **whole}))
        point.evaluate(point.program, point.inputs)
    except (StageError, ValueError, ZeroDivisionError):
        return None
    return point


def _zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return np.zeros(shape, dtype=np.int64)


@needs_node
def test_sizes_of_zero_and_one_are_as_numpy_computes_them(tmp_path: Path) -> None:
    session, wanted = Session(), []
    for name in CASES:
        for value in (0, 1):
            point = allowed(name, value)
            for key, program in programs(name).items() if point is not None else ():
                session.call(program, point.sizes, point.scalars, point.inputs)
                wanted.append((f"{name} {key} at {value}", point.evaluate(program, point.inputs)))
    found = session.results(tmp_path)
    assert len(found) == len(wanted) > 400
    for (what, expected), one in zip(wanted, found, strict=True):
        same(one, expected, what)


@needs_node
def test_derived_programs_of_second_order_too(tmp_path: Path) -> None:
    """The VJP of a VJP has every shape of domain that there is: digits, data, triangles, windows."""
    session, wanted = Session(), []
    for name in SMALL:
        point = Point(get(name), SMALL[name])
        program = vjp(get(name).derivation.vjp)
        rng = np.random.default_rng(4)
        seeds = {i: rng.standard_normal(point.shape(i, program)) for i in program.inputs if i not in point.inputs}
        session.call(program, point.sizes, point.scalars, point.inputs | seeds)
        wanted.append((name, point.evaluate(program, point.inputs | seeds)))
    for (what, expected), one in zip(wanted, session.results(tmp_path), strict=True):
        same(one, expected, what)


SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324, 0.5, -0.5, 30.0, -30.0, 800.0, -800.0)


@needs_node
def test_special_values_are_numpy_s(tmp_path: Path) -> None:
    """NaN, infinities, kinks, overflow: forward and Jacobian of every layer of one input and one size."""
    session, wanted = Session(), []
    for name, case in CASES.items():
        if list(case.sizes) == ["N"] and len(get(name).spec.inputs) == 1:
            point = Point(get(name), replace(case, sizes={"N": len(SPECIAL)}))
            inputs = {"x0": np.array(SPECIAL)}
            for key, program in programs(name).items():
                session.call(program, point.sizes, point.scalars, inputs)
                wanted.append((f"{name} {key}", point.evaluate(program, inputs)))
    assert len(wanted) > 40
    for (what, expected), one in zip(wanted, session.results(tmp_path), strict=True):
        for target, value in expected.items():
            np.testing.assert_allclose(one[target], value, rtol=TOLERANCE, atol=5e-324, err_msg=f"{what}, {target}")


ULP = 4
ACCURATE: dict[str, tuple[Any, tuple[tuple[float, float], ...]]] = {
    "erf": (mpmath.erf, ((-6, 6), (-1, 1), (-1e-9, 1e-9))),
    "erfc": (mpmath.erfc, ((-6, 27), (0.4, 1.2))),
    "sigmoid": (lambda z: 1 / (1 + mpmath.exp(-z)), ((-700, 700), (-5, 5))),
    "softplus": (lambda z: mpmath.log1p(mpmath.exp(z)), ((-700, 700), (-5, 5))),
    "inverseRoot": (lambda z: 1 / mpmath.sqrt(z), ((1e-9, 1e9),)),
    "Math.exp": (mpmath.exp, ((-700, 700), (-1, 1))),
    "Math.log1p": (mpmath.log1p, ((-0.99, 9), (-1e-9, 1e-9))),
    "Math.expm1": (mpmath.expm1, ((-9, 9), (-1e-9, 1e-9))),
    "Math.tanh": (mpmath.tanh, ((-9, 9), (-1e-9, 1e-9))),
}
"""What the gallery's functions are made of, ours and the engine's own, with the ranges they are drawn from."""


@needs_node
def test_scalar_functions_keep_their_digits(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    drawn = [(name, [z for r in ranges for z in rng.uniform(*r, 300)]) for name, (_, ranges) in ACCURATE.items()]
    source = (template_directory() / "javascript" / "functions.js").read_text(encoding="utf-8")
    with mpmath.workdps(40):
        for (name, arguments), found in zip(drawn, apply(drawn, source, tmp_path), strict=True):
            for z, value in zip(arguments, found, strict=True):
                exact = ACCURATE[name][0](mpmath.mpf(z))
                assert abs(value - exact) <= ULP * math.ulp(float(exact)), f"{name}({z!r}) is {value!r}"


@needs_node
def test_scalar_functions_at_their_edges(tmp_path: Path) -> None:
    ends = [-np.inf, np.inf, np.nan, 0.0]
    expected = {
        "erf": [-1, 1, np.nan, 0], "erfc": [2, 0, np.nan, 1], "sigmoid": [0, 1, np.nan, 0.5],
        "softplus": [0, np.inf, np.nan, math.log(2)], "inverseRoot": [np.nan, 0, np.nan, 0],
        "finite": [0, 0, np.nan, 0], "step": [0, 1, 0, 0], "halfStep": [0, 1, 0.5, 0.5],
        "((z) => power(1, z))": [1, 1, 1, 1], "((z) => power(-1, z))": [1, 1, np.nan, 1],
    }  # fmt: skip
    source = (template_directory() / "javascript" / "functions.js").read_text(encoding="utf-8")
    found = apply([(name, ends) for name in expected], source, tmp_path)
    np.testing.assert_array_equal(np.array(found), np.array(list(expected.values())))


S0, C0 = size_symbol("s0"), Scalar("c0", "real", 1.5)
X0 = Tensor("x0", (S0,))
I0, B0, B1 = AXES[0], bound_symbol(0), bound_symbol(1)
ROW, OTHER = in_range(B0, S0), in_range(B1, S0)


def _program(target: Tensor, reducer: Reducer, *terms: Term) -> Program:
    equation = Equation("v0", AXES[: target.rank], terms, reducer)
    return verify(Program("odd", (S0,), (C0,), ("x0",), ("v0",), (X0, target), (equation,)))


def vector(*terms: Term) -> Program:
    return _program(Tensor("v0", (S0,)), "sum", *terms)


def number(reducer: Reducer, *terms: Term) -> Program:
    return _program(Tensor("v0", (), "int64" if reducer.startswith("arg") else "real"), reducer, *terms)


AT = X0[(I0,)]
ODD = {
    "product": number("prod", Term(X0[(B0,)], (B0,), ROW)),
    "least": number("min", Term(X0[(B0,)], (B0,), ROW)),
    "its place": number("argmin", Term(X0[(B0,)], (B0,), ROW)),
    "place of two": number("argmax", Term(X0[(B0,)] * X0[(B1,)], (B0, B1), (*ROW, *OTHER, at_least(B0, B1)))),
    "two sums": number("sum", Term(X0[(B0,)], (B0,), ROW), Term(-(X0[(B0,)] ** 2), (B0,), ROW)),
    "a remainder": vector(Term(X0[(sp.Mod(3 * I0 + 1, S0),)] * sp.floor(I0 / 3))),
    "an index that others give": vector(Term(X0[(B1,)], (B0, B1), (*ROW, equal(2 * B0 + B1, I0), *OTHER))),
    "cases": vector(Term(sp.Piecewise((X0[(I0 - 1,)], I0 > 0), (sp.Rational(7, 3) * C0.symbol, sp.true)))),
    "constants": vector(Term(sp.pi * AT / sp.sqrt(2) + sp.Max(AT, sp.Rational(1, 3)))),
    "powers": vector(Term((AT**2 + 1) ** sp.Rational(-3, 2) + sp.Abs(AT) ** C0.symbol)),
}


@needs_node
def test_every_reducer_and_operation(tmp_path: Path) -> None:
    session, wanted = Session(), []
    rng = np.random.default_rng(7)
    drawn = [rng.standard_normal(5), np.array([1.0, 2.0, 2.0, 2.0]), np.array([1.0, np.nan, 3.0, np.nan]), np.zeros(1)]
    for name, program in ODD.items():
        for x in (*drawn, np.full(3, -np.inf), np.full(3, np.inf), np.zeros(0)):
            session.call(program, {"s0": x.size}, {}, {"x0": x})
            wanted.append((f"{name} of {x}", evaluate(program, {"x0": x}, {"s0": x.size})))
    for (what, expected), one in zip(wanted, session.results(tmp_path), strict=True):
        same(one, expected, what)


@needs_node
@pytest.mark.parametrize("ids", [[0, 4], [-1, 0]])
def test_a_place_that_is_not_on_its_axis_is_an_error(ids: list[int], tmp_path: Path) -> None:
    program = programs("embedding")["forward"]
    session = Session()
    session.call(program, {"s0": 2, "s1": 4, "s2": 1}, {}, {"x0": ids, "x1": np.zeros(4)})
    with pytest.raises(AssertionError, match=r"RangeError: -?\d is no position on an axis of 4"):
        session.results(tmp_path)


@needs_node
def test_an_input_of_another_size_is_an_error(tmp_path: Path) -> None:
    session = Session()
    session.call(programs("relu")["forward"], {"s0": 3}, {}, {"x0": [1.0, 2.0]})
    with pytest.raises(AssertionError, match="RangeError: x0 must have 3 elements"):
        session.results(tmp_path)


EVIL = "</script><img src=x onerror=alert(1)>\u2028*/ alert(1) //\n<!--<script>"


def test_what_a_user_named_stands_in_comments_alone() -> None:
    plain = get("softmax").program
    labels = Labels(dict.fromkeys(plain.labels.names, EVIL))
    text = module({"forward": replace(plain, name=EVIL, labels=labels)})
    assert "alert" in text and "</script" not in text and "<!--" not in text and "<img" not in text
    code = [line.split("//", 1)[0] for line in text.splitlines()]
    assert not any("alert" in line for line in code) and "\u2028" not in text


def test_a_sign_between_spaces_stays_readable() -> None:
    assert comment("0 if a < b") == "0 if a < b" and comment("a<b\n") == r"a\u{3c}b\u{a}"


def test_nothing_reads_text_as_code_or_the_page() -> None:
    text = module({key.replace("∂", "d").replace("/", "_"): one for key, one in programs("lstm_cell").items()})
    for word in ("eval(", "Function", "window", "document", "globalThis", "import", "require"):
        assert word not in text, word


@pytest.mark.parametrize("name", ["a-b", "1a", "a b", "<x>", ""])
def test_only_canonical_names_become_identifiers(name: str) -> None:
    with pytest.raises(StageError, match="is no canonical name"):
        module({name: get("relu").program})


def test_the_same_program_gives_the_same_text() -> None:
    layer = get("maxpool2d")
    assert module({"a": layer.program}) == module({"a": layer.program})
    assert "for (let b0 = Math.max(0, c2 - c1 * i1); b0 < Math.min(c0, c2 + s1 - c1 * i1); b0++)" in module(
        {"a": layer.program}
    )
