"""Deep linear networks learn one mode after another, as in closed form (Saxe, McClelland and Ganguli, 2014).

    python examples/learning_dynamics.py [-o DIR] [--rate LR]

A chain of linear layers is trained by gradient descent, its gradients being the VJPs of the layers' own kernels, on
inputs whose correlations are the identity and targets that are a linear map of four singular values. The strength with
which the network has learned each is compared over time with the closed form: to the order of the step size where the
weights start aligned with the map, and in shape where they start small and random. With -o it writes the numbers as
JSON, and a plot.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.linear_dynamics import strength
from jaccomp.analysis.model import Model
from jaccomp.analysis.result import Result
from jaccomp.errors import UsageError

SEED = 20131220
STRENGTHS = (4.0, 3.0, 2.0, 1.0)
INPUTS, HIDDEN, OUTPUTS = 16, 24, 12


@dataclass(frozen=True)
class Task:
    """Inputs x [samples, INPUTS] with xᵀx/samples = 1, and targets x Σᵀ, Σ = U diag(s) Vᵀ."""

    x: np.ndarray
    targets: np.ndarray
    U: np.ndarray
    V: np.ndarray


@dataclass(frozen=True)
class Learning(Result):
    """The strength of each mode by time: `measured` and by the closed form, `predicted`, both [times, modes].

    `started` says how the weights were: "aligned" with the task, or "random".
    """

    layers: int
    started: str
    rate: float
    times: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray

    @property
    def distance(self) -> float:
        """The greatest difference, relative to the strongest mode."""
        return float(np.abs(self.measured - self.predicted).max() / max(STRENGTHS))


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """[rows, columns] with orthonormal columns."""
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def task(rng: np.random.Generator) -> Task:
    x = math.sqrt(INPUTS) * orthonormal(rng, INPUTS, INPUTS)
    U, V = orthonormal(rng, OUTPUTS, len(STRENGTHS)), orthonormal(rng, INPUTS, len(STRENGTHS))
    return Task(x, x @ (U * STRENGTHS @ V.T).T, U, V)


def network(layers: int) -> Model:
    """A chain of linear layers, without parameters yet."""
    return Model(jc.chain("deep_linear", **{f"fc{k}": L.linear for k in range(1, layers + 1)}))


def aligned(rng: np.random.Generator, given: Task, layers: int, start: float) -> dict[str, np.ndarray]:
    """Weights whose product is U diag(start) Vᵀ, of one strength in each layer; biases are 0."""
    bases = [given.V, *(orthonormal(rng, HIDDEN, len(STRENGTHS)) for _ in range(layers - 1)), given.U]
    return {f"fc{k}_W": start ** (1 / layers) * bases[k] @ bases[k - 1].T for k in range(1, layers + 1)}


def random(rng: np.random.Generator, layers: int, scale: float) -> dict[str, np.ndarray]:
    """Weights with entries N(0, scale²)."""
    sizes = [INPUTS, *([HIDDEN] * (layers - 1)), OUTPUTS]
    return {f"fc{k}_W": scale * rng.standard_normal((sizes[k], sizes[k - 1])) for k in range(1, layers + 1)}


def train(
    model: Model, given: Task, weights: Mapping[str, np.ndarray], rate: float, until: float, records: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the strength of each mode [times, modes], by gradient descent on the mean of ‖y - target‖²/2."""
    weights = dict(weights)
    biases = {name.replace("_W", "_b"): np.zeros(len(W)) for name, W in weights.items()}
    steps = math.ceil(until / rate)
    every = max(1, steps // records)
    times, strengths = [], []
    for step in range(steps + 1):
        if step % every == 0:
            product = np.linalg.multi_dot([*reversed(weights.values())]) if len(weights) > 1 else weights["fc1_W"]
            times.append(step * rate)
            strengths.append(np.diag(given.U.T @ product @ given.V))
        at = model.having({**weights, **biases}).at(given.x)
        cotangent = (at.values[model.outputs[0]] - given.targets) / len(given.x)
        gradients = {name: at.vjp({model.outputs[0]: cotangent}, name) for name in weights}
        weights = {name: W - rate * gradients[name] for name, W in weights.items()}
    return np.array(times), np.array(strengths)


def learn_aligned(layers: int, *, rate: float, start: float = 0.01, until: float = 6.0) -> Learning:
    """Training from aligned weights, beside the closed form from the same start."""
    rng = np.random.default_rng([SEED, layers])
    given = task(rng)
    times, measured = train(network(layers), given, aligned(rng, given, layers, start), rate, until)
    predicted = np.stack([strength(times, s, start, layers) for s in STRENGTHS], axis=1)
    return Learning(layers, "aligned", rate, times, measured, predicted)


def learn_random(layers: int, *, rate: float, scale: float = 0.002, until: float = 9.0) -> Learning:
    """Training from small random weights, beside the closed form that passes half strength at the same time.

    How long a mode waits depends on the draw; how it then rises does not.
    """
    rng = np.random.default_rng([SEED, layers, 1])
    given = task(rng)
    times, measured = train(network(layers), given, random(rng, layers, scale), rate, until, records=120)
    start, columns = 1e-6, []
    for s, u in zip(STRENGTHS, measured.T, strict=True):
        if not (np.isfinite(u).all() and u.max() > s / 2):
            raise UsageError("deep linear network", f"its mode of strength {s:g} was not learned.", "Lower the rate.")
        after = int(np.argmax(u > s / 2))
        half = np.interp(s / 2, u[after - 1 : after + 1], times[after - 1 : after + 1])
        clock = np.linspace(0.0, 400.0 / s, 200001)
        risen = np.interp(s / 2, strength(clock, s, start, layers), clock)
        columns.append(strength(np.maximum(times - half + risen, 0.0), s, start, layers))
    return Learning(layers, "random", rate, times, measured, np.stack(columns, axis=1))


def dynamics_figure(learned: Sequence[Learning]) -> tuple[Any, list[dict[str, Any]]]:
    """A panel for each training: closed forms as lines, measured strengths as dots; and the numbers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(learned) + 0.8, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(learned), squeeze=False, sharey=True)[0]
    for axis, one in zip(axes, learned, strict=True):
        for k, s in enumerate(STRENGTHS):
            axis.plot(one.times, one.predicted[:, k], color=f"C{k}", linewidth=1.3, label=f"s = {s:g}")
            axis.plot(one.times[::2], one.measured[::2, k], "o", color=f"C{k}", markersize=3, alpha=0.7)
            axis.axhline(s, color=f"C{k}", linewidth=0.5, linestyle=":")
        word = "layer" if one.layers == 1 else "layers"
        axis.set(title=f"{one.layers} {word}, {one.started} start", xlabel="time (steps × rate)")
    axes[0].set_ylabel("strength learned of each mode")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle("trained by the kernels' VJPs (dots), closed form (lines)")
    return figure, [{**one.plain(), "distance": one.distance} for one in learned]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help="folder for learning_dynamics.json and .png")
    parser.add_argument("--rate", type=float, default=2e-3, help="the step size")
    options = parser.parse_args(arguments)
    learned = [learn_aligned(layers, rate=options.rate) for layers in (1, 2, 3)]
    learned.append(learn_random(2, rate=options.rate))
    for one in learned:
        print(f"{one.layers} layers, {one.started} start: at most {one.distance:.2%} of {max(STRENGTHS):g} apart")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        figure, numbers = dynamics_figure(learned)
        figure.savefig(options.output / "learning_dynamics.png", dpi=150)
        (options.output / "learning_dynamics.json").write_text(json.dumps(numbers, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
