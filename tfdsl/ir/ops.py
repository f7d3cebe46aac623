"""The table of ops: every primitive of the language, under headings, one record each.

A record is declared by `_op(signature, summary, shape rule, ...)`; shape rules come first. They are given the operands'
types (None for an optional operand that is absent) and the attributes, and return the results' types or raise
`ShapeError`. Floating-point operations count a multiply-add as two, as papers do; `attend` counts the pairs that its
mask allows only where the mask is causal, and all pairs otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfdsl.ir import tables
from tfdsl.ir.dims import DimError, Size, divide, floor, product
from tfdsl.ir.graph import Initializer, Type
from tfdsl.ir.op import Attributes, FlopRule, Op, ShapeError, TypeRule, WeightRule, parse_signature
from tfdsl.ir.rearrange import einsum_sizes, parse_einsum, rearrangement

Types = Sequence[Any]
ZEROS, ONES = Initializer("zeros"), Initializer("ones")
XAVIER = Initializer("xavier_uniform")
SMALL = Initializer("normal", (0.02,))

OPS: dict[str, Op] = {}


def _op(
    signature: str,
    summary: str,
    types: TypeRule,
    *,
    weights: WeightRule | None = None,
    flops: FlopRule | None = None,
    leading: str | None = None,
    inner: bool = False,
    called: str = "",
    place: str = "",
) -> None:
    name, operands, attributes = parse_signature(signature)
    OPS[name] = Op(name, summary, operands, attributes, types, weights, flops, leading, inner, called, place)


def infer(op: str, types: Types, attributes: Mapping[str, Any]) -> tuple[Type, ...]:
    """The types of an op's results. Raises `ShapeError`."""
    record = OPS[op]
    return record.types(types, record.fill(attributes))


# --- rules that several ops share ------------------------------------------------------------------------------------


def show(dims: Sequence[Size]) -> str:
    return f"[{', '.join(str(dim) for dim in dims)}]"


def broadcast(left: Sequence[Size], right: Sequence[Size]) -> tuple[Size, ...]:
    """The shape of two tensors together: axes are matched from the last, and an axis of 1 stretches."""
    result: list[Size] = []
    for place in range(1, max(len(left), len(right)) + 1):
        a = left[-place] if place <= len(left) else 1
        b = right[-place] if place <= len(right) else 1
        if a != b and a != 1 and b != 1:
            keep = "keep=true" if abs(len(left) - len(right)) == 1 else ""
            raise ShapeError(
                f"shapes {show(left)} and {show(right)} do not go together: their axes -{place} are {a} and {b}"
                if place > 1
                else f"shapes {show(left)} and {show(right)} do not go together: their last axes are {a} and {b}",
                operand=1,
                help=f"if one comes from a reduction, {keep} leaves its axis in place" if keep else "",
            )
        result.append(b if a == 1 else a)
    return tuple(reversed(result))


def stretches(dims: Sequence[Size], shape: Sequence[Size]) -> bool:
    """Whether a tensor stretches to a shape: each of its axes, matched from the last, is the same or 1."""
    return len(dims) <= len(shape) and all(a in (1, b) for a, b in zip(reversed(dims), reversed(shape), strict=False))


def rank(type: Type, *allowed: int, operand: int = 0, what: str = "") -> None:
    """Refuse a tensor whose number of axes is not among those allowed."""
    if len(type.dims) not in allowed:
        wanted = " or ".join(str(number) for number in allowed)
        raise ShapeError(f"needs {wanted} axes{what}, and {show(type.dims)} has {len(type.dims)}", operand=operand)


def same(what: str, left: Size, right: Size, operand: int) -> None:
    """Refuse two sizes that differ."""
    if left != right:
        raise ShapeError(f"{what}: {left} against {right}", operand=operand)


def _replace(dims: Sequence[Size], axis: int, size: Size | None) -> tuple[Size, ...]:
    return (*dims[:axis], *(() if size is None else (size,)), *dims[axis + 1 :])


def _like_first(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (t[0],)


def _elementwise(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (Type(t[0].dtype, broadcast(t[0].dims, t[1].dims)),)


def _compare(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (Type("bool", broadcast(t[0].dims, t[1].dims)),)


def _where(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (Type(t[1].dtype, broadcast(broadcast(t[1].dims, t[2].dims), t[0].dims)),)


def _reduce(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (Type(t[0].dtype, _replace(t[0].dims, a.axis, 1 if a.keep else None)),)


def _given(t: Types, a: Attributes) -> tuple[Type, ...]:
    raise AssertionError("the types of this op are given where it is made")


def _each(cost: int) -> FlopRule:
    """So many operations for each element of the first result."""
    return lambda t, a, r: product(r[0].dims) * cost


def _each_read(cost: int) -> FlopRule:
    """So many operations for each element of the first operand."""
    return lambda t, a, r: product(t[0].dims) * cost


# --- parameters ------------------------------------------------------------------------------------------------------


def _linear(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[0], *range(1, 9))
    rank(t[1], 2, operand=1, what=" (out, in)")
    same("the last axis and the weight's second do not agree", t[0].dims[-1], t[1].dims[1], 0)
    if t[2] is not None:
        same("the bias and the weight's first axis do not agree", t[2].dims[0], t[1].dims[0], 2)
    return (Type("float", (*t[0].dims[:-1], t[1].dims[0])),)


def _linear_weights(t: Types, a: Attributes) -> dict[str, tuple[tuple[Size, ...], Initializer]]:
    rank(t[0], *range(1, 9))
    made: dict[str, tuple[tuple[Size, ...], Initializer]] = {"weight": ((a.out, t[0].dims[-1]), XAVIER)}
    if a.bias:
        made["bias"] = ((a.out,), ZEROS)
    return made


def _embedding(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[1], 2, operand=1, what=" (size, dim)")
    return (Type("float", (*t[0].dims, t[1].dims[1])),)


def _norm(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[0], *range(1, 9))
    for place in range(1, len(t)):
        if t[place] is not None and t[place].dims != t[0].dims[-1:]:
            raise ShapeError(
                f"the last axis is {t[0].dims[-1]}, and the weight is {show(t[place].dims)}", operand=place
            )
    return (t[0],)


def _norm_weights(t: Types, a: Attributes) -> dict[str, tuple[tuple[Size, ...], Initializer]]:
    rank(t[0], *range(1, 9))
    made = {}
    if a.scale:
        made["weight"] = (t[0].dims[-1:], ONES)
    if getattr(a, "bias", False):
        made["bias"] = (t[0].dims[-1:], ZEROS)
    return made


def _group_norm(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[0], *range(2, 9))
    channels = t[0].dims[1]
    if isinstance(channels, int) and channels % a.groups:
        raise ShapeError(f"{channels} channels do not divide into {a.groups} groups", operand=0, code="T405")
    return (t[0],)


def _group_norm_weights(t: Types, a: Attributes) -> dict[str, tuple[tuple[Size, ...], Initializer]]:
    rank(t[0], *range(2, 9))
    return {"weight": (t[0].dims[1:2], ONES), "bias": (t[0].dims[1:2], ZEROS)}


def pair(value: Any) -> tuple[Any, Any]:
    """A setting for two axes, given once for both or as a list of two."""
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ShapeError(f"needs one number or a list of two, not {len(value)}")
        return value
    return value, value


def _conv_out(size: Size, kernel: int, stride: int, before: int, after: int, dilation: int) -> Size:
    span = dilation * (kernel - 1) + 1
    padded = size + before + after
    if isinstance(padded, int) and padded < span:
        raise ShapeError(f"an axis of {size} is shorter than the kernel's {span}", operand=0)
    return floor(padded - span, stride) + 1


def _conv_channels(t: Types, a: Attributes) -> Size:
    channels = t[0].dims[1]
    if not isinstance(channels, int):
        raise ShapeError("the channels of a convolution (axis 1) must be a known number", operand=0)
    if channels % a.groups or a.out % a.groups:
        raise ShapeError(f"{a.groups} groups do not divide {channels} channels in and {a.out} out", code="T405")
    return channels // a.groups


def _conv1d(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[0], 3, what=" (batch, channels, time)")
    before, after = pair(a.padding)
    time = _conv_out(t[0].dims[2], a.kernel, a.stride, before, after, a.dilation)
    return (Type("float", (t[0].dims[0], a.out, time)),)


def _conv2d(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[0], 4, what=" (batch, channels, height, width)")
    axes = zip(t[0].dims[2:], *(pair(each) for each in (a.kernel, a.stride, a.padding, a.dilation)), strict=True)
    return (Type("float", (t[0].dims[0], a.out, *(_conv_out(d, k, s, p, p, e) for d, k, s, p, e in axes))),)


def _conv_weights(t: Types, a: Attributes) -> dict[str, tuple[tuple[Size, ...], Initializer]]:
    rank(t[0], 3, 4)
    kernel = pair(a.kernel) if len(t[0].dims) == 4 else (a.kernel,)
    made: dict[str, tuple[tuple[Size, ...], Initializer]] = {"weight": ((a.out, _conv_channels(t, a), *kernel), XAVIER)}
    if a.bias:
        made["bias"] = ((a.out,), ZEROS)
    return made


def _conv_flops(t: Types, a: Attributes, r: Sequence[Type]) -> Size:
    return product(r[0].dims) * product(t[1].dims[1:]) * 2


_op(
    "linear(x: float, weight: @float, bias: @float?; out: size, bias: bool = true)",
    "Affine map of the last axis: `x @ weight.T + bias`; weight [out, in], bias [out].",
    _linear,
    weights=_linear_weights,
    flops=lambda t, a, r: product(r[0].dims) * t[1].dims[1] * 2,
)
_op(
    "embedding(ids: int, weight: @float; size: size, dim: size)",
    "Rows of a table [size, dim] chosen by integers.",
    _embedding,
    weights=lambda t, a: {"weight": ((a.size, a.dim), SMALL)},
)
_op(
    "weight(; shape: sizes, init: initializer = none, path: string = none)",
    "A learned tensor of the given shape.",
    lambda t, a: (Type("float", a.shape),),
)
_op(
    "layer_norm(x: float, weight: @float?, bias: @float?; eps: number = 1e-5, bias: bool = true, scale: bool = true)",
    "Zero mean and unit variance along the last axis, then scale and shift (Ba et al., 2016).",
    _norm,
    weights=_norm_weights,
    flops=_each(8),
)
_op(
    "rms_norm(x: float, weight: @float?; eps: number = 1e-6, scale: bool = true)",
    "Unit root mean square along the last axis, then scale (Zhang and Sennrich, 2019).",
    _norm,
    weights=_norm_weights,
    flops=_each(5),
)
_op(
    "group_norm(x: float, weight: @float, bias: @float; groups: int, eps: number = 1e-5)",
    "Layer normalisation over groups of channels (axis 1) and all later axes (Wu and He, 2018).",
    _group_norm,
    weights=_group_norm_weights,
    flops=_each(8),
)
_op(
    "conv1d(x: float, weight: @float, bias: @float?; out: int, kernel: int, stride: int = 1, padding: ints = 0, "
    "dilation: int = 1, groups: int = 1, bias: bool = true)",
    "Convolution over the last axis of [batch, channels, time]; `padding` is a number or [before, after].",
    _conv1d,
    weights=_conv_weights,
    flops=_conv_flops,
)
_op(
    "conv2d(x: float, weight: @float, bias: @float?; out: int, kernel: ints, stride: ints = 1, padding: ints = 0, "
    "dilation: ints = 1, groups: int = 1, bias: bool = true)",
    "Convolution over the last two axes of [batch, channels, height, width]; a setting is a number, or a list of one for each.",
    _conv2d,
    weights=_conv_weights,
    flops=_conv_flops,
)


# --- products --------------------------------------------------------------------------------------------------------


def _matmul(t: Types, a: Attributes) -> tuple[Type, ...]:
    for place in (0, 1):
        rank(t[place], *range(2, 9), operand=place)
    same("inner axes do not agree", t[0].dims[-1], t[1].dims[-2], 1)
    batch = broadcast(t[0].dims[:-2], t[1].dims[:-2])
    return (Type("float", (*batch, t[0].dims[-2], t[1].dims[-1])),)


def _einsum(t: Types, a: Attributes) -> tuple[Type, ...]:
    sizes = einsum_sizes(a.pattern, [each.dims for each in t])
    return (Type("float", tuple(sizes[name] for name in parse_einsum(a.pattern)[1])),)


_op(
    "matmul(a: float, b: float)",
    "Matrix product of the last two axes, written `a @ b`; leading axes broadcast.",
    _matmul,
    flops=lambda t, a, r: product(r[0].dims) * t[0].dims[-1] * 2,
)
_op(
    "einsum(x: float*; pattern: string)",
    'Sum of products over named axes: `einsum("b h s d, b h t d -> b h s t", q, k)`.',
    _einsum,
    flops=lambda t, a, r: product(einsum_sizes(a.pattern, [each.dims for each in t]).values()) * max(len(t), 1),
    leading="pattern",
)


# --- attention -------------------------------------------------------------------------------------------------------


def _attend(t: Types, a: Attributes) -> tuple[Type, ...]:
    q, k, v = t[:3]
    for place, each in enumerate((q, k, v)):
        rank(each, 4, operand=place, what=" (batch, heads, positions, features)")
    same("keys and queries differ in features", k.dims[3], q.dims[3], 1)
    same("keys and values differ in heads", v.dims[1], k.dims[1], 2)
    same("keys and values differ in length", v.dims[2], k.dims[2], 2)
    same("keys and queries differ in batch", k.dims[0], q.dims[0], 1)
    same("values and queries differ in batch", v.dims[0], q.dims[0], 2)
    heads, groups = q.dims[1], k.dims[1]
    if not isinstance(heads, int) or not isinstance(groups, int):
        raise ShapeError("the number of heads (axis 1) must be known", operand=0)
    if heads % groups:
        raise ShapeError(f"{groups} key heads do not divide {heads} query heads", operand=1, code="T405")
    scores = (q.dims[0], heads, q.dims[2], k.dims[2])
    for place, what in ((3, "bias"), (4, "allowed")):
        if t[place] is not None and not stretches(t[place].dims, scores):
            message = f"`{what}` is {show(t[place].dims)}, and does not stretch to the scores {show(scores)}"
            raise ShapeError(message, operand=place)
    if t[5] is not None and t[5].dims != (heads,):
        raise ShapeError(f"sinks are one number a head, [{heads}], not {show(t[5].dims)}", operand=5)
    _attend_masks(t, a, scores)
    return (Type("float", (*q.dims[:3], v.dims[3])),)


def _attend_masks(t: Types, a: Attributes, scores: tuple[Size, ...]) -> None:
    from tfdsl.ir import masks

    batch, _, queries, keys = scores
    for term in masks.terms(a.mask or masks.FULL):
        if term.operand is None:
            continue
        place = 6 + term.operand
        wanted: tuple[Size, ...] = (batch,) if term.kind == "prefix" else (batch, keys)
        if not stretches(t[place].dims, wanted):
            raise ShapeError(f"`{term.kind}` needs {show(wanted)}, not {show(t[place].dims)}", operand=place)
        if term.kind == "documents":
            same("`documents` is for self-attention: queries and keys differ in length", queries + a.offset, keys, 1)


def _attend_flops(t: Types, a: Attributes, r: Sequence[Type]) -> Size:
    from tfdsl.ir import masks

    batch, heads, queries, features = t[0].dims
    keys = t[1].dims[2]
    pairs: Size = queries * keys
    if queries + a.offset == keys and a.mask is not None and _is_causal(a.mask, masks):
        pairs = queries * a.offset + divide(queries * (queries + 1), 2)
    return batch * heads * pairs * ((features + t[2].dims[3]) * 2 + 5)


def _is_causal(mask: Any, masks: Any) -> bool:
    if isinstance(mask, masks.Joined):
        sides = (_is_causal(mask.left, masks), _is_causal(mask.right, masks))
        return any(sides) if mask.operator == "&" else all(sides)
    return mask == masks.CAUSAL


def _linear_attend(t: Types, a: Attributes) -> tuple[Type, ...]:
    q, k, v = t[:3]
    for place, each in enumerate((q, k, v)):
        rank(each, 4, operand=place, what=" (batch, heads, positions, features)")
        if not isinstance(each.dims[1], int):
            raise ShapeError("the number of heads (axis 1) must be known", operand=place)
        same("the batches differ", each.dims[0], q.dims[0], place)
        same("the lengths differ", each.dims[2], q.dims[2], place)
    same("keys and queries differ in features", k.dims[3], q.dims[3], 1)
    heads = max(each.dims[1] for each in (q, k, v))
    for place, each in enumerate((q, k, v)):
        if heads % each.dims[1]:
            raise ShapeError(f"{each.dims[1]} heads do not divide {heads}", operand=place, code="T405")
    steps: tuple[Size, ...] = (q.dims[0], heads, q.dims[2])
    if t[3] is not None:
        by_feature = len(t[3].dims) == 4
        wanted = (*steps, k.dims[3]) if by_feature else steps
        if not stretches(t[3].dims, wanted):
            what = "features of each step" if by_feature else "steps of each head"
            message = f"`decay` is {show(t[3].dims)}, and does not stretch to the {what}, {show(wanted)}"
            raise ShapeError(message, operand=3)
    return (Type("float", (*steps, v.dims[3])),)


def _linear_attend_flops(t: Types, a: Attributes, r: Sequence[Type]) -> Size:
    steps, inside = product(r[0].dims[:3]), t[0].dims[3] * t[2].dims[3]
    return steps * inside * (4 if t[3] is None else 5)


def _rotate(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[0], *range(2, 6), what=" (..., positions, features)")
    for place in (1, 2):
        rank(t[place], 2, 3, operand=place, what=" ([batch,] positions, half the rotated features)")
        same("positions do not agree", t[place].dims[-2], t[0].dims[-2], place)
    same("cos and sin differ", t[1].dims[-1], t[2].dims[-1], 2)
    half, features = t[1].dims[-1], t[0].dims[-1]
    if isinstance(half, int) and isinstance(features, int) and 2 * half > features:
        raise ShapeError(f"{2 * half} rotated features are more than the {features} there are", operand=1)
    return (t[0],)


_op(
    "attend(q: float, k: float, v: float, bias: float?, allowed: bool?, sinks: float?, operands: any*; "
    "mask: mask = none, scale: number = none, softcap: number = none, drop: number = 0.0, offset: size = 0)",
    "Scaled dot-product attention (Vaswani et al., 2017): q [b, h, s, d], k [b, g, t, d], v [b, g, t, e], g dividing h. "
    "`scale` is 1/sqrt(d) unless given; for the mask, query i stands at position i + `offset` of the keys; a query that "
    "may see no key gives zeros.",
    _attend,
    flops=_attend_flops,
)
_op(
    "linear_attend(q: float, k: float, v: float, decay: float?)",
    "Attention without softmax over the past, as a running sum (Katharopoulos et al., 2020): y = q @ S with "
    "S = exp(decay) * S + outer(k, v) from position to position; q and k [b, h, s, d], v [b, h, s, e], `decay` a logarithm, "
    "at most 0, [b, h, s] for each step, or [b, h, s, d] for each feature of the keys. Fewer heads of one serve several of "
    "another.",
    _linear_attend,
    flops=_linear_attend_flops,
)
_op(
    "rotate(x: float, cos: float, sin: float; interleaved: bool = false)",
    "Rotate pairs of features by angles (Su et al., 2021): cos and sin are [[batch,] positions, half]; the pairs are "
    "(i, i + half), or neighbours if `interleaved`; features beyond 2 * half pass through.",
    _rotate,
    flops=_each(3),
)
_op(
    "positions(x: any; axis: axis = -1)",
    "The positions 0 .. n-1 along an axis of a tensor, as integers [n].",
    lambda t, a: (Type("int", (t[0].dims[a.axis],)),),
)


# --- mixtures of experts ---------------------------------------------------------------------------------------------

_op(
    "route(x: float, chosen: int, weight: float, captured: any*; turns: ints, path: string)",
    "Mixture of experts (Shazeer et al., 2017): x [..., width], chosen and weight [..., k]; each row's result is the sum of "
    "`weight` times what the chosen of `count` experts make of it. `expert` is a layer that treats rows by themselves; a "
    "number outside 0 .. count-1 chooses none.",
    _given,
    flops=lambda t, a, r: product(r[0].dims) * t[1].dims[-1] * 2,
    called="route(x, chosen, weight, expert, count)",
    place="experts",
)


# --- recurrences -----------------------------------------------------------------------------------------------------

_op(
    "scan(x: any*; carried: int, scanned: int, axis: int, turns: ints, path: string)",
    "A layer applied at one position after another: `step` takes each x at a position of an axis, then the states, and gives "
    "the states that the next position takes, then any results; `start` lists the first states. Gives the last states, then "
    "the results of all positions along the axis.",
    _given,
    called="scan(x..., step, start, axis=1)",
    place="step",
)


# --- elementwise -----------------------------------------------------------------------------------------------------

_UNARY = {
    "exp": ("Exponential.", 1),
    "log": ("Natural logarithm.", 1),
    "sqrt": ("Square root.", 1),
    "sin": ("Sine.", 1),
    "cos": ("Cosine.", 1),
    "tanh": ("Hyperbolic tangent.", 1),
    "sigmoid": ("Logistic function 1 / (1 + exp(-x)).", 3),
    "relu": ("max(x, 0).", 1),
    "silu": ("x * sigmoid(x) (Elfwing et al., 2017), also called swish.", 4),
    "softplus": ("log(1 + exp(x)).", 3),
    "erf": ("Error function.", 1),
}
for _name, (_summary, _cost) in _UNARY.items():
    _op(f"{_name}(x: float)", _summary, _like_first, flops=_each(_cost))
_op(
    "gelu(x: float; approximate: bool = false)",
    "Gaussian error linear unit (Hendrycks and Gimpel, 2016); `approximate` is the tanh form.",
    _like_first,
    flops=_each(8),
)
for _name, _summary in (("neg", "-x."), ("abs", "Absolute value.")):
    _op(f"{_name}(x: number)", _summary, _like_first, flops=_each(1))
_op("floor(x: float)", "Largest whole number not above x.", _like_first, flops=_each(1))
_BINARY = {
    "add": "a + b, axes matched from the last.",
    "sub": "a - b.",
    "mul": "a * b.",
    "maximum": "The larger of two, element by element.",
    "minimum": "The smaller of two, element by element.",
}
for _name, _summary in _BINARY.items():
    _op(f"{_name}(a: number, b: number)", _summary, _elementwise, flops=_each(1))
_op("div(a: float, b: float)", "a / b.", _elementwise, flops=_each(1))
_op("pow(a: float, b: float)", "a ** b.", _elementwise, flops=_each(1))
_op("floordiv(a: int, b: int)", "a // b, rounded down.", _elementwise)
_op("mod(a: int, b: int)", "a % b, with the sign of b.", _elementwise)
for _name, _sign in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    _op(f"{_name}(a: number, b: number)", f"a {_sign} b, as bool.", _compare)
_op("both(a: bool, b: bool)", "a & b.", _compare)
_op("either(a: bool, b: bool)", "a | b.", _compare)
_op("negate(x: bool)", "not x.", _like_first)
_op("where(condition: bool, a: any, b: any)", "a where the condition holds, else b.", _where)
_op(
    "cast(x: any; to: string)",
    'Convert to "float", "int" (towards zero) or "bool".',
    lambda t, a: (Type(a.to, t[0].dims),),
)


def _dropout(t: Types, a: Attributes) -> tuple[Type, ...]:
    if not 0 <= a.p < 1:
        raise ShapeError(f"p must be at least 0 and below 1, not {a.p}", code="T304")
    return (t[0],)


_op("dropout(x: float; p: number)", "In training, zero elements with probability p and scale the rest.", _dropout)
_op(
    "drop_path(x: float; p: number)",
    "In training, zero whole rows of the first axis with probability p (stochastic depth, Huang et al., 2016).",
    _dropout,
)


# --- reductions ------------------------------------------------------------------------------------------------------


def _top_k(t: Types, a: Attributes) -> tuple[Type, ...]:
    size = t[0].dims[a.axis]
    if isinstance(a.k, int) and (a.k < 1 or (isinstance(size, int) and a.k > size)):
        raise ShapeError(f"k must be 1 .. {size}, not {a.k}", operand=0, code="T304")
    dims = _replace(t[0].dims, a.axis, a.k)
    return Type(t[0].dtype, dims), Type("int", dims)


_op("softmax(x: float; axis: axis = -1)", "exp(x) over its sum along an axis.", _like_first, flops=_each(5))
_op("log_softmax(x: float; axis: axis = -1)", "Logarithm of softmax, computed stably.", _like_first, flops=_each(5))
for _name, _summary in {"sum": "Sum", "mean": "Mean", "max": "Largest", "min": "Smallest"}.items():
    _op(
        f"{_name}(x: {'float' if _name == 'mean' else 'number'}; axis: axis = -1, keep: bool = false)",
        f"{_summary} along an axis, or a list of axes; `keep` leaves an axis of 1 in its place.",
        _reduce,
        flops=_each_read(1),
    )
_op(
    "argmax(x: float; axis: axis = -1)",
    "Index of the largest element along an axis (the first, where several are).",
    lambda t, a: (Type("int", _replace(t[0].dims, a.axis, None)),),
)
_op("cumsum(x: number; axis: axis = -1)", "Running sum along an axis, inclusive.", _like_first, flops=_each(1))
_op(
    "top_k(x: float; k: size, axis: axis = -1)",
    "The k largest along an axis, in order, and their indices; with k as long as the axis, it sorts.",
    _top_k,
)


# --- shape -----------------------------------------------------------------------------------------------------------


def _rearrange(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (Type(t[0].dtype, rearrangement(a.pattern, t[0].dims, dict(a.sizes or ())).merged),)


def _split(t: Types, a: Attributes) -> tuple[Type, ...]:
    size = t[0].dims[a.axis]
    if (a.parts is None) == (a.sizes is None):
        raise ShapeError("needs either parts or sizes", code="T302")
    if a.sizes is not None:
        if sum(a.sizes) != size:
            raise ShapeError(f"sizes {show(a.sizes)} do not add up to the axis of {size}", operand=0)
        sizes = a.sizes
    else:
        try:
            part = divide(size, a.parts)
        except DimError as error:
            raise ShapeError(str(error), operand=0, code="T405") from None
        if isinstance(size, int) and not isinstance(part, int):
            raise ShapeError(f"an axis of {size} does not divide into {a.parts} parts", operand=0, code="T405")
        sizes = (part,) * a.parts
    if a.squeeze and any(each != 1 for each in sizes):
        raise ShapeError("squeeze=true needs parts of one element each", operand=0)
    return tuple(Type(t[0].dtype, _replace(t[0].dims, a.axis, None if a.squeeze else each)) for each in sizes)


def _concat(t: Types, a: Attributes) -> tuple[Type, ...]:
    for place, each in enumerate(t[1:], 1):
        if len(each.dims) != len(t[0].dims) or _replace(each.dims, a.axis, 0) != _replace(t[0].dims, a.axis, 0):
            raise ShapeError(
                f"shapes {show(t[0].dims)} and {show(each.dims)} differ in another axis than {a.axis}", operand=place
            )
        if each.dtype != t[0].dtype:
            raise ShapeError(f"cannot join {t[0].dtype} and {each.dtype}", operand=place, code="T403")
    return (Type(t[0].dtype, _replace(t[0].dims, a.axis, sum(each.dims[a.axis] for each in t))),)


def _slice(t: Types, a: Attributes) -> tuple[Type, ...]:
    size = t[0].dims[a.axis]
    stop = size if a.stop is None else a.stop
    length = stop - a.start
    if isinstance(length, int) and length < 1:
        raise ShapeError(f"nothing is left between {a.start} and {stop}", operand=0)
    if isinstance(size, int) and isinstance(stop, int) and stop > size:
        raise ShapeError(f"{stop} is beyond the axis of {size}", operand=0)
    return (Type(t[0].dtype, _replace(t[0].dims, a.axis, floor(length + (a.step - 1), a.step))),)


def _select(t: Types, a: Attributes) -> tuple[Type, ...]:
    size = t[0].dims[a.axis]
    if isinstance(size, int) and isinstance(a.index, int) and not -size <= a.index < size:
        raise ShapeError(f"index {a.index} is outside an axis of {size}", operand=0)
    return (Type(t[0].dtype, _replace(t[0].dims, a.axis, None)),)


def _expand(t: Types, a: Attributes) -> tuple[Type, ...]:
    if not stretches(t[0].dims, a.shape):
        raise ShapeError(f"{show(t[0].dims)} does not stretch to {show(a.shape)}", operand=0)
    return (Type(t[0].dtype, tuple(a.shape)),)


def _swap(t: Types, a: Attributes) -> tuple[Type, ...]:
    dims = list(t[0].dims)
    first, second = a.first, a.second
    dims[first], dims[second] = dims[second], dims[first]
    return (Type(t[0].dtype, tuple(dims)),)


def _gather(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (Type(t[0].dtype, (*t[0].dims[: a.axis], *t[1].dims, *t[0].dims[a.axis + 1 :])),)


def _take_along(t: Types, a: Attributes) -> tuple[Type, ...]:
    rank(t[1], len(t[0].dims), operand=1)
    if _replace(t[0].dims, a.axis, 0) != _replace(t[1].dims, a.axis, 0):
        raise ShapeError(f"{show(t[0].dims)} and {show(t[1].dims)} differ in another axis than {a.axis}", operand=1)
    return (Type(t[0].dtype, t[1].dims),)


_op(
    "rearrange(x: any; pattern: string, sizes: names = none)",
    'Split, reorder and merge axes by name: `rearrange(x, "b s (h d) -> b h s d", h=heads)`.',
    _rearrange,
    leading="pattern",
)
_op(
    "split(x: any; parts: int = none, sizes: sizes = none, axis: axis = -1, squeeze: bool = false)",
    "Several tensors, cut along an axis into equal parts or given sizes; `squeeze` drops axes of 1.",
    _split,
)
_op("concat(x: any*; axis: axis = -1)", "Tensors one after another along an axis.", _concat)
_op(
    "slice(x: any; axis: axis, start: size = 0, stop: size = none, step: int = 1)",
    "The elements start .. stop-1 of an axis; negative numbers count from its end.",
    _slice,
)
_op("select(x: any; axis: axis, index: size)", "One position of an axis, which is dropped.", _select)
_op(
    "pad(x: any; axis: axis, before: size = 0, after: size = 0, value: number = 0.0)",
    "More elements of one value before and after those of an axis.",
    lambda t, a: (Type(t[0].dtype, _replace(t[0].dims, a.axis, t[0].dims[a.axis] + a.before + a.after)),),
)
_op(
    "expand(x: any; shape: sizes)",
    "Stretch axes of 1 (and add leading axes) to a shape; also `expand(x, like=y, axis=n)`.",
    _expand,
)
_op("swap(x: any; first: axis = -1, second: axis = -2)", "Exchange two axes.", _swap)
_op(
    "roll(x: any; shift: int, axis: axis)",
    "Shift along an axis; what leaves at one end enters at the other.",
    _like_first,
)
_op(
    "gather(x: any, index: int; axis: axis)",
    "Slices of an axis at integer positions, the axis replaced by theirs.",
    _gather,
)
_op(
    "take_along(x: any, index: int; axis: axis = -1)",
    "Elements at integer positions along an axis; x and index differ in that axis only.",
    _take_along,
)
_op(
    "one_hot(x: int; classes: size)",
    "A new last axis with 1.0 at the position that the integer names and 0.0 elsewhere.",
    lambda t, a: (Type("float", (*t[0].dims, a.classes)),),
)
_op("iota(; size: size)", "The integers 0 .. size-1.", lambda t, a: (Type("int", (a.size,)),), leading="size")


def _tensor(t: Types, a: Attributes) -> tuple[Type, ...]:
    try:
        return (Type(tables.dtype(a.values), tables.shape(a.values)),)
    except ValueError as error:
        raise ShapeError(str(error)) from None


_op(
    "tensor(; values: numbers)",
    "The numbers of a list, or of lists in a list, as a tensor: `tensor([1.0, 0.5])` is [2]. All are floats if one is.",
    _tensor,
    leading="values",
)


# --- what decoding remembers from call to call: made by the `incremental` pass ---------------------------------------


def _append(t: Types, a: Attributes) -> tuple[Type, ...]:
    return (Type(t[0].dtype, _replace(t[0].dims, a.axis, a.size + t[0].dims[a.axis])),)


_op(
    "append(x: any; path: string, axis: axis, size: size, last: int = none, fill: int = 0)",
    "A state followed by x along an axis. The state, of `size` positions now, is what earlier calls appended, its `last` "
    "positions alone if that is given; before the first call it is `fill` positions of zeros.",
    _append,
    inner=True,
)
_op(
    "running_attend(q: float, k: float, v: float, decay: float?; path: string)",
    "`linear_attend` that goes on where the last call stopped: the state is the sum S [b, h, d, e], zeros at first.",
    _linear_attend,
    flops=_linear_attend_flops,
    inner=True,
)
_op(
    "running_sum(x: number; axis: axis, path: string)",
    "`cumsum` that goes on where the last call stopped: the state is the sum so far, zeros at first.",
    _like_first,
    flops=_each(1),
    inner=True,
)

_op(
    "recall(like: any; path: string)",
    "A state of the shape of `like`: what `remember` was given under the path in the last call; zeros before the first.",
    _like_first,
    inner=True,
)
_op(
    "remember(x: any, state: any; path: string)",
    "x as it is; the state is what the next call recalls.",
    _like_first,
    inner=True,
)


# --- made by elaboration and by passes, with no name in the language -------------------------------------------------


def _quantize(t: Types, a: Attributes) -> tuple[Type, ...]:
    dims = t[0].dims
    if a.group is None:
        scale = (dims[0], *(1 for _ in dims[1:]))
    else:
        rank(t[0], 2, what=" to be quantised in groups")
        if not isinstance(dims[1], int) or dims[1] % a.group:
            raise ShapeError(f"groups of {a.group} do not divide an axis of {dims[1]}", operand=0, code="T405")
        scale = (dims[0], dims[1] // a.group)
    return Type("int", dims), Type("float", scale)


_op("input(; name: string)", "An input of the model, or of the body of a loop.", _given, inner=True)
_op(
    "constant(; value: value, dtype: string)",
    "A number, or a size that run time knows.",
    lambda t, a: (Type(a.dtype, ()),),
    inner=True,
)
_op(
    "repeat(x: any*; turns: ints, carried: int, path: string, index: string = none, checkpoint: int = none)",
    "Bodies run in turn, `turns` saying which: the first `carried` inputs go from turn to turn, the rest are the same in "
    "each. `checkpoint` groups that many turns to be recomputed in the backward pass (Chen et al., 2016).",
    _given,
    inner=True,
)
_op(
    "prune(weight: float; sparsity: number, pattern: string = none)",
    "A weight with its smallest magnitudes set to zero; computed when the model is built.",
    _like_first,
    inner=True,
)
_op(
    "quantize(weight: float; bits: int, group: int = none)",
    "A weight as signed whole numbers and scales, symmetric: a scale for each row, or for each group of its last axis; "
    "computed when the model is built, in float32.",
    _quantize,
    inner=True,
)
_op(
    "dequantize(q: int, scale: float)",
    "Whole numbers times their scales.",
    lambda t, a: (Type("float", t[0].dims),),
    inner=True,
)
