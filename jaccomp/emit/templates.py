"""Jinja environments, all of one kind: strict, and over `templates/` beside the package or inside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2


@cache
def template_directory() -> Path:
    """`templates/` inside the installed package, else at the root of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "templates", package.parent / "templates"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"templates/ is neither in {package} nor beside it; the installation is incomplete.")


@cache
def environment() -> jinja2.Environment:
    """That of generated modules: nothing is escaped, the text is code."""
    return strict_environment("", escapes=False)


def strict_environment(folder: str, *, escapes: bool) -> jinja2.Environment:
    """An environment over a folder of `templates/`: undefined names raise, blocks leave no blank lines."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_directory() / folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=escapes,
    )


def render(template: str, **values: object) -> str:
    return environment().get_template(template).render(**values)


def verbatim(name: str) -> str:
    """The text of a file of `templates/` that has nothing to fill in."""
    return (template_directory() / name).read_text(encoding="utf-8").rstrip("\n")
