"""Layers written as one nested expression, in steps and in other names derive as well as those of the library."""

from __future__ import annotations

from typing import Any

import pytest
import sympy as sp

import jaccomp as jc

R, F = jc.size("R"), jc.size("F")
r, p, q = jc.index("r", R), jc.index("p", F), jc.index("q", F)
u, out, mid = jc.tensor("u w mid", R, F)
total = jc.tensor("total", R)


def nested(body: Any, output: Any = out, steps: Any = ()) -> jc.Layer:
    at = output[r, p] if output is out else output[r]
    return jc.Layer("nested", inputs=[u], outputs=[output], equations=[*steps, sp.Eq(at, body)])


SUM = sp.Sum(sp.exp(u[r, q]), q)
NORM = sp.sqrt(sp.Sum(u[r, q] ** 2, q))
OTHER_WORDS: dict[str, tuple[jc.Layer, str]] = {
    "softmax": (nested(sp.exp(u[r, p]) / SUM), "w[r,p] δ(r,m) (δ(p,j) - w[r,j])"),
    "softmax in steps": (
        nested(mid[r, p] / total[r], steps=[sp.Eq(mid[r, p], sp.exp(u[r, p])), sp.Eq(total[r], sp.Sum(mid[r, q], q))]),
        "w[r,p] δ(r,m) (δ(p,j) - w[r,j])",
    ),
    "log_softmax": (nested(sp.log(sp.exp(u[r, p]) / SUM)), "δ(r,m) (δ(p,j) - exp(w[r,j]))"),
    "l2_normalize": (nested(u[r, p] / NORM), "δ(r,m) (δ(p,j) - w[r,j] w[r,p]) (Σ_l u[r,l]²)^(-1/2)"),
    "sigmoid": (nested(1 / (1 + sp.exp(-u[r, p]))), "w[r,p] δ(p,j) δ(r,m) (1 - w[r,p])"),
    "tanh": (nested(sp.tanh(u[r, p])), "δ(p,j) δ(r,m) (1 - w[r,p]²)"),
}


@pytest.mark.parametrize("name", OTHER_WORDS)
def test_one_nested_expression_in_other_names_derives_as_well(name: str) -> None:
    layer, text = OTHER_WORDS[name]
    assert layer.jacobian().text == text
