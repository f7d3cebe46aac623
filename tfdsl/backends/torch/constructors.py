"""The constructors of emitted classes: what a module holds, place by place, and how its parameters begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tfdsl.backends.torch import initial, places
from tfdsl.backends.torch.initial import Beginning
from tfdsl.backends.torch.layer_calls import LAYER_CALLS, Maker, declared_layer
from tfdsl.backends.torch.layers import Layer
from tfdsl.backends.torch.module_lists import list_of_turns, rows_of
from tfdsl.backends.torch.names import class_name, is_attribute
from tfdsl.backends.torch.reserved import MODULE_NAMES, ROOT_NAMES
from tfdsl.ir.graph import Node
from tfdsl.language.diagnostics import Span, one

if TYPE_CHECKING:
    from tfdsl.backends.torch.classes import Class, Classes

SCALE = "_scale"  # the scales of quantised weights stand beside them


@dataclass
class Contents:
    """The statements for what a module holds, and how its parameters begin."""

    made: list[str] = field(default_factory=list)
    begun: list[Beginning] = field(default_factory=list)

    def add(self, other: Contents) -> None:
        """Append what another holds."""
        self.made += other.made
        self.begun += other.begun


class Constructor(Maker):
    """The statements of an `__init__` for what lives at and below a path."""

    def __init__(self, classes: Classes, path: str):
        super().__init__(classes.program, classes.program.places.unit(path))
        self.classes, self.path = classes, path
        self.places = self.program.places
        self._running: list[str] = []  # the variables of the `for`s around

    def write(self) -> list[str]:
        """The statements: what there is, then how it begins."""
        return self._statements("self", self.path)

    def _statements(self, target: str, path: str) -> list[str]:
        contents = self._contents(target, path)
        return [*contents.made, *initial.statements(contents.begun, self.variable("layer", "module"))]

    def variable(self, *wanted: str) -> str:
        """A name for what a `for` runs over, which is no name of the block."""
        taken = {*self._running, *(self.program.words(name) for name in self.unit.names)}
        numbered = (f"{wanted[0]}_{number}" for number in range(1, len(taken) + 2))
        return next(name for name in (*wanted, *numbered) if name not in taken)

    # --- places --------------------------------------------------------------------------------------------------------

    def _contents(self, target: str, path: str) -> Contents:
        """What stands at and below a path, which code reaches as `target`."""
        contents = Contents()
        layer = self.places.layer(path)
        if layer is not None:
            contents.add(self._parameters(target, layer))
        for name in self.places.children(path):
            contents.add(self._child(target, f"{path}.{name}" if path else name, name))
        return contents

    def _child(self, target: str, path: str, name: str) -> Contents:
        kind, inside = self.places.kind(path), _member(target, name)
        layer = self.places.layer(path)
        if kind == places.CLASS:
            return Contents([self._module(target, name, path, self.instance(path))])
        if kind == places.LIST:
            return Contents([self._module(target, name, path, list_of_turns(self, path))])
        if layer is not None and kind == places.LAYER:
            return Contents([self._module(target, name, path, self._layer(layer))], self._begun(layer, inside))
        if layer is not None and self._is_table(layer):
            made = LAYER_CALLS["embedding"](self, layer)
            return Contents([self._module(target, name, path, made)], self._begun(layer, inside))
        if self.places.is_numbered(path):
            return self._numbered(target, name, path)
        contents = Contents([self._module(target, name, path, "nn.Module()")])
        contents.add(self._contents(inside, path))
        return contents

    def _numbered(self, target: str, name: str, path: str) -> Contents:
        """A list of what stands at the numbers below a path; what fills it is said once if it is the same for all."""
        elements, inside = self.places.elements(path), _member(target, name)
        plain = {each: self._element(each) for each in elements}
        contents = Contents([self._module(target, name, path, f"nn.ModuleList({rows_of([*plain.values()])})")])
        if any(made != "nn.Module()" for made in plain.values()):
            for number, each in enumerate(elements):
                if plain[each] == "nn.Module()":
                    contents.add(self._contents(f"{inside}[{number}]", each))
                elif self.places.kind(each) == places.LAYER:
                    contents.begun += self._begun(self.places.layers[each], f"{inside}[{number}]")
            return contents
        variable = self.variable("layer", "module")
        self._running.append(variable)
        inner = [self._statements(variable, each) for each in elements]
        self._running.pop()
        if all(each == inner[0] for each in inner):
            contents.made += [f"for {variable} in {inside}:", *(f"    {line}" for line in inner[0])]
        else:
            for number, each in enumerate(elements):
                contents.add(self._contents(f"{inside}[{number}]", each))
        return contents

    def _element(self, path: str) -> str:
        """What makes the module at a number: an empty one where statements fill it."""
        if self.places.kind(path) == places.CLASS:
            return self.instance(path)
        return self._layer(self.places.layers[path]) if self.places.kind(path) == places.LAYER else "nn.Module()"

    def _module(self, target: str, name: str, path: str, text: str) -> str:
        self._check(name, path)
        return f"{target}.{name} = {text}" if is_attribute(name) else f'{target}.add_module("{name}", {text})'

    def _check(self, name: str, path: str) -> None:
        own = self.program.decodes and path in ROOT_NAMES
        if name in MODULE_NAMES or name.startswith("forward_") or own:
            message = f"torch: a module has an attribute `{name}` of its own, and `{path}` cannot live there"
            raise one("T709", message, self.span(path), help="name the layer otherwise with `as`")

    def span(self, path: str) -> Span | None:
        """Where the first of the weights at or below a path comes from."""
        found = [layer for at, layer in self.places.layers.items() if places.is_below(path, at)]
        return next((weight.span for layer in found for weight in layer.weights.values()), None)

    # --- parameters and layers -----------------------------------------------------------------------------------------

    def _parameters(self, target: str, layer: Layer) -> Contents:
        """The weights that a class or a container holds itself; whole numbers and scales are buffers."""
        contents = Contents()
        for name, weight in layer.weights.items():
            self._check(name, f"{layer.path}.{name}" if layer.path else name)
            shape = ", ".join(self.shape(weight))
            if weight.type.dtype == "int":
                contents.made.append(f'{target}.register_buffer("{name}", torch.zeros({shape}, dtype=torch.int8))')
            elif name.endswith(SCALE) and name.removesuffix(SCALE) in layer.weights:
                contents.made.append(f'{target}.register_buffer("{name}", torch.ones({shape}))')
            else:
                made = f"nn.Parameter(torch.empty({shape or '()'}))"
                registered = f'{target}.register_parameter("{name}", {made})'
                contents.made.append(f"{target}.{name} = {made}" if is_attribute(name) else registered)
                contents.begun.append(self._beginning(target, name, _member(target, name), weight))
        return contents

    def _layer(self, layer: Layer) -> str:
        assert layer.op is not None
        return LAYER_CALLS[layer.op](self, layer)

    def _is_table(self, layer: Layer) -> bool:
        """Whether the block binds an embedding to a name that nothing applies: its table is read otherwise."""
        declared = declared_layer(self.unit, layer)
        bare = [*layer.weights] == ["weight"] and layer.weights["weight"].type.dtype == "float"
        return (
            declared is not None
            and declared.callee.text == "embedding"
            and bare
            and not self.places.children(layer.path)
        )

    def _begun(self, layer: Layer, target: str) -> list[Beginning]:
        """How the parameters of a layer begin, where it does not begin them so itself."""
        return [
            self._beginning(target, name, f"{target}.{name}", weight)
            for name, weight in layer.weights.items()
            if weight.attributes["init"] != initial.default_of(layer.op, name)
        ]

    def _beginning(self, holder: str, name: str, target: str, weight: Node) -> Beginning:
        dims = [size for size in weight.type.dims if isinstance(size, int)]
        spread = self.spread(weight)
        return Beginning(holder, name, target, initial.statement_of(weight.attributes["init"], dims, spread))

    # --- classes -------------------------------------------------------------------------------------------------------

    def class_at(self, path: str, base: str = "") -> Class:
        """The class at a path."""
        return self.classes.at(path, base or class_name(self.places.unit(path).frame.block))

    def instance(self, path: str, base: str = "", **special: str) -> str:
        """The call that makes the module of a class; `special` has the text of some of its arguments."""
        made, unit = self.class_at(path, base), self.places.unit(path)
        arguments = self.program.settings.arguments(unit, made.settled, self.unit, self.name, **special)
        return f"{made.name}({', '.join(arguments)})"


def _member(target: str, name: str) -> str:
    return f"{target}.{name}" if is_attribute(name) else f'getattr({target}, "{name}")'
