"""What the tests of the command line share: a spec file, and the type of the fixture that runs a command."""

from __future__ import annotations

from collections.abc import Callable

SPECS = """\
from sympy import Eq

import jaccomp as jc
from jaccomp.layers import relu
from neighbour import FACTOR

print("a spec file may speak")
N = jc.size("N")
n = jc.index("n", N)
x, y = jc.tensor("x y", N)
double = jc.Layer("double", inputs=[x], outputs=[y], equations=[Eq(y[n], FACTOR * x[n])], doc="Twice.")
again = double
square = jc.Layer("square", inputs=[x], outputs=[y], equations=[Eq(y[n], x[n] ** 2)], doc="The square.")
"""
Run = Callable[..., tuple[int, str, str]]
"""The exit code, stdout and stderr of the words of a command line."""
