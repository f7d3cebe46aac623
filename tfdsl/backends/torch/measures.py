"""Numbers and sizes in the code of one unit: attributes of nodes, shapes, conditions on sizes."""

from __future__ import annotations

from typing import Any

from tfdsl.backends.torch.arithmetic import number, number_code, spelled_as
from tfdsl.backends.torch.code import COMPARE, Code, infix
from tfdsl.backends.torch.dimensions import size_code
from tfdsl.backends.torch.draft import Draft
from tfdsl.backends.torch.provenance import frame_of, size_of
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
        return self._spelled(node, node.spelled.get(name), value) or number_code(value)

    def is_variable(self, node: Node, name: str, value: Any) -> bool:
        """Whether an attribute is more than a number: it follows a parameter."""
        code = self._spelled(node, node.spelled.get(name), value, record=False)
        return code is not None and any(each.isalpha() for each in code.text)

    def size(self, size: Size, node: Node, spelled: str = "") -> Code:
        """A size, which is the attribute `spelled` of a node or one of its numbers; one of run time comes from a shape."""
        if isinstance(size, int):
            tree = node.spelled.get(spelled)
            for each in tree.items if isinstance(tree, syntax.ListOf) else (tree,):
                code = self._spelled(node, each, size)
                if code is not None:
                    return code
        return size_code(size, self.draft.symbol)

    def _spelled(self, node: Node, tree: syntax.Expression | None, value: Any, record: bool = True) -> Code | None:
        if tree is None or frame_of(self.unit, node) is not self.unit.frame:
            return None
        return spelled_as(tree, value, self.draft.scope.unit.frame.names, self.draft.name if record else str)

    def violated(self, constraint: Constraint) -> Code:
        """The condition under which a constraint does not hold."""
        left, right = self._side(constraint, constraint.left), self._side(constraint, constraint.right)
        return infix(left, _OPPOSITE[constraint.operator], right, COMPARE)

    def _side(self, constraint: Constraint, size: Size) -> Code:
        if isinstance(size, Dim):
            return size_code(size, self.draft.symbol)
        for tree in _sides(self.unit, constraint):
            found = size_of(tree, self.draft.program.provenance.of(self.unit).names)
            code = spelled_as(tree, size, self.unit.frame.names, self.draft.name) if found is not None else None
            if code is not None:
                return code
        return number_code(size)


def _sides(unit: Unit, constraint: Constraint) -> list[syntax.Expression]:
    """Both sides of the comparison that a constraint was written as, if that is in the unit's own block."""
    declaration = unit.frame.declaration
    for statement in declaration.body if declaration else ():
        if not isinstance(statement, syntax.Require) or statement.span != constraint.span:
            continue
        if isinstance(statement.condition, syntax.Binary):
            return [statement.condition.left, statement.condition.right]
    return []
