"""Products, distances and angles of vectors."""

from __future__ import annotations

from sympy import Eq, Sum, sqrt

from jaccomp.layer import Layer
from jaccomp.notation import index, size, tensor

N = size("N", axes="any", typical=4096)
D, O, M = size("D", typical=1024), size("O", typical=1024), size("M", typical=256)  # noqa: E741 - the output's size
E = size("E", typical=256)
P = size("P", typical=512)
n, i, j, k = index("n", N), index("i", D), index("j", E), index("k", D)
o, m, p = index("o", O), index("m", M), index("p", P)
x, z = tensor("x z", N, D)
W, b = tensor("W", O, D), tensor("b", O)
y, row = tensor("y", N, O), tensor("y", N)

linear = Layer(
    "linear",
    inputs=[x, W, b],
    outputs=[y],
    equations=[Eq(y[n, o], Sum(W[o, k] * x[n, k], k) + b[o])],
    doc="Affine map of the last axis, y = W x + b (Rosenblatt, 1958).",
)

other = tensor("z", N, E)
W3 = tensor("W", O, D, E)
bilinear = Layer(
    "bilinear",
    inputs=[x, other, W3, b],
    outputs=[y],
    equations=[Eq(y[n, o], Sum(x[n, k] * W3[o, k, j] * other[n, j], k, j) + b[o])],
    doc="Bilinear map of two vectors, y = xᵀ W z + b (Tenenbaum and Freeman, 2000).",
)

A = tensor("A", D, D)
quadratic = Layer(
    "quadratic",
    inputs=[x, A],
    outputs=[row],
    equations=[Eq(row[n], Sum(x[n, i] * A[i, k] * x[n, k], i, k))],
    doc="Quadratic form, y = xᵀ A x (Gauss, 1801).",
)

left, right, product = tensor("x", N, P, D), tensor("z", N, D, M), tensor("y", N, P, M)
matmul = Layer(
    "matmul",
    inputs=[left, right],
    outputs=[product],
    equations=[Eq(product[n, p, m], Sum(left[n, p, k] * right[n, k, m], k))],
    doc="Product of two batches of matrices (Cayley, 1858).",
)

dot = Layer(
    "dot",
    inputs=[x, z],
    outputs=[row],
    equations=[Eq(row[n], Sum(x[n, k] * z[n, k], k))],
    doc="Inner product over the last axis (Grassmann, 1847).",
)

norm_x, norm_z, similarity = tensor("norm_x norm_z y", N)
cosine_similarity = Layer(
    "cosine_similarity",
    inputs=[x, z],
    outputs=[similarity],
    equations=[
        Eq(norm_x[n], sqrt(Sum(x[n, k] ** 2, k))),
        Eq(norm_z[n], sqrt(Sum(z[n, k] ** 2, k))),
        Eq(similarity[n], Sum(x[n, k] * z[n, k], k) / (norm_x[n] * norm_z[n])),
    ],
    doc="Cosine of the angle between two vectors (Salton, Wong and Yang, 1975).",
)

points, centres, distance = tensor("x", N, D), tensor("z", M, D), tensor("y", N, M)
squared_distance = Layer(
    "squared_distance",
    inputs=[points, centres],
    outputs=[distance],
    equations=[Eq(distance[n, m], Sum((points[n, k] - centres[m, k]) ** 2, k))],
    doc="Squared Euclidean distance of every point to every centre (Lloyd, 1982).",
)
