"""What the class of a model that decodes with a state has besides: the past that it counts, and inputs that may be left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tfdsl.backends.torch.layout import statement
from tfdsl.backends.torch.sights import MASK, POSITIONS
from tfdsl.ir.graph import Value

if TYPE_CHECKING:
    from tfdsl.backends.torch.forward import Forward

BEGIN = "self.past = 0  # positions so far"


def defaults(forward: Forward) -> None:
    """Statements for the inputs that say what is padding, and where the new positions stand, if they are left out."""
    draft, inputs = forward.draft, _inputs(forward)
    mask, positions = (draft.parameters[forward.unit.inputs.index(inputs[name])] for name in (MASK, POSITIONS))
    batch, seq = (draft.symbol(str(dim)) for dim in forward.graph.type(inputs[POSITIONS]).dims)
    first = draft.parameters[0]
    draft.optional |= {mask, positions}
    for name, text in (
        (mask, f"torch.ones({batch}, self.past + {seq}, dtype=torch.long, device={first}.device)"),
        (positions, f"({mask}.cumsum(1) - 1).clamp(min=0)[:, -{seq}:]"),
    ):
        draft.head.append(f"{draft.indent}if {name} is None:")
        draft.head += statement(f"{name} = {text}", f"{draft.indent}    ")


def count_past(forward: Forward) -> str:
    """The statement that counts the positions of a call."""
    _, seq = forward.graph.type(_inputs(forward)[POSITIONS]).dims
    return f"self.past += {forward.draft.symbol(str(seq))}"


def _inputs(forward: Forward) -> dict[str, Value]:
    return {str(forward.graph.node(value).attributes["name"]): value for value in forward.unit.inputs}


def arrange_method() -> list[str]:
    """The method that lays out weights for steps with one new position."""
    return [
        "    def arrange(self) -> None:",
        '        """Store wide weights by columns: a CPU multiplies them with a single row faster so.',
        "",
        "        To be called when weights have been loaded; what they are and how they are called stays.",
        '        """',
        "        for module in self.modules():",
        "            if isinstance(module, nn.Linear) and module.out_features > module.in_features:",
        "                module.weight.data = module.weight.data.t().contiguous().t()",
    ]


def reset_method(kinds: Iterable[str]) -> list[str]:
    """The method that forgets all states."""
    classes = sorted(kinds)
    shown = classes[0] if len(classes) == 1 else f"({', '.join(classes)})"
    lines = [
        "    def reset(self) -> None:",
        '        """Forget what came before: the next call begins anew, with a batch of any size."""',
        "        self.past = 0",
    ]
    if classes:
        lines += [
            "        for module in self.modules():",
            f"            if isinstance(module, {shown}):",
            "                module.reset()",
        ]
    return lines
