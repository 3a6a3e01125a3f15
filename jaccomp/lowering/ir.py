"""The loop IR: a kernel is a sequence of fused nests, each a function of its own.

    kernel   = Kernel(name, buffers, functions)
    function = Function(name, block)                       one fused loop nest
    block    = Block(node*)
    node     = Alloc(buffer)                               scratch of one block of iterations
             | Loop(index, lower, upper, mode, block)      mode: serial | parallel | tile(B)
             | Guard(constraints | outputs, block)         run where all hold / where one of the outputs is wanted
             | Assign(target, value)                       target = value
             | Accumulate(target, reducer, value)          target = reducer(target, value)
             | Scatter(target, reducer, value)             the same at a place that data or a non-injective map chooses
             | Select(target, best, seen, value, position) argmax / argmin, first extremum
             | Contract(target, left, right, m, n, k)      target (+)= alpha left right: one matrix product, or,
                                                           if `tiled`, a sum over boxes in register tiles
             | Return()                                    end of a function

Expressions are SymPy's. Inside a node, `A[e]` with an `Access` of one index is a flat offset into the buffer `A`; a
buffer of kind "local" is a C scalar and is read without index. Loop bounds are tuples: the greatest of `lower`, the
least of `upper` (exclusive). An operand of a tiled `Contract` may be read through windows (`Within`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import sympy as sp

from jaccomp.errors import StageError
from jaccomp.notation import Access
from jaccomp.program import Constraint, Equation, Kind, Program, Reducer, accesses

Mode = Literal["serial", "parallel", "tile"]
Place = Literal["input", "output", "local", "scratch", "temporary"]


class CeilDiv(sp.Function):  # type: ignore[misc]
    """`ceil(a / b)` of integers, b > 0."""

    nargs = 2
    is_integer = True

    @classmethod
    def eval(cls, a: sp.Expr, b: sp.Expr) -> sp.Expr | None:
        return sp.ceiling(a / b) if a.is_Integer and b.is_Integer and b > 0 else None


class FloorDiv(sp.Function):  # type: ignore[misc]
    """`floor(a / b)` of integers, b > 0."""

    nargs = 2
    is_integer = True

    @classmethod
    def eval(cls, a: sp.Expr, b: sp.Expr) -> sp.Expr | None:
        return sp.floor(a / b) if a.is_Integer and b.is_Integer and b > 0 else None


class LowerBound(sp.Function):  # type: ignore[misc]
    """The least j with `c*j + e >= 0`, for c of any sign: (c, e); far below 0 where c < 0, far above if c = 0 > e."""

    nargs = 2
    is_integer = True


class UpperBound(sp.Function):  # type: ignore[misc]
    """One more than the greatest j with `c*j + e >= 0`: (c, e); far above where c >= 0."""

    nargs = 2
    is_integer = True


class Greatest(sp.Function):  # type: ignore[misc]
    """The greatest of several integers, left as it is written unless all are numbers."""

    is_integer = True

    @classmethod
    def eval(cls, *values: sp.Expr) -> sp.Expr | None:
        return max(values) if all(v.is_Integer for v in values) else None


class Within(sp.Function):  # type: ignore[misc]
    """A window on an axis: `place / step` where that is a whole number of `0 .. extent`; else what is read is 0."""

    nargs = 3
    is_integer = True


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of one tensor: `shape` is what is stored, after contraction; a local has none."""

    name: str
    shape: tuple[sp.Expr, ...]
    place: Place
    dtype: Kind = "real"

    @property
    def elements(self) -> sp.Expr:
        return sp.Mul(*self.shape)


@dataclass(frozen=True, slots=True)
class Block:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alloc:
    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Loop:
    """`tile` loops step by `step`; inside, `index` is the first position of the tile and `stop` its end."""

    index: sp.Symbol
    lower: tuple[sp.Expr, ...]
    upper: tuple[sp.Expr, ...]
    body: Block
    mode: Mode = "serial"
    step: sp.Expr = sp.S.One
    stop: sp.Symbol | None = None


@dataclass(frozen=True, slots=True)
class Guard:
    body: Block
    constraints: tuple[Constraint, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assign:
    target: Access
    value: sp.Expr
    needs: tuple[str, ...] = ()
    equation: Equation | None = None


@dataclass(frozen=True, slots=True)
class Accumulate:
    target: Access
    reducer: Reducer
    value: sp.Expr
    needs: tuple[str, ...] = ()
    equation: Equation | None = None


@dataclass(frozen=True, slots=True)
class Scatter:
    target: Access
    reducer: Reducer
    value: sp.Expr
    needs: tuple[str, ...] = ()
    equation: Equation | None = None


@dataclass(frozen=True, slots=True)
class Select:
    target: Access
    best: Access
    seen: Access
    reducer: Reducer
    value: sp.Expr
    position: sp.Expr
    needs: tuple[str, ...] = ()
    equation: Equation | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The indices of one side of a product, slowest first, each from its greatest lower to its least upper bound.

    The first bound of each is that of its box, by which a run of several indices is laid out; others cut a single one.
    """

    indices: tuple[sp.Symbol, ...]
    lower: tuple[tuple[sp.Expr, ...], ...]
    upper: tuple[tuple[sp.Expr, ...], ...]

    @property
    def extents(self) -> tuple[sp.Expr, ...]:
        return tuple(sp.expand(high[0] - low[0]) for low, high in zip(self.lower, self.upper, strict=True))

    @property
    def is_cut(self) -> bool:
        return len(self.indices) == 1 and (len(self.lower[0]) > 1 or len(self.upper[0]) > 1)


@dataclass(frozen=True, slots=True)
class Contract:
    """`target[m, n] = alpha Σ_k left[m, k] right[k, n]`, added to the target if `adds`.

    A matrix product whose operands are 2-D views; if `tiled`, each index of a span is a loop of its own, and the
    accesses are affine in them, but for windows. It is then added to `onto`, if there is one that is not the target.
    """

    target: Access
    left: Access
    right: Access
    m: Span
    n: Span
    k: Span
    alpha: sp.Expr = sp.S.One
    adds: bool = False
    needs: tuple[str, ...] = ()
    equation: Equation | None = None
    tiled: bool = False
    onto: Access | None = None


@dataclass(frozen=True, slots=True)
class Return:
    pass


Node = Block | Alloc | Loop | Guard | Assign | Accumulate | Scatter | Select | Contract | Return
Leaf = Assign | Accumulate | Scatter | Select | Contract
LEAVES = (Assign, Accumulate, Scatter, Select, Contract)


@dataclass(frozen=True, slots=True)
class Partial:
    """A reduction over the parallel iterations: one buffer per block, combined in block order into `target`."""

    target: str
    buffer: Buffer
    reducer: Reducer


@dataclass(frozen=True, slots=True)
class Function:
    """One fused nest: parallel loops over `total` iterations in `blocks` blocks, both functions of sizes only.

    `work` estimates what they take, in multiply-adds of a matrix product.
    """

    name: str
    parallel: tuple[Loop, ...]
    body: Block
    scratch: tuple[Buffer, ...] = ()
    partials: tuple[Partial, ...] = ()
    total: sp.Expr = sp.S.One
    work: sp.Expr = sp.S.One
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernel:
    """A lowered program. `temporaries` are what fusion could not contract; `buffers` names everything else."""

    name: str
    program: Program
    buffers: tuple[Buffer, ...]
    temporaries: tuple[Buffer, ...]
    functions: tuple[Function, ...]
    fallbacks: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())
    hints: tuple[tuple[sp.Symbol, tuple[str, int, str]], ...] = field(default=())

    def buffer(self, name: str) -> Buffer:
        for one in (*self.buffers, *self.temporaries):
            if one.name == name:
                return one
        raise KeyError(name)

    @property
    def uses_blas(self) -> bool:
        return any(isinstance(n, Contract) and not n.tiled for f in self.functions for n in walk(f.body))

    def __str__(self) -> str:
        return "\n".join(_kernel_lines(self))


def walk(node: Node) -> Iterator[Node]:
    """A node and everything below it, in order."""
    yield node
    if isinstance(node, Block):
        for one in node.nodes:
            yield from walk(one)
    elif isinstance(node, Loop | Guard):
        yield from walk(node.body)


def wanted_nodes(block: Block) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """The nodes of a block, and the outputs of which one must be wanted for each to run; none where it always does."""
    for node in block.nodes:
        if isinstance(node, Guard) and not node.constraints:
            yield from ((inner, node.outputs) for inner in node.body.nodes)
        else:
            yield node, ()


def leaf_accesses(node: Leaf) -> tuple[Access, ...]:
    """Every access of a leaf, its targets first."""
    found: dict[Access, None] = {}
    for expr in leaf_expressions(node):
        found.update(dict.fromkeys(accesses(expr)))
    return tuple(found)


def leaf_expressions(node: Leaf) -> tuple[sp.Expr, ...]:
    if isinstance(node, Contract):
        return node.target, *((node.onto,) if node.onto is not None else ()), node.left, node.right, node.alpha
    if isinstance(node, Select):
        return node.target, node.best, node.seen, node.value, node.position
    return node.target, node.value


def verify(kernel: Kernel) -> Kernel:
    """`kernel`, if every buffer exists, every loop has bounds and every index a loop; else a `StageError`."""
    what = f"kernel {kernel.name!r}"
    constants = {*kernel.program.sizes, *(s.symbol for s in kernel.program.scalars)}
    for function in kernel.functions:
        known = {b.name for b in (*kernel.buffers, *kernel.temporaries, *function.scratch)}
        known |= {p.buffer.name for p in function.partials}
        outer: set[sp.Symbol] = set()
        for loop in function.parallel:
            _verify_bounds(what, loop, outer | constants)
            outer |= {loop.index, *([loop.stop] if loop.stop is not None else [])}
        _verify_block(f"{what}, function {function.name!r}", function.body, outer | constants, known)
    return kernel


def _verify_bounds(what: str, loop: Loop, known: set[sp.Symbol]) -> None:
    if not loop.lower or not loop.upper:
        raise StageError(what, f"loop {loop.index} lacks a bound.")
    for bound in (*loop.lower, *loop.upper):
        _verify_symbols(what, bound, known, None)


def _verify_symbols(what: str, expr: sp.Basic, known: set[sp.Symbol], buffers: set[str] | None) -> None:
    bases = {a.base for a in accesses(expr)}
    stray = expr.free_symbols - known - bases
    if stray:
        raise StageError(what, f"{sorted(map(str, stray))} belong to no loop in {expr}.")
    if buffers is not None:
        unknown = sorted({b.name for b in bases} - buffers)
        if unknown:
            raise StageError(what, f"buffers {unknown} are read or written but not declared.")


def _verify_block(what: str, node: Node, known: set[sp.Symbol], buffers: set[str]) -> None:
    if isinstance(node, Block):
        inside = set(buffers)
        for one in node.nodes:
            if isinstance(one, Alloc):
                inside.add(one.buffer.name)
            _verify_block(what, one, known, inside)
    elif isinstance(node, Loop):
        _verify_bounds(what, node, known)
        _verify_block(what, node.body, known | {node.index, *([node.stop] if node.stop is not None else [])}, buffers)
    elif isinstance(node, Guard):
        for constraint in node.constraints:
            _verify_symbols(what, constraint.expr, known, buffers)
        _verify_block(what, node.body, known, buffers)
    elif isinstance(node, Contract):
        spans = {i for span in (node.m, node.n, node.k) for i in span.indices}
        for expr in leaf_expressions(node):
            _verify_symbols(what, expr, known | spans, buffers)
    elif isinstance(node, LEAVES):
        for expr in leaf_expressions(node):
            _verify_symbols(what, expr, known, buffers)


def _kernel_lines(kernel: Kernel) -> Iterator[str]:
    yield f"kernel {kernel.name}({', '.join(kernel.program.inputs)}) -> {', '.join(kernel.program.outputs)}"
    for buffer in kernel.temporaries:
        yield f"  alloc {_buffer(buffer)}"
    for function in kernel.functions:
        yield f"  function {function.name}    # {function.total} iterations"
        for partial in function.partials:
            yield f"    partial {_buffer(partial.buffer)} -> {partial.reducer} {partial.target}"
        indent = "    "
        for loop in function.parallel:
            yield indent + _loop(loop)
            indent += "  "
        for buffer in function.scratch:
            yield f"{indent}alloc {_buffer(buffer)}"
        yield from _lines(function.body, indent)


def _buffer(buffer: Buffer) -> str:
    return f"{buffer.name}[{', '.join(map(str, buffer.shape))}]"


def _loop(loop: Loop) -> str:
    lower = str(loop.lower[0]) if len(loop.lower) == 1 else f"max({', '.join(map(str, loop.lower))})"
    upper = str(loop.upper[0]) if len(loop.upper) == 1 else f"min({', '.join(map(str, loop.upper))})"
    step = f" by {loop.step} up to {loop.stop}" if loop.mode == "tile" or loop.step != 1 else ""
    return f"{loop.mode} {loop.index} in {lower} .. {upper}{step}:"


def _lines(node: Node, indent: str) -> Iterator[str]:
    match node:
        case Block():
            for one in node.nodes:
                yield from _lines(one, indent)
        case Alloc():
            yield f"{indent}alloc {_buffer(node.buffer)}"
        case Loop():
            yield indent + _loop(node)
            yield from _lines(node.body, indent + "  ")
        case Guard():
            tests = [f"{c.expr} {'==' if c.equality else '>='} 0" for c in node.constraints]
            tests += [f"wanted({', '.join(node.outputs)})"] if node.outputs else []
            yield f"{indent}if {' and '.join(tests)}:"
            yield from _lines(node.body, indent + "  ")
        case Assign():
            yield f"{indent}{node.target} = {node.value}"
        case Accumulate():
            yield f"{indent}{node.target} {node.reducer}= {node.value}"
        case Scatter():
            yield f"{indent}scatter {node.target} {node.reducer}= {node.value}"
        case Select():
            yield f"{indent}{node.target} = {node.reducer}({node.value} at {node.position})"
        case Contract():
            spans = "; ".join(",".join(map(str, s.indices)) for s in (node.m, node.n, node.k))
            alpha = "" if node.alpha == 1 else f"{node.alpha} * "
            how = "in tiles " if node.tiled else ""
            operator = "+=" if node.adds else "="
            onto = "" if node.onto is None else f"{node.onto} + "
            yield f"{indent}{how}{node.target} {operator} {onto}{alpha}{node.left} . {node.right}  ({spans})"
        case Return():
            yield f"{indent}return"
