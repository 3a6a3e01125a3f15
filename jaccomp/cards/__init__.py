"""Derivation cards: gathered from a layer, rendered as text, Markdown, LaTeX or JSON."""
