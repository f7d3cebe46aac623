"""What targets ask of a graph before they lower it: named sizes fixed, and how wide its quantised weights are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tfdsl.backends.reference.inputs import holds
from tfdsl.ir.axes import with_sizes
from tfdsl.ir.dims import Dim, DimError, Size, names_of, substitute
from tfdsl.ir.graph import Graph, Node, Type
from tfdsl.language.diagnostics import did_you_mean, one


def fix_sizes(graph: Graph, dims: Mapping[str, int]) -> Graph:
    """A copy of a flat graph with named sizes fixed. Raises `SpecError` for names and numbers that cannot be."""
    check_names(graph, dims)
    for name, number in dims.items():
        if number < 1:
            raise one("T704", f"`{name}` cannot be {number}: a size is at least 1")
    for each in graph.constraints:
        names = names_of((each.left, each.right))
        if names <= dims.keys() and not holds(each, dims):
            message = f"`{each.left} {each.operator} {each.right}` does not hold with {_spell(dims, names)}"
            raise one("T706", message, each.span, note=each.why)
    fixed = graph.copy()
    for region in fixed.regions():
        for node in region.nodes():
            _fix(node, dims)
    return fixed


def check_names(graph: Graph, names: Iterable[str]) -> None:
    """Refuse a name that is no size of the model's inputs."""
    known = names_of(size for place in graph.inputs for size in graph.node(place).type.dims)
    for name in names:
        if name not in known:
            otherwise = f"its sizes are {', '.join(sorted(known))}" if known else "all its sizes are fixed"
            message = f"`{name}` is no size of the inputs of `{graph.name}`"
            raise one("T704", message, help=did_you_mean(name, known, otherwise))


def bits_by_path(graph: Graph) -> dict[str, int]:
    """The bits of each weight that is quantised, by path; asked before the weights are materialised."""
    found: dict[str, int] = {}
    for region, node in ((each, node) for each in graph.regions() for node in each.nodes()):
        if node.op == "quantize":
            source: Node = node
            while source.op != "weight":
                source = region.node(source.inputs[0])  # type: ignore[arg-type]
            found[source.attributes["path"]] = node.attributes["bits"]
    return found


def _fix(node: Node, dims: Mapping[str, int]) -> None:
    before = node.types

    def fixed(size: Dim) -> Size:
        return substitute(size, dims)

    try:
        node.types = tuple(Type(each.dtype, with_sizes(each.dims, fixed)) for each in before)
        node.attributes = {name: with_sizes(value, fixed) for name, value in node.attributes.items()}
    except DimError as error:
        raise one("T704", f"`{node.op}` cannot be had with {_spell(dims, dims)}: {error}", node.span) from None
    for old, new in zip(before, node.types, strict=True):
        for size, number in zip(old.dims, new.dims, strict=True):
            if isinstance(number, int) and number < 1:
                raise one("T704", f"`{size}` would be {number} with {_spell(dims, dims)}", node.span, note=node.op)


def _spell(dims: Mapping[str, int], names: Iterable[str]) -> str:
    return ", ".join(f"{name} = {dims[name]}" for name in sorted(names))
