"""Op by op, the expression that computes it in PyTorch. `LOWERINGS` is the table; helpers of a few ops stand before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdsl.ir import masks
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Node, Type, Value
from tfdsl.ir.op import Attributes
from tfdsl.ir.rearrange import letters, rearrangement

if TYPE_CHECKING:
    from tfdsl.backends.torch.forward import Forward

ATOM, UNARY, POWER, PRODUCT, SUM, COMPARE, LOWEST = 9, 8, 7, 6, 5, 4, 0


@dataclass(frozen=True)
class Code:
    """A piece of source and how tightly it binds."""

    text: str
    level: int = ATOM

    def at(self, level: int) -> str:
        """The text, in parentheses where its surroundings bind tighter."""
        return self.text if self.level >= level else f"({self.text})"


@dataclass
class Site:
    """One node being lowered: its operands as code, its types, its attributes as source."""

    forward: Forward
    node: Node
    args: Sequence[Code | None]
    types: Sequence[Type | None]
    a: Attributes

    def arg(self, place: int) -> str:
        code = self.args[place]
        assert code is not None
        return code.text

    def atom(self, place: int) -> str:
        code = self.args[place]
        assert code is not None
        return code.at(ATOM)

    def has(self, place: int) -> bool:
        return place < len(self.args) and self.args[place] is not None

    def type(self, place: int = 0) -> Type:
        found = self.types[place]
        assert found is not None
        return found

    def setting(self, name: str) -> str:
        """An attribute as source: what the spec wrote, if it still holds."""
        return self.forward.setting(self.node, name, getattr(self.a, name))

    def size(self, size: Size, spelled: str | None = None) -> str:
        return self.forward.size(size, self.node, spelled)

    def axis(self, axis: int, place: int = 0) -> str:
        """An axis, the last one as -1."""
        return "-1" if axis == len(self.type(place).dims) - 1 else str(axis)


Lowering = Callable[[Site], Code]


def _call(function: str) -> Lowering:
    return lambda s: Code(f"{function}({', '.join(s.arg(i) for i in range(len(s.args)) if s.has(i))})")


def _method(name: str) -> Lowering:
    return lambda s: Code(f"{s.atom(0)}.{name}()")


def _infix(sign: str, level: int) -> Lowering:
    def lower(s: Site) -> Code:
        left, right = s.args[0], s.args[1]
        assert left is not None and right is not None
        if level == POWER:
            return Code(f"{left.at(ATOM)} ** {right.at(UNARY)}", level)
        if level == COMPARE:
            return Code(f"{left.at(SUM)} {sign} {right.at(SUM)}", level)
        return Code(f"{left.at(level)} {sign} {right.at(level + 1)}", level)

    return lower


def _over_axis(name: str) -> Lowering:
    def lower(s: Site) -> Code:
        keep = ", keepdim=True" if getattr(s.a, "keep", False) else ""
        return Code(f"{s.atom(0)}.{name}(dim={s.axis(s.a.axis)}{keep})")

    return lower


# --- parameters, where no layer serves ---------------------------------------------------------------------------------


def _linear(s: Site) -> Code:
    bias = f", {s.arg(2)}" if s.has(2) else ""
    return Code(f"F.linear({s.arg(0)}, {s.arg(1)}{bias})")


def _norm(function: str) -> Lowering:
    def lower(s: Site) -> Code:
        shape = s.size(s.type().dims[-1])
        parts = [s.arg(0), f"({shape},)"]
        parts += [f"{name}={s.arg(place)}" for place, name in ((1, "weight"), (2, "bias")) if s.has(place)]
        return Code(f"{function}({', '.join(parts)}, eps={s.setting('eps')})")

    return lower


def _group_norm(s: Site) -> Code:
    return Code(f"F.group_norm({s.arg(0)}, {s.setting('groups')}, {s.arg(1)}, {s.arg(2)}, eps={s.setting('eps')})")


def conv_padding(s: Site, x: str) -> tuple[str, str]:
    """The input, padded by hand where the two ends differ, and what is left for the layer to pad."""
    if isinstance(s.a.padding, tuple) and s.node.op == "conv1d":
        before, after = s.a.padding
        return (x, str(before)) if before == after else (f"F.pad({x}, ({before}, {after}))", "0")
    return x, s.setting("padding")


def _conv(function: str) -> Lowering:
    def lower(s: Site) -> Code:
        x, padding = conv_padding(s, s.arg(0))
        bias = s.arg(2) if s.has(2) else "None"
        dilation = f", dilation={s.setting('dilation')}" if s.node.op == "conv1d" else ""
        settings = f"stride={s.setting('stride')}, padding={padding}{dilation}, groups={s.setting('groups')}"
        return Code(f"{function}({x}, {s.arg(1)}, {bias}, {settings})")

    return lower


# --- attention ---------------------------------------------------------------------------------------------------------


def _mask_over(s: Site, mask: masks.Mask) -> str:
    """A mask as a bool tensor that broadcasts to [batch, heads, queries, keys]."""
    if isinstance(mask, masks.Joined):
        left, right = _mask_over(s, mask.left), _mask_over(s, mask.right)
        return f"{_grouped(left)} {mask.operator} {_grouped(right)}"
    if isinstance(mask, masks.Negated):
        return f"~{_grouped(_mask_over(s, mask.inner))}"
    if mask.operand is not None:
        operand, of = s.atom(6 + mask.operand), s.type(6 + mask.operand)
        batch = ":" if len(of.dims) == 2 else "None"
        if mask.kind == "prefix":
            return f"{s.forward.key_positions(s)} < {operand}[:, None, None, None]"
        if mask.kind == "padding":
            return f"{operand}[{batch}, None, None]" if len(of.dims) == 2 else operand
        if len(of.dims) == 1:
            return f"{operand}[:, None] == {operand}"
        return f"{operand}[:, None, :, None] == {operand}[:, None, None]"
    if mask.kind == "random_blocks":
        s.forward.needs_helper("random_blocks")
    return _RELATIONS[mask.kind](s.forward.query_positions(s), s.forward.key_positions(s), *mask.arguments)


_RELATIONS: dict[str, Callable[..., str]] = {
    "full": lambda q, k: f"({q} >= 0) & ({k} >= 0)",
    "causal": lambda q, k: f"{k} <= {q}",
    "window": lambda q, k, size: f"({q} - {k}).abs() < {size}",
    "strided": lambda q, k, step: f"({q} - {k}) % {step} == 0",
    "blocks": lambda q, k, size: f"{q} // {size} == {k} // {size}",
    "global_tokens": lambda q, k, count: f"({q} < {count}) | ({k} < {count})",
    "random_blocks": lambda q, k, count, size, seed: f"random_blocks({q}, {k}, {count}, {size}, {seed})",
    "prefix": lambda q, k, count: f"(({k} < {count}) & ({q} >= 0))",
}


def _grouped(text: str) -> str:
    """A condition in parentheses, unless it is one word or call."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and position < len(text) - 1 and not (character.isalnum() or character in "_."):
            return f"({text})"
    return text


def _attend(s: Site) -> Code:
    q, k = s.type(0), s.type(1)
    mask = s.a.mask
    same_length = q.dims[2] == k.dims[2]
    if s.a.softcap is not None or s.has(5):
        return _attend_by_hand(s)
    parts = [s.arg(0), s.arg(1), s.arg(2)]
    causal = mask == masks.CAUSAL and not s.has(3) and not s.has(4) and same_length
    allowed = "" if causal else _allowed(s)
    hides = bool(allowed) and (s.has(4) or not same_length or masks.may_hide_all(mask or masks.FULL))
    if causal:
        parts.append("is_causal=True")
    elif s.has(3):
        parts.append(f"attn_mask={_biased(s.arg(3), allowed, s.forward.like(s, 0))}")
    elif allowed:
        parts.append(f"attn_mask={allowed}")
    if s.a.drop:
        parts.append(f"dropout_p={s.setting('drop')} if {s.forward.training()} else 0.0")
    if s.a.scale is not None:
        parts.append(f"scale={s.setting('scale')}")
    if q.dims[1] != k.dims[1]:
        parts.append("enable_gqa=True")
    text = f"F.scaled_dot_product_attention({', '.join(parts)})"
    if hides and s.has(3):
        s.forward.needs_helper("blank_hidden")
        return Code(f"blank_hidden({text}, {allowed})")
    return Code(text)


def _allowed(s: Site) -> str:
    """What may be seen, as one bool expression; empty where everything may."""
    parts = []
    if s.has(4):
        parts.append(s.args[4].at(COMPARE + 1))  # type: ignore[union-attr]
    if s.a.mask is not None:
        parts.append(_mask_over(s, s.a.mask))
    return parts[0] if len(parts) == 1 else " & ".join(_grouped(part) for part in parts)


def _biased(bias: str, allowed: str, dtype: str) -> str:
    cast = f"{bias}.to({dtype})" if dtype else bias
    if not allowed:
        return cast
    inverted = allowed[1:] if allowed.startswith("~") and " " not in allowed else f"~{_grouped(allowed)}"
    return f'{cast}.masked_fill({inverted}, float("-inf"))'


def _attend_by_hand(s: Site) -> Code:
    """Attention with a soft cap or sinks, which no fused kernel takes."""
    s.forward.needs_helper("attention")
    parts = [s.arg(0), s.arg(1), s.arg(2)]
    if s.a.scale is not None:
        parts.append(f"scale={s.setting('scale')}")
    if s.a.softcap is not None:
        parts.append(f"softcap={s.setting('softcap')}")
    if s.has(3):
        parts.append(f"bias={s.arg(3)}")
    allowed = _allowed(s)
    if allowed:
        parts.append(f"allowed={allowed}")
    if s.has(5):
        parts.append(f"sinks={s.arg(5)}")
    if s.a.drop:
        parts.append(f"drop={s.setting('drop')} if {s.forward.training()} else 0.0")
    return Code(f"attention({', '.join(parts)})")


def _linear_attend(s: Site) -> Code:
    s.forward.needs_helper("linear_attend")
    return Code(f"linear_attend({', '.join(s.arg(place) for place in range(4) if s.has(place))})")


def _rotate(s: Site) -> Code:
    s.forward.needs_helper("rotate_neighbours" if s.a.interleaved else "rotate")
    cos, sin = s.arg(1), s.arg(2)
    between = len(s.type(0).dims) - len(s.type(1).dims)
    if len(s.type(1).dims) == 3 and between:
        cos, sin = (f"{s.atom(place)}{'.unsqueeze(1)' * between}" for place in (1, 2))
    name = "rotate_neighbours" if s.a.interleaved else "rotate"
    return Code(f"{name}({s.arg(0)}, {cos}, {sin})")


# --- the rest ----------------------------------------------------------------------------------------------------------


def _dtype_cast(s: Site) -> Code:
    if s.a.to == "float":
        return Code(f"{s.atom(0)}.float()") if s.type().dtype == "int" else Code(s.forward.as_float(s))
    return Code(f"{s.atom(0)}.long()" if s.a.to == "int" else f"{s.atom(0)}.bool()")


def _drop_path(s: Site) -> Code:
    s.forward.needs_helper("drop_path")
    return Code(f"drop_path({s.arg(0)}, {s.setting('p')}, {s.forward.training()})")


def _where(s: Site) -> Code:
    return Code(f"torch.where({s.arg(0)}, {s.arg(1)}, {s.arg(2)})")


def _extreme(name: str, clamp: str) -> Lowering:
    """`maximum` and `minimum`; against a plain number, a clamp."""

    def lower(s: Site) -> Code:
        for place in (0, 1):
            if s.forward.is_number(s.node, place):
                return Code(f"{s.atom(1 - place)}.clamp({clamp}={s.arg(place)})")
        return Code(f"torch.{name}({s.arg(0)}, {s.arg(1)})")

    return lower


def _top_k(s: Site) -> Code:
    axis = "" if s.a.axis == len(s.type().dims) - 1 else f", dim={s.a.axis}"
    return Code(f"{s.atom(0)}.topk({s.setting('k')}{axis})")


def _rearrange(s: Site) -> Code:
    plan = rearrangement(s.a.pattern, s.type().dims, dict(s.a.sizes or ()))
    given = dict(s.a.sizes or ())
    names = [name for group in _groups(s.a.pattern.split("->")[0], len(s.type().dims)) for name in group]
    text = s.atom(0)
    axis = 0
    for count in plan.split_groups:
        if count == 0:
            text += f".squeeze({axis})"
            continue
        if count > 1:
            inner = range(axis, axis + count)
            free = next((i for i in inner if names[i] not in given), None)
            sizes = [
                "-1" if i == free else s.size(plan.split[i], names[i] if names[i] in given else None) for i in inner
            ]
            text += f".unflatten({axis}, ({', '.join(sizes)}))"
        axis += count
    text += _permuted(plan.order)
    for axis, count in enumerate(plan.merged_groups):
        if count == 0:
            text += f".unsqueeze({axis})"
        elif count > 1:
            last = axis + count - 1
            remaining = sum(c if c > 1 else 1 for c in plan.merged_groups) - 1
            text += (
                f".flatten({axis})"
                if last >= remaining and plan.merged_groups[-1] == count
                else f".flatten({axis}, {last})"
            )
    return Code(text)


def _groups(side: str, rank: int) -> list[tuple[str, ...]]:
    from tfdsl.ir.rearrange import _open_ellipsis, _parse_side

    groups = _parse_side(side)
    return _open_ellipsis(groups, rank - (len(groups) - 1) if any("..." in group for group in groups) else 0)


def _permuted(order: Sequence[int]) -> str:
    moved = [place for place, axis in enumerate(order) if place != axis]
    if not moved:
        return ""
    if len(moved) == 2:
        return f".transpose({moved[0]}, {moved[1]})"
    return f".permute({', '.join(str(axis) for axis in order)})"


def _split(s: Site) -> Code:
    axis = s.axis(s.a.axis)
    if s.a.squeeze:
        return Code(f"{s.atom(0)}.unbind({axis})")
    if s.a.parts is not None:
        return Code(f"{s.atom(0)}.chunk({s.setting('parts')}, dim={axis})")
    sizes = ", ".join(s.size(each) for each in s.a.sizes)
    return Code(f"{s.atom(0)}.split(({sizes}), dim={axis})")


def _concat(s: Site) -> Code:
    parts = ", ".join(s.forward.matching(s, i) for i in range(len(s.args)))
    return Code(
        f"torch.cat(({parts},), dim={s.axis(s.a.axis)})"
        if len(s.args) == 1
        else f"torch.cat(({parts}), dim={s.axis(s.a.axis)})"
    )


def _slice(s: Site) -> Code:
    rank = len(s.type().dims)
    start = "" if s.a.start == 0 else s.size(s.a.start, "start")
    stop = "" if s.a.stop is None or s.a.stop == s.type().dims[s.a.axis] else s.size(s.a.stop, "stop")
    step = f":{s.a.step}" if s.a.step != 1 else ""
    if s.a.axis == rank - 1 and rank > 1:
        return Code(f"{s.atom(0)}[..., {start}:{stop}{step}]")
    return Code(f"{s.atom(0)}[{':, ' * s.a.axis}{start}:{stop}{step}]")


def _select(s: Site) -> Code:
    rank = len(s.type().dims)
    index = s.size(s.a.index, "index")
    if s.a.axis == rank - 1 and rank > 1:
        return Code(f"{s.atom(0)}[..., {index}]")
    return Code(f"{s.atom(0)}[{':, ' * s.a.axis}{index}]")


def _pad(s: Site) -> Code:
    later = len(s.type().dims) - 1 - s.a.axis
    zeros = "0, 0, " * later
    value = f", value={s.setting('value')}" if s.a.value else ""
    before, after = s.size(s.a.before, "before"), s.size(s.a.after, "after")
    return Code(f"F.pad({s.arg(0)}, ({zeros}{before}, {after}){value})")


def _expand(s: Site) -> Code:
    dims = s.type().dims
    lead = len(s.a.shape) - len(dims)
    parts = [
        "-1" if place >= lead and dims[place - lead] == size else s.size(size) for place, size in enumerate(s.a.shape)
    ]
    return Code(f"{s.atom(0)}.expand({', '.join(parts)})")


def _gather(s: Site) -> Code:
    return Code(f"{s.atom(0)}[{':, ' * s.a.axis}{s.arg(1)}]")


def _one_hot(s: Site) -> Code:
    return Code(f"F.one_hot({s.arg(0)}, {s.size(s.a.classes, 'classes')}).to({s.forward.float_dtype()})")


def _dequantize(s: Site) -> Code:
    s.forward.needs_helper("dequantize")
    return Code(f"dequantize({s.arg(0)}, {s.arg(1)})")


def _repeat(s: Site) -> Code:
    """Loops are statements, and leave no expression."""
    from tfdsl.backends.torch.loops import write_loop

    write_loop(s.forward, s.node)
    return Code("")


def _route(s: Site) -> Code:
    from tfdsl.backends.torch.loops import routed

    return routed(s)


LOWERINGS: dict[str, Lowering] = {
    "linear": _linear,
    "embedding": lambda s: Code(f"F.embedding({s.arg(0)}, {s.arg(1)})"),
    "layer_norm": _norm("F.layer_norm"),
    "rms_norm": _norm("F.rms_norm"),
    "group_norm": _group_norm,
    "conv1d": _conv("F.conv1d"),
    "conv2d": _conv("F.conv2d"),
    "matmul": _infix("@", PRODUCT),
    "einsum": lambda s: Code(
        f'torch.einsum("{letters(s.a.pattern)}", {", ".join(s.forward.matching(s, i) for i in range(len(s.args)))})'
    ),
    "attend": _attend,
    "linear_attend": _linear_attend,
    "rotate": _rotate,
    "positions": lambda s: Code(f"torch.arange({s.atom(0)}.shape[{s.axis(s.a.axis)}], device={s.atom(0)}.device)"),
    "erf": _call("torch.erf"),
    "exp": _method("exp"),
    "log": _method("log"),
    "sqrt": _method("sqrt"),
    "sin": _method("sin"),
    "cos": _method("cos"),
    "tanh": _call("torch.tanh"),
    "sigmoid": _call("torch.sigmoid"),
    "relu": _call("F.relu"),
    "silu": _call("F.silu"),
    "softplus": _call("F.softplus"),
    "gelu": lambda s: Code(f"F.gelu({s.arg(0)}" + (', approximate="tanh")' if s.a.approximate else ")")),
    "neg": lambda s: Code(f"-{s.args[0].at(UNARY)}", UNARY),  # type: ignore[union-attr]
    "abs": _method("abs"),
    "floor": _method("floor"),
    "add": _infix("+", SUM),
    "sub": _infix("-", SUM),
    "mul": _infix("*", PRODUCT),
    "div": _infix("/", PRODUCT),
    "pow": _infix("**", POWER),
    "floordiv": _infix("//", PRODUCT),
    "mod": _infix("%", PRODUCT),
    "maximum": _extreme("maximum", "min"),
    "minimum": _extreme("minimum", "max"),
    "eq": _infix("==", COMPARE),
    "ne": _infix("!=", COMPARE),
    "lt": _infix("<", COMPARE),
    "le": _infix("<=", COMPARE),
    "gt": _infix(">", COMPARE),
    "ge": _infix(">=", COMPARE),
    "both": lambda s: Code(f"{s.atom(0)} & {s.atom(1)}", COMPARE),
    "either": lambda s: Code(f"{s.atom(0)} | {s.atom(1)}", COMPARE),
    "negate": lambda s: Code(f"~{s.atom(0)}", UNARY),
    "where": _where,
    "cast": _dtype_cast,
    "dropout": lambda s: Code(f"F.dropout({s.arg(0)}, {s.setting('p')}, {s.forward.training()})"),
    "drop_path": _drop_path,
    "softmax": lambda s: Code(f"{s.atom(0)}.softmax(dim={s.axis(s.a.axis)})"),
    "log_softmax": lambda s: Code(f"{s.atom(0)}.log_softmax(dim={s.axis(s.a.axis)})"),
    "sum": _over_axis("sum"),
    "mean": _over_axis("mean"),
    "max": _over_axis("amax"),
    "min": _over_axis("amin"),
    "argmax": _over_axis("argmax"),
    "cumsum": _over_axis("cumsum"),
    "top_k": _top_k,
    "rearrange": _rearrange,
    "split": _split,
    "concat": _concat,
    "slice": _slice,
    "select": _select,
    "pad": _pad,
    "expand": _expand,
    "swap": lambda s: Code(f"{s.atom(0)}.transpose({s.a.first}, {s.a.second})"),
    "roll": lambda s: Code(f"{s.atom(0)}.roll({s.setting('shift')}, dims={s.axis(s.a.axis)})"),
    "gather": _gather,
    "take_along": lambda s: Code(f"{s.atom(0)}.gather({s.axis(s.a.axis)}, {s.arg(1)})"),
    "one_hot": _one_hot,
    "iota": lambda s: Code(f"torch.arange({s.size(s.a.size, 'size')}, device={s.forward.device()})"),
    "dequantize": _dequantize,
    "weight": lambda s: Code(s.forward.weight(s.node.attributes["path"])),
    "constant": lambda s: s.forward.constant(s.node),
    "input": lambda s: s.forward.code(Value(s.node.id)),
    "repeat": _repeat,
    "route": _route,
}

REFUSED: dict[str, str] = {
    "prune": "it is computed when the model is built, from weights",
    "quantize": "it is computed when the model is built, from weights",
}
