"""The two functions of one nest, and how the kernel calls them.

A row function does one iteration of the parallel loops, over `restrict` row pointers: that is what the C compiler
vectorises. A block function runs a fixed range of iterations, with its scratch. Input: a function of the loop IR.
Output: the text of both, and the values that the kernel's template needs to call them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.emit.expressions import ADD, ATOM, REAL
from jaccomp.emit.nodes import Row
from jaccomp.emit.plans import Prepared, prepared
from jaccomp.emit.scope import Scope
from jaccomp.emit.streams import mended_only, write_only
from jaccomp.emit.templates import render
from jaccomp.emit.vectors import EACH
from jaccomp.lowering.affine import slope
from jaccomp.lowering.ir import (
    LEAVES,
    Accumulate,
    Assign,
    Buffer,
    Contract,
    Function,
    Loop,
    Select,
    Within,
    walk,
)
from jaccomp.lowering.storage import node_accesses
from jaccomp.notation import Access

ORDER = {"f32": "int32_t", "f64": "int64_t"}
"""Integers in the order of the reals of a dtype."""
PARTIAL_BLOCKS = 32
PARTIAL_ROWS = 16
"""A block with partial sums has at least this many iterations: partial memory stays a fraction of the results."""
PARTIAL_ELEMENTS = 1 << 19
"""Results that are smaller count as this many: a tenth of it is little memory, and a loss is summed in parallel too."""


@dataclass(frozen=True, slots=True)
class Made:
    """The text of a nest's functions, the values of its call, and what the kernel declares for it."""

    text: str
    values: dict[str, object]
    declarations: list[str]


MANY = 4
"""Passes over a row that leave time to ask for the next one, if it is short; one of exponentials counts as so many."""


def _words(text: str) -> set[str]:
    """What a text names outside its comments."""
    return set(re.findall(r"\w+", re.sub(r"#.*", "", text)))


def _has_each(loop: Loop) -> bool:
    return any(isinstance(n, Assign | Accumulate) and n.value.has(*EACH) for n in walk(loop))


class Nest:
    """The two functions of one nest, and how the kernel calls them."""

    def __init__(self, scope: Scope, function: Function) -> None:
        self.scope, self.function = scope, function
        self.kernel, self.dtype = scope.kernel, scope.dtype
        self.context = scope.names.fresh(function.name)
        self.names = scope.names.copy()
        self.symbols = dict(scope.symbols)
        self.title = f"{scope.name}_{function.name}"
        self.locals = [b for b in function.scratch if b.place == "local"]
        self.scratch = [b for b in function.scratch if b.place == "scratch"]
        self.partials = {p.target: p for p in function.partials}
        labels = self.kernel.program.labels
        for buffer in (*self.locals, *self.scratch):
            stem, promoted, _ = buffer.name.partition("_sum")
            label = labels.name(buffer.name) if not promoted else f"{labels.name(stem)}_sum"
            self.symbols[sp.Symbol(buffer.name)] = self.names.fresh(label)
        self.outer = [s for loop in function.parallel for s in (loop.index, loop.stop) if s is not None]
        hints = dict(self.kernel.hints)
        for symbol in [*self.outer, *(s for n in walk(function.body) if isinstance(n, Loop)
                                      for s in (n.index, n.stop) if s is not None)]:  # fmt: skip
            self.symbols[symbol] = self.names.fresh(self.hint(hints.get(symbol), symbol))
        self.shifts = self._shifts()
        self.ahead = self._ahead()
        self.prepared = {one.node: one for one in prepared(function, self.kernel.program)}
        self.prepared_names = {node: self.names.fresh("prepared") for node in self.prepared}
        self.row = self._row(all_wanted=True)
        self.spelling = self.row.spelling

    def hint(self, found: tuple[str, int, str] | None, symbol: sp.Symbol) -> str:
        if found is None:
            return str(symbol.name)
        tensor, axis, suffix = found
        given = self.kernel.program.labels.axis_names(tensor)
        return (given[axis] if given is not None and axis < len(given) else f"i{axis}") + suffix

    def _row(self, all_wanted: bool) -> Row:
        """The row function's text to be, with or without questions which outputs are wanted."""
        outputs = set(self.kernel.program.outputs)
        once, mended = write_only(self.function.body) & outputs, mended_only(self.function.body) & outputs
        local_names = {b.name for b in self.locals}
        loops = [n for n in walk(self.function.body) if isinstance(n, Loop)]
        innermost = [loop for loop in loops if not any(isinstance(n, Loop) for n in walk(loop.body))]
        passes = sum(MANY if _has_each(loop) else 1 for loop in innermost)
        names, symbols = self.names.copy(), dict(self.symbols)
        return Row(
            self.scope, names, symbols, local_names, self.shifts, once | mended, mended, self.ahead, passes >= MANY,
            self.prepared_names, all_wanted,
        )  # fmt: skip

    # ---- pointers

    def _buffers(self) -> list[Buffer]:
        """The arrays the nest touches, in the kernel's order, then its scratch."""
        used = {a.name for a in node_accesses(self.function.body)}
        known = [b for b in (*self.kernel.buffers, *self.kernel.temporaries) if b.place != "local" and b.name in used]
        return [*known, *self.scratch]

    def _shifts(self) -> dict[str, sp.Expr]:
        """What of every offset into a buffer the parallel loops alone decide: its row pointer."""
        outer = set(self.outer)
        own: dict[str, list[sp.Expr]] = {}
        inner = {s for n in walk(self.function.body) if isinstance(n, Loop) for s in (n.index, n.stop)}
        inner |= {
            i for n in walk(self.function.body) if isinstance(n, Contract) for s in (n.m, n.n, n.k) for i in s.indices
        }
        for access in node_accesses(self.function.body):
            if not access.indices:
                continue
            (offset,) = access.indices
            mine = [
                a for a in sp.Add.make_args(offset)
                if a.free_symbols & outer and not a.free_symbols & inner and not a.has(Access, Within)
            ]  # fmt: skip
            own[access.name] = [a for a in own.get(access.name, mine) if a in mine]
        return {name: sp.Add(*parts) for name, parts in own.items() if parts}

    def _ahead(self) -> dict[tuple[str, sp.Symbol], sp.Expr]:
        """How far on the next row of an input lies, by the loop that is the last of the body to read this one."""
        last: dict[str, sp.Symbol] = {}
        for loop in (n for n in walk(self.function.body) if isinstance(n, Loop)):
            last.update((a.name, loop.index) for a in node_accesses(loop) if loop.index in a.free_symbols)
        if not self.function.parallel or self.function.parallel[-1].stop is not None:
            return {}
        index = self.function.parallel[-1].index
        strides = {name: slope(shift, index) for name, shift in self.shifts.items()}
        return {
            (name, last[name]): stride
            for name, stride in strides.items()
            if stride is not None and stride != 0 and name in last and name in self.kernel.program.inputs
        }

    def _pointer_type(self, buffer: Buffer) -> str:
        written = {n.target.name for n in walk(self.function.body) if isinstance(n, LEAVES)}
        written |= {n.best.name for n in walk(self.function.body) if isinstance(n, Select)}
        written |= {n.seen.name for n in walk(self.function.body) if isinstance(n, Select)}
        suffix = "i64" if buffer.dtype == "int64" else self.dtype
        return ("out_" if buffer.name in written else "in_") + suffix

    # ---- the two functions

    def made(self) -> Made:
        function, scope = self.function, self.scope
        body = self.row.block(function.body, top=True)
        some = self._row(all_wanted=False) if self.row.flags else None
        some_body = some.block(function.body, top=True) if some is not None else ""
        buffers = self._buffers()
        named = _words(body) | _words(some_body)
        used = [c for c in scope.constants if self.symbols[c] in named]
        outer = [s for s in self.outer if self.symbols[s] in named]
        flags = [o for o in self.kernel.program.outputs if o in self.row.flags]
        constants = [f"{self._constant_type(c)} {self.symbols[c]}" for c in used]
        row = [f"{self._pointer_type(b)} {self.symbols[sp.Symbol(b.name)]}" for b in buffers]
        row += [f"const void *{name}" for name in self.prepared_names.values()]
        row += [f"Py_ssize_t {self.symbols[s]}" for s in outer] + constants
        asked = [f"bint {scope.wants[o]}" for o in flags]
        arrays = [b for b in buffers if b.place != "scratch"]
        arguments = [self._row_argument(b) for b in buffers] + list(self.prepared_names.values())
        arguments += [self.symbols[s] for s in outer]
        arguments += [self.symbols[c] for c in used]
        declarations, prologue, epilogue = self._scratch_lines()
        unflatten, offsets = self._unflatten(), self._offsets(arrays)
        inside = [*arguments, *declarations, *prologue, *epilogue, *unflatten, *offsets.values()]
        named = _words("\n".join(inside))
        more = [c for c in scope.constants if self.symbols[c] in named]
        fields = [(self._constant_type(c), str(self.symbols[c])) for c in more]  # first: offsets are made of them
        fields += [(self._pointer_type(b), str(self.symbols[sp.Symbol(b.name)])) for b in arrays]
        fields += [("void *", name) for name in self.prepared_names.values()]
        fields += [("bint", scope.wants[o]) for o in flags]
        rows = [{"suffix": "", "parameters": row, "declarations": self._declarations(self.row, body), "body": body}]
        if some is not None:
            declared = self._declarations(some, some_body)
            rows.append({"suffix": "_some", "parameters": row + asked, "declarations": declared, "body": some_body})
        text = render(
            "function.pyx.j2",
            name=self.title,
            dtype=self.dtype,
            rows=rows,
            fields=fields,
            offsets=offsets,
            block_declarations=["cdef Py_ssize_t flat", *self._outer_declarations(), *declarations],
            prologue=prologue,
            epilogue=epilogue,
            unflatten=unflatten,
            wanted=" and ".join(scope.wants[o] for o in flags),
            all_arguments=", ".join(arguments),
            some_arguments=", ".join([*arguments, *(scope.wants[o] for o in flags)]),
        )
        return Made(text, self._values(arrays, [name for _, name in fields]), self._declared())

    def _constant_type(self, constant: sp.Basic) -> str:
        real = any(s.symbol == constant and s.dtype == "real" for s in self.kernel.program.scalars)
        return REAL[self.dtype] if real else "Py_ssize_t"

    def _row_argument(self, buffer: Buffer) -> str:
        name = str(self.symbols[sp.Symbol(buffer.name)])
        shift = self.shifts.get(buffer.name, sp.S.Zero)
        return name if shift == 0 else f"{name} + {self.spelling.integer(shift, ADD)}"

    def _declarations(self, row: Row, body: str) -> list[str]:
        lines, named = [], _words(body)
        loops = [s for n in walk(self.function.body) if isinstance(n, Loop) for s in (n.index, n.stop) if s is not None]
        own = [self.symbols[s] for s in loops if self.symbols[s] in named] + row.counters
        if own:
            lines.append(f"cdef Py_ssize_t {', '.join(own)}")
        for line, into, length in row.lines:
            lines += [f"cdef {REAL[self.dtype]} {line}[{length}]", f"cdef {REAL[self.dtype]} *{into}"]
        whole = [self.symbols[sp.Symbol(b.name)] for b in self.locals if b.dtype == "int64"]
        real = [self.symbols[sp.Symbol(b.name)] for b in self.locals
                if b.dtype != "int64" and b.name not in row.vector_locals] + row.variables  # fmt: skip
        for lanes, steps in row.sums:
            lines.append(f"cdef lanes_{self.dtype} {lanes}[{steps}]")
        if row.vector_variables:
            lines.append(f"cdef lanes_{self.dtype} {', '.join(row.vector_variables)}")
        if row.marks:
            lines.append(f"cdef bint {', '.join(row.marks)}")
        if row.looks:
            lines.append(f"cdef int {', '.join(row.looks)}")
        if row.order:
            lines.append(f"cdef {ORDER[self.dtype]} {row.order}")
        lines += [f"cdef Py_ssize_t {name}[{length}]" for name, length in row.plans.items()]
        if whole:
            lines.append(f"cdef int64_t {', '.join(whole)}")
        if real:
            lines.append(f"cdef {REAL[self.dtype]} {', '.join(real)}")
        return lines

    def _outer_declarations(self) -> list[str]:
        return [f"cdef Py_ssize_t {', '.join(self.symbols[s] for s in self.outer)}"] if self.outer else []

    def _scratch_lines(self) -> tuple[list[str], list[str], list[str]]:
        """Declarations, prologue and epilogue: all scratch of a call is one allocation, on the stack if it is small."""
        declarations, prologue, epilogue = [], [], []
        if self.scratch:
            sizes, at = [], "scratch"
            for buffer in self.scratch:
                name, kind = self.symbols[sp.Symbol(buffer.name)], self.scope.real_type(buffer)
                sizes.append(f"jc_bytes({self.spelling.integer(buffer.elements)}, sizeof({kind}))")
                declarations.append(f"cdef {kind} *{name}")
                prologue.append(f"{name} = <{kind} *>({at})" if at != "scratch" else f"{name} = <{kind} *>scratch")
                at = f"<char *>{name} + {sizes[-1]}"
            declarations += [
                "cdef jc_small small",
                f"cdef char *scratch = <char *>jc_borrow(&small, {' + '.join(sizes)})",
            ]
            prologue = ["if scratch == NULL:", "    return -1", *prologue]
            epilogue.append("jc_return(&small, scratch)")
        if self.row.streams:
            epilogue.append("jc_stream_fence()")
        return declarations, prologue, epilogue

    def _unflatten(self) -> list[str]:
        """From the flat number of an iteration to the indices of the parallel loops, the last the fastest."""
        lines: list[str] = []
        loops = self.function.parallel
        for position, loop in enumerate(loops):
            later = [self._count(one) for one in loops[position + 1 :]]
            text = "flat"
            if later:
                text = f"flat // ({' * '.join(later)})"
            if position > 0:
                text = f"{text} % {self._count(loop)}" if later else f"flat % {self._count(loop)}"
            name = self.symbols[loop.index]
            lower = self.spelling.bound(loop.lower, largest=True)
            step = self.spelling.integer(loop.step, ATOM)
            if loop.stop is not None:
                text = f"{text} * {step}" if text == "flat" else f"({text}) * {step}"
            lines.append(f"{name} = {text}" if lower == "0" else f"{name} = {lower} + {text}")
            if loop.stop is not None:
                upper = self.spelling.bound(loop.upper, largest=False)
                lines.append(f"{self.symbols[loop.stop]} = jc_min({name} + {step}, {upper})")
        return lines

    def _count(self, loop: Loop) -> str:
        lower, upper = self.spelling.bound(loop.lower, largest=True), self.spelling.bound(loop.upper, largest=False)
        extent = f"({upper})" if lower == "0" else f"({upper} - ({lower}))"
        if re.fullmatch(r"\(\w+\)", extent):
            extent = extent[1:-1]
        return extent if loop.stop is None else f"jc_ceildiv({extent}, {self.spelling.integer(loop.step)})"

    def _length(self, loop: Loop) -> str:
        """The number of iterations, never negative."""
        count = self._count(loop)
        return count if re.fullmatch(r"\w+", count) and count in self._sizes() else f"jc_max(0, {count})"

    def _sizes(self) -> set[str]:
        return {self.symbols[s] for s in self.kernel.program.sizes}

    # ---- how the kernel calls it

    def _values(self, arrays: Sequence[Buffer], fields: Sequence[str]) -> dict[str, object]:
        function = self.function
        given = {
            str(self.symbols[sp.Symbol(b.name)]): self._partial_name(b.name) for b in arrays if b.name in self.partials
        }
        given |= {name: self._prepared_name(node) for node, name in self.prepared_names.items()}
        total = " * ".join(self._length(loop) for loop in function.parallel) or "1"
        blocks = "jc_blocks(total, work)"
        if function.partials:
            own = sp.Add(*(p.buffer.elements for p in function.partials))
            program = self.kernel.program
            results = [program.tensor(n) for n in program.outputs]
            memory = self.spelling.integer(sp.Add(*(sp.Mul(*t.shape) for t in results)))
            heavy = any(isinstance(n, Contract) for n in walk(function.body))
            rows = 1 if heavy or any(loop.stop is not None for loop in function.parallel) else PARTIAL_ROWS
            fit = f"jc_max({memory}, {PARTIAL_ELEMENTS}) // (10 * {self.spelling.integer(own, ATOM)} + 1)"
            least = f"jc_min(jc_min({PARTIAL_BLOCKS}, jc_blocks(total, work)), jc_min(total // {rows}, {fit}))"
            blocks = f"jc_max(jc_min(total, 1), {least})"
        return {
            "guard": f"if failed == 0 and {self._wanted(function.needs)}",
            "total": total,
            "blocks": blocks,
            "work": self.spelling.integer(function.work, ADD),
            "partials": [self._partial_values(p.target) for p in function.partials],
            "context": self.context,
            "task": f"{self.title}_block_{self.dtype}",
            "fields": [(name, given.get(name, name)) for name in fields],
            "prepared": [self._prepared_values(one) for one in self.prepared.values()],
        }

    def _prepared_name(self, node: Contract) -> str:
        return f"{self.prepared_names[node]}_{self.function.name}"

    def _prepared_values(self, one: Prepared) -> dict[str, object]:
        name = str(self.symbols[sp.Symbol(one.operand.name)])
        return {
            "name": self._prepared_name(one.node),
            "operand": name if one.start == 0 else f"{name} + {self.spelling.integer(one.start, ADD)}",
            "rows": [", ".join(self.spelling.integer(e) for e in row) for row in one.rows],
            "condition": self._wanted(one.node.needs),
        }

    def _wanted(self, outputs: Sequence[str]) -> str:
        text = self.scope.wanted(outputs)
        return f"({text})" if " or " in text else text

    def _partial_name(self, target: str) -> str:
        return f"{self.symbols[sp.Symbol(target)]}_partial_{self.function.name}"

    def _offsets(self, arrays: Sequence[Buffer]) -> dict[str, str]:
        """Where a block finds its own partial sums: (name, what is added to the first block's)."""
        return {
            str(self.symbols[sp.Symbol(b.name)]): f" + block * {self.spelling.integer(b.elements, ATOM)}"
            for b in arrays
            if b.name in self.partials
        }

    def _declared(self) -> list[str]:
        """What the kernel declares for the nest: the values of its blocks, and its partial sums."""
        partials = [
            f"cdef {self.scope.real_type(p.buffer)} *{self._partial_name(p.target)} = NULL"
            for p in self.function.partials
        ]
        ready = [
            line
            for one in self.prepared.values()
            for name in (self._prepared_name(one.node),)
            for line in (f"cdef void *{name} = NULL", f"cdef Py_ssize_t {name}_plan[{sum(map(len, one.rows))}]")
        ]
        return [f"cdef {self.title}_{self.dtype} {self.context}", *partials, *ready]

    def _partial_needs(self, target: str) -> list[str]:
        leaves = [n for n in walk(self.function.body) if isinstance(n, LEAVES) and n.target.name == target]
        found = {o for n in leaves for o in n.needs}
        return [o for o in self.kernel.program.outputs if o in found]

    def _partial_values(self, target: str) -> dict[str, str]:
        partial = self.partials[target]
        name, whole = self._partial_name(target), self.symbols[sp.Symbol(target)]
        elements = self.spelling.integer(partial.buffer.elements)
        at = f"{name}[block * {self.spelling.integer(partial.buffer.elements, ATOM)} + part]"
        combine = {
            "sum": f"{whole}[part] += {at}",
            "prod": f"{whole}[part] *= {at}",
            "max": f"{whole}[part] = jc_max_{self.dtype}({whole}[part], {at})",
            "min": f"{whole}[part] = jc_min_{self.dtype}({whole}[part], {at})",
        }[partial.reducer]
        start = {"sum": "0", "prod": "1", "max": "-JC_INF", "min": "JC_INF"}[partial.reducer]
        return {
            "name": name,
            "type": self.scope.real_type(partial.buffer),
            "elements": elements,
            "all_elements": f"blocks * {self.spelling.integer(partial.buffer.elements, ATOM)}",
            "target": whole,
            "condition": self._wanted(self._partial_needs(target)),
            "combine": combine,
            "start": f"{name}[part] = {start}",
        }
