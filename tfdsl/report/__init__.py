"""What a model costs: parameters, bytes and floating-point operations, as closed forms over the graph.

Reads a graph and changes nothing. Loops are counted, never unrolled, so a model of 126 layers costs one layer to read.
"""

from tfdsl.report.count import report
from tfdsl.report.result import Report

__all__ = ["Report", "report"]
