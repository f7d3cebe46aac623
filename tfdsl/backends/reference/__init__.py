"""The reference: a graph interpreted in float64 NumPy, the oracle for every pass and every other backend."""

from tfdsl.backends.reference.inputs import bind_sizes
from tfdsl.backends.reference.interpreter import run

__all__ = ["bind_sizes", "run"]
