"""A card as HTML: one page that stands alone."""

from __future__ import annotations

from jaccomp.gallery.page import page as render

__all__ = ["render"]
