"""Syntax tree to graph: names, parameters, shapes and weight paths are settled here."""

from tfdsl.ir.elaborate.model import Elaborated, elaborate
from tfdsl.ir.elaborate.parameters import Override

__all__ = ["Elaborated", "Override", "elaborate"]
