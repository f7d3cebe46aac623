"""Numbers of what leaves a loop, in the model's names: `head / 2` of a block inside is `width // heads // 2` outside.

A decoder computes once a call what is the same in every layer, such as the angles of rotary positions. Passes move nodes and
know nothing of names; what was written for a node's settings is noted on it before (under the attribute `outside`, which is
this backend's own), so that the emitted model follows its constructor's arguments there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfdsl.backends.torch.handed_in import hand_in
from tfdsl.backends.torch.provenance import Provenance, is_plain
from tfdsl.backends.torch.structure import REFERENCES, Unit, build
from tfdsl.ir.dims import DimError, Size, substitute, symbol
from tfdsl.ir.graph import Frame, Graph, Node
from tfdsl.language.syntax import Expression

OUTSIDE = "outside"


@dataclass(frozen=True, eq=False)
class Written:
    """What is written for the settings of a node: expressions in `names`, and what those are in the model's names."""

    trees: Mapping[str, Expression]
    names: Mapping[str, Any]
    sizes: Mapping[str, Size]


def note(graph: Graph) -> None:
    """Note on the nodes in loops what is written for their settings."""
    graph.frame = graph.frame or Frame("", graph.name, {})
    units = _units(graph)
    hand_in(units)
    provenance = Provenance()
    sizes: dict[int, dict[str, Size]] = {}
    for unit in units:  # outer ones first
        sizes[id(unit)] = _sizes(unit, provenance, sizes)
        if unit.graph is not graph:
            for node in _nodes(unit):
                if node.id in unit.written:
                    node.attributes[OUTSIDE] = Written(unit.written[node.id], unit.names, sizes[id(unit)])


def _units(graph: Graph) -> list[Unit]:
    found, waiting = [], [build(graph)]
    while waiting:
        unit = waiting.pop(0)
        found.append(unit)
        for item in unit.items:
            if isinstance(item, Unit):
                waiting.append(item)
                continue
            for body in item.bodies:
                body.frame = body.frame or Frame(f"{item.attributes['path']}.*", body.name, {})
                waiting.append(build(body, unit, item))
    return found


def _sizes(unit: Unit, provenance: Provenance, known: Mapping[int, Mapping[str, Size]]) -> dict[str, Size]:
    """The whole numbers among a unit's names, in the names of the model."""
    if unit.outer is None:
        return {name: symbol(f".{name}") for name, value in unit.names.items() if is_plain(value)}
    outside = {f".{name}": size for name, size in known[id(unit.outer)].items()}
    found: dict[str, Size] = {}
    for name, size in provenance.binding(unit).items():
        try:
            found[name] = substitute(size, outside)
        except DimError:
            found[name] = unit.names[name]
    return found


def _nodes(unit: Unit) -> list[Node]:
    """The unit's own nodes, and the numbers that they read."""
    own = [item for item in unit.items if isinstance(item, Node)]
    read = [unit.graph.node(value) for item in own for value in item.inputs if value is not None]
    return [*own, *(node for node in read if node.op in REFERENCES)]
