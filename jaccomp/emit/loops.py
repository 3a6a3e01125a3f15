"""The loops of a kernel as Cython functions.

For each nest: a row function (one iteration of its parallel loops, over `restrict` row pointers) and a block function
(a fixed range of iterations, with its scratch). For the kernel: one function with the ABI that the module's frame
calls, which runs the blocks of each nest in parallel and combines partial sums in block order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import sympy as sp

from jaccomp.emit.cse import shared
from jaccomp.emit.expressions import ADD, REAL, DType, Spelling
from jaccomp.emit.names import Names
from jaccomp.emit.templates import render
from jaccomp.lowering.contraction import run_stride
from jaccomp.lowering.ir import (
    LEAVES,
    Accumulate,
    Alloc,
    Assign,
    Block,
    Buffer,
    Contract,
    Function,
    Greatest,
    Guard,
    Kernel,
    Leaf,
    Loop,
    Node,
    Return,
    Scatter,
    Select,
    Span,
    leaf_expressions,
    walk,
)
from jaccomp.lowering.storage import node_accesses
from jaccomp.notation import Access
from jaccomp.printing import equation_text
from jaccomp.program import Constraint, Equation

BLOCKS = 64
"""Blocks of a nest without partial sums; enough for any machine, few enough to cost nothing."""
PARTIAL_BLOCKS = 32
PARTIAL_ROWS = 16
"""A block with partial sums has at least this many iterations: partial memory stays a fraction of the inputs."""
SERIAL_WORK = 16384
"""Iterations of the innermost loops below which waking other threads costs more than it saves."""


LANES = 16
LANE = sp.Symbol("_lane", integer=True)


def emit_kernel(kernel: Kernel, name: str, dtype: DType) -> str:
    """The cdef functions of a kernel in one dtype; `{name}_{dtype}` is the entry of the ABI."""
    return _Emission(kernel, name, dtype).text()


class _Emission:
    def __init__(self, kernel: Kernel, name: str, dtype: DType) -> None:
        self.kernel, self.name, self.dtype = kernel, name, dtype
        program = kernel.program
        self.names = Names()
        self.symbols: dict[sp.Basic, str] = {}
        for tensor in (*program.inputs, *program.outputs):
            self.symbols[sp.Symbol(tensor)] = self.names.fresh(program.labels.name(tensor))
        for size in program.sizes:
            self.symbols[size] = self.names.fresh(program.labels.name(size.name))
        for scalar in program.scalars:
            self.symbols[scalar.symbol] = self.names.fresh(program.labels.name(scalar.name))
        for buffer in kernel.temporaries:
            self.symbols[sp.Symbol(buffer.name)] = self.names.fresh(program.labels.name(buffer.name))
        self.wants = {output: self.names.fresh(f"want_{program.labels.name(output)}") for output in program.outputs}
        self.spelling = Spelling(dtype, self.symbols, lambda a: "")
        self.constants = {*program.sizes, *(s.symbol for s in program.scalars)}

    def buffer_name(self, name: str) -> str:
        return str(self.symbols[sp.Symbol(name)])

    def real_type(self, buffer: Buffer) -> str:
        return "int64_t" if buffer.dtype == "int64" else REAL[self.dtype]

    def text(self) -> str:
        program = self.kernel.program
        functions = [_Nest(self, f).made() for f in self.kernel.functions]
        parameters = [f"{self.pointer(n)} {self.buffer_name(n)}" for n in (*program.inputs, *program.outputs)]
        parameters += [f"Py_ssize_t {self.symbols[s]}" for s in program.sizes]
        for scalar in program.scalars:
            kind = "Py_ssize_t" if scalar.dtype == "int64" else REAL[self.dtype]
            parameters.append(f"{kind} {self.symbols[scalar.symbol]}")
        declarations = [f"cdef bint {self.wants[o]} = {self.buffer_name(o)} != NULL" for o in program.outputs]
        temporaries = [self.temporary(b, self.wanted(self.needs_of(b.name))) for b in self.kernel.temporaries]
        for buffer in self.kernel.temporaries:
            declarations.append(f"cdef {self.real_type(buffer)} *{self.buffer_name(buffer.name)} = NULL")
        for output, needs in self.kernel.fallbacks:
            others = self.wanted([o for o in needs if o != output])
            own = self.kernel.buffer(output)
            temporaries.append(self.temporary(own, f"not {self.wants[output]} and ({others})"))
        for nest in functions:
            declarations += nest.partial_declarations
        return render(
            "kernel.pyx.j2",
            functions="".join(n.text for n in functions),
            name=self.name,
            dtype=self.dtype,
            parameters=", ".join([*parameters, "int threads"]),
            declarations=declarations,
            temporaries=temporaries,
            nests=[n.values for n in functions],
        )

    def needs_of(self, name: str) -> list[str]:
        found = {o for f in self.kernel.functions for n in walk(f.body) if isinstance(n, LEAVES)
                 for o in n.needs if name in {a.name for a in node_accesses(n)}}  # fmt: skip
        return [o for o in self.kernel.program.outputs if o in found]

    def temporary(self, buffer: Buffer, condition: str) -> dict[str, str]:
        return {
            "name": self.buffer_name(buffer.name),
            "type": self.real_type(buffer),
            "elements": self.spelling.integer(buffer.elements),
            "condition": condition,
        }

    def wanted(self, outputs: Sequence[str]) -> str:
        return " or ".join(self.wants[o] for o in outputs) or "True"

    def pointer(self, name: str) -> str:
        """The ABI's pointer type of an input or output."""
        tensor = self.kernel.program.tensor(name)
        base = "int64_t" if tensor.dtype == "int64" else REAL[self.dtype]
        return f"const {base} *" if name in self.kernel.program.inputs else f"{base} *"

    def comments(self, equations: Iterable[Equation]) -> list[str]:
        lines = []
        for equation in dict.fromkeys(equations):
            text = equation_text(self.kernel.program, equation)
            lines.append(re.sub(r"[\s\"'\\]+|\*/", " ", text).strip())
        return lines


class _Made:
    def __init__(self, text: str, values: dict[str, object], partial_declarations: list[str]) -> None:
        self.text, self.values, self.partial_declarations = text, values, partial_declarations


class _Nest:
    """The two functions of one nest, and how the kernel calls them."""

    def __init__(self, emission: _Emission, function: Function) -> None:
        self.emission, self.function = emission, function
        self.kernel, self.dtype = emission.kernel, emission.dtype
        self.names = emission.names.copy()
        self.symbols = dict(emission.symbols)
        self.title = f"{emission.name}_{function.name}"
        self.locals = [b for b in function.scratch if b.place == "local"]
        self.scratch = [b for b in function.scratch if b.place == "scratch"]
        self.partials = {p.target: p for p in function.partials}
        labels = self.kernel.program.labels
        for buffer in (*self.locals, *self.scratch):
            stem, promoted, _ = buffer.name.partition("_sum")
            label = labels.name(buffer.name) if not promoted else f"{labels.name(stem)}_sum"
            self.symbols[sp.Symbol(buffer.name)] = self.names.fresh(label)
        self.outer = [s for loop in function.parallel for s in (loop.index, loop.stop) if s is not None]
        self.indices: list[sp.Symbol] = []
        hints = dict(self.kernel.hints)
        for symbol in [*self.outer, *(s for n in walk(function.body) if isinstance(n, Loop)
                                      for s in (n.index, n.stop) if s is not None)]:  # fmt: skip
            self.symbols[symbol] = self.names.fresh(self.hint(hints.get(symbol), symbol))
        self.variables: list[str] = []
        self.lanes = ""
        self.symbols[LANE] = self.names.fresh("lane")
        self.temporary_count = 0
        self.shifts = self._shifts()
        self.local_names = {b.name for b in self.locals}
        self.spelling = Spelling(self.dtype, self.symbols, self._access)
        self.flags: set[str] = set()

    def hint(self, found: tuple[str, int, str] | None, symbol: sp.Symbol) -> str:
        if found is None:
            return str(symbol.name)
        tensor, axis, suffix = found
        given = self.kernel.program.labels.axis_names(tensor)
        return (given[axis] if given is not None and axis < len(given) else f"i{axis}") + suffix

    # ---- pointers

    def _buffers(self) -> list[Buffer]:
        """The arrays the nest touches, in the kernel's order, then its scratch."""
        used = {a.name for a in node_accesses(self.function.body)}
        known = [b for b in (*self.kernel.buffers, *self.kernel.temporaries) if b.place != "local" and b.name in used]
        return [*known, *self.scratch]

    def _shifts(self) -> dict[str, sp.Expr]:
        """The part of every offset into a buffer that the parallel loops alone decide: its row pointer."""
        outer = set(self.outer)
        own: dict[str, set[sp.Expr]] = {}
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
                if a.free_symbols & outer and not a.free_symbols & inner and not a.has(Access)
            ]  # fmt: skip
            own.setdefault(access.name, set()).add(sp.Add(*mine))
        return {name: next(iter(parts)) for name, parts in own.items() if len(parts) == 1 and next(iter(parts)) != 0}

    def _access(self, access: Access) -> str:
        name = str(self.symbols[sp.Symbol(access.name)])
        if access.name in self.local_names or not access.indices:
            return name
        return f"{name}[{self.spelling.integer(self._inner_offset(access))}]"

    def _inner_offset(self, access: Access) -> sp.Expr:
        return access.indices[0] - self.shifts.get(access.name, sp.S.Zero)

    def _pointer_type(self, buffer: Buffer) -> str:
        written = {n.target.name for n in walk(self.function.body) if isinstance(n, LEAVES)}
        written |= {n.best.name for n in walk(self.function.body) if isinstance(n, Select)}
        written |= {n.seen.name for n in walk(self.function.body) if isinstance(n, Select)}
        suffix = "i64" if buffer.dtype == "int64" else self.dtype
        return ("out_" if buffer.name in written else "in_") + suffix

    # ---- the two functions

    def made(self) -> _Made:
        function, emission = self.function, self.emission
        body = self._block(function.body, top=True)
        buffers = self._buffers()
        used = self._used_constants()
        outer = [s for s in self.outer if self._mentions(s)]
        flags = [o for o in self.kernel.program.outputs if o in self.flags]
        constants = [f"{self._constant_type(c)} {self.symbols[c]}" for c in used]
        row = [f"{self._pointer_type(b)} {self.symbols[sp.Symbol(b.name)]}" for b in buffers]
        row += [f"Py_ssize_t {self.symbols[s]}" for s in outer] + constants
        row += [f"bint {emission.wants[o]}" for o in flags]
        block = [f"{self._pointer_type(b)} {self.symbols[sp.Symbol(b.name)]}" for b in buffers if b.place != "scratch"]
        more = self._block_constants(used)
        block += ["Py_ssize_t first", "Py_ssize_t last"] + [f"{self._constant_type(c)} {self.symbols[c]}" for c in more]
        block += [f"bint {emission.wants[o]}" for o in flags]
        arguments = [self._row_argument(b) for b in buffers] + [self.symbols[s] for s in outer]
        arguments += [self.symbols[c] for c in used]
        declarations, prologue, epilogue = self._scratch_lines()
        unflatten = self._unflatten()
        text = render(
            "function.pyx.j2",
            name=self.title,
            dtype=self.dtype,
            row_parameters=", ".join(row),
            declarations=self._declarations(),
            body=body,
            block_parameters=", ".join(block),
            block_declarations=["cdef Py_ssize_t flat, part", *self._outer_declarations(), *declarations],
            prologue=prologue,
            epilogue=epilogue,
            unflatten=unflatten,
            wanted=" and ".join(emission.wants[o] for o in flags),
            all_arguments=", ".join([*arguments, *("1" for _ in flags)]),
            some_arguments=", ".join([*arguments, *(emission.wants[o] for o in flags)]),
        )
        return _Made(text, self._values(buffers, more, flags), self._partial_declarations())

    def _constant_type(self, constant: sp.Basic) -> str:
        real = any(s.symbol == constant and s.dtype == "real" for s in self.kernel.program.scalars)
        return REAL[self.dtype] if real else "Py_ssize_t"

    def _mentions(self, symbol: sp.Symbol) -> bool:
        return symbol in self._row_symbols()

    def _row_symbols(self) -> set[sp.Basic]:
        """Every symbol that the text of the row function needs."""
        found: set[sp.Basic] = set()
        for node in walk(self.function.body):
            if isinstance(node, Loop):
                for bound in (*node.lower, *node.upper, node.step):
                    found |= bound.free_symbols
            elif isinstance(node, Guard):
                for constraint in node.constraints:
                    found |= self._symbols_of(constraint.expr)
            elif isinstance(node, LEAVES):
                for expr in leaf_expressions(node):
                    found |= self._symbols_of(expr)
                if isinstance(node, Contract):
                    for span in (node.m, node.n, node.k):
                        for bounds in (*span.lower, *span.upper):
                            for bound in bounds:
                                found |= bound.free_symbols
        return found

    def _symbols_of(self, expr: sp.Expr) -> set[sp.Basic]:
        if isinstance(expr, Access):
            return set(self._inner_offset(expr).free_symbols) if expr.indices else set()
        found: set[sp.Basic] = set(expr.free_symbols) if not expr.args else set()
        for arg in expr.args:
            found |= self._symbols_of(arg)
        return found

    def _used_constants(self) -> list[sp.Basic]:
        found = self._row_symbols()
        program = self.kernel.program
        return [c for c in (*program.sizes, *(s.symbol for s in program.scalars)) if c in found]

    def _block_constants(self, used: Sequence[sp.Basic]) -> list[sp.Basic]:
        found: set[sp.Basic] = set(used)
        for loop in self.function.parallel:
            for bound in (*loop.lower, *loop.upper):
                found |= bound.free_symbols
        for shift in self.shifts.values():
            found |= shift.free_symbols
        for buffer in (*self.scratch, *(p.buffer for p in self.function.partials)):
            found |= buffer.elements.free_symbols
        program = self.kernel.program
        return [c for c in (*program.sizes, *(s.symbol for s in program.scalars)) if c in found]

    def _row_argument(self, buffer: Buffer) -> str:
        name = str(self.symbols[sp.Symbol(buffer.name)])
        shift = self.shifts.get(buffer.name, sp.S.Zero)
        return name if shift == 0 else f"{name} + {self.spelling.integer(shift, ADD)}"

    def _declarations(self) -> list[str]:
        lines = []
        own = [self.symbols[s] for n in walk(self.function.body) if isinstance(n, Loop)
               for s in (n.index, n.stop) if s is not None]  # fmt: skip
        if own:
            lines.append(f"cdef Py_ssize_t {', '.join(own)}")
        whole = [self.symbols[sp.Symbol(b.name)] for b in self.locals if b.dtype == "int64"]
        real = [self.symbols[sp.Symbol(b.name)] for b in self.locals if b.dtype != "int64"] + self.variables
        if self.lanes:
            lines += [f"cdef Py_ssize_t {self.symbols[LANE]}", f"cdef {REAL[self.dtype]}[{LANES}] {self.lanes}"]
        if whole:
            lines.append(f"cdef int64_t {', '.join(whole)}")
        if real:
            lines.append(f"cdef {REAL[self.dtype]} {', '.join(real)}")
        return lines

    def _outer_declarations(self) -> list[str]:
        return [f"cdef Py_ssize_t {', '.join(self.symbols[s] for s in self.outer)}"] if self.outer else []

    def _scratch_lines(self) -> tuple[list[str], list[str], list[str]]:
        declarations, prologue, epilogue = [], [], []
        names = []
        for buffer in self.scratch:
            name, kind = self.symbols[sp.Symbol(buffer.name)], self.emission.real_type(buffer)
            size = self.spelling.integer(buffer.elements)
            declarations.append(f"cdef {kind} *{name} = <{kind} *>malloc(jc_bytes({size}, sizeof({kind})))")
            names.append(name)
            epilogue.append(f"free({name})")
        if names:
            prologue.append(f"if {' or '.join(f'{n} == NULL' for n in names)}:")
            prologue += [f"    {line}" for line in epilogue] + ["    return -1"]
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
            if loop.stop is not None:
                text = f"({text}) * {loop.step}"
            lines.append(f"{name} = {text}" if lower == "0" else f"{name} = {lower} + {text}")
            if loop.stop is not None:
                upper = self.spelling.bound(loop.upper, largest=False)
                lines.append(f"{self.symbols[loop.stop]} = jc_min({name} + {loop.step}, {upper})")
        return lines

    def _count(self, loop: Loop) -> str:
        lower, upper = self.spelling.bound(loop.lower, largest=True), self.spelling.bound(loop.upper, largest=False)
        extent = f"({upper})" if lower == "0" else f"({upper} - ({lower}))"
        if re.fullmatch(r"\(\w+\)", extent):
            extent = extent[1:-1]
        return extent if loop.stop is None else f"jc_ceildiv({extent}, {loop.step})"

    # ---- how the kernel calls it

    def _values(
        self, buffers: Sequence[Buffer], constants: Sequence[sp.Basic], flags: Sequence[str]
    ) -> dict[str, object]:
        emission, function = self.emission, self.function
        call = [self._call_argument(b) for b in buffers if b.place != "scratch"]
        call += ["block * span", "jc_min((block + 1) * span, total)"]
        call += [self.symbols[c] for c in constants] + [emission.wants[o] for o in flags]
        total = " * ".join(f"jc_max(0, {self._count(loop)})" for loop in function.parallel) or "1"
        blocks = f"jc_min(total, {BLOCKS})"
        if function.partials:
            own = sp.Add(*(p.buffer.elements for p in function.partials))
            program = self.kernel.program
            results = [program.tensor(n) for n in program.outputs]
            memory = self.spelling.integer(sp.Add(*(sp.Mul(*t.shape) for t in results)))
            rows = 1 if any(loop.stop is not None for loop in function.parallel) else PARTIAL_ROWS
            fit = f"({memory}) // (10 * ({self.spelling.integer(own)}) + 1)"
            blocks = f"jc_max(jc_min(total, 1), jc_min({PARTIAL_BLOCKS}, jc_min(total // {rows}, {fit})))"
        return {
            "condition": emission.wanted(function.needs),
            "total": total,
            "blocks": blocks,
            "work": self.spelling.integer(function.work, ADD),
            "threshold": SERIAL_WORK,
            "partials": [self._partial_values(p.target) for p in function.partials],
            "call": f"{self.title}_block_{self.dtype}({', '.join(call)})",
        }

    def _partial_name(self, target: str) -> str:
        return f"{self.symbols[sp.Symbol(target)]}_partial_{self.function.name}"

    def _call_argument(self, buffer: Buffer) -> str:
        name = str(self.symbols[sp.Symbol(buffer.name)])
        if buffer.name not in self.partials:
            return name
        own = self.spelling.integer(buffer.elements)
        return f"{self._partial_name(buffer.name)} + block * ({own})"

    def _partial_declarations(self) -> list[str]:
        return [
            f"cdef {self.emission.real_type(p.buffer)} *{self._partial_name(p.target)} = NULL"
            for p in self.function.partials
        ]

    def _partial_needs(self, target: str) -> list[str]:
        leaves = [n for n in walk(self.function.body) if isinstance(n, LEAVES) and n.target.name == target]
        found = {o for n in leaves for o in n.needs}
        return [o for o in self.kernel.program.outputs if o in found]

    def _partial_values(self, target: str) -> dict[str, str]:
        partial = self.partials[target]
        name, whole = self._partial_name(target), self.symbols[sp.Symbol(target)]
        elements = self.spelling.integer(partial.buffer.elements)
        at = f"{name}[block * ({elements}) + part]"
        combine = {
            "sum": f"{whole}[part] += {at}",
            "prod": f"{whole}[part] *= {at}",
            "max": f"{whole}[part] = jc_max_{self.dtype}({whole}[part], {at})",
            "min": f"{whole}[part] = jc_min_{self.dtype}({whole}[part], {at})",
        }[partial.reducer]
        start = {"sum": "0", "prod": "1", "max": "-JC_INF", "min": "JC_INF"}[partial.reducer]
        return {
            "name": name,
            "type": self.emission.real_type(partial.buffer),
            "elements": elements,
            "target": whole,
            "condition": self.emission.wanted(self._partial_needs(target)),
            "combine": combine,
            "start": f"{name}[part] = {start}",
        }

    # ---- nodes

    def _block(self, block: Block, top: bool) -> str:
        parts: list[str] = []
        run: list[Leaf] = []
        for node in block.nodes:
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
                return render("guard.pyx.j2", condition=self._condition(node), body=self._block(node.body, top))
            case Contract():
                return self._contract(node)
            case Block():
                return self._block(node, top)
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
        if guard.outputs:
            tests.append(" or ".join(self.emission.wants[o] for o in guard.outputs))
        return tests[0] if len(tests) == 1 else " and ".join(f"({t})" for t in tests)

    def _lanes(self, loop: Loop, top: bool) -> str | None:
        """A loop that only takes a maximum or minimum, over lanes that the C compiler makes a vector of.

        Maximum is not vectorised by itself: it must keep a nan. The lanes and their order do not depend on threads.
        """
        nodes = loop.body.nodes
        if len(nodes) != 1 or not isinstance(nodes[0], Accumulate) or loop.stop is not None:
            return None
        (node,) = nodes
        assert isinstance(node, Accumulate)
        if node.reducer not in ("max", "min") or node.target.name not in self.local_names or node.value.is_integer:
            return None
        where: dict[sp.Expr, sp.Expr] = {loop.index: loop.index + LANE}
        if not self.lanes:
            self.lanes = self.names.fresh("lanes")
        lower, upper = self.spelling.bound(loop.lower, largest=True), self.spelling.bound(loop.upper, largest=False)
        return render(
            "lanes.pyx.j2",
            lane=self.symbols[LANE],
            comments=self.emission.comments([node.equation] if top and node.equation is not None else []),
            count=LANES,
            lanes=self.lanes,
            start="-JC_INF" if node.reducer == "max" else "JC_INF",
            index=self.symbols[loop.index],
            lower=lower,
            upper=upper,
            tail=f"{lower} + jc_max(0, {upper} - ({lower})) // {LANES} * {LANES}",
            call=f"jc_{node.reducer}_{self.dtype}",
            value=self.spelling.real(node.value),
            value_of_lane=self.spelling.real(node.value.xreplace(where)),
            target=self._access(node.target),
        )

    def _loop(self, loop: Loop, top: bool) -> str:
        found = self._lanes(loop, top)
        if found is not None:
            return found
        equations = [n.equation for n in walk(loop) if isinstance(n, LEAVES) and n.equation is not None]
        tiled = any(isinstance(n, Contract) for n in walk(loop))
        values = {
            "comments": self.emission.comments(equations) if top and not tiled else [],
            "index": self.symbols[loop.index],
            "lower": self.spelling.bound(loop.lower, largest=True),
            "upper": self.spelling.bound(loop.upper, largest=False),
            "body": self._block(loop.body, top and tiled),
        }
        if loop.stop is None:
            return render("loop.pyx.j2", **values)
        last = f"jc_min({values['index']} + {loop.step}, {values['upper']})"
        return render("tile.pyx.j2", **values, step=str(loop.step), stop=self.symbols[loop.stop], last=last)

    def _run(self, run: Sequence[Leaf]) -> list[str]:
        """Straight-line statements, what they share computed once."""
        if not run:
            return []
        plain = [n for n in run if isinstance(n, Assign | Accumulate | Scatter | Select)]
        found = shared([n.value for n in plain], [n.target.name for n in plain], self.temporary_count)
        lines: list[str] = []
        for node, (definitions, value) in zip(plain, found, strict=True):
            for symbol, meaning in definitions:
                self.temporary_count += 1
                name = self.names.fresh("t")
                self.symbols[symbol] = name
                self.variables.append(name)
                lines.append(render("assign.pyx.j2", target=name, value=self.spelling.real(meaning)))
            lines.append(self._leaf(node, value))
        return lines

    def _leaf(self, node: Assign | Accumulate | Scatter | Select, value: sp.Expr) -> str:
        target = self._access(node.target)
        whole = bool(node.target.is_integer)
        spelled = self.spelling.integer(value) if whole and not isinstance(node, Select) else self.spelling.real(value)
        match node:
            case Assign():
                return render("assign.pyx.j2", target=target, value=spelled)
            case Select():
                name = self.names.fresh("candidate")
                self.variables.append(name)
                return render(
                    "select.pyx.j2", value_name=name, value=spelled, seen=self._access(node.seen),
                    best=self._access(node.best), target=target, position=self.spelling.integer(node.position),
                    relation=">" if node.reducer == "argmax" else "<",
                )  # fmt: skip
        if node.reducer in ("sum", "prod"):
            operator = "+" if node.reducer == "sum" else "*"
            return render("accumulate.pyx.j2", target=target, operator=operator, value=spelled)
        call = f"jc_{node.reducer}_{self.dtype}({target}, {spelled})"
        return render("assign.pyx.j2", target=target, value=call)

    # ---- matrix products

    def _contract(self, node: Contract) -> str:
        left, right, target = (self._view(a, r, c) for a, r, c in (
            (node.left, node.m, node.k), (node.right, node.k, node.n), (node.target, node.m, node.n)))  # fmt: skip
        m, n = self._extent(node.m), self._extent(node.n)
        if target[2]:
            left, right = (right[0], right[1], not right[2]), (left[0], left[1], not left[2])
            m, n = n, m
        return render(
            "contract.pyx.j2",
            comments=self.emission.comments([node.equation] if node.equation is not None else []),
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
        offset = sp.expand(self._inner_offset(access))
        extents = {i: e for s in (rows, columns) for i, e in zip(s.indices, s.extents, strict=True)}
        strides = [run_stride(offset, s.indices, extents) if s.indices else sp.S.One for s in (rows, columns)]
        row, column = strides
        if row is None or column is None or sp.S.One not in (row, column):
            raise ValueError(
                f"{access} is no matrix over {rows.indices} and {columns.indices}: strides {row}, {column}"
            )
        start = {i: self._start(s, k) for s in (rows, columns) for k, i in enumerate(s.indices)}
        at = sp.expand(offset.xreplace(start))
        name = self.symbols[sp.Symbol(access.name)]
        pointer = name if at == 0 else f"{name} + {self.spelling.integer(at, ADD)}"
        transposed = column != 1
        return pointer, self.spelling.integer(column if transposed else row), transposed
