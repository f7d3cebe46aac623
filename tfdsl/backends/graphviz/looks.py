"""How each op looks, one line an op, under headings. Ops that are not here are boxes with their own names on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfdsl.ir.graph import Node
from tfdsl.ir.ops import OPS


@dataclass(frozen=True)
class Look:
    """`shape` is box, circle or folded (not drawn: its result comes straight from its first operand).

    `kind` chooses the colour. `constants` are places of operands that are left out where they are tables of numbers.
    """

    title: str
    kind: str = "plain"
    shape: str = "box"
    detail: Callable[[Node, Any], str] | None = None
    constants: tuple[int, ...] = ()


def _heads(node: Node, attributes: Any) -> str:
    heads = f"{node.type.dims[1]} heads"
    return f"{attributes.mask}, {heads}" if attributes.mask is not None else heads


def _kernel(node: Node, attributes: Any) -> str:
    kernel = attributes.kernel if isinstance(attributes.kernel, tuple) else (attributes.kernel,) * 2
    return " × ".join(map(str, kernel))


def _axis(node: Node, attributes: Any) -> str:
    return f"axis {attributes.axis}"


def _experts(node: Node, attributes: Any) -> str:
    frame = node.bodies[0].frame
    return f"{len(attributes.turns)} × {frame.block}" if frame is not None else str(len(attributes.turns))


FOLDED = Look("", shape="folded")

LOOKS: dict[str, Look] = {
    # parameters
    "linear": Look("Linear", "linear"),
    "embedding": Look("Embedding", "embedding"),
    "layer_norm": Look("LayerNorm", "norm"),
    "rms_norm": Look("RMSNorm", "norm"),
    "group_norm": Look("GroupNorm", "norm"),
    "conv1d": Look("Conv", "linear", detail=lambda n, a: str(a.kernel)),
    "conv2d": Look("Conv", "linear", detail=_kernel),
    # products
    "matmul": Look("MatMul", "linear"),
    "einsum": Look("Einsum", "linear", detail=lambda n, a: a.pattern),
    # attention
    "attend": Look("Attention", "attention", detail=_heads, constants=(4,)),
    "linear_attend": Look("Linear attention", "attention", detail=lambda n, a: f"{n.type.dims[1]} heads"),
    "rotate": Look("Rotary", "attention", constants=(1, 2)),
    # mixtures of experts
    "route": Look("Experts", "feed_forward", detail=_experts),
    # elementwise
    "add": Look("+", shape="circle"),
    "sub": Look("−", shape="circle"),
    "mul": Look("×", shape="circle"),
    "div": Look("÷", shape="circle"),
    "relu": Look("ReLU", "activation"),
    "gelu": Look("GELU", "activation"),
    "silu": Look("SiLU", "activation"),
    "sigmoid": Look("Sigmoid", "activation"),
    "tanh": Look("Tanh", "activation"),
    "softplus": Look("Softplus", "activation"),
    "erf": Look("Erf", "activation"),
    "exp": Look("Exp", "activation"),
    "where": Look("Where"),
    "cast": FOLDED,
    "dropout": FOLDED,
    "drop_path": FOLDED,
    # reductions
    "softmax": Look("Softmax", "activation"),
    "log_softmax": Look("Log-softmax", "activation"),
    "sum": Look("Sum", detail=_axis),
    "mean": Look("Mean", detail=_axis),
    "max": Look("Max", detail=_axis),
    "min": Look("Min", detail=_axis),
    "argmax": Look("Argmax", detail=_axis),
    "top_k": Look("Top-k", detail=lambda n, a: f"k = {a.k}"),
    # shape
    "rearrange": FOLDED,
    "split": FOLDED,
    "expand": FOLDED,
    "swap": FOLDED,
    "concat": Look("Concat", detail=_axis),
    "slice": Look("Slice", detail=_axis),
    "select": Look("Select", detail=lambda n, a: f"[{':, ' * a.axis}{a.index}]"),
    "gather": Look("Gather", detail=_axis),
    # made by passes; what they make is part of the layer that reads it
    "prune": FOLDED,
    "quantize": FOLDED,
    "dequantize": FOLDED,
}

OF_WEIGHTS = ("prune", "quantize", "dequantize")


def note_of(node: Node) -> list[str]:
    """What a pass that made the node has done to a weight, in a word."""
    attributes = OPS[node.op].fill(node.attributes)
    if node.op == "quantize":
        return [f"int{attributes.bits}"]
    if node.op == "prune":
        return [f"{attributes.pattern} sparse" if attributes.pattern else f"{attributes.sparsity:.0%} sparse"]
    return []


def look_of(node: Node) -> Look:
    """The look of a node's op."""
    return LOOKS.get(node.op) or Look(node.op.replace("_", " "))


def detail_of(node: Node) -> str:
    """The words below a node's title that its settings give, if any."""
    look = look_of(node)
    return look.detail(node, OPS[node.op].fill(node.attributes)) if look.detail else ""
