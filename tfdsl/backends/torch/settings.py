"""The names of a block that its class or function takes: which they are, their defaults, and what callers pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdsl.backends.torch.arithmetic import NameText, NotPlain, number, same, spell, spelled_as
from tfdsl.backends.torch.code import CHOICE, Code
from tfdsl.backends.torch.dimensions import size_code
from tfdsl.backends.torch.names import Words
from tfdsl.backends.torch.provenance import Provenance, is_plain
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.dims import Dim, Size, names_of
from tfdsl.language import syntax

PLAIN = (syntax.Number, syntax.Literal, syntax.Unary)


@dataclass
class Settled:
    """What code needs for the names that it uses: `given` by the caller, the others by `statements` before it."""

    given: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    late: set[str] = field(default_factory=set)  # those of `given` whose default follows from the others


class Settings:
    """The names that units take, agreed for all units of a block."""

    def __init__(self, words: Words, provenance: Provenance):
        self.words = words
        self.provenance = provenance
        self._set: set[tuple[str, str]] = set()  # parameters that some application sets
        self._fixed: set[tuple[str, str]] = set()  # names that must keep their values: code is laid out for them

    def enter(self, unit: Unit) -> None:
        """Note which parameters are set where a unit is applied."""
        frame = unit.frame
        self._set |= {(frame.block, name) for name in frame.declared if name not in frame.defaults}

    def fix(self, unit: Unit, tree: syntax.Expression | None) -> None:
        """Keep the names of an expression as they are, in the units around too: what is emitted is laid out for them."""
        for each in tree.walk() if tree is not None else ():
            if isinstance(each, syntax.Path) and each.text in unit.names:
                self._fix(unit, each.text)

    def _fix(self, unit: Unit, name: str) -> None:
        if (unit.frame.block, name) in self._fixed:
            return
        self._fixed.add((unit.frame.block, name))
        self.fix(unit, unit.frame.defaults.get(name))
        if unit.outer is not None:
            if unit.is_turn:
                self._fix(unit.outer, name)
            else:
                self.fix(unit.outer, unit.spelled.get(name))

    # --- what is taken ---------------------------------------------------------------------------------------------

    def settle(self, unit: Unit, wanted: Iterable[str]) -> Settled:
        """Of the names that code wants: those that callers give, and the statements that derive the others."""
        settled = Settled()
        statements: dict[str, str] = {}

        def need(name: str) -> str:
            if name not in statements and name not in settled.given and not derive(name):
                settled.given.append(name)
            return self.words(name)

        def derive(name: str) -> bool:
            frame, own = unit.frame, self.words(name)
            if (frame.block, name) in self._fixed and not self._follows(unit, name):
                statements[name] = f"{own} = {number(unit.names[name])}"
                return True
            if not self._follows(unit, name) and not self._is_late(unit, name):
                return False
            late = self._is_late(unit, name)
            code = spelled_as(frame.defaults[name], unit.names[name], unit.names, need)
            if code is None:
                return False
            statements[name] = (
                f"{own} = {code.at(CHOICE + 1)} if {own} is None else {own}" if late else f"{own} = {code.text}"
            )
            if late:
                settled.given.append(name)
                settled.late.add(name)
            return True

        for name in wanted:
            need(name)
        order = list(unit.names)
        settled.given.sort(key=order.index)
        settled.statements = list(statements.values())
        return settled

    def _follows(self, unit: Unit, name: str) -> bool:
        """Whether a name always follows from others: it is no parameter, or one that nobody sets."""
        frame = unit.frame
        tree = frame.defaults.get(name)
        if tree is None or isinstance(tree, PLAIN):
            return False
        return name not in frame.declared or (not unit.is_root and (frame.block, name) not in self._set)

    def _is_late(self, unit: Unit, name: str) -> bool:
        """Whether a model's parameter has a default that follows from others."""
        tree = unit.frame.defaults.get(name)
        fixed = (unit.frame.block, name) in self._fixed
        return unit.is_root and name in unit.frame.declared and not isinstance(tree, (*PLAIN, type(None))) and not fixed

    # --- parameters ------------------------------------------------------------------------------------------------

    def ordered(self, unit: Unit, settled: Settled) -> list[str]:
        """The names given, those with a default last."""
        return sorted(settled.given, key=lambda name: self._default(unit, name, settled) is not None)

    def parameter(self, unit: Unit, name: str, settled: Settled) -> str:
        """`heads: int = 12`."""
        default = self._default(unit, name, settled)
        kind = _kind(unit.names[name], unit.frame.declared.get(name))
        if name in settled.late:
            kind += " | None"
        return f"{self.words(name)}: {kind}" + (f" = {default}" if default is not None else "")

    def _default(self, unit: Unit, name: str, settled: Settled) -> str | None:
        if unit.is_root:
            value = unit.names[name]
            return "None" if name in settled.late else self._written(unit.frame.defaults.get(name), value)
        tree = unit.frame.declared.get(name)
        if unit.is_turn or not isinstance(tree, PLAIN):
            return None
        try:
            return spell(tree, {}, str)[0].text
        except NotPlain:
            return None

    def _written(self, tree: syntax.Expression | None, value: Any) -> str:
        """A number as the spec writes it, if it does."""
        code = spelled_as(tree, value, {}) if isinstance(tree, PLAIN) else None
        return code.text if code is not None else number(value)

    # --- arguments -------------------------------------------------------------------------------------------------

    def arguments(self, unit: Unit, settled: Settled, caller: Unit, name_text: NameText, **special: str) -> list[str]:
        """What a caller passes for the names given, in its own names; `special` has the text of some."""
        found: list[str] = []
        by_position = True
        for name in self.ordered(unit, settled):
            text = special.get(name) or self._value(unit, name, caller, name_text)
            if text is None:
                by_position = False
                continue
            by_position = by_position and text.rpartition(".")[2].rstrip("_") == self.words(name).rstrip("_")
            found.append(text if by_position else f"{self.words(name)}={text}")
        return found

    def _value(self, unit: Unit, name: str, caller: Unit, name_text: NameText) -> str | None:
        """What a caller passes for one name; None where the default is that."""
        frame, value = unit.frame, unit.names[name]
        given, names = unit.spelled.get(name), caller.names
        plain = given is None or isinstance(given, PLAIN)
        if plain and not unit.is_turn and spelled_as(_plain(frame.declared.get(name)), value, {}) is not None:
            return None
        code = spelled_as(given, value, names, name_text)
        if code is None and is_plain(value) and unit.outer is not None and sees(caller, unit.outer):
            code = self.size(self.provenance.binding(unit)[name], value, caller, name_text)
        if code is None and given is None and name in names and same(names[name], value):
            code = Code(name_text(name))
        return code.text if code is not None else number(value)

    def size(self, size: Size, value: int, unit: Unit, name_text: NameText) -> Code | None:
        """A size over the names of a unit, if it is one and comes to a value with them."""
        if not isinstance(size, Dim) or not all(name.startswith(".") for name in names_of((size,))):
            return None
        if self.provenance.of(unit).known(size) != value:
            return None
        return size_code(size, lambda name: name_text(name[1:]), [f".{name}" for name in unit.names])


def _plain(tree: syntax.Expression | None) -> syntax.Expression | None:
    return tree if isinstance(tree, PLAIN) else None


def sees(unit: Unit, other: Unit) -> bool:
    """Whether the names of a unit mean in it what they mean in another: that is it, or a loop of it."""
    while other.is_turn and other is not unit and other.outer is not None:
        other = other.outer
    while unit.is_turn and unit is not other and unit.outer is not None:
        unit = unit.outer
    return unit is other


def _kind(value: Any, declared: syntax.Expression | None) -> str:
    """The type of a number, as a parameter's annotation."""
    if isinstance(value, int) and isinstance(declared, syntax.Number) and isinstance(declared.value, float):
        return "float"
    return type(value).__name__ if value is not None else "None"


def unique_name(names: Sequence[tuple[str, Any]], size: int) -> str | None:
    """The name that has a size, if just one has."""
    found = [name for name, value in names if is_plain(value) and value == size]
    return found[0] if len(found) == 1 and size > 1 else None
