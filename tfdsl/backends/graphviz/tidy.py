"""The last touches on a scene: forks that do not fork go, parallel edges become one, and some edges get a label."""

from __future__ import annotations

from collections import defaultdict

from tfdsl.backends.graphviz.scene import Box, Cluster, Edge, Scene


def tidy(scene: Scene) -> None:
    """Simplify the edges of a scene, find those that pass layers by, and choose which show their shape."""
    boxes = {box.id: box for box in scene.root.boxes()}
    _drop_forks(scene, boxes)
    _join_parallel(scene, boxes)
    _mark_skips(scene, boxes)
    inside = locate(scene.root)
    _mark_trunk(scene, boxes, inside)
    _choose_labels(scene, boxes, inside)


def locate(cluster: Cluster) -> dict[int, tuple[Cluster, ...]]:
    """For each box, the clusters around it, outermost first."""
    found: dict[int, tuple[Cluster, ...]] = {}

    def visit(inner: Cluster, around: tuple[Cluster, ...]) -> None:
        for child in inner.children:
            if isinstance(child, Cluster):
                visit(child, (*around, child))
            else:
                found[child.id] = around

    visit(cluster, ())
    return found


def _drop_forks(scene: Scene, boxes: dict[int, Box]) -> None:
    """Remove points where a line does not fork, and those that lead nowhere."""
    for box in [box for box in reversed(boxes.values()) if box.shape == "point"]:
        after = [edge for edge in scene.edges if edge.source == box.id]
        if len({edge.target for edge in after}) > 1:
            continue
        before = [edge for edge in scene.edges if edge.target == box.id]
        kept = [edge for edge in scene.edges if box.id not in (edge.source, edge.target)]
        scene.edges = [*kept, *(Edge(b.source, a.target, a.type, a.names) for b in before for a in after)]
        del boxes[box.id]
        _remove(scene.root, box)
    scene.edges.sort(key=lambda edge: (edge.target, edge.source))


def _remove(cluster: Cluster, box: Box) -> None:
    for child in cluster.children:
        if isinstance(child, Cluster):
            _remove(child, box)
    cluster.children = [child for child in cluster.children if child is not box]


def _join_parallel(scene: Scene, boxes: dict[int, Box]) -> None:
    """Make one edge of several between two boxes, except where each is an operand of its own (`x + x`)."""
    joined: list[Edge] = []
    known: dict[tuple[int, int], Edge] = {}
    for edge in scene.edges:
        first = known.get((edge.source, edge.target))
        if first is None or boxes[edge.target].shape == "circle":
            joined.append(edge)
            known[edge.source, edge.target] = edge
        else:
            first.names += [name for name in edge.names if name not in first.names]
    scene.edges = joined


def _mark_skips(scene: Scene, boxes: dict[int, Box]) -> None:
    """Find residual paths: edges to a circle from a box that also reaches it the long way round."""
    targets: dict[int, list[int]] = defaultdict(list)
    for edge in scene.edges:
        targets[edge.source].append(edge.target)
    for edge in scene.edges:
        if boxes[edge.target].shape == "circle" and len(targets[edge.source]) > 1:
            edge.skip = _reaches([t for t in targets[edge.source] if t != edge.target], edge.target, targets)


def _reaches(starts: list[int], goal: int, targets: dict[int, list[int]]) -> bool:
    # Boxes are numbered in the order of the graph, so that nothing beyond the goal can lead back to it.
    waiting, seen = list(starts), set(starts)
    while waiting:
        box = waiting.pop()
        if box == goal:
            return True
        for after in targets[box]:
            if after not in seen and after <= goal:
                seen.add(after)
                waiting.append(after)
    return False


def _mark_trunk(scene: Scene, boxes: dict[int, Box], inside: dict[int, tuple[Cluster, ...]]) -> None:
    """Put boxes that follow one another without a fork into one column."""
    entering: dict[int, list[Edge]] = defaultdict(list)
    leaving: dict[int, list[Edge]] = defaultdict(list)
    for edge in scene.edges:
        if not edge.skip and boxes[edge.source].kind not in ("table", "parameter"):
            leaving[edge.source].append(edge)
            entering[edge.target].append(edge)
    for target, edges in entering.items():
        near = [edge for edge in edges if inside[edge.source] == inside[target]] if len(edges) > 1 else edges
        if len(near) == 1 and len(leaving[near[0].source]) == 1:
            (edge,) = near
            edge.trunk = True
            source = boxes[edge.source]
            source.group = source.id if source.group is None else source.group
            boxes[target].group = source.group


def _choose_labels(scene: Scene, boxes: dict[int, Box], inside: dict[int, tuple[Cluster, ...]]) -> None:
    """Label an edge where its shape is news: it differs from what its source reads, or it enters a loop."""
    read: dict[int, set[object]] = defaultdict(set)
    for edge in scene.edges:
        read[edge.target].add(edge.type.dims)
    for edge in scene.edges:
        source, target = boxes[edge.source], boxes[edge.target]
        enters = target.shape == "point" and inside[edge.source] != inside[edge.target]
        news = "text" in (source.shape, target.shape) or edge.type.dims not in read[edge.source] or enters
        edge.labelled = news and not edge.skip and source.shape != "point"
