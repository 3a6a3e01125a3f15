"""The stages in order: the page to read first.

    spec -> normalise -> recognise -> differentiate -> simplify -> stabilise -> lower -> emit -> build

Each stage is a pure function; this module only calls them. A layer is compiled from four programs: `forward`,
`fwd` (the same with residuals), `bwd` (its pullback) and `jvp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaccomp.algebra.blocks import Block, block
from jaccomp.algebra.engine import Step, ordered_with, simplify
from jaccomp.algebra.explicit import explicit
from jaccomp.algebra.recognition import recognise
from jaccomp.algebra.stability import stabilise
from jaccomp.calculus.vjp import jvp, real_inputs, real_outputs, vjp
from jaccomp.jacobian import Jacobian
from jaccomp.lowering.residuals import Halves, split
from jaccomp.normalise import normalise
from jaccomp.program import Program, live
from jaccomp.spec import Spec


@dataclass(frozen=True, slots=True)
class Derivation:
    """A layer's program in recognised form, its simplified VJP (pruned, and with all definitions), and the trace."""

    program: Program
    vjp: Program
    steps: tuple[Step, ...] = ()

    @property
    def seeds(self) -> tuple[str, ...]:
        """The cotangent inputs of the VJP."""
        return tuple(name for name in self.vjp.inputs if name not in self.program.inputs)


def jacobian(derivation: Derivation, of: str, wrt: str) -> Jacobian:
    """The block ∂of/∂wrt of a derivation, by canonical names."""
    return Jacobian(derivation.program.name, derivation.vjp, _block(derivation, of, wrt))


def jacobian_program(derivation: Derivation, of: str, wrt: str) -> Program:
    """The program x... -> J[axes of `of`, axes of `wrt`] of the block ∂of/∂wrt, by canonical names, stabilised."""
    letters = [str(index) for index in jacobian(derivation, of, wrt).indices]
    return computable(explicit(derivation.program, derivation.vjp, _block(derivation, of, wrt), letters))


def _block(derivation: Derivation, of: str, wrt: str) -> Block:
    seed = dict(zip(real_outputs(derivation.program), derivation.seeds, strict=True))[of]
    output = dict(zip(real_inputs(derivation.program), derivation.vjp.outputs, strict=True))[wrt]
    return block(derivation.vjp, of, wrt, seed, output)


def prepare(spec: Spec) -> Program:
    """The layer as it is differentiated: normal form, recognised, its deltas eliminated."""
    return prepared(normalise(spec))


def prepared(program: Program) -> Program:
    """A program of any origin as it is differentiated."""
    known = recognise(program)
    return simplify(known, frozenset(e.target for e in known.equations))


def derive(program: Program, *, traced: bool = False) -> Derivation:
    """The simplified VJP of a prepared program."""
    given = frozenset(e.target for e in program.equations)
    steps: list[Step] = []
    derived = simplify(vjp(program), given, steps if traced else None)
    return Derivation(program, derived, tuple(steps))


def derive_jvp(program: Program, wrt: Sequence[str] | None = None) -> Program:
    """The simplified JVP of a prepared program: x..., t_x... -> y..., t_y..., tangents of `wrt` alone where given."""
    given = frozenset(e.target for e in program.equations)
    return simplify(jvp(program, wrt), given)


def pushforward(program: Program, wrt: Sequence[str] | None = None) -> Program:
    """What a JVP adds to forward: x..., t_x... -> t_y..., with what of y it reads and no more."""
    derived = derive_jvp(program, wrt)
    return live(replace(derived, name=f"{program.name}_pushforward", outputs=derived.outputs[len(program.outputs) :]))


def halves(derivation: Derivation) -> Halves:
    """Forward, fwd and bwd of a derivation, stabilised together so that both halves speak of the same quantities."""
    program, backward = derivation.program, derivation.vjp
    own = {e.target for e in backward.equations}
    before = [e for e in program.equations if e.target not in own]
    declared = program.declarations()
    joint = replace(
        backward,
        name=program.name,
        outputs=(*program.outputs, *backward.outputs),
        equations=(*before, *backward.equations),
        tensors=(*backward.tensors, *(declared[e.target] for e in before)),
    )
    return split(computable(joint), program.outputs, derivation.seeds)


def computable(program: Program) -> Program:
    """A program as it is computed: in order, with nothing but what its results need, stabilised."""
    return stabilise(live(_ordered(program)))


def _ordered(program: Program) -> Program:
    return program.with_equations(ordered_with(program, list(program.equations), []))


def tangent(program: Program) -> Program:
    """The JVP of a prepared program, stabilised."""
    return stabilise(derive_jvp(program))
