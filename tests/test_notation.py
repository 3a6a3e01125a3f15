"""The words of the notation: names that calls and generated code can carry, and objects that print and pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp
from sympy import Eq

import jaccomp.notation as jc
from jaccomp.errors import SpecError
from jaccomp.layer import Layer

N, D = jc.size("N D")
n, i = jc.index("n", N), jc.index("i", D)
x = jc.tensor("x", N, D)
eps = jc.scalar("eps")

MAKERS: dict[str, Callable[[str], Any]] = {
    "size": lambda name: jc.size(name),
    "scalar": lambda name: jc.scalar(name),
    "index": lambda name: jc.index(name, N),
    "tensor": lambda name: jc.tensor(name, N),
    "layer": lambda name: Layer(
        name, inputs=[x], outputs=[jc.tensor("y", N, D)], equations=[Eq(jc.tensor("y", N, D)[n, i], x[n, i])]
    ),
}
IDENTIFIER = (
    "the name is not a Python identifier.\n  Letters, digits and underscores, not starting with a digit, can stand in "
    "a call and in generated code."
)
ARGUMENT = (
    "the name is an argument of every compiled function.\n  Reserved: form, of, out, threads, wrt, ct_*, t_* and names "
    "that start with an underscore."
)
OWN = "names that start with ct_, t_ or an underscore are jaccomp's: cotangents, tangents and internals.\n  Call it "
NAMES = {
    **dict.fromkeys(("out", "wrt", "threads", "of", "form"), ARGUMENT),
    **dict.fromkeys(("ct_x", "t_x", "_x", "__x"), f"{OWN}'x', say."),
    **{
        name: f"the name is a Python keyword, so no call could pass it.\n  Call it '{name}_', say."
        for name in ("class", "lambda", "None", "async")
    },
    **dict.fromkeys(("1x", "x*/", "x'", 'x"', "x-y", "#", "distutils=1", "x;y", "x\\", "x\u200b"), IDENTIFIER),
    "\u00b5": "Python reads the name as '\u03bc' in a call, so no call could pass it.\n  Call it '\u03bc'.",
    "\ufb01": "Python reads the name as 'fi' in a call, so no call could pass it.\n  Call it 'fi'.",
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", NAMES)
def test_names_that_calls_or_code_cannot_carry_are_refused(kind: str, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        MAKERS[kind](name)
    assert str(caught.value) == f"{kind} {name!r}: {NAMES[name]}"


@pytest.mark.parametrize("name", ["x\ny", "a b", "# distutils: language=c++", '"""', "*/ evil", ""])
def test_a_layer_has_one_name(name: str) -> None:
    with pytest.raises(SpecError, match="not a Python identifier"):
        MAKERS["layer"](name)


def test_names_as_long_as_a_file_system_bears() -> None:
    assert jc.tensor("x" * 100).name == "x" * 100
    with pytest.raises(SpecError) as caught:
        jc.tensor("x" * 101)
    assert str(caught.value) == f"tensor '{'x' * 20}'...: the name has 101 characters.\n  100 are the most."


@pytest.mark.parametrize("kind", ["size", "scalar", "index", "tensor"])
@pytest.mark.parametrize("name", ["", "  ", 3, None])
def test_what_is_no_name(kind: str, name: Any) -> None:
    with pytest.raises(SpecError) as caught:
        MAKERS[kind](name)
    remedy = f"Pass a string: jc.{kind}('a', ...), or 'a b' for two."
    assert str(caught.value) == f"{kind} {name!r}: that is not a name.\n  {remedy}"


@pytest.mark.parametrize("name", ["double", "cdef", "restrict", "int64_t", "malloc", "γ", "été", "x_", "match", "ct"])
def test_words_of_c_and_cython_and_other_alphabets_are_names(name: str) -> None:
    assert jc.tensor(name, N).name == name


def test_one_name_one_object_several_names_a_tuple() -> None:
    assert isinstance(jc.size("N"), jc.Size)
    assert [one.name for one in jc.tensor("a b, c\nd", N)] == ["a", "b", "c", "d"]


LESS_THAN_WHOLE = "is not an integer expression.\n  Divide with //, or declare an integer scalar."
NOT_WHOLE = "is not an integer expression.\n  Write it in sizes and integers."
REAL = "the scalar eps is not an integer.\n  Declare it with dtype='int64'."
DECLARATIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "negative extent": (
        lambda: jc.tensor("x", -1), "tensor 'x': the extent -1 is negative.\n  An extent is at least 0.",
    ),
    "half an extent": (lambda: jc.tensor("x", N / 2), f"tensor 'x': N/2 {LESS_THAN_WHOLE}"),
    "a float as extent": (lambda: jc.tensor("x", 2.0), f"tensor 'x': 2.0 {LESS_THAN_WHOLE}"),
    "a text as extent": (lambda: jc.tensor("x", "N"), f"tensor 'x': 'N' {NOT_WHOLE}"),
    "nothing as extent": (lambda: jc.tensor("x", None), f"tensor 'x': None {NOT_WHOLE}"),
    "a truth as extent": (lambda: jc.tensor("x", True), f"tensor 'x': True {NOT_WHOLE}"),
    "a shape as extent": (lambda: jc.tensor("x", (N, D)), f"tensor 'x': ({N}, {D}) {NOT_WHOLE}"),
    "a real scalar as extent": (lambda: jc.tensor("x", eps), f"tensor 'x': {REAL}"),
    "a real scalar as range": (lambda: jc.index("i", eps), f"index 'i': {REAL}"),
    "half a range": (lambda: jc.index("i", N / 2), f"index 'i': N/2 {LESS_THAN_WHOLE}"),
    "no range": (
        lambda: jc.index("i"),
        "index 'i': 0 bounds were given.\n  Write index(name, stop) or index(name, start, stop).",
    ),
    "a dtype": (lambda: jc.tensor("x", dtype="f8"), "tensor 'x': dtype is 'f8'.\n  It is 'real' or 'int64'."),
    "a dtype of a scalar": (
        lambda: jc.scalar("x", dtype="f8"), "scalar 'x': dtype is 'f8'.\n  It is 'real' or 'int64'.",
    ),
    "typical": (
        lambda: jc.size("N", typical=True), "size 'N': typical is True.\n  It is a representative extent, an int >= 1.",
    ),
    "axes": (lambda: jc.size("N", axes="all"), "size 'N': axes is 'all'.\n  It is 'one' (the default) or 'any'."),
    "a default that is a text": (
        lambda: jc.scalar("x", default="a"),  # type: ignore[arg-type]
        "scalar 'x': the default 'a' is not a number.\n  Pass an int or a float.",
    ),
    "a default that is nan": (
        lambda: jc.scalar("x", default=float("nan")),
        "scalar 'x': the default nan is not a number.\n  Pass an int or a float.",
    ),
    "a default that is no integer": (
        lambda: jc.scalar("x", default=1.5, dtype="int64"),
        "scalar 'x': the default 1.5 is not an integer.\n  Its dtype is int64.",
    ),
    "a slice": (
        lambda: x[n, :],
        "tensor 'x': slice(None, None, None) is not an index expression.\n  Name an index for each axis: "
        "jc.index('i', N).",
    ),
    "an ellipsis": (
        lambda: x[...],
        "tensor 'x': Ellipsis is not an index expression.\n  Name an index for each axis: jc.index('i', N).",
    ),
    "a text as index": (
        lambda: x[n, "i"],
        "tensor 'x': 'i' is not an index expression.\n  Name an index for each axis: jc.index('i', N).",
    ),
    "a truth as index": (
        lambda: x[n, True],
        "tensor 'x': True is not an index expression.\n  Name an index for each axis: jc.index('i', N).",
    ),
    "a float as index": (
        lambda: x[n, 0.5],
        "tensor 'x': the index 0.500000000000000 holds a float.\n  Index with integers; divide with //, or floor.",
    ),
    "a pad of a tensor": (
        lambda: jc.pad(x), "pad: x is not an access.\n  Write jc.pad(x[n, i - 1], value=0).",
    ),
    "a pad by a text": (
        lambda: jc.pad(x[n, i - 1], "0"),
        "pad: the value '0' is not a number.\n  Write a number, an expression, oo or -oo.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLARATIONS)
def test_declarations_refuse_what_they_cannot_mean(case: str) -> None:
    declare, message = DECLARATIONS[case]
    with pytest.raises(SpecError) as caught:
        declare()
    assert str(caught.value) == message


def test_integers_of_numpy_are_indices_and_extents() -> None:
    assert x[n, np.int64(2)] == x[n, 2]
    assert jc.tensor("z", np.int32(3)).shape == (3,)


def test_comparisons_of_indices_stay_symbolic() -> None:
    for relation in (i < D, i >= 0, i > n, i <= D - 1, i > -1, i <= i + n):
        assert isinstance(relation, sp.core.relational.Relational)


@pytest.mark.parametrize(
    "one",
    [
        N,
        jc.size("M", axes="any", typical=8),
        jc.scalar("w", default=2, dtype="int64"),
        jc.index("m", n + 1),
        jc.tensor("ids", N, dtype="int64"),
        x[n, 2 * i + 1],
        jc.pad(x[n, i - 1], -sp.oo),
        jc.MaxOver(x[n, i], i) + sp.Sum(x[n, i], i),
    ],
    ids=str,
)
def test_everything_pickles(one: Any) -> None:
    again = pickle.loads(pickle.dumps(one))
    assert again == one and hash(again) == hash(one) and type(again) is type(one)
    for name in ("axes", "typical", "default", "dtype", "shape", "start", "stop"):
        assert getattr(again, name, None) == getattr(one, name, None)


def test_latex_has_names_with_indices_below() -> None:
    assert sp.latex(x[n, i]) == "{x}_{n,i}"
    assert sp.latex(x[n, i] ** 2) == "{x}_{n,i}^{2}"
    assert sp.latex(jc.MaxOver(x[n, i], i)) == r"\max_{i} {x}_{n,i}"
    assert sp.latex(jc.tensor("loss")) == "loss"


def test_objects_of_one_name_differ_by_what_they_hold() -> None:
    assert jc.index("i", N) != jc.index("i", D)
    assert jc.tensor("x", N) != jc.tensor("x", D)
    assert jc.size("N") != jc.size("N", axes="any")
    assert jc.scalar("c") != jc.scalar("c", dtype="int64")
