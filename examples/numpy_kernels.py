"""Kernels in a NumPy program: Newton's method on a logistic regression, its Hessian-vector products derived.

python examples/numpy_kernels.py
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Eq, Max, Sum, exp, log

import jaccomp as jc

N, D = jc.size("N"), jc.size("D")
n, k, j = jc.index("n", N), jc.index("k", D), jc.index("j", D)
x, w, sign = jc.tensor("x", N, D), jc.tensor("w", D), jc.tensor("sign", N)
z, loss = jc.tensor("z", N), jc.tensor("loss")
ridge = jc.scalar("ridge", default=0.1)

logistic = jc.Layer(
    "logistic",
    inputs=[w, x, sign],
    scalars=[ridge],
    outputs=[loss],
    equations=[
        Eq(z[n], -sign[n] * Sum(x[n, k] * w[k], k)),
        Eq(loss, Sum(Max(z[n], 0) + log(1 + exp(-abs(z[n]))), n) / N + ridge * Sum(w[j] ** 2, j)),
    ],
    doc="The regularised log-loss of a linear classifier (Cox, 1958).",
)


Floats = NDArray[np.float64]


def newton(points: Floats, signs: Floats, steps: int = 8) -> tuple[Floats, list[float]]:
    """The minimiser, and the norm of the gradient at each step."""
    kernel = jc.compile(logistic)
    hessian = jc.compile(logistic.vjp().jvp())  # (w, ..., ct), (t_w, ...) -> the gradient, and H t
    at, norms = np.zeros(points.shape[1]), []
    for _ in range(steps):
        _, pullback = kernel.vjp(at, points, signs, wrt="w")
        gradient, *_ = pullback()
        norms.append(float(np.linalg.norm(gradient)))
        rows = [_times(hessian, at, points, signs, direction) for direction in np.eye(len(at))]
        at = at - np.linalg.solve(np.array(rows), gradient)
    return at, norms


def _times(hessian: Any, at: Floats, points: Floats, signs: Floats, direction: Floats) -> Floats:
    """The Hessian times a direction in w; nothing else moves."""
    one, zero = np.float64(1), np.float64(0)
    results = hessian(at, points, signs, one, direction, 0 * points, 0 * signs, zero)
    product: Floats = results.t_ct_w
    return product


def main() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 5))
    signs = np.sign(points @ np.array([1.0, -2.0, 0.5, 0.0, 1.5]) + 0.3 * rng.normal(size=200))
    at, norms = newton(points, signs)
    print("gradient norms:", *(f"{norm:.1e}" for norm in norms))
    print("right:", f"{np.mean(np.sign(points @ at) == signs):.1%}")


if __name__ == "__main__":
    main()
