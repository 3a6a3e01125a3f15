"""The demonstration's network: linear -> layernorm -> gelu -> linear -> cross_entropy on scikit-learn's digits.

    trained = train(kernels, load_digits(), report)
    model = classifier(trained)                 pixels in 0..1 -> scores, as a model to analyse, in float64

Every value and every cotangent comes out of a generated kernel; NumPy only draws batches and takes Adam's steps. One
thread runs it: a batch is too small to share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jaccomp.analysis.model import Model

Floats = NDArray[np.float32]
Parameters = dict[str, Floats]

LAYERS = ("linear", "layernorm", "gelu", "cross_entropy")
"""The layers of the network, by their names in the library."""
CHAIN = "linear -> layernorm -> gelu -> linear -> cross_entropy"
HIDDEN, CLASSES, PIXELS = 256, 10, 64
TESTED, SPLIT_SEED, SEED = 360, 0, 0
EPOCHS, BATCH, SHIFTED = 40, 64, 0.5
RATE, DECAY, BETAS, TINY = 3e-3, 1e-2, (0.9, 0.999), 1e-8


@dataclass(frozen=True, slots=True)
class Digits:
    """1797 images of 8 by 8 pixels, flat and in 0..1, in a fixed split: `x` [n, 64], `labels` [n]."""

    x: Floats
    labels: NDArray[np.int64]
    x_test: Floats
    labels_test: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training data came to."""

    number: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Trained:
    """The epochs of a training, the parameters it ended with, and the mean image that is taken from every image."""

    epochs: list[Epoch]
    parameters: Parameters
    mean: Floats


def load_digits() -> Digits:
    """The digits, 360 of them held out."""
    from sklearn.datasets import load_digits as load

    data = load()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.target))
    x, labels = (data.data / 16).astype(np.float32), data.target.astype(np.int64)
    held, used = order[:TESTED], order[TESTED:]
    return Digits(x[used], labels[used], x[held], labels[held])


def initial(rng: np.random.Generator) -> Parameters:
    """Weights of variance 2 / fan-in and 1 / fan-in, biases 0, gains 1."""
    draws: Mapping[str, Any] = {
        "W1": rng.normal(0, np.sqrt(2 / PIXELS), (HIDDEN, PIXELS)),
        "b1": np.zeros(HIDDEN),
        "gain": np.ones(HIDDEN),
        "shift": np.zeros(HIDDEN),
        "W2": rng.normal(0, np.sqrt(1 / HIDDEN), (CLASSES, HIDDEN)),
        "b2": np.zeros(CLASSES),
    }
    return {name: value.astype(np.float32) for name, value in draws.items()}


class Network:
    """The chain of kernels. `kernels` maps a layer's name to its compiled module or Kernel."""

    def __init__(self, kernels: Mapping[str, Any]) -> None:
        self.linear, self.layernorm, self.gelu, self.cross_entropy = (kernels[name] for name in LAYERS)

    def logits(self, x: Floats, p: Parameters) -> Floats:
        h = self.linear.forward(x, p["W1"], p["b1"], threads=1)
        a = self.gelu.forward(self.layernorm.forward(h, p["gain"], p["shift"], threads=1), threads=1)
        result: Floats = self.linear.forward(a, p["W2"], p["b2"], threads=1)
        return result

    def gradient(self, x: Floats, labels: NDArray[np.int64], p: Parameters) -> tuple[float, float, Parameters]:
        """The loss, the share of right answers, and the gradient of the loss: pullbacks in reverse."""
        h, from_h = self.linear.vjp(x, p["W1"], p["b1"], wrt=("W", "b"), threads=1)
        n, from_n = self.layernorm.vjp(h, p["gain"], p["shift"], threads=1)
        a, from_a = self.gelu.vjp(n, threads=1)
        z, from_z = self.linear.vjp(a, p["W2"], p["b2"], threads=1)
        loss, from_loss = self.cross_entropy.vjp(z, labels, threads=1)
        dz, _ = from_loss()
        da, dW2, db2 = from_z(dz)
        (dn,) = from_a(da)
        dh, dgain, dshift = from_n(dn)
        _, dW1, db1 = from_h(dh)
        right = float((z.argmax(axis=1) == labels).mean())
        return float(loss), right, {"W1": dW1, "b1": db1, "gain": dgain, "shift": dshift, "W2": dW2, "b2": db2}

    def accuracy(self, x: Floats, labels: NDArray[np.int64], p: Parameters) -> float:
        return float((self.logits(x, p).argmax(axis=1) == labels).mean())


class Adam:
    """Adam with decoupled weight decay on the matrices and a cosine schedule (Loshchilov and Hutter, 2019)."""

    def __init__(self, parameters: Parameters, steps: int) -> None:
        self.first = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.steps, self.step = steps, 0

    def update(self, parameters: Parameters, gradient: Parameters) -> None:
        self.step += 1
        rate = RATE * (1 + np.cos(np.pi * self.step / self.steps)) / 2
        unbiased = [1 - beta**self.step for beta in BETAS]
        for name, value in parameters.items():
            g, m, v = gradient[name], self.first[name], self.second[name]
            m += (1 - BETAS[0]) * (g - m)
            v += (1 - BETAS[1]) * (g * g - v)
            decay = DECAY * value if value.ndim == 2 else 0
            value -= np.float32(rate) * (m / unbiased[0] / (np.sqrt(v / unbiased[1]) + TINY) + decay)


def shifted(x: Floats, rng: np.random.Generator) -> Floats:
    """Half the images moved by a pixel up, down, left or right, around the edge."""
    images = x.reshape(-1, 8, 8).copy()
    draw = rng.random(len(images)) * 4 / SHIFTED
    for number, (axis, step) in enumerate([(1, 1), (1, -1), (2, 1), (2, -1)]):
        chosen = (draw >= number) & (draw < number + 1)
        images[chosen] = np.roll(images[chosen], step, axis)
    return images.reshape(len(x), -1)


def train(kernels: Mapping[str, Any], data: Digits, report: Callable[[Epoch], None]) -> Trained:
    """Train from a fixed seed, calling `report` after each epoch."""
    network, rng = Network(kernels), np.random.default_rng(SEED)
    mean = data.x.mean(axis=0)
    parameters = initial(rng)
    batches = len(data.x) // BATCH
    adam = Adam(parameters, EPOCHS * batches)
    start, epochs = time.perf_counter(), []
    for number in range(1, EPOCHS + 1):
        order = rng.permutation(len(data.x))[: batches * BATCH].reshape(batches, BATCH)
        losses, rights = [], []
        for batch in order:
            x = shifted(data.x[batch], rng) - mean
            loss, right, gradient = network.gradient(x, data.labels[batch], parameters)
            adam.update(parameters, gradient)
            losses.append(loss)
            rights.append(right)
        accuracy = network.accuracy(data.x_test - mean, data.labels_test, parameters)
        seconds = time.perf_counter() - start
        epochs.append(Epoch(number, float(np.mean(losses)), float(np.mean(rights)), accuracy, seconds))
        report(epochs[-1])
    return Trained(epochs, parameters, mean)


def classifier(trained: Trained, **options: Any) -> Model:
    """The trained network up to its scores: y[n, 10] of images x[n, 64] in 0..1, in float64.

    The mean image is folded into the first bias: W (x - mean) + b = W x + (b - W mean). `options` are those of `Model`.
    """
    from jaccomp import layers
    from jaccomp.analysis.model import Model
    from jaccomp.composition import chain

    linear, layernorm, gelu = (layers.get(name) for name in LAYERS[:3])
    network = chain("digits", fc1=linear, norm=layernorm, act=gelu, fc2=linear)
    p = {name: value.astype(np.float64) for name, value in trained.parameters.items()}
    named = {"fc1_W": "W1", "fc1_b": "b1", "norm_g": "gain", "norm_bias": "shift", "fc2_W": "W2", "fc2_b": "b2"}
    parameters = {name: p[own] for name, own in named.items()}
    parameters["fc1_b"] = p["b1"] - p["W1"] @ trained.mean.astype(np.float64)
    return Model(network, parameters, **options)
