"""From a graph as a spec says it to one that lowers node by node, and how its weights are to lie in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfdsl.backends.reference.inputs import holds
from tfdsl.ir.dims import Dim, names_of, substitute
from tfdsl.ir.graph import Graph, Node, Type, Value
from tfdsl.language.diagnostics import did_you_mean, one
from tfdsl.passes.clean import clean
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll


def flat_graph(graph: Graph, dims: Mapping[str, int] | None) -> Graph:
    """The graph without loops, with causal masks only, at the given sizes, and without what is for training."""
    flat = unroll(graph)
    if dims:
        flat = fix_sizes(flat, dims)
    flat.penalties = []
    return clean(lower_masks(flat))[0]


def fix_sizes(graph: Graph, dims: Mapping[str, int]) -> Graph:
    """A copy of a flat graph with named sizes fixed. Raises `SpecError` for names and numbers that cannot be."""
    known = names_of(size for place in graph.inputs for size in graph.node(place).type.dims)
    for name in dims:
        if name not in known:
            otherwise = f"its sizes are {', '.join(sorted(known))}" if known else "all its sizes are fixed"
            message = f"`{name}` is no size of the inputs of `{graph.name}`"
            raise one("T704", message, help=did_you_mean(name, known, otherwise))
    for each in graph.constraints:
        names = names_of((each.left, each.right))
        if names <= dims.keys() and not holds(each, dims):
            bound = ", ".join(f"{name} = {dims[name]}" for name in sorted(names))
            message = f"`{each.left} {each.operator} {each.right}` does not hold with {bound}"
            raise one("T706", message, each.span, note=each.why)
    fixed = graph.copy()
    for node in fixed.nodes():
        node.types = tuple(Type(each.dtype, _bound(each.dims, dims)) for each in node.types)
        node.attributes = {name: _bound(value, dims) for name, value in node.attributes.items()}
    return fixed


def _bound(item: Any, dims: Mapping[str, int]) -> Any:
    """An attribute with the sizes in it fixed, at any depth of tuples and dictionaries."""
    if isinstance(item, Dim):
        return substitute(item, dims)
    if type(item) in (tuple, list):
        return tuple(_bound(each, dims) for each in item)
    if isinstance(item, dict):
        return {key: _bound(value, dims) for key, value in item.items()}
    return item


def widths(graph: Graph) -> dict[str, int]:
    """The bits of each weight that is quantised, by path."""
    found: dict[str, int] = {}
    for node in graph.nodes():
        if node.op == "quantize":
            source: Node = node
            while source.op != "weight":
                source = graph.node(source.inputs[0])  # type: ignore[arg-type]
            found[source.attributes["path"]] = node.attributes["bits"]
    return found


def layouts(graph: Graph) -> dict[str, str]:
    """The form in which to store each weight that is not to lie as it is.

    A weight [out, in] that products alone read is stored [in, out], as the operator wants it; one that is read
    otherwise too (a table tied to a head) stays as it is, since it must not be stored twice.
    """
    forms: dict[str, set[str]] = {}
    for node in graph.nodes():
        if node.op == "weight":
            forms.setdefault(node.attributes["path"], set()).add(_form(graph, node))
    return {path: form for path, (form, *others) in forms.items() if not others and form != "plain"}


def _form(graph: Graph, weight: Node) -> str:
    value = Value(weight.id)
    readers = {(user.op, place) for user, place in graph.users(value)}
    if readers == {("dequantize", 1)} and all(dim == 1 for dim in weight.type.dims[1:]):
        return "flat"
    return "transposed" if len(weight.type.dims) == 2 and _only_multiplied(graph, value) else "plain"


def _only_multiplied(graph: Graph, value: Value) -> bool:
    users = graph.users(value)
    return (
        bool(users)
        and not graph.is_result(value)
        and all(
            (user.op == "linear" and place == 1)
            or (user.op == "dequantize" and _only_multiplied(graph, Value(user.id)))
            for user, place in users
        )
    )
