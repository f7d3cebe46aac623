"""Where sizes come from: the shapes of a unit's values in the names of its block, not in numbers.

A graph knows that an axis is 768 long; that this is `heads * head` here and `width` there is found by running the shape
rules again over the names. The source that is emitted then follows its constructor's arguments. What cannot be told
stays a number. A name of the block stands as the symbol `.name`, apart from the sizes that run time knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdsl.backends.torch.structure import Unit
from tfdsl.ir import dims
from tfdsl.ir.dims import Dim, DimError, Size, symbol
from tfdsl.ir.graph import Node, Type, Value, fed
from tfdsl.ir.op import ShapeError
from tfdsl.ir.ops import OPS, infer
from tfdsl.language import syntax

Sizes = tuple[Size, ...]
_REFUSALS = (ShapeError, DimError, TypeError, AttributeError)
_APPLY: dict[str, Callable[[Any, Any], Size]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": dims.divide,
    "//": dims.floor,
    "%": dims.remainder,
    "**": lambda a, b: a**b,
}


@dataclass(eq=False)
class Origins:
    """The sizes of a unit's values, and of the weights that it reads, in the unit's names."""

    unit: Unit
    names: dict[str, Size]
    values: dict[Value, Sizes] = field(default_factory=dict)
    weights: dict[str, Sizes] = field(default_factory=dict)

    def known(self, size: Size) -> Size | None:
        """What a size comes to with the values that the names have; None where that is no size."""
        numbers = self.unit.names
        try:
            return dims.substitute(size, {f".{name}": value for name, value in numbers.items() if is_plain(value)})
        except DimError:
            return None

    def dims(self, value: Value) -> Sizes:
        """The shape of a value."""
        node = self.unit.graph.node(value)
        known = self.weights.get(node.attributes["path"]) if node.op == "weight" else self.values.get(value)
        return known or node.types[value.index].dims


def is_plain(value: object) -> bool:
    """Whether a value of the spec is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def plain_name(size: Size) -> str | None:
    """The name of the block that a size is."""
    name = size.name if isinstance(size, Dim) else None
    return name[1:] if name is not None and name.startswith(".") else None


def size_of(tree: syntax.Expression | syntax.Ellipsis_ | None, names: Mapping[str, Size]) -> Size | None:
    """An expression of the spec as a size over names; None where it is none."""
    try:
        return None if tree is None else _size(tree, names)
    except (DimError, TypeError, ZeroDivisionError):
        return None


def _size(tree: syntax.Tree, names: Mapping[str, Size]) -> Size:
    if isinstance(tree, syntax.Number) and is_plain(tree.value):
        return int(tree.value)
    if isinstance(tree, syntax.Path) and tree.text in names:
        return names[tree.text]
    if isinstance(tree, syntax.Binary) and tree.operator in _APPLY:
        return _APPLY[tree.operator](_size(tree.left, names), _size(tree.right, names))
    raise TypeError


class Provenance:
    """The sizes of all units, worked out as they are asked for."""

    def __init__(self) -> None:
        self._found: dict[int, Origins] = {}
        self._bindings: dict[int, dict[str, Size]] = {}

    def of(self, unit: Unit) -> Origins:
        """The sizes of a unit's values in its names."""
        if id(unit) not in self._found:
            origins = self._found[id(unit)] = Origins(unit, _symbols(unit.names))
            self._enter(origins)
            for item in unit.items:
                if isinstance(item, Unit):
                    self._apply(origins, item)
                else:
                    _run(origins, item)
        return self._found[id(unit)]

    def binding(self, unit: Unit) -> dict[str, Size]:
        """The whole numbers among a unit's names, in the names of the unit around it."""
        assert unit.outer is not None
        self.of(unit.outer)
        return self._bindings.get(id(unit)) or _bind(unit, self._found[id(unit.outer)])

    def _enter(self, origins: Origins) -> None:
        """The sizes of the inputs: as the signature declares them, or as they are around a loop."""
        unit = origins.unit
        if unit.is_turn and unit.outer is not None and unit.loop is not None:
            outer = self.of(unit.outer)
            for value, outside in zip(unit.inputs, fed(unit.loop), strict=True):
                origins.values[value] = _checked(origins, value, outer.dims(outside) if outside else ())
            return
        declared = {each.name.text: each for each in unit.frame.declaration.inputs} if unit.frame.declaration else {}
        for name, value in unit.frame.arguments.items():
            if name in declared and unit.graph and value.node in unit.graph:
                sizes = _extents(declared[name].type.extents, unit.graph.type(value).dims, origins.names)
                origins.values[value] = _checked(origins, value, sizes)

    def _apply(self, origins: Origins, unit: Unit) -> None:
        """The results of a unit inside."""
        binding = self._bindings[id(unit)] = _bind(unit, origins)
        inner = self.of(unit)
        outside = {f".{name}": size for name, size in binding.items()}
        declared = unit.frame.declaration.outputs if unit.frame.declaration else ()
        for value in unit.results:
            sizes = inner.dims(value)
            if len(declared) == 1 and len(unit.results) == 1:
                said = _extents(declared[0].type.extents, sizes, inner.names)
                sizes = tuple(a if isinstance(a, Dim) else b for a, b in zip(sizes, said, strict=True))
            origins.values[value] = _checked(origins, value, [_substitute(size, outside) for size in sizes])


def _symbols(names: Mapping[str, Any]) -> dict[str, Size]:
    """The names of a block as sizes: whole numbers as symbols, what run time knows as it is."""
    found = {name: symbol(f".{name}") if is_plain(value) else value for name, value in names.items()}
    return {name: size for name, size in found.items() if isinstance(size, Dim)}


def _substitute(size: Size, sizes: Mapping[str, Size]) -> Size:
    try:
        return dims.substitute(size, sizes)
    except DimError:
        return -1  # which is the size of nothing, so that the number is taken


def _checked(origins: Origins, value: Value, sizes: Sequence[Size]) -> Sizes:
    """Sizes where they come to what the graph says, and what the graph says elsewhere."""
    real = origins.unit.graph.type(value).dims
    if len(sizes) != len(real):
        return real
    return tuple(size if origins.known(size) == known else known for size, known in zip(sizes, real, strict=True))


def _extents(extents: Sequence[Any], real: Sizes, names: Mapping[str, Size]) -> Sizes:
    """The sizes that a signature declares for a tensor; those that `...` stands for are the tensor's own."""
    found: list[Size] = []
    open_ = next((at for at, each in enumerate(extents) if isinstance(each, syntax.Ellipsis_)), None)
    rest = len(real) - len(extents) + 1 if open_ is not None else 0
    for at, extent in enumerate(extents):
        if at == open_:
            found += real[at : at + rest]
        else:
            size = size_of(extent, names)
            found.append(size if size is not None else -1)
    return tuple(found) if len(found) == len(real) else real


def _bind(unit: Unit, outer: Origins) -> dict[str, Size]:
    """The names of a unit in those of the unit around it: bound by its inputs, given, or left at their defaults."""
    frame = unit.frame
    found: dict[str, Size] = {}
    if not unit.is_turn:
        _bind_inputs(unit, outer, found)
    for name, value in unit.names.items():
        if not is_plain(value) or name in found:
            continue
        candidates = [size_of(unit.spelled.get(name), outer.names), size_of(frame.defaults.get(name), found)]
        if unit.is_turn:
            candidates = [outer.names.get(name)]
        found[name] = next((each for each in candidates if each is not None and outer.known(each) == value), value)
    return found


def _bind_inputs(unit: Unit, outer: Origins, found: dict[str, Size]) -> None:
    frame = unit.frame
    for declared in frame.declaration.inputs if frame.declaration else ():
        value = frame.arguments.get(declared.name.text)
        if value is not None and unit.loop is not None:
            value = fed(unit.loop)[unit.inputs.index(value)] if value in unit.inputs else None
        if value is None or value.node not in outer.unit.graph:
            continue
        extents, sizes = declared.type.extents, outer.dims(value)
        if any(isinstance(each, syntax.Ellipsis_) for each in extents):
            at = next(i for i, each in enumerate(extents) if isinstance(each, syntax.Ellipsis_))
            sizes = (*sizes[:at], 0, *sizes[len(sizes) - (len(extents) - at - 1) :])
        for extent, size in zip(extents, sizes, strict=False):
            name = extent.text if isinstance(extent, syntax.Path) else ""
            if is_plain(frame.names.get(name)) and outer.known(size) == frame.names[name]:
                found.setdefault(name, size)


# --- nodes -----------------------------------------------------------------------------------------------------------


def _run(origins: Origins, node: Node) -> None:
    """Enter the sizes of a node's results, and of the weights that come into being with it."""
    graph = origins.unit.graph
    if node.op in ("repeat", "scan"):
        found: list[Sizes] = [origins.dims(value) if value else () for value in node.inputs[: len(node.types)]]
    elif node.op == "route":
        found = [origins.dims(node.inputs[0])] if node.inputs[0] else []
    else:
        attributes = _attributes(origins, node)
        _enter_weights(origins, node, attributes)
        found = _results(origins, node, attributes)
    for index, sizes in enumerate(found):
        origins.values[Value(node.id, index)] = _checked(origins, Value(node.id, index), sizes)
    for value in node.inputs:
        if value is not None and graph.node(value).op == "weight":
            _enter_shape(origins, graph.node(value))


def _attributes(origins: Origins, node: Node) -> dict[str, Any]:
    """The attributes of a node, with sizes in names where they were written so."""
    attributes, written = dict(node.attributes), origins.unit.written.get(node.id, {})
    for key in written:
        if key in attributes:
            attributes[key] = _said(origins, written[key], attributes[key])
    if node.op == "rearrange":
        given = dict(node.attributes.get("sizes") or ())
        attributes["sizes"] = tuple((n, _said(origins, written.get(n), size)) for n, size in given.items())
    return attributes


def _said(origins: Origins, tree: syntax.Expression | None, value: Any) -> Any:
    """An attribute's value as its expression says it, if that comes to the value."""
    if isinstance(value, tuple) and isinstance(tree, syntax.ListOf) and len(value) == len(tree.items):
        return tuple(_said(origins, item, each) for item, each in zip(tree.items, value, strict=True))
    if not is_plain(value):
        return value
    size = size_of(tree, origins.names)
    return size if size is not None and origins.known(size) == value else value


def _enter_weights(origins: Origins, node: Node, attributes: dict[str, Any]) -> None:
    """The shapes of the weights that an op brings along, by its rule."""
    record, graph = OPS[node.op], origins.unit.graph
    if record.weights is None:
        return
    types = [None if v is None else Type(graph.type(v).dtype, origins.dims(v)) for v in node.inputs]
    try:
        shapes = record.weights(types, record.fill(attributes))
    except _REFUSALS:
        return
    for operand, value in zip(record.operands, node.inputs, strict=False):
        if operand.name in shapes and value is not None and graph.node(value).op == "weight":
            _enter_weight(origins, graph.node(value), shapes[operand.name][0])


def _enter_weight(origins: Origins, weight: Node, sizes: Sequence[Any]) -> None:
    if len(sizes) == len(weight.type.dims) and all(isinstance(size, (int, Dim)) for size in sizes):
        origins.weights.setdefault(weight.attributes["path"], _checked(origins, Value(weight.id), sizes))


def _enter_shape(origins: Origins, weight: Node) -> None:
    """The shape of a weight that was written out."""
    written = origins.unit.expression(weight, "shape")
    if written is not None:
        _enter_weight(origins, weight, _said(origins, written, weight.type.dims))


def _results(origins: Origins, node: Node, attributes: dict[str, Any]) -> list[Sizes]:
    """The results' sizes by the op's rule; where it asks for numbers, those of the operands that they equal."""
    graph = origins.unit.graph
    types = [None if value is None else Type(graph.type(value).dtype, origins.dims(value)) for value in node.inputs]
    try:
        found = [each.dims for each in infer(node.op, types, attributes)]
    except _REFUSALS:
        found = []
    real = [each.dims for each in node.types]
    if [tuple(map(origins.known, sizes)) for sizes in found] == real:
        return found
    return [_alike(origins, node, sizes) for sizes in real]


def _alike(origins: Origins, node: Node, real: Sizes) -> Sizes:
    found: list[Size] = []
    for axis, size in enumerate(real):
        candidates = [origins.dims(value) for value in node.inputs if value is not None]
        same = [sizes[axis] for sizes in candidates if len(sizes) == len(real) and origins.known(sizes[axis]) == size]
        found.append(same[0] if same else size)
    return tuple(found)
