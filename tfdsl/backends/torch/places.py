"""The tree of modules: what lives at each weight path, and how code reaches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tfdsl.backends.torch import layers
from tfdsl.backends.torch.layers import Layer
from tfdsl.backends.torch.names import is_attribute
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.graph import Graph

CLASS, LIST, LAYER, CONTAINER = "class", "list", "layer", "container"


class Places:
    """Every path at or below which weights live, and what stands there.

    A class holds what a unit of the graph owns, a list the turns of a loop, a layer of `torch.nn` the weights of one op;
    what is left (a block that passes have dissolved, weights that no layer fits) is a container.
    """

    def __init__(self, graph: Graph, turns: Mapping[str, list[str]]):
        self.layers: dict[str, Layer] = layers.collect(graph)
        self._children: dict[str, dict[str, None]] = {}
        self._classes: dict[str, Unit] = {}
        for path in self.layers:
            self._enter(path)
        self.turns = {path: kinds for path, kinds in turns.items() if any(map(self.weights_below, kinds))}

    def _enter(self, path: str) -> None:
        while path:
            parent, _, name = path.rpartition(".")
            self._children.setdefault(parent, {})[name] = None
            path = parent

    def add_class(self, unit: Unit) -> None:
        """Let a path be a class, which begins as its first unit does."""
        if unit.path not in self._classes:
            self._classes[unit.path] = unit
            self._enter(unit.path)

    def unit(self, path: str) -> Unit:
        """The first of the units whose class stands at a path."""
        return self._classes[path]

    def layer(self, path: str) -> Layer | None:
        """The weights that live directly at a path, if there are some."""
        return self.layers.get(path)

    def children(self, path: str) -> list[str]:
        """What stands directly below a path, in the order in which the model runs through it."""
        return list(self._children.get(path, ()))

    def weights_below(self, path: str) -> bool:
        """Whether weights live at or below a path."""
        return path in self.layers or bool(self._children.get(path))

    def kind(self, path: str) -> str:
        """What stands at a path."""
        if path in self._classes:
            return CLASS
        if path in self.turns:
            return LIST
        layer = self.layers.get(path)
        return LAYER if layer is not None and layer.op is not None and not self.children(path) else CONTAINER

    def is_numbered(self, path: str) -> bool:
        """Whether a container holds modules by the numbers from 0 on, and nothing else."""
        children = self.children(path)
        numbers = [str(number) for number in range(len(children))]
        return self.kind(path) == CONTAINER and path not in self.layers and sorted(children) == sorted(numbers) != []

    def elements(self, path: str) -> list[str]:
        """The paths of what a list or a numbered container holds, in order."""
        if path in self.turns:
            return self.turns[path]
        return [f"{path}.{number}" for number in range(len(self.children(path)))]

    def reach(self, start: str, path: str, target: str) -> str:
        """What stands at `target`, as code that has what stands at `path` as `start` reaches it."""
        text = start
        for part in _below(path, target):
            if part.isdigit() and (path in self.turns or self.is_numbered(path)):
                text, path = f"{text}[{part}]", self.elements(path)[int(part)]
                continue
            text = f"{text}.{part}" if is_attribute(part) else f'getattr({text}, "{part}")'
            path = f"{path}.{part}" if path else part
        return text


def is_below(path: str, target: str) -> bool:
    """Whether `target` is the same path or one below it."""
    return path in ("", target) or target.startswith(f"{path}.")


def _below(path: str, target: str) -> Iterator[str]:
    """The parts of `target` behind `path`."""
    rest = target[len(path) :].removeprefix(".")
    yield from rest.split(".") if rest else ()
