"""Small graphs over every op, as data: each backend runs them all against the reference.

`CASES` is the table. A case builds a graph by hand, with symbolic sizes, names the sizes to run it at, and the range of
those inputs that do not take any number. `random_inputs` and `trial_weights` fill a graph with numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfdsl.ir import dims, masks
from tfdsl.ir.dims import Size, symbol
from tfdsl.ir.graph import Graph, Initializer, Type, Value, weights

BATCH, SEQ, MEMORY = symbol("batch"), symbol("seq"), symbol("memory")
SIZES = (
    {"batch": 1, "seq": 1, "memory": 1},
    {"batch": 3, "seq": 1, "memory": 4},
    {"batch": 1, "seq": 7, "memory": 1},
    {"batch": 3, "seq": 5, "memory": 6},
)


class Flat:
    """A graph under construction, an op at a time."""

    def __init__(self, name: str = "case"):
        self.graph = Graph(name)

    def input(self, name: str, *shape: Size, dtype: str = "float") -> Value:
        return Value(self.graph.add("input", (), {"name": name}, (Type(dtype, shape),)).id)

    def weight(self, path: str, *shape: Size) -> Value:
        return self("weight", path=path, shape=shape, init=Initializer("normal", (0.5,)))

    def constant(self, value: Any, dtype: str) -> Value:
        return self("constant", value=value, dtype=dtype)

    def every(self, op: str, *inputs: Value | None, **attributes: Any) -> list[Value]:
        """All results of an op."""
        node = self.graph.add(op, inputs, attributes, name=op)
        return [Value(node.id, index) for index in range(len(node.types))]

    def __call__(self, op: str, *inputs: Value | None, **attributes: Any) -> Value:
        return self.every(op, *inputs, **attributes)[0]

    def give(self, *values: Value) -> Graph:
        """The graph, with these outputs."""
        self.graph.outputs = [(f"output_{place}" if place else "output", value) for place, value in enumerate(values)]
        return self.graph


@dataclass(frozen=True)
class Case:
    """A graph to run: `make` builds it; `ranges` gives `low, high` (high excluded for integers) of inputs by name."""

    name: str
    make: Callable[[], Graph]
    sizes: tuple[dict[str, int], ...] = SIZES
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


CASES: list[Case] = []


def random_inputs(
    graph: Graph, sizes: dict[str, int], seed: int, ranges: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """An array for each input: floats -2 .. 2, integers 0 .. 3 and bools, unless a range is given."""
    generator = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for place in graph.inputs:
        node = graph.node(place)
        name, shape = node.attributes["name"], tuple(dims.evaluate(size, sizes) for size in node.type.dims)
        if node.type.dtype == "float":
            made[name] = generator.uniform(*ranges.get(name, (-2, 2)), size=shape).astype(np.float32)
        elif node.type.dtype == "int":
            low, high = ranges.get(name, (0, 4))
            made[name] = generator.integers(int(low), int(high), size=shape)
        else:
            made[name] = generator.random(shape) < 0.5
    return made


def trial_weights(graph: Graph, seed: int) -> dict[str, Any]:
    """A float32 array for each weight path, with no zeros and no ones."""
    generator = np.random.default_rng(seed)
    return {
        path: generator.uniform(0.2, 0.9, size=weight.type.dims).astype(np.float32) - np.float32(0.41)
        for weight in weights(graph)
        for path in weight.paths()
    }


def case(name: str, **settings: Any) -> Callable[[Callable[[Flat], tuple[Value, ...] | Value]], None]:
    """Enter a function from an empty graph to its outputs into the table."""

    def enter(build: Callable[[Flat], tuple[Value, ...] | Value]) -> None:
        def make() -> Graph:
            flat = Flat(name)
            values = build(flat)
            return flat.give(*([values] if isinstance(values, Value) else values))

        CASES.append(Case(name, make, **settings))

    return enter


def hidden(f: Flat, name: str = "x", features: int = 8, dtype: str = "float") -> Value:
    """The usual input: [batch, seq, features]."""
    return f.input(name, BATCH, SEQ, features, dtype=dtype)


# --- parameters ------------------------------------------------------------------------------------------------------


@case("linear")
def _(f: Flat) -> Value:
    return f("linear", hidden(f), f.weight("fc.weight", 6, 8), f.weight("fc.bias", 6), out=6)


@case("linear_on_one_position")
def _(f: Flat) -> Value:
    return f("linear", f.input("x", 8), f.weight("fc.weight", 6, 8), f.weight("fc.bias", 6), out=6)


@case("linear_shared_by_two")
def _(f: Flat) -> tuple[Value, ...]:
    first = f("linear", hidden(f), f.weight("fc.weight", 8, 8), None, out=8)
    return first, f("linear", first, f.weight("fc.weight", 8, 8), f.weight("fc.bias", 8), out=8)


@case("embedding")
def _(f: Flat) -> Value:
    return f("embedding", f.input("ids", BATCH, SEQ, dtype="int"), f.weight("wte.weight", 4, 8), size=4, dim=8)


@case("embedding_tied_to_head")
def _(f: Flat) -> Value:
    table = f.weight("wte.weight", 4, 8)
    x = f("embedding", f.input("ids", BATCH, SEQ, dtype="int"), table, size=4, dim=8)
    return f("linear", x, table, None, out=4)


@case("weight_as_output")
def _(f: Flat) -> tuple[Value, ...]:
    return f("add", hidden(f), f.weight("offset", 1, 1, 8)), f.weight("offset", 1, 1, 8)


@case("layer_norm")
def _(f: Flat) -> Value:
    return f("layer_norm", hidden(f), f.weight("norm.weight", 8), f.weight("norm.bias", 8), eps=1e-3)


@case("layer_norm_without_bias")
def _(f: Flat) -> Value:
    return f("layer_norm", hidden(f), f.weight("norm.weight", 8), None, bias=False)


@case("layer_norm_without_weights")
def _(f: Flat) -> Value:
    return f("layer_norm", hidden(f), None, None, bias=False, scale=False)


@case("layer_norm_with_bias_alone")
def _(f: Flat) -> Value:
    return f("layer_norm", hidden(f), None, f.weight("norm.bias", 8), scale=False)


@case("rms_norm")
def _(f: Flat) -> Value:
    return f("rms_norm", hidden(f), f.weight("norm.weight", 8), eps=1e-2)


@case("rms_norm_without_weight_per_head")
def _(f: Flat) -> Value:
    return f("rms_norm", f.input("x", BATCH, 2, SEQ, 8), None, scale=False)


@case("norms_along_a_symbolic_axis")
def _(f: Flat) -> tuple[Value, ...]:
    x = f.input("x", BATCH, 4, SEQ)
    return f("rms_norm", x, None, scale=False), f("layer_norm", x, None, None, bias=False, scale=False)


@case("group_norm")
def _(f: Flat) -> Value:
    x = f.input("x", BATCH, 6, SEQ)
    return f("group_norm", x, f.weight("norm.weight", 6), f.weight("norm.bias", 6), groups=3)


@case("group_norm_of_images")
def _(f: Flat) -> Value:
    x = f.input("x", BATCH, 6, SEQ, 4)
    return f("group_norm", x, f.weight("norm.weight", 6), f.weight("norm.bias", 6), groups=2, eps=1e-3)


@case("conv1d")
def _(f: Flat) -> Value:
    x = f.input("x", BATCH, 4, SEQ)
    return f("conv1d", x, f.weight("conv.weight", 6, 4, 3), f.weight("conv.bias", 6), out=6, kernel=3, padding=1)


@case("conv1d_causal_grouped_dilated")
def _(f: Flat) -> Value:
    x = f.input("x", BATCH, 4, SEQ)
    kernel = f.weight("conv.weight", 4, 1, 3)
    return f("conv1d", x, kernel, None, out=4, kernel=3, padding=(4, 0), dilation=2, groups=4, bias=False)


@case("conv1d_strided")
def _(f: Flat) -> Value:
    x = f.input("x", BATCH, 4, SEQ)
    kernel = f.weight("conv.weight", 2, 4, 2)
    return f("conv1d", x, kernel, None, out=2, kernel=2, stride=2, padding=(0, 1), bias=False)


@case("conv2d")
def _(f: Flat) -> Value:
    x = f.input("image", BATCH, 3, 8, 4)
    return f("conv2d", x, f.weight("conv.weight", 5, 3, 4, 4), f.weight("conv.bias", 5), out=5, kernel=4, stride=4)


@case("conv2d_dilated")
def _(f: Flat) -> Value:
    x = f.input("image", BATCH, 3, SEQ, 8)
    kernel = f.weight("conv.weight", 2, 3, 2, 3)
    return f("conv2d", x, kernel, None, out=2, kernel=(2, 3), padding=(3, 0), dilation=(3, 2), bias=False)


@case("conv2d_uneven")
def _(f: Flat) -> Value:
    x = f.input("image", BATCH, 4, SEQ, 6)
    kernel = f.weight("conv.weight", 4, 2, 3, 2)
    return f("conv2d", x, kernel, None, out=4, kernel=(3, 2), stride=(1, 2), padding=(1, 0), groups=2, bias=False)


# --- products --------------------------------------------------------------------------------------------------------


@case("matmul")
def _(f: Flat) -> Value:
    return f("matmul", f.input("a", BATCH, 2, SEQ, 4), f.input("b", BATCH, 2, 4, MEMORY))


@case("matmul_broadcast")
def _(f: Flat) -> tuple[Value, ...]:
    a = hidden(f, "a", 4)
    return f("matmul", a, f.input("b", 4, 3)), f("matmul", a, f.weight("w", 2, 1, 4, 5))


@case("einsum")
def _(f: Flat) -> Value:
    q, k = f.input("q", BATCH, 2, SEQ, 4), f.input("k", BATCH, 2, MEMORY, 4)
    return f("einsum", q, k, pattern="b h s d, b h t d -> b h s t")


@case("einsum_of_long_names_and_three_operands")
def _(f: Flat) -> Value:
    x, y = f.input("x", BATCH, SEQ, 3), f.input("y", SEQ, 4)
    return f("einsum", x, y, f.weight("w", 3, 4, 5), pattern="batch seq in, seq rank, in rank out -> seq batch out")


@case("einsum_of_one")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    return f("einsum", x, pattern="b s d -> d b"), f("einsum", x, pattern="b s d -> s d b")


# --- attention -------------------------------------------------------------------------------------------------------


def qkv(f: Flat, heads: int = 4, groups: int = 4, keys: Size = SEQ, out: int = 8) -> tuple[Value, Value, Value]:
    """Queries [batch, heads, seq, 8], keys and values [batch, groups, keys, 8 or out]."""
    return (
        f.input("q", BATCH, heads, SEQ, 8),
        f.input("k", BATCH, groups, keys, 8),
        f.input("v", BATCH, groups, keys, out),
    )


def attend(f: Flat, *inputs: Value | None, **attributes: Any) -> Value:
    """`attend` with its absent optional operands filled in."""
    return f("attend", *inputs, *[None] * (6 - len(inputs)), **attributes)


@case("attend")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f))


@case("attend_causal")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f), mask=masks.CAUSAL, drop=0.1)


@case("attend_causal_across")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, keys=MEMORY), mask=masks.CAUSAL)


@case("attend_grouped")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=2), mask=masks.CAUSAL)


@case("attend_one_group_across")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=1, keys=MEMORY), scale=1.0)


@case("attend_wider_values")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=2, out=6), mask=masks.CAUSAL)


@case("attend_scale_and_softcap")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f), mask=masks.CAUSAL, scale=0.7, softcap=1.5)


@case("attend_bias")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, keys=MEMORY), f.input("bias", 1, 4, SEQ, MEMORY), scale=1.0)


@case("attend_bias_softcap_causal")
def _(f: Flat) -> Value:
    bias = f.input("bias", BATCH, 4, SEQ, MEMORY)
    return attend(f, *qkv(f, keys=MEMORY), bias, mask=masks.CAUSAL, softcap=1.0)


@case("attend_bias_of_heads_alone")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=2), f.weight("slopes", 4, 1, 1))


@case("attend_bias_of_few_axes")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=2, keys=MEMORY), f.input("bias", SEQ, MEMORY), softcap=2.0)


@case("attend_allowed_rows_may_be_empty")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, keys=MEMORY), None, f.input("allowed", BATCH, 1, SEQ, MEMORY, dtype="bool"))


@case("attend_allowed_keys")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=2, keys=MEMORY), None, f.input("allowed", BATCH, 1, 1, MEMORY, dtype="bool"))


@case("attend_allowed_causal_bias_softcap")
def _(f: Flat) -> Value:
    allowed = f.input("allowed", BATCH, 1, SEQ, SEQ, dtype="bool")
    bias = f.input("bias", 4, SEQ, SEQ)
    return attend(f, *qkv(f, groups=2), bias, allowed, mask=masks.CAUSAL, softcap=1.5)


@case("attend_sinks")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=2), None, None, f.weight("sinks", 4), mask=masks.CAUSAL)


@case("attend_sinks_with_everything")
def _(f: Flat) -> Value:
    allowed = f.input("allowed", BATCH, 1, SEQ, MEMORY, dtype="bool")
    bias = f.input("bias", 1, 4, SEQ, MEMORY)
    sinks = f.weight("sinks", 4)
    return attend(f, *qkv(f, groups=2, keys=MEMORY, out=6), bias, allowed, sinks, scale=0.5, softcap=1.5)


@case("attend_window")
def _(f: Flat) -> Value:
    return attend(f, *qkv(f, groups=2), mask=masks.Joined("&", masks.CAUSAL, masks.Term("window", (3,))))


@case("attend_padding")
def _(f: Flat) -> Value:
    keep = f.input("keep", BATCH, SEQ, dtype="bool")
    mask = masks.Joined("&", masks.CAUSAL, masks.Term("padding", (), 0))
    return f("attend", *qkv(f), None, None, None, keep, mask=mask)


@case("attend_prefix_of_each", ranges={"length": (0, 6)})
def _(f: Flat) -> Value:
    length = f.input("length", BATCH, dtype="int")
    mask = masks.Joined("|", masks.CAUSAL, masks.Term("prefix", (), 0))
    inputs = (*qkv(f), None, None, None, length)
    return f("add", f("attend", *inputs, mask=masks.Term("prefix", (), 0)), f("attend", *inputs, mask=mask))


@case("attend_random_blocks", sizes=(*SIZES, {"batch": 2, "seq": 50, "memory": 23}))
def _(f: Flat) -> tuple[Value, ...]:
    inputs = qkv(f)
    near = masks.Joined("|", masks.Term("window", (2,)), masks.Term("random_blocks", (2, 3, 7)))
    memory = f.input("k2", BATCH, 4, MEMORY, 8), f.input("v2", BATCH, 4, MEMORY, 8)
    return (
        attend(f, *inputs, mask=near),
        attend(f, inputs[0], *memory, mask=masks.Term("random_blocks", (1, 4, 123_456_789))),
        attend(f, *inputs, mask=masks.Joined("&", masks.CAUSAL, masks.Term("random_blocks", (3, 2, 0)))),
    )


@case("attend_documents_or_prefix")
def _(f: Flat) -> Value:
    ids = f.input("ids", BATCH, SEQ, dtype="int")
    mask = masks.Joined("|", masks.Term("documents", (), 0), masks.Negated(masks.Term("prefix", (2,))))
    return f("attend", *qkv(f), None, None, None, ids, mask=mask)


@case("attend_strided_blocks_global")
def _(f: Flat) -> Value:
    local = masks.Joined("|", masks.Term("strided", (2,)), masks.Term("blocks", (3,)))
    return attend(f, *qkv(f), mask=masks.Joined("&", local, masks.Negated(masks.Term("global_tokens", (1,)))))


@case("rotate")
def _(f: Flat) -> Value:
    return f("rotate", f.input("x", BATCH, 2, SEQ, 8), f.input("cos", SEQ, 4), f.input("sin", SEQ, 4))


@case("rotate_interleaved")
def _(f: Flat) -> Value:
    x = f.input("x", BATCH, 2, SEQ, 8)
    return f("rotate", x, f.input("cos", SEQ, 4), f.input("sin", SEQ, 4), interleaved=True)


@case("rotate_some_features_by_batch")
def _(f: Flat) -> Value:
    return f("rotate", f.input("x", BATCH, 2, SEQ, 8), f.input("cos", BATCH, SEQ, 3), f.input("sin", BATCH, SEQ, 3))


@case("rotate_some_features_interleaved")
def _(f: Flat) -> Value:
    x = f.input("x", BATCH, 2, SEQ, 8)
    return f("rotate", x, f.input("cos", SEQ, 2), f.input("sin", SEQ, 2), interleaved=True)


@case("rotate_of_other_ranks")
def _(f: Flat) -> tuple[Value, ...]:
    cos, sin = f.input("cos", SEQ, 2), f.input("sin", SEQ, 2)
    by_batch = f.input("cos_b", BATCH, SEQ, 2), f.input("sin_b", BATCH, SEQ, 2)
    return (
        f("rotate", f.input("x2", SEQ, 4), cos, sin),
        f("rotate", f.input("x3", BATCH, SEQ, 6), cos, sin, interleaved=True),
        f("rotate", f.input("x3b", BATCH, SEQ, 4), *by_batch),
        f("rotate", f.input("x5", BATCH, 2, 3, SEQ, 4), *by_batch),
        f("rotate", f.input("x5b", BATCH, 2, 3, SEQ, 5), cos, sin),
    )


@case("rotate_by_one_batch")
def _(f: Flat) -> Value:
    return f("rotate", f.input("x", BATCH, 2, SEQ, 8), f.input("cos", 1, SEQ, 4), f.input("sin", 1, SEQ, 4))


@case("positions")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    return f("positions", x, axis=1), f("positions", x, axis=2), f("positions", x, axis=0)


def _linear(f: Flat, *heads: int) -> tuple[Value, ...]:
    features = (3, 3, 5)
    return tuple(f.input(n, BATCH, h, SEQ, d) for n, h, d in zip("qkv", heads, features, strict=True))


LONG = (*SIZES, {"batch": 2, "seq": 150, "memory": 1})


@case("linear_attend", sizes=LONG)
def _(f: Flat) -> Value:
    return f("linear_attend", *_linear(f, 2, 2, 2), None)


@case("linear_attend_with_decay", sizes=LONG, ranges={"decay": (-2, 0)})
def _(f: Flat) -> Value:
    return f("linear_attend", *_linear(f, 4, 2, 1), f.input("decay", BATCH, 4, SEQ))


@case("linear_attend_by_feature", sizes=LONG, ranges={"decay": (-2, 0)})
def _(f: Flat) -> Value:
    return f("linear_attend", *_linear(f, 1, 4, 2), f.input("decay", BATCH, 4, SEQ, 3))


@case("linear_attend_forgets", sizes=LONG, ranges={"decay": (-60, -20)})
def _(f: Flat) -> tuple[Value, ...]:
    q, k, v = _linear(f, 1, 1, 2)
    steady = f.input("decay", 2, 1)
    return f("linear_attend", q, k, v, steady), f("linear_attend", q, k, v, f("mul", steady, f.constant(0.01, "float")))


# --- elementwise -----------------------------------------------------------------------------------------------------


_SMOOTH = ("exp", "sin", "cos", "tanh", "sigmoid", "relu", "silu", "softplus", "erf", "gelu")


def _enter_elementwise() -> None:
    for op in (*_SMOOTH, "neg", "abs", "floor"):
        case(op)(lambda f, op=op: f(op, hidden(f)))
    for op in ("log", "sqrt"):
        case(op, ranges={"x": (0.1, 3)})(lambda f, op=op: f(op, hidden(f)))
    for op in ("neg", "abs"):
        case(f"{op}_of_integers", ranges={"x": (-4, 5)})(lambda f, op=op: f(op, hidden(f, dtype="int")))
    for op in ("add", "sub", "mul", "maximum", "minimum", "div"):
        case(op, ranges={"b": (0.5, 2)})(lambda f, op=op: f(op, hidden(f, "a"), f.input("b", SEQ, 1)))
    for op in ("add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"):
        case(f"{op}_of_integers", ranges={"a": (-3, 4), "b": (-3, 4)})(
            lambda f, op=op: f(op, f.input("a", BATCH, 1, dtype="int"), f.input("b", SEQ, dtype="int"))
        )
    for op in ("floordiv", "mod"):
        case(op, ranges={"a": (-9, 10)})(
            lambda f, op=op: tuple(
                f(op, a, f.constant(divisor, "int"))
                for a in [f.input("a", BATCH, SEQ, dtype="int")]
                for divisor in (1, 3, -4)
            )
        )
    for op in ("eq", "ne", "lt", "le", "gt", "ge"):
        case(op)(lambda f, op=op: (f(op, hidden(f, "a"), f.input("b", SEQ, 8)), f(op, *[f.input("c", BATCH)] * 2)))
    for op in ("both", "either"):
        case(op)(lambda f, op=op: f(op, f.input("a", BATCH, 1, 4, dtype="bool"), f.input("b", SEQ, 4, dtype="bool")))


_enter_elementwise()


@case("gelu_approximate")
def _(f: Flat) -> Value:
    return f("gelu", hidden(f), approximate=True)


@case("pow", ranges={"a": (0.2, 2)})
def _(f: Flat) -> tuple[Value, ...]:
    a = hidden(f, "a")
    return f("pow", a, f.input("b", SEQ, 8)), f("pow", a, f.constant(2.0, "float"))


@case("square_written_as_a_product")
def _(f: Flat) -> Value:
    x = hidden(f)
    return f("mul", x, x)


@case("negate")
def _(f: Flat) -> Value:
    return f("negate", f.input("x", BATCH, SEQ, dtype="bool"))


@case("where")
def _(f: Flat) -> tuple[Value, ...]:
    condition = f.input("condition", SEQ, 1, dtype="bool")
    some = f("where", condition, hidden(f, "a"), f.constant(-1.0, "float"))
    flags = f.input("p", BATCH, SEQ, 1, dtype="bool"), f.input("q", SEQ, 8, dtype="bool")
    whole = f("where", condition, f.input("m", BATCH, 1, 1, dtype="int"), f.input("n", SEQ, 8, dtype="int"))
    return some, f("where", condition, *flags), whole


@case("cast", ranges={"x": (-3, 3), "n": (-3, 4)})
def _(f: Flat) -> tuple[Value, ...]:
    x, n, p = hidden(f), f.input("n", SEQ, dtype="int"), f.input("p", BATCH, dtype="bool")
    return (
        f("cast", x, to="int"),
        f("cast", n, to="float"),
        f("cast", n, to="bool"),
        f("cast", p, to="float"),
        f("cast", p, to="int"),
        f("cast", x, to="bool"),
        f("cast", x, to="float"),
    )


@case("constants")
def _(f: Flat) -> tuple[Value, ...]:
    x, n = hidden(f), f.input("n", BATCH, dtype="int")
    return (
        f("mul", x, f.constant(0.5, "float")),
        f("add", n, f.constant(3, "int")),
        f("either", f("gt", n, f.constant(1, "int")), f.constant(False, "bool")),
        f("div", x, f("sqrt", f.constant(SEQ, "float"))),
        f("add", n, f.constant(SEQ * BATCH - 1, "int")),
    )


@case("constants_of_derived_sizes")
def _(f: Flat) -> tuple[Value, ...]:
    n = f.input("n", BATCH, SEQ, dtype="int")
    half = dims.divide(SEQ * (SEQ + 1), 2)
    derived = (
        half,
        dims.floor(SEQ, 2),
        dims.floor(BATCH - SEQ, 2),
        dims.remainder(BATCH - SEQ, 3),
        dims.minimum(SEQ, BATCH + 1),
        dims.maximum(SEQ, 3) * 2 - BATCH,
        dims.floor(BATCH * 5 - SEQ * 7, SEQ + 1),
    )
    return tuple(f("add", n, f.constant(size, "int")) for size in derived)


@case("dropout")
def _(f: Flat) -> Value:
    return f("dropout", f("drop_path", hidden(f), p=0.2), p=0.1)


# --- reductions ------------------------------------------------------------------------------------------------------


def _enter_reductions() -> None:
    for op in ("softmax", "log_softmax", "cumsum"):
        case(op)(lambda f, op=op: tuple(f(op, x, axis=axis) for x in [hidden(f)] for axis in (0, 1, 2)))
    for op in ("sum", "mean", "max", "min"):
        case(op)(
            lambda f, op=op: tuple(
                f(op, x, axis=axis, keep=keep) for x in [hidden(f)] for axis in (0, 1, 2) for keep in (False, True)
            )
        )
    for op in ("sum", "max", "min", "cumsum"):
        case(f"{op}_of_integers", ranges={"x": (-4, 5)})(lambda f, op=op: f(op, hidden(f, dtype="int"), axis=1))


_enter_reductions()


@case("argmax")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    ties = f("cast", f.input("n", BATCH, SEQ, dtype="int"), to="float")
    return f("argmax", x, axis=2), f("argmax", x, axis=1), f("argmax", ties, axis=1)


@case("top_k")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    return (*f.every("top_k", x, k=3, axis=2), *f.every("top_k", x, k=1, axis=1))


@case("top_k_of_all")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    half = dims.floor(SEQ + 1, 2)
    return (*f.every("top_k", x, k=SEQ, axis=1), *f.every("top_k", x, k=half, axis=1))


# --- shape -----------------------------------------------------------------------------------------------------------


@case("rearrange_heads")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f, features=12)
    apart = f("rearrange", x, pattern="b s (h d) -> b h s d", sizes={"h": 3})
    return apart, f("rearrange", apart, pattern="b h s d -> b s (h d)")


@case("rearrange_merging_symbols")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f, features=6)
    return (
        f("rearrange", x, pattern="b s d -> (b s) d"),
        f("rearrange", x, pattern="b s (three d) -> three (s b) d", sizes={"three": 3}),
        f("rearrange", x, pattern="b s d -> (d s b)"),
        f("rearrange", x, pattern="b s d -> b 1 (d s) 1"),
        f("rearrange", x, pattern="... d -> d ..."),
    )


@case("rearrange_splitting_symbols", sizes=({"batch": 1, "seq": 2}, {"batch": 3, "seq": 6}))
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    merged = f("rearrange", x, pattern="b s d -> (b s) d")
    return (
        f("rearrange", x, pattern="b (n two) d -> (b n) two d", sizes={"two": 2}),
        f("rearrange", merged, pattern="(b s) d -> s b d", sizes={"b": BATCH}),
        f("rearrange", x, pattern="b (n two) d -> b n (two d)", sizes={"two": 2}),
        f("rearrange", x, pattern="b (n two) d -> n b two d", sizes={"two": 2}),
    )


@case("rearrange_images", sizes=({"batch": 1, "seq": 2}, {"batch": 3, "seq": 4}))
def _(f: Flat) -> Value:
    x = f.input("image", BATCH, 3, SEQ, 6)
    return f("rearrange", x, pattern="b c (h p) (w q) -> b (h w) (p q c)", sizes={"p": 2, "q": 3})


@case("split")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f, features=6)
    return (
        *f.every("split", x, parts=3, axis=2),
        *f.every("split", x, sizes=(1, 5), axis=2),
        *f.every("split", x, parts=6, axis=2, squeeze=True),
    )


@case("split_of_a_symbol", sizes=({"batch": 1, "seq": 2}, {"batch": 3, "seq": 6}))
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f, features=3)
    doubled = f("concat", x, x, axis=1)
    return (*f.every("split", x, parts=2, axis=1), *f.every("split", doubled, sizes=(SEQ - 1, SEQ + 1), axis=1))


@case("concat")
def _(f: Flat) -> tuple[Value, ...]:
    x, y = hidden(f), f.input("y", BATCH, 2, 8)
    n = f.input("n", SEQ, dtype="int")
    return f("concat", x, y, x, axis=1), f("concat", x, axis=2), f("concat", n, f("positions", x, axis=0), axis=0)


@case("slice")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    return (
        f("slice", x, axis=2, start=2, stop=7, step=2),
        f("slice", x, axis=2, start=1),
        f("slice", x, axis=1, stop=SEQ, step=2),
        f("slice", x, axis=1, start=SEQ - 1),
        f("slice", x, axis=2, start=0, stop=5),
    )


@case("select")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    return (
        f("select", x, axis=1, index=0),
        f("select", x, axis=2, index=5),
        f("select", x, axis=1, index=-1),
        f("select", x, axis=1, index=SEQ - 1),
        f("select", f.input("p", SEQ, dtype="bool"), axis=0, index=0),
    )


@case("pad")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    n = f.input("n", BATCH, SEQ, dtype="int")
    return (
        f("pad", x, axis=1, before=2),
        f("pad", x, axis=2, before=1, after=3, value=-1.5),
        f("pad", n, axis=1, after=1, value=7),
        f("pad", x, axis=0, after=SEQ),
        f("pad", f.input("p", SEQ, dtype="bool"), axis=0, before=1, value=1),
    )


@case("expand")
def _(f: Flat) -> tuple[Value, ...]:
    x = f.input("x", SEQ, 1)
    hidden(f, "y")
    return (
        f("expand", x, shape=(SEQ, 5)),
        f("expand", x, shape=(BATCH, SEQ, 3)),
        f("expand", f.weight("cls", 1, 1, 8), shape=(BATCH, 1, 8)),
        f("expand", f.constant(1.5, "float"), shape=(BATCH, SEQ * 2)),
        f("expand", f.constant(True, "bool"), shape=(SEQ,)),
        f("expand", f.weight("row", 8), shape=(2, 8)),
    )


@case("swap")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    return f("swap", x, first=2, second=1), f("swap", x, first=0, second=2)


@case("roll")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    return (
        f("roll", x, shift=1, axis=1),
        f("roll", x, shift=-1, axis=1),
        f("roll", x, shift=3, axis=2),
        f("roll", x, shift=-11, axis=2),
        f("roll", x, shift=9, axis=1),
        f("roll", x, shift=0, axis=1),
    )


@case("gather", ranges={"index": (0, 4)})
def _(f: Flat) -> tuple[Value, ...]:
    index = f.input("index", BATCH, SEQ, dtype="int")
    x = f.input("x", SEQ, 4, 3)
    return f("gather", f.weight("table", 4, 3), index, axis=0), f("gather", x, index, axis=1)


@case("take_along", ranges={"index": (0, 8)})
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    chosen = f.every("top_k", x, k=2, axis=2)[1]
    return f("take_along", x, chosen, axis=2), f("take_along", x, f.input("index", BATCH, SEQ, 5, dtype="int"), axis=2)


@case("one_hot", ranges={"n": (0, 5)})
def _(f: Flat) -> Value:
    return f("one_hot", f.input("n", BATCH, SEQ, dtype="int"), classes=5)


@case("iota")
def _(f: Flat) -> tuple[Value, ...]:
    hidden(f)
    return f("iota", size=5), f("iota", size=SEQ), f("iota", size=SEQ * 2 + BATCH)


@case("tensor", ranges={"n": (0, 3)})
def _(f: Flat) -> tuple[Value, ...]:
    x, n = hidden(f), f.input("n", BATCH, SEQ, dtype="int")
    long = f("tensor", values=tuple(tuple(place + 0.5 * row for place in range(8)) for row in range(3)))
    whole = f("tensor", values=(-1, 0, 7, 1, 2, 3, 4, 2**20))
    odd = f("tensor", values=(True, False) * 4)
    return f("add", x, f("gather", long, n, axis=0)), f("where", odd, x, f("cast", whole, to="float")), whole, odd, long


# --- loops and what is computed at build time ------------------------------------------------------------------------


def _turn(path: str, features: int = 8) -> Graph:
    """The body of a loop over `x` with one outer value: x + linear(x) * outer."""
    f = Flat("turn")
    x, outer = hidden(f, "x", features), hidden(f, "outer", features)
    y = f("linear", x, f.weight(f"{path}.weight", features, features), None, out=features)
    return f.give(f("add", x, f("mul", y, outer)))


@case("repeat")
def _(f: Flat) -> Value:
    x = hidden(f)
    outer = f("sigmoid", x)
    bodies = (_turn("h.*.even"), _turn("h.*.odd"))
    attributes = {"turns": (0, 1, 0), "carried": 1, "path": "h", "index": "i"}
    node = f.graph.add("repeat", (x, outer), attributes, (f.graph.type(x),), bodies=bodies)
    return Value(node.id)


@case("repeat_of_no_turns")
def _(f: Flat) -> Value:
    x = hidden(f)
    attributes = {"turns": (), "carried": 1, "path": "h", "index": "i"}
    node = f.graph.add("repeat", (x, x), attributes, (f.graph.type(x),))
    return f("neg", Value(node.id))


def _expert(captured: bool = False) -> Graph:
    """An expert over rows [batch * seq, 8], which may read one outer value: linear(x) * scale."""
    f = Flat("experts.*")
    x = f.input("x", BATCH * SEQ, 8)
    y = f("linear", x, f.weight("experts.*.up.weight", 6, 8), f.weight("experts.*.up.bias", 6), out=6)
    y = f("gelu", y)
    return f.give(f("mul", y, f.input("scale", 6)) if captured else y)


@case("route", ranges={"chosen": (-1, 5)})
def _(f: Flat) -> tuple[Value, ...]:
    x = f.input("x", BATCH * SEQ, 8)
    hidden(f, "y")
    chosen, weight = f.input("chosen", BATCH * SEQ, 3, dtype="int"), f.input("weight", BATCH * SEQ, 3)
    attributes = {"turns": (0,) * 4, "path": "experts"}
    types = (Type("float", (BATCH * SEQ, 6)),)
    plain = f.graph.add("route", (x, chosen, weight), attributes, types, bodies=(_expert(),))
    scale = f.input("scale", 6)
    inputs = (x, chosen, weight, scale)
    other = f.graph.add("route", inputs, attributes, types, bodies=(_expert(captured=True),))
    return Value(plain.id), Value(other.id)


@case("quantized_linear")
def _(f: Flat) -> Value:
    q, scale = f.every("quantize", f.weight("fc.weight", 6, 8), bits=8)
    return f("linear", hidden(f), f("dequantize", q, scale), None, out=6)


@case("quantized_linear_in_groups_of_four_bits")
def _(f: Flat) -> Value:
    q, scale = f.every("quantize", f.weight("fc.weight", 6, 32), bits=4, group=16)
    return f("linear", hidden(f, features=32), f("dequantize", q, scale), f.weight("fc.bias", 6), out=6)


@case("quantized_embedding_tied_to_head")
def _(f: Flat) -> Value:
    q, scale = f.every("quantize", f.weight("wte.weight", 4, 8), bits=8)
    table = f("dequantize", q, scale)
    x = f("embedding", f.input("ids", BATCH, SEQ, dtype="int"), table, size=4, dim=8)
    return f("linear", x, table, None, out=4)


@case("quantized_convolution")
def _(f: Flat) -> Value:
    q, scale = f.every("quantize", f.weight("conv.weight", 6, 4, 3), bits=4)
    x = f.input("x", BATCH, 4, SEQ)
    return f("conv1d", x, f("dequantize", q, scale), None, out=6, kernel=3, padding=1, bias=False)


@case("pruned_linear")
def _(f: Flat) -> tuple[Value, ...]:
    x = hidden(f)
    some = f("prune", f.weight("a.weight", 6, 8), sparsity=0.4)
    half = f("prune", f.weight("b.weight", 6, 8), sparsity=0.5, pattern="2:4")
    return f("linear", x, some, None, out=6), f("linear", x, half, None, out=6)


@case("pruned_and_quantized_linear")
def _(f: Flat) -> Value:
    q, scale = f.every("quantize", f("prune", f.weight("fc.weight", 6, 8), sparsity=0.5), bits=8)
    return f("linear", hidden(f), f("dequantize", q, scale), None, out=6)
