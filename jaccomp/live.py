"""A written layer for a page in which its Jacobian is evaluated."""

from __future__ import annotations

from jaccomp import pipeline
from jaccomp.calculus.vjp import real_inputs, real_outputs
from jaccomp.emit.live import Live, LiveBlock, assemble
from jaccomp.layer import Layer


def live(layer: Layer) -> Live:
    """Forward and every block, with small sizes that the layer allows. Raises `UsageError` for a derived layer."""
    derivation = layer.derivation
    program = derivation.program
    label = program.labels.name
    blocks = [
        LiveBlock(label(of), label(wrt), program.tensor(of).rank, pipeline.jacobian_program(derivation, of, wrt))
        for of in real_outputs(program)
        for wrt in real_inputs(program)
    ]
    return assemble(layer.spec, pipeline.computable(program), blocks)
