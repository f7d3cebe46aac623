"""Whether a graph is legal: tables of rules, run on what elaboration makes and after every pass.

A rule yields what is wrong, in words. Those of a region come first (`REGION_RULES`, here), then those of its nodes
(`NODE_RULES`, in `node_rules.py`), tried in the order of their table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tfdsl.ir.dims import Dim, Size, names_of
from tfdsl.ir.graph import CycleError, Graph, Loop, Node, Type, turns_of
from tfdsl.ir.node_rules import NODE_RULES, Faults, Inspected, exists
from tfdsl.language.diagnostics import Collector, Diagnostic

_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")


@dataclass(frozen=True)
class RegionRule:
    """What must hold of a region as a whole."""

    summary: str
    check: Callable[[Inspected], Faults]


def verify(graph: Graph, after: str = "") -> None:
    """Raise `SpecError` (T609) with every rule that the graph breaks; `after` names the pass that made it."""
    faults = Collector()
    dims = [dim for node in graph.inputs if node in graph for type in graph.node(node).types for dim in type.dims]
    dims += _state_sizes(graph)
    symbols = {dim.name for dim in dims if isinstance(dim, Dim) and dim.name is not None}
    for text, node, rule in _broken(Inspected(graph, (), symbols, {}, {})):
        where = f"`{node.op}` called `{node.name or node.op}`: " if node is not None else ""
        blame = f"the pass `{after}` has left a graph that is not legal: " if after else "the graph is not legal: "
        span = node.span if node is not None else None
        help_ = "this is a fault of the compiler, not of the spec"
        faults.add(Diagnostic("T609", f"{blame}{where}{text}", span, note=f"the rule: {rule}", help=help_))
    faults.check()


def _state_sizes(graph: Graph) -> list[Size]:
    """The sizes of the states in a region and those inside it, which may have names of their own."""
    found: list[Size] = []
    for node in graph.unordered():
        if node.op == "append":
            found.append(node.attributes.get("size", 0))
        for body in node.bodies:
            found += _state_sizes(body)
    return found


def _broken(region: Inspected) -> Iterator[tuple[str, Node | None, str]]:
    """Each fault of a region and those inside it, with its node and the rule it breaks."""
    for whole in REGION_RULES:
        texts = list(whole.check(region))
        yield from ((text, None, whole.summary) for text in texts)
        if texts:
            return  # what comes next relies on this
    for node in region.graph.nodes():
        for rule in NODE_RULES:
            texts = list(rule.check(region, node))
            for text in texts:
                yield text, node, rule.summary
            if texts:
                break
        else:
            for variant, body in enumerate(node.bodies):
                loops = (*region.loops, Loop(str(node.attributes.get("path")), turns_of(node, variant)))
                yield from _broken(Inspected(body, loops, region.symbols, region.weights, region.states))


def _reads_known(region: Inspected) -> Faults:
    graph = region.graph
    for node in graph.unordered():
        for value in node.inputs:
            if value is not None and not exists(graph, value):
                reader = f"`{node.op}` called `{node.name or node.op}`"
                yield f"{reader} reads result {value.index} of node {value.node}, which is not there"


def _edges(region: Inspected) -> Faults:
    recorded = region.graph.operands()
    for node in region.graph.unordered():
        edges = recorded[node.id]
        inputs = {place: tuple(value) for place, value in enumerate(node.inputs) if value is not None}
        if edges != inputs:
            yield f"the edges into `{node.op}` called `{node.name or node.op}` are {edges}, and its inputs {inputs}"


def _acyclic(region: Inspected) -> Faults:
    try:
        region.graph.nodes()
    except CycleError:
        import networkx  # see `Graph.network`

        cycle = networkx.find_cycle(region.graph.network())
        yield "nodes depend on themselves: " + " -> ".join(region.graph.node(edge[0]).op for edge in cycle)


def _inputs(region: Inspected) -> Faults:
    graph = region.graph
    nodes = sorted(node.id for node in graph.unordered() if node.op == "input")
    if nodes != sorted(graph.inputs):
        yield f"the inputs are listed as {graph.inputs}, and the `input` nodes are {nodes}"
    elif not region.loops:
        names = [graph.node(node).attributes.get("name") for node in graph.inputs]
        for name in sorted({str(name) for name in names if names.count(name) > 1}):
            yield f"two inputs are called `{name}`"


def _results(region: Inspected) -> Faults:
    graph = region.graph
    for name, value in (*graph.outputs, *graph.penalties):
        if not exists(graph, value):
            yield f"`{name}` is result {value.index} of node {value.node}, which is not there"
    names = [name for name, _ in graph.outputs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two outputs are called `{name}`"


def _penalties(region: Inspected) -> Faults:
    for name, value in region.graph.penalties:
        if exists(region.graph, value) and region.graph.type(value) != Type("float", ()):
            yield f"the penalty `{name}` is {region.graph.type(value)}, and a penalty is one float"


def _constraints(region: Inspected) -> Faults:
    for each in region.graph.constraints:
        if each.operator not in _COMPARISONS:
            yield f"`{each.operator}` is no comparison"
        unbound = names_of((each.left, each.right)) - region.symbols
        if unbound:
            yield f"`{each.left} {each.operator} {each.right}` names `{min(unbound)}`, which no input binds"


REGION_RULES: tuple[RegionRule, ...] = (
    RegionRule("a node reads results of nodes of its region", _reads_known),
    RegionRule("who reads a node, by the book of its graph, are those whose inputs say so", _edges),
    RegionRule("no node depends on itself", _acyclic),
    RegionRule(
        "the inputs of a region are its `input` nodes, each once, those of a model under names of their own", _inputs
    ),
    RegionRule("outputs and penalties are results of nodes of the region, outputs under names of their own", _results),
    RegionRule("a penalty is one float", _penalties),
    RegionRule("a constraint compares sizes that the model's inputs bind", _constraints),
)
