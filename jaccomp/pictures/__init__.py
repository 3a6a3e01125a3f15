"""Pictures as SVG text, of a program and of an instance of a Jacobian; one file a picture."""

from __future__ import annotations

from jaccomp.pictures.graph import graph
from jaccomp.pictures.heat import heat
from jaccomp.pictures.instance import Instance
from jaccomp.pictures.picture import Picture
from jaccomp.pictures.sparsity import sparsity
from jaccomp.pictures.spectrum import spectrum

__all__ = ["Instance", "Picture", "graph", "heat", "sparsity", "spectrum"]
