"""The calls of `jaccomp_windows.h` for extrema over windows: how each loop of a window, pointer and step is spelled.

Input: windows, and the spelling of the row function that they are part of. Output: the values of `windows.pyx.j2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy as sp

from jaccomp.emit.expressions import Spelling
from jaccomp.emit.extrema import Windows, cuts, tightest
from jaccomp.lowering.ir import Loop
from jaccomp.notation import Access

Ends = Mapping[sp.Symbol, tuple[sp.Symbol, sp.Symbol]]


class WindowCalls:
    """`counter` makes a variable that counts; `pointer` spells where an access begins, for given indices."""

    def __init__(
        self,
        found: Windows,
        spelling: Spelling,
        counter: Callable[[str], sp.Symbol],
        pointer: Callable[[Access, Mapping[sp.Expr, sp.Expr]], str],
    ) -> None:
        self.found, self.spelling, self.pointer = found, spelling, pointer
        self.first, self.last, self.part = (counter(wish) for wish in ("first", "last", "part"))
        self.whole: Ends = {loop.index: (counter("low"), counter("high")) for loop in found.around}
        self.cut: Ends = {
            index: (counter("low"), counter("high")) if any(cuts(found.results, index)) else ends
            for index, ends in self.whole.items()
        }

    @property
    def is_cut(self) -> bool:
        """May a window leave its array?"""
        return self.cut != self.whole

    def values(self) -> dict[str, object]:
        found, integer = self.found, self.spelling.integer
        inside = {index: (low, high - 1) for index, (low, high) in self.whole.items()}
        lower = [tightest(bound, inside, greatest=True) for bound in found.results.lower]
        upper = [tightest(bound, inside, greatest=False) for bound in found.results.upper]
        return {
            "axes": [self._axis(loop) for loop in found.around],
            "first": integer(self.first),
            "last": integer(self.last),
            "part": integer(self.part),
            "index": integer(found.results.index),
            "whole_first": self.spelling.bound(tuple(e for e in lower if e is not None), largest=True),
            "whole_last": self.spelling.bound(tuple(e for e in upper if e is not None), largest=False),
            "empty": " or ".join(f"{integer(low)} >= {integer(high)}" for low, high in self.whole.values()),
            "some": " and ".join(f"{integer(low)} < {integer(high)}" for low, high in self.cut.values() if self.is_cut),
            "lower": integer(found.fill.lower[0]),
            "upper": integer(found.fill.upper[0]),
            "name": ("greatest" if found.largest else "least") + ("_at" if found.place is not None else ""),
            "arguments": self._arguments(self.first, self.last - self.first, self.whole),
            "cut_arguments": self._arguments(found.results.index, sp.S.One, self.cut),
        }

    def _axis(self, loop: Loop) -> dict[str, object]:
        """The ends of one loop of a window, whole and cut."""
        whole, cut, bounds = self.whole[loop.index], self.cut[loop.index], cuts(self.found.results, loop.index)
        return {
            "first": self.spelling.integer(whole[0]),
            "last": self.spelling.integer(whole[1]),
            "lower": self.spelling.bound(loop.lower, largest=True),
            "upper": self.spelling.bound(loop.upper, largest=False),
            "is_cut": cut != whole,
            "cut_first": self.spelling.integer(cut[0]),
            "cut_last": self.spelling.integer(cut[1]),
            "cut_lower": self.spelling.bound((whole[0], *bounds[0]), largest=True),
            "cut_upper": self.spelling.bound((whole[1], *bounds[1]), largest=False),
        }

    def _arguments(self, first: sp.Expr, count: sp.Expr, ends: Ends) -> list[str]:
        """Where `count` windows begin, their steps and extents, and the place of the first of their values."""
        found = self.found
        begin: dict[sp.Expr, sp.Expr] = {index: low for index, (low, _) in ends.items()}
        begin[found.results.index] = first
        sizes = [(high - low, step) for (low, high), step in zip(ends.values(), found.steps[1:], strict=True)]
        places = (found.place.position.xreplace(begin), *found.moves) if found.place is not None else ()
        if found.rows is None:
            sizes.insert(0, (sp.S.One, sp.S.Zero))
            places = (*places[:2], sp.S.Zero, *places[2:]) if places else ()
        numbers = [count, found.steps[0], *(n for pair in sizes for n in pair), *places]
        return [
            *(self.pointer(access, begin) for access in (*found.written, found.value)),
            *(self.spelling.integer(sp.expand(n)) for n in numbers),
        ]
