"""ONNX: a full-sequence graph of standard operators, with dynamic sizes, and ONNX Runtime to run it."""

from tfdsl.backends.onnx.artifact import build
from tfdsl.backends.onnx.runtime import session

__all__ = ["build", "session"]
