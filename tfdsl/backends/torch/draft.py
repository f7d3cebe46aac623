"""One function being written: what it is handed, what it says first, and what it needs of its surroundings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tfdsl.backends.torch.code import call
from tfdsl.backends.torch.dimensions import size_code
from tfdsl.backends.torch.layout import statement
from tfdsl.backends.torch.names import is_attribute
from tfdsl.backends.torch.places import is_below
from tfdsl.backends.torch.sights import Sight
from tfdsl.backends.torch.state_helpers import STATE_CLASSES
from tfdsl.backends.torch.structure import Unit
from tfdsl.backends.torch.variables import Variables
from tfdsl.ir.dims import Dim

if TYPE_CHECKING:
    from tfdsl.backends.torch.program import Program

Extra = tuple[str, str]  # a kind (module, weight, size, device, mask, the class of a state), and its path or name
HINTS = {
    "module": "nn.Module",
    "weight": "Tensor",
    "size": "int",
    "device": "torch.device",
    "mask": "Tensor | None",
    **{name: name for name in STATE_CLASSES.values()},
}


@dataclass(eq=False)
class Scope:
    """Where code stands: the class at a path (None for a plain function), and the unit whose names it uses.

    `wanted` gathers these names: attributes of `self` in a class, parameters of a function.
    """

    path: str | None
    unit: Unit
    wanted: dict[str, None] = field(default_factory=dict)


class Draft:
    """The function of a unit under way."""

    def __init__(self, program: Program, unit: Unit, scope: Scope, indent: str):
        self.program, self.unit, self.scope, self.indent = program, unit, scope, indent
        own = [program.words(name) for name, value in unit.names.items() if isinstance(value, (int, float))]
        self.variables = Variables(program.names.use, own if scope.path is None else ())
        self.parameters: list[str] = []
        self.optional: set[str] = set()  # parameters that may be left out
        self.head: list[str] = []
        self.extras: dict[Extra, str] = {}
        self.uses_training = False
        self.not_float: set[str] = set()  # variables that have held something else than floats
        self._symbols: dict[str, str] = {}
        self._masks: dict[str, str] = {}

    # --- the block's names -----------------------------------------------------------------------------------------

    def name(self, name: str) -> str:
        """A name of the block, as code reaches its value."""
        self.scope.wanted[name] = None
        if self.scope.path is None:
            return self.program.words(name)
        return f"self.{self.program.attribute(self.scope.path, name)}"

    def training(self) -> str:
        """Whether the model is being trained."""
        if self.scope.path is None:
            self.uses_training = True
            return "training"
        return "self.training"

    # --- modules and weights ---------------------------------------------------------------------------------------

    def module(self, path: str) -> str:
        """The module at a path."""
        return self._reach(path) or self._extra("module", path, path.rpartition(".")[2])

    def state(self, kind: str, path: str) -> str:
        """The module that holds a state."""
        return self._reach(path) or self._extra(kind, path, path.rpartition(".")[2])

    def weight(self, path: str) -> str:
        """The tensor of a weight."""
        parent, _, name = path.rpartition(".")
        return self._reach(path) or self._extra(
            "weight", path, f"{parent.rpartition('.')[2]}_{name}" if parent else name
        )

    def _reach(self, path: str) -> str | None:
        own = self.scope.path
        return self.program.places.reach("self", own, path) if own is not None and is_below(own, path) else None

    # --- what only run time knows ----------------------------------------------------------------------------------

    def symbol(self, name: str) -> str:
        """A size that run time knows, from the shape of an input; handed in where no input tells it."""
        if name not in self._symbols:
            found = self._axis(name) or self._kept(name)
            if found is None:
                self._symbols[name] = self._extra("size", name, name)
            else:
                variable = self._symbols[name] = self.variables.keep(name)
                self.head.append(f"{self.indent}{variable} = {found}")
        return self._symbols[name]

    def knows(self, name: str) -> bool:
        """Whether a size has a variable already."""
        return name in self._symbols

    def _kept(self, name: str) -> str | None:
        """How many positions a sliding state holds, where the model runs."""
        last = self.program.sliding.get(name)
        return f"min(self.past, {last})" if last is not None and self.unit.is_root else None

    def _axis(self, name: str) -> str | None:
        for value, parameter in zip(self.unit.inputs, self.parameters, strict=True):
            for axis, dim in enumerate(self.unit.graph.type(value).dims):
                if isinstance(dim, Dim) and dim.name == name:
                    return f"{parameter}.shape[{axis}]"
        return None

    def device(self) -> str:
        """Where tensors are made: where the inputs are."""
        if self.parameters:
            return f"{self.parameters[0]}.device"
        weight = self._nearest_weight()
        if weight is not None:
            return f"{weight}.device"
        return "torch.get_default_device()" if self.unit.is_root else self._extra("device", "device", "device")

    def float_type(self) -> str:
        """The type of the activations here."""
        for value, parameter in zip(self.unit.inputs, self.parameters, strict=True):
            is_float = self.unit.graph.type(value).dtype == "float" and parameter not in self.not_float
            if is_float and not self.program.is_derived(self.unit.graph, value):
                return f"{parameter}.dtype"
        weight = self._nearest_weight()
        return f"{weight}.dtype" if weight is not None else "torch.get_default_dtype()"

    def _nearest_weight(self) -> str | None:
        """A weight of floats below the class that the code stands in."""
        own = self.scope.path
        if own is None:
            return None
        for path, layer in self.program.places.layers.items():
            if is_below(own, path) and "*" not in path[len(own) :]:
                for name, weight in layer.weights.items():
                    if weight.type.dtype == "float" and not name.endswith("_scale"):
                        return self.weight(f"{path}.{name}" if path else name)
        return None

    # --- masks -----------------------------------------------------------------------------------------------------

    def mask(self, sight: Sight) -> str:
        """The mask that says what is seen, or None where nothing must be hidden."""
        return self._mask(self.program.name_sight(sight))

    def _mask(self, name: str) -> str:
        if not self.unit.is_root:
            return self._extra("mask", name, name)
        if name not in self._masks:
            self._masks[name] = self.variables.keep(name)
            self.head += statement(f"{self._masks[name]} = {self._made(self.program.sights[name])}", self.indent)
        return self._masks[name]

    def _made(self, sight: Sight) -> str:
        """The call that makes a mask, where the inputs of the model are."""
        graph, inputs = self.unit.graph, zip(self.unit.inputs, self.parameters, strict=True)
        names = {str(graph.node(value).attributes["name"]): (value, name) for value, name in inputs}
        value, padding = names[sight.padding]
        keep = f"{padding}.bool()"
        _, total = graph.type(value).dims
        if sight.keys != total:
            keep = f"{padding}[:, -({size_code(sight.keys, self.symbol).text}) :].bool()"
        self.program.use_helper("cached_mask")
        settings = [f"window={sight.window}"] if sight.window is not None else []
        settings += [] if sight.fused else ["fused=False"]
        return call("cached_mask", keep, size_code(sight.queries, self.symbol).text, *settings).text

    # --- what is handed in -----------------------------------------------------------------------------------------

    def _extra(self, kind: str, what: str, name: str) -> str:
        if (kind, what) not in self.extras:
            self.extras[kind, what] = self.variables.keep(name.lstrip("*#") if is_attribute(name) else "layer")
        return self.extras[kind, what]

    def arguments(self, extras: dict[Extra, str]) -> list[str]:
        """What a unit that is called from here wants besides its inputs, as this code reaches it."""
        return [self._handed(kind, what) for kind, what in extras]

    def _handed(self, kind: str, what: str) -> str:
        if kind in STATE_CLASSES.values():
            return self.state(kind, what)
        ways = {"module": self.module, "weight": self.weight, "size": self.symbol, "mask": self._mask}
        return ways[kind](what) if kind in ways else self.device()
