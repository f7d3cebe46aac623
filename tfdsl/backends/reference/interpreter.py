"""Running a graph: one region after another, node by node, in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.backends.reference.inputs import bind_sizes, converted, state_sizes
from tfdsl.backends.reference.lowerings import DTYPES, LOWERINGS, OutOfRange
from tfdsl.ir.dims import Dim, DimError, evaluate
from tfdsl.ir.graph import Graph, Loop, Node, fill_path
from tfdsl.ir.op import Attributes, ShapeError
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import one

Array = npt.NDArray[Any]


def run(
    graph: Graph,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    state: dict[str, Array] | None = None,
) -> dict[str, Array]:
    """The outputs of a model by name, float64 for floats, int64 and bool; `SpecError` for inputs that do not fit.

    `state` is what the graph remembers, by path; it is empty before the first call, and each call replaces what is in it.
    """
    state = {} if state is None else state
    sizes = {**bind_sizes(graph, inputs), **state_sizes(graph, state)}
    given = [converted(graph.node(node), inputs) for node in graph.inputs]
    with np.errstate(all="ignore"):  # infinities and NaN are results here, as they are on every target
        results = Machine(sizes, weights, state).region(graph, given)
    return dict(zip((name for name, _ in graph.outputs), results, strict=True))


@dataclass
class Machine:
    """What the nodes of a region may see: sizes, weights, states, the turns of the loops around it, its own inputs."""

    sizes: Mapping[str, int]
    weights: Mapping[str, Array]
    state: dict[str, Array]
    loops: tuple[Loop, ...] = ()
    given: Mapping[int, Array] = field(default_factory=dict)

    def region(self, graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """The outputs of a region for its inputs. A value is dropped once its last reader has run."""
        self.given = dict(zip(graph.inputs, inputs, strict=True))
        nodes = graph.nodes()
        readers = Counter(value.node for node in nodes for value in node.inputs if value is not None)
        readers.update(value.node for _, value in graph.outputs)
        values: dict[int, tuple[Array, ...]] = {}
        for node in nodes:
            if readers[node.id]:
                values[node.id] = self._results(node, values)
            for value in node.inputs:
                if value is not None:
                    readers[value.node] -= 1
                    if not readers[value.node]:
                        values.pop(value.node, None)
        return tuple(values[value.node][value.index] for _, value in graph.outputs)

    def turn(self, body: Graph, loop: Loop, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """One turn of a loop."""
        return Machine(self.sizes, self.weights, self.state, (*self.loops, loop)).region(body, inputs)

    def weight(self, node: Node) -> Array:
        """The value of a weight node, whose path may name the indices of loops."""
        path = fill_path(node.attributes["path"], self.loops)
        if path not in self.weights:
            raise one("T801", f"there is no weight `{path}`", node.span)
        value = np.asarray(self.weights[path])
        if value.shape != node.type.dims:
            raise one("T803", f"`{path}` is {list(value.shape)}, and the model's is {list(node.type.dims)}", node.span)
        return value.astype(DTYPES[node.type.dtype])

    def state_path(self, node: Node) -> str:
        """Where the state of a node lies, in this turn of the loops around it."""
        return fill_path(node.attributes["path"], self.loops)

    def attributes(self, node: Node) -> Attributes:
        """The attributes of a node, every size in numbers."""
        filled = OPS[node.op].fill(node.attributes)
        return Attributes({name: self._number(value) for name, value in vars(filled).items()})

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of a node's only result."""
        return tuple(evaluate(size, self.sizes) for size in node.type.dims)

    def _number(self, value: Any) -> Any:
        if isinstance(value, Dim):
            return evaluate(value, self.sizes)
        if isinstance(value, tuple):
            return tuple(self._number(each) for each in value)
        if isinstance(value, Mapping):
            return {name: self._number(each) for name, each in value.items()}
        return value

    def _results(self, node: Node, values: Mapping[int, tuple[Array, ...]]) -> tuple[Array, ...]:
        operands = [None if value is None else values[value.node][value.index] for value in node.inputs]
        try:
            result = LOWERINGS[node.op](self, node, *operands)
        except (OutOfRange, ShapeError, DimError) as error:
            raise one("T707", f"`{node.op}` has no result here: {error}", node.span) from None
        return result if isinstance(result, tuple) else (np.asarray(result),)
