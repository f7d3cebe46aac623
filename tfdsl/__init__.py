"""Write a transformer once; train, count, draw, quantise and deploy it: `tfdsl.load("model.tfm")`."""

from tfdsl.language.diagnostics import Diagnostic, SpecError
from tfdsl.model import Model, load

__version__ = "0.1.0"
__all__ = ["Diagnostic", "Model", "SpecError", "load"]
