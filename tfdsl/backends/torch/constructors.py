"""The constructors of emitted classes: layers, parameters and how they begin."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tfdsl.backends.torch import layers
from tfdsl.backends.torch.layers import Layer
from tfdsl.backends.torch.names import NotPlain, class_name, identifier, number, same, spell
from tfdsl.backends.torch.reserved import MODULE_NAMES
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node
from tfdsl.ir.ops import OPS
from tfdsl.language import syntax
from tfdsl.language.diagnostics import one

if TYPE_CHECKING:
    from tfdsl.backends.torch.classes import Draft, Program

PLAIN = (syntax.Number, syntax.Literal, syntax.Unary)


def defaults_last(unit: Unit, settings: Sequence[str]) -> list[str]:
    return sorted(settings, key=lambda name: isinstance(unit.frame.declared.get(name), PLAIN) and not unit.is_region)


class Constructor:
    """The statements of an `__init__`."""

    def __init__(self, program: Program, draft: Draft, unit: Unit):
        self.program, self.draft, self.unit = program, draft, unit
        self.names: dict[str, Any] = unit.frame.names  # type: ignore[assignment]
        self.wanted: dict[str, None] = {}
        self.made: list[str] = []
        self.begun: list[str] = []

    def write(self) -> tuple[list[str], list[str]]:
        self._own_weights()
        for path in self._children():
            self._child(path)
        stored = list(self.draft.scope.wanted)
        settings, local = self.program.settle_names(self.unit, [*self.wanted, *stored])
        own = {name: self.program.stored(self.draft.path, name) for name in sorted(stored, key=list(self.names).index)}
        kept = [f"self.{attribute} = {identifier(name)}" for name, attribute in own.items()]
        return [*local, *kept, *self.made, *self.begun], settings

    def _children(self) -> list[str]:
        prefix = f"{self.draft.path}." if self.draft.path else ""
        found: dict[str, None] = {}
        for path in self.program.layers:
            if path.startswith(prefix) and path != self.draft.path:
                found[prefix + path[len(prefix) :].split(".")[0]] = None
        return list(found)

    def _name(self, name: str) -> str:
        self.wanted[name] = None
        return identifier(name)

    def _size(self, size: Size, node: Node | None = None, key: str = "") -> str:
        tree = node.spelled.get(key) if node is not None else None
        frame = (node.scope[-1] if node.scope else None) if node is not None else None
        if tree is not None and (frame is self.unit.frame or (frame is None and self.unit.is_region)):
            try:
                text, found = spell(tree, self.names, self._name)
                if same(found, size):
                    return text
            except NotPlain:
                pass
        name = self.program.named(self.names, size) if isinstance(size, int) and size > 1 else None
        return self._name(name) if name else number(size)

    def width_in(self, layer: Layer) -> str:
        """The features that a linear layer reads: a name that has that size, or what the layer before it was given."""
        assert layer.graph is not None and layer.node is not None
        size = layer.weights["weight"].type.dims[1]
        text = self._size(size)
        value = layer.node.inputs[0]
        while text == number(size) and value is not None:
            node = layer.graph.node(value)
            if node.op == "linear":
                return self._size(size, node, "out")
            value = node.inputs[0] if len(node.inputs) == 1 and node.types == (layer.graph.type(value),) else None
        return text

    # --- weights and layers --------------------------------------------------------------------------------------------

    def _assign(self, name: str, text: str) -> None:
        if name in MODULE_NAMES:
            layer = next((w for layer in self.program.layers.values() for w in layer.weights.values()), None)
            raise one(
                "T706",
                f"torch: a module has an attribute `{name}` of its own, and a weight cannot live there",
                layer.span if layer else None,
                help="name the layer otherwise with `as`",
            )
        if keyword.iskeyword(name):
            self.made.append(f'self.add_module("{name}", {text})')
        else:
            self.made.append(f"self.{name} = {text}")

    def _own_weights(self) -> None:
        layer = self.program.layers.get(self.draft.path)
        for name, weight in (layer.weights if layer else {}).items():
            self._parameter(name, weight)

    def _parameter(self, name: str, weight: Node) -> None:
        shape = ", ".join(self._size(dim) for dim in weight.type.dims)
        if "shape" in weight.spelled and isinstance(weight.spelled["shape"], syntax.ListOf):
            items = weight.spelled["shape"].items
            shape = ", ".join(
                self._spelled_or(tree, dim, weight) for tree, dim in zip(items, weight.type.dims, strict=True)
            )
        self._assign(name, f"nn.Parameter(torch.empty({shape}))")
        self.begun.append(_begin(weight, self.program.attribute("self", name)))

    def _spelled_or(self, tree: syntax.Expression, dim: Size, weight: Node) -> str:
        frame = weight.scope[-1] if weight.scope else None
        if frame is self.unit.frame or (frame is None and self.unit.is_region):
            try:
                text, found = spell(tree, self.names, self._name)
                if same(found, dim):
                    return text
            except NotPlain:
                pass
        return self._size(dim)

    def _child(self, path: str) -> None:
        name = path.rpartition(".")[2]
        loop = self.program.loop(path)
        if loop is not None:
            self._assign(name, self._module_list(*loop))
        elif self.program.units(path):
            self._assign(name, self._call(path, class_name(self.program.units(path)[0].frame.block)))
        else:
            self._layer(name, self.program.layers.get(path), path)

    def _call(self, path: str, base: str, index: str | None = None, index_text: str = "") -> str:
        """The expression that makes the module of a path; a loop's index is passed as `index_text`."""
        made = self.program.class_for(path, base)
        unit = self.program.units(path)[0]
        arguments = []
        plain = True
        for name in defaults_last(unit, made.settings):
            text = index_text if name == index else self.program.value_for(unit, name, self.names, self._name)
            if text is None:
                plain = False
                continue
            plain = plain and text == identifier(name)
            arguments.append(text if plain else f"{identifier(name)}={text}")
        return f"{made.name}({', '.join(arguments)})"

    def _layer(self, name: str, layer: Layer | None, path: str) -> None:
        if layer is None:
            raise one("T706", f"torch: `{path}` holds weights of a block that no longer stands as one")
        if layer.op is None:
            self._bag(name, layer, path)
            return
        assert layer.node is not None and layer.graph is not None
        self._assign(name, _LAYERS[layer.op](self, layer))
        for key, weight in layer.weights.items():
            if weight.attributes["init"] != layers.default_of(layer.op, key):
                self.begun.append(_begin(weight, f"{self.program.attribute('self', name)}.{key}"))

    def _bag(self, name: str, layer: Layer, path: str) -> None:
        """Weights that no layer of `torch.nn` holds: quantised ones, or ones that several ops read."""
        if all(weight.type.dtype == "float" and not key.endswith("_scale") for key, weight in layer.weights.items()):
            shapes = {key: ", ".join(self._size(dim) for dim in w.type.dims) for key, w in layer.weights.items()}
            inside = ", ".join(f'"{key}": nn.Parameter(torch.empty({shape}))' for key, shape in shapes.items())
            self._assign(name, f"nn.ParameterDict({{{inside}}})")
            self.begun += [
                _begin(w, f"{self.program.attribute('self', name)}.{key}") for key, w in layer.weights.items()
            ]
            return
        self._assign(name, "nn.Module()")
        target = self.program.attribute("self", name)
        for key, weight in layer.weights.items():
            shape = ", ".join(self._size(dim) for dim in weight.type.dims)
            if weight.type.dtype == "int":
                self.made.append(f'{target}.register_buffer("{key}", torch.zeros({shape}, dtype=torch.int8))')
            elif f"{key.removesuffix('_scale')}" in layer.weights and key.endswith("_scale"):
                self.made.append(f'{target}.register_buffer("{key}", torch.ones({shape}))')
            else:
                self.made.append(f'{target}.register_parameter("{key}", nn.Parameter(torch.empty({shape})))')
                self.begun.append(_begin(weight, f"{target}.{key}"))

    def _module_list(self, graph: Graph, node: Node) -> str:
        """The layers of a loop: one comprehension where all are made alike, else a row for each run of like turns."""
        turns, index = node.attributes["turns"], node.attributes.get("index")
        paths = [self.program.region_unit(body).path for body in node.bodies]
        base = self._layer_class_name(node)
        variable = identifier(index) if index else "_"
        calls = [self._call(path, base, index, variable) for path in paths]
        if len(set(calls)) == 1:
            each = variable if index and self._reads(paths[0], index) else "_"
            return f"nn.ModuleList({calls[0]} for {each} in range({self._size(len(turns), node, 'turns')}))"
        rows = []
        for start, stop in _runs(turns):
            path = paths[turns[start]]
            reads = index is not None and self._reads(path, index)
            if stop - start == 1:
                rows.append(self._call(path, base, index, str(start)))
            elif reads:
                rows.append(f"*({calls[turns[start]]} for {variable} in range({start}, {stop}))")
            else:
                rows.append(f"*({calls[turns[start]]} for _ in range({stop - start}))")
        inside = "".join(f"\n                {row}," for row in rows)
        return f"nn.ModuleList(\n            [{inside}\n            ]\n        )"

    def _reads(self, path: str, index: str) -> bool:
        return index in self.program.class_for(path, "").settings

    def _layer_class_name(self, node: Node) -> str:
        if node.op == "route":
            return class_name(self.program.region_unit(node.bodies[0]).frame.block)
        name = node.attributes["path"].rpartition(".")[2]
        owner = class_name(self.unit.frame.block)
        if name in ("h", "layer", "layers", "block", "blocks"):
            return f"{owner}{'Block' if name.startswith('block') else 'Layer'}"
        return f"{owner}{class_name(name)}Layer"


def _runs(turns: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The stretches of equal turns, as start and stop."""
    start = 0
    for stop in range(1, len(turns) + 1):
        if stop == len(turns) or turns[stop] != turns[start]:
            yield start, stop
            start = stop


def _begin(weight: Node, target: str) -> str:
    initializer = weight.attributes["init"]
    dims = [dim for dim in weight.type.dims if isinstance(dim, int)]
    if len(dims) >= 2 or not initializer.kind.startswith(("xavier", "kaiming")):
        statement = layers.initial(initializer, target)
        if statement is not None:
            return statement
    return layers.spread(initializer, dims, target)


def _setting(c: Constructor, layer: Layer, name: str) -> str:
    assert layer.node is not None
    value = getattr(OPS[layer.node.op].fill(layer.node.attributes), name)
    if isinstance(value, tuple):
        return f"({', '.join(number(each) for each in value)})"
    return c._size(value, layer.node, name) if name in layer.node.spelled else number(value)


def _linear(c: Constructor, layer: Layer) -> str:
    out = layer.weights["weight"].type.dims[0]
    bias = "" if "bias" in layer.weights else ", bias=False"
    return f"nn.Linear({c.width_in(layer)}, {c._size(out, layer.node, 'out')}{bias})"


def _embedding(c: Constructor, layer: Layer) -> str:
    size, dim = layer.weights["weight"].type.dims
    return f"nn.Embedding({c._size(size, layer.node, 'size')}, {c._size(dim, layer.node, 'dim')})"


def _layer_norm(c: Constructor, layer: Layer) -> str:
    width = c._size(layer.weights["weight"].type.dims[0])
    bias = "" if "bias" in layer.weights else ", bias=False"
    eps = _setting(c, layer, "eps")
    return f"nn.LayerNorm({width}{'' if eps == '1e-5' else f', eps={eps}'}{bias})"


def _rms_norm(c: Constructor, layer: Layer) -> str:
    return f"nn.RMSNorm({c._size(layer.weights['weight'].type.dims[0])}, eps={_setting(c, layer, 'eps')})"


def _group_norm(c: Constructor, layer: Layer) -> str:
    channels = c._size(layer.weights["weight"].type.dims[0])
    return f"nn.GroupNorm({_setting(c, layer, 'groups')}, {channels}, eps={_setting(c, layer, 'eps')})"


def _conv(c: Constructor, layer: Layer) -> str:
    assert layer.node is not None and layer.graph is not None and layer.node.inputs[0] is not None
    attributes = OPS[layer.node.op].fill(layer.node.attributes)
    channels = layer.graph.type(layer.node.inputs[0]).dims[1]
    out = c._size(layer.weights["weight"].type.dims[0], layer.node, "out")
    parts = [c._size(channels), out, _setting(c, layer, "kernel")]
    for name in ("stride", "padding", "dilation", "groups"):
        value = getattr(attributes, name, None)
        if name == "padding" and layer.node.op == "conv1d" and isinstance(value, tuple):
            if value[0] == value[1] and value[0]:
                parts.append(f"padding={value[0]}")
        elif value not in (None, 0 if name == "padding" else 1):
            parts.append(f"{name}={_setting(c, layer, name)}")
    if "bias" not in layer.weights:
        parts.append("bias=False")
    return f"nn.Conv{layer.node.op[4:]}({', '.join(parts)})"


_LAYERS = {
    "linear": _linear,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "conv1d": _conv,
    "conv2d": _conv,
}
