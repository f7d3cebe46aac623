"""From a graph to a scene: boxes for layers and blocks, circles for arithmetic, clusters for loops, edges for values.

Plumbing (rearranging, casts, dropout) is folded into the edges, tables of numbers into the boxes that read them.
"""

from __future__ import annotations

from collections.abc import Iterable

from tfdsl.backends.graphviz.kinds import kind_of_block
from tfdsl.backends.graphviz.looks import OF_WEIGHTS, detail_of, look_of, note_of
from tfdsl.backends.graphviz.loops import draw_loop, loop_name
from tfdsl.backends.graphviz.place import Known, Leaf, Place
from tfdsl.backends.graphviz.plan import Plan
from tfdsl.backends.graphviz.scene import Box, Cluster, Scene
from tfdsl.backends.graphviz.weights import Loops, Weights, own_loops, weights_in, weights_of
from tfdsl.ir.graph import Frame, Graph, Node, Type, Value
from tfdsl.ir.ops import OPS
from tfdsl.report.quantities import short_count


def compose(graph: Graph, depth: int) -> Scene:
    """The drawing of a graph, with blocks open to a depth: 1 for the overview, 2 for the blocks of its layers."""
    composer = Composer(graph.name, depth)
    total = composer.weights.count_new(weights_in(graph, ()))
    place = Place(graph, Plan(graph, (), 1, depth), composer.scene.root, (), 1)
    for node in graph.inputs:
        box = composer.scene.add(place.holder, "text", "input", graph.node(node).attributes["name"])
        place.known[Value(node)] = Known((box.id,))
    composer.draw(place)
    for name, value in graph.outputs:
        box = composer.scene.add(place.holder, "text", "output", name)
        composer.feed(box, place.known[value], graph.type(value))
    composer.finish(total)
    return composer.scene


class Composer:
    """The scene under construction."""

    def __init__(self, name: str, depth: int):
        self.scene = Scene(name)
        self.weights = Weights()
        self.depth = depth
        self.names: dict[int, str] = {}
        self.leaves: dict[tuple[str, Loops], Leaf] = {}

    # --- nodes -------------------------------------------------------------------------------------------------------

    def draw(self, place: Place) -> None:
        """Draw the nodes of a region."""
        for node in place.plan.nodes:
            if node.op == "input":
                continue
            closed = place.plan.closed(node)
            if node.op == "weight":
                place.know(node, Known(leaf=self._weight(place, node)))
                if closed is not None:
                    self.weights.give(self._block(place, node, closed).id, node, place.loops)
            elif node.op in OF_WEIGHTS:
                known = place.read(node.inputs[0])
                place.know(node, known._replace(notes=(*known.notes, *note_of(node))))
            elif place.plan.is_table(node):
                place.know(node, Known(leaf=Leaf(node, place.graph, self.holder(place, node), place.loops)))
            elif closed is not None:
                self._inside_block(place, node, self._block(place, node, closed))
            elif node.op == "repeat" and self.depth > 1:
                draw_loop(self, place, node)
            elif look_of(node).shape == "folded":
                self._fold(place, node)
            else:
                self._op(place, node)

    def _fold(self, place: Place, node: Node) -> None:
        """Plumbing: a result comes from where the operand comes from, under its own name where it is one of several."""
        known = place.read(node.inputs[0])
        for index in range(len(node.types)):
            name = node.labels[index] if len(node.types) > 1 and node.labels else known.name
            place.known[Value(node.id, index)] = known._replace(name=name)

    def _op(self, place: Place, node: Node) -> None:
        look = look_of(node)
        title = f"{loop_name(node)} × {len(node.attributes['turns'])}" if node.op == "repeat" else look.title
        box = self.scene.add(self.holder(place, node), look.shape, look.kind, title)
        box.details = [detail_of(node)]
        operands = OPS[node.op].operands
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            known, leaf = place.read(value), place.read(value).leaf
            number = leaf.number() if leaf else None
            if leaf is not None and leaf.node.op == "weight" and operands[min(index, len(operands) - 1)].weight:
                self.weights.give(box.id, leaf.node, leaf.loops)
                self.names.setdefault(box.id, _layer_name(leaf.node))
                box.details += known.notes
            elif number is not None:
                _write_number(box, number, index)
            elif not (leaf is not None and index in look.constants):
                self.feed(box, known, place.graph.type(value))
        self._give_bodies(box, place, node)
        place.know(node, Known((box.id,)))

    def feed(self, box: Box, known: Known, type_: Type) -> None:
        """Lead a value to a box; a leaf is drawn now."""
        for source in known.boxes:
            self.scene.connect(source, box.id, type_, known.name)
        if known.leaf is not None:
            self.scene.connect(self._leaf(known.leaf), box.id, type_)

    def _leaf(self, leaf: Leaf) -> int:
        if leaf.box is None:
            if leaf.node.op == "weight":
                box = self.scene.add(leaf.holder, "box", "parameter", leaf.node.attributes["path"].rpartition(".")[2])
                self.weights.give(box.id, leaf.node, leaf.loops)
            else:
                box = self.scene.add(leaf.holder, "text", "table", leaf.title())
            leaf.box = box.id
        return leaf.box

    def _weight(self, place: Place, node: Node) -> Leaf:
        """A weight as a leaf, one for all its nodes; it stands outside the loops that it does not vary with."""
        own = own_loops(node, place.loops)
        inner = place.loops.index(own[-1]) + 1 if own else 0
        holder = self.holder(place, node) if inner == len(place.loops) else place.holders[inner]
        return self.leaves.setdefault((node.attributes["path"], own), Leaf(node, place.graph, holder, place.loops))

    def _give_bodies(self, box: Box, place: Place, node: Node) -> None:
        for weight, loops in weights_of(node, place.loops):
            self.weights.give(box.id, weight, loops)

    # --- blocks ------------------------------------------------------------------------------------------------------

    def holder(self, place: Place, node: Node) -> Cluster:
        """The cluster that a node's box goes into: that of the innermost open block around it."""
        holder = place.holder
        for frame in place.plan.opened(node):
            if frame not in place.opened:
                place.opened[frame] = Cluster(frame.block, _name_detail(frame))
                inside = [each for each in place.plan.nodes if frame in each.scope]
                self.write_total(
                    place.opened[frame], [pair for each in inside for pair in weights_of(each, place.loops)]
                )
                holder.children.append(place.opened[frame])
            holder = place.opened[frame]
        return holder

    def _block(self, place: Place, node: Node, frame: Frame) -> Box:
        if frame not in place.closed:
            inside = [each for each in place.plan.nodes if frame in each.scope]
            box = self.scene.add(self.holder(place, node), "box", kind_of_block(inside), frame.block)
            box.strong = True
            self.names[box.id] = "".join(_name_detail(frame))
            place.closed[frame] = box
        return place.closed[frame]

    def _inside_block(self, place: Place, node: Node, box: Box) -> None:
        """A node of a closed block: only what comes from outside the block shows."""
        for value in node.inputs:
            known = place.read(value) if value is not None else Known()
            if known.leaf is None and value is not None:
                self.feed(box, known, place.graph.type(value))
            elif known.leaf is not None and known.leaf.node.op == "weight":
                self.weights.give(box.id, known.leaf.node, known.leaf.loops)
                box.details += [note for note in known.notes if note not in box.details]
        self._give_bodies(box, place, node)
        place.know(node, Known((box.id,)))

    def write_total(self, cluster: Cluster, found: Iterable[tuple[Node, Loops]]) -> None:
        """Write the parameters of all turns on a cluster."""
        total = self.weights.count_new(found)
        if total:
            cluster.details.append(short_count(total))

    # --- words -------------------------------------------------------------------------------------------------------

    def finish(self, total: int) -> None:
        """Write names and counts of parameters on the boxes."""
        boxes = {box.id: box for box in self.scene.root.boxes()}
        for box in boxes.values():
            count, tied = self.weights.count(box.id), self.weights.tied_to(box.id)
            name = self.names.get(box.id, "")
            words = [] if name.lower() == box.title.lower() else [name]
            words += box.details + ([short_count(count)] if count else [])
            if tied and not count:
                other = self.names.get(tied[0]) or boxes[tied[0]].title
                words = [word for word in words if word != other]
                words.append(f"tied to {other}")
            box.details = [word for word in words if word]
        self.scene.ties = [*self.weights.ties]
        self.scene.root.details = [f"{short_count(total)} parameters"] if total else []
        self.scene.root.drop_empty()


def _name_detail(frame: Frame) -> list[str]:
    """The name of a block, unless that is what it is."""
    parts = [part for part in frame.path.split(".") if part and part != "*"]
    return [part for part in parts[-1:] if part.lower() != frame.block.lower()]


def _layer_name(weight: Node) -> str:
    """The name of the layer that a weight belongs to: `c_attn` of `h.*.attn.c_attn.weight`."""
    parts = [part for part in weight.attributes["path"].split(".") if part != "*"]
    return parts[-2] if len(parts) > 1 else parts[-1]


def _write_number(box: Box, number: str, index: int) -> None:
    """Write a number that a box reads into the box: `÷ 8` for a division, a detail elsewhere."""
    if box.shape != "circle":
        box.details.append(number)
        return
    behind = index == 1 or box.title in "+×"
    box.shape = "box"
    box.title = f"{box.title} {number}" if behind else f"{number} {box.title}"
