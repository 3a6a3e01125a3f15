"""Loops that go through all they touch as one loop are one: their rows may be too short to be worth a loop.

    for t in first .. last: for p in 0 .. P: y[t*P + p] = c[t*P + p] x[2*t*P + 2*p]
        ->   for p in 0 .. (last - first)*P: y[first*P + p] = c[first*P + p] x[2*first*P + 2*p]

Input: the body of a placed nest. Output: the same with fewer loops.
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from jaccomp.lowering.affine import slope
from jaccomp.lowering.ir import Accumulate, Assign, Block, Guard, Loop, Node, leaf_expressions, walk
from jaccomp.lowering.storage import rewrite
from jaccomp.notation import Access
from jaccomp.program import accesses


def flatten(block: Block) -> Block:
    """The block, every pair of loops in it that can be one as one, the innermost first."""
    return Block(tuple(_flat(node) for node in block.nodes))


def _flat(node: Node) -> Node:
    if isinstance(node, Guard):
        return replace(node, body=flatten(node.body))
    if not isinstance(node, Loop):
        return node
    loop = replace(node, body=flatten(node.body))
    inner = loop.body.nodes[0] if len(loop.body.nodes) == 1 else None
    if not isinstance(inner, Loop) or not _is_plain(loop) or not _is_plain(inner):
        return loop
    (first,), (last,), (extent,) = loop.lower, loop.upper, inner.upper
    if inner.lower != (0,) or loop.index in extent.free_symbols or not _go_on(inner.body, loop.index, inner, extent):
        return loop
    body = rewrite(inner.body, lambda expr: _started(expr, loop.index, first))
    assert isinstance(body, Block)
    return replace(inner, upper=((last - first) * extent,), body=body)


def _started(expr: sp.Expr, outer: sp.Symbol, first: sp.Expr) -> sp.Expr:
    """An expression whose accesses begin where those of the first iteration of the outer loop do."""
    where: dict[sp.Expr, sp.Expr] = {
        a: Access(a.base, *(sp.expand(i.xreplace({outer: first})) for i in a.indices)) for a in accesses(expr)
    }
    return expr.xreplace(where)


def _is_plain(loop: Loop) -> bool:
    return loop.mode == "serial" and loop.stop is None and len(loop.lower) == len(loop.upper) == 1


def _go_on(body: Block, outer: sp.Symbol, inner: Loop, extent: sp.Expr) -> bool:
    """Does every access go on from one iteration of the outer loop to the next as it does inside one?

    A sum does not: that of each row is added up on its own, with less error than one over all of them.
    """
    for node in walk(body):
        if isinstance(node, Block) or (isinstance(node, Guard) and not node.constraints):
            continue
        if not isinstance(node, Assign | Accumulate):
            return False
        if isinstance(node, Accumulate) and inner.index not in node.target.free_symbols:
            return False
        for expr in leaf_expressions(node):
            bare: dict[sp.Expr, sp.Expr] = {a: sp.Symbol(a.name) for a in accesses(expr)}
            if expr.xreplace(bare).free_symbols & {outer, inner.index}:
                return False
            for access in bare:
                if not _goes_on(access, outer, inner.index, extent):
                    return False
    return True


def _goes_on(access: sp.Expr, outer: sp.Symbol, inner: sp.Symbol, extent: sp.Expr) -> bool:
    assert isinstance(access, Access)
    if not access.indices:
        return True
    (offset,) = access.indices
    far, near = slope(offset, outer), slope(offset, inner)
    return far is not None and near is not None and sp.expand(far - extent * near) == 0
