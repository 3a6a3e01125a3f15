"""Programs to loop IR: domains become loops; loops are fused and tiled, storage contracted, products planned."""

from jaccomp.lowering.ir import Kernel
from jaccomp.lowering.lower import lower

__all__ = ["Kernel", "lower"]
