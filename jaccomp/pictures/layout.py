"""Boxes and arrows in layers (Sugiyama, Tagawa and Toda, 1981).

Each arrow points down. A layer is one more than the deepest of those it follows; boxes that follow none lie just above
the first that follows them. Arrows across several layers go through places of their own in between. Within a layer,
boxes are ordered by the mean place of their neighbours, and stand as near to those as the order and their widths allow:
a regression with monotone values, solved by pooling neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP = 28.0  # between neighbours in a layer
RISE = 44.0  # between layers
LANE = 10.0  # the width of an arrow that passes a layer
WEIGHT = 8.0  # of a lane beside a box
SWEEPS = 12

Point = tuple[float, float]
Edge = tuple[str, str]
Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """The centres of boxes, the corners that each arrow goes through, and the size of it all."""

    places: Mapping[str, Point]
    routes: Mapping[Edge, tuple[Point, ...]]
    width: float
    height: float


def layered(boxes: Mapping[str, Size], edges: Sequence[Edge]) -> Layout:
    """A layout of an acyclic graph; boxes come in an order in which each follows those it depends on."""
    level = _levels(list(boxes), edges)
    sizes = {key: (size[0], 1.0) for key, size in boxes.items()}
    chains: dict[Edge, list[str]] = {}
    layers: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for key in boxes:
        layers[level[key]].append(key)
    for above, below in edges:
        passed = [f"{above}\n{below}\n{k}" for k in range(level[above] + 1, level[below])]
        for k, lane in enumerate(passed, level[above] + 1):
            layers[k].append(lane)
            sizes[lane] = (LANE, WEIGHT)
        chains[above, below] = [above, *passed, below]
    links = [pair for chain in chains.values() for pair in itertools.pairwise(chain)]
    order = _ordered(layers, links)
    across = _across(order, links, sizes)
    tops, height = _down(order, boxes)
    left = min((across[k] - sizes[k][0] / 2 for k in across), default=0.0)
    right = max((across[k] + sizes[k][0] / 2 for k in across), default=0.0)
    middle = {key: (top + bottom) / 2 for layer, (top, bottom) in zip(order, tops, strict=True) for key in layer}
    span = {key: ends for layer, ends in zip(order, tops, strict=True) for key in layer}
    places = {key: (across[key] - left, middle[key]) for key in boxes}
    routes: dict[Edge, tuple[Point, ...]] = {}
    for (above, below), chain in chains.items():
        passing = [(across[k] - left, y) for k in chain[1:-1] for y in span[k]]
        start = (places[above][0], places[above][1] + boxes[above][1] / 2)
        end = (places[below][0], places[below][1] - boxes[below][1] / 2)
        routes[above, below] = (start, *passing, end)
    return Layout(places, _ported(routes, boxes), right - left, height)


def _levels(keys: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    level: dict[str, int] = {}
    for key in keys:
        level[key] = max((level[a] + 1 for a, b in edges if b == key), default=0)
    for key in keys:
        if not any(b == key for _, b in edges):
            level[key] = min((level[b] for a, b in edges if a == key), default=1) - 1
    return level


def _neighbours(links: Sequence[Edge], down: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for above, below in links:
        key, other = (below, above) if down else (above, below)
        found.setdefault(key, []).append(other)
    return found


def _ordered(layers: Sequence[Sequence[str]], links: Sequence[Edge]) -> list[list[str]]:
    """The layers with fewest crossings among those that sweeps down and up come by."""
    order = [list(layer) for layer in layers]
    best, fewest = [list(layer) for layer in order], _crossings(order, links)
    for sweep in range(SWEEPS):
        near = _neighbours(links, down=sweep % 2 == 0)
        for layer in order if sweep % 2 == 0 else reversed(order):
            place = {key: k for one in order for k, key in enumerate(one)}

            def mean(key: str, place: Mapping[str, int] = place, near: Mapping[str, list[str]] = near) -> float:
                others = near.get(key)
                return sum(place[o] for o in others) / len(others) if others else float(place[key])

            layer.sort(key=mean)
        crossings = _crossings(order, links)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in order], crossings
    return best


def _crossings(order: Sequence[Sequence[str]], links: Sequence[Edge]) -> int:
    level = {key: n for n, layer in enumerate(order) for key in layer}
    place = {key: k for layer in order for k, key in enumerate(layer)}
    between: dict[int, list[tuple[int, int]]] = {}
    for above, below in links:
        between.setdefault(level[above], []).append((place[above], place[below]))
    return sum(
        (a - c) * (b - d) < 0 for pairs in between.values() for k, (a, b) in enumerate(pairs) for c, d in pairs[:k]
    )


def _across(order: Sequence[Sequence[str]], links: Sequence[Edge], sizes: Mapping[str, Size]) -> dict[str, float]:
    """The middle of each, horizontally. `sizes` are (width, weight): lanes weigh more, so that arrows run straight."""
    across: dict[str, float] = {}
    for layer in order:
        across.update(zip(layer, _spaced([0.0] * len(layer), [sizes[k] for k in layer]), strict=True))
    for sweep in range(2 * SWEEPS):
        near = _neighbours(links, down=sweep % 2 == 0)
        for layer in order if sweep % 2 == 0 else reversed(order):
            wish = [sum(across[o] for o in near[key]) / len(near[key]) if key in near else across[key] for key in layer]
            across.update(zip(layer, _spaced(wish, [sizes[k] for k in layer]), strict=True))
    return across


def _spaced(wish: Sequence[float], sizes: Sequence[Size]) -> list[float]:
    """The places nearest to the wished ones, in weighted least squares, that keep order and distance."""
    offsets, at = [], 0.0
    for k, (width, _) in enumerate(sizes):
        at += (sizes[k - 1][0] + width) / 2 + GAP if k else 0.0
        offsets.append(at)
    pools: list[tuple[float, float, int]] = []  # mean, weight and count of those that stand as near as they may
    for value, offset, (_, own) in zip(wish, offsets, sizes, strict=True):
        mean, weight, count = value - offset, own, 1
        while pools and pools[-1][0] > mean:
            other, heavy, more = pools.pop()
            mean, weight = (mean * weight + other * heavy) / (weight + heavy), weight + heavy
            count += more
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _down(order: Sequence[Sequence[str]], boxes: Mapping[str, Size]) -> tuple[list[tuple[float, float]], float]:
    """Top and bottom of each layer, and the bottom of the last."""
    spans, at = [], 0.0
    for layer in order:
        height = max((boxes[key][1] for key in layer if key in boxes), default=0.0)
        spans.append((at, at + height))
        at += height + RISE
    return spans, max(at - RISE, 0.0)


def _ported(routes: Mapping[Edge, tuple[Point, ...]], boxes: Mapping[str, Size]) -> dict[Edge, tuple[Point, ...]]:
    """The routes with their ends spread over the sides of boxes, in the order of where they come from and go to."""
    moved = {edge: list(points) for edge, points in routes.items()}
    for end, inner in ((0, 1), (-1, -2)):
        for key, size in boxes.items():
            own = sorted((e for e in moved if e[end] == key), key=lambda e: moved[e][inner][0])
            step = min(18.0, size[0] * 0.7 / max(len(own), 1))
            for k, edge in enumerate(own):
                x, y = moved[edge][end]
                moved[edge][end] = (x + (k - (len(own) - 1) / 2) * step, y)
    return {edge: tuple(points) for edge, points in moved.items()}
