"""What a forward call keeps for its pullback: statistics, slopes and sums of inputs are kept, values recomputed.

The joint program has both the layer's outputs and its cotangents. Everything that sees no cotangent can be computed
forward; of that, what the backward half reads is either kept, if it is a reduction no larger than the layer's own
arrays, or computed again from what is kept (attention's scores, for one, are larger than all inputs together). A costly
slope by which a cotangent is multiplied element by element is kept in place of what it is computed from: to write and
read it takes less time than one exponential does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import sympy as sp

from jaccomp.algebra.cost import typical_values
from jaccomp.calculus.functions import Finite, HalfStep, Step
from jaccomp.domains import at_most_one
from jaccomp.lowering.share import CHEAP
from jaccomp.notation import Access
from jaccomp.program import Equation, Program, Tensor, accesses, live, reads


class Reason(StrEnum):
    """Why the backward half finds a value where it does: the first four are kept, the last two computed again."""

    SLOPE = "a costly slope, read by each cotangent element: a read takes less time than its functions"
    REDUCTION = "a reduction that grows with no size more than the layer's own arrays do"
    ROW_VALUE = "a named value of a quarter of the largest array's elements, or fewer"
    STANDS_FOR_TWO = "all that backward sees of several inputs: one read instead of theirs"
    LARGE = "a reduction that grows faster than the layer's own arrays: computed again from what is kept"
    MAP = "elementwise in what is kept: computed again, which takes less time than to write and read it"

    @property
    def is_kept(self) -> bool:
        return self not in (Reason.LARGE, Reason.MAP)


@dataclass(frozen=True, slots=True)
class Halves:
    """The forward half with its residuals, the backward half that reads them, and their canonical names.

    `reasons` says, of each value of the forward half that the backward one reads and that is neither input nor output,
    why it is kept or computed again.
    """

    forward: Program
    fwd: Program
    bwd: Program
    residuals: tuple[str, ...]
    reasons: tuple[tuple[str, Reason], ...] = ()


def split(joint: Program, outputs: Sequence[str], cotangents: Sequence[str]) -> Halves:
    """The joint program (inputs x..., ct_y... -> y..., ct_x...) cut into its halves. Names stay the same in both."""
    joint, slopes = _with_slopes(joint, outputs, cotangents)
    seeds = [name for name in joint.inputs if name in cotangents]
    primal_inputs = tuple(name for name in joint.inputs if name not in cotangents)
    backward: dict[str, Equation] = {}
    ahead: dict[str, Equation] = {}
    for equation in joint.equations:
        dependent = any(name in backward or name in seeds for name in reads(equation))
        (backward if dependent else ahead)[equation.target] = equation
    grads = tuple(name for name in joint.outputs if name not in outputs)
    for name in grads:
        if name in ahead:
            backward[name] = ahead.pop(name)
    reasons = _choose(joint, outputs, primal_inputs, backward, ahead, slopes)
    kept = tuple(name for name, why in reasons.items() if why.is_kept)
    again = frozenset(name for name, why in reasons.items() if not why.is_kept)
    fwd_outputs = (*outputs, *kept)
    fwd = live(_only(joint, primal_inputs, fwd_outputs, tuple(ahead.values())))
    forward = live(_only(joint, primal_inputs, tuple(outputs), tuple(ahead.values())))
    needed = [e for e in joint.equations if e.target in backward or e.target in again]
    read = {name for e in needed for name in reads(e)}
    given = tuple(name for name in (*primal_inputs, *outputs, *kept) if name in read)
    bwd = live(_only(joint, (*given, *seeds), grads, tuple(needed)))
    return Halves(forward, fwd, bwd, kept, tuple(reasons.items()))


def _with_slopes(joint: Program, outputs: Sequence[str], cotangents: Sequence[str]) -> tuple[Program, frozenset[str]]:
    """The joint program with an equation for each costly slope by which a cotangent is multiplied, and their names.

    ct_x[n] = ct_y[n] (σ(x[n]) + x[n] σ(x[n]) σ(-x[n]))   ->   slope[n] = σ(x[n]) + ...;  ct_x[n] = ct_y[n] slope[n]

    Only where it is the cotangent's one use of what the forward call knows: then it is read in place of its inputs.
    """
    equations: list[Equation] = []
    new: dict[str, Tensor] = {}
    for equation in joint.equations:
        slope = None if equation.target in outputs else _slope(joint, equation, cotangents)
        if slope is None:
            equations.append(equation)
            continue
        tensor = Tensor(f"slope{len(new)}", joint.tensor(equation.target).shape)
        new[tensor.name] = tensor
        (term,) = equation.terms
        seen = sp.Mul(*(f for f in sp.Mul.make_args(term.body) if f not in sp.Mul.make_args(slope)))
        equations.append(Equation(tensor.name, equation.axes, (replace(term, body=slope),)))
        equations.append(replace(equation, terms=(replace(term, body=seen * tensor[equation.axes]),)))
    if not new:
        return joint, frozenset()
    joint = joint.with_equations(equations, new.values())
    return replace(joint, labels=joint.labels.with_new(new)), frozenset(new)


def _slope(joint: Program, equation: Equation, cotangents: Sequence[str]) -> sp.Expr | None:
    """The factors of a map of one cotangent that a forward call can compute, if they hold a costly function."""
    if not equation.is_map or equation.target not in joint.outputs:
        return None
    factors = sp.Mul.make_args(equation.terms[0].body)
    seeds = [f for f in factors if isinstance(f, Access) and f.name in cotangents]
    rest = [f for f in factors if f not in seeds and accesses(f)]
    inside = [a for f in rest for a in accesses(f)]
    known = all(a.name in joint.inputs and a.name not in cotangents and a.indices == equation.axes for a in inside)
    if len(seeds) != 1 or seeds[0].indices != equation.axes or not inside or not known:
        return None
    functions = [n for f in rest for n in sp.preorder_traversal(f) if isinstance(n, sp.Function)]
    costly = any(not isinstance(n, (*CHEAP, Step, HalfStep, Finite)) for n in functions)
    return sp.Mul(*rest) if costly else None


def _only(
    joint: Program, inputs: tuple[str, ...], outputs: tuple[str, ...], equations: tuple[Equation, ...]
) -> Program:
    kept = tuple(e for e in equations if e.target not in inputs)
    named = {*inputs, *(e.target for e in kept)}
    declared = joint.declarations()
    tensors = (*(declared[name] for name in inputs), *(declared[e.target] for e in kept))
    return replace(
        joint, inputs=inputs, outputs=outputs, equations=kept, tensors=tuple(t for t in tensors if t.name in named)
    )


def _choose(
    joint: Program,
    outputs: Sequence[str],
    primal_inputs: tuple[str, ...],
    backward: Mapping[str, Equation],
    ahead: Mapping[str, Equation],
    slopes: frozenset[str],
) -> dict[str, Reason]:
    """What the backward half reads beside inputs and outputs, in order, and why it is kept or computed again."""
    values = typical_values(joint)
    wanted = {name for e in backward.values() for name in reads(e) if name in ahead}
    found: dict[str, Reason] = {}
    reading = [*backward.values(), *(e for e in ahead.values() if e.target in wanted)]
    for equation in reversed(list(ahead.values())):
        name = equation.target
        if name not in wanted or name in outputs:
            continue
        if name in slopes:
            found[name] = Reason.SLOPE
        else:
            found[name] = _reason(joint, equation, values, primal_inputs)
            if not found[name].is_kept and _stands_for_two(joint, equation, outputs, reading):
                found[name] = Reason.STANDS_FOR_TWO
        if not found[name].is_kept:
            wanted.update(n for n in reads(equation) if n in ahead)
    return {e.target: found[e.target] for e in ahead.values() if e.target in found}


def _reason(joint: Program, equation: Equation, values: Mapping[sp.Expr, sp.Expr], inputs: tuple[str, ...]) -> Reason:
    """A reduction is kept, unless it is of a higher degree in some size than every array of the layer; a row value too.

    A sum over what is one value at most is no reduction: the statistic of the group that a channel lies in.
    """
    arrays = [joint.tensor(name).shape for name in (*inputs, *joint.outputs)]
    shape = joint.tensor(equation.target).shape
    if equation.reducer != "sum" or any(not at_most_one(t, b) for t in equation.terms for b in t.bound):
        small = all(_degree(shape, s) <= max(_degree(other, s) for other in arrays) for s in joint.sizes)
        return Reason.REDUCTION if small else Reason.LARGE
    largest = max((_elements(joint, name, values) for name in (*inputs, *joint.outputs)), default=1.0)
    is_row_value = equation.target in joint.labels.names and _elements(joint, equation.target, values) * 4 <= largest
    return Reason.ROW_VALUE if is_row_value else Reason.MAP


def _stands_for_two(joint: Program, equation: Equation, outputs: Sequence[str], reading: Sequence[Equation]) -> bool:
    """A named map, as large as an output, that is all the backward half sees of two inputs: one read for theirs.

    s[n,i] = x[n,i] + r[n,i]   where nothing else that the backward half needs reads x or r
    """
    if not equation.is_map or equation.target not in joint.labels.names:
        return False
    shape = joint.tensor(equation.target).shape
    if not any(joint.tensor(name).shape == shape for name in outputs):
        return False
    elsewhere = {name for other in reading if other.target != equation.target for name in reads(other)}
    hidden = [a for a in accesses(equation.body) if a.name not in elsewhere and a.indices == equation.axes]
    return sum(1 for a in hidden if joint.tensor(a.name).shape == shape and a.name in joint.inputs) > 1


def _degree(shape: Sequence[sp.Expr], size: sp.Symbol) -> int:
    return sum(1 for extent in shape if size in extent.free_symbols)


def _elements(program: Program, name: str, values: Mapping[sp.Expr, sp.Expr]) -> float:
    total = 1.0
    for extent in program.tensor(name).shape:
        number = extent.xreplace(dict(values))
        total *= max(float(number), 1.0) if number.is_number and number.is_finite else 64.0
    return total
