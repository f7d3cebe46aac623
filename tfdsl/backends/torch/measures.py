"""Numbers and sizes in the code of one unit: attributes of nodes, shapes, conditions on sizes."""

from __future__ import annotations

from typing import Any

from tfdsl.backends.torch.arithmetic import NotPlain, number, number_code, spelled_as
from tfdsl.backends.torch.code import ATOM, COMPARE, Code, infix
from tfdsl.backends.torch.dimensions import size_code
from tfdsl.backends.torch.draft import Draft
from tfdsl.backends.torch.outside import OUTSIDE
from tfdsl.backends.torch.provenance import size_of
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Constraint, Node
from tfdsl.language import syntax

_OPPOSITE = {"<=": ">", ">=": "<", "<": ">=", ">": "<=", "==": "!=", "!=": "=="}


class Measures:
    """What the numbers of a unit's nodes are called where its code stands."""

    def __init__(self, draft: Draft, unit: Unit):
        self.draft, self.unit = draft, unit

    def setting(self, node: Node, name: str, value: Any) -> Code:
        """An attribute: as the spec wrote it, if that still gives its value; else the number."""
        if isinstance(value, tuple):
            return Code(f"({', '.join(number(each) for each in value)})")
        own = self._spelled(self.unit.expression(node, name), value)
        return own or self._from_inside(node, name, value) or number_code(value)

    def is_variable(self, node: Node, name: str, value: Any) -> bool:
        """Whether an attribute is more than a number: it follows a parameter."""
        code = self._spelled(self.unit.expression(node, name), value, record=False)
        return code is not None and any(each.isalpha() for each in code.text)

    def size(self, size: Size, node: Node, spelled: str = "") -> Code:
        """A size, which is the attribute `spelled` of a node or one of its numbers; one of run time comes from a shape."""
        if isinstance(size, int):
            tree = self.unit.expression(node, spelled)
            for each in tree.items if isinstance(tree, syntax.ListOf) else (tree,):
                code = self._spelled(each, size)
                if code is not None:
                    return code
            return self._from_inside(node, spelled, size) or number_code(size)
        return size_code(size, self.draft.symbol)

    def _spelled(self, tree: syntax.Expression | None, value: Any, record: bool = True) -> Code | None:
        return spelled_as(tree, value, self.draft.scope.unit.names, self.draft.name if record else str)

    def _from_inside(self, node: Node, name: str, value: Any) -> Code | None:
        """An attribute as a block inside a loop writes it, where its node has left the loop, in the names of the model."""
        noted = node.attributes.get(OUTSIDE)
        if noted is None or self.unit.graph is not self.draft.program.graph or not self.draft.unit.is_root:
            return None

        def text(inner: str) -> str:
            if inner not in noted.sizes:
                raise NotPlain
            return size_code(noted.sizes[inner], self._name).at(ATOM)

        return spelled_as(noted.trees.get(name), value, noted.names, text)

    def violated(self, constraint: Constraint) -> Code:
        """The condition under which a constraint does not hold."""
        sizes, trees = (constraint.left, constraint.right), sides(self.unit, constraint)
        left, right = (self._side(size, tree) for size, tree in zip(sizes, trees, strict=True))
        return infix(left, _OPPOSITE[constraint.operator], right, COMPARE)

    def _side(self, size: Size, tree: syntax.Expression | None) -> Code:
        if isinstance(size, Dim):
            origins = self.draft.program.provenance.of(self.unit)
            over = size_of(tree, origins.names)
            follows = over is not None and origins.known(over) == size
            return size_code(over if over is not None and follows else size, self._name)
        return self._spelled(tree, size) or number_code(size)

    def _name(self, name: str) -> str:
        """A name of the block, or a size that run time knows."""
        return self.draft.name(name[1:]) if name.startswith(".") else self.draft.symbol(name)


def sides(unit: Unit, constraint: Constraint) -> tuple[syntax.Expression | None, syntax.Expression | None]:
    """Both sides of a constraint as the unit's own block writes them; None for each where it is another's."""
    declaration = unit.frame.declaration if not unit.is_turn else None
    for each in declaration.body if declaration else ():
        if isinstance(each, syntax.Require) and each.span == constraint.span:
            tree = each.condition
            if isinstance(tree, syntax.Binary) and tree.operator == constraint.operator:
                return tree.left, tree.right
    return None, None
