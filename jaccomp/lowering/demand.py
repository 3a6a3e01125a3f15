"""What is never read need not be computed: a map takes over the restrictions that all its readers share.

p[t,m] = exp(s[t,m]);  q[t,m] = {m <= t} p[t,m]   ->   p[t,m] = {m <= t} exp(s[t,m])
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.lowering.affine import index_set
from jaccomp.lowering.statements import Statement
from jaccomp.program import Constraint


def narrow(statements: Sequence[Statement], outputs: Collection[str]) -> tuple[Statement, ...]:
    """The statements, maps of intermediates cut to the domain in which they are read; last first."""
    result = list(statements)
    writers = [s.target.name for s in statements]
    for position in reversed(range(len(result))):
        statement = result[position]
        name = statement.target.name
        bare = statement.target.indices == statement.loops
        if statement.product is not None and statement.product.tiled:
            continue
        if statement.product is not None:
            result[position] = statement = _cut_to_operands(statement, statements)
            bare = statement.target.indices == statement.loops[: len(statement.target.indices)]
        if statement.action not in ("assign", "contract") or name in outputs or writers.count(name) > 1 or not bare:
            continue
        shared: list[Constraint] | None = None
        for reader in result[position + 1 :]:
            for access in reader.reads():
                if access.name != name:
                    continue
                found = _restrictions(statement, reader, access.indices)
                shared = found if shared is None else [c for c in shared if c in found]
        added = [c for c in shared or [] if c not in statement.domain and len(index_set(c.expr, statement.loops)) > 1]
        if added:
            result[position] = replace(statement, domain=(*statement.domain, *added))
    return tuple(result)


def _cut_to_operands(product: Statement, statements: Sequence[Statement]) -> Statement:
    """The product with the triangles outside which an operand is 0: a tile of it need not reach beyond them."""
    assert product.product is not None
    added: list[Constraint] = []
    for access in (product.product.left, product.product.right):
        writers = [s for s in statements if s.target.name == access.name]
        if len(writers) != 2 or writers[0].value != 0 or writers[1].action != "assign":
            continue
        writer = writers[1]
        if writer.target.indices != writer.loops or any(i not in product.loops for i in access.indices):
            continue
        where: dict[sp.Expr, sp.Expr] = dict(zip(writer.loops, access.indices, strict=True))
        added += [c.over(where) for c in writer.domain if len(index_set(c.expr, writer.loops)) == 2]
    new = tuple(c for c in dict.fromkeys(added) if c not in product.domain)
    return replace(product, domain=(*product.domain, *new))


def _restrictions(writer: Statement, reader: Statement, indices: Sequence[sp.Expr]) -> list[Constraint]:
    """The reader's constraints on these indices alone, in the writer's loops."""
    if reader.product is not None or len(set(indices)) != len(indices) or any(i not in reader.loops for i in indices):
        return []
    where: dict[sp.Expr, sp.Expr] = dict(zip(indices, writer.target.indices, strict=True))
    others = [i for i in reader.loops if i not in where]
    return [c.over(where) for c in reader.domain if not index_set(c.expr, others)]
