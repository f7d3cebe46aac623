"""Mappings: how the weights of a published checkpoint correspond to a model's.

The left side of a rule is their name, with `{i}` for a number; the right side says what their tensor is in terms of our
weights: a path, in which a loop that `repeat h[depth]` makes is indexed by the same name (`h[i].attn.weight`), or a
change of layout around one or several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tfdsl.ir.elaborate.scopes import plain_scope
from tfdsl.ir.elaborate.values import Fault
from tfdsl.ir.graph import Graph, Weight, weights
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Label, Span, did_you_mean
from tfdsl.language.modules import Module

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class OurWeight:
    """A weight of ours; `path` has a `*` for each loop, and `indices` what stands for it: a name, or a number."""

    path: str
    indices: tuple[str | int, ...]


@dataclass(frozen=True)
class Change:
    """A change of layout: what their tensor is, made of `parts`."""

    kind: str
    parts: tuple[Tensor, ...]
    options: Mapping[str, Any]


Tensor = OurWeight | Change


@dataclass(frozen=True)
class Correspondence:
    """One rule: a name of theirs, with its placeholders, and what it holds."""

    theirs: str
    ours: Tensor
    span: Span


@dataclass(frozen=True)
class _Kind:
    """A change of layout: how many tensors it takes (None for several), and its settings with what each must be."""

    inputs: int | None
    settings: Mapping[str, str]
    required: tuple[str, ...]
    summary: str


CHANGES = {
    "transpose": _Kind(1, {}, (), "two axes, exchanged"),
    "permute": _Kind(1, {"order": "axes"}, ("order",), "axes in another order"),
    "split": _Kind(1, {"parts": "count", "part": "index", "axis": "index"}, ("parts", "part"), "one of equal parts"),
    "concat": _Kind(None, {"axis": "index"}, (), "tensors one after another"),
    "stack": _Kind(None, {"axis": "index"}, (), "tensors along a new axis"),
}


def read_mapping(tree: syntax.Mapping, module: Module, graph: Graph | None, faults: Collector) -> list[Correspondence]:
    """The rules of a mapping, checked against the weights of a graph where there is one. Faults are collected."""
    known = weights(graph) if graph is not None else None
    found: list[Correspondence] = []
    seen: dict[str, Span] = {}
    for rule in tree.rules:
        try:
            theirs = rule.theirs.value
            if theirs in seen:
                others = (Label(seen[theirs], "first here"),)
                raise Fault("T620", f'"{theirs}" is mapped twice', rule.theirs.span, others=others)
            seen[theirs] = rule.theirs.span
            reader = _Rule(module, rule.theirs, known)
            ours = reader.tensor(rule.ours)
            reader.check_placeholders()
            found.append(Correspondence(theirs, ours, rule.span))
        except Fault as fault:
            faults.add(fault.diagnostic)
    return found


class _Rule:
    """One rule being read: which placeholders its left side has, and which of them the right side used."""

    def __init__(self, module: Module, theirs: syntax.String, known: list[Weight] | None):
        self.module = module
        self.theirs = theirs
        self.known = known
        self.placeholders = _PLACEHOLDER.findall(theirs.value)
        self.used: set[str] = set()

    def check_placeholders(self) -> None:
        stray = re.sub(_PLACEHOLDER, "", self.theirs.value)
        if "{" in stray or "}" in stray:
            raise Fault("T621", "a placeholder is a name in braces, as {i}", self.theirs.span)
        for name in self.placeholders:
            if name not in self.used:
                raise Fault(
                    "T621", f"`{{{name}}}` does not say which weight of ours it counts", self.theirs.span, help=_HELP
                )
            if self.placeholders.count(name) > 1:
                raise Fault("T621", f"`{{{name}}}` stands twice in one name", self.theirs.span)

    def tensor(self, tree: syntax.Expression) -> Tensor:
        if isinstance(tree, syntax.Call):
            return self.change(tree)
        if isinstance(tree, (syntax.Path, syntax.Index, syntax.Member)):
            return self.weight(tree)
        listed = ", ".join(CHANGES)
        raise Fault(
            "T622", "a rule maps to a weight, or to a change of layout of one", tree.span, help=f"these are {listed}"
        )

    def weight(self, tree: syntax.Expression) -> OurWeight:
        parts, indices = self.parts(tree)
        path = ".".join(parts)
        if self.known is not None and path not in [each.path for each in self.known]:
            near = did_you_mean(path, [each.path for each in self.known]).replace(".*", "[i]")
            raise Fault(
                "T623", f"the model has no weight `{tree.span.text}`", tree.span, help=near or "`tfm show` lists them"
            )
        for place, index in enumerate(indices):
            boxes = [box for each in self.known or () if each.path == path for box in each.boxes]
            if self.known is not None and isinstance(index, int) and not any(index in box[place] for box in boxes):
                raise Fault(
                    "T623", f"the model has no weight `{tree.span.text}`: its loop has no turn {index}", tree.span
                )
        return OurWeight(path, tuple(indices))

    def parts(self, tree: syntax.Expression) -> tuple[list[str], list[str | int]]:
        """The path of a weight in parts, `*` for an index, and the indices."""
        if isinstance(tree, syntax.Path):
            return [part.text for part in tree.parts], []
        if isinstance(tree, syntax.Member):
            parts, indices = self.parts(tree.base)
            return [*parts, tree.name.text], indices
        if isinstance(tree, syntax.Index):
            parts, indices = self.parts(tree.base)
            return [*parts, "*"], [*indices, self.index(tree.index)]
        raise Fault("T622", "the path of a weight is made of names and indices", tree.span)

    def index(self, tree: syntax.Expression) -> str | int:
        if isinstance(tree, syntax.Number) and isinstance(tree.value, int):
            return tree.value
        if not isinstance(tree, syntax.Path) or len(tree.parts) > 1:
            raise Fault("T621", "an index is a placeholder's name or a number", tree.span, help=_HELP)
        if tree.text not in self.placeholders:
            listed = ", ".join(f"{{{name}}}" for name in self.placeholders)
            help_ = did_you_mean(tree.text, self.placeholders, f"it has {listed}" if listed else "it has none")
            others = (Label(self.theirs.span, "their name"),)
            raise Fault("T621", f"their name has no `{{{tree.text}}}`", tree.span, others=others, help=help_)
        self.used.add(tree.text)
        return tree.text

    def change(self, tree: syntax.Call) -> Change:
        name = tree.callee.text
        kind = CHANGES.get(name)
        if kind is None:
            help_ = did_you_mean(name, CHANGES, "the changes of layout are " + ", ".join(CHANGES))
            raise Fault("T622", f"there is no change of layout `{name}`", tree.callee.span, help=help_)
        if tree.name is not None:
            raise Fault("T622", "a change of layout has no name", tree.name.span)
        parts = [self.tensor(each.value) for each in tree.arguments if each.keyword is None]
        if not parts or (kind.inputs is not None and len(parts) != kind.inputs):
            wanted = "one tensor" if kind.inputs == 1 else "tensors"
            raise Fault("T622", f"`{name}` takes {wanted}, not {len(parts)}", tree.span, help=_signature(name, kind))
        options = self.options(tree, name, kind)
        return Change(name, tuple(parts), options)

    def options(self, tree: syntax.Call, name: str, kind: _Kind) -> dict[str, Any]:
        from tfdsl.ir.elaborate.expressions import evaluate

        found: dict[str, Any] = {}
        for argument in tree.arguments:
            if argument.keyword is None:
                continue
            key = argument.keyword.text
            if key not in kind.settings or key in found:
                why = "is given twice" if key in found else f"is no setting of `{name}`"
                help_ = did_you_mean(key, kind.settings, _signature(name, kind))
                raise Fault("T622", f"`{key}` {why}", argument.keyword.span, help=help_)
            value = evaluate(plain_scope(self.module, None), argument.value)
            need, fits = _SETTINGS[kind.settings[key]]
            if not fits(value):
                raise Fault("T622", f"`{key}` is {need}", argument.value.span)
            found[key] = value
        for key in kind.required:
            if key not in found:
                raise Fault("T622", f"`{name}` needs `{key}`", tree.span, help=_signature(name, kind))
        if "part" in found and found["part"] >= found["parts"]:
            raise Fault(
                "T622", f"part {found['part']} of {found['parts']} is one too many: they count from 0", tree.span
            )
        return found


_HELP = 'as in "layers.{i}.weight" -> h[i].weight'


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "axes": (
        "a list of axes, each once: [1, 0]",
        lambda value: (
            isinstance(value, tuple)
            and all(_is_count(v, 0) for v in value)
            and sorted(value) == list(range(len(value)))
        ),
    ),
    "count": ("a whole number above one", lambda value: _is_count(value, 2)),
    "index": ("a whole number, zero or more", lambda value: _is_count(value, 0)),
}


def _signature(name: str, kind: _Kind) -> str:
    parts = ["weight" if kind.inputs == 1 else "weight..."]
    parts += [key if key in kind.required else f"{key}=0" for key in kind.settings]
    return f"{name}({', '.join(parts)}): {kind.summary}"
