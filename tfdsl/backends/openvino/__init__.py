"""OpenVINO: a full-sequence model of its own operators, with dynamic sizes, and the CPU plugin to run it."""

from tfdsl.backends.openvino.artifact import build, make
from tfdsl.backends.openvino.runtime import session

__all__ = ["build", "make", "session"]
