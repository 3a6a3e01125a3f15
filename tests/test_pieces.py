"""Left sides in mixed radix: accepted where they provably write each element once, else refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Eq

from jaccomp.errors import SpecError
from jaccomp.layer import Layer
from jaccomp.notation import index, size, tensor
from jaccomp.reference.interpreter import evaluate

G, K, N = size("G K N")
g, k, n = index("g", G), index("k", K), index("n", N)
below = index("k", g + 1)


def layer(written: tuple[Any, ...], shape: tuple[Any, ...], read: tuple[Any, ...], extents: tuple[Any, ...]) -> Layer:
    """`y[written] = x[read]`, y of `shape` and x of `extents`."""
    x, y = tensor("x", *extents), tensor("y", *shape)
    return Layer("unfold", inputs=[x], outputs=[y], equations=[Eq(y[written], x[read])])


@pytest.mark.parametrize(
    ("written", "order"),
    [(K * N * g + N * k + n, (0, 1, 2)), (G * K * n + G * k + g, (2, 1, 0)), (K * N * g + K * n + k, (0, 2, 1))],
)
def test_digits_in_any_order(written: Any, order: tuple[int, ...]) -> None:
    program = layer((written,), (G * K * N,), (g, k, n), (G, K, N)).program
    x = np.arange(24.0).reshape(2, 3, 4)
    numbers = {s.name: {"G": 2, "K": 3, "N": 4}[program.labels.name(s.name)] for s in program.sizes}
    assert np.array_equal(evaluate(program, {"x0": x}, numbers)["v0"], x.transpose(order).ravel())


@pytest.mark.parametrize(
    ("written", "shape", "read", "extents"),
    [
        ((g + k,), (G * K,), (g, k), (G, K)),
        ((K * g + k + 1,), (G * K,), (g, k), (G, K)),
        ((G * g + k,), (G * K,), (g, k), (G, K)),
        ((G * g + below,), (G * G,), (g, below), (G, G)),
        ((K * g + k, K * g + k), (G * K, G * K), (g, k), (G, K)),
    ],
    ids=["overlap", "shifted", "wrong radix", "triangle", "diagonal"],
)
def test_what_does_not_partition_is_refused(written: Any, shape: Any, read: Any, extents: Any) -> None:
    with pytest.raises(SpecError, match=r"layer 'unfold', equation y\[.*on the left is|cannot be proved to cover"):
        _ = layer(written, shape, read, extents).program
