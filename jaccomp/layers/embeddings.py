"""Tables read by integer ids, and positions."""

from __future__ import annotations

from sympy import Eq, Sum, cos, sin

from jaccomp.layer import Layer
from jaccomp.notation import index, scalar, size, tensor

N = size("N", axes="any", typical=4096)
T, L = size("T", typical=512), size("L", typical=16)
V, D, P = size("V", typical=32768), size("D", typical=512), size("P", typical=32)
n, t, d, p = index("n", N), index("t", T), index("d", D), index("p", P)
m = index("m", L)
table = tensor("table", V, D)
ids, bags = tensor("ids", N, dtype="int64"), tensor("ids", N, L, dtype="int64")
y = tensor("y", N, D)

embedding = Layer(
    "embedding",
    inputs=[ids, table],
    outputs=[y],
    equations=[Eq(y[n, d], table[ids[n], d])],
    doc="A row of a table for each id (Bengio et al., 2003).",
)

embedding_bag = Layer(
    "embedding_bag",
    inputs=[bags, table],
    outputs=[y],
    equations=[Eq(y[n, d], Sum(table[bags[n, m], d], m))],
    doc="The sum of the rows of each bag of ids (Joulin et al., 2017).",
)

sequence, placed, positions = tensor("x", N, T, D), tensor("y", N, T, D), tensor("table", T, D)
positional_embedding = Layer(
    "positional_embedding",
    inputs=[sequence, positions],
    outputs=[placed],
    equations=[Eq(placed[n, t, d], sequence[n, t, d] + positions[t, d])],
    doc="A learned vector for each position, added (Gehring et al., 2017).",
)

x, rotated, angle = tensor("x", N, T, 2 * P), tensor("y", N, T, 2 * P), tensor("angle", T, P)
base = scalar("base", default=10000.0)
offset = scalar("offset", default=0, dtype="int64")
rope = Layer(
    "rope",
    inputs=[x],
    scalars=[base, offset],
    outputs=[rotated],
    equations=[
        Eq(angle[t, p], (t + offset) * base ** (-p / P)),
        Eq(rotated[n, t, 2 * p], x[n, t, 2 * p] * cos(angle[t, p]) - x[n, t, 2 * p + 1] * sin(angle[t, p])),
        Eq(rotated[n, t, 2 * p + 1], x[n, t, 2 * p] * sin(angle[t, p]) + x[n, t, 2 * p + 1] * cos(angle[t, p])),
    ],
    doc="Rotary position embedding of neighbouring pairs, from position `offset` on (Su et al., 2021).",
)
