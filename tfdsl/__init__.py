"""Write a transformer once; train, count, draw, quantise and deploy it: `tfdsl.load("model.tfm")`."""

from typing import TYPE_CHECKING, Any

from tfdsl.language.diagnostics import Diagnostic, SpecError

if TYPE_CHECKING:
    from tfdsl.model import Model, load

__version__ = "0.1.0"
__all__ = ["Diagnostic", "Model", "SpecError", "load"]


def __getattr__(name: str) -> Any:
    """`Model` and `load`, when somebody asks for them: the command line answers much without."""
    if name not in ("Model", "load"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tfdsl import model

    return getattr(model, name)
