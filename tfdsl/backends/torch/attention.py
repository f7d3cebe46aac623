"""Attention in PyTorch: the fused kernel where it can serve, masks over positions, rotary positions."""

from __future__ import annotations

from collections.abc import Callable

from tfdsl.backends.torch.code import ATOM, COMPARE, JOIN, PRODUCT, SUM, UNARY, Code, call, infix
from tfdsl.backends.torch.sights import Sight
from tfdsl.backends.torch.site import Lowering, Site
from tfdsl.ir import masks
from tfdsl.ir.masks import may_hide_all

LONG_MASK = 40


def attend(s: Site) -> Code:
    """`F.scaled_dot_product_attention`, or a function of our own where that lacks something."""
    if "sight" in s.node.attributes:
        return _cached(s, s.node.attributes["sight"])
    q, k = s.type(0), s.type(1)
    same_length = q.dims[2] == k.dims[2]
    by_hand = s.a.softcap is not None or s.has(5)
    causal = s.a.mask == masks.CAUSAL and not (by_hand or s.has(3) or s.has(4)) and same_length
    if not causal and (asks_for_positions(s.a.mask) or (s.a.mask is not None and not same_length)):
        s.settle(0, "q")
        s.settle(1, "k")
    if by_hand:
        return _by_hand(s)
    allowed = None if causal else _allowed(s)
    blank = s.has(3) and (s.has(4) or not same_length or may_hide_all(s.a.mask or masks.FULL))
    if allowed is not None and (blank or len(allowed.text) > LONG_MASK):
        allowed = _named(s, allowed)
    parts = [s.arg(place) for place in range(3)]
    if causal:
        parts.append("is_causal=True")
    elif s.has(3):
        parts.append(f"attn_mask={_biased(s, allowed)}")
    elif allowed is not None:
        parts.append(f"attn_mask={allowed.text}")
    parts += _drop(s, "dropout_p")
    if s.a.scale is not None:
        parts.append(f"scale={s.setting('scale')}")
    if q.dims[1] != k.dims[1]:
        parts.append("enable_gqa=True")
    code = call("F.scaled_dot_product_attention", *parts)
    if allowed is not None and blank:
        s.forward.program.use_helper("blank_hidden")
        return call("blank_hidden", code.text, allowed.text)
    return code


def _cached(s: Site, sight: Sight) -> Code:
    """Attention to what is kept, under a mask that the model makes once a call, or without one where none is needed."""
    allowed = Code(s.forward.draft.mask(sight))
    if not sight.fused:
        return _by_hand(s, allowed)
    s.forward.program.use_helper("cached_attention")
    scale = [f"scale={s.setting('scale')}"] if s.a.scale is not None else []
    return call("cached_attention", *(s.arg(place) for place in range(3)), allowed.text, *scale)


def asks_for_positions(mask: masks.Mask | None) -> bool:
    """Whether a mask is written out over positions."""
    return mask is not None and any(each.operand is None or each.kind == "prefix" for each in masks.terms(mask))


def _drop(s: Site, name: str) -> list[str]:
    """The argument for dropout of attention, where there is any or a parameter may give some."""
    if not s.a.drop and not s.forward.numbers.is_variable(s.node, "drop", s.a.drop):
        return []
    return [f"{name}={s.setting('drop')} if {s.forward.draft.training()} else 0.0"]


def _allowed(s: Site) -> Code | None:
    """What may be seen, as one condition; None where everything may."""
    parts = [s.code(4)] if s.has(4) else []
    if s.a.mask is not None and s.a.mask != masks.FULL:
        parts.append(_mask(s, s.a.mask))
    return _joined(parts, "&") if parts else None


def _named(s: Site, allowed: Code) -> Code:
    """A mask as a variable."""
    if allowed.text.isidentifier():
        return allowed
    known = s.forward.locals
    if s.node.id not in known:
        known[s.node.id] = s.forward.variables.fresh("allowed")
        s.forward.line(f"{known[s.node.id]} = {allowed.text}")
    return Code(known[s.node.id])


def _joined(parts: list[Code], sign: str) -> Code:
    """Conditions joined; those that are more than a word get parentheses."""
    if len(parts) == 1:
        return parts[0]
    return Code(f" {sign} ".join(part.at(ATOM) for part in parts), JOIN)


def _biased(s: Site, allowed: Code | None) -> str:
    if allowed is None:
        return s.arg(3)
    hidden = allowed.text[1:] if allowed.text.startswith("~") and allowed.level == UNARY else f"~{allowed.at(ATOM)}"
    return f'{s.atom(3)}.masked_fill({hidden}, float("-inf"))'


def _by_hand(s: Site, allowed: Code | None = None) -> Code:
    """Attention with a soft cap or sinks, which no fused kernel takes; `allowed` is what may be seen, if that is known."""
    s.forward.program.use_helper("attention")
    parts = [s.arg(place) for place in range(3)]
    if s.a.scale is not None:
        parts.append(f"scale={s.setting('scale')}")
    if s.a.softcap is not None:
        parts.append(f"softcap={s.setting('softcap')}")
    if s.has(3):
        parts.append(f"bias={s.arg(3)}")
    allowed = allowed or _allowed(s)
    if allowed is not None:
        allowed = _named(s, allowed) if len(allowed.text) > LONG_MASK else allowed
        parts.append(f"allowed={allowed.text}")
    if s.has(5):
        parts.append(f"sinks={s.arg(5)}")
    return call("attention", *parts, *_drop(s, "drop"))


# --- masks -----------------------------------------------------------------------------------------------------------


def _mask(s: Site, mask: masks.Mask) -> Code:
    """A mask as a bool tensor that broadcasts to [batch, heads, queries, keys]."""
    if isinstance(mask, masks.Joined):
        return _joined([_mask(s, part) for part in _parts(mask, mask.operator)], mask.operator)
    if isinstance(mask, masks.Negated):
        return Code(f"~{_mask(s, mask.inner).at(ATOM)}", UNARY)
    if mask.operand is not None:
        return _over_operand(s, mask)
    if mask.kind == "random_blocks":
        s.forward.program.use_helper("random_blocks")
    numbers = [Code(str(argument)) for argument in mask.arguments]
    return _RELATIONS[mask.kind](_queries(s), _keys(s), *numbers)


def _parts(mask: masks.Mask, operator: str) -> list[masks.Mask]:
    """What an operator joins, however the joins are nested."""
    if isinstance(mask, masks.Joined) and mask.operator == operator:
        return [*_parts(mask.left, operator), *_parts(mask.right, operator)]
    return [mask]


def _over_operand(s: Site, term: masks.Term) -> Code:
    """`padding(keep)` and `documents(ids)`."""
    assert term.operand is not None
    place = 6 + term.operand
    operand, rank = s.atom(place), len(s.type(place).dims)
    if term.kind == "prefix":
        return _less(_keys(s), Code(f"{operand}[:, None, None, None]"))
    if term.kind == "padding":
        return Code(f"{operand}[:, None, None]" if rank == 2 else operand)
    rows, columns = ("[:, None, :, None]", "[:, None, None]") if rank == 2 else ("[:, None]", "")
    return Code(f"{operand}{rows} == {operand}{columns}", COMPARE)


def _queries(s: Site) -> Code:
    return Code(_positions(s, 0, "queries", "[:, None]"))


def _keys(s: Site) -> Code:
    return Code(_positions(s, 1, "keys", ""))


def _positions(s: Site, place: int, name: str, suffix: str) -> str:
    """A variable with the positions along queries or keys; queries stand behind the beginning of the keys."""
    value, known = s.node.inputs[place], s.forward.positions
    assert value is not None
    if (value, name) not in known:
        x, until = s.arg(place), f"{s.arg(place)}.shape[2]"
        if place == 0 and s.a.offset != 0:
            until = f"{s.arg(1)}.shape[2] - {until}, {s.arg(1)}.shape[2]"
        known[value, name] = s.forward.variables.fresh(name)
        s.forward.line(f"{known[value, name]} = torch.arange({until}, device={x}.device){suffix}")
    return known[value, name]


def _both(left: Code, right: Code) -> Code:
    return _joined([left, right], "&")


def _less(left: Code, right: Code) -> Code:
    return infix(left, "<", right, COMPARE)


def _equal(left: Code, right: Code) -> Code:
    return infix(left, "==", right, COMPARE)


def _difference(q: Code, k: Code) -> Code:
    return infix(q, "-", k, SUM)


def _everywhere(code: Code) -> Code:
    return infix(code, ">=", Code("0"), COMPARE)


_RELATIONS: dict[str, Callable[..., Code]] = {
    "full": lambda q, k: _both(_everywhere(q), _everywhere(k)),
    "causal": lambda q, k: infix(k, "<=", q, COMPARE),
    "window": lambda q, k, size: _less(Code(f"{_difference(q, k).at(ATOM)}.abs()"), size),
    "strided": lambda q, k, step: _equal(infix(_difference(q, k), "%", step, PRODUCT), Code("0")),
    "blocks": lambda q, k, size: _equal(infix(q, "//", size, PRODUCT), infix(k, "//", size, PRODUCT)),
    "global_tokens": lambda q, k, count: _joined([_less(q, count), _less(k, count)], "|"),
    "random_blocks": lambda q, k, *numbers: call("random_blocks", q.text, k.text, *(each.text for each in numbers)),
    "prefix": lambda q, k, count: _less(Code(f"{k.text}[None]"), count),
}


# --- rotary positions ------------------------------------------------------------------------------------------------


def rotate(s: Site) -> Code:
    """A helper that turns pairs of features; angles of a batch are stretched over the axes between."""
    name = "rotate_neighbours" if s.a.interleaved else "rotate"
    s.forward.program.use_helper(name)
    between = len(s.type(0).dims) - len(s.type(1).dims)
    if len(s.type(1).dims) == 3 and between:
        angles = [f"{s.atom(place)}{'.unsqueeze(1)' * between}" for place in (1, 2)]
    else:
        angles = [s.arg(1), s.arg(2)]
    return call(name, s.arg(), *angles)


def linear_attend(s: Site) -> Code:
    """A helper that keeps a running sum; where each feature of the keys decays by itself, one of its own."""
    by_feature = s.has(3) and len(s.type(3).dims) == 4
    helper = "gated_linear_attend" if by_feature else "linear_attend"
    s.forward.program.use_helper(helper)
    return call(helper, *(s.arg(place) for place in range(4) if s.has(place)))


ATTENTION: dict[str, Lowering] = {"attend": attend, "linear_attend": linear_attend, "rotate": rotate}
