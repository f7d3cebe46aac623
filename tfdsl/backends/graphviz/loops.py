"""Loops: a cluster for each run of turns that are alike, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tfdsl.backends.graphviz.place import Known, Place
from tfdsl.backends.graphviz.plan import Plan
from tfdsl.backends.graphviz.scene import Cluster
from tfdsl.backends.graphviz.turns import Run, runs
from tfdsl.backends.graphviz.weights import Loop, Loops, weights_in
from tfdsl.ir.graph import Node, Value

if TYPE_CHECKING:
    from tfdsl.backends.graphviz.compose import Composer


def draw_loop(composer: Composer, place: Place, node: Node) -> None:
    """Draw a loop open; what it carries comes out of the last turn."""
    carried = [place.read(value) for value in node.inputs[: node.attributes["carried"]]]
    found = runs(node.attributes["turns"])
    if found is None:
        carried = _unlike(composer, place, node, carried)
    for run in found or ():
        carried = _run(composer, place, node, run, carried, single=found is not None and len(found) == 1)
    for index, known in enumerate(carried):
        place.known[Value(node.id, index)] = known


def loop_name(node: Node) -> str:
    """The name of a loop in the spec."""
    name: str = node.attributes["path"].rpartition(".")[2]
    return name


def _run(composer: Composer, place: Place, node: Node, run: Run, carried: list[Known], *, single: bool) -> list[Known]:
    last = run.start + run.turns - 1
    if single:
        cluster = Cluster(loop_name(node), count=run.count)
    elif run.turns == 1:
        cluster = Cluster(f"{loop_name(node)} {last}")
    else:
        cluster = Cluster(f"{loop_name(node)} {run.start}–{last}", count=run.count)
    composer.holder(place, node).children.append(cluster)
    path = node.attributes["path"]
    loops = [Loop(path, f"{run.start}.{step}", count * run.count) for step, (_, count) in enumerate(run.row)]
    bodies = [body for body, _ in run.row]
    composer.write_total(cluster, _weights(place, node, zip(bodies, loops, strict=True)))
    for (body, count), loop in zip(run.row, loops, strict=True):
        inner = cluster
        if len(run.row) > 1:
            inner = Cluster(count=count if count > 1 else None)
            cluster.children.append(inner)
        carried = _body(composer, place, node, body, inner, loop, carried)
    return carried


def _unlike(composer: Composer, place: Place, node: Node, carried: list[Known]) -> list[Known]:
    """Turns without a pattern: the bodies side by side, each with the turns that run it."""
    turns = node.attributes["turns"]
    cluster = Cluster(loop_name(node), count=len(turns))
    composer.holder(place, node).children.append(cluster)
    loops = [Loop(node.attributes["path"], str(body), turns.count(body)) for body in range(len(node.bodies))]
    composer.write_total(cluster, _weights(place, node, enumerate(loops)))
    results = []
    for variant, loop in enumerate(loops):
        own = [turn for turn, body in enumerate(turns) if body == variant]
        shown = ", ".join(map(str, own[:6])) + (", …" if len(own) > 6 else "")
        inner = Cluster(f"turn {shown}" if len(own) == 1 else f"turns {shown}")
        cluster.children.append(inner)
        results.append(_body(composer, place, node, variant, inner, loop, carried))
    return [_either(same) for same in zip(*results, strict=True)]


def _either(same: Iterable[Known]) -> Known:
    """A value that comes from one of several places."""
    return Known(tuple(dict.fromkeys(box for known in same for box in known.boxes)))


def _body(
    composer: Composer, place: Place, node: Node, variant: int, cluster: Cluster, loop: Loop, carried: list[Known]
) -> list[Known]:
    """One body in a cluster, from what is carried in to what is carried out."""
    body = node.bodies[variant]
    count = len(carried)
    captured = dict(zip(map(Value, body.inputs[count:]), map(place.read, node.inputs[count:]), strict=True))
    tables = [inner for inner, known in captured.items() if known.leaf and known.leaf.node.op != "weight"]
    level = place.plan.level(node, place.level)
    plan = Plan(body, tables, level, composer.depth)
    if plan.only is not None:
        cluster.details.insert(0, plan.only.block)
    inside = Place(
        body,
        plan,
        cluster,
        loops=(*place.loops, loop._replace(turns=1)),
        level=level,
        holders=(*place.holders, composer.holder(place, node)),
    )
    inside.known.update(captured)
    for inner, known in zip(body.inputs, carried, strict=False):
        fork = composer.scene.add(cluster, "point", "value", "")
        composer.feed(fork, known._replace(name=""), body.node(inner).type)
        inside.known[Value(inner)] = Known((fork.id,))
    composer.draw(inside)
    return [inside.known[value] for _, value in body.outputs]


def _weights(place: Place, node: Node, bodies: Iterable[tuple[int, Loop]]) -> Iterator[tuple[Node, Loops]]:
    for body, loop in bodies:
        yield from weights_in(node.bodies[body], (*place.loops, loop))
