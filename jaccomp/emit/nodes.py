"""The statements of a row function: loops, guards, assignments and matrix products of one nest as Cython.

Input: the block of a placed nest. Output: its lines, and which variables and flags they use beside the nest's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import sympy as sp

from jaccomp.emit.cse import shared
from jaccomp.emit.expressions import ADD, Spelling
from jaccomp.emit.extrema import asks, windows
from jaccomp.emit.names import Names
from jaccomp.emit.plans import plan
from jaccomp.emit.runs import Run, run
from jaccomp.emit.scope import Scope
from jaccomp.emit.streams import LINE, Line, lines
from jaccomp.emit.templates import render
from jaccomp.emit.vectors import START, Lanes, Vectors, moves, steady, vectors
from jaccomp.emit.window_calls import WindowCalls
from jaccomp.lowering.affine import slope
from jaccomp.lowering.contraction import run_stride
from jaccomp.lowering.ir import (
    LEAVES,
    Accumulate,
    Alloc,
    Assign,
    Block,
    Contract,
    Greatest,
    Guard,
    Leaf,
    Loop,
    Node,
    Return,
    Scatter,
    Select,
    Span,
    leaf_accesses,
    walk,
)
from jaccomp.notation import Access
from jaccomp.program import Constraint, accesses


class Row:
    """The text of one row function.

    `streamed` are the buffers whose lines may be streamed, `mended` those of them that are touched again; `ahead` says
    how far on the next row of an input is, for the loop that reads the last of this one, of which `much` is computed;
    `prepared` names what a contraction finds prepared; with `all_wanted` nothing asks which outputs are. When it is
    written, `variables`, `vector_variables`, `vector_locals`, `plans`, `order`, `flags`, `lines`, `sums`, `marks`,
    `looks`, `counters` say what it needs declared, and `streams` whether its stores wait for a fence.
    """

    def __init__(
        self,
        scope: Scope,
        names: Names,
        symbols: dict[sp.Basic, str],
        local_names: Collection[str],
        shifts: Mapping[str, sp.Expr],
        streamed: Collection[str],
        mended: Collection[str],
        ahead: Mapping[tuple[str, sp.Symbol], sp.Expr],
        much: bool,
        prepared: Mapping[Contract, str],
        all_wanted: bool,
    ) -> None:
        self.scope, self.dtype = scope, scope.dtype
        self.streamed, self.mended, self.ahead, self.much = streamed, mended, ahead, much
        self.prepared = prepared
        self.all_wanted = all_wanted
        self.places: dict[Access, str] = {}
        self.lines: list[tuple[str, str, int]] = []
        self.counters: list[str] = []
        self.lanes: Lanes | None = None
        self.sums: list[tuple[str, int]] = []
        self.marks: list[str] = []
        self.looks: list[str] = []
        self.steps: tuple[str, ...] = ()
        self.vector_variables: list[str] = []
        self.vector_locals: set[str] = set()
        self.halves: dict[Access, tuple[str, str]] = {}
        self.waiting: set[Access] = set()
        self.moving: set[sp.Basic] = set()
        self.names, self.symbols = names, symbols
        self.local_names, self.shifts = local_names, shifts
        self.held: dict[sp.Expr, sp.Symbol] = {}
        self.still: dict[str, str] = {}
        self.asking = 0
        self.spelling = Spelling(self.dtype, symbols, self.access, self._is_vector)
        self.variables: list[str] = []
        self.plans: dict[str, int] = {}
        self.flags: set[str] = set()
        self.order = ""
        self.streams = False
        self.temporary_count = 0

    def access(self, access: Access) -> str:
        if access in self.places:
            return self.places[access]
        if self.lanes is not None and self.lanes.index in access.free_symbols:
            return self._loaded(access, self.lanes)
        name = str(self.symbols[sp.Symbol(access.name)])
        if access.name in self.local_names or not access.indices:
            return name
        return f"{name}[{self.spelling.integer(self.inner_offset(access))}]"

    def inner_offset(self, access: Access) -> sp.Expr:
        return access.indices[0] - self.shifts.get(access.name, sp.S.Zero)

    def block(self, block: Block, top: bool) -> str:
        parts: list[str] = []
        run: list[Leaf] = []
        passed: Node | None = None
        for node, following in zip_longest(block.nodes, block.nodes[1:]):
            if node is passed:
                continue
            found = self._windows(node, following, top) if following is not None else None
            if found is not None:
                parts += [*self._run(run), found]
                run, passed = [], following
                continue
            if isinstance(node, LEAVES) and not isinstance(node, Contract):
                run.append(node)
                continue
            parts += self._run(run)
            run = []
            parts.append(self._node(node, top))
        parts += self._run(run)
        return "\n".join(p.rstrip("\n") for p in parts) or "pass"

    def _node(self, node: Node, top: bool) -> str:
        match node:
            case Loop():
                return self._loop(node, top)
            case Guard():
                condition = self._condition(node)
                self.asking += bool(condition)
                body = self.block(node.body, top)
                self.asking -= bool(condition)
                return render("guard.pyx.j2", condition=condition, body=body) if condition else body
            case Contract():
                return self._contract(node)
            case Block():
                return self.block(node, top)
            case Alloc() | Return():
                return "pass"
            case _:
                return "\n".join(self._run([node]))

    def _test(self, constraint: Constraint) -> str:
        expr, relation = constraint.expr, "==" if constraint.equality else ">="
        if relation == ">=" and expr.as_coeff_Add()[0] == -1:
            expr, relation = expr + 1, ">"
        return f"{self.spelling.integer(expr, ADD)} {relation} 0"

    def _condition(self, guard: Guard) -> str:
        tests = [self._test(c) for c in guard.constraints]
        self.flags |= set(guard.outputs)
        if guard.outputs and not self.all_wanted:
            tests.append(self._wanted(guard.outputs))
        return "".join(tests) if len(tests) <= 1 else " and ".join(f"({t})" for t in tests)

    def _wanted(self, outputs: Sequence[str]) -> str:
        """The condition that one of the outputs is wanted; nothing where all are."""
        return "" if self.all_wanted else " or ".join(self.scope.wants[o] for o in outputs)

    def _extremum(self, loop: Loop, top: bool) -> str | None:
        """A loop that only takes a maximum or minimum, as one over integers in the order of its values.

        Integers have a maximum that the C compiler makes vectors of; that of floats is none, as it must keep a nan.
        """
        nodes = loop.body.nodes
        if len(nodes) != 1 or not isinstance(nodes[0], Accumulate) or loop.stop is not None:
            return None
        (node,) = nodes
        assert isinstance(node, Accumulate)
        if node.reducer not in ("max", "min") or node.target.name not in self.local_names or node.value.is_integer:
            return None
        if not self.order:
            self.order = self.names.fresh("order")
        largest = node.reducer == "max"
        return render(
            "extremum.pyx.j2",
            comments=self.scope.comments([node.equation] if top and node.equation is not None else []),
            dtype=self.dtype,
            order=self.order,
            index=self.symbols[loop.index],
            range=self._range(loop),
            value=self.spelling.real(node.value if largest else -node.value),
            target=self.access(node.target),
            reducer=node.reducer,
            sign="" if largest else "-",
        )

    def _windows(self, fill: Node, nest: Node, top: bool) -> str | None:
        """Extrema over windows: one call for those that are whole, one for each that is cut."""
        found = windows(fill, nest, self.local_names)
        if found is None or (not self.all_wanted and (asks(found.fill) or asks(found.nest))):
            return None
        calls = WindowCalls(found, self.spelling, self._counter, self._starting)
        return render(
            "windows.pyx.j2",
            comments=self._comments(found.nest) if top else [],
            dtype=self.dtype,
            fills=[self._leaf(node, node.value).rstrip() for node in found.filled],
            **calls.values(),
        )

    def _starting(self, access: Access, begin: Mapping[sp.Expr, sp.Expr]) -> str:
        """A pointer to where an access begins."""
        return self._at(access, sp.expand(self.inner_offset(access).xreplace(begin)))

    def _counter(self, wish: str) -> sp.Symbol:
        """A variable of the row function that counts, and its symbol."""
        name = self.names.fresh(wish)
        self.counters.append(name)
        symbol = sp.Symbol(name, integer=True)
        self.symbols[symbol] = name
        return symbol

    def _call(self, loop: Loop, top: bool) -> str | None:
        """Loops that only set or copy a run of places, as one call."""
        found = run(loop)
        if found is None:
            return None
        leaf = found.leaf
        target = self._pointer(leaf.target, found)
        values = {
            "comments": self.scope.comments([leaf.equation] if top and leaf.equation is not None else []),
            "dtype": self.dtype,
            "target": target,
            "count": self.spelling.integer(found.count),
        }
        if target is not None and leaf.value.is_number:
            return render("fill.pyx.j2", **values, value=self.spelling.real(leaf.value))
        if target is None or not isinstance(leaf.value, Access) or not leaf.value.indices or leaf.value.is_integer:
            return None
        source = self._pointer(leaf.value, found)
        if source is None or leaf.target.name not in self.scope.kernel.program.outputs:
            return None
        self.streams = True
        following = self._following(leaf.value)
        values |= {"source": source, "following": "NULL" if following is None else self._pointer(following, found)}
        return render("copy.pyx.j2", **values, whole=self._elements(leaf.target.name))

    def _following(self, access: Access) -> Access | None:
        """What the next iteration reads in place of an access at a row that data chooses: no CPU foresees it.

        table[ids[n] D]  ->  table[ids[min(n + 1, N - 1)] D]
        """
        data = [a for i in access.indices for a in i.atoms(Access)]
        chosen = {s for a in data for i in a.indices for s in i.free_symbols}
        loops = [one for f in self.scope.kernel.functions for one in f.parallel if one.index in chosen]
        if len(loops) != 1 or len(loops[0].upper) != 1 or loops[0].mode != "parallel":
            return None
        (loop,) = loops
        last = sp.expand(loop.upper[0] - 1 - loop.index)
        where = {loop.index: loop.index + sp.Min(1, last)}
        return Access(access.base, *(i.xreplace({a: a.xreplace(where) for a in data}) for i in access.indices))

    def _vectors(self, loop: Loop, top: bool) -> str | None:
        """A loop of plain arithmetic, over whole vectors and the parts at its ends."""
        found = vectors(loop, self.local_names)
        if found is None or self.lanes is not None:
            return None
        if not self.steps:
            self.steps = tuple(self.names.fresh(n) for n in ("step", "start", "stop", "lane", "count"))
            self.counters += self.steps
        step, start, stop, lane, count = self.steps
        sums = {target: self.names.fresh(f"{target.name}_lanes") for target in found.sums}
        self.sums += [(name, found.steps) for name in sums.values()]
        streams = {t: self.names.fresh("streams") for t in found.assigned if t.name in self.streamed}
        self.marks += streams.values()
        self.streams = self.streams or bool(streams)
        for local in found.named:
            self.vector_locals.add(local.name)
            self.vector_variables.append(self.access(local))
            self.moving.add(local.base)
        whole = Lanes(found, loop.index, sums, streams, lane if found.steps > 1 else "0")
        part = Lanes(found, loop.index, sums, streams, "0", count)
        body, rest = self._in_lanes(loop.body, whole), self._in_lanes(loop.body, part)
        still = [render("assign.pyx.j2", target=name, value=value).rstrip("\n") for value, name in self.still.items()]
        self.still = {}
        lower, upper = self._bounds(loop)
        return render(
            "vectors.pyx.j2",
            comments=self._comments(loop) if top else [],
            dtype=self.dtype,
            index=self.symbols[loop.index],
            lower=lower,
            upper=upper,
            step=step,
            start=start,
            stop=stop,
            lane=lane,
            count=count,
            steps=found.steps,
            width=f"{found.steps} * JC_LANES_{self.dtype}" if found.steps > 1 else f"JC_LANES_{self.dtype}",
            length=self._length(loop),
            sums=[self._reduced(target, name, found) for target, name in sums.items()],
            streams=[self._stream(t, name, loop, start, found.width(t)) for t, name in streams.items()],
            nexts=self._nexts(loop),
            still=still,
            body=body,
            part=rest,
        )

    def _reduced(self, target: Access, name: str, found: Vectors) -> dict[str, str]:
        """How what a vector loop reduces to begins, and how its vectors meet at the end."""
        reducer = found.sums[target].reducer
        spelled, lanes = self.access(target), f"{name}, {found.steps}"
        if reducer == "sum":
            start, met = f"jc_zeros_{self.dtype}()", f"{spelled} += jc_total_{self.dtype}({lanes})"
        else:
            start = f"jc_spread_{self.dtype}({START[reducer]})"
            most = f"jc_most_{reducer}_{self.dtype}({lanes})"
            met = f"{spelled} = jc_{reducer}_{self.dtype}({spelled}, {most})"
        return {"lanes": name, "start": start, "met": met, "wanted": self._wanted(found.sums[target].outputs)}

    def _in_lanes(self, block: Block, lanes: Lanes) -> str:
        self.lanes = lanes
        text = self.block(block, False)
        self.lanes, self.held = None, {}
        return text

    def _stream(self, target: Access, name: str, loop: Loop, start: str, width: int) -> dict[str, object]:
        """Where an output begins in a loop, the elements of all of it, and those of one iteration."""
        at = sp.Symbol(start, integer=True)
        self.symbols[at] = start
        place, whole = self._place(target, loop.index, at), self._whole(target.name, loop)
        return {"name": name, "place": place, "whole": whole, "each": width}

    def _whole(self, name: str, loop: Loop) -> str:
        """The elements that a loop may stream to: none of an array that is touched again after a short loop."""
        elements = self._elements(name)
        if name not in self.mended:
            return elements
        return f"jc_if_long_{self.dtype}({self._length(loop)}, {elements})"

    def _nexts(self, loop: Loop) -> list[dict[str, str]]:
        """Where the next rows are of the inputs whose rows a loop is the last to read, and when to ask for them."""
        read = dict.fromkeys(a for n in walk(loop) if isinstance(n, LEAVES) for a in leaf_accesses(n))
        names: dict[tuple[str, str], str] = {}
        found: list[dict[str, str]] = []
        for access in read:
            stride = self.ahead.get((access.name, loop.index))
            if stride is None or slope(access.indices[0], loop.index) != 1:
                continue
            size = self.spelling.integer(stride), self._elements(access.name)
            asks = "" if size in names else f"jc_looks_ahead_{self.dtype}({', '.join(size)}, {int(self.much)})"
            if asks:
                names[size] = self.names.fresh("looks")
                self.looks.append(names[size])
            place = self._at(access, sp.expand(self.inner_offset(access) + stride))
            found.append({"name": names[size], "place": place, "asks": asks})
        return found

    def _elements(self, name: str) -> str:
        """How many elements an array has."""
        return self.spelling.integer(self.scope.kernel.buffer(name).elements)

    def _at(self, access: Access, offset: sp.Expr) -> str:
        """A pointer into the array of an access."""
        name = str(self.symbols[sp.Symbol(access.name)])
        return name if offset == 0 else f"{name} + {self.spelling.integer(offset, ADD)}"

    def _place(self, access: Access, index: sp.Symbol, at: sp.Symbol) -> str:
        return self._at(access, sp.expand(self.inner_offset(access).xreplace({index: at})))

    def _loaded(self, access: Access, lanes: Lanes) -> str:
        first = lanes.of.pairs.get(access, access)
        place = self._place(first, lanes.index, lanes.index)
        if access in lanes.of.pairs:
            which = "evens" if access == first else "odds"
            part = f"_part_{self.dtype}({place}, {lanes.count})" if lanes.count else f"_{self.dtype}({place})"
            return f"jc_load_{which}{part}"
        return f"jc_load_part_{self.dtype}({place}, {lanes.count})" if lanes.count else f"jc_load_{self.dtype}({place})"

    def _stored_pair(self, target: Access, spelled: str, lanes: Lanes) -> str:
        """One of two neighbours, which waits for the other: both are stored at once."""
        first = lanes.of.pairs[target]
        both = self.halves.setdefault(first, (self.names.fresh("even"), self.names.fresh("odd")))
        line = render("assign.pyx.j2", target=both[target != first], value=spelled).rstrip("\n")
        if first not in self.waiting:
            self.vector_variables += [name for name in both if name not in self.vector_variables]
            self.waiting.add(first)
            return line
        self.waiting.remove(first)
        place = self._place(first, lanes.index, lanes.index)
        if lanes.count:
            return f"{line}\njc_store_pairs_part_{self.dtype}({place}, {', '.join(both)}, {lanes.count})"
        return f"{line}\njc_pass_pairs_{self.dtype}({place}, {', '.join(both)}, {lanes.streams.get(first, '0')})"

    def _stored(self, node: Assign | Accumulate, value: sp.Expr, lanes: Lanes) -> str:
        """One statement over a vector, or over a part of one."""
        target, spelled = node.target, self.spelling.real(value)
        if target in lanes.sums:
            reducer = lanes.of.sums[target].reducer
            return self._gathered(f"{lanes.sums[target]}[{lanes.lane}]", reducer, spelled, lanes.count)
        if isinstance(node, Accumulate):
            spelled = f"{self._loaded(target, lanes)} + ({spelled})"
        if target.name in self.vector_locals:
            return render("assign.pyx.j2", target=self.access(target), value=spelled)
        if target in lanes.of.pairs:
            return self._stored_pair(target, spelled, lanes)
        place = self._place(target, lanes.index, lanes.index)
        if lanes.count:
            return f"jc_store_part_{self.dtype}({place}, {spelled}, {lanes.count})"
        if target in lanes.streams:
            return f"jc_pass_{self.dtype}({place}, {spelled}, {lanes.streams[target]})"
        return f"jc_store_{self.dtype}({place}, {spelled})"

    def _gathered(self, into: str, reducer: str, value: str, count: str) -> str:
        """A vector, or so many lanes of it, reduced to what is there."""
        if reducer == "sum":
            return f"{into} += jc_first_{self.dtype}({value}, {count})" if count else f"{into} += {value}"
        inside = f"jc_first_or_{self.dtype}({value}, {count}, {START[reducer]})" if count else value
        return f"{into} = jc_each_{reducer}_{self.dtype}({inside}, {into})"

    def _streamed(self, loop: Loop, top: bool) -> str | None:
        """A loop whose results go to lines that are streamed where they outgrow the cache."""
        found = lines(loop, self.streamed)
        if not found:
            return None
        self.streams = True
        first, last = self.names.fresh("first"), self.names.fresh("last")
        self.counters += [first, last]
        at = sp.Symbol(first, integer=True)
        self.symbols[at] = first
        spelled = [self._line(line, loop, at, f"{last} - {first}") for line in found]
        lower, upper = self._bounds(loop)
        return render(
            "stream.pyx.j2",
            comments=self._comments(loop) if top else [],
            dtype=self.dtype,
            index=self.symbols[loop.index],
            lower=lower,
            upper=upper,
            length=LINE,
            first=first,
            last=last,
            lines=spelled,
            body=self.block(loop.body, False),
        )

    def _line(self, line: Line, loop: Loop, first: sp.Symbol, count: str) -> dict[str, str]:
        """The names of one line, and where its accesses are written."""
        index = loop.index
        name, into = self.names.fresh("line"), self.names.fresh("into")
        self.lines.append((name, into, LINE * line.stride))
        for place, target in enumerate(line.targets):
            self.places[target] = f"{into}[{self.spelling.integer(line.stride * (index - first) + place)}]"
        return {
            "name": name,
            "into": into,
            "place": self._place(line.targets[0], index, first),
            "count": count if line.stride == 1 else f"{line.stride} * ({count})",
            "whole": self._whole(line.name, loop),
            "wanted": self._wanted(line.outputs),
        }

    def _pointer(self, access: Access, found: Run) -> str | None:
        """Where an access starts in a run; None if it takes other steps than one place."""
        at = found.first(self.inner_offset(access))
        if at is None:
            return None
        return self._at(access, at)

    def _comments(self, loop: Loop) -> list[str]:
        """The equations that a loop computes."""
        return self.scope.comments(n.equation for n in walk(loop) if isinstance(n, LEAVES) and n.equation is not None)

    def _bounds(self, loop: Loop) -> tuple[str, str]:
        return self.spelling.bound(loop.lower, largest=True), self.spelling.bound(loop.upper, largest=False)

    def _length(self, loop: Loop) -> str:
        lower, upper = self._bounds(loop)
        return upper if lower == "0" else f"{upper} - ({lower})"

    def _range(self, loop: Loop) -> str:
        lower, upper = self._bounds(loop)
        return upper if lower == "0" else f"{lower}, {upper}"

    def _loop(self, loop: Loop, top: bool) -> str:
        for attempt in (self._call, self._vectors, self._extremum, self._streamed):
            found = attempt(loop, top)
            if found is not None:
                return found
        tiled = any(isinstance(n, Contract) for n in walk(loop))
        values = {
            "comments": self._comments(loop) if top and not tiled else [],
            "index": self.symbols[loop.index],
            "body": self.block(loop.body, top and tiled),
        }
        if loop.stop is None:
            return render("loop.pyx.j2", **values, range=self._range(loop))
        lower, upper = self._bounds(loop)
        step = self.spelling.integer(loop.step)
        last = f"jc_min({values['index']} + {step}, {upper})"
        bounds = {"lower": lower, "upper": upper, "step": step}
        return render("tile.pyx.j2", **values, **bounds, stop=self.symbols[loop.stop], last=last)

    def _run(self, run: Sequence[Leaf]) -> list[str]:
        """Straight-line statements, what they share computed once; of vectors, what later ones read stays in one."""
        lines: list[str] = []
        plain: list[Assign | Accumulate | Scatter | Select] = []
        for node in run:
            assert isinstance(node, Assign | Accumulate | Scatter | Select)
            plain.append(replace(node, value=node.value.xreplace(self.held)) if self.held else node)
            if self.lanes is not None and node.target in self.lanes.of.kept:
                lines += self._straight(plain, keeps=True)
                plain = []
        return lines + self._straight(plain)

    def _straight(self, run: Sequence[Assign | Accumulate | Scatter | Select], keeps: bool = False) -> list[str]:
        """Statements, what they share computed once; what the last assigns is kept for others to read if asked."""
        found = shared([n.value for n in run], [n.target.name for n in run], self.temporary_count)
        lines: list[str] = []
        for node, (definitions, value) in zip(run, found, strict=True):
            for symbol, meaning in definitions:
                lines += self._named(symbol, meaning)
            if self.lanes is not None:
                value, more = steady(value, self._is_vector, self.temporary_count)
                for symbol, meaning in more:
                    lines += self._named(symbol, meaning)
            if keeps and node is run[-1]:
                symbol = sp.Symbol(f"held{len(self.held)}", real=True)
                lines += self._named(symbol, value)
                self.held[node.target] = value = symbol
            lines.append(self._leaf(node, value))
        return lines

    def _named(self, symbol: sp.Symbol, meaning: sp.Expr) -> list[str]:
        """A shared subexpression, or one that does not change in a vector loop, as a variable."""
        self.temporary_count += 1
        if self.lanes is not None and not self.asking and not self._is_vector(meaning) and self._is_there(meaning):
            self.symbols[symbol] = self._before(self.spelling.real(meaning))
            return []
        name = self.names.fresh("t")
        self.symbols[symbol] = name
        if not self._is_vector(meaning):
            self.variables.append(name)
            return [render("assign.pyx.j2", target=name, value=self.spelling.real(meaning))]
        self.vector_variables.append(name)
        self.moving.add(symbol)
        assert self.lanes is not None
        meaning, more = steady(meaning, self._is_vector, self.temporary_count)
        lines = [line for inner, its in more for line in self._named(inner, its)]
        return [*lines, render("assign.pyx.j2", target=name, value=self.spelling.real(meaning))]

    def _is_there(self, expr: sp.Expr) -> bool:
        """May its numbers be read before a loop that perhaps does nothing?"""
        offsets = [sp.expand(self.inner_offset(a)) for a in accesses(expr) if a.indices]
        return not any(part.could_extract_minus_sign() for offset in offsets for part in sp.Add.make_args(offset))

    def _before(self, value: str) -> str:
        """A variable that is set before a vector loop: stores past the cache hide from C that it stays the same."""
        if value not in self.still:
            self.still[value] = self.names.fresh("t")
            self.variables.append(self.still[value])
        return self.still[value]

    def _is_vector(self, expr: sp.Expr) -> bool:
        return self.lanes is not None and moves(expr, self.lanes.index, self.moving)

    def _leaf(self, node: Assign | Accumulate | Scatter | Select, value: sp.Expr) -> str:
        if self.lanes is not None and isinstance(node, Assign | Accumulate):
            return self._stored(node, value, self.lanes)
        target = self.access(node.target)
        whole = bool(node.target.is_integer)
        spelled = self.spelling.integer(value) if whole and not isinstance(node, Select) else self.spelling.real(value)
        match node:
            case Assign():
                return render("assign.pyx.j2", target=target, value=spelled)
            case Select():
                name = self.names.fresh("candidate")
                self.variables.append(name)
                return render(
                    "select.pyx.j2", value_name=name, value=spelled, seen=self.access(node.seen),
                    best=self.access(node.best), target=target, position=self.spelling.integer(node.position),
                    relation=">" if node.reducer == "argmax" else "<",
                )  # fmt: skip
        if node.reducer in ("sum", "prod"):
            operator = "+" if node.reducer == "sum" else "*"
            return render("accumulate.pyx.j2", target=target, operator=operator, value=spelled)
        call = f"jc_{node.reducer}_{self.dtype}({target}, {spelled})"
        return render("assign.pyx.j2", target=target, value=call)

    def _contract(self, node: Contract) -> str:
        if node.tiled:
            return self._tiled(node)
        left, right, target = (self._view(a, r, c) for a, r, c in (
            (node.left, node.m, node.k), (node.right, node.k, node.n), (node.target, node.m, node.n)))  # fmt: skip
        m, n = self._extent(node.m), self._extent(node.n)
        if target[2]:
            left, right = (right[0], right[1], not right[2]), (left[0], left[1], not left[2])
            m, n = n, m
        whole = self._kept(node.target)
        return render(
            "contract.pyx.j2",
            comments=self.scope.comments([node.equation] if node.equation is not None else []),
            dtype=self.dtype,
            left_transposed=int(left[2]),
            right_transposed=int(right[2]),
            m=m,
            n=n,
            k=self._extent(node.k),
            alpha=self.spelling.real(node.alpha),
            left=left[0],
            left_stride=left[1],
            right=right[0],
            right_stride=right[1],
            adds=int(node.adds),
            target=target[0],
            target_stride=target[1],
            elements=self.spelling.integer(whole),
        )

    def _kept(self, access: Access) -> sp.Expr:
        """How many elements of what is written outlive the nest: all of a result, none of scratch."""
        known = {b.name: b.elements for b in self.scope.kernel.buffers}
        return known.get(access.name, sp.S.Zero)

    def _tiled(self, node: Contract) -> str:
        """A sum over boxes: its loops with their strides, and the windows of its operands, as a plan of the header."""
        onto = node.target if node.adds else node.onto
        offset = self.inner_offset
        starting = sp.S.Zero if onto is None else offset(onto)
        found = plan(node, (offset(node.target), starting, offset(node.left), offset(node.right)))
        name = self.names.fresh("plan")
        rows = [", ".join(self.spelling.integer(e) for e in row) for row in found.rows]
        self.plans[name] = sum(len(row) for row in found.rows)
        target, there, left, right = (
            "NULL" if a is None else self._at(a, at)
            for a, at in zip((node.target, onto, node.left, node.right), found.starts, strict=True)
        )
        return render(
            "product.pyx.j2",
            comments=self.scope.comments([node.equation] if node.equation is not None else []),
            dtype=self.dtype,
            plan=name,
            rows=rows,
            target=target,
            left=left,
            right=right,
            alpha=self.spelling.real(node.alpha),
            onto=there,
            prepared=self.prepared.get(node, "NULL"),
        )

    def _extent(self, span: Span) -> str:
        if span.is_cut:
            (low,), (high,) = span.lower, span.upper
            start = self.spelling.bound(low, largest=True)
            stop = self.spelling.bound(high, largest=False)
            return stop if start == "0" else f"{stop} - {start}"
        return self.spelling.integer(sp.expand(sp.Mul(*span.extents)))

    @staticmethod
    def _start(span: Span, position: int) -> sp.Expr:
        low = span.lower[position]
        return Greatest(*low) if span.is_cut and len(low) > 1 else low[0]

    def _view(self, access: Access, rows: Span, columns: Span) -> tuple[str, str, bool]:
        """(pointer, leading stride, is it stored transposed?) of an operand."""
        offset = sp.expand(self.inner_offset(access))
        extents = {i: e for s in (rows, columns) for i, e in zip(s.indices, s.extents, strict=True)}
        strides = [run_stride(offset, s.indices, extents) if s.indices else sp.S.One for s in (rows, columns)]
        row, column = strides
        if row is None or column is None or sp.S.One not in (row, column):
            raise ValueError(
                f"{access} is no matrix over {rows.indices} and {columns.indices}: strides {row}, {column}"
            )
        start = {i: self._start(s, k) for s in (rows, columns) for k, i in enumerate(s.indices)}
        at = sp.expand(offset.xreplace(start))
        pointer = self._at(access, at)
        transposed = column != 1
        return pointer, self.spelling.integer(column if transposed else row), transposed
