"""One walk over a graph that counts parameters, bytes and floating-point operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tfdsl.ir.dims import DimError, Size, evaluate, product
from tfdsl.ir.graph import Graph, Node, Type, Value, Weight, turns_of, weights
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import one
from tfdsl.report import storage
from tfdsl.report.blocks import Block, block_path, collapse, starred
from tfdsl.report.result import Largest, Report
from tfdsl.report.sizes import choose_sizes

KINDS = {
    **dict.fromkeys(("linear", "matmul", "einsum", "conv1d", "conv2d"), "matmul"),
    **dict.fromkeys(("attend", "linear_attend"), "attention"),
}
_NO_ACTIVATION = {"input", "weight", "constant", "prune", "quantize", "dequantize", "repeat", "route", "scan"}


def report(
    graph: Graph,
    *,
    sizes: Mapping[str, int] | None = None,
    batch: int = 1,
    seq: int | None = None,
    dtype: str = "float32",
) -> Report:
    """Count a model at given sizes: `batch` for the size of that name, `seq` or `sizes[name]` for every other.

    Without `seq`, each takes the largest number that the model allows, or 128 where it sets no limit.
    Raises `SpecError` for an unknown size or type, and for sizes that the model rules out.
    """
    count = _Count(graph, choose_sizes(graph, sizes, batch, seq), storage.element_bits(dtype))
    count.visit(graph, 1, "")
    return Report(
        model=graph.name,
        sizes=count.sizes,
        dtype=dtype,
        parameters=count.parameters,
        trainable=count.parameters - count.quantised,
        zeros=count.zeros,
        bytes=-(-count.bits // 8),
        flops=sum(count.flops.values()),
        flops_by_kind={kind: count.flops[kind] for kind in ("matmul", "attention", "other")},
        formula=None if count.formula is None else str(count.formula),
        largest=count.largest,
        blocks=count.root,
    )


class _Count:
    """The running counts of one walk."""

    def __init__(self, graph: Graph, sizes: dict[str, int], bits: int):
        self.sizes = sizes
        self.element_bits = bits
        self.root = Block(graph.name, "")
        self.parameters = self.quantised = self.zeros = self.bits = 0
        self.flops: Counter[str] = Counter()
        self.formula: Size | None = 0
        self.largest: Largest | None = None
        self._uncounted: dict[tuple[str, Type], Weight] = {(each.path, each.type): each for each in weights(graph)}
        self._owners: dict[str, str] = {}  # for each weight path, the op that reads it first

    def visit(self, region: Graph, turns: Size, base: str) -> None:
        """Count a region that is run so many times; `base` is the path of the block that it stands in."""
        if region.frame is not None:
            base = region.frame.path
        for node in region.nodes():
            inside = next((frame.path for frame in reversed(node.scope) if frame.path), base)
            if node.op == "weight":
                self._count_weight(region, node)
            self._count_flops(region, node, turns, inside)
            self._note_largest(node)
            for variant, body in enumerate(node.bodies):
                self.visit(body, turns * self._runs(region, node, variant), inside)

    def _runs(self, region: Graph, node: Node, variant: int) -> Size:
        """How often a body runs: in each of its turns, at each position, or once for each expert that a row chooses."""
        if node.op == "scan":
            along = node.inputs[node.attributes["carried"]]
            assert along is not None
            return region.type(along).dims[node.attributes["axis"]]
        if node.op == "route":
            chosen = node.inputs[1]
            assert chosen is not None
            return evaluate(region.type(chosen).dims[-1], self.sizes)
        return len(turns_of(node, variant))

    def _count_weight(self, region: Graph, node: Node) -> None:
        weight = self._uncounted.pop((node.attributes["path"], node.type), None)
        if weight is None:
            return
        form = storage.form_of(region, node)
        elements = evaluate(product(node.type.dims), self.sizes)
        self.parameters += elements * weight.copies
        self.quantised += elements * weight.copies if form.quantised else 0
        self.zeros += storage.zeros(elements, form) * weight.copies
        self.bits += storage.stored_bits(elements, form, self.element_bits) * weight.copies
        for path, box in collapse(weight):
            self.root.at(block_path(path)).add_weight(box, elements)

    def _count_flops(self, region: Graph, node: Node, turns: Size, inside: str) -> None:
        block = self._block_of(region, node, inside)  # asked of every node, to know which op reads a weight first
        rule = OPS[node.op].flops
        if rule is None:
            return
        types = [None if value is None else region.type(value) for value in node.inputs]
        each = rule(types, OPS[node.op].fill(node.attributes), node.types)
        number = evaluate(each, self.sizes) * evaluate(turns, self.sizes)
        self.flops[KINDS.get(node.op, "other")] += number
        self.root.at(starred(block)).own_flops += number
        if self.formula is not None:
            try:
                self.formula = self.formula + each * turns
            except DimError:  # a sum with too many terms to be of use
                self.formula = None

    def _block_of(self, region: Graph, node: Node, inside: str) -> str:
        """Where a node's operations count: its layer, which tied weights do not make that of another op."""
        for operand, value in zip(OPS[node.op].operands, node.inputs, strict=False):
            path = _weight_path(region, value) if operand.weight and value is not None else None
            if path is not None and self._owners.setdefault(path, node.op) == node.op:
                return block_path(path)
            if path is not None:
                return _join(inside, node.name or node.op)
        return _join(inside, node.op) if node.op in KINDS else inside

    def _note_largest(self, node: Node) -> None:
        if node.op in _NO_ACTIVATION:
            return
        for type_ in node.types:
            shape = tuple(evaluate(size, self.sizes) for size in type_.dims)
            if any(size < 0 for size in shape):
                shown = ", ".join(f"{name} = {number}" for name, number in self.sizes.items())
                raise one("T723", f"{node.op} would give {type_}, which is {list(shape)} with {shown}", node.span)
            if type_.dtype == "float" and product(shape) > (self.largest.elements if self.largest else 0):  # type: ignore[operator]
                self.largest = Largest(node.name or node.op, shape)


def _weight_path(region: Graph, value: Value) -> str | None:
    """The path of the weight that a value is, or is made of at build time."""
    node = region.node(value)
    while node.op in ("prune", "quantize", "dequantize"):
        (first, *_) = node.inputs
        assert first is not None
        node = region.node(first)
    return node.attributes["path"] if node.op == "weight" else None


def _join(base: str, name: str) -> str:
    return f"{base}.{name}" if base else name
