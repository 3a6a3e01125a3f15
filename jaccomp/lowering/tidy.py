"""Kernel -> kernel passes on placed nests: accumulators into locals, guards for what nobody wants."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from jaccomp.lowering.ir import (
    LEAVES,
    Accumulate,
    Assign,
    Block,
    Buffer,
    Guard,
    Loop,
    Node,
    leaf_accesses,
    walk,
)
from jaccomp.lowering.storage import node_accesses, rewrite
from jaccomp.notation import Access


class Promotion:
    """Accumulate in a local what a loop adds to one place.

    s[n] = 0; for k: s[n] += x[n,k]   ->   acc = 0; for k: acc += x[n,k];  s[n] = acc
    """

    def __init__(self, locals_: frozenset[str]) -> None:
        self.locals = locals_
        self.made: list[Buffer] = []

    def block(self, block: Block) -> Block:
        nodes: list[Node] = []
        for node in block.nodes:
            if isinstance(node, Guard):
                node = replace(node, body=self.block(node.body))
            if not isinstance(node, Loop):
                nodes.append(node)
                continue
            before, loop, after = self._promoted(node)
            for assign in before:
                nodes.append(self._merged(nodes, assign))
            nodes.append(replace(loop, body=self.block(loop.body)))
            nodes += after
        return Block(tuple(nodes))

    def _merged(self, nodes: list[Node], assign: Assign) -> Assign:
        """Start the local from the constant that was stored last, instead of reading it back."""
        for position in reversed(range(len(nodes))):
            node = nodes[position]
            if isinstance(node, Assign) and node.target == assign.value and not node.value.has(Access):
                del nodes[position]
                return replace(assign, value=node.value)
            if any(a.name == assign.value.name for a in node_accesses(node)):
                break
        return assign

    def _promoted(self, loop: Loop) -> tuple[list[Assign], Loop, list[Assign]]:
        inner = {n.index for n in walk(loop) if isinstance(n, Loop)}
        inner |= {n.stop for n in walk(loop) if isinstance(n, Loop) and n.stop is not None}
        touched: dict[Access, int] = {}
        names: dict[str, int] = {}
        for node in walk(loop.body):
            if isinstance(node, LEAVES):
                for access in leaf_accesses(node):
                    names[access.name] = names.get(access.name, 0) + 1
                    touched[access] = touched.get(access, 0) + 1
        before: list[Assign] = []
        after: list[Assign] = []
        where: dict[sp.Expr, sp.Expr] = {}
        for node in walk(loop.body):
            if not isinstance(node, Accumulate) or node.target.name in self.locals | {b.name for b in self.made}:
                continue
            target = node.target
            if target.free_symbols & inner or target.has(sp.Function) or names[target.name] != 1:
                continue
            base = sp.Symbol(f"{target.name}_sum{len(self.made)}", real=True)
            local = Access(base)
            self.made.append(Buffer(base.name, (), "local"))
            where[target] = local
            before.append(Assign(local, target, node.needs))
            after.append(Assign(target, local, node.needs))
        if not where:
            return [], loop, []
        return before, replace(loop, body=_replaced(loop.body, where)), after


def _replaced(block: Block, where: dict[sp.Expr, sp.Expr]) -> Block:
    changed = rewrite(block, lambda e: e.xreplace(where))
    assert isinstance(changed, Block)
    return changed


def needs_of(node: Node) -> tuple[str, ...]:
    """The outputs that some leaf below the node is needed for, in order of first appearance."""
    found: dict[str, None] = {}
    for one in walk(node):
        if isinstance(one, LEAVES):
            found.update(dict.fromkeys(one.needs))
    return tuple(found)


def guarded(block: Block, wanted: frozenset[str]) -> Block:
    """The block with a guard around each run of nodes that serves fewer outputs than `wanted`."""
    nodes: list[Node] = []
    run: list[Node] = []
    current: tuple[str, ...] = ()

    def close() -> None:
        if run:
            inside = Block(tuple(_within(n, frozenset(current)) for n in run))
            nodes.extend(inside.nodes if frozenset(current) == wanted else (Guard(inside, outputs=current),))
            run.clear()

    for node in block.nodes:
        mine = needs_of(node)
        mine = mine if mine else current
        if frozenset(mine) != frozenset(current):
            close()
            current = mine
        run.append(node)
    close()
    return Block(tuple(nodes))


def _within(node: Node, wanted: frozenset[str]) -> Node:
    if isinstance(node, Loop | Guard):
        return replace(node, body=guarded(node.body, wanted))
    return node
