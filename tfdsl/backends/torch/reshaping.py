"""Shape ops in PyTorch: named axes as chains of methods, cuts and joins along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfdsl.backends.torch.code import Code, call, tuple_of
from tfdsl.backends.torch.site import Lowering, Site
from tfdsl.ir.dims import Dim
from tfdsl.ir.rearrange import axis_names, rearrangement


def _rearrange(s: Site) -> Code:
    given = dict(s.a.sizes or ())
    plan = rearrangement(s.a.pattern, s.type().dims, given)
    names = axis_names(s.a.pattern, len(s.type().dims))
    text, axis = s.atom(), 0
    for count in plan.split_groups:
        if count == 0:
            text += f".squeeze({axis})"
        elif count > 1:
            inner = range(axis, axis + count)
            free = next((place for place in inner if names[place] not in given), None)
            sizes = ["-1" if place == free else s.size(plan.split[place], names[place]) for place in inner]
            text += f".unflatten({axis}, ({', '.join(sizes)}))"
        axis += count
    return Code(text + _permuted(plan.order) + _merged(plan.merged_groups))


def _permuted(order: Sequence[int]) -> str:
    moved = [place for place, axis in enumerate(order) if place != axis]
    if not moved:
        return ""
    if len(moved) == 2:
        return f".transpose({moved[0]}, {moved[1]})"
    return f".permute({', '.join(str(axis) for axis in order)})"


def _merged(groups: Sequence[int]) -> str:
    """Axes flattened by groups, from the first on; a group of none is a new axis."""
    text = ""
    remaining = sum(max(count, 1) for count in groups) - sum(count == 0 for count in groups)
    for axis, count in enumerate(groups):
        if count == 0:
            text += f".unsqueeze({axis})"
            remaining += 1
        elif count > 1:
            last = axis + count - 1
            text += f".flatten({axis})" if last == remaining - 1 else f".flatten({axis}, {last})"
            remaining -= count - 1
    return text


def _split(s: Site) -> Code:
    axis = s.axis(s.a.axis)
    if s.a.squeeze:
        return Code(f"{s.atom()}.unbind({axis})")
    if s.a.parts is not None:
        return Code(f"{s.atom()}.chunk({s.setting('parts')}, dim={axis})")
    return Code(f"{s.atom()}.split({tuple_of([s.size(each, 'sizes') for each in s.a.sizes])}, dim={axis})")


def _concat(s: Site) -> Code:
    parts = [s.arg(place) for place in range(len(s.args))]
    return call("torch.cat", tuple_of(parts), f"dim={s.axis(s.a.axis)}")


def _indexed(s: Site, axis: int, index: str) -> Code:
    """`x[..., index]`, `x[:, index]`."""
    rank = len(s.type().dims)
    before = "..., " if axis == rank - 1 and rank > 2 else ":, " * axis
    return Code(f"{s.atom()}[{before}{index}]")


def _slice(s: Site) -> Code:
    size = s.type().dims[s.a.axis]
    to_end = s.a.stop is None or s.a.stop == size
    left = size - s.a.start
    if to_end and isinstance(s.a.start, Dim) and isinstance(left, int) and left > 0:
        start = f"-{left}"
    else:
        start = "" if s.a.start == 0 else s.size(s.a.start, "start")
    stop = "" if to_end else s.size(s.a.stop, "stop")
    step = f":{s.a.step}" if s.a.step != 1 else ""
    colon = " : " if " " in start + stop else ":"
    return _indexed(s, s.a.axis, f"{start}{colon}{stop}{step}".strip())


def _pad(s: Site) -> Code:
    later = "0, 0, " * (len(s.type().dims) - 1 - s.a.axis)
    value = f", value={s.setting('value')}" if s.a.value else ""
    return Code(f"F.pad({s.arg()}, ({later}{s.size(s.a.before, 'before')}, {s.size(s.a.after, 'after')}){value})")


def _expand(s: Site) -> Code:
    dims, lead = s.type().dims, len(s.a.shape) - len(s.type().dims)
    sizes = [
        "-1" if place >= lead and dims[place - lead] == size else s.size(size, "shape")
        for place, size in enumerate(s.a.shape)
    ]
    filled = _FILLED.get(_number(s))
    if filled and s.a.shape:
        kind = {"int": ["dtype=torch.long"], "bool": ["dtype=torch.bool"]}.get(s.type().dtype, [])
        return call(filled, *sizes, *kind, f"device={s.forward.draft.device()}")
    return Code(f"{s.atom()}.expand({', '.join(sizes)})")


_FILLED = {0: "torch.zeros", 1: "torch.ones"}


def _number(s: Site) -> Any:
    """The number that is stretched, where it is one."""
    value = s.node.inputs[0]
    if value is None or not s.forward.is_number(s.node, 0):
        return None
    return s.forward.graph.node(value).attributes["value"]


def padded_by_hand(s: Site) -> str:
    """The input of a convolution that is padded by other amounts at its two ends; empty for any other."""
    if s.node.op != "conv1d" or not isinstance(s.a.padding, tuple) or s.a.padding[0] == s.a.padding[1]:
        return ""
    before, after = s.a.padding
    return f"F.pad({s.arg()}, ({before}, {after}))"


RESHAPING: dict[str, Lowering] = {
    "rearrange": _rearrange,
    "split": _split,
    "concat": _concat,
    "slice": _slice,
    "select": lambda s: _indexed(s, s.a.axis, s.size(s.a.index, "index")),
    "pad": _pad,
    "expand": _expand,
    "swap": lambda s: Code(f"{s.atom()}.transpose({s.a.first}, {s.a.second})"),
    "roll": lambda s: Code(f"{s.atom()}.roll({s.setting('shift')}, dims={s.axis(s.a.axis)})"),
    "gather": lambda s: Code(f"{s.atom()}[{':, ' * s.a.axis}{s.arg(1)}]"),
    "take_along": lambda s: Code(f"{s.atom()}.gather({s.axis(s.a.axis)}, {s.arg(1)})"),
}
