"""The reference backend: every op against an independent computation, then the edges, loops and checks of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdsl import SpecError
from tfdsl.backends.reference import run
from tfdsl.ir import masks
from tfdsl.ir.dims import divide, remainder, symbol
from tfdsl.ir.graph import Constraint, Graph, Initializer, Type, Value
from tfdsl.ir.ops import OPS
from tfdsl.ir.states import WITH_PATH

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
KINDS = {"f": "float", "i": "int", "b": "bool"}


def single(op: str, operands: tuple[Array | None, ...], attributes: dict[str, Any]) -> tuple[Graph, dict[str, Array]]:
    """A graph of one op over inputs x0, x1, ..., all of whose results are outputs y0, y1, ...; and its inputs."""
    graph = Graph("single")
    inputs: dict[str, Array] = {}
    values: list[Value | None] = []
    for place, array in enumerate(operands):
        if array is None:
            values.append(None)
            continue
        name = f"x{place}"
        inputs[name] = array
        values.append(Value(graph.add("input", (), {"name": name}, (Type(KINDS[array.dtype.kind], array.shape),)).id))
    fixed = [operand for operand in OPS[op].operands if not operand.variadic]
    values += [None] * (len(fixed) - len(values))
    node = graph.add(op, values, attributes)
    graph.outputs = [(f"y{index}", Value(node.id, index)) for index in range(len(node.types))]
    return graph, inputs


def apply(op: str, *operands: Array | None, **attributes: Any) -> list[Array]:
    """The results of one op; their shapes and element types are held against the op's rule."""
    graph, inputs = single(op, operands, attributes)
    results = list(run(graph, {}, inputs).values())
    for result, (_, value) in zip(results, graph.outputs, strict=True):
        assert result.shape == graph.type(value).dims
        assert KINDS[result.dtype.kind] == graph.type(value).dtype
        assert result.dtype in (np.float64, np.int64, np.bool_)
    return results


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape)


def whole(low: int, high: int, *shape: int) -> Array:
    return RANDOM.integers(low, high, shape)


def torches(operands: tuple[Array | None, ...]) -> list[torch.Tensor | None]:
    return [None if each is None else torch.from_numpy(np.ascontiguousarray(each)) for each in operands]


# --- every op, against torch in float64 ------------------------------------------------------------------------------

Case = tuple[tuple[Array | None, ...], dict[str, Any], Callable[..., Any]]
X, W, B = normal(2, 3, 8), normal(5, 8), normal(5)
POSITIVE = np.abs(normal(3, 4)) + 0.1
INTS, DIVISORS = whole(-9, 9, 3, 4), np.array([3, -4, 5, -2])
BOOLS, OTHER_BOOLS = normal(3, 4) > 0, normal(4) > 0
Q, K, V = normal(2, 4, 3, 6), normal(2, 2, 5, 6), normal(2, 2, 5, 7)
COS, SIN = np.cos(normal(3, 2)), np.sin(normal(3, 2))


def sdpa(q: Any, k: Any, v: Any, bias: Any = None, allowed: Any = None, sinks: Any = None, *, scale: Any = None) -> Any:
    mask = bias if allowed is None else torch.zeros(()).masked_fill(~allowed, -math.inf) + (0 if bias is None else bias)
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)


def rotated(x: Any, cos: Any, sin: Any) -> Any:
    """Rotation by multiplying complex numbers."""
    half = cos.shape[-1]
    turned = torch.complex(x[..., :half], x[..., half : 2 * half]) * torch.complex(cos, sin)
    return torch.cat([turned.real, turned.imag, x[..., 2 * half :]], dim=-1)


def rotated_neighbours(x: Any, cos: Any, sin: Any) -> Any:
    half = cos.shape[-1]
    pairs = torch.view_as_complex(x[..., : 2 * half].unflatten(-1, (half, 2)).contiguous())
    turned = torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2)
    return torch.cat([turned, x[..., 2 * half :]], dim=-1)


def group_norm(x: Any, weight: Any, bias: Any) -> Any:
    return F.group_norm(x, 3, weight, bias, 1e-4)


CASES: dict[str, list[Case]] = {
    "linear": [((X, W, B), {"out": 5}, F.linear), ((X, W, None), {"out": 5, "bias": False}, F.linear)],
    "embedding": [((whole(0, 5, 2, 3), W), {"size": 5, "dim": 8}, F.embedding)],
    "layer_norm": [
        ((X, B8 := normal(8), normal(8)), {"eps": 1e-3}, lambda x, w, b: F.layer_norm(x, (8,), w, b, 1e-3)),
        ((X, None, None), {"scale": False, "bias": False}, lambda x, w, b: F.layer_norm(x, (8,))),
    ],
    "rms_norm": [
        ((X, B8), {"eps": 1e-3}, lambda x, w: F.rms_norm(x, (8,), w, 1e-3)),
        ((X, None), {"scale": False}, lambda x, w: F.rms_norm(x, (8,), None, 1e-6)),
    ],
    "group_norm": [
        ((normal(2, 6), normal(6), normal(6)), {"groups": 3, "eps": 1e-4}, group_norm),
        ((normal(2, 6, 3, 2), normal(6), normal(6)), {"groups": 3, "eps": 1e-4}, group_norm),
    ],
    "conv1d": [
        (
            (normal(2, 4, 9), normal(6, 2, 3), normal(6)),
            {"out": 6, "kernel": 3, "stride": 2, "padding": (3, 1), "dilation": 2, "groups": 2},
            lambda x, w, b: F.conv1d(F.pad(x, (3, 1)), w, b, stride=2, dilation=2, groups=2),
        ),
        (
            (normal(2, 4, 9), normal(4, 1, 4), None),
            {"out": 4, "kernel": 4, "padding": 2, "groups": 4, "bias": False},
            lambda x, w, b: F.conv1d(x, w, b, padding=2, groups=4),
        ),
    ],
    "conv2d": [
        (
            (normal(2, 4, 9, 8), normal(6, 2, 3, 2), normal(6)),
            {"out": 6, "kernel": (3, 2), "stride": (2, 3), "padding": (1, 0), "groups": 2},
            lambda x, w, b: F.conv2d(x, w, b, stride=(2, 3), padding=(1, 0), groups=2),
        ),
        (
            (normal(1, 3, 8, 8), normal(5, 3, 4, 4), None),
            {"out": 5, "kernel": 4, "stride": 4, "bias": False},
            lambda x, w, b: F.conv2d(x, w, b, stride=4),
        ),
        (
            (normal(2, 3, 9, 8), normal(4, 3, 3, 2), None),
            {"out": 4, "kernel": (3, 2), "stride": 2, "dilation": (2, 3), "bias": False},
            lambda x, w, b: F.conv2d(x, w, b, stride=2, dilation=(2, 3)),
        ),
    ],
    "matmul": [
        ((normal(3, 1, 2, 4), normal(5, 4, 3)), {}, torch.matmul),
        ((normal(2, 4), normal(4, 3)), {}, torch.matmul),
    ],
    "einsum": [
        ((Q, Q), {"pattern": "b h s d, b h t d -> b h s t"}, lambda a, b: torch.einsum("bhsd,bhtd->bhst", a, b)),
        ((X,), {"pattern": "batch seq width -> width batch"}, lambda x: torch.einsum("abc->ca", x)),
    ],
    "attend": [
        ((Q, K, V), {}, sdpa),
        ((Q, K, V, normal(4, 3, 5)), {"scale": 0.7}, lambda *x: sdpa(*x, scale=0.7)),
        ((Q, K, V, normal(2, 1, 3, 5), np.tril(np.ones((3, 5), bool), 1)), {}, sdpa),
        ((Q, Q, Q), {"mask": masks.CAUSAL}, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        (
            (Q, K, V, normal(3, 5), None, normal(4)),
            {"softcap": 2.0},
            lambda q, k, v, bias, _, sinks: (
                torch.softmax(
                    torch.cat(
                        [
                            2 * torch.tanh(q @ k.repeat_interleave(2, 1).mT / math.sqrt(6) / 2) + bias,
                            sinks[None, :, None, None].expand(2, 4, 3, 1),
                        ],
                        dim=-1,
                    ),
                    dim=-1,
                )[..., :-1]
                @ v.repeat_interleave(2, 1)
            ),
        ),
    ],
    "rotate": [
        ((normal(2, 4, 3, 6), COS, SIN), {}, rotated),
        ((normal(3, 4), COS, SIN), {"interleaved": True}, rotated_neighbours),
        (
            (normal(2, 4, 3, 6), np.stack([COS, SIN]), np.stack([SIN, COS])),
            {"interleaved": True},
            lambda x, cos, sin: rotated_neighbours(x, cos[:, None], sin[:, None]),
        ),
    ],
    "positions": [((X,), {"axis": 1}, lambda x: torch.arange(3))],
    "gelu": [((X * 4,), {}, F.gelu), ((X * 4,), {"approximate": True}, lambda x: F.gelu(x, approximate="tanh"))],
    "neg": [((X,), {}, torch.neg), ((INTS,), {}, torch.neg)],
    "abs": [((X,), {}, torch.abs), ((INTS,), {}, torch.abs)],
    "floor": [((X * 5,), {}, torch.floor)],
    "log": [((POSITIVE,), {}, torch.log)],
    "sqrt": [((POSITIVE,), {}, torch.sqrt)],
    "div": [((INTS * 1.5, POSITIVE), {}, torch.div)],
    "pow": [((POSITIVE, normal(4)), {}, torch.pow)],
    "floordiv": [((INTS, DIVISORS), {}, torch.floor_divide)],
    "mod": [((INTS, DIVISORS), {}, torch.remainder)],
    "both": [((BOOLS, OTHER_BOOLS), {}, torch.logical_and)],
    "either": [((BOOLS, OTHER_BOOLS), {}, torch.logical_or)],
    "negate": [((BOOLS,), {}, torch.logical_not)],
    "where": [((OTHER_BOOLS, POSITIVE, normal(3, 1)), {}, torch.where), ((BOOLS, INTS, DIVISORS), {}, torch.where)],
    "cast": [
        ((X * 3,), {"to": "int"}, lambda x: x.long()),
        ((BOOLS,), {"to": "int"}, lambda x: x.long()),
        ((INTS,), {"to": "bool"}, lambda x: x.bool()),
        ((INTS,), {"to": "float"}, lambda x: x.double()),
        ((BOOLS,), {"to": "float"}, lambda x: x.double()),
    ],
    "dropout": [((X,), {"p": 0.5}, lambda x: x)],
    "drop_path": [((X,), {"p": 0.5}, lambda x: x)],
    "argmax": [((X,), {"axis": 1}, lambda x: torch.argmax(x, 1))],
    "cumsum": [((X,), {"axis": 1}, lambda x: torch.cumsum(x, 1)), ((INTS,), {"axis": 0}, lambda x: torch.cumsum(x, 0))],
    "top_k": [((X,), {"k": 3, "axis": 2}, lambda x: tuple(torch.topk(x, 3, dim=2)))],
    "rearrange": [
        (
            (X,),
            {"pattern": "b s (h d) -> b h s d", "sizes": (("h", 2),)},
            lambda x: x.reshape(2, 3, 2, 4).transpose(1, 2),
        ),
        ((X,), {"pattern": "... w -> w (...)"}, lambda x: x.permute(2, 0, 1).reshape(8, 6)),
        ((X,), {"pattern": "b s w -> s 1 w b"}, lambda x: x.permute(1, 2, 0)[:, None]),
    ],
    "split": [
        ((X,), {"parts": 4, "axis": 2}, lambda x: x.chunk(4, 2)),
        ((X,), {"sizes": (1, 5, 2), "axis": 2}, lambda x: x.split((1, 5, 2), 2)),
        ((X,), {"parts": 3, "axis": 1, "squeeze": True}, lambda x: x.unbind(1)),
    ],
    "concat": [((X, normal(2, 2, 8), X), {"axis": 1}, lambda *x: torch.cat(x, 1))],
    "slice": [
        ((X,), {"axis": 2, "start": 1, "stop": 7, "step": 2}, lambda x: x[..., 1:7:2]),
        ((X,), {"axis": 1}, lambda x: x),
    ],
    "select": [
        ((X,), {"axis": 1, "index": 2}, lambda x: x[:, 2]),
        ((INTS,), {"axis": 0, "index": -1}, lambda x: x[-1]),
    ],
    "pad": [
        ((X,), {"axis": 1, "before": 2, "after": 1, "value": 0.5}, lambda x: F.pad(x, (0, 0, 2, 1), value=0.5)),
        ((INTS,), {"axis": 0, "after": 1, "value": -1}, lambda x: F.pad(x, (0, 0, 0, 1), value=-1)),
    ],
    "expand": [((normal(3, 1),), {"shape": (2, 3, 4)}, lambda x: x.expand(2, 3, 4))],
    "swap": [((X,), {"first": 0, "second": 2}, lambda x: x.transpose(0, 2)), ((X,), {}, lambda x: x.mT)],
    "roll": [
        ((X,), {"shift": 3, "axis": 2}, lambda x: x.roll(3, 2)),
        ((X,), {"shift": -1, "axis": 1}, lambda x: x.roll(-1, 1)),
    ],
    "gather": [((X, whole(0, 3, 4, 2)), {"axis": 1}, lambda x, i: torch.stack([x[:, row] for row in i], 1))],
    "take_along": [((X, whole(0, 8, 2, 3, 2)), {"axis": 2}, lambda x, i: torch.gather(x, 2, i))],
    "one_hot": [((whole(0, 5, 2, 3),), {"classes": 5}, lambda x: F.one_hot(x, 5).double())],
    "iota": [((), {"size": 4}, lambda: torch.arange(4))],
    "tensor": [
        ((), {"values": ((1.0, 0.1), (-2.5, 3.0))}, lambda: torch.tensor([[1, 0.1], [-2.5, 3]], dtype=torch.float64)),
        ((), {"values": (3, -1)}, lambda: torch.tensor([3, -1])),
        ((), {"values": (True, False)}, lambda: torch.tensor([True, False])),
    ],
    "constant": [
        ((), {"value": 2, "dtype": "float"}, lambda: torch.tensor(2.0, dtype=torch.float64)),
        ((), {"value": True, "dtype": "bool"}, lambda: torch.tensor(True)),
    ],
    "softmax": [((X,), {"axis": 1}, lambda x: torch.softmax(x, 1))],
    "log_softmax": [((X,), {"axis": -1}, lambda x: torch.log_softmax(x, -1))],
    "dequantize": [
        (
            (whole(-127, 128, 4, 6), np.array([[0.5], [0.1], [1], [2]], np.float32).astype(float)),
            {},
            lambda q, s: (q * s.float()).double(),
        ),
        (
            (whole(-7, 8, 4, 6), np.abs(normal(4, 3)).astype(np.float32).astype(float)),
            {},
            lambda q, s: (q * s.float().repeat_interleave(2, 1)).double(),
        ),
    ],
}


def _masked_product(q: Any, k: Any, v: Any, decay: Any) -> Any:
    """Linear attention as all pairs of positions at once."""
    heads = max(each.shape[1] for each in (q, k, v))
    q, k, v = (each.repeat_interleave(heads // each.shape[1], 1) for each in (q, k, v))
    scores = (q @ k.transpose(-1, -2)).tril()
    if decay is not None and decay.dim() == 4:
        total = decay.cumsum(-2)
        left = (total[..., :, None, :] - total[..., None, :, :]).exp()
        scores = torch.einsum("bhsd,bhtd,bhstd->bhst", q, k, left).tril()
    elif decay is not None:
        total = decay.cumsum(-1)
        scores = scores * (total[..., :, None] - total[..., None, :]).tril().exp()
    return scores @ v


CASES["linear_attend"] = [
    ((normal(2, 4, 5, 3), normal(2, 2, 5, 3), normal(2, 1, 5, 6), None), {}, _masked_product),
    ((normal(2, 1, 5, 3), normal(2, 2, 5, 3), normal(2, 2, 5, 6), -np.abs(normal(2, 1, 5))), {}, _masked_product),
    ((normal(2, 2, 5, 3), normal(2, 2, 5, 3), normal(2, 1, 5, 6), -np.abs(normal(1, 2, 5, 3))), {}, _masked_product),
]
for _name in ("exp", "sin", "cos", "tanh", "sigmoid", "relu", "erf"):
    CASES[_name] = [((X * 3,), {}, getattr(torch, _name))]
for _name in ("silu", "softplus"):
    CASES[_name] = [((X * 3,), {}, getattr(F, _name))]
for _name in ("add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"):
    CASES[_name] = [
        ((normal(3, 1), normal(2, 1, 4)), {}, getattr(torch, _name)),
        ((INTS, DIVISORS), {}, getattr(torch, _name)),
    ]
for _name, _function in {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}.items():
    CASES[_name] = [
        ((X,), {"axis": 1}, lambda x, f=_function: f(x, 1)),
        ((X,), {"axis": 2, "keep": True}, lambda x, f=_function: f(x, 2, keepdim=True)),
    ]

# Tested below, each in a way of its own, and in `test_states.py`.
ELSEWHERE = {"input", "weight", "repeat", "route", "scan", "prune", "quantize", *WITH_PATH}


@pytest.mark.parametrize(
    ("op", "number"), [(op, number) for op, cases in CASES.items() for number in range(len(cases))]
)
def test_op(op: str, number: int) -> None:
    operands, attributes, expected = CASES[op][number]
    wanted = expected(*torches(operands))
    found = apply(op, *operands, **attributes)
    for one, other in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-12, atol=1e-13)


def test_every_op_has_a_case() -> None:
    assert {*CASES, *ELSEWHERE} == {*OPS}


# --- edges -----------------------------------------------------------------------------------------------------------


def test_softmax_of_large_numbers() -> None:
    for op in ("softmax", "log_softmax"):
        (found,) = apply(op, np.array([1e4, 1e4 - 1, -1e4]))
        np.testing.assert_allclose(
            found, getattr(torch, op)(torch.tensor([1e4, 1e4 - 1, -1e4]).double(), -1), rtol=1e-12
        )


def test_smooth_functions_far_from_zero() -> None:
    x = np.array([-1e4, -800.0, -40.0, 40.0, 800.0, 1e4])
    assert apply("sigmoid", x)[0][[0, -1]].tolist() == [0, 1]
    assert apply("softplus", x)[0][[0, -1]].tolist() == [0, 1e4]
    assert apply("silu", x)[0][[0, -1]].tolist() == [0, 1e4]
    for approximate in (False, True):
        assert apply("gelu", x, approximate=approximate)[0][[0, -1]].tolist() == [0, 1e4]
    # x * Phi(x) at -10, where 1 + erf has lost all its digits.
    np.testing.assert_allclose(apply("gelu", np.array([-10.0]))[0], -10 * 7.61985302416e-24, rtol=1e-10)


def test_norms_of_equal_rows() -> None:
    x = np.full((2, 4), 3.0)
    assert not apply("layer_norm", x, scale=False, bias=False)[0].any()
    np.testing.assert_allclose(apply("rms_norm", x, scale=False)[0], 1.0, rtol=1e-6)
    assert not apply("rms_norm", np.zeros((2, 4)), scale=False)[0].any()
    assert not apply("group_norm", x, np.ones(4), np.zeros(4), groups=2)[0].any()


def test_equal_numbers_are_taken_first_come_first() -> None:
    x = np.array([[1.0, 3.0, 3.0, 2.0, 3.0]])
    assert apply("argmax", x, axis=1)[0].tolist() == [1]
    values, index = apply("top_k", x, k=4, axis=1)
    assert values.tolist() == [[3, 3, 3, 2]] and index.tolist() == [[1, 2, 4, 3]]


def test_one_hot_of_numbers_that_name_no_class() -> None:
    assert apply("one_hot", np.array([-1, 1, 3]), classes=3)[0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


@given(st.integers(-50, 50), st.integers(-9, 9).filter(bool))
@settings(max_examples=30, deadline=None)
def test_whole_division(a: int, b: int) -> None:
    assert apply("floordiv", np.array(a), np.array(b))[0] == a // b
    assert apply("mod", np.array(a), np.array(b))[0] == a % b


@given(st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_conv1d_shapes(kernel: int, stride: int, dilation: int, before: int, after: int, groups: int) -> None:
    x, weight = normal(2, 2 * groups, 20), normal(3 * groups, 2, kernel)
    (found,) = apply(
        "conv1d", x, weight, None, out=3 * groups, kernel=kernel, stride=stride, dilation=dilation,
        padding=(before, after), groups=groups, bias=False,
    )  # fmt: skip
    padded = F.pad(torch.from_numpy(x), (before, after))
    wanted = F.conv1d(padded, torch.from_numpy(weight), stride=stride, dilation=dilation, groups=groups)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


# --- masks -----------------------------------------------------------------------------------------------------------


def looked_at(mask: masks.Mask, queries: int, keys: int, *operands: Array, batch: int = 1, **rest: Any) -> Array:
    """How much each query takes from each key [b, s, t], where all scores are equal: the values are unit vectors."""
    q, k = np.zeros((batch, 1, queries, 2)), np.zeros((batch, 1, keys, 2))
    v = np.broadcast_to(np.eye(keys), (batch, 1, keys, keys)).copy()
    return apply("attend", q, k, v, None, None, None, *operands, mask=mask, **rest)[0][:, 0]


WINDOW, STRIDED = masks.Term("window", (2,)), masks.Term("strided", (3,))
RULES: list[tuple[masks.Mask, Callable[[int, int], bool]]] = [
    (masks.FULL, lambda q, k: True),
    (masks.CAUSAL, lambda q, k: k <= q),
    (WINDOW, lambda q, k: abs(q - k) < 2),
    (STRIDED, lambda q, k: (q - k) % 3 == 0),
    (masks.Term("blocks", (2,)), lambda q, k: q // 2 == k // 2),
    (masks.Term("global_tokens", (1,)), lambda q, k: q < 1 or k < 1),
    (masks.Term("prefix", (2,)), lambda q, k: k < 2),
    (masks.Joined("&", masks.CAUSAL, WINDOW), lambda q, k: k <= q and abs(q - k) < 2),
    (masks.Joined("|", WINDOW, STRIDED), lambda q, k: abs(q - k) < 2 or (q - k) % 3 == 0),
    (masks.Negated(masks.CAUSAL), lambda q, k: k > q),
]


@pytest.mark.parametrize(("mask", "rule"), RULES, ids=lambda each: str(each) if not callable(each) else "")
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 6), (1, 1)])
def test_mask(mask: masks.Mask, rule: Callable[[int, int], bool], queries: int, keys: int) -> None:
    wanted = np.array([[float(rule(q, k)) for k in range(keys)] for q in range(queries)])
    wanted /= np.maximum(wanted.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(looked_at(mask, queries, keys)[0], wanted, atol=1e-15)


def test_masks_that_read_operands() -> None:
    keep = np.array([[True, True, False], [False, False, False]])
    found = looked_at(masks.Term("padding", (), 0), 2, 3, keep, batch=2)
    np.testing.assert_allclose(found[0], [[0.5, 0.5, 0]] * 2)
    assert not found[1].any()
    ids = np.array([[0, 0, 1], [2, 3, 2]])
    both = masks.Joined("&", masks.Term("padding", (), 0), masks.Term("documents", (), 1))
    found = looked_at(both, 3, 3, np.array([True, True, True]), ids, batch=2)
    np.testing.assert_allclose(found[0], [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(found[1], [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    for sinks in (None, np.array([0.3])):
        allowed = np.array([[False, False], [True, False]])
        x = normal(1, 1, 2, 4)
        found = apply("attend", x, x, x, None, allowed, sinks)[0]
        assert not found[0, 0, 0].any()
        assert found[0, 0, 1].any() and np.isfinite(found).all()


def test_attention_with_large_scores() -> None:
    q = np.full((1, 1, 1, 1), 1e3)
    found = apply("attend", q, np.array([[[[1e3], [0.0]]]]), np.array([[[[2.0], [5.0]]]]), scale=1.0)[0]
    assert found.item() == 2.0


def test_masks_and_the_allowed_operand_both_hold() -> None:
    q, k = np.zeros((1, 1, 2, 1)), np.zeros((1, 1, 2, 1))
    allowed = np.array([[True, True], [False, True]])
    found = apply("attend", q, k, np.eye(2)[None, None], None, allowed, mask=masks.CAUSAL)[0]
    assert found[0, 0].tolist() == [[1, 0], [0, 1]]


# --- weights that are pruned and quantised ---------------------------------------------------------------------------


def test_quantised_weights_are_those_of_float32() -> None:
    weight = normal(4, 6).astype(np.float32)
    q, scale = apply("quantize", weight.astype(float), bits=8)
    wanted = torch.from_numpy(weight)
    rows = wanted.abs().amax(1, keepdim=True) / 127
    assert np.array_equal(scale, rows.double()) and np.array_equal(
        q, torch.round(wanted / rows).clamp(-127, 127).long()
    )
    (back,) = apply("dequantize", q, scale)
    assert np.array_equal(back, (torch.round(wanted / rows) * rows).double())


def test_pruned_weights() -> None:
    weight = np.array([[3.0, -1.0, 0.5, -2.0], [1.0, 1.0, -4.0, 1.0]])
    assert apply("prune", weight, sparsity=0.5)[0].tolist() == [[3, 0, 0, -2], [0, 0, -4, 1]]
    assert apply("prune", weight, sparsity=0.5, pattern="2:4")[0].tolist() == [[3, 0, 0, -2], [0, 0, -4, 1]]


# --- loops -----------------------------------------------------------------------------------------------------------


def loop_body(path: str, width: int, captured: bool = False, twice: bool = False) -> Graph:
    """x -> x @ weight + captured, doubled at the end if asked."""
    body = Graph("body")
    type = Type("float", (symbol("batch"), width))
    x = Value(body.add("input", (), {"name": "x"}, (type,)).id)
    weight = Value(body.add("weight", (), {"path": path, "shape": (width, width), "init": Initializer("zeros")}).id)
    y = Value(body.add("linear", (x, weight, None), {"out": width, "bias": False}).id)
    if captured:
        y = Value(body.add("add", (y, Value(body.add("input", (), {"name": "c"}, (type,)).id))).id)
    if twice:
        y = Value(body.add("add", (y, y)).id)
    body.outputs = [("x", y)]
    return body


def looped(bodies: tuple[Graph, ...], turns: tuple[int, ...], width: int, captured: bool = False) -> Graph:
    graph = Graph("looped")
    type = Type("float", (symbol("batch"), width))
    x = Value(graph.add("input", (), {"name": "x"}, (type,)).id)
    attributes = {"turns": turns, "carried": 1, "path": "h"}
    node = graph.add("repeat", (x, x) if captured else (x,), attributes, (type,), bodies=bodies)
    graph.outputs = [("y", Value(node.id))]
    return graph


def test_loop_with_a_captured_value_and_two_bodies() -> None:
    bodies = loop_body("h.*.w", 3, True), loop_body("h.*.w", 3, True, twice=True)
    graph = looped(bodies, (0, 1, 0), 3, captured=True)
    weights = {f"h.{turn}.w": normal(3, 3) for turn in range(3)}
    x = normal(2, 3)
    wanted = x
    for turn in range(3):
        wanted = (wanted @ weights[f"h.{turn}.w"].T + x) * (2 if turn == 1 else 1)
    np.testing.assert_allclose(run(graph, weights, {"x": x})["y"], wanted, rtol=1e-12)


def test_loop_of_no_turns() -> None:
    x = normal(2, 3)
    assert np.array_equal(run(looped((loop_body("h.*.w", 3),), (), 3), {}, {"x": x})["y"], x)


def test_nested_loops_share_and_own_weights() -> None:
    type = Type("float", (symbol("batch"), 2))
    outer = Graph("outer")
    x = Value(outer.add("input", (), {"name": "x"}, (type,)).id)
    for path in ("h.*.inner.*.w", "h.*.shared"):  # the second has one weight for all inner turns
        attributes = {"turns": (0, 0), "carried": 1, "path": "h.*.inner"}
        x = Value(outer.add("repeat", (x,), attributes, (type,), bodies=(loop_body(path, 2),)).id)
    outer.outputs = [("x", x)]
    weights = {f"h.{i}.inner.{j}.w": normal(2, 2) for i in range(3) for j in range(2)}
    weights |= {f"h.{i}.shared": normal(2, 2) for i in range(3)}
    wanted = given_x = normal(4, 2)
    for i in range(3):
        for path in (f"h.{i}.inner.0.w", f"h.{i}.inner.1.w", f"h.{i}.shared", f"h.{i}.shared"):
            wanted = wanted @ weights[path].T
    np.testing.assert_allclose(run(looped((outer,), (0, 0, 0), 2), weights, {"x": given_x})["y"], wanted, rtol=1e-12)


def test_two_outputs_of_one_value_and_an_output_that_is_an_input() -> None:
    graph, inputs = single("neg", (X,), {})
    graph.outputs = [("a", Value(1)), ("b", Value(1)), ("c", Value(0))]
    found = run(graph, {}, inputs)
    assert np.array_equal(found["a"], -X) and np.array_equal(found["b"], -X) and np.array_equal(found["c"], X)


def test_numbers_of_sizes() -> None:
    graph = Graph("sizes")
    seq = symbol("seq")
    x = Value(graph.add("input", (), {"name": "x"}, (Type("float", (seq,)),)).id)
    length = Value(graph.add("constant", (), {"value": seq, "dtype": "float"}).id)
    half = graph.add("slice", (x,), {"axis": 0, "stop": divide(seq, 2)})
    graph.outputs = [("y", Value(graph.add("div", (Value(half.id), length)).id))]
    assert run(graph, {}, {"x": np.array([4.0, 8.0, 9.0, 9.0])})["y"].tolist() == [1, 2]


# --- what is refused -------------------------------------------------------------------------------------------------


def signature() -> Graph:
    graph = Graph("Small")
    batch, seq = symbol("batch"), symbol("seq")
    types = {"tokens": Type("int", (batch, seq)), "bias": Type("float", (seq, 4)), "pairs": Type("float", (2 * seq,))}
    values = [Value(graph.add("input", (), {"name": name}, (type,)).id) for name, type in types.items()]
    graph.outputs = [(name, value) for name, value in zip(types, values, strict=True)]
    graph.constraints = [Constraint("==", remainder(seq, 2), 0, "pairs of tokens"), Constraint("<=", seq, 8)]
    return graph


def inputs_of(seq: int, **changed: Array | None) -> dict[str, Array]:
    inputs = {"tokens": np.zeros((1, seq), int), "bias": np.zeros((seq, 4)), "pairs": np.zeros(2 * seq), **changed}
    return {name: value for name, value in inputs.items() if value is not None}


@pytest.mark.parametrize(
    ("inputs", "code", "texts"),
    [
        (inputs_of(2, bias=None), "T705", ["`bias: [seq, 4]` is missing"]),
        (inputs_of(2, tokenz=np.zeros(1)), "T705", ["no input `tokenz`", "did you mean `tokens`"]),
        (inputs_of(2, tokens=np.zeros((1, 2))), "T705", ["`tokens` is float64", "takes int"]),
        (inputs_of(2, bias=np.zeros((2, 4), int)), "T705", ["`bias` is int64", "takes float"]),
        (inputs_of(2, tokens=np.zeros(2, int)), "T705", ["`tokens` has 1 axes", "int[batch, seq]"]),
        (inputs_of(2, bias=np.zeros((3, 4))), "T705", ["`seq` is 2 in the input `tokens` and 3 in `bias`"]),
        (inputs_of(2, bias=np.zeros((2, 5))), "T705", ["axis 1 of the input `bias` is 5", "takes 4"]),
        (inputs_of(2, pairs=np.zeros(3)), "T705", ["axis 0 of the input `pairs` is 3", "2*seq = 4"]),
        (inputs_of(0), "T705", ["`seq` is 0 in the input `tokens`"]),
        (inputs_of(3), "T706", ["does not hold with seq = 3", "pairs of tokens"]),
        (inputs_of(10), "T706", ["`seq <= 8` does not hold with seq = 10"]),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict[str, Array], code: str, texts: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        run(signature(), {}, inputs)
    (found,) = caught.value.diagnostics
    assert found.code == code
    for text in texts:
        assert text in found.render()


def test_all_faults_of_inputs_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        run(signature(), {}, {"bias": np.zeros((2, 4), int), "x": np.zeros(1)})
    assert len(caught.value.diagnostics) == 4


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("embedding", (np.array([5]), W), {"size": 5, "dim": 8}),
        ("embedding", (np.array([-1]), W), {"size": 5, "dim": 8}),
        ("gather", (X, np.array([3])), {"axis": 1}),
        ("take_along", (np.zeros((1, 2)), np.array([[2]])), {"axis": 1}),
        ("mod", (INTS, np.array(0)), {}),
        ("floordiv", (INTS, np.array(0)), {}),
    ],
)
def test_values_without_a_meaning(op: str, operands: tuple[Array, ...], attributes: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        apply(op, *operands, **attributes)
    (found,) = caught.value.diagnostics
    assert found.code == "T707" and f"`{op}`" in found.message


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("slice", {"axis": 0, "start": 2, "stop": 4}),
        ("select", {"axis": 0, "index": 3}),
        ("top_k", {"axis": 0, "k": 4}),
        ("pad", {"axis": 0, "before": symbol("seq") - 4}),
        ("rearrange", {"pattern": "(a b) -> a b", "sizes": (("b", 2),)}),
        ("constant", {"value": divide(symbol("seq"), 2), "dtype": "float"}),
    ],
)
def test_sizes_that_only_run_time_refuses(op: str, attributes: dict[str, Any]) -> None:
    graph = Graph("sizes")
    x = Value(graph.add("input", (), {"name": "x"}, (Type("float", (symbol("seq"),)),)).id)
    node = graph.add(op, () if op == "constant" else (x,), attributes)
    graph.outputs = [("y", Value(node.id))]
    with pytest.raises(SpecError) as caught:
        run(graph, {}, {"x": np.zeros(3)})
    assert [found.code for found in caught.value.diagnostics] == ["T707"]


def test_weights_that_are_missing_or_misshapen() -> None:
    graph = looped((loop_body("h.*.w", 3),), (0, 0), 3)
    for weights, code in (({"h.0.w": np.eye(3)}, "T801"), ({"h.0.w": np.eye(3), "h.1.w": np.eye(2)}, "T803")):
        with pytest.raises(SpecError) as caught:
            run(graph, weights, {"x": np.zeros((1, 3))})
        (found,) = caught.value.diagnostics
        assert found.code == code and "`h.1.w`" in found.message
