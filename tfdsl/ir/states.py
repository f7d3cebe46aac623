"""What decoding remembers from one call to the next: the states of a graph, each under a path as weights are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Loop, Node, Type, all_paths, turns_of
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import Span

STATEFUL = ("append", "running_attend", "running_sum", "recall")  # they read a state; all but `recall` replace it, too
WITH_PATH = (*STATEFUL, "remember")


@dataclass(frozen=True)
class State:
    """A state that is read and replaced at each call.

    `path` has a `*` for each index of the loops around the node, outermost first; `paths` are all that it stands for.
    `type` is what is read, before the call; `axis` is the axis along which it grows or slides, None for a state that
    keeps its shape; `fill` is how many positions there are on that axis before the first call, all zeros (a state without
    an axis begins as zeros), and `last` how many are kept at most (None for all).
    """

    path: str
    paths: tuple[str, ...]
    type: Type
    axis: int | None
    fill: int
    last: int | None
    span: Span | None = field(default=None, compare=False)


def states(graph: Graph) -> list[State]:
    """The states of a graph and of the regions inside it, in order of use."""
    return list(_states(graph, ()))


def _states(region: Graph, loops: tuple[Loop, ...]) -> Iterator[State]:
    for node in region.nodes():
        if node.op in STATEFUL:
            yield _state(region, node, loops)
        for variant, body in enumerate(node.bodies):
            yield from _states(body, (*loops, Loop(node.attributes["path"], turns_of(node, variant))))


def _state(region: Graph, node: Node, loops: tuple[Loop, ...]) -> State:
    a = OPS[node.op].fill(node.attributes)
    type_, axis = state_type(region, node)
    paths = tuple(all_paths(a.path, loops))
    appends = node.op == "append"
    return State(a.path, paths, type_, axis, a.fill if appends else 0, a.last if appends else None, node.span)


def state_type(region: Graph, node: Node) -> tuple[Type, int | None]:
    """The type of what a stateful node reads, and the axis along which it grows or slides."""
    a: Attributes = OPS[node.op].fill(node.attributes)
    types = [region.type(value) for value in node.inputs if value is not None]
    dims = list(types[0].dims)
    if node.op == "append":
        dims[a.axis] = a.size
        return Type(types[0].dtype, tuple(dims)), a.axis
    if node.op == "recall":
        return types[0], None
    if node.op == "running_sum":
        return Type(types[0].dtype, (*dims[: a.axis], *dims[a.axis + 1 :])), None
    heads: Size = node.type.dims[1]
    return Type("float", (dims[0], heads, types[1].dims[3], types[2].dims[3])), None
