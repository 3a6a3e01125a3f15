"""A network trained in forty lines: each layer's kernel gives its value and the pullback that takes the next one's.

    python examples/train_digits.py

It needs scikit-learn, for the digits.
"""

import numpy as np
from sklearn.datasets import load_digits

import jaccomp as jc

HIDDEN, EPOCHS, BATCH, RATE, MOMENTUM = 128, 20, 32, 0.05, 0.9


def train(seed: int = 0) -> float:
    """The share of 360 unseen digits that the trained network tells right."""
    linear, silu, rmsnorm, loss = (jc.compile(name) for name in ("linear", "silu", "rmsnorm", "cross_entropy"))
    rng = np.random.default_rng(seed)
    images, labels = load_digits(return_X_y=True)
    x, labels = (images / 8 - 1).astype(np.float32), labels.astype(np.int64)
    unseen, seen = np.split(rng.permutation(len(x)), [360])

    shapes = {"W": (HIDDEN, 64), "b": (HIDDEN,), "g": (HIDDEN,), "V": (10, HIDDEN), "c": (10,)}
    p = {name: rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    velocity = {name: np.zeros_like(value) for name, value in p.items()}
    for epoch in range(EPOCHS):
        rate = RATE * (1 - epoch / EPOCHS)
        for batch in np.array_split(rng.permutation(seen), len(seen) // BATCH):
            h, from_h = linear.vjp(x[batch], p["W"], p["b"], wrt=("W", "b"), threads=1)
            n, from_n = rmsnorm.vjp(h, p["g"], threads=1)
            a, from_a = silu.vjp(n, threads=1)
            z, from_z = linear.vjp(a, p["V"], p["c"], threads=1)
            _, from_loss = loss.vjp(z, labels[batch], threads=1)

            dz, _ = from_loss()
            da, dV, dc = from_z(dz)
            dh, dg = from_n(*from_a(da))
            _, dW, db = from_h(dh)
            for name, gradient in {"W": dW, "b": db, "g": dg, "V": dV, "c": dc}.items():
                velocity[name] = MOMENTUM * velocity[name] - rate * gradient
                p[name] += velocity[name]

    hidden = silu(rmsnorm(linear(x[unseen], p["W"], p["b"]), p["g"]))
    return float((linear(hidden, p["V"], p["c"]).argmax(axis=1) == labels[unseen]).mean())


if __name__ == "__main__":
    print(f"{train():.1%} of the unseen digits")
