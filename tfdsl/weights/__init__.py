"""Weights: how they begin, files of them, and what pruning and quantisation leave to be stored."""

from tfdsl.weights.beginning import drawn, initial, trial
from tfdsl.weights.build_time import Stored, materialise, needs_values
from tfdsl.weights.files import WeightFile, read, write
from tfdsl.weights.memory import bytes_needed, require_memory

__all__ = [
    "Stored",
    "WeightFile",
    "bytes_needed",
    "drawn",
    "initial",
    "materialise",
    "needs_values",
    "read",
    "require_memory",
    "trial",
    "write",
]
