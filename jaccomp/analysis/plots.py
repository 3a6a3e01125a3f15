"""Figures of a study. Each function returns a `Plot`: a matplotlib `Figure` and the numbers that it shows.

Matplotlib's object interface alone: no state is shared, and nothing opens a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaccomp.analysis.amplification import Amplification
    from jaccomp.analysis.depth import Depths
    from jaccomp.analysis.margin import Margins
    from jaccomp.analysis.sensitivity import Energy, Influence, WorstCase
    from jaccomp.analysis.validity import Validity

Array = NDArray[Any]
BLUE, ORANGE, GREY = "#3465a4", "#ce5c00", "#888888"
MOST_MAPS, ACROSS = 16, 10


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure, what it says, and the numbers that it shows, by name."""

    name: str
    title: str
    caption: str
    figure: Figure
    numbers: dict[str, Array]

    def png(self, dpi: int = 110) -> bytes:
        """The figure as a PNG, the same bytes for the same numbers."""
        stream = BytesIO()
        self.figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
        return stream.getvalue()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def spectra(depths: Depths) -> Plot:
    """The singular values of ∂tensor/∂input at each depth, the median of each over samples."""
    names, found = depths.tensors, [np.median(one, axis=0) for one in depths.singular_values]
    figure = _figure(7.5, 3.6)
    axes = figure.subplots()
    for place, values in enumerate(found[1:], 1):
        shown = values[values > 1e-12 * values.max(initial=0)]
        offsets = np.linspace(-0.25, 0.25, len(shown)) if len(shown) > 1 else np.zeros(1)[: len(shown)]
        axes.plot(place + offsets, shown, ".", color=BLUE, markersize=3.5)
    largest = np.array([one.max(initial=0) for one in found])
    axes.plot(range(len(names)), largest, "-", color=ORANGE, linewidth=1.2, label="largest")
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(yscale="log", ylabel="singular values", xticks=range(len(names)), xticklabels=names)
    _upright(axes, len(names))
    axes.legend(loc="best", frameon=False)
    caption = (
        f"Singular values of the Jacobian of each tensor by {names[0]}, from the largest on the left to the smallest, "
        f"each the median over {len(depths.cotangents)} samples. Above 1 a perturbation grows, below 1 it shrinks."
    )
    return Plot("spectra", "Spectra by depth", caption, figure, dict(zip(names, found, strict=True)))


def gradients(depths: Depths) -> Plot:
    """The norms of cotangents at each depth: median and the middle 80 % of samples."""
    low, middle, high = np.quantile(depths.cotangents, [0.1, 0.5, 0.9], axis=0)
    figure = _figure(7.5, 3.2)
    axes = figure.subplots()
    places = np.arange(len(depths.tensors))
    axes.fill_between(places, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(places, middle, ".-", color=BLUE)
    axes.set(yscale="log", ylabel="‖cotangent‖", xticks=places, xticklabels=depths.tensors)
    _upright(axes, len(places))
    caption = (
        "Root mean square norms of cotangents, from random unit cotangents of the output on the right back to the "
        "input on the left: the median over samples, and the middle 80 %."
    )
    return Plot("gradients", "Gradient norms by depth", caption, figure, {"low": low, "median": middle, "high": high})


def amplifiers(found: Amplification) -> Plot:
    """Each stage's own norm beside the growth of random tangents and of the worst one, ranked."""
    ranked = found.ranked
    figure = _figure(7.5, 1.0 + 0.45 * len(ranked))
    axes = figure.subplots()
    places = np.arange(len(ranked))[::-1]
    columns = {name: np.array([getattr(one, name) for one in ranked]) for name in ("norm", "worst_growth", "growth")}
    words = {"norm": "largest singular value", "worst_growth": "growth of the worst tangent",
             "growth": "growth of random tangents"}  # fmt: skip
    for (name, values), colour, shift in zip(columns.items(), (BLUE, ORANGE, GREY), (0.15, 0, -0.15), strict=True):
        axes.plot(values, places + shift, "o", color=colour, markersize=5, label=words[name])
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="‖out‖ / ‖in‖", yticks=places)
    axes.set_yticklabels([f"{one.stage} ({one.layer})" for one in ranked])
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(loc="best", fontsize="small")
    caption = (
        "Each stage's own Jacobian: its largest singular value, and how tangents grow on their way through the model, "
        "geometric means over samples. Stages that amplify most come first."
    )
    return Plot("amplification", "Layers by amplification", caption, figure, columns)


def influences(found: Influence, image: tuple[int, int]) -> Plot:
    """A map of each output's derivatives over images: how far it moves, and which way."""
    height, width = _image(found.spread.size, image)
    shown = found.shown.reshape(-1, height, width)[:MOST_MAPS]
    way = (found.mean * found.spread).reshape(-1, height, width)[:MOST_MAPS]
    count, across = len(shown), min(len(shown), ACROSS)
    bands = -(-count // across)
    figure = _figure(1.0 * across + 1.2, 0.3 + 2.4 * bands)
    axes = figure.subplots(2 * bands, across, squeeze=False)
    most = float(np.abs(way).max()) or 1.0
    for k in range(bands * across):
        above, below = axes[2 * (k // across) :, k % across][:2]
        if k >= count:
            above.axis("off")
            below.axis("off")
            continue
        first = above.imshow(shown[k], cmap="viridis", vmin=0, vmax=float(shown.max()) or 1.0)
        second = below.imshow(way[k], cmap="RdBu_r", vmin=-most, vmax=most)
        above.set_title(f"{found.of} {k}", fontsize="small")
    _bare(axes)
    for k, row in enumerate(axes):
        figure.colorbar((first, second)[k % 2], ax=list(row), fraction=0.05)
    caption = (
        f"How far each entry of {found.of} moves when a pixel varies as it does over the data (mean |∂y/∂x| times the "
        "pixel's standard deviation), above; and which way (red: more of the pixel raises the score, blue: lowers it), "
        f"below. Means over {found.samples} samples."
    )
    return Plot("influence", "Influence maps", caption, figure, {"shown": shown, "way": way})


def features(found: Influence) -> Plot:
    """How far outputs move with each feature, all outputs together, where there is no image."""
    total = found.shown.reshape(-1, found.spread.size).sum(axis=0)
    return _bars("influence", "Influence of features", total, np.zeros_like(total), found.wrt,
                 "Σ over outputs of mean |∂y/∂x| times the feature's standard deviation.")  # fmt: skip


def tokens(found: Energy, words: Sequence[str] | None = None, most: int = 8) -> Plot:
    """The influence of each token: the Frobenius norm of the Jacobian's columns of that token, sample by sample.

    `found` is [samples, tokens, *features].
    """
    values = found.values.reshape(*found.values.shape[:2], -1).sum(axis=2)
    errors = np.sqrt((found.errors**2).reshape(*found.errors.shape[:2], -1).sum(axis=2))
    norms, shown = np.sqrt(values), min(most, len(values))
    figure = _figure(max(5.0, 0.45 * values.shape[1] + 2), 0.6 + 0.42 * shown)
    axes = figure.subplots()
    picture = axes.imshow(norms[:shown], cmap="viridis", vmin=0, aspect="auto")
    axes.set(xlabel="token", ylabel="sample", yticks=range(shown))
    if words is not None:
        axes.set_xticks(range(len(words)), words, rotation=60, ha="right")
    figure.colorbar(picture, ax=axes, fraction=0.05)
    how = f", estimated with {found.probes} probes" if found.probes else ""
    caption = f"‖∂{found.of}/∂token‖, in the Frobenius norm{how}: how far the output moves with each token."
    relative = np.divide(errors, values, out=np.zeros_like(values), where=values > 0)
    return Plot("tokens", "Influence of tokens", caption, figure, {"norms": norms, "errors": norms * relative / 2})


def worst(found: Sequence[WorstCase], samples: Array, radii: Sequence[float], image: tuple[int, int]) -> Plot:
    """Samples [n, ...], the perturbations that move their outputs most, and both together at `radii`."""
    shown = min(8, len(found))
    height, width = _image(found[0].direction.size, image)
    pictures = samples[:shown].reshape(shown, height, width)
    ways = np.stack([one.direction.reshape(height, width) for one in found[:shown]])
    figure = _figure(1.15 * shown + 0.8, 3.7)
    axes = figure.subplots(3, shown, squeeze=False)
    most = float(np.abs(ways).max()) or 1.0
    for k in range(shown):
        axes[0, k].imshow(pictures[k], cmap="gray_r")
        axes[0, k].set_title(f"σ = {found[k].gain:.3g}", fontsize="small")
        axes[1, k].imshow(ways[k], cmap="RdBu_r", vmin=-most, vmax=most)
        radius = radii[k] if np.isfinite(radii[k]) else 0
        axes[2, k].imshow(pictures[k] + radius * ways[k], cmap="gray_r")
    _bare(axes)
    caption = (
        "Samples, the unit perturbation that moves the output most (the top right singular vector of the sample's "
        "Jacobian, with its singular value), and the sample so perturbed as far as first order holds."
    )
    return Plot("worst", "Worst-case perturbations", caption, figure, {"samples": pictures, "directions": ways})


def radii(found: Sequence[Validity]) -> Plot:
    """The error of first order as the radius grows, and measured radii beside those that curvature predicts."""
    names = {"predicted": ("at the point", GREY), "cautious": ("and its derivative", ORANGE),
             "guaranteed": ("along the way", BLUE)}  # fmt: skip
    numbers = {n: np.array([getattr(v, n) for v in found]) for n in ("radius", *names)}
    sound = np.all([np.isfinite(one) for one in numbers.values()], axis=0)
    figure = _figure(8.5, 3.4)
    left, *others = figure.subplots(1, 2 if sound.any() else 1, squeeze=False)[0]
    tolerance = found[0].tolerance
    for one in found:
        left.plot(one.radii, one.errors, color=BLUE, alpha=0.25, linewidth=0.8)
    left.axhline(tolerance, color=ORANGE, linewidth=1, linestyle="--", label=f"{tolerance:.0%}")
    left.set(xscale="log", yscale="log", xlabel="radius", ylabel="relative error of first order")
    left.legend(frameon=False)
    for right in others:
        for name, (word, colour) in names.items():
            right.plot(numbers[name][sound], numbers["radius"][sound], ".", color=colour, label=word)
        ends = [min(a[sound].min() for a in numbers.values()), max(a[sound].max() for a in numbers.values())]
        right.plot(ends, ends, color="black", linewidth=0.8)
        right.legend(frameon=False, title="curvature")
        right.set(xlabel="radius from curvature", ylabel="measured radius")
    beside = (
        f", and on the right the radius where it passes {tolerance:.0%} beside what second derivatives along v say: at "
        "the point alone, which is right to leading order and may lie on either side; with their own derivative there, "
        "which is cautious; all along the way, which bounds it from below where no kink is met."
    )
    nothing = ". Second derivatives say nothing of it: they are 0 along v, or first order holds as far as was tried."
    caption = f"|y(x + r v) - y - r J v| / |r J v| along worst-case perturbations v{beside if others else nothing}"
    return Plot("validity", "How far first order holds", caption, figure, numbers)


def distances(found: Margins) -> Plot:
    """The margins, and how far the class really changes along the way."""
    figure = _figure(8.5, 3.2)
    left, right = figure.subplots(1, 2)
    left.hist(found.linear[np.isfinite(found.linear)], bins=30, color=BLUE)
    left.set(xlabel="linearised distance to the boundary", ylabel="samples")
    sound = np.isfinite(found.linear) & np.isfinite(found.stepped)
    right.plot(found.linear[sound], found.stepped[sound], ".", color=BLUE, markersize=3)
    if sound.any():
        end = float(found.linear[sound].max())
        right.plot([0, end], [0, end], color=ORANGE, linewidth=0.8)
    right.set(xlabel="linearised", ylabel="stepped")
    caption = (
        "Distances to the nearest boundary between classes, linearised, and where the class changes when one steps "
        "that way, which bounds the true distance from above."
    )
    numbers = {"linear": found.linear, "stepped": found.stepped}
    return Plot("margins", "Adversarial margins", caption, figure, numbers)


def _bars(name: str, title: str, values: Array, errors: Array, label: str, caption: str) -> Plot:
    figure = _figure(7.5, 2.8)
    axes = figure.subplots()
    axes.bar(range(len(values)), values, yerr=errors if errors.any() else None, color=BLUE)
    axes.set(xlabel=f"entry of {label}")
    axes.locator_params(axis="x", integer=True)
    return Plot(name, title, caption, figure, {"values": values, "errors": errors})


def _image(size: int, image: tuple[int, int]) -> tuple[int, int]:
    if image[0] * image[1] != size:
        raise UsageError(
            "influence map", f"an image of {image[0]} by {image[1]} has not {size} pixels.", "Give another shape."
        )
    return image


def _upright(axes: Any, count: int) -> None:
    if count > 6:
        axes.tick_params(axis="x", labelrotation=60)


def _bare(axes: Any) -> None:
    for one in axes.flat:
        one.set(xticks=[], yticks=[])
