"""Quotients of sizes and integer scalars, each divided once a call: the number of windows along an axis, mostly.

x[n*⌊(H - K)/S⌋ + ...]   ->   steps = jc_floordiv(H - K, S);  x[n*steps + ...]
"""

from __future__ import annotations

from collections.abc import Iterator

import sympy as sp

from jaccomp.lowering.ir import (
    LEAVES,
    CeilDiv,
    Contract,
    FloorDiv,
    Guard,
    Kernel,
    Loop,
    leaf_expressions,
    walk,
)

KINDS = (sp.floor, sp.ceiling, FloorDiv, CeilDiv)


def quotients(kernel: Kernel) -> tuple[sp.Expr, ...]:
    """The quotients in a kernel that its sizes and scalars alone decide, those inside others first."""
    constants = {*kernel.program.sizes, *(s.symbol for s in kernel.program.scalars)}
    found: dict[sp.Expr, None] = {}
    for expr in _expressions(kernel):
        for node in sp.postorder_traversal(expr):
            if isinstance(node, KINDS) and node.free_symbols and node.free_symbols <= constants:
                found.setdefault(node)
    return tuple(found)


def _expressions(kernel: Kernel) -> Iterator[sp.Expr]:
    for function in kernel.functions:
        for node in (*function.parallel, *walk(function.body)):
            if isinstance(node, Loop):
                yield from (*node.lower, *node.upper, node.step)
            elif isinstance(node, Guard):
                yield from (c.expr for c in node.constraints)
            elif isinstance(node, LEAVES):
                yield from leaf_expressions(node)
            if isinstance(node, Contract):
                for span in (node.m, node.n, node.k):
                    yield from (bound for bounds in (*span.lower, *span.upper) for bound in bounds)
        for buffer in (*function.scratch, *(p.buffer for p in function.partials)):
            yield from buffer.shape
