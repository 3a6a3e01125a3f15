"""Singular values of end-to-end Jacobians of random networks, measured and by theory (Pennington et al., 2017, 2018).

    python examples/signal_propagation.py [-o DIR] [--draws N] [--width N]

For networks of linear layers and an activation, with Gaussian or orthogonal weights of scale σ_w and biases of σ_b, it
builds the Jacobian of the last layer by the first input from the layers' own kernels, and compares over many draws the
mean of its squared singular values, their variance, and χ, the growth per layer, with what theory says. A row passes
where they differ by at most three standard errors plus an allowance for the finite width N: none for linear and ReLU
networks, whose moments are known exactly at every width; a share L/N of the moments, and 1/N of χ, for tanh and hard
tanh, whose closed forms hold for N → ∞. With -o it writes the table as JSON, and a plot of the distributions.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.activation import activation
from jaccomp.analysis.model import Model
from jaccomp.analysis.result import Result
from jaccomp.analysis.theory import Maps, critical_sigma_w, mean_field
from jaccomp.analysis.wide_spectra import (
    Ensemble,
    Gates,
    SlopeLaw,
    finite_moments,
    wide_moments,
    wide_spectrum,
)

SEED = 20171112
QUANTITIES = ("mean", "variance", "chi")
EXACT = ("linear", "relu")  # their moments are exact at a finite width


@dataclass(frozen=True)
class Case:
    """An activation, the ensemble of its weights, and the scales of weights and biases."""

    activation: str
    ensemble: Ensemble
    sigma_w: float
    sigma_b: float = 0.0

    @property
    def maps(self) -> Maps:
        return Maps(activation(self.activation), self.sigma_w, self.sigma_b)

    @property
    def first_length(self) -> float:
        """The fixed point q* of the length map, or 1 where it is 0 or infinite."""
        fixed = mean_field(self.activation, self.sigma_w, self.sigma_b).length
        return fixed if 1e-6 < fixed < 1e6 else 1.0


def grid() -> list[Case]:
    """Linear, ReLU, hard tanh and tanh, Gaussian and orthogonal: below, on and above the order-to-chaos line."""
    found = [
        *(Case("linear", "gaussian", w, b) for w, b in ((0.95, 0.1), (1.0, 0.0), (1.05, 0.0))),
        *(Case("linear", "orthogonal", w, b) for w, b in ((0.95, 0.1), (1.0, 0.0))),
        *(Case("relu", "gaussian", w, b) for w, b in ((1.3, 0.3), (math.sqrt(2), 0.0), (1.5, 0.0))),
        *(Case("relu", "orthogonal", w, b) for w, b in ((1.3, 0.3), (math.sqrt(2), 0.0))),
    ]
    for name in ("hardtanh", "tanh"):
        line = critical_sigma_w(name, 0.1)
        found += [Case(name, "gaussian", w, b) for w, b in ((0.9, 0.3), (1.0, 0.0), (line, 0.1), (1.5, 0.2))]
        found += [Case(name, "orthogonal", w, b) for w, b in ((0.9, 0.3), (line, 0.1), (1.5, 0.2))]
    return found


# Measuring, by the kernels


def network(name: str, depth: int) -> jc.Chain:
    """`depth` times a linear layer and the activation; for "linear", the linear layers alone."""
    stages = {}
    for k in range(1, depth + 1):
        stages[f"fc{k}"] = L.linear
        if name != "linear":
            stages[f"act{k}"] = L.get(name)
    return jc.chain(name, **stages)


def unit_draw(rng: np.random.Generator, ensemble: Ensemble, width: int, depth: int) -> list[np.ndarray]:
    """Weights [width, width] of each layer at σ_w = 1: entries N(0, 1/width), or uniform over rotations."""
    found = []
    for _ in range(depth):
        W = rng.standard_normal((width, width))
        if ensemble == "orthogonal":
            W, R = np.linalg.qr(W)
            found.append(W * np.sign(np.diag(R)))  # without the signs, it is not uniform (Mezzadri, 2007)
        else:
            found.append(W / math.sqrt(width))
    return found


def placed(case: Case, model: Model, weights: Sequence[np.ndarray], rng: np.random.Generator) -> Model:
    """The model with these weights and random biases, at the case's scales."""
    parameters = {}
    for k, W in enumerate(weights, 1):
        parameters[f"fc{k}_W"] = case.sigma_w * W
        parameters[f"fc{k}_b"] = case.sigma_b * rng.standard_normal(len(W))
    return model.having(parameters)


def first_input(case: Case, rng: np.random.Generator, width: int) -> np.ndarray:
    """A random direction [1, width], as long as makes the first layer's length the case's."""
    x = rng.standard_normal((1, width))
    return x * math.sqrt(width * (case.first_length - case.sigma_b**2)) / (case.sigma_w * np.linalg.norm(x))


def layer_jacobians(model: Model, x: np.ndarray) -> Iterator[np.ndarray]:
    """D W [width, width] of each layer: its kernels' Jacobians of the activation and of the linear map, at x."""
    at = model.at(x)
    stages = model.chain.stages
    for k, one in enumerate(stages):
        if one.layer is not L.linear:
            continue
        call = [at.values[one.inputs[t.name]] for t in one.layer.spec.inputs]
        W = model.kernels[one.name].jacobian(*call, of="y", wrt="x", form="factors").toarray()
        after = stages[k + 1] if k + 1 < len(stages) else one
        if after.layer is not L.linear:
            slopes = model.kernels[after.name].jacobian(at.values[after.inputs["x"]], form="diagonal")
            W = slopes.reshape(-1, 1) * W
        yield W


def end_to_end(model: Model, x: np.ndarray, depths: Sequence[int]) -> dict[int, tuple[np.ndarray, float]]:
    """Depth -> the Jacobian of that layer's output by x, and the mean square χ of the layers so far."""
    found: dict[int, tuple[np.ndarray, float]] = {}
    J, growth = None, []
    for depth, factor in enumerate(layer_jacobians(model, x), 1):
        J = factor if J is None else factor @ J
        growth.append(np.vdot(factor, factor) / len(factor))
        if depth in depths:
            found[depth] = J, float(np.mean(growth))
    return found


def moments(J: np.ndarray) -> tuple[float, float]:
    """The mean and the variance of the squared singular values, by traces of JJᵀ and its square."""
    gram = J @ J.T
    mean = float(np.trace(gram)) / len(J)
    return mean, float(np.vdot(gram, gram)) / len(J) - mean**2


Samples = Mapping[tuple[Case, int], np.ndarray]


def measure(cases: Sequence[Case], depths: Sequence[int], width: int, draws: int, *, progress: bool = False) -> Samples:
    """(case, depth) -> [draws, 3]: mean, variance and χ of each draw.

    All cases share the draws' unit weights, so that their errors are of one kind, and not independent.
    """
    models = {case.activation: Model(network(case.activation, max(depths))) for case in cases}
    found: dict[tuple[Case, int], list[tuple[float, float, float]]] = {}
    for draw in range(draws):
        for ensemble in sorted({case.ensemble for case in cases}):
            unit = unit_draw(np.random.default_rng([SEED, draw]), ensemble, width, max(depths))
            for case in (one for one in cases if one.ensemble == ensemble):
                rng = np.random.default_rng([SEED, draw, 1])
                model = placed(case, models[case.activation], unit, rng)
                for depth, (J, chi) in end_to_end(model, first_input(case, rng, width), depths).items():
                    found.setdefault((case, depth), []).append((*moments(J), chi))
        if progress and sys.stderr.isatty():
            print(f"\rdraw {draw + 1} of {draws}", end="" if draw + 1 < draws else "\n", file=sys.stderr)
    return {key: np.array(rows) for key, rows in found.items()}


# Comparing with theory


@dataclass(frozen=True)
class Row(Result):
    """One quantity of one case at one depth: measured with its standard error, and by theory with its allowance."""

    case: Case
    depth: int
    quantity: str
    measured: float
    error: float
    theory: float
    allowance: float

    @property
    def passed(self) -> bool:
        return abs(self.measured - self.theory) <= 3 * self.error + self.allowance

    @property
    def errors_off(self) -> float:
        """How many standard errors measurement and theory differ by; 0 where that is rounding."""
        off = self.measured - self.theory
        return 0.0 if abs(off) <= 1e-10 * abs(self.theory) + 1e-12 else off / self.error


@cache
def predicted(case: Case, depth: int, width: int) -> dict[str, tuple[float, float]]:
    """Quantity -> its value by theory and the allowance for a finite width."""
    gates = [Gates.of(case.maps, q) for q in case.maps.lengths(case.first_length, depth)]
    chi = case.sigma_w**2 * float(np.mean([one.first for one in gates]))
    if case.activation in EXACT:
        exact = finite_moments(case.ensemble, case.sigma_w, gates, width)
        values = {"mean": exact.mean, "variance": exact.variance, "chi": chi}
        return {name: (value, 1e-10 * (abs(value) + 1)) for name, value in values.items()}  # rounding alone
    wide = wide_moments(case.ensemble, case.sigma_w, gates)
    return {
        "mean": (wide.mean, wide.mean * depth / width),
        "variance": (wide.variance, wide.variance * depth / width),
        "chi": (chi, chi / width),
    }


def compare(samples: Samples, width: int) -> list[Row]:
    """Every measured quantity beside its prediction."""
    rows = []
    for (case, depth), values in samples.items():
        theory = predicted(case, depth, width)
        errors = values.std(axis=0, ddof=1) / math.sqrt(len(values))
        for name, measured, error in zip(QUANTITIES, values.mean(axis=0), errors, strict=True):
            rows.append(Row(case, depth, name, float(measured), float(error), *theory[name]))
    return sorted(rows, key=lambda r: (QUANTITIES.index(r.quantity), r.depth))


def table(rows: Sequence[Row]) -> str:
    """A line for each case and depth; for each quantity: measured ± standard error, theory, and whether they agree."""
    head = f"{'activation':10} {'weights':10} {'σ_w':>6} {'σ_b':>4} {'L':>3}"
    lines = [head + "".join(f" │ {name:>9} ± error {'theory':>9}   " for name in QUANTITIES)]
    groups: dict[tuple[Case, int], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row.case, row.depth), {})[row.quantity] = row
    for (case, depth), each in groups.items():
        line = f"{case.activation:10} {case.ensemble:10} {case.sigma_w:6.4f} {case.sigma_b:4.2f} {depth:3d}"
        for row in (each[name] for name in QUANTITIES):
            rounded = (0.0 if abs(v) < 1e-14 else v for v in (row.measured, row.error, row.theory))
            measured, error, theory = rounded
            line += f" │ {measured:9.4g} ± {error:<5.1g} {theory:9.4g} {'ok' if row.passed else 'NO'}"
        lines.append(line)
    good = sum(row.passed for row in rows)
    close = sum(abs(row.errors_off) <= 3 for row in rows)
    return "\n".join([*lines, f"{good} of {len(rows)} agree; {close} within three standard errors alone"])


# The whole distribution


def distributions(
    cases: Sequence[Case], depths: Sequence[int], width: int, draws: int
) -> dict[tuple[Case, int], np.ndarray]:
    """(case, depth) -> the sorted singular values of all draws together."""
    found: dict[tuple[Case, int], list[np.ndarray]] = {}
    for case in cases:
        model = Model(network(case.activation, max(depths)))
        for draw in range(draws):
            rng = np.random.default_rng([SEED, draw, 2])
            drawn = placed(case, model, unit_draw(rng, case.ensemble, width, max(depths)), rng)
            for depth, (J, _) in end_to_end(drawn, first_input(case, rng, width), depths).items():
                found.setdefault((case, depth), []).append(np.linalg.svd(J, compute_uv=False))
    return {key: np.sort(np.concatenate(values)) for key, values in found.items()}


def distribution_figure(values: Mapping[tuple[Case, int], np.ndarray]) -> tuple[Any, list[dict[str, Any]]]:
    """Histograms of the singular values on a logarithmic axis over the densities of the free products; and for each
    case and depth the greatest distance of the two distribution functions (Kolmogorov and Smirnov's).

    Singular values that are all the same, σ_w^L for linear orthogonal and many hard-tanh networks, are told in words.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(case for case, _ in values))
    columns = (len(cases) + 1) // 2
    figure = Figure(figsize=(3.3 * columns, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False).ravel()
    numbers = []
    for axis, case in zip(axes, cases, strict=False):
        law = SlopeLaw.of(case.maps, case.first_length)
        said = []
        depths = [depth for one, depth in values if one == case]
        for colour, depth in zip((f"C{k}" for k in range(len(depths))), depths, strict=True):
            top = case.sigma_w**depth
            s = np.where(np.abs(values[case, depth] / top - 1) < 1e-9, top, values[case, depth])  # rounding in an atom
            nonzero = s[s > 1e-14 * s[-1]]
            low, high = max(1e-4, np.quantile(nonzero, 0.02) / 2), nonzero[-1] * 1.15
            theory = wide_spectrum(case.ensemble, case.sigma_w, law, depth, np.geomspace(low, 2 * high, 600))
            rest = nonzero[nonzero != theory.largest] if theory.top else nonzero
            edges = np.geomspace(min(low, 0.3), high, 41)
            counts = np.histogram(rest, edges)[0] / s.size / np.diff(np.log10(edges))
            axis.stairs(counts, edges, fill=True, color=colour, alpha=0.35, label=f"L = {depth}")
            if theory.top < 0.999:
                axis.plot(theory.values, theory.density * theory.values * math.log(10), color=colour, linewidth=1.4)
            shares = {"zero": 1 - nonzero.size / s.size, "top": 1 - rest.size / nonzero.size if theory.top else 0.0}
            shares["top"] *= nonzero.size / s.size
            if theory.top > 0.001:
                axis.axvline(theory.largest, color=colour, linewidth=1.0, linestyle=":")
                said.append(f"L = {depth}: {shares['top']:.0%} at σ_w$^L$ (theory {theory.top:.0%})")
            if theory.zero > 0.001 and depth == depths[0]:
                said.append(f"L = {depth}: {shares['zero']:.1%} are 0 (theory {theory.zero:.1%})")
            inside = s[s >= low]
            distance = np.abs(np.searchsorted(s, inside, side="right") / s.size - theory.cumulative(inside)).max()
            expected = {"zero_theory": theory.zero, "top_theory": theory.top}
            numbers.append({**asdict(case), "depth": depth, "distance": float(distance), **shares, **expected})
        axis.set(xscale="log", title=f"{case.activation}, {case.ensemble}, σ_w = {case.sigma_w:.3g}")
        axis.margins(x=0)
        if all(one["top_theory"] > 0.999 for one in numbers[-len(depths) :]):
            axis.set(xlim=(1e-2, 1e1), ylim=(0, 1), yticks=[])
        else:
            axis.set_ylim(0, axis.get_ylim()[1] * (1.25 if said else 1.0))
        axis.legend(frameon=False, loc="upper left", fontsize="small", title="\n".join(said), title_fontsize="small")
    for axis in axes[len(cases) :]:
        axis.set_axis_off()
    figure.supxlabel("singular value of the Jacobian")
    figure.supylabel("share per decade: measured (bars), infinite width (lines)")
    return figure, numbers


def shown() -> list[Case]:
    """The cases of the plot, each on its order-to-chaos line."""
    scales = {"linear": (1.0, 0.0), "relu": (math.sqrt(2), 0.0)}
    scales |= {name: (critical_sigma_w(name, 0.1), 0.1) for name in ("hardtanh", "tanh")}
    return [Case(name, ensemble, *scales[name]) for ensemble in ("gaussian", "orthogonal") for name in scales]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help="folder for table.json, distributions.json and .png")
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--width", type=int, default=400)
    options = parser.parse_args(arguments)
    if options.draws < 2:
        parser.error("standard errors need 2 draws or more")
    rows = compare(measure(grid(), (10, 20), options.width, options.draws, progress=True), options.width)
    print(f"width {options.width}, {options.draws} draws, seed {SEED}")
    print(table(rows))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        figure, numbers = distribution_figure(distributions(shown(), (4, 16), options.width, 4))
        figure.savefig(options.output / "distributions.png", dpi=150)
        (options.output / "distributions.json").write_text(json.dumps(numbers, indent=1))
        (options.output / "table.json").write_text(json.dumps([row.plain() for row in rows], indent=1))
        for one in numbers:
            print(f"{one['activation']}, {one['ensemble']}, L {one['depth']}: distance {one['distance']:.2g}")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
