"""The order-to-chaos line of random networks, measured and by theory (Poole et al., 2016; Schoenholz et al., 2017).

    python examples/order_to_chaos.py [-o DIR] [--width N] [--draws N]

Tangents are sent through random networks by the layers' own JVPs; their growth per layer is χ, and where it passes 1 is
the line. Pairs of inputs are sent through by the forward kernels; their correlation goes to its fixed point over a
depth ξ_c, which is greatest at the line. With -o it writes the numbers as JSON, and a plot.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.activation import activation
from jaccomp.analysis.model import Model
from jaccomp.analysis.result import Result
from jaccomp.analysis.theory import Maps, critical_scales, critical_sigma_w, fixed_length, mean_field

SEED = 20161107
DEPTH = 24
SETTLED = 6  # layers after which lengths are at their fixed point


@dataclass(frozen=True)
class Growth(Result):
    """χ measured at one σ_w and σ_b, with its standard error over `samples`, one a draw, beside the theory's."""

    activation: str
    sigma_w: float
    sigma_b: float
    chi: float
    error: float
    theory: float
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Decay(Result):
    """The correlation of two inputs by layer: measured, with standard errors, and by iterating the correlation map.

    `depth` is the ξ_c that fits the measured approach to the fixed point, with `depth_error` by the jackknife over
    draws, `fitted` that of the map's over the same layers, and `theory` the slope's at the fixed point itself.
    """

    activation: str
    sigma_w: float
    sigma_b: float
    correlations: tuple[float, ...]
    errors: tuple[float, ...]
    expected: tuple[float, ...]
    depth: float
    depth_error: float
    fitted: float
    theory: float


def network(name: str, depth: int = DEPTH) -> Model:
    """`depth` times a linear layer and the activation, without parameters yet."""
    stages = {}
    for k in range(1, depth + 1):
        stages[f"fc{k}"], stages[f"act{k}"] = L.linear, L.get(name)
    return Model(jc.chain(name, **stages))


def drawn(model: Model, sigma_w: float, sigma_b: float, width: int, rng: np.random.Generator) -> Model:
    """The model with Gaussian weights and biases."""
    parameters = {}
    for k in range(1, len(model.chain.stages) // 2 + 1):
        parameters[f"fc{k}_W"] = sigma_w / math.sqrt(width) * rng.standard_normal((width, width))
        parameters[f"fc{k}_b"] = sigma_b * rng.standard_normal(width)
    return model.having(parameters)


def names(model: Model) -> list[str]:
    """The chain's names of its input and of each activation's output."""
    outputs = [one.outputs["y"] for one in model.chain.stages if one.layer is not L.linear]
    return [model.chain.stages[0].inputs["x"], *outputs]


def settled(name: str, sigma_w: float, sigma_b: float) -> tuple[Maps, float]:
    """The maps, and the fixed point of the length map, or a small length where signals die out."""
    maps = Maps(activation(name), sigma_w, sigma_b)
    fixed = fixed_length(maps, 1.0)
    return maps, fixed if 1e-6 < fixed < math.inf else 1e-6 + sigma_b**2


def predicted_chi(name: str, sigma_w: float, sigma_b: float) -> float:
    maps, q = settled(name, sigma_w, sigma_b)
    return maps.chi(q)


def measure_growth(model: Model, sigma_w: float, sigma_b: float, width: int, draws: int, batch: int = 8) -> Growth:
    """χ as the ratio of the mean squares of tangents after a layer and before it, over layers, tangents and draws."""
    name = model.name
    maps, q = settled(name, sigma_w, sigma_b)
    scale = math.sqrt(max(q - sigma_b**2, 1e-12)) / sigma_w
    ratios = []
    for draw in range(draws):
        rng = np.random.default_rng([SEED, draw])
        at = drawn(model, sigma_w, sigma_b, width, rng).at(scale * rng.standard_normal((batch, width)))
        tangent = rng.standard_normal((batch, width))
        each = []
        tensors = names(model)
        for before, after in itertools.pairwise(tensors):
            moved = at.jvp({before: tangent}, after)
            each.append(np.sum(moved**2) / np.sum(tangent**2))
            tangent = moved
        ratios.append(np.mean(each[SETTLED:]))
    error = float(np.std(ratios, ddof=1)) / math.sqrt(draws)
    return Growth(name, sigma_w, sigma_b, float(np.mean(ratios)), error, maps.chi(q), tuple(ratios))


def crossing(growths: Sequence[Growth]) -> tuple[float, float]:
    """σ_w where a parabola through log χ over σ_w passes 0: what was measured of the line at one σ_b.

    The draws at all σ_w being the same, its standard error is the jackknife's over them.
    """
    w = np.array([one.sigma_w for one in growths])
    samples = np.array([one.samples for one in growths])
    draws = samples.shape[1]

    def root(values: np.ndarray) -> float:
        found = np.roots(np.polyfit(w - w.mean(), np.log(values), 2))
        return float(w.mean() + found[np.argmin(np.abs(found))].real)

    left = [root(np.delete(samples, k, axis=1).mean(axis=1)) for k in range(draws)]
    return root(samples.mean(axis=1)), math.sqrt((draws - 1) * float(np.var(left)))


def measure_decay(
    model: Model, sigma_w: float, sigma_b: float, width: int, draws: int, first: float = 0.6, pairs: int = 16
) -> Decay:
    """Send pairs of inputs of correlation `first` through the network, and see how it nears its fixed point."""
    name = model.name
    (maps, q), field = settled(name, sigma_w, sigma_b), mean_field(name, sigma_w, sigma_b)
    # Inputs that give pre-activations of length q and correlation `first` after the first linear layer.
    along = (q - sigma_b**2) / sigma_w**2
    cosine = (first * q - sigma_b**2) / (sigma_w**2 * along)
    each = []
    for draw in range(draws):
        rng = np.random.default_rng([SEED, draw, 1])
        u, v = (_directions(rng, pairs, width) for _ in range(2))
        v = v - np.sum(u * v, axis=1, keepdims=True) * u
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        two = np.concatenate([u, cosine * u + math.sqrt(1 - cosine**2) * v]) * math.sqrt(width * along)
        at = drawn(model, sigma_w, sigma_b, width, rng).at(two)
        hidden = [at.values[one.outputs["y"]] for one in model.chain.stages if one.layer is L.linear]
        each.append([_correlation(h[:pairs], h[pairs:]) for h in hidden])
    measured, errors = np.mean(each, axis=0), np.std(each, axis=0, ddof=1) / math.sqrt(draws)
    expected = [first]
    while len(expected) < len(measured):
        expected.append(maps.correlation(expected[-1], q))
    told = np.abs(np.array(expected) - field.correlation)
    clear = (told > 5 * errors) & (told > 1e-10)
    last = len(clear) if clear.all() else int(np.argmin(clear))
    window = slice(min(2, last // 3), last)
    without = [(draws * measured - one) / (draws - 1) for one in each]  # the jackknife: each draw left out
    left = np.array([fitted_depth(np.abs(one - field.correlation), window) for one in without])
    error = math.sqrt((draws - 1) * float(np.var(left)))
    depth = fitted_depth(np.abs(measured - field.correlation), window)
    sizes = (depth, error, fitted_depth(told, window), field.correlation_depth)
    return Decay(name, sigma_w, sigma_b, tuple(measured), tuple(errors), tuple(expected), *sizes)


def fitted_depth(away: np.ndarray, window: slice) -> float:
    """The layers over which a distance falls by a factor e, by a line through its logarithm in a window of layers."""
    return float(-1 / np.polyfit(np.arange(len(away))[window], np.log(away[window]), 1)[0])


def _directions(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    found = rng.standard_normal((count, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The mean product over the root of the mean squares, of all pairs together."""
    return float(np.sum(one * other) / math.sqrt(np.sum(one**2) * np.sum(other**2)))


def phase_figure(
    name: str, growths: Sequence[Growth], decays: Sequence[Decay], lines: Sequence[tuple[float, float, float]]
) -> tuple[Any, dict[str, Any]]:
    """The plane of σ_w and σ_b with the line, χ over σ_w, correlations by layer, and depth scales over σ_w.

    `lines` holds (σ_b, σ_w, error) of measured crossings.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    (plane, chi), (pairs, depths) = figure.subplots(2, 2)

    top = max(b for b, _, _ in lines) * 1.25
    w, b = np.linspace(0.6, 2.6, 31), np.linspace(0.0, top, 11)
    rates = np.array([[math.log(predicted_chi(name, x, y)) for x in w] for y in b])
    limit = float(np.abs(rates).max())
    drawn_plane = plane.contourf(w, b, rates, np.linspace(-limit, limit, 25), cmap="RdBu_r")
    figure.colorbar(drawn_plane, ax=plane, label="log χ: gradients vanish (blue) or explode (red)")
    line_w, line_b = critical_scales(name, np.geomspace(1e-8, 12, 200))
    plane.plot(line_w, line_b, color="black", label="χ = 1, theory")
    plane.errorbar(
        [one[1] for one in lines],
        [one[0] for one in lines],
        xerr=[one[2] for one in lines],
        fmt="o",
        color="white",
        markeredgecolor="black",
        ecolor="black",
        label="χ = 1, measured by tangents",
    )
    plane.set(xlabel="σ_w", ylabel="σ_b", xlim=(w[0], w[-1]), ylim=(0, top), title=f"{name}: order and chaos")
    plane.legend(loc="lower right", fontsize="small")

    biases = sorted({one.sigma_b for one in growths})
    colours = [f"C{k}" for k in range(len(biases))]
    for colour, bias in zip(colours, biases, strict=True):
        some = [one for one in growths if one.sigma_b == bias]
        chi.plot(w, [predicted_chi(name, x, bias) for x in w], color=colour)
        chi.errorbar(
            [one.sigma_w for one in some],
            [one.chi for one in some],
            yerr=[one.error for one in some],
            fmt="o",
            markersize=4,
            color=colour,
            label=f"σ_b = {bias:g}",
        )
    chi.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    chi.set(xlabel="σ_w", ylabel="χ, growth of a tangent's mean square", title="χ: theory (lines), measured (dots)")
    chi.legend(fontsize="small")

    for k, one in enumerate(decays[:: max(1, len(decays) // 5)]):
        layers = np.arange(1, len(one.correlations) + 1)
        pairs.plot(layers, one.expected, color=f"C{k}")
        pairs.errorbar(
            layers, one.correlations, yerr=one.errors, fmt=".", color=f"C{k}", label=f"σ_w = {one.sigma_w:.2f}"
        )
    pairs.set(xlabel="layer", ylabel="correlation of two inputs", title="two inputs: correlation map and measured")
    pairs.set_ylim(-0.35, 1.03)
    pairs.legend(fontsize="small", ncols=3, loc="lower right")

    bias = decays[0].sigma_b
    fine = np.linspace(decays[0].sigma_w, decays[-1].sigma_w, 60)
    fields = [mean_field(name, x, bias) for x in fine]
    depths.plot(fine, [min(f.correlation_depth, 1e3) for f in fields], color="C0", label="ξ_c, theory")
    depths.plot(fine, [min(f.gradient_depth, 1e3) for f in fields], color="C1", label="1/|log χ|, theory")
    depths.errorbar(
        [d.sigma_w for d in decays],
        [d.depth for d in decays],
        yerr=[d.depth_error for d in decays],
        fmt="o",
        color="C0",
        label="ξ_c, measured",
    )
    fitted = [d.fitted for d in decays]
    depths.plot(
        [d.sigma_w for d in decays], fitted, "_", markersize=12, color="C0", label="ξ_c of the map, fitted alike"
    )
    depths.axvline(critical_sigma_w(name, bias), color="grey", linewidth=0.8, linestyle="--")
    depths.set(xlabel="σ_w", ylabel="depth scale in layers", yscale="log", ylim=(0.5, 300))
    depths.set_title(f"depth scales at σ_b = {bias:g}")
    depths.legend(fontsize="small")

    numbers = {
        "activation": name,
        "line": [{"sigma_b": b, "sigma_w": x, "error": e, "theory": critical_sigma_w(name, b)} for b, x, e in lines],
        "growth": [one.plain() for one in growths],
        "decay": [one.plain() for one in decays],
    }
    return figure, numbers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help="folder for order_to_chaos.json and .png")
    parser.add_argument("--activation", default="tanh", choices=["tanh", "hardtanh"])
    parser.add_argument("--width", type=int, default=400)
    parser.add_argument("--draws", type=int, default=6)
    options = parser.parse_args(arguments)
    if options.draws < 2:
        parser.error("standard errors need 2 draws or more")
    name, size = options.activation, (options.width, options.draws)
    model = network(name)
    growths, lines = [], []
    for bias in (0.05, 0.2, 0.4):
        near = critical_sigma_w(name, bias)
        some = [measure_growth(model, near + step, bias, *size) for step in (-0.05, -0.025, 0.0, 0.025, 0.05)]
        lines.append((bias, *crossing(some)))
        growths += some + [measure_growth(model, w, bias, *size) for w in (0.8, 1.75, 2.0, 2.5)]
        print(f"σ_b {bias:4.2f}: χ = 1 at σ_w {lines[-1][1]:.4f} ± {lines[-1][2]:.4f}, by theory {near:.4f}")
    decays = [measure_decay(model, w, 0.2, *size) for w in (0.7, 0.85, 1.0, 1.15, 1.6, 1.8, 2.0, 2.25, 2.5)]
    for one in decays:
        measured = f"{one.depth:6.2f} ± {one.depth_error:4.2f}"
        print(f"σ_w {one.sigma_w:4.2f}, σ_b {one.sigma_b}: ξ_c {measured}, {one.fitted:6.2f} by the map")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        figure, numbers = phase_figure(name, growths, decays, lines)
        figure.savefig(options.output / "order_to_chaos.png", dpi=150)
        (options.output / "order_to_chaos.json").write_text(json.dumps(numbers, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
