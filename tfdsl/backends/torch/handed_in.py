"""Settings of layers that blocks hand to each other: the numbers in them travel along as names of the blocks between.

`param rotary = rope(base=theta)` of a model is applied in a block that knows no `theta`; that block gets it as a name
more, and so does every block on the way, so that what is emitted follows the model's parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tfdsl.backends.torch.arithmetic import NotPlain, spell
from tfdsl.backends.torch.structure import REFERENCES, Unit
from tfdsl.ir.graph import Elsewhere, Frame, Node, Spelling
from tfdsl.language import syntax

_HINTS = {"init": "spread"}  # what the number of an attribute is called


def hand_in(units: Iterable[Unit]) -> None:
    """Say in each unit's own names what was written for its settings and its nodes; units come outer ones first."""
    known: dict[tuple[int, int, int], syntax.Expression] = {}
    for unit in units:
        for name, spelling in unit.frame.spelled.items():
            tree = spelling if not isinstance(spelling, Elsewhere) else None
            if tree is None and unit.outer is not None:
                tree = _expression(unit.outer, spelling, name, known)
            if tree is not None:
                unit.spelled[name] = tree
        for node in _nodes(unit):
            if frame_of(unit, node) is unit.frame:
                spelled = node.spelled.items()
                found = {key: _expression(unit, each, _HINTS.get(key, key), known) for key, each in spelled}
                unit.written[node.id] = {key: tree for key, tree in found.items() if tree is not None}


def frame_of(unit: Unit, node: Node) -> Frame | None:
    """The names that a node's expressions are written in."""
    return node.scope[-1] if node.scope else unit.graph.frame


def _nodes(unit: Unit) -> Iterator[Node]:
    """The unit's own nodes, and the weights and numbers that they read."""
    for item in unit.items:
        if isinstance(item, Unit):
            continue
        yield item
        for value in item.inputs:
            if value is not None and unit.graph.node(value).op in REFERENCES:
                yield unit.graph.node(value)


def _expression(
    unit: Unit, spelling: Spelling, hint: str, known: dict[tuple[int, int, int], syntax.Expression]
) -> syntax.Expression | None:
    """What was written, in the names of a unit, which gets another name for it if need be; None if that cannot be."""
    if not isinstance(spelling, Elsewhere):
        return spelling
    tree = spelling.expression
    if isinstance(tree, syntax.ListOf):
        items = [_expression(unit, Elsewhere(each, spelling.frame), hint, known) for each in tree.items]
        return replace(tree, items=tuple(items)) if all(each is not None for each in items) else None  # type: ignore[arg-type]
    if _is_seen(unit, spelling.frame) or not any(isinstance(each, syntax.Path) for each in tree.walk()):
        return tree
    outside = _expression(unit.outer, spelling, hint, known) if unit.outer is not None else None
    if outside is None or unit.outer is None:
        return None
    if unit.is_turn:
        unit.names |= {name: value for name, value in unit.outer.names.items() if name not in unit.names}
        return outside
    key = (id(unit), id(tree), id(spelling.frame.names))
    if key not in known:
        try:
            value = spell(outside, unit.outer.names, str)[1]
        except NotPlain:
            return None
        known[key] = _new_name(unit, outside.text if isinstance(outside, syntax.Path) else hint, value, outside)
    return known[key]


def _is_seen(unit: Unit, frame: Frame) -> bool:
    """Whether the names of a frame hold in a unit: it is the unit's own, or that of what a loop stands in."""
    while unit.frame.names is not frame.names and unit.is_turn and unit.outer is not None:
        unit = unit.outer
    return unit.frame.names is frame.names


def _new_name(unit: Unit, wanted: str, value: object, written: syntax.Expression) -> syntax.Path:
    """A name more for a unit."""
    name = wanted
    while name in unit.names or name in unit.frame.arguments:
        name += "_"
    unit.names[name], unit.spelled[name] = value, written
    return syntax.Path((syntax.Name(name, span=written.span),), span=written.span)
