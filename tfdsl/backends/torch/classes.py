"""The classes of the emitted file: each unit with weights once, however many paths it stands at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tfdsl.backends.torch.constructors import Constructor
from tfdsl.backends.torch.decoding import BEGIN, arrange_method, reset_method
from tfdsl.backends.torch.layout import signature, statement
from tfdsl.backends.torch.names import class_name
from tfdsl.backends.torch.program import Method, Program, Sheet
from tfdsl.backends.torch.settings import Settled
from tfdsl.backends.torch.structure import Unit


@dataclass(eq=False)
class Class:
    """A written class: its lines below the docstring, and the names that its constructor takes."""

    name: str
    path: str  # where it was first found
    head: list[str]
    lines: list[str]
    settled: Settled


class Classes:
    """The classes of a program, those that others hold first."""

    def __init__(self, program: Program):
        self.program = program
        self.written: list[Class] = []
        self._at: dict[str, Class] = {}

    def at(self, path: str, base: str) -> Class:
        """The class for a path, written or found to be one that exists; `base` is what it would be called."""
        if path not in self._at:
            self._at[path] = self._write(path, base)
        return self._at[path]

    def _write(self, path: str, base: str) -> Class:
        sheet, unit = self.program.sheet(path), self.program.places.unit(path)
        constructor = Constructor(self, path)
        statements = constructor.write()
        settled = self.program.settings.settle(unit, [*constructor.wanted, *sheet.scope.wanted])
        lines = self._lines(path, sheet, unit, settled, statements)
        head = next(iter(_methods(sheet))).head
        for name in self._names(path, base):
            known = next((each for each in self.written if each.name == name), None)
            if known is not None and known.lines == lines:
                return known
            if known is None and self.program.names.claim(name):
                break
        made = Class(name, path, head, lines, settled)
        self.written.append(made)
        return made

    def _names(self, path: str, base: str) -> Iterator[str]:
        """What a class may be called: after its block, then after its place, then by a number."""
        yield base
        first = next((each for each in self.written if each.name == base), None)
        parts, others = _words(path, base), _words(first.path if first is not None else "", base)
        for count in range(1, len(parts) + 1):
            if parts[-count:] != others[-count:]:
                yield "".join(parts[-count:]) + base
        number = 2
        while True:
            yield f"{base}{number}"
            number += 1

    def _lines(self, path: str, sheet: Sheet, unit: Unit, settled: Settled, statements: list[str]) -> list[str]:
        settings, order = self.program.settings, list(unit.names)
        parameters = [settings.parameter(unit, name, settled) for name in settings.ordered(unit, settled)]
        stored = [
            f"self.{self.program.attribute(path, name)} = {self.program.words(name)}"
            for name in sorted(sheet.scope.wanted, key=order.index)
        ]
        decodes = self.program.decodes and not path
        body = [*settled.statements, *stored, *statements, *([f"self.{sheet.kept} = Kept()"] if sheet.kept else ())]
        body += [BEGIN] if decodes else []
        lines = signature("__init__", ["self", *parameters], "None", "    ")
        lines += [line for text in ("super().__init__()", *body) for line in _laid_out(text)]
        if decodes:
            lines += ["", *reset_method(self.program.state_kinds), "", *arrange_method()]
        for method in _methods(sheet):
            if method.name == "forward":
                lines += ["", *method.lines]
            else:
                start = next(at for at, line in enumerate(method.lines) if line.endswith(":")) + 1
                lines += ["", *method.lines[:start], *method.head, *method.lines[start:]]
        return lines


def _words(path: str, base: str) -> list[str]:
    """What a path says of a class that its block does not; nothing, of the turns of a loop."""
    if not path.rpartition(".")[2].isidentifier():
        return []
    words = [class_name(part) for part in path.split(".") if part.isidentifier()]
    return words[:-1] if base.endswith(words[-1]) else words


def _laid_out(text: str) -> list[str]:
    """A statement as lines, as it stands in a constructor."""
    bare = text.lstrip()
    return statement(bare, " " * (8 + len(text) - len(bare)))


def _methods(sheet: Sheet) -> Iterator[Method]:
    yield from (method for method in sheet.methods.values() if method is not None)
