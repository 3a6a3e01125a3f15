"""The suite's records as text: a table for each configuration, its means, and what misses; the README's table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaccomp.benchmark.cases import MODES, ROWS

Record = Mapping[str, Any]
KINDS = {"memory": "memory-bound rows", "product": "matrix-product rows", "small": "small rows"}
OWN = "separate"
ACCURATE = 4.0
"""Units of float32's eps, relative to the largest value, that are no loss of accuracy."""


def about_text(about: Record) -> str:
    """What was measured, on what."""
    lines = [f"{about.get('cpu')}, {about.get('threads')} threads, allocator {about.get('allocator')}"]
    lines.append(", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()))
    limits = [f"sgemm {about.get('sgemm GFLOP/s')} GFLOP/s"]
    limits += [f"{name.split(' ')[0]} {rate} 1e9/s" for name, rate in about.get("rates", {}).items()]
    lines.append(", ".join(limits))
    lines += [f"not there: {name}: {why}" for name, why in about.get("missing", {}).items()]
    return "\n".join(lines)


def table_text(records: Sequence[Record]) -> str:
    """One configuration: a line for each row and mode, then means and misses."""
    head = ("row", "mode", "jaccomp ms", "best peer ms", "", "ratio", "limit", "err", "peer err", "path")
    cells = [head, *(_cells(one) for one in records)]
    return "\n".join([_columns(cells), "", *means(records), *misses(records), *refusals(records)])


def _cells(one: Record) -> tuple[str, ...]:
    separate = one.get("peers", {}).get(OWN)
    note = f" ({separate / one['jaccomp_ms']:.2f}x separate)" if separate and one.get("jaccomp_ms") else ""
    return (
        one["case"],
        one["mode"],
        _number(one.get("jaccomp_ms")),
        _number(one.get("best_peer_ms")),
        one.get("best_peer") or "-",
        _number(one.get("ratio"), ".2f"),
        _number(one.get("limit_fraction"), ".2f"),
        _number(one.get("error"), ".2g"),
        _number(one.get("best_peer_error"), ".2g"),
        f"{one.get('path') or '-'}{note}",
    )


def geometric_mean(values: Iterable[float]) -> float | None:
    """None of no values."""
    logs = [math.log(value) for value in values if value > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None


def means(records: Sequence[Record]) -> list[str]:
    """The geometric means of ratios and fractions, by kind of row and mode."""
    lines = []
    for kind, name in KINDS.items():
        for mode in MODES:
            these = [one for one in records if one.get("kind") == kind and one["mode"] == mode]
            ratio = geometric_mean(one["ratio"] for one in these if one.get("ratio"))
            limit = geometric_mean(one["limit_fraction"] for one in these if one.get("limit_fraction"))
            if ratio is not None:
                lines.append(f"{name}, {mode}: ratio {ratio:.2f}, limit {_number(limit, '.2f')}")
    return lines


def misses(records: Sequence[Record]) -> list[str]:
    """The rows in which a peer is faster, or their layers one by one are, or all peers nearer to the truth."""
    lines = []
    for one in records:
        name = f"misses: {one['case']} {one['mode']}"
        if one.get("ratio") is not None and one["ratio"] < 1:
            lines.append(f"{name}: {one['ratio']:.2f} of {one['best_peer']}")
        separate = one.get("peers", {}).get(OWN)
        if separate and one.get("jaccomp_ms") and separate < one["jaccomp_ms"]:
            lines.append(f"{name}: {separate / one['jaccomp_ms']:.2f} of its layers one by one")
        error, least = one.get("error"), one.get("best_peer_error")
        if error is not None and error > max(ACCURATE, least or 0.0):
            lines.append(f"{name}: error {error:.2g} eps, a peer's {_number(least, '.2g')}")
        if one.get("jaccomp_ms") is None:
            lines.append(f"{name}: not measured")
    return lines


def refusals(records: Sequence[Record]) -> list[str]:
    """Who failed where and why, by name: all but those whose way a row's mode is not."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in records:
        for name, why in one.get("refused", {}).items():
            if why not in EXPECTED:
                found.setdefault((name, why), []).append(f"{one['case']} {one['mode']}")
    return [
        f"no {name} on {', '.join(rows[:SHOWN])}{f' and {len(rows) - SHOWN} more' * (len(rows) > SHOWN)}: {why}"
        for (name, why), rows in found.items()
    ]


EXPECTED = ("it is a way to compute the vjp", "its derivative is not written in NumPy")
SHOWN = 3


def markdown(abouts: Sequence[Record], records: Sequence[Record]) -> str:
    """The table of a README: ratios of every mode in each configuration, and fractions of the limit."""
    configurations = list(dict.fromkeys((one["threads"], one["allocator"]) for one in records))
    found = {(one["case"], one["threads"], one["allocator"], one["mode"]): one for one in records}
    limited = [c for c in configurations if c == (1, "keep")]
    head = [f"{threads} thread{'s' * (threads > 1)}, {allocator}" for threads, allocator in configurations]
    head += [f"limit, {threads} thread, {allocator}" for threads, allocator in limited]
    lines = [_line(["forward / vjp / backward", *head]), _line(["---", *("---" for _ in head)])]

    def cells(chosen: Sequence[Record | None], key: str) -> str:
        return " / ".join(_number(one.get(key) if one else None, ".2f") for one in chosen)

    for row in ROWS:
        if any(one["case"] == row.name for one in records):
            modes = {c: [found.get((row.name, *c, mode)) for mode in MODES] for c in configurations}
            ratios = [cells(modes[c], "ratio") for c in configurations]
            lines.append(_line([row.name, *ratios, *(cells(modes[c], "limit_fraction") for c in limited)]))
    for kind, name in KINDS.items():
        these = [one for one in records if one.get("kind") == kind]
        if these:
            ratios = [_mean_cells(these, c, "ratio") for c in configurations]
            fractions = [_mean_cells(these, c, "limit_fraction") for c in limited]
            lines.append(_line([f"*geometric mean, {name}*", *ratios, *fractions]))
    versions = dict(pair for about in abouts for pair in about.get("versions", {}).items())
    cpus = dict.fromkeys(about.get("cpu") for about in abouts)
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([*lines, "", f"Measured on {', '.join(map(str, cpus))}: {said}."])


def _mean_cells(records: Sequence[Record], configuration: tuple[int, str], key: str) -> str:
    these = [one for one in records if (one["threads"], one["allocator"]) == configuration]
    values = (geometric_mean(one[key] for one in these if one["mode"] == mode and one.get(key)) for mode in MODES)
    return " / ".join(_number(value, ".2f") for value in values)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, spelled: str = ".4g") -> str:
    return "-" if value is None else format(value, spelled)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
