"""What makes a node legal, as one table of rules.

The rules of a node are tried in the order of the table, and each may rely on those before it: a node that breaks one is
not held against the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfdsl.ir import masks
from tfdsl.ir.dims import Dim, DimError, Size, names_of
from tfdsl.ir.graph import Graph, Initializer, Loop, Node, Type, Value, fed, own_loops
from tfdsl.ir.op import ShapeError
from tfdsl.ir.ops import OPS, infer
from tfdsl.ir.rows import Mixes, check_rows
from tfdsl.ir.states import STATEFUL

_DTYPES = ("float", "int", "bool")
Box = tuple[tuple[int, ...], ...]
Faults = Iterator[str]


@dataclass
class Inspected:
    """A region under inspection.

    `loops` has the loops around it with their turns, `symbols` the sizes that the model's inputs bind, and `weights`
    and `states` what was seen of them so far, in all regions.
    """

    graph: Graph
    loops: tuple[Loop, ...]
    symbols: set[str]
    weights: dict[str, list[tuple[Box, Type, Initializer | None]]]
    states: dict[str, list[Box]]


@dataclass(frozen=True)
class Rule:
    """What must hold, in one sentence, and the check."""

    summary: str
    check: Callable[[Inspected, Node], Faults]


def exists(graph: Graph, value: Value) -> bool:
    """Whether a value is a result of a node of the graph."""
    return value.node in graph and 0 <= value.index < len(graph.node(value).types)


def _known_op(region: Inspected, node: Node) -> Faults:
    if node.op not in OPS:
        yield "there is no such op"


def _operand_count(region: Inspected, node: Node) -> Faults:
    operands = OPS[node.op].operands
    variadic = bool(operands) and operands[-1].variadic
    plain = operands[:-1] if variadic else operands
    if len(node.inputs) < len(plain) or (len(node.inputs) > len(plain) and not variadic):
        yield f"it has {len(node.inputs)} inputs, and its record has {len(operands)} operands"
        return
    for place, value in enumerate(node.inputs):
        operand = operands[min(place, len(operands) - 1)]
        if value is None and not operand.optional:
            yield f"its `{operand.name}` is missing"
    if node.op in ("einsum", "concat") and not node.inputs:
        yield "it has no inputs"


def _operand_dtypes(region: Inspected, node: Node) -> Faults:
    operands = OPS[node.op].operands
    kinds: dict[str, str] = {}
    for place, value in enumerate(node.inputs):
        operand = operands[min(place, len(operands) - 1)]
        if value is None:
            continue
        dtype = region.graph.type(value).dtype
        kinds[operand.name] = dtype
        fits = dtype != "bool" if operand.dtype == "number" else operand.dtype in ("any", dtype)
        if not fits:
            yield f"its `{operand.name}` is {dtype}, and the record says {operand.dtype}"
    if {"a", "b"} <= kinds.keys() and kinds["a"] != kinds["b"]:
        yield f"its operands are {kinds['a']} and {kinds['b']}, and must be of one element type"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return _is_int(value) or isinstance(value, Dim)


def _is_names(value: Any) -> bool:
    items = value.items() if isinstance(value, Mapping) else value
    return isinstance(value, (Mapping, tuple)) and all(isinstance(name, str) and _is_size(size) for name, size in items)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "size": _is_size,
    "sizes": lambda value: isinstance(value, tuple) and all(map(_is_size, value)),
    "int": _is_int,
    "axis": _is_int,
    "ints": lambda value: _is_int(value) or (isinstance(value, tuple) and all(map(_is_int, value))),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "numbers": lambda value: isinstance(value, tuple),  # its shape rule looks at the rest
    "bool": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "mask": lambda value: isinstance(value, (masks.Term, masks.Joined, masks.Negated)),
    "initializer": lambda value: isinstance(value, Initializer),
    "names": _is_names,
    "value": lambda value: isinstance(value, (bool, int, float, Dim)),
}

# Settings that the weights of a layer tell as well: they may be left out, and must agree where they are given.
_TOLD: dict[str, dict[str, int]] = {"linear": {"out": 0}, "embedding": {"size": 0, "dim": 1}}


def _attributes(region: Inspected, node: Node) -> Faults:
    record = OPS[node.op]
    for name, value in node.attributes.items():
        attribute = record.attribute(name)
        if attribute is None:
            yield f"its record has no attribute `{name}`"
        elif value is None:
            if attribute.required or attribute.default is not None:
                yield f"its `{name}` is none"
        elif not _KINDS[attribute.kind](value):
            yield f"its `{name}` is {value!r}, and no {attribute.kind}"
    for attribute in record.attributes:
        if (
            attribute.required
            and attribute.name not in node.attributes
            and attribute.name not in _TOLD.get(node.op, {})
        ):
            yield f"its attribute `{attribute.name}` is missing"
    for key in node.spelled:
        names = dict(node.attributes.get("sizes") or ()) if node.op == "rearrange" else {}
        if record.attribute(key) is None and key not in names:
            yield f"`{key}` has a source expression and is no attribute"


def _agrees_with_weight(region: Inspected, node: Node) -> Faults:
    for name, axis in _TOLD.get(node.op, {}).items():
        weight = node.inputs[1]
        dims = region.graph.type(weight).dims if weight is not None else ()
        if name in node.attributes and axis < len(dims) and node.attributes[name] != dims[axis]:
            yield f"its `{name}` is {node.attributes[name]}, and its weight is {dims}"


def _axes(region: Inspected, node: Node) -> Faults:
    first = node.inputs[0] if node.inputs else None
    if first is None:
        return
    rank = len(region.graph.type(first).dims)
    for attribute in OPS[node.op].attributes:
        if attribute.kind == "axis":
            axis = node.attributes.get(attribute.name, attribute.default)
            if not 0 <= axis < rank:
                yield f"its `{attribute.name}` is {axis}, and its operand has {rank} axes, counted from 0"


def _mask_operands(region: Inspected, node: Node) -> Faults:
    mask = node.attributes.get("mask")
    if node.op == "attend":
        needed = {term.operand for term in masks.terms(mask) if term.operand is not None} if mask is not None else set()
        given = len(node.inputs) - 6
        if needed != set(range(given)):
            yield f"its mask reads the operands {sorted(needed)}, and there are {given}"


def _sizes(region: Inspected, node: Node) -> Faults:
    for type_ in node.types:
        if type_.dtype not in _DTYPES:
            yield f"`{type_.dtype}` is no element type"
        for dim in type_.dims:
            if not _is_size(dim):
                yield f"an axis is {dim!r}, and no size"
            elif isinstance(dim, int) and dim < 1:
                yield f"an axis of {dim}"
    values = [dim for type_ in node.types for dim in type_.dims]
    for value in node.attributes.values():
        values += _flat(value)
    unbound = names_of(values) - region.symbols
    if unbound:
        yield f"no input of the model binds the size `{min(unbound)}`"


def _flat(value: Any) -> list[Any]:
    """The sizes in an attribute's value."""
    if isinstance(value, Mapping):
        return _flat(tuple(value.values()))
    if isinstance(value, tuple):
        return [size for each in value for size in _flat(each)]
    return [value] if isinstance(value, Dim) else []


def _types(region: Inspected, node: Node) -> Faults:
    if node.op in ("input", "repeat", "route", "scan"):
        if node.op == "input" and len(node.types) != 1:
            yield f"an input has one type, not {len(node.types)}"
        return
    given = [None if value is None else region.graph.type(value) for value in node.inputs]
    try:
        wanted = infer(node.op, given, node.attributes)
    except (ShapeError, DimError) as error:
        yield str(error)
        return
    if node.op == "weight" and node.types == (Type("int", wanted[0].dims),):
        return  # a weight that is stored as whole numbers
    if tuple(node.types) != tuple(wanted):
        yield f"its results are {_show(node.types)}, and its rule infers {_show(wanted)}"


def _show(types: tuple[Type, ...]) -> str:
    return ", ".join(map(str, types)) or "none"


def _constant(region: Inspected, node: Node) -> Faults:
    if node.op == "constant":
        value, dtype = node.attributes["value"], node.attributes["dtype"]
        fits = {
            "bool": isinstance(value, bool),
            "int": _is_size(value),
            "float": isinstance(value, float) or _is_size(value),
        }
        if not fits.get(dtype, False):
            yield f"{value!r} is no {dtype}"


def _meet(box: Box, other: Box) -> bool:
    """Whether some turn of the loops is in both."""
    return all(set(mine) & set(theirs) for mine, theirs in zip(box, other, strict=True))


def _weight(region: Inspected, node: Node) -> Faults:
    if node.op != "weight":
        return
    path, init = node.attributes.get("path"), node.attributes.get("init")
    if not isinstance(path, str) or not all(path.split(".")):
        yield f"its path is {path!r}"
        return
    stars = path.count("*")
    own = own_loops(path, region.loops)
    if stars != len(own):
        yield f"its path `{path}` names {stars} loop indices, and lies below {len(own)} of the loops around it"
        return
    box = tuple(loop.turns for loop in own)
    for other, type_, other_init in region.weights.get(path, []):
        meet = _meet(box, other)
        if meet and type_ != node.type:
            yield f"the weight `{path}` is {type_} in one place and {node.type} in another"
        elif meet and other_init != init:
            yield f"the weight `{path}` begins as {other_init} in one place and as {init} in another"
    region.weights.setdefault(path, []).append((box, node.type, init))


def _state(region: Inspected, node: Node) -> Faults:
    if node.op not in STATEFUL:
        return
    path = node.attributes.get("path")
    if not isinstance(path, str) or not all(path.split(".")):
        yield f"its path is {path!r}"
        return
    if path.count("*") != len(region.loops) or own_loops(path, region.loops) != region.loops:
        yield f"its path `{path}` does not name the index of each of the {len(region.loops)} loops around it"
        return
    box = tuple(loop.turns for loop in region.loops)
    if any(_meet(box, other) for other in region.states.get(path, [])):
        yield f"the state `{path}` belongs to another node"
    region.states.setdefault(path, []).append(box)


def _loop(region: Inspected, node: Node) -> Faults:
    if node.op != "repeat":
        if node.bodies and node.op not in ("route", "scan"):
            yield "it has bodies, and is no loop"
        return
    turns, carried = node.attributes["turns"], node.attributes["carried"]
    checkpoint = node.attributes.get("checkpoint")
    if any(not 0 <= turn < len(node.bodies) for turn in turns):
        yield f"its turns name the bodies {sorted(set(turns))}, and it has {len(node.bodies)}"
        return
    if not 0 <= carried <= len(node.inputs):
        yield f"it carries {carried} of {len(node.inputs)} inputs"
        return
    if checkpoint is not None and checkpoint < 1:
        yield f"it recomputes groups of {checkpoint} turns"
    types = [region.graph.type(value) for value in node.inputs if value is not None]
    if len(node.types) != carried:
        yield f"it carries {_show(tuple(types[:carried]))}, and its results are {_show(node.types)}"
        return
    checked: set[tuple[int, tuple[Type, ...]]] = set()
    for variant in turns:
        if (variant, tuple(types)) in checked:
            continue
        checked.add((variant, tuple(types)))
        faults = list(_body(variant, node.bodies[variant], types, carried))
        yield from faults
        if faults:
            return
        types[:carried] = [node.bodies[variant].type(value) for _, value in node.bodies[variant].outputs]
    if tuple(types[:carried]) != tuple(node.types):
        yield f"it carries {_show(tuple(types[:carried]))}, and its results are {_show(node.types)}"


def _body(variant: int, body: Graph, types: list[Type], carried: int) -> Faults:
    """A body takes what comes to it, and gives as many results of the same element types."""
    inputs = [body.node(place).types[0] for place in body.inputs if place in body]
    if inputs != types:
        yield f"body {variant} takes {_show(tuple(inputs))}, and the loop gives it {_show(tuple(types))}"
    outputs = [body.type(value) for _, value in body.outputs if exists(body, value)]
    if [each.dtype for each in outputs] != [each.dtype for each in types[:carried]]:
        yield f"body {variant} gives {_show(tuple(outputs))}, and the loop carries {_show(tuple(types[:carried]))}"


def _experts(region: Inspected, node: Node) -> Faults:
    if node.op != "route":
        return
    turns = node.attributes["turns"]
    if len(node.bodies) != 1 or not turns or any(turns):
        yield f"it has {len(turns)} experts of {len(node.bodies)} kinds"
        return
    body = node.bodies[0]
    x, chosen, weight, *_ = (region.graph.type(value) for value in node.inputs if value is not None)
    if len(x.dims) != 2 or chosen.dims != weight.dims or len(chosen.dims) != 2 or chosen.dims[0] != x.dims[0]:
        yield f"its rows, choices and weights are {_show((x, chosen, weight))}"
        return
    types = [region.graph.type(value) for value in fed(node) if value is not None]
    inputs = [body.node(place).types[0] for place in body.inputs if place in body]
    outputs = tuple(body.type(value) for _, value in body.outputs if exists(body, value))
    if inputs != types:
        yield f"its expert takes {_show(tuple(inputs))}, and it gives {_show(tuple(types))}"
    elif outputs != node.types or len(outputs) != 1:
        yield f"its expert gives {_show(outputs)}, and its result is {_show(node.types)}"
    elif any(each.penalties for each in body.regions()):
        yield "its expert has penalties"
    else:
        yield from _independent(body, x.dims[0])


def _recurrence(region: Inspected, node: Node) -> Faults:
    if node.op != "scan":
        return
    carried, scanned, axis = (node.attributes[name] for name in ("carried", "scanned", "axis"))
    types = [region.graph.type(value) for value in node.inputs if value is not None]
    along = types[carried : carried + scanned]
    if len(node.bodies) != 1 or node.attributes["turns"] != (0,) or carried < 1 or scanned < 1:
        yield f"it has {len(node.bodies)} steps, carries {carried} states and goes through {scanned} tensors"
        return
    if len(along) != scanned or any(len(each.dims) <= axis for each in along):
        yield f"it goes along axis {axis} of {_show(tuple(along))}"
        return
    length = along[0].dims[axis]
    if any(each.dims[axis] != length for each in along):
        yield f"it goes along {_show(tuple(along))}, which differ in length"
        return
    body = node.bodies[0]
    slices = [Type(each.dtype, (*each.dims[:axis], *each.dims[axis + 1 :])) for each in along]
    wanted = [*types[:carried], *slices, *types[carried + scanned :]]
    inputs = [body.node(place).types[0] for place in body.inputs if place in body]
    outputs = [body.type(value) for _, value in body.outputs if exists(body, value)]
    rows = [Type(each.dtype, (*each.dims[:axis], length, *each.dims[axis:])) for each in outputs[carried:]]
    if inputs != wanted:
        yield f"its step takes {_show(tuple(inputs))}, and it gives {_show(tuple(wanted))}"
    elif outputs[:carried] != types[:carried]:
        yield f"its step gives {_show(tuple(outputs))}, and it carries {_show(tuple(types[:carried]))}"
    elif (*types[:carried], *rows) != tuple(node.types):
        yield f"its step gives {_show(tuple(outputs))}, and its results are {_show(node.types)}"
    elif any(each.penalties for each in body.regions()):
        yield "its step has penalties"


def _independent(body: Graph, rows: Size) -> Faults:
    try:
        axes = check_rows(body, [0, *(None for _ in body.inputs[1:])], rows)
    except Mixes as mixes:
        yield f"the rows of its expert meet in `{mixes.node.op}`"
        return
    if axes != (0,):
        yield "its expert makes rows of something else"


NODE_RULES: tuple[Rule, ...] = (
    Rule("an op is one of the table", _known_op),
    Rule("every operand that the record needs is there, and no more", _operand_count),
    Rule("operands have the element types that the record says", _operand_dtypes),
    Rule("attributes are those of the record, each of its kind", _attributes),
    Rule("what a layer says of its weight is so", _agrees_with_weight),
    Rule("an axis is one of the first operand's, counted from the first", _axes),
    Rule("an attention has the operands that its mask reads", _mask_operands),
    Rule("a constant is of its element type", _constant),
    Rule("sizes are above zero, and their names are bound by the model's inputs", _sizes),
    Rule("results have the types that the op's rule infers", _types),
    Rule("a state has one node, and a `*` in its path for each loop around it", _state),
    Rule("a weight has one shape and one beginning, and no more `*` in its path than loops around it", _weight),
    Rule("a loop's turns, bodies, inputs and results agree", _loop),
    Rule("a recurrence's step takes and gives what it is said to", _recurrence),
    Rule("experts agree with what is routed to them, and treat each row by itself", _experts),
)
