"""Where the numbers in an expression at fault come from: the other places that a diagnostic shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfdsl.ir.elaborate.arithmetic import is_static
from tfdsl.ir.elaborate.values import Fault, Given, Poisoned
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label

if TYPE_CHECKING:
    from tfdsl.ir.elaborate.body import Body

MOST_CAUSES = 4
_INNERMOST = 3


def causes(body: Body, tree: syntax.Tree) -> list[Label]:
    """For each name of a number in an expression, the place that gave it its value."""
    labels: list[Label] = []
    for name in _names(tree):
        try:
            value = body.lookup(name)
        except (Fault, Poisoned):
            continue
        origin = body.where(name)
        if origin is not None and (is_static(value) or isinstance(value, (bool, str))):
            known = str(value) != name  # a size of the inputs is only itself
            labels.append(Label(origin, f"`{name}` is {_shown(value) if known else 'known at run time only'}"))
    return labels[:MOST_CAUSES]


def causes_of(given: Given) -> list[Label]:
    """The causes of a setting's value, in the scope that it was written in."""
    if given.expression is None or given.body is None:
        return []
    return causes(given.body, given.expression)


def applications(body: Body) -> Iterator[Label]:
    """The applications that the body stands in, the innermost first."""
    frames: list[Any] = []
    at: Body | None = body
    while at is not None:  # a loop's body has frames of its own; those around it are its outer body's
        frames += reversed(at.frames)
        at = at.outer
    for frame in frames[:_INNERMOST]:
        if frame.span is not None:
            yield Label(frame.span, f"`{frame.block}` is applied here")


def _names(tree: syntax.Tree) -> list[str]:
    paths = (node for node in tree.walk() if isinstance(node, syntax.Path) and len(node.parts) == 1)
    return list(dict.fromkeys(path.text for path in paths))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
