"""The gallery as a browser shows it: nothing foreign, by keyboard alone, valid and accessible, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from gallery_cards import HOSTILE, as_shown, card

import jaccomp as jc
from jaccomp.cli.gallery import content
from jaccomp.cli.target import targets
from jaccomp.gallery.page import Content, page
from jaccomp.gallery.publish import publish
from jaccomp.gallery.site import site
from jaccomp.gallery.slugs import slug

needs_browser = pytest.mark.skipif(bool(chromium.without_browser()), reason=chromium.without_browser())
needs_axe = pytest.mark.skipif(bool(chromium.without_axe()), reason=chromium.without_axe())
needs_nu = pytest.mark.skipif(bool(chromium.without_nu()), reason=chromium.without_nu())

TAB, SPACE, ENTER, BACK, UP, RIGHT = "\ue004", " ", "\ue007", "\ue003", "\ue013", "\ue014"
SHIFT_TAB = ("\ue008", "\ue004", "\ue008")
LAYERS = ("softmax", "layernorm", "causal_attention", "lstm_cell", "relu", "embedding")
SIZES = ((390, 844), (1440, 900))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of layers of many kinds, and of cards in which every text is hostile."""
    folder = tmp_path_factory.mktemp("gallery")
    hostile = [card(f"hostile{say}", "hostile", say) for say in HOSTILE]
    contents = [*map(content, targets(LAYERS)), *map(Content, hostile)]
    publish(site("Layers and their Jacobians", contents), folder)
    (folder / "alone.html").write_text(page(card()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    one = chromium.Browser()
    yield one
    one.close()


def index(gallery: Path) -> Path:
    return gallery / "index.html"


def focused(browser: chromium.Browser) -> dict[str, Any]:
    """The element that has the focus: its tag and what it is known by."""
    found: dict[str, Any] = browser.run(
        "const e = document.activeElement; return {tag: e.tagName.toLowerCase(), id: e.id, value: e.value ?? '',"
        " text: e.textContent.trim().slice(0, 80), href: e.getAttribute('href') ?? ''}"
    )
    return found


def tab_to(browser: chromium.Browser, **wanted: str) -> dict[str, Any]:
    """Press the tabulator until what has the focus is as wanted."""
    for _ in range(60):
        browser.press(TAB)
        found = focused(browser)
        if all(found[key] == value for key, value in wanted.items()):
            return found
    raise AssertionError(f"the tabulator never comes to {wanted}")


def shown(browser: chromium.Browser) -> list[str]:
    names: list[str] = browser.run(
        "return [...document.querySelectorAll('.entry')].filter((e) => e.checkVisibility()).map((e) => "
        "e.querySelector('h3').textContent.trim())"
    )
    return names


def status(browser: chromium.Browser) -> str:
    text: str = browser.run("return document.querySelector('[role=status]').textContent")
    return text


# Nothing foreign


@needs_browser
def test_no_page_asks_any_host_for_anything(browser: chromium.Browser, gallery: Path) -> None:
    for path in sorted(gallery.glob("*.html")):
        browser.open(path)
        assert browser.requests() == [path.as_uri()]
        assert browser.complaints() == []


@needs_browser
@pytest.mark.parametrize("say", HOSTILE)
def test_a_hostile_layer_runs_nothing_and_shows_its_name(browser: chromium.Browser, gallery: Path, say: str) -> None:
    name = f"hostile{say}"
    path = gallery / f"{slug(name)}.html"
    for one in (path, index(gallery)):
        browser.open(one)
        browser.run(
            "for (const e of document.querySelectorAll('*')) {"
            " e.focus?.(); e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})); }"
        )
        assert browser.run("return document.title").startswith(("hostile", "Layers")), "the title was not changed"
        assert browser.run(
            "return [document.images.length, document.querySelectorAll('[onerror], [onload]').length]"
        ) == [0, 0]
        assert browser.complaints() == []
    browser.open(path)
    assert browser.run("return document.querySelector('h1').textContent") == as_shown(name)


@needs_browser
def test_the_policy_stops_a_script_that_is_put_in(browser: chromium.Browser, gallery: Path) -> None:
    browser.open(index(gallery))
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"x\" onerror=\"document.title = 1\">')"
    )
    assert browser.run("return document.title") == "Layers and their Jacobians"
    assert any("Content Security Policy" in one for one in browser.complaints())


# By keyboard alone


@needs_browser
def test_search_works_by_keyboard_alone(browser: chromium.Browser, gallery: Path) -> None:
    browser.open(index(gallery))
    total = len(shown(browser))
    tab_to(browser, id="words")
    browser.press("Soft MAX bridle")
    assert "softmax" in shown(browser) and "relu" not in shown(browser)
    assert status(browser) == f"{len(shown(browser))} of {total} layers"
    assert browser.run("return location.hash") == "#q=Soft+MAX+bridle"
    browser.press(*[BACK] * len("Soft MAX bridle"))
    assert len(shown(browser)) == total and browser.run("return location.hash") == ""
    browser.press("nothing is called so")
    assert shown(browser) == [] and status(browser) == f"0 of {total} layers"
    assert browser.run("return document.getElementById('none').checkVisibility()")
    tab_to(browser, id="clear")
    browser.press(ENTER)
    assert len(shown(browser)) == total and focused(browser)["id"] == "words"


@needs_browser
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_filters_work_by_keyboard_alone(browser: chromium.Browser, gallery: Path, width: int, height: int) -> None:
    browser.show(width, height, "light")
    browser.open(index(gallery))
    total = len(shown(browser))
    if width < 1000:
        tab_to(browser, tag="summary", text="Filters")
        browser.press(ENTER)
    tab_to(browser, value="normalisations")
    browser.press(SPACE)
    assert shown(browser) == ["layernorm"] and status(browser) == f"1 of {total} layers"
    tab_to(browser, value="cells")
    assert shown(browser) == ["layernorm"]
    browser.press(*SHIFT_TAB)
    tab_to(browser, value="softmaxes")
    browser.press(SPACE)
    assert set(shown(browser)) == {"layernorm", "softmax"}, "one family or the other"
    address = browser.run("return location.hash")
    assert address == "#family=normalisations&family=softmaxes"
    browser.open(index(gallery), address)
    assert set(shown(browser)) == {"layernorm", "softmax"}, "the address keeps the filter"
    browser.open(index(gallery), "#structure=diagonal+%2B+low+rank&q=softmax")
    assert "softmax" in shown(browser) and "relu" not in shown(browser)
    browser.show(1440, 900, "light")


@needs_browser
def test_a_layer_is_reached_and_left_by_keyboard_alone(browser: chromium.Browser, gallery: Path) -> None:
    browser.open(index(gallery))
    browser.press(TAB)
    assert focused(browser)["text"] == "Skip to the content"
    browser.press(ENTER)
    tab_to(browser, href="relu.html")
    browser.press(ENTER)
    assert browser.run("return document.querySelector('h1').textContent") == "relu"
    tab_to(browser, tag="summary")
    browser.press(ENTER)
    assert browser.run("return document.activeElement.parentElement.open")
    browser.open(gallery / "relu.html")
    tab_to(browser, href="index.html")
    browser.press(ENTER)
    assert browser.run("return document.querySelector('h1').textContent") == "Layers and their Jacobians"


@needs_browser
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_is_wide_scrolls_where_it_stands_and_can_be_reached(
    browser: chromium.Browser, gallery: Path, width: int, height: int
) -> None:
    browser.show(width, height, "light")
    for path in sorted(gallery.glob("*.html")):
        browser.open(path)
        browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
        browser.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), path.name
        unreached = browser.run(
            "const reached = (e) => e.tabIndex === 0 && e.getAttribute('role') === 'group' && e.ariaLabel !== '';"
            "const scrolls = (e) => e.scrollWidth > e.clientWidth;"
            "return [...document.querySelectorAll('.wide')].filter((e) => scrolls(e) !== reached(e)).length"
        )
        assert unreached == 0, path.name
    browser.show(1440, 900, "light")


# The heat map

MAP = "document.getElementById('heat-map').jaccomp"
SEEN = f"""
const {{layer, sizes, scalars, inputs, values, shape, block}} = {MAP};
const data = (one) => [one.label, one.shape(sizes, scalars), [...inputs[one.id]].map(String)];
const labelled = Object.fromEntries(layer.scalars.map((one) => [one.label, scalars[one.id]]));
return {{inputs: layer.inputs.map(data), scalars: labelled, values: [...values].map(String), shape,
  of: layer.blocks[block].of, wrt: layer.blocks[block].wrt, count: layer.blocks.length}};
"""


def compare(browser: chromium.Browser, kernel: jc.Kernel, layer: jc.Layer) -> None:
    """What the map shows now, beside what NumPy computes, one row of the block after another, from the same inputs."""
    seen = browser.run(SEEN)
    dtypes = {one.name: one.dtype for one in layer.spec.inputs}
    arrays = {
        name: np.array(list(map(float, data))).reshape(shape).astype("int64" if dtypes[name] == "int64" else "float64")
        for name, shape, data in seen["inputs"]
    }
    expected = kernel.jacobian(*arrays.values(), of=seen["of"], wrt=seen["wrt"], **seen["scalars"])
    values = np.array(list(map(float, seen["values"]))).reshape(seen["shape"])
    assert values.any(), "there is something to see"
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


@needs_browser
@pytest.mark.parametrize("name", LAYERS)
def test_the_heat_map_equals_numpys_values(browser: chromium.Browser, gallery: Path, name: str) -> None:
    layer = jc.layers.get(name)
    kernel = jc.compile(layer, backend="numpy")
    browser.open(gallery / f"{name}.html")
    for block in range(browser.run(SEEN)["count"]):
        browser.run(
            "const choice = document.querySelector('#heat-map select'); choice.value = arguments[0];"
            "choice.dispatchEvent(new Event('change'))",
            str(block),
        )
        compare(browser, kernel, layer)


@needs_browser
def test_sizes_inputs_and_entries_are_chosen_by_keyboard_alone(browser: chromium.Browser, gallery: Path) -> None:
    layer = jc.layers.softmax
    kernel = jc.compile(layer, backend="numpy")
    browser.open(gallery / "softmax.html")
    before = browser.run(SEEN)
    tab_to(browser, tag="input")
    browser.press(UP)
    wider = browser.run(SEEN)
    assert wider["shape"] != before["shape"]
    compare(browser, kernel, layer)
    tab_to(browser, tag="button", text="New input")
    browser.press(ENTER)
    assert browser.run(SEEN)["inputs"] != wider["inputs"]
    compare(browser, kernel, layer)
    browser.press(TAB)
    browser.press(RIGHT)
    entry = browser.run("return document.querySelector('#heat-map output').textContent")
    shown = re.fullmatch(r"∂y\[0,0\]/∂x\[0,1\] = (.+)", entry)
    assert shown and float(shown[1].replace("−", "-")) == pytest.approx(float(browser.run(SEEN)["values"][1]), rel=1e-3)


# Valid and accessible, light and dark


@needs_nu
def test_nu_finds_nothing_wrong(gallery: Path) -> None:
    assert chromium.validity(sorted(gallery.glob("*.html"))) == []


@needs_browser
@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_axe_finds_nothing_wrong(browser: chromium.Browser, gallery: Path, width: int, height: int, theme: str) -> None:
    browser.show(width, height, theme)
    for name in ("index", "lstm_cell", "causal_attention", "alone"):
        browser.open(gallery / f"{name}.html")
        browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
        assert browser.audit() == [], name
    browser.show(1440, 900, "light")


@needs_browser
def test_the_theme_is_the_systems_until_another_is_chosen_and_then_remembered(
    browser: chromium.Browser, gallery: Path
) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    browser.open(index(gallery))
    light = browser.run(paper)
    browser.show(1440, 900, "dark")
    dark = browser.run(paper)
    assert light != dark and focused(browser)["id"] == ""
    tab_to(browser, id="theme")
    assert focused(browser)["text"] == "Light theme"
    browser.press(ENTER)
    assert browser.run(paper) == light and focused(browser)["text"] == "Dark theme"
    browser.open(gallery / "relu.html")
    assert browser.run(paper) == light, "the choice is remembered on another page"
    browser.run("localStorage.clear()")
    browser.show(1440, 900, "light")


@needs_browser
def test_a_page_is_printed_unfolded_and_without_its_navigation(browser: chromium.Browser, gallery: Path) -> None:
    browser.open(gallery / "relu.html")
    browser.run(
        "addEventListener('beforeprint', () => { const all = [...document.querySelectorAll('details')];"
        " window.seen = [all.every((one) => one.open), all.length] })"
    )
    assert browser.command("Page.printToPDF", preferCSSPageSize=True)["data"]
    opened, count = browser.run("return window.seen")
    assert opened and count > 0
    assert browser.run("return document.querySelectorAll('details[open]').length") == 0, "and folded again"
    browser.command("Emulation.setEmulatedMedia", media="print")
    assert browser.run("return [...document.querySelectorAll('nav')].some((one) => one.checkVisibility())") is False
    browser.command("Emulation.setEmulatedMedia", media="")
    browser.show(1440, 900, "light")
