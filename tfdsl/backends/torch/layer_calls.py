"""The calls that make layers of `torch.nn`, with sizes in the names of the block that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tfdsl.backends.torch.arithmetic import number, spelled_as
from tfdsl.backends.torch.code import call
from tfdsl.backends.torch.layers import Layer
from tfdsl.backends.torch.settings import sees, unique_name
from tfdsl.backends.torch.state_lowerings import STATE_CALLS
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.elaborate.patterns import compile_pattern, number_of
from tfdsl.ir.graph import Node
from tfdsl.ir.ops import OPS
from tfdsl.language import syntax

if TYPE_CHECKING:
    from tfdsl.backends.torch.program import Program


class Maker:
    """Numbers and sizes where modules are made. `wanted` gathers the names of the block that they use."""

    def __init__(self, program: Program, unit: Unit):
        self.program, self.unit = program, unit
        self.wanted: dict[str, None] = {}

    def name(self, name: str) -> str:
        """A name of the block."""
        self.wanted[name] = None
        return self.program.words(name)

    def spelled(self, tree: syntax.Expression | None, value: Any) -> str | None:
        """An expression in the names of the block, if it gives a value."""
        code = spelled_as(tree, value, self.unit.names, self.name)
        return code.text if code is not None else None

    def setting(self, layer: Layer, name: str) -> str:
        """A setting of a layer: as the spec wrote it, if that is in the names of the block."""
        assert layer.node is not None
        value = getattr(OPS[layer.node.op].fill(layer.node.attributes), name)
        if isinstance(value, tuple):
            return f"({', '.join(number(each) for each in value)})"
        return self.spelled(self._expression(layer, name), value) or number(value)

    def size(self, layer: Layer, axis: int, spelled: str = "", key: str = "weight") -> str:
        """The size of an axis of a layer's weight; `spelled` is the setting that it is."""
        weight = layer.weights[key]
        return self.spelled(self._expression(layer, spelled), weight.type.dims[axis]) or self._size(weight, axis)

    def shape(self, weight: Node) -> list[str]:
        """The shape of a weight."""
        trees: dict[int, syntax.Expression] = {}
        for unit, _ in self._readers(weight):
            written = unit.expression(weight, "shape")
            if isinstance(written, syntax.ListOf):
                trees = dict(enumerate(written.items))
        dims = list(enumerate(weight.type.dims))
        return [self.spelled(trees.get(axis), size) or self._size(weight, axis) for axis, size in dims]

    def channels(self, layer: Layer) -> str:
        """The channels that a convolution reads."""
        assert layer.node is not None and layer.graph is not None and layer.node.inputs[0] is not None
        x = layer.node.inputs[0]
        value = layer.graph.type(x).dims[1]
        for unit, node in self._readers(layer.weights["weight"]):
            if node is layer.node:
                return self._text(unit, self.program.provenance.of(unit).dims(x)[1], value)
        return self._text(self.unit, value, value)

    def spread(self, weight: Node) -> str | None:
        """The number of an initialiser in the names of the block, if it is written in some block's."""
        arguments, path = weight.attributes["init"].arguments, weight.attributes["path"]
        if not arguments:
            return None
        for unit, reader in self._readers(weight):
            for value in reader.inputs:
                node = unit.graph.node(value) if value is not None else None
                if node is not None and node.op == "weight" and node.attributes["path"] == path:
                    found = self.spelled(unit.expression(node, "init"), arguments[0])
                    if found is not None:
                        return found
        return self._declared_spread(weight)

    def _declared_spread(self, weight: Node) -> str | None:
        """The number of an initialiser, where the block itself writes it for what only blocks inside it read."""
        declaration, initializer = self.unit.frame.declaration, weight.attributes["init"]
        if declaration is None or self.unit.is_turn:
            return None
        below = weight.attributes["path"][len(self.unit.path) :].removeprefix(".")
        for each in reversed(declaration.body):
            if not isinstance(each, syntax.Initialize):
                continue
            if compile_pattern(each.pattern.value.removesuffix("?")).match(below):
                return self.spelled(number_of(each.value), initializer.arguments[0])
        return None

    # --- where sizes are written ---------------------------------------------------------------------------------------

    def _readers(self, weight: Node) -> Iterator[tuple[Unit, Node]]:
        """The nodes that read a weight where the names of the block are seen."""
        for unit, node in self.program.readers.get(weight.attributes["path"], ()):
            if sees(self.unit, unit):
                yield unit, node

    def _expression(self, layer: Layer, name: str) -> syntax.Expression | None:
        """What the spec wrote for a setting of a layer, if that is in the names of the block."""
        if layer.node is None:
            return self._declared(layer, name)
        for unit, reader in self._readers(layer.weights["weight"]):
            if reader is layer.node:
                return unit.expression(reader, name)
        return None

    def _declared(self, layer: Layer, name: str) -> syntax.Expression | None:
        """What the block gives for a setting where it binds a layer that only others apply."""
        call_ = declared_layer(self.unit, layer)
        arguments = call_.arguments if call_ is not None else ()
        return next((each.value for each in arguments if each.keyword and each.keyword.text == name), None)

    def _size(self, weight: Node, axis: int) -> str:
        path, value = weight.attributes["path"], weight.type.dims[axis]
        for unit, _ in self._readers(weight):
            known = self.program.provenance.of(unit).weights.get(path)
            if known is not None:
                return self._text(unit, known[axis], value)
        return self._text(self.unit, value, value)

    def _text(self, unit: Unit, size: Any, value: Any) -> str:
        code = self.program.settings.size(size, value, self.unit, self.name)
        if code is not None:
            return code.text
        name = unique_name(list(self.unit.names.items()), value)
        return self.name(name) if name is not None else number(value)


def declared_layer(unit: Unit, layer: Layer) -> syntax.Call | None:
    """The call that a block binds to the name of a layer of its own."""
    declaration, name = unit.frame.declaration, layer.path.rpartition(".")[2]
    for each in declaration.body if declaration else ():
        if isinstance(each, syntax.Bind) and len(each.names) == 1 and each.names[0].text == name:
            return each.value if isinstance(each.value, syntax.Call) else None
    return None


# --- the calls -------------------------------------------------------------------------------------------------------


def _linear(m: Maker, layer: Layer) -> str:
    bias = [] if "bias" in layer.weights else ["bias=False"]
    kind = "nn.Linear"
    if m.program.decodes:
        kind = "ParallelLinear"
        m.program.use_helper("parallel_linear")
        m.program.use_helper(kind)
    return call(kind, m.size(layer, 1), m.size(layer, 0, "out"), *bias).text


def _embedding(m: Maker, layer: Layer) -> str:
    return call("nn.Embedding", m.size(layer, 0, "size"), m.size(layer, 1, "dim")).text


def _layer_norm(m: Maker, layer: Layer) -> str:
    eps = m.setting(layer, "eps")
    parts = [m.size(layer, 0), *([] if eps == "1e-5" else [f"eps={eps}"])]
    return call("nn.LayerNorm", *parts, *([] if "bias" in layer.weights else ["bias=False"])).text


def _rms_norm(m: Maker, layer: Layer) -> str:
    return call("nn.RMSNorm", m.size(layer, 0), f"eps={m.setting(layer, 'eps')}").text


def _group_norm(m: Maker, layer: Layer) -> str:
    eps = m.setting(layer, "eps")
    parts = [m.setting(layer, "groups"), m.size(layer, 0), *([] if eps == "1e-5" else [f"eps={eps}"])]
    return call("nn.GroupNorm", *parts).text


def _conv(m: Maker, layer: Layer) -> str:
    assert layer.node is not None
    a = OPS[layer.node.op].fill(layer.node.attributes)
    parts = [m.channels(layer), m.size(layer, 0, "out"), m.setting(layer, "kernel")]
    for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
        value = getattr(a, name, usual)
        if name == "padding" and layer.node.op == "conv1d" and isinstance(value, tuple):
            parts += [f"padding={value[0]}"] if value[0] == value[1] != 0 else []
        elif value not in (usual, (usual, usual)):
            parts.append(f"{name}={m.setting(layer, name)}")
    if "bias" not in layer.weights:
        parts.append("bias=False")
    return call(f"nn.Conv{layer.node.op[4:]}", *parts).text


LAYER_CALLS: dict[str, Callable[[Maker, Layer], str]] = {
    "linear": _linear,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "conv1d": _conv,
    "conv2d": _conv,
    **STATE_CALLS,
}
