"""What a decoder computes once: the encoder, and the keys and values of attention to it.

In the method that needs such values they stand under `if self.kept.values is None`, in the first call after a reset.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tfdsl.backends.torch.sights import MASK, POSITIONS
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.dims import names_of
from tfdsl.ir.graph import Graph, Node, Value, changing, fed
from tfdsl.ir.states import STATEFUL

if TYPE_CHECKING:
    from tfdsl.backends.torch.forward import Forward

Item = Node | Unit
NEVER, ONCE, EACH = 0, 1, 2  # of constants; once for what goes in once; at each call


def timing(graph: Graph) -> dict[int, dict[int, int]]:
    """For each region, by identity, when its nodes are computed."""
    step = {
        name
        for place in graph.inputs
        if graph.node(place).attributes["name"] in (MASK, POSITIONS)
        for name in names_of(graph.node(place).type.dims[1:])
    }
    found: dict[int, dict[int, int]] = {}
    inputs = [EACH if _names(graph.node(place)) & step else ONCE for place in graph.inputs]
    _time(graph, inputs, step, found)
    return found


def _time(region: Graph, inputs: list[int], step: set[str], found: dict[int, dict[int, int]]) -> None:
    times = found[id(region)] = dict(zip(region.inputs, inputs, strict=True))
    for node in region.nodes():
        if node.op != "input":
            read = [times[value.node] for value in node.inputs if value is not None]
            own = EACH if node.op in STATEFUL or _names(node) & step or _each_inside(node, step) else NEVER
            times[node.id] = max([own, *read])
        for body in node.bodies:
            given = [NEVER if value is None else times[value.node] for value in fed(node)]
            _time(
                body,
                [max(each, times[node.id]) for each in given[: changing(node)]] + given[changing(node) :],
                step,
                found,
            )


def _names(node: Node) -> set[str]:
    return names_of(dim for type_ in node.types for dim in type_.dims)


def _each_inside(node: Node, step: set[str]) -> bool:
    """Whether something in a loop is for each call, whatever it is given."""
    inner = [each for body in node.bodies for region in body.regions() for each in region.nodes() if each.op != "input"]
    return any(each.op in STATEFUL or _names(each) & step for each in inner)


def write_items(forward: Forward) -> None:
    """The statements of a unit's items; those that are computed once stand first, where their results can be kept."""
    before, once, after = _sorted(forward)
    crossing = _crossing(forward.unit, once, after)
    if not crossing or not _may_keep(forward):
        forward.write_items(forward.unit.items)
        return
    forward.write_items(before)
    kept = f"self.{forward.program.kept(forward.unit.path)}.values"
    forward.line(f"if {kept} is None:")
    positions, locals_, indent = dict(forward.positions), dict(forward.locals), forward.indent
    forward.indent += "    "
    forward.write_items(once)
    for value in crossing:
        forward.settle(value)
    names = ", ".join(forward.code(value).text for value in crossing)
    forward.line(f"{kept} = {names}")
    forward.indent, forward.positions, forward.locals = indent, positions, locals_
    forward.line(f"{names} = {kept}")
    forward.write_items(after)


def _may_keep(forward: Forward) -> bool:
    """Whether the module is one application alone: what it keeps is then for no other."""
    unit = forward.unit
    loops, outer = 0, unit if unit.is_region else unit.outer
    while outer is not None:
        loops += outer.loop is not None and outer.is_region
        outer = outer.outer
    alone = forward.program.applications(unit.path) == 1
    return forward.draft.scope.path == unit.path and unit.path.count("*") == loops and alone


def _sorted(forward: Forward) -> tuple[list[Item], list[Item], list[Item]]:
    """The items that those which are computed once need, these themselves, and all others."""
    times = forward.program.times[id(forward.graph)]
    once = [item for item in forward.unit.items if _when(item, times) == ONCE]
    needed = {value.node for item in once for value in item.inputs if value is not None}
    before: list[Item] = []
    for item in reversed(forward.unit.items):
        if _when(item, times) == NEVER and needed & _ids(item):
            before.insert(0, item)
            needed |= {value.node for value in item.inputs if value is not None}
    taken = {id(item) for item in (*before, *once)}
    return before, once, [item for item in forward.unit.items if id(item) not in taken]


def _when(item: Item, times: dict[int, int]) -> int:
    nodes = [item] if isinstance(item, Node) else item.nodes()
    found = {times[node.id] for node in nodes}
    return max(found)


def _ids(item: Item) -> set[int]:
    return {item.id} if isinstance(item, Node) else {node.id for node in item.nodes()}


def _crossing(unit: Unit, once: Iterable[Item], after: Iterable[Item]) -> list[Value]:
    """What is computed once and read at each call."""
    made = {node for item in once for node in _ids(item)}
    read = [value for item in after for value in item.inputs if value is not None and value.node in made]
    if not read:
        return []
    return list(dict.fromkeys([*read, *(value for value in unit.results if value.node in made)]))
