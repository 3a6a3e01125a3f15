"""Whole HTML documents: templates, escaped; style and scripts inside, each allowed by its hash and nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import jinja2
from markupsafe import Markup

from jaccomp.card import Line
from jaccomp.emit.templates import strict_environment, template_directory
from jaccomp.errors import StageError
from jaccomp.gallery.mathml import UnreadLatex, mathml

# What would end a script or a style before its end, or hide its end, in the eyes of an HTML parser.
_CLOSING = re.compile("</script|<script|</style|<!--|\r", re.IGNORECASE)
# Characters that no HTML document may hold, by whatever name or doc they come; and those that turn the direction of
# text around, by which a line of code reads as another.
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


@cache
def environment() -> jinja2.Environment:
    """Undefined names raise, and whatever a template is given is escaped."""
    made = strict_environment("gallery", escapes=True)
    made.filters["formula"] = formula
    return made


def part(template: str, **values: object) -> Markup:
    """A part of a document."""
    return Markup(environment().get_template(template).render(**values))


def document(template: str, *, title: str, styles: Sequence[str], scripts: Sequence[str], **values: object) -> str:
    """A document whose content policy allows its own style and scripts alone; `scripts` run at its end, in order."""
    early, style = asset("theme.js"), _inner("style", "\n".join(styles))
    late = [_inner("script", one) for one in scripts]
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(dict.fromkeys(map(policy_hash, (early, *late))))}",
            f"style-src {policy_hash(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    text = part(
        template, title=title, policy=policy, style=Markup(style), early=Markup(early),
        scripts=[Markup(one) for one in late], **values,
    )  # fmt: skip
    return _NOT_TEXT.sub("\ufffd", text)


@cache
def asset(name: str) -> str:
    """The text of a style or a script among the templates."""
    return _inner(name, (template_directory() / "gallery" / name).read_text(encoding="utf-8"))


def _inner(what: str, text: str) -> str:
    """`text`, if it can stand between its tags and keep its hash there; else a `StageError`."""
    found = _CLOSING.search(text) or _NOT_TEXT.search(text)
    if found is not None:
        raise StageError(f"gallery, {what}", f"its text holds {found[0]!r}, which a page cannot hold as it is.")
    return text


def policy_hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def formula(line: Line) -> Markup:
    """The formula as MathML; as the text it also is, where its LaTeX is not of the kind that jaccomp prints."""
    try:
        return Markup(mathml(line.latex))
    except UnreadLatex:
        return Markup("<code>{}</code>").format(line.text)
