"""Rules for weights: what a tensor of theirs holds, in terms of our weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tfdsl.checkpoints.fields import IGNORED
from tfdsl.checkpoints.names import Pattern
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Parameters
from tfdsl.ir.elaborate.scopes import plain_scope
from tfdsl.ir.elaborate.values import Fault
from tfdsl.ir.graph import Weight
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label, Span, did_you_mean
from tfdsl.language.modules import Module


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
    """One rule for weights: names of theirs, and what those tensors hold; None where that has no influence."""

    theirs: Pattern
    ours: Tensor | None
    span: Span
    is_copy: bool = False  # of a weight that other rules name: read, and not written
    computed: syntax.Expression | None = None  # the block that makes the tensor, which must hold just that
    module: Module | None = None  # whose names `computed` uses


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
    "split": _Kind(
        1,
        {"parts": "count", "part": "index", "axis": "index", "sizes": "sizes"},
        ("part",),
        "one of equal parts, or of parts of given sizes",
    ),
    "concat": _Kind(None, {"axis": "index"}, (), "tensors one after another"),
    "stack": _Kind(None, {"axis": "index"}, (), "tensors along a new axis"),
}


COPY, COMPUTED = "copy", "computed"


class NoTensor:
    """Stands for `none`: there is no such tensor."""


NO_TENSOR: Any = NoTensor()


class WeightRule:
    """One rule being read: which placeholders its left side has, and which of them the right side used."""

    def __init__(
        self,
        module: Module,
        theirs: syntax.String,
        names: Pattern,
        known: list[Weight] | None,
        parameters: Parameters | None,
        under: tuple[tuple[syntax.Expression, Module], ...] = (),
    ):
        self.module, self.theirs, self.known, self.parameters, self.under = module, theirs, known, parameters, under
        self.names = names
        self.placeholders = names.placeholders
        self.used: set[str] = set()
        self.is_copy = False
        self.computed: syntax.Expression | None = None

    def read(self, tree: syntax.Expression) -> Tensor | None:
        """What a tensor of theirs is; None for one without influence, and `NO_TENSOR` for one that is not there."""
        if isinstance(tree, syntax.Choice):
            return self.choice(tree)
        if isinstance(tree, syntax.Literal) and tree.value is None:
            return NO_TENSOR
        if isinstance(tree, syntax.Path) and tree.text == IGNORED:
            return None
        if isinstance(tree, syntax.Call) and tree.callee.text == COPY:
            self.is_copy = True
            if len(tree.arguments) != 1 or tree.arguments[0].keyword is not None:
                raise Fault("T622", f"`{COPY}` takes one weight", tree.span)
            return self.read(tree.arguments[0].value)
        if isinstance(tree, syntax.Call) and tree.callee.text == COMPUTED:
            self.computed = self.block(tree)
            return None
        ours = self.tensor(tree)
        self.check_used()
        return ours

    def block(self, tree: syntax.Call) -> syntax.Expression:
        """The block that computes a tensor of theirs."""
        found = tree.arguments[0].value if len(tree.arguments) == 1 and tree.arguments[0].keyword is None else None
        named = found.callee if isinstance(found, syntax.Call) else found
        if found is None or not isinstance(named, syntax.Path) or self.module.find(named.text) is None:
            usage = "computed(sinusoidal)"
            raise Fault("T622", f"`{COMPUTED}` takes a block, with its settings", tree.span, help=usage)
        return found

    def check_used(self) -> None:
        """Refuse a placeholder that says nothing."""
        for name in self.placeholders:
            if name not in self.used:
                raise Fault(
                    "T621", f"`{{{name}}}` does not say which weight of ours it counts", self.theirs.span, help=_HELP
                )

    def choice(self, tree: syntax.Choice) -> Tensor | None:
        """The side that the parameters choose; the form of both is checked where no parameters are known."""
        if self.parameters is None:
            self.read(tree.otherwise)
            return self.read(tree.then)
        condition = evaluate(plain_scope(self.module, self.parameters), tree.condition)
        if not isinstance(condition, bool):
            raise Fault("T622", "`if` asks about parameters", tree.condition.span)
        return self.read(tree.then if condition else tree.otherwise)

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
        path, indices = self.path(tree)
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

    def path(self, tree: syntax.Expression) -> tuple[str, list[str | int]]:
        """A path below those that the mapping was taken in under, with `*` for an index, and the indices."""
        parts, indices = list[str](), list[str | int]()
        for each in (*(above for above, _ in self.under), tree):
            more = self.parts(each)
            parts, indices = [*parts, *more[0]], [*indices, *more[1]]
        return ".".join(parts), indices

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
        found: dict[str, Any] = {}
        for argument in tree.arguments:
            if argument.keyword is None:
                continue
            key = argument.keyword.text
            if key not in kind.settings or key in found:
                why = "is given twice" if key in found else f"is no setting of `{name}`"
                help_ = did_you_mean(key, kind.settings, _signature(name, kind))
                raise Fault("T622", f"`{key}` {why}", argument.keyword.span, help=help_)
            value = evaluate(plain_scope(self.module, self.parameters), argument.value)
            need, fits = _SETTINGS[kind.settings[key]]
            if not fits(value):
                raise Fault("T622", f"`{key}` is {need}", argument.value.span)
            found[key] = value
        for key in kind.required:
            if key not in found:
                raise Fault("T622", f"`{name}` needs `{key}`", tree.span, help=_signature(name, kind))
        if name == "split":
            if ("parts" in found) == ("sizes" in found):
                raise Fault("T622", "`split` needs `parts` or `sizes`", tree.span, help=_signature(name, kind))
            count = found["parts"] if "parts" in found else len(found["sizes"])
            if found["part"] >= count:
                raise Fault("T622", f"part {found['part']} of {count} is one too many: they count from 0", tree.span)
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
    "sizes": (
        "a list of sizes",
        lambda value: isinstance(value, tuple) and bool(value) and all(_is_count(v, 1) for v in value),
    ),
    "count": ("a whole number above one", lambda value: _is_count(value, 2)),
    "index": ("a whole number, zero or more", lambda value: _is_count(value, 0)),
}


def _signature(name: str, kind: _Kind) -> str:
    parts = ["weight" if kind.inputs == 1 else "weight..."]
    parts += [key if key in kind.required else f"{key}={'0' if key == 'axis' else '...'}" for key in kind.settings]
    return f"{name}({', '.join(parts)}): {kind.summary}"
