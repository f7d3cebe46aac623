"""Files that import files: which declarations a file sees. An import reaches files below the root, and `std/`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, Label, Source, Span, SpecError, did_you_mean
from tfdsl.language.parser import parse, read

_PACKAGE = Path(os.path.realpath(__file__)).parent.parent
STD = _PACKAGE / "std"
# An installed package holds a copy of the specs; in a checkout they stand beside it.
ZOO = _PACKAGE / "zoo" if (_PACKAGE / "zoo").is_dir() else _PACKAGE.parent / "specs"
SHIPPED = {"std": STD, "zoo": ZOO}
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
    import_spans: dict[str, Span] = field(default_factory=dict)  # those of imports that failed, too
    plans: dict[str, syntax.Plan] = field(default_factory=dict)
    mappings: dict[str, syntax.Mapping] = field(default_factory=dict)
    imported_mappings: dict[str, tuple[syntax.Mapping, Module]] = field(default_factory=dict)

    def find_mapping(self, name: str) -> tuple[syntax.Mapping, Module] | None:
        """A mapping by name with the file that it stands in: one of the file's own, or an imported one."""
        own = self.mappings.get(name)
        return (own, self) if own is not None else self.imported_mappings.get(name)

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


def extends(declared: Declared) -> list[Declared]:
    """A model and what it extends, by way of which others, the most derived first."""
    chain = [declared]
    while isinstance(chain[-1].item, syntax.Variant):
        base = chain[-1].module.find(chain[-1].item.base.text)
        assert base is not None, "checked when the module was loaded"
        chain.append(base)
    return chain


def home(declared: Declared) -> Declared:
    """The declaration whose body runs: the model at the end of a chain of variants."""
    return extends(declared)[-1]


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


@cache
def load_zoo() -> tuple[Module, ...]:
    """Every shipped spec, each file read once. Raises `SpecError`."""
    faults = Collector()
    loader = _Loader(faults, root=None)
    for path in sorted(ZOO.rglob("*.tfm")):
        if path not in loader.modules:
            loader.module(path, Source(_shown(path, None), read(path).text), ())
    faults.check()
    return tuple(loader.modules.values())


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
        self.failed: set[Path] = set()
        self.circular: set[str] = set()
        self.deep = False

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
        if isinstance(item, syntax.Import):
            return
        table: dict[str, Any] = module.own
        if isinstance(item, (syntax.Plan, syntax.Mapping)):
            table = module.plans if isinstance(item, syntax.Plan) else module.mappings
        name = item.name.text
        known = table.get(name)
        if known is not None:
            first = known.item.name.span if isinstance(known, Declared) else known.name.span
            self._fault("T203", f"`{name}` is declared twice", item.name.span, others=(Label(first, "first here"),))
        elif table is module.own and name in module.imported:
            others = (Label(module.import_spans[name], "imported here"),)
            self._fault("T203", f"`{name}` is imported, and declared again", item.name.span, others=others)
        else:
            table[name] = Declared(item, module) if isinstance(item, (syntax.Block, syntax.Variant)) else item

    def _import(self, module: Module, item: syntax.Import, chain: tuple[tuple[Path, Span], ...]) -> None:
        target = self._target(module, item.path)
        imported = self._imported(target, item, chain) if target is not None else None
        for name in item.names:
            if name.text in module.import_spans:
                others = (Label(module.import_spans[name.text], "first here"),)
                self._fault("T203", f"`{name.text}` is imported twice", name.span, others=others)
                continue
            module.import_spans[name.text] = name.span
            found = imported.own.get(name.text) if imported is not None else None
            if found is not None:
                module.imported[name.text] = found
            elif imported is not None and name.text in imported.mappings:
                module.imported_mappings[name.text] = (imported.mappings[name.text], imported)
            elif imported is not None:
                declared = [*imported.own, *imported.mappings]
                otherwise = f"it declares {', '.join(sorted(declared)) or 'nothing'}"
                help_ = did_you_mean(name.text, declared, otherwise)
                self._fault("T202", f"`{item.path.value}` declares no `{name.text}`", name.span, help=help_)

    def _imported(self, target: Path, item: syntax.Import, chain: tuple[tuple[Path, Span], ...]) -> Module | None:
        """The module that an import names, read unless it has been; None where that fails."""
        places = [path for path, _ in chain]
        if target in places:
            others = [Label(span, "which imports this") for _, span in chain[places.index(target) : -1]]
            message = f"`{item.path.value}` imports itself" + (", by way of others" if others else "")
            self._fault("T205", message, item.path.span, others=tuple(others))
            return None
        if target in self.modules:
            return self.modules[target]
        if len(self.modules) >= MOST_FILES:
            self._fault("T206", f"more than {MOST_FILES} files are imported", item.path.span)
            return None
        if target in self.failed:
            return None
        try:
            return self.module(target, Source(_shown(target, self.root), read(target).text), chain)
        except SpecError as error:
            self.failed.add(target)
            self.modules.pop(target, None)
            for each in error.diagnostics:
                self._failed_read(each, target, item)
            return None

    def _failed_read(self, diagnostic: Diagnostic, target: Path, item: syntax.Import) -> None:
        """Report what was wrong with an imported file: at its own place, or at the import if it has none."""
        if diagnostic.span is not None:
            self.faults.add(diagnostic)
            return
        message, help_ = diagnostic.message.replace(str(target), item.path.value), diagnostic.help
        if not target.exists():
            message = f"there is no file `{item.path.value}`"
            near = sorted(target.parent.glob("*.tfm"))[:MOST_FILES] if target.parent.is_dir() else []
            before = item.path.value.rpartition("/")[0]
            known = [f"{before}/{each.name}" if before else each.name for each in near]
            otherwise = "paths count from the folder of the file that imports"
            if target.is_relative_to(STD):
                otherwise = "the standard library has " + ", ".join(known)
            elif before == "zoo":
                otherwise = "the zoo has " + ", ".join(known)
            help_ = did_you_mean(item.path.value, known, otherwise)
        self._fault(diagnostic.code, message, item.path.span, help=help_)

    def _target(self, module: Module, path: syntax.String) -> Path | None:
        text = path.value
        if "\0" in text or not text.endswith(".tfm"):
            self._fault("T204", f"`{text}` is not the path of a .tfm file", path.span)
            return None
        first, _, rest = text.partition("/")
        if first in SHIPPED:
            base = root = SHIPPED[first]
        else:
            within = next((each for each in SHIPPED.values() if module.path.is_relative_to(each)), self.root)
            if within is None:
                self._fault("T204", "a spec without a file can import from `std/` and `zoo/` only", path.span)
                return None
            base, rest, root = module.path.parent, text, within
        target = Path(os.path.realpath(base / rest))
        if not target.is_relative_to(root):
            places = {STD: "the standard library", ZOO: "the zoo"}
            self._fault(
                "T204",
                f"`{text}` is outside {places.get(root, 'the folder of the spec')}",
                path.span,
                help="an import reaches files below the folder of the file that is read, `std/` and `zoo/`",
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
                if len(seen) == 1 and base.text not in declared.module.import_spans:
                    visible = (*declared.module.own.values(), *declared.module.imported.values())
                    known = [each.name for each in visible if is_model(each)]
                    self._fault(
                        "T201", f"no model is called `{base.text}`", base.span, help=did_you_mean(base.text, known)
                    )
                return
            if not is_model(found):
                others = (Label(found.item.name.span, "declared here"),)
                message = f"`{base.text}` is a block, and only models are extended"
                self._fault("T207", message, base.span, others=others)
                return
            if found in seen:
                self._cycle(seen[seen.index(found) :])
                return
            if len(seen) > MOST_EXTENDS:
                if self.deep:
                    return
                self.deep = True
                self._fault("T208", f"more than {MOST_EXTENDS} models extend each other", declared.item.name.span)
                return
            seen.append(found)

    def _cycle(self, models: list[Declared]) -> None:
        """Report a circle of variants once, whichever of them was looked at first."""
        if models[0].name in self.circular:
            return
        self.circular |= {each.name for each in models}
        first, *others = [each.item.base for each in models if isinstance(each.item, syntax.Variant)]
        labels = tuple(Label(each.span, "which extends this") for each in others)
        self._fault("T208", f"`{models[0].name}` extends itself", first.span, others=labels)

    def _fault(self, code: str, message: str, span: Span, others: tuple[Label, ...] = (), help: str = "") -> None:
        self.faults.add(Diagnostic(code, message, span, others=others, help=help))


def _shown(target: Path, root: Path | None) -> str:
    """The name of an imported file in messages: as an import would say it."""
    if root is not None and target.is_relative_to(root):
        return str(target.relative_to(root))
    for name, folder in SHIPPED.items():
        if target.is_relative_to(folder):
            return f"{name}/{target.relative_to(folder).as_posix()}"
    return str(target)
