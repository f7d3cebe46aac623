"""Binding times: a decoding graph apart into what is known before decoding begins and what each step computes.

An encoder-decoder then needs no naming of its parts: what depends on no decoded position and on no state is computed once
(the encoder, and the keys and values of cross-attention), and handed to every step (compare Jones et al., 1993).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfdsl.ir.axes import with_sizes
from tfdsl.ir.dims import Dim, Size, names_of, rewrite, symbol
from tfdsl.ir.graph import Graph, Node, Type, Value
from tfdsl.ir.states import STATEFUL, states
from tfdsl.language.diagnostics import one

_STEP_INPUTS = ("attention_mask", "position_ids")
# Ops that cost less to do again than their result takes to hand on.
_CHEAP = {"constant", "tensor", "weight", "iota", "positions", "dequantize", "quantize", "prune"}


def split(graph: Graph) -> tuple[Graph | None, Graph]:
    """The graph of what is computed once (None if that is nothing) and the graph of a step, of a flat `incremental` graph.

    The outputs of the first are inputs of the second under the same names; inputs that both read are inputs of both.
    """
    stepwise = _stepwise(graph)
    given = _given(graph, stepwise)
    crossing = [
        value
        for node in graph.nodes()
        if node.id in given and node.op != "input"
        for value in (Value(node.id, index) for index in range(len(node.types)))
        if any(user.id in stepwise for user, _ in graph.users(value)) or value in graph.results()
    ]
    if not crossing:
        return None, graph
    names = _names(graph, crossing, stepwise)
    return _once(graph, given, names), _step(graph, stepwise, names)


def _stepwise(graph: Graph) -> set[int]:
    """The nodes that depend on decoded positions or on a state."""
    found: set[int] = set()
    sizes = {
        dim
        for place in graph.inputs
        if graph.node(place).attributes["name"] in _STEP_INPUTS
        for dim in graph.node(place).type.dims[1:]
    }
    for node in graph.nodes():
        begins = node.op in STATEFUL or (node.op == "input" and not sizes.isdisjoint(node.type.dims))
        # A size of the step makes a value of the step: `expand`, `iota`.
        begins = begins or bool(names_of(dim for type_ in node.types for dim in type_.dims) & names_of(sizes))
        if begins or any(value is not None and value.node in found for value in node.inputs):
            found.add(node.id)
    return found


def _given(graph: Graph, stepwise: set[int]) -> set[int]:
    """The nodes of the rest that depend on an input: what is left are weights and constants."""
    found: set[int] = set()
    for node in graph.nodes():
        if node.id in stepwise or node.op in _CHEAP:
            continue
        if node.op == "input" or any(value is not None and value.node in found for value in node.inputs):
            found.add(node.id)
    return found


def _names(graph: Graph, crossing: list[Value], stepwise: set[int]) -> dict[Value, str]:
    """A name for each value that is handed on: that of the block that reads it, and what it is there."""
    taken = {graph.node(place).attributes["name"] for place in graph.inputs} | {name for name, _ in graph.outputs}
    found: dict[Value, str] = {}
    for value in crossing:
        node = graph.node(value)
        readers = [(user, place) for user, place in graph.users(value) if user.id in stepwise]
        hint = node.labels[value.index] if value.index < len(node.labels) else node.name
        scope = node.scope
        for user, place in readers:
            if user.op == "attend" and place in (1, 2):
                hint, scope = ("key", "value")[place - 1], user.scope
        path = scope[-1].path if scope else ""
        stem = ".".join(filter(None, (path, hint or node.op)))
        name, count = stem, 2
        while name in taken:
            name, count = f"{stem}_{count}", count + 1
        taken.add(name)
        found[value] = name
    return found


def _once(graph: Graph, given: set[int], names: Mapping[Value, str]) -> Graph:
    found = Graph(graph.name)
    found.frame = graph.frame
    made: dict[Value, Value] = {}
    needed = _needed(graph, [value.node for value in names])
    for node in graph.nodes():
        if node.id in needed or (node.op == "input" and node.id in given):
            _copy(found, node, made, node.attributes, node.types)
    found.outputs = [(name, made[value]) for value, name in names.items()]
    symbols = names_of(dim for place in found.inputs for dim in found.node(place).type.dims)
    found.constraints = [each for each in graph.constraints if names_of((each.left, each.right)) <= symbols]
    return found


def _needed(graph: Graph, ends: list[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(ends)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += [value.node for value in graph.node(place).inputs if value is not None]
    return found


def _step(graph: Graph, stepwise: set[int], names: Mapping[Value, str]) -> Graph:
    found = Graph(graph.name)
    found.frame = graph.frame
    made: dict[Value, Value] = {}
    ends = [value.node for value in graph.results()]
    needed = _until(graph, ends, set(names))
    inputs = [graph.node(place) for place in graph.inputs]
    kept = [node for node in inputs if node.id in needed or node.id in stepwise]
    slide = [state.type.dims[state.axis] for state in states(graph) if state.axis is not None]
    sizes = _Sizes([*(node.type for node in kept), *(graph.type(value) for value in names)], slide)
    for node in kept:
        _copy(found, node, made, node.attributes, node.types)
    for value, name in names.items():
        type_ = Type(graph.type(value).dtype, tuple(sizes.of(dim) for dim in graph.type(value).dims))
        like = graph.node(value)
        made[value] = Value(found.add("input", (), {"name": name}, (type_,), name=name, span=like.span).id)
    for node in graph.nodes():
        if (
            node.id in needed
            and node.op != "input"
            and not all(Value(node.id, i) in made for i in range(len(node.types)))
        ):
            attributes = {key: sizes.within(each) for key, each in node.attributes.items()}
            types = tuple(Type(each.dtype, tuple(sizes.of(dim) for dim in each.dims)) for each in node.types)
            _copy(found, node, made, attributes, types)
    found.outputs = [(name, made[value]) for name, value in graph.outputs]
    symbols = names_of(dim for place in found.inputs for dim in found.node(place).type.dims)
    found.constraints = [each for each in graph.constraints if names_of((each.left, each.right)) <= symbols]
    return found


def _until(graph: Graph, ends: list[int], stops: set[Value]) -> set[int]:
    """What ends depend on, but not through values that are handed in."""
    found: set[int] = set()
    waiting = list(ends)
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        waiting += [value.node for value in graph.node(place).inputs if value is not None and value not in stops]
    return found


class _Sizes:
    """Sizes of the step in names that its inputs and states bind: one that is computed from others gets a name of its own."""

    def __init__(self, types: list[Type], slide: list[Size]):
        # How long a state that slides is, the state itself tells.
        dims = [*(dim for type_ in types for dim in type_.dims), *slide]
        self._known = {dim.name for dim in dims if isinstance(dim, Dim) and dim.name}
        self._renamed: dict[Dim, Size] = {}
        for type_ in types:
            for dim in type_.dims:
                if isinstance(dim, Dim) and dim.name is None and not dim.names() <= self._known:
                    self._renamed.setdefault(dim, symbol(self._fresh()))

    def _fresh(self) -> str:
        name, count = "memory", 2
        while name in self._known:
            name, count = f"memory_{count}", count + 1
        self._known.add(name)
        return name

    def of(self, size: Size) -> Size:
        for dim, name in self._renamed.items():
            if isinstance(size, Dim) and not size.names() <= self._known:
                size = rewrite(size, dim, name)
        if isinstance(size, Dim) and not size.names() <= self._known:
            names = ", ".join(sorted(size.names() - self._known))
            raise one(
                "T720", f"a step of decoding asks for the size {size}, and `{names}` is known to the encoder alone"
            )
        return size

    def within(self, value: Any) -> Any:
        """An attribute with its sizes in these names."""
        return with_sizes(value, self.of)


def _copy(
    found: Graph, node: Node, made: dict[Value, Value], attributes: Mapping[str, Any], types: tuple[Type, ...]
) -> None:
    twin = found.add(
        node.op,
        [None if value is None else made[value] for value in node.inputs],
        attributes,
        types,
        like=node,
        spelled=dict(node.spelled),
        labels=node.labels,
        bodies=tuple(body.copy() for body in node.bodies),
    )
    for index in range(len(node.types)):
        made[Value(node.id, index)] = Value(twin.id, index)
