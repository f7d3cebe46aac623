"""Where each weight lies in a checkpoint: the rules of a mapping, written out for the weights of one graph.

A tensor of theirs is made of ours by changes of layout. Read backwards, each gives regions of our weights, and every
element of a weight must come from exactly one place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdsl.checkpoints.computed import Computed
from tfdsl.checkpoints.names import Pattern
from tfdsl.checkpoints.weight_rules import Change, Correspondence, OurWeight, Tensor
from tfdsl.ir.dims import evaluate
from tfdsl.ir.graph import Graph, Weight, fill_indices, weights
from tfdsl.ir.paths import names
from tfdsl.language.diagnostics import Collector, Diagnostic, Label, Span

Shape = tuple[int, ...]
Ranges = tuple[tuple[int, int], ...]  # the part of a tensor that is meant: start and stop on each axis


@dataclass(frozen=True)
class Piece:
    """A region of a weight of ours, and what of their tensor lies there."""

    path: str
    ranges: Ranges
    array: Any


@dataclass
class Group:
    """One tensor of theirs, under every name that it may have, the one that is written first."""

    names: list[str]
    tree: Tensor  # its paths have no `*`
    shape: Shape
    span: Span


class WrongLayout(Exception):
    """A change of layout that a tensor's shape does not allow."""


@dataclass
class Layout:
    """The tensors of a checkpoint for one graph; `sources` has the groups that each weight comes from."""

    shapes: dict[str, Shape]
    weights: dict[str, Weight]
    groups: list[Group] = field(default_factory=list)
    by_name: dict[str, Group] = field(default_factory=dict)
    sources: dict[str, list[Group]] = field(default_factory=dict)
    ignored: list[Pattern] = field(default_factory=list)
    computed: list[Computed] = field(default_factory=list)

    def ignores(self, name: str) -> bool:
        return any(pattern.match(name) is not None for pattern in self.ignored)


def lay_out(rules: Sequence[Correspondence], graph: Graph, faults: Collector) -> Layout:
    """Write out the rules for every weight of a graph. Faults are collected."""
    found = weights(graph)
    whole = {path: weight for weight in found for path in weight.paths()}
    shapes = {path: tuple(evaluate(dim, {}) for dim in weight.type.dims) for path, weight in whole.items()}
    layout = Layout(shapes, whole)
    by_pattern: dict[str, list[Weight]] = {}
    for weight in found:
        by_pattern.setdefault(weight.path, []).append(weight)
    groups: dict[Any, Group] = {}
    for rule in sorted(rules, key=lambda rule: rule.is_copy):
        if rule.ours is None:
            layout.ignored.append(rule.theirs)
            if rule.computed is not None and rule.module is not None:
                layout.computed.append(Computed(rule.theirs, rule.computed, rule.module, rule.span))
            continue
        for numbers in _numbers(list(leaves(rule.ours)), by_pattern):
            tree = _written_out(rule.ours, numbers)
            spellings = rule.theirs.spellings(numbers)
            group = groups.get(key := _key(tree))
            if group is None:
                try:
                    shape = shape_of(tree, shapes)
                except WrongLayout as error:
                    faults.add(Diagnostic("T622", str(error), rule.span))
                    break
                group = groups[key] = Group([], tree, shape, rule.span)
                layout.groups.append(group)
                for path in dict.fromkeys(leaf.path for leaf in leaves(tree)):
                    layout.sources.setdefault(path, []).append(group)
            for name in spellings:
                other = layout.by_name.setdefault(name, group)
                if other is not group:
                    others = (Label(other.span, "by this rule"),)
                    faults.add(Diagnostic("T620", f'"{name}" is mapped twice', rule.span, others=others))
                    break
                group.names.append(name)
    return layout


def check_coverage(layout: Layout, where: Span, faults: Collector) -> None:
    """Report the weights of a graph that no rule says anything of, in whole or in part, or that two rules say."""
    missing, partly, twice = list[str](), list[str](), list[str]()
    for path, shape in layout.shapes.items():
        regions = [
            piece.ranges
            for group in layout.sources.get(path, ())
            for piece in pieces(group.tree, None, layout.shapes)
            if piece.path == path
        ]
        if not regions:
            missing.append(path)
        elif any(_overlap(one, other) for place, one in enumerate(regions) for other in regions[:place]):
            twice.append(path)
        elif sum(math.prod(stop - start for start, stop in region) for region in regions) != math.prod(shape):
            partly.append(path)
    for paths, what in (
        (missing, "no rule names"),
        (partly, "the rules do not fill"),
        (twice, "two rules fill the same part of"),
    ):
        if paths:
            shown = names(paths)
            message = f"{what} {', '.join(f'`{each}`' for each in shown[:6])}"
            message += f" and {len(shown) - 6} more" if len(shown) > 6 else ""
            place = layout.weights[paths[0]].span
            faults.add(Diagnostic("T626", message, where, others=(Label(place, "made here"),) if place else ()))


# --- shapes and regions ----------------------------------------------------------------------------------------------


def leaves(tree: Tensor) -> Iterator[OurWeight]:
    """The weights that a tensor of theirs is made of."""
    if isinstance(tree, OurWeight):
        yield tree
    else:
        for part in tree.parts:
            yield from leaves(part)


def shape_of(tree: Tensor, shapes: Mapping[str, Shape]) -> Shape:
    """The shape of their tensor, from those of our weights. Raises `WrongLayout`."""
    if isinstance(tree, OurWeight):
        return shapes[tree.path]
    parts = [shape_of(part, shapes) for part in tree.parts]
    first, kind = parts[0], tree.kind
    if kind in ("transpose", "permute"):
        order = order_of(tree)
        if len(order) != len(first):
            raise WrongLayout(f"`{kind}` of a tensor of {len(first)} axes: {list(first)}")
        return tuple(first[axis] for axis in order)
    axis = tree.options.get("axis", 0)
    if axis >= len(first) + (kind == "stack"):
        raise WrongLayout(f"there is no axis {axis} in {list(first)}")
    if kind == "split":
        start, stop = part_of(tree, first[axis])
        return (*first[:axis], stop - start, *first[axis + 1 :])
    around = [part if kind == "stack" else (*part[:axis], *part[axis + 1 :]) for part in parts]
    if any(each != around[0] for each in around):
        raise WrongLayout(f"`{kind}` of tensors that do not fit: {', '.join(str(list(part)) for part in parts)}")
    size = len(parts) if kind == "stack" else sum(part[axis] for part in parts)
    return (*around[0][:axis], size, *around[0][axis:])


def order_of(tree: Change) -> tuple[int, ...]:
    """The order of axes of a `transpose` or a `permute`."""
    return (1, 0) if tree.kind == "transpose" else tuple(tree.options["order"])


def pieces(tree: Tensor, array: Any, shapes: Mapping[str, Shape], ranges: Ranges | None = None) -> Iterator[Piece]:
    """What their `array` holds of each weight: views, where it is not None. `ranges` says which part of it is there."""
    if ranges is None:
        ranges = tuple((0, size) for size in shape_of(tree, shapes))
    if isinstance(tree, OurWeight):
        yield Piece(tree.path, ranges, array)
    elif tree.kind in ("transpose", "permute"):
        order = order_of(tree)
        back = sorted(range(len(order)), key=order.__getitem__)
        turned = array if array is None else array.transpose(back)
        yield from pieces(tree.parts[0], turned, shapes, tuple(ranges[axis] for axis in back))
    elif tree.kind == "split":
        axis = tree.options.get("axis", 0)
        start, _ = part_of(tree, shape_of(tree.parts[0], shapes)[axis])
        low, high = ranges[axis]
        inside = (*ranges[:axis], (low + start, high + start), *ranges[axis + 1 :])
        yield from pieces(tree.parts[0], array, shapes, inside)
    else:
        yield from _joined(tree, array, shapes, ranges)


def _joined(tree: Change, array: Any, shapes: Mapping[str, Shape], ranges: Ranges) -> Iterator[Piece]:
    """The pieces of a `concat` or a `stack`: each of its parts has what falls into its place on the axis."""
    axis, start = tree.options.get("axis", 0), 0
    low, high = ranges[axis]
    for part in tree.parts:
        size = 1 if tree.kind == "stack" else shape_of(part, shapes)[axis]
        first, last = max(low, start), min(high, start + size)
        if first < last:
            view = array
            if array is not None:
                place: Any = first - low if tree.kind == "stack" else slice(first - low, last - low)
                view = array[(*[slice(None)] * axis, place)]
            inside = () if tree.kind == "stack" else ((first - start, last - start),)
            yield from pieces(part, view, shapes, (*ranges[:axis], *inside, *ranges[axis + 1 :]))
        start += size


def part_of(tree: Change, size: int) -> tuple[int, int]:
    """Where the part that a `split` takes begins and ends."""
    part, sizes = tree.options["part"], tree.options.get("sizes")
    if sizes is None:
        count = tree.options["parts"]
        if size % count:
            raise WrongLayout(f"{size} is not divisible into {count} parts")
        sizes = (size // count,) * count
    if sum(sizes) != size:
        raise WrongLayout(f"parts of {', '.join(map(str, sizes))} do not make {size}")
    return sum(sizes[:part]), sum(sizes[: part + 1])


def _overlap(one: Ranges, other: Ranges) -> bool:
    return all(max(a, c) < min(b, d) for (a, b), (c, d) in zip(one, other, strict=True))


# --- indices ---------------------------------------------------------------------------------------------------------


def _numbers(found: list[OurWeight], by_pattern: Mapping[str, list[Weight]]) -> list[dict[str, int]]:
    """Every assignment of numbers to the placeholders of a rule for which all its weights are there."""
    assignments: list[dict[str, int]] = [{}]
    for leaf in sorted(found, key=lambda leaf: -len(leaf.indices)):
        named = {each for each in leaf.indices if isinstance(each, str)}
        own = {
            tuple(sorted(each.items())): each
            for weight in by_pattern.get(leaf.path, ())
            for box in weight.boxes
            for each in _of_box(leaf.indices, box)
        }
        if assignments and named <= set(assignments[0]):
            assignments = [one for one in assignments if tuple(sorted((each, one[each]) for each in named)) in own]
        else:
            assignments = [
                {**one, **each}
                for one in assignments
                for each in own.values()
                if all(one.get(name, number) == number for name, number in each.items())
            ]
    return assignments


def _of_box(indices: Sequence[str | int], box: Sequence[Sequence[int]]) -> Iterator[dict[str, int]]:
    """The assignments for one weight and one of the ranges that its indices run over."""
    found: list[dict[str, int]] = [{}]
    for index, turns in zip(indices, box, strict=True):
        if isinstance(index, int):
            found = found if index in turns else []
        else:
            found = [{**each, index: turn} for each in found for turn in turns if each.get(index, turn) == turn]
    yield from found


def _written_out(tree: Tensor, numbers: Mapping[str, int]) -> Tensor:
    if isinstance(tree, OurWeight):
        return OurWeight(
            fill_indices(tree.path, [each if isinstance(each, int) else numbers[each] for each in tree.indices]), ()
        )
    return Change(tree.kind, tuple(_written_out(part, numbers) for part in tree.parts), tree.options)


def _key(tree: Tensor) -> Any:
    if isinstance(tree, OurWeight):
        return tree.path
    return tree.kind, tuple(map(_key, tree.parts)), tuple(sorted(tree.options.items()))
