"""Pictures: well-formed, named, escaped, the same bytes each time; and that they show what is there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from library_formulas import CASES

import jaccomp as jc
from jaccomp.errors import UsageError
from jaccomp.instances import instance, picture
from jaccomp.layers import get
from jaccomp.pictures import Instance, Picture, graph, heat, sparsity, spectrum
from jaccomp.pictures.grid import MOST
from jaccomp.pictures.heat import LEVELS
from jaccomp.pictures.layout import layered
from jaccomp.program import Labels
from jaccomp.reference import sampling

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "</title><script>alert(1)</script><img src=x onerror=alert(1)> & \" ' ]]> \x00\x1b\ud800"
FUNCTIONS = (heat, sparsity, spectrum)


def parsed(one: Picture) -> ElementTree.Element:
    """The picture's tree, after what holds of every picture."""
    root = ElementTree.fromstring(one.svg)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    title, description = root[0], root[1]
    assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
    assert (title.text, description.text) == (one.title, one.description)
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert root.get("viewBox") == f"0 0 {one.width} {one.height}"
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    for node in root.iter():
        assert node.tag.removeprefix(SVG) in {"svg", "title", "desc", "g", "rect", "path", "text", "circle"}
        assert not {key for key in node.attrib if key == "style" or key.endswith("href") or key.startswith("on")}
        assert "nan" not in " ".join(node.attrib.values()) and "inf" not in " ".join(node.attrib.values())
    return root


def plain(values: Any, rank: int = 1) -> Instance:
    return Instance("y", "x", "y[i]", "x[j]", rank, np.asarray(values, dtype=float))


def texts(root: ElementTree.Element) -> list[str]:
    return [node.text or "" for node in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", CASES)
def test_a_program_and_its_vjp_as_graphs(name: str) -> None:
    for program in (get(name).program, get(name).derivation.vjp):
        one = graph(program)
        root = parsed(one)
        words = "".join(texts(root)).replace(" ", "")
        label = program.labels.name
        for equation in program.equations:
            assert f"{label(equation.target)} from " in one.description
        for tensor in (*program.inputs, *program.outputs):
            assert label(tensor) in words
        assert len(root.findall(f".//{SVG}rect")) == len(program.equations) + len(program.inputs) + len(program.outputs)
        inside = [float(node.get("x", 0)) for node in root.iter(f"{SVG}text")]
        assert all(0 <= x <= one.width for x in inside)


@pytest.mark.parametrize("name", ["softmax", "embedding", "mse", "conv1d", "lstm_cell", "causal_attention"])
def test_an_instance_as_every_picture(name: str) -> None:
    layer = get(name)
    for of, wrt in layer.jacobians():
        one = instance(layer, of, wrt)
        for function in FUNCTIONS:
            shown = function(one)
            parsed(shown)
            assert shown.title.startswith(f"∂{of}/∂{wrt}") and "inputs of seed 1" in shown.description
            assert function(one).svg == shown.svg == shown._repr_svg_()


def test_names_are_text_wherever_they_stand() -> None:
    plain_program = get("layernorm").program
    labels = Labels(dict.fromkeys(plain_program.labels.names, EVIL), {}, ())
    for one in (
        graph(replace(plain_program, name=EVIL, labels=labels)),
        *(f(Instance(EVIL, EVIL, EVIL, EVIL, 1, np.eye(3), EVIL)) for f in FUNCTIONS),
    ):
        parsed(one)
        assert "<script" not in one.svg and "<img" not in one.svg and "alert" in one.svg


def test_two_pictures_in_one_page_have_ids_of_their_own() -> None:
    ids = {node.get("id") for one in (plain(np.eye(2)), plain(np.eye(3))) for node in parsed(heat(one))[:2]}
    assert len(ids) == 4


def drawn(path: str, side: float, shape: tuple[int, int]) -> Any:
    """The mask of the squares that a path of runs covers."""
    mask = np.zeros(shape, dtype=bool)
    for x, y, length in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v[\d.]+h-[\d.]+z", path):
        row, start, count = (round(float(v) / side) for v in (y, x, length))
        assert not mask[row, start : start + count].any()
        mask[row, start : start + count] = True
    return mask


def levels(one: Picture, shape: tuple[int, int]) -> Any:
    """Sign and strength of every square, read back from the picture; what is not finite is nan."""
    root = ElementTree.fromstring(one.svg)
    board = root[2].findall(f"{SVG}g")[-1]
    (frame,) = board.findall(f"{SVG}rect")
    side = float(frame.get("width", 0)) / shape[1]
    found = np.zeros(shape)
    for group in board[0]:
        if group.tag == f"{SVG}path":
            found[drawn(group.get("d", ""), side, shape)] = np.nan
            continue
        sign = -1 if group[0].get("fill") == "var(--jc-negative)" else 1
        for path in group[0]:
            found[drawn(path.get("d", ""), side, shape)] = sign * float(path.get("fill-opacity", 0)) * LEVELS
    return found


def test_a_heat_map_shows_sign_and_strength_of_every_entry() -> None:
    values = np.random.default_rng(0).standard_normal((7, 12)) * (np.random.default_rng(1).random((7, 12)) < 0.6)
    found = levels(heat(plain(values)), values.shape)
    exact = values / np.abs(values).max() * LEVELS
    np.testing.assert_allclose(found, np.sign(exact) * np.ceil(np.abs(exact)), atol=1e-9)
    assert ((found == 0) == (values == 0)).all()


def test_a_heat_map_says_its_ends() -> None:
    one = heat(plain([[0.5, -0.25], [0, 0]]))
    assert {"−0.5", "0", "0.5"} <= set(texts(parsed(one)))
    assert "Least −0.25, greatest 0.5. 2 of 4 entries are not zero." in one.description


def test_what_is_not_finite_is_drawn_apart_and_counted() -> None:
    one = heat(plain([[np.nan, 1.0], [np.inf, 0.0]]))
    assert np.isnan(levels(one, (2, 2))[:, 0]).all() and "2 are not finite" in one.description


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1)])
def test_empty_and_zero_matrices_are_pictures_too(shape: tuple[int, int]) -> None:
    for function in FUNCTIONS:
        parsed(function(plain(np.zeros(shape))))


def test_a_large_matrix_is_drawn_smaller_and_says_so() -> None:
    values = np.zeros((2 * MOST + 1, 5))
    values[10, 2], values[11, 2] = -3.0, 2.0
    values[2 * MOST, 4] = 3.0
    one = heat(plain(values))
    rows = MOST // 3 * 2 + 1
    found = levels(one, (rows, 5))
    assert found[10 // 3, 2] == -LEVELS and found[-1, 4] == LEVELS and (found != 0).sum() == 2
    assert "Each square is the entry of largest magnitude among 3 by 1." in one.description
    assert "Each square stands for 3 by 1 entries" in sparsity(plain(values)).description
    assert len(heat(plain(np.random.default_rng(0).standard_normal((500, 500)))).svg) < 400_000


def test_the_pattern_has_a_square_for_each_entry_that_is_not_zero() -> None:
    one = instance(get("causal_attention"), wrt="k")
    (path,) = parsed(sparsity(one)).findall(f".//{SVG}path")
    assert path.get("d", "").count("M") == np.count_nonzero(one.values)


def test_the_spectrum_shows_every_singular_value() -> None:
    values = np.diag([4.0, 2.0, 1.0, 0.0])
    one = spectrum(plain(values))
    linear, logarithmic = (g for g in parsed(one).findall(f"{SVG}g") if g.get("transform"))
    heights = [float(dot.get("cy", 0)) for dot in linear.iter(f"{SVG}circle")]
    bottom = heights[-1]
    np.testing.assert_allclose([(bottom - y) / (bottom - heights[0]) for y in heights], [1, 0.5, 0.25, 0], atol=1e-3)
    logs = [float(dot.get("cy", 0)) for dot in logarithmic.iter(f"{SVG}circle")]
    assert len(logs) == 3 and logs[1] - logs[0] == pytest.approx(logs[2] - logs[1], abs=0.02)
    assert "numerical rank 3" in one.description and "1 numerical zeros left out" in "".join(texts(linear)) + "".join(
        texts(logarithmic)
    )


def test_a_spectrum_needs_finite_entries() -> None:
    with pytest.raises(UsageError, match=r"spectrum of ∂y/∂x: some of its entries are not finite.\n  Choose an input"):
        spectrum(plain([[np.nan]]))


def test_a_spectrum_of_a_huge_matrix_is_refused() -> None:
    with pytest.raises(UsageError, match=r"it is 1025 by 1025, larger than 1024 either way.\n  Choose smaller sizes."):
        spectrum(plain(np.zeros((1025, 1025))))


# Layout


def check_layout(boxes: dict[str, tuple[float, float]], edges: Sequence[tuple[str, str]]) -> None:
    one = layered(boxes, edges)
    rectangles = {
        key: (x - boxes[key][0] / 2, y - boxes[key][1] / 2, x + boxes[key][0] / 2, y + boxes[key][1] / 2)
        for key, (x, y) in one.places.items()
    }
    for a, b in itertools.combinations(rectangles.values(), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1], "two boxes overlap"
    for key, (left, top, right, bottom) in rectangles.items():
        assert left > -1e-6 and top > -1e-6 and right < one.width + 1e-6 and bottom < one.height + 1e-6, key
    for (above, below), route in one.routes.items():
        heights = [y for _, y in route]
        assert heights == sorted(heights) and len(route) >= 2
        assert heights[0] == pytest.approx(rectangles[above][3]) and heights[-1] == pytest.approx(rectangles[below][1])
        assert rectangles[above][0] < route[0][0] < rectangles[above][2]
        for x, y in route[1:-1]:
            assert not any(r[0] < x < r[2] and r[1] < y < r[3] for r in rectangles.values()), "an arrow crosses a box"


@pytest.mark.parametrize("seed", range(25))
def test_boxes_do_not_overlap_and_arrows_go_down_around_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 24))
    boxes = {f"b{k}": (float(rng.uniform(20, 300)), float(rng.uniform(20, 80))) for k in range(count)}
    edges = [(f"b{a}", f"b{b}") for a in range(count) for b in range(a + 1, count) if rng.random() < 2 / count]
    check_layout(boxes, edges)


def test_a_chain_is_straight_and_nothing_is_nothing() -> None:
    one = layered({"a": (40, 20), "b": (80, 20), "c": (20, 20)}, [("a", "b"), ("b", "c")])
    assert len({round(x, 6) for x, _ in one.places.values()}) == 1
    assert layered({}, []).height == 0


# Instances


def test_an_instance_is_the_kernel_s_jacobian() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))
    one = instance(get("softmax"), inputs={"x": x})
    np.testing.assert_array_equal(one.values, jc.compile("softmax", backend="numpy").jacobian(x))
    assert (one.head, one.rows, one.columns, one.rank) == ("∂y/∂x", "y[n,i]", "x[m,j]", 2)
    assert one.matrix.shape == (6, 6) and "x of shape (2, 3)" in one.note


def test_an_instance_has_the_sizes_that_are_asked_for() -> None:
    one = instance(get("linear"), wrt="W", sizes={"N": 2, "D": 3, "O": 4}, seed=5)
    assert one.values.shape == (2, 4, 4, 3) and one.note == "N = 2, D = 3, O = 4; inputs of seed 5"
    again = instance(get("linear"), wrt="W", sizes={"N": 2, "D": 3, "O": 4}, seed=5)
    np.testing.assert_array_equal(one.values, again.values)


@pytest.mark.parametrize("name", ["lstm_cell", "cross_entropy", "groupnorm", "maxpool2d"])
def test_an_instance_at_a_seed_is_that_at_its_inputs(name: str) -> None:
    layer = get(name)
    sample = sampling.draw(layer.spec, "", iter([sampling.handy(layer.spec).sizes]), np.random.default_rng(1))
    assert sample is not None
    loose = {size: sample.sizes[size] for size in sampling.loose_sizes(layer.spec)}
    for of, wrt in itertools.islice(layer.jacobians(), 3):
        expected = instance(layer, of, wrt, inputs=sample.inputs, sizes=loose)
        found = instance(layer, of, wrt)
        assert found.rank == expected.rank
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-10, atol=1e-13)


def test_scalars_and_sizes_that_no_input_determines_are_passed_on() -> None:
    one = instance(get("maxpool1d"), sizes={"N": 2, "L": 7}, scalars={"kernel": 3, "stride": 1})
    assert one.values.shape == (2, 5, 2, 7)


def test_sizes_of_other_names_are_refused() -> None:
    message = r"instance of ∂y.*: sizes are given for \['N'\], but the layer has \['D', 'N'\].\n  Give each."
    with pytest.raises(UsageError, match=message):
        instance(get("softmax"), sizes={"N": 2})


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the layer does not allow the sizes .*\n  Choose sizes that fit together."):
        instance(get("conv1d"), wrt="x", sizes={"N": 1, "C": 1, "O": 1, "L": 2, "K": 5})


# One call for a layer


def test_a_layer_is_drawn_by_kind() -> None:
    layer = get("softmax")
    assert picture(layer).svg == graph(layer.program).svg
    assert picture(layer, "vjp").svg == graph(layer.derivation.vjp).svg
    for kind, function in (("heat", heat), ("sparsity", sparsity), ("spectrum", spectrum)):
        sizes = {"N": 2, "D": 3}
        assert picture(layer, kind, sizes=sizes).svg == function(instance(layer, sizes=sizes)).svg


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"picture of 'softmax': there is no kind 'tree'.\n  kind is one of graph, vjp"
    ):
        picture(get("softmax"), "tree")


def test_a_graph_has_no_instance() -> None:
    with pytest.raises(UsageError, match=r"a graph has no seed.\n  Leave it out, or choose heat, sparsity or spectrum"):
        picture(get("softmax"), seed=3)
