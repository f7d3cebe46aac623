"""Files that import files: which declarations a file sees. An import reaches files below the root, and `std/`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, Label, Source, Span, did_you_mean
from tfdsl.language.parser import parse, read

STD = Path(__file__).parent.parent / "std"
MOST_FILES = 200
MOST_EXTENDS = 50


@dataclass(frozen=True, eq=False)
class Declared:
    """A block, model or variant together with the module whose names its body sees."""

    item: syntax.Block | syntax.Variant
    module: Module

    @property
    def name(self) -> str:
        return self.item.name.text


@dataclass(eq=False)
class Module:
    """One parsed file: what it declares and what it imports, by name."""

    path: Path
    tree: syntax.File
    own: dict[str, Declared] = field(default_factory=dict)
    imported: dict[str, Declared] = field(default_factory=dict)
    plans: dict[str, syntax.Plan] = field(default_factory=dict)
    mappings: dict[str, syntax.Mapping] = field(default_factory=dict)

    def find(self, name: str) -> Declared | None:
        """A block or model by name: the file's own, an imported one, or one of the prelude."""
        found = self.own.get(name) or self.imported.get(name)
        if found is None and not self.path.is_relative_to(STD / "prelude.tfm"):
            found = prelude().own.get(name)
        return found

    def names(self) -> list[str]:
        """All the blocks and models that can be named here."""
        return [*self.own, *self.imported, *prelude().own]

    def models(self) -> list[Declared]:
        return [declared for declared in self.own.values() if is_model(declared)]


def is_model(declared: Declared) -> bool:
    return isinstance(declared.item, syntax.Variant) or declared.item.kind == "model"


def home(declared: Declared) -> Declared:
    """The declaration whose body runs: the model at the end of a chain of variants."""
    while isinstance(declared.item, syntax.Variant):
        base = declared.module.find(declared.item.base.text)
        assert base is not None, "checked when the module was loaded"
        declared = base
    return declared


def base_block(declared: Declared) -> syntax.Block:
    """The block that a model is, or is a variant of."""
    item = home(declared).item
    assert isinstance(item, syntax.Block)
    return item


@cache
def prelude() -> Module:
    """The blocks that every file sees without an import."""
    return load(STD / "prelude.tfm", name="std/prelude.tfm")


def load(path: str | os.PathLike[str], name: str | None = None) -> Module:
    """Read a file and all that it imports. Raises `SpecError` with every fault found."""
    faults = Collector()
    source = read(path)
    if name is not None:
        source = Source(name, source.text)
    real = Path(os.path.realpath(path))
    loader = _Loader(faults, root=real.parent)
    module = loader.module(real, source, ())
    faults.check()
    return module


def load_text(text: str, name: str = "<text>") -> Module:
    """A module from text; it can import from `std/` only."""
    faults = Collector()
    module = _Loader(faults, root=None).module(Path(name), Source(name, text), ())
    faults.check()
    return module


class _Loader:
    def __init__(self, faults: Collector, root: Path | None):
        self.faults = faults
        self.root = root
        self.modules: dict[Path, Module] = {}

    def module(self, path: Path, source: Source, chain: tuple[tuple[Path, Span], ...]) -> Module:
        module = self.modules[path] = Module(path, parse(source))
        for item in module.tree.items:
            if isinstance(item, syntax.Import):
                self._import(module, item, (*chain, (path, item.path.span)))
        for item in module.tree.items:
            self._declare(module, item)
        for declared in module.own.values():
            self._check_extends(declared)
        return module

    def _declare(self, module: Module, item: syntax.Item) -> None:
        if isinstance(item, (syntax.Block, syntax.Variant)):
            known = module.own.get(item.name.text) or module.imported.get(item.name.text)
            if known is not None:
                self._twice(item.name, known.item.name.span)
                return
            module.own[item.name.text] = Declared(item, module)
        elif isinstance(item, (syntax.Plan, syntax.Mapping)):
            table: dict[str, syntax.Plan | syntax.Mapping]
            table = module.plans if isinstance(item, syntax.Plan) else module.mappings  # type: ignore[assignment]
            if item.name.text in table:
                self._twice(item.name, table[item.name.text].name.span)
                return
            table[item.name.text] = item

    def _twice(self, name: syntax.Name, first: Span) -> None:
        self._fault("T203", f"`{name.text}` is declared twice", name.span, others=(Label(first, "first here"),))

    def _import(self, module: Module, item: syntax.Import, chain: tuple[tuple[Path, Span], ...]) -> None:
        target = self._target(module, item.path)
        if target is None:
            return
        if target in [path for path, _ in chain]:
            others = tuple(Label(span, "by way of this import") for _, span in chain[:-1])
            self._fault("T205", f"`{item.path.value}` imports itself", item.path.span, others=others)
            return
        imported = self.modules.get(target)
        if imported is None:
            if len(self.modules) >= MOST_FILES:
                self._fault("T206", f"more than {MOST_FILES} files are imported", item.path.span)
                return
            imported = self._read(target, item, chain)
            if imported is None:
                return
        for name in item.names:
            found = imported.own.get(name.text)
            if found is None:
                help_ = did_you_mean(
                    name.text, imported.own, f"it declares {', '.join(sorted(imported.own)) or 'nothing'}"
                )
                self._fault("T202", f"`{item.path.value}` declares no `{name.text}`", name.span, help=help_)
            elif name.text in module.imported:
                self._fault("T203", f"`{name.text}` is imported twice", name.span)
            else:
                module.imported[name.text] = found

    def _read(self, target: Path, item: syntax.Import, chain: tuple[tuple[Path, Span], ...]) -> Module | None:
        from tfdsl.language.diagnostics import SpecError

        try:
            shown = item.path.value if target.is_relative_to(STD) else _shown(target, self.root)
            return self.module(target, Source(shown, read(target).text), chain)
        except SpecError as error:
            for each in error.diagnostics:
                if each.span is None or each.code.startswith("T00"):
                    message = each.message if each.span else f"cannot import `{item.path.value}`: {each.message}"
                    self._fault(each.code, message, each.span or item.path.span, help=each.help)
                else:
                    self.faults.add(each)
            return None

    def _target(self, module: Module, path: syntax.String) -> Path | None:
        text = path.value
        inside_std = module.path.is_relative_to(STD)
        if "\0" in text or not text.endswith(".tfm"):
            self._fault("T204", f"`{text}` is not the path of a .tfm file", path.span)
            return None
        if text.startswith("std/"):
            base, root = STD.parent, STD
        elif self.root is None:
            self._fault("T204", "a spec without a file can import from `std/` only", path.span)
            return None
        else:
            base, root = module.path.parent, STD if inside_std else self.root
        target = Path(os.path.realpath(base / text))
        if not target.is_relative_to(root):
            self._fault(
                "T204",
                f"`{text}` is outside {'the standard library' if root is STD else 'the folder of the spec'}",
                path.span,
                help="an import reaches files below the folder of the file that is read, and `std/`",
            )
            return None
        return target

    def _check_extends(self, declared: Declared) -> None:
        """Refuse a variant of nothing, and one that extends itself by way of others."""
        seen = [declared]
        while isinstance(seen[-1].item, syntax.Variant):
            base = seen[-1].item.base
            found = seen[-1].module.find(base.text)
            if found is None:
                if len(seen) == 1:
                    known = [
                        d.name
                        for d in (*declared.module.own.values(), *declared.module.imported.values())
                        if is_model(d)
                    ]
                    self._fault(
                        "T201", f"no model is called `{base.text}`", base.span, help=did_you_mean(base.text, known)
                    )
                return
            if not is_model(found):
                self._fault("T207", f"`{base.text}` is a block, and only models are extended", base.span)
                return
            if found in seen or len(seen) > MOST_EXTENDS:
                self._fault("T208", f"`{declared.name}` extends itself", declared.item.name.span)
                return
            seen.append(found)

    def _fault(self, code: str, message: str, span: Span, others: tuple[Label, ...] = (), help: str = "") -> None:
        self.faults.add(Diagnostic(code, message, span, others=others, help=help))


def _shown(target: Path, root: Path | None) -> str:
    return str(target.relative_to(root)) if root is not None and target.is_relative_to(root) else str(target)
