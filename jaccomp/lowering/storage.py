"""Storage: where each tensor lives, and the flat offsets at which it is read and written.

    for n: r[n] = f(x[n]); y[n] = g(r[n])   ->   for n: r = f(x[n]); y[n] = g(r)

An axis of an intermediate goes where every access has the same loop there; where every access lies in the same tile of
a loop, the axis shrinks to the tile. What is left is a local, or scratch of one block of iterations. An intermediate of
two nests is a temporary of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.lowering.affine import flat_offset
from jaccomp.lowering.ir import (
    LEAVES,
    Accumulate,
    Alloc,
    Assign,
    Block,
    Buffer,
    Contract,
    Guard,
    Leaf,
    Loop,
    Node,
    Return,
    Scatter,
    Select,
    leaf_accesses,
    walk,
)
from jaccomp.lowering.schedule import Nest
from jaccomp.lowering.tiling import Loops
from jaccomp.notation import Access
from jaccomp.program import Program, Tensor, accesses


@dataclass(frozen=True, slots=True)
class Layout:
    """How one tensor is stored: its buffer, the axes kept, and the tile start that each kept axis counts from."""

    buffer: Buffer
    axes: tuple[int, ...]
    starts: tuple[sp.Expr, ...]

    def access(self, access: Access) -> Access:
        if self.buffer.place == "local":
            return Access(access.base)
        at = [access.indices[axis] - start for axis, start in zip(self.axes, self.starts, strict=True)]
        return Access(access.base, flat_offset(at, self.buffer.shape))


def node_accesses(node: Node) -> list[Access]:
    found: list[Access] = []
    for one in walk(node):
        if isinstance(one, LEAVES):
            found += leaf_accesses(one)
        elif isinstance(one, Guard):
            for constraint in one.constraints:
                found += accesses(constraint.expr)
    return found


def layouts(program: Program, tensors: Sequence[Tensor], nests: Sequence[Nest], loops: Loops) -> dict[str, Layout]:
    """The layout of every tensor that a nest touches."""
    users: dict[str, list[tuple[int, Access]]] = {}
    across = {name for nest in nests for name in nest.across}
    for number, nest in enumerate(nests):
        for access in node_accesses(nest.body):
            users.setdefault(access.name, []).append((number, access))
    result: dict[str, Layout] = {}
    for tensor in tensors:
        found = users.get(tensor.name, [])
        everything = tuple(range(tensor.rank))
        zeros = (sp.S.Zero,) * tensor.rank
        if tensor.name in program.inputs or tensor.name in program.outputs:
            place = "input" if tensor.name in program.inputs else "output"
            buffer = Buffer(tensor.name, tensor.shape, place, tensor.dtype)  # type: ignore[arg-type]
            result[tensor.name] = Layout(buffer, everything, zeros)
        elif not found:
            continue
        elif len({number for number, _ in found}) > 1 or tensor.name in across:
            buffer = Buffer(tensor.name, tensor.shape, "temporary", tensor.dtype)
            result[tensor.name] = Layout(buffer, everything, zeros)
        else:
            result[tensor.name] = _contracted(tensor, [a for _, a in found], loops)
    return result


def _contracted(tensor: Tensor, found: Sequence[Access], loops: Loops) -> Layout:
    axes: list[int] = []
    starts: list[sp.Expr] = []
    shape: list[sp.Expr] = []
    for axis, extent in enumerate(tensor.shape):
        here = list(dict.fromkeys(a.indices[axis] for a in found))
        if len(here) == 1 and isinstance(here[0], sp.Symbol):
            continue
        tiles = {loops.in_tile.get(e) if isinstance(e, sp.Symbol) else None for e in here}
        start = next(iter(tiles)) if len(tiles) == 1 else None
        axes.append(axis)
        starts.append(sp.S.Zero if start is None else start)
        shape.append(extent if start is None else loops.tiles[start][1])
    place = "scratch" if axes else "local"
    return Layout(Buffer(tensor.name, tuple(shape), place, tensor.dtype), tuple(axes), tuple(starts))  # type: ignore[arg-type]


def place(node: Node, where: Mapping[str, Layout]) -> Node:
    """The node with every access a flat offset into its buffer, or a local."""

    def change(expr: sp.Expr) -> sp.Expr:
        return _placed(expr, where)

    return rewrite(node, change)


def _placed(expr: sp.Expr, where: Mapping[str, Layout]) -> sp.Expr:
    if isinstance(expr, Access):
        inside = Access(expr.base, *(_placed(i, where) for i in expr.indices))
        return where[expr.name].access(inside)
    if not expr.has(Access):
        return expr
    return expr.func(*(_placed(a, where) for a in expr.args))


def rewrite(node: Node, change: Callable[[sp.Expr], sp.Expr]) -> Node:
    """The node with every expression of its leaves and guards changed."""
    match node:
        case Block():
            return Block(tuple(rewrite(n, change) for n in node.nodes))
        case Loop():
            return replace(node, body=_block(rewrite(node.body, change)))
        case Guard():
            tests = tuple(replace(c, expr=change(c.expr)) for c in node.constraints)
            return replace(node, body=_block(rewrite(node.body, change)), constraints=tests)
        case Alloc() | Return():
            return node
        case _:
            return rewrite_leaf(node, change)


def _block(node: Node) -> Block:
    assert isinstance(node, Block)
    return node


def rewrite_leaf(node: Leaf, change: Callable[[sp.Expr], sp.Expr]) -> Leaf:
    def access(a: Access) -> Access:
        changed = change(a)
        assert isinstance(changed, Access)
        return changed

    match node:
        case Assign() | Accumulate() | Scatter():
            return replace(node, target=access(node.target), value=change(node.value))
        case Select():
            return replace(
                node, target=access(node.target), best=access(node.best), seen=access(node.seen),
                value=change(node.value), position=change(node.position),
            )  # fmt: skip
        case Contract():
            onto = access(node.onto) if node.onto is not None else None
            left, right = access(node.left), access(node.right)
            return replace(node, target=access(node.target), left=left, right=right, onto=onto)
