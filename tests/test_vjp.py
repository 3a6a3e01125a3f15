"""VJP and JVP, raw, simplified and cut into halves, against complex step; and both again of the VJP."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from dense import SMALL, assert_close, jacobian, pulled, pushed, seeds, small_point

from jaccomp import pipeline
from jaccomp.calculus.vjp import jvp, real_inputs, real_outputs, vjp
from jaccomp.errors import DerivativeError
from jaccomp.layer import Layer
from jaccomp.layers import get
from jaccomp.program import Program, verify

LAYERS = tuple(SMALL)


class Setting:
    """A layer at a point, with its dense Jacobian and seeds."""

    def __init__(self, name: str) -> None:
        self.layer = get(name)
        self.point = small_point(name)
        self.program = self.layer.prepared
        self.blocks = jacobian(self.point, self.point.program, self.point.inputs)
        self.ct = seeds(self.point, self.program, real_outputs(self.program), "ct_", 1)
        self.t = seeds(self.point, self.program, real_inputs(self.program), "t_", 2)

    @property
    def inputs(self) -> dict[str, Any]:
        return self.point.inputs | self.ct

    def check_vjp(self, values: dict[str, Any]) -> None:
        for x, expected in pulled(self.blocks, self.program, self.ct, "ct_").items():
            assert_close(values["ct_" + x], expected, f"ct_{x}")

    def check_jvp(self, program: Program) -> None:
        values = self.point.evaluate(verify(program), self.point.inputs | self.t)
        for y, expected in pushed(self.blocks, self.program, self.t, "t_").items():
            assert_close(values["t_" + y], expected, f"t_{y}")


@cache
def setting(name: str) -> Setting:
    return Setting(name)


class Second:
    """The simplified VJP of a layer as the program that is differentiated, with its dense Jacobian."""

    def __init__(self, name: str) -> None:
        first = setting(name)
        self.point, self.inputs = first.point, first.inputs
        self.layer = first.layer.vjp()
        self.program = self.layer.program
        self.raw = vjp(first.program)
        self.blocks = jacobian(self.point, self.raw, self.inputs)
        self.primal = real_inputs(first.program)


@cache
def second(name: str) -> Second:
    return Second(name)


@pytest.mark.parametrize("name", LAYERS)
class TestFirstOrder:
    def test_the_vjp_as_derived(self, name: str) -> None:
        one = setting(name)
        for program in (one.point.program, one.program):
            one.check_vjp(one.point.evaluate(verify(vjp(program)), one.inputs))

    def test_the_vjp_simplified(self, name: str) -> None:
        one = setting(name)
        one.check_vjp(one.point.evaluate(verify(one.layer.derivation.vjp), one.inputs))

    def test_the_halves(self, name: str) -> None:
        one = setting(name)
        halves = pipeline.halves(one.layer.derivation)
        forward = one.point.evaluate(verify(halves.forward), one.point.inputs)
        kept = one.point.evaluate(verify(halves.fwd), one.point.inputs)
        for y in one.program.outputs:
            np.testing.assert_array_equal(forward[y], kept[y])
        known = {**one.inputs, **kept}
        one.check_vjp(one.point.evaluate(verify(halves.bwd), {n: known[n] for n in halves.bwd.inputs}))

    def test_the_jvp_as_derived_simplified_and_stabilised(self, name: str) -> None:
        one = setting(name)
        for program in (jvp(one.program), pipeline.derive_jvp(one.program), pipeline.tangent(one.program)):
            one.check_jvp(program)

    def test_the_jacobian_of_the_recognised_program_is_that_of_the_written_one(self, name: str) -> None:
        one = setting(name)
        found = jacobian(one.point, one.program, one.point.inputs)
        for key, block in one.blocks.items():
            np.testing.assert_allclose(found[key], block, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", LAYERS)
class TestSecondOrder:
    def test_the_vjp_of_the_vjp(self, name: str) -> None:
        two = second(name)
        ct = seeds(two.point, two.program, real_outputs(two.program), "ct2_", 3)
        expected = pulled(two.blocks, two.program, ct, "ct2_")
        for program in (vjp(two.raw), vjp(two.program), two.layer.derivation.vjp):
            values = two.point.evaluate(verify(program), two.inputs | ct)
            for x, one in expected.items():
                assert_close(values["ct2_" + x], one, f"ct2_{x}")

    def test_the_halves_of_the_vjp(self, name: str) -> None:
        two = second(name)
        ct = seeds(two.point, two.program, real_outputs(two.program), "ct2_", 4)
        halves = pipeline.halves(two.layer.derivation)
        known = {**two.inputs, **ct, **two.point.evaluate(verify(halves.fwd), two.inputs)}
        values = two.point.evaluate(verify(halves.bwd), {n: known[n] for n in halves.bwd.inputs})
        for x, one in pulled(two.blocks, two.program, ct, "ct2_").items():
            assert_close(values["ct2_" + x], one, f"ct2_{x}")

    def test_the_jvp_of_the_vjp(self, name: str) -> None:
        two = second(name)
        t = seeds(two.point, two.program, real_inputs(two.program), "t_", 5)
        mark = jvp(two.program).outputs[-1].removesuffix(two.program.outputs[-1])
        t = {mark + key.removeprefix("t_"): value for key, value in t.items()}
        expected = pushed(two.blocks, two.program, t, mark)
        for program in (jvp(two.program), two.layer.jvp().program, pipeline.tangent(two.layer.prepared)):
            values = two.point.evaluate(verify(program), two.inputs | t)
            for y, one in expected.items():
                assert_close(values[mark + y], one, f"{mark}{y}")

    def test_the_hessian_of_a_scalar_loss_is_symmetric(self, name: str) -> None:
        """Column by column through the JVP of the VJP: `d²⟨v, y⟩/dx_a dx_b`, over all inputs together."""
        two = second(name)
        program = two.layer.jvp().program
        fixed = {name: np.zeros(two.point.shape(name, program)) for name in program.inputs if name not in two.inputs}
        mark = next(iter(fixed)).removesuffix(two.primal[0])
        columns = []
        for x in two.primal:
            shape = two.point.shape(x)
            for k in range(int(np.prod(shape))):
                unit = np.zeros(shape)
                unit.flat[k] = 1.0
                values = two.point.evaluate(program, two.inputs | fixed | {mark + x: unit})
                columns.append(np.concatenate([values[f"{mark}ct_{y}"].ravel() for y in two.primal]))
        hessian = np.array(columns).T
        by_step = np.block([[two.blocks[f"ct_{y}", x] for x in two.primal] for y in two.primal])
        scale = np.abs(by_step).max()
        assert np.abs(hessian - hessian.T).max() <= 1e-13 * scale
        assert np.abs(hessian - by_step).max() <= 1e-13 * scale


@pytest.mark.parametrize("name", ["rmsnorm", "conv2d", "maxpool2d"])
def test_the_third_derivative_is_closed_too(name: str) -> None:
    """`⟨w, J t⟩` of the VJP of the VJP, by its VJP and by its JVP."""
    layer = second(name).layer.vjp()
    point, program = second(name).point, layer.program
    ct2 = seeds(point, program, tuple(n for n in program.inputs if n not in second(name).inputs), "", 6)
    inputs = second(name).inputs | ct2
    backward, forward = layer.derivation.vjp, layer.jvp().program
    w = {n: v for n, v in seeds(point, backward, backward.inputs, "", 7).items() if n not in program.inputs}
    t = {n: v for n, v in seeds(point, forward, forward.inputs, "", 8).items() if n not in program.inputs}
    pulled_back = point.evaluate(backward, inputs | w)
    pushed_on = point.evaluate(forward, inputs | t)
    left = [
        np.sum(w_one * pushed_on[y])
        for w_one, y in zip(w.values(), forward.outputs[len(program.outputs) :], strict=True)
    ]
    right = [np.sum(t_one * pulled_back[x]) for t_one, x in zip(t.values(), backward.outputs, strict=True)]
    scale = sum(map(abs, left)) + sum(map(abs, right))
    assert abs(sum(left) - sum(right)) <= 1e-13 * scale and scale > 0


def test_only_the_chosen_inputs_are_differentiated_by() -> None:
    program = get("layernorm").prepared
    g = next(n for n in program.inputs if program.labels.name(n) == "g")
    assert vjp(program, [g]).outputs == (f"ct_{g}",)
    assert jvp(program, [g]).inputs == (*program.inputs, f"t_{g}")


def test_a_name_that_is_no_real_input_is_refused() -> None:
    program = get("embedding").prepared
    ids = next(n for n in program.inputs if program.labels.name(n) == "ids")
    for derive in (vjp, jvp):
        with pytest.raises(DerivativeError, match=r"wrt='ids': no real input has that name\.\s+Real inputs: table"):
            derive(program, [ids])


def test_a_derived_layer_has_no_spec() -> None:
    layer = get("softmax").vjp()
    assert isinstance(layer, Layer) and not layer.is_written
    with pytest.raises(ValueError, match="derived, not written"):
        _ = layer.spec


def test_the_maximum_of_a_window_is_known_by_its_place_in_the_array() -> None:
    """One number then says where the cotangent goes; of the window only that it has an element is left to ask."""
    program = get("maxpool2d").derivation.vjp
    ct_x = program.definition(program.outputs[0])
    assert ct_x is not None
    (term,) = ct_x.terms
    ((equality,), (arg,)) = [c for c in term.domain if c.equality], [e.target for e in program.equations[:1]]
    height, width = program.sizes[1:3]
    i, j = ct_x.axes[1:]
    assert equality.expr.coeff(i) in (width, -width) and equality.expr.coeff(j) in (1, -1)
    assert all(c.equality or c.expr.free_symbols.isdisjoint(ct_x.axes) for c in term.domain)
    assert height in {s for c in term.domain for s in c.expr.free_symbols} and arg.startswith("arg")
