"""One node being lowered: its operands as code, its types, its attributes as source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdsl.backends.torch.code import ATOM, Code
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Node, Type
from tfdsl.ir.op import Attributes
from tfdsl.language.syntax import Path

if TYPE_CHECKING:
    from tfdsl.backends.torch.forward import Forward


@dataclass
class Site:
    """What a lowering may ask for."""

    forward: Forward
    node: Node
    args: Sequence[Code | None]
    types: Sequence[Type | None]
    a: Attributes

    def code(self, place: int = 0) -> Code:
        """An operand that is there."""
        code = self.args[place]
        assert code is not None
        return code

    def arg(self, place: int = 0) -> str:
        """An operand as an argument of a call."""
        return self.code(place).text

    def atom(self, place: int = 0) -> str:
        """An operand in front of a method or an index."""
        return self.code(place).at(ATOM)

    def has(self, place: int) -> bool:
        """Whether an operand is there."""
        return place < len(self.args) and self.args[place] is not None

    def type(self, place: int = 0) -> Type:
        """The type of an operand that is there."""
        found = self.types[place]
        assert found is not None
        return found

    def settle(self, place: int, *wanted: str) -> None:
        """Give an operand that stands more than once in the code a variable."""
        value = self.node.inputs[place]
        if value is not None and not self.forward.is_number(self.node, place):
            self.forward.settle(value, *wanted)
            self.args = [*self.args[:place], self.forward.code(value), *self.args[place + 1 :]]

    def setting(self, name: str) -> str:
        """An attribute as an argument: what the spec wrote, if it still holds."""
        return self.forward.numbers.setting(self.node, name, getattr(self.a, name)).text

    def written_name(self, name: str) -> str:
        """The name that the spec wrote for an attribute, if it is one."""
        tree = self.forward.unit.expression(self.node, name)
        return tree.text if isinstance(tree, Path) and len(tree.parts) == 1 else ""

    def size(self, size: Size, spelled: str = "") -> str:
        """A size as an argument; `spelled` is the attribute that it is, or is part of."""
        return self.forward.numbers.size(size, self.node, spelled).text

    def axis(self, axis: int, place: int = 0) -> str:
        """An axis, the last one as -1."""
        return "-1" if axis == len(self.type(place).dims) - 1 else str(axis)


Lowering = Callable[[Site], Code]
