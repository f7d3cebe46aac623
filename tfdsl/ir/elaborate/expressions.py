"""Expressions to values: numbers are computed, tensors become nodes, layers wait to be applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfdsl.ir import masks
from tfdsl.ir.dims import Dim, DimError
from tfdsl.ir.elaborate import functions
from tfdsl.ir.elaborate.arithmetic import bounded, calculate, compare, is_static
from tfdsl.ir.elaborate.body import Body, is_unknown
from tfdsl.ir.elaborate.values import (
    ABSENT,
    Fault,
    Given,
    Instance,
    Layer,
    MaskValue,
    Range,
    Results,
    Tensor,
    Undecided,
    kind_of,
)
from tfdsl.ir.graph import Initializer, Type, Value
from tfdsl.ir.ops import OPS
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Span, did_you_mean
from tfdsl.language.parser import KEYWORDS


def evaluate(body: Body, tree: syntax.Expression, hint: str | None = None) -> Any:
    """The value of an expression; `hint` is the name that it is being bound to."""
    return _EVALUATE[type(tree)](body, tree, hint)


def evaluate_tensor(body: Body, tree: syntax.Expression) -> Tensor:
    """The value of an expression that must be one tensor; numbers become constants."""
    return as_tensor(body, evaluate(body, tree), tree.span)


def as_tensor(body: Body, value: Any, span: Span, dtype: str | None = None) -> Tensor:
    """A value as one tensor; raises a fault for what is none."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Results) and len(value.tensors) == 1:
        return value.tensors[0]
    if isinstance(value, (bool, int, float, Dim)):
        kind = "bool" if isinstance(value, bool) else "float" if isinstance(value, float) else "int"
        dtype = dtype or kind
        if dtype == "float" and isinstance(value, int):
            value = float(value)
        return body.add("constant", (), {"value": value, "dtype": dtype}, span)
    help_ = ""
    if isinstance(value, (Layer, Instance)):
        help_ = "apply it: give it its input in parentheses, or by `|>`"
    elif isinstance(value, Results):
        help_ = f"bind its {len(value.tensors)} results to names"
    elif value is ABSENT:
        help_ = "`given(x)` asks whether an optional input was given"
    raise Fault("T301", f"a tensor is needed, not {kind_of(value)}", span, help=help_)


# --- names and literals ----------------------------------------------------------------------------------------------


def _path(body: Body, tree: syntax.Path, hint: str | None) -> Any:
    first = tree.parts[0]
    value = body.lookup(first.text)
    if is_unknown(value):
        value = _global(body, first.text, tree)
    for part in tree.parts[1:]:
        value = _member(body, value, part, tree)
    return value


def _global(body: Body, name: str, tree: syntax.Path) -> Any:
    """A name that is not bound in the body: a block, an op, a mask or an initialiser, each without settings."""
    declared = body.module.find(name)
    if declared is not None:
        return Layer(declared, {}, None, tree.span)
    if name in masks.KINDS:
        return functions.mask(name, [], tree.span)
    if name in functions.INITIALIZERS:
        return functions.initializer(name, [], tree.span)
    op = OPS.get(name)
    if op is not None and not op.inner:
        return Layer(op, {}, None, tree.span)
    raise unknown(body, name, tree.parts[0].span)


def unknown(body: Body, name: str, span: Span) -> Fault:
    """The fault of a name that means nothing here."""
    known = [*body.names(), *callable_names(body)]
    return Fault("T201", f"nothing is called `{name}` here", span, help=did_you_mean(name, known))


def callable_names(body: Body) -> list[str]:
    from tfdsl.ir.elaborate.application import SUGAR

    ops = [op.name for op in OPS.values() if not op.inner]
    return [*body.module.names(), *ops, *masks.KINDS, *functions.INITIALIZERS, *functions.NUMBERS, *SUGAR, "given", "len"]


def _member(body: Body, value: Any, part: syntax.Name, tree: syntax.Path) -> Any:
    if isinstance(value, Results) and part.text in value.names:
        return value.tensors[value.names.index(part.text)]
    if isinstance(value, Instance):
        from tfdsl.ir.elaborate.application import prepare_weights

        prepare_weights(value)
        return _weight_or_place(body, value, part, tree)
    if isinstance(value, _Inside):
        return _weight_or_place(body, value, part, tree)
    raise Fault("T201", f"`{part.text}` is not part of {kind_of(value)}", part.span)


class _Inside:
    """A place inside an instance, on the way to a weight: `bert.embeddings`."""

    def __init__(self, place: Any):
        self.place = place


def _weight_or_place(body: Body, value: Any, part: syntax.Name, tree: syntax.Path) -> Any:
    place = value.place
    if part.text in place.weights:
        type_, init, _ = place.weights[part.text]
        return weight_tensor(body, place.join(part.text), type_, init, tree.span)
    if part.text in place.children:
        return _Inside(place.children[part.text])
    known = [*place.weights, *place.children]
    help_ = did_you_mean(part.text, known)
    if not known:
        help_ = "a layer has its weights once it has been applied"
    raise Fault("T503", f"`{place.path}` has no weight called `{part.text}`", part.span, help=help_)


def weight_tensor(body: Body, path: str, type_: Type, init: Initializer, span: Span) -> Tensor:
    """A reference to a weight from this body."""
    name = path.rpartition(".")[2]
    attributes = {"path": path, "shape": type_.dims, "init": init}
    node = body.region.graph.add("weight", (), attributes, (type_,), span=span, scope=body.frames, name=name)
    return Tensor(Value(node.id), type_, body.region)


# --- operators -------------------------------------------------------------------------------------------------------

_ELEMENTWISE = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow", "//": "floordiv", "%": "mod"}
_COMPARISONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_LOGIC = {"&": "both", "|": "either"}


def _binary(body: Body, tree: syntax.Binary, hint: str | None) -> Any:
    left, right = evaluate(body, tree.left), evaluate(body, tree.right)
    operator = tree.operator
    if operator == "..":
        return _range(left, right, tree.span)
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return _tensor_binary(body, tree, left, right)
    if operator in _LOGIC:
        return _logic(operator, left, right, tree)
    if operator in _COMPARISONS:
        return compare(operator, left, right, tree.span)
    for side, value in ((tree.left, left), (tree.right, right)):
        if not is_static(value):
            as_tensor(body, value, side.span)  # raises for all but booleans
            raise Fault("T301", f"`{operator}` takes numbers, not {kind_of(value)}", side.span)
    if operator == "@":
        raise Fault("T301", "`@` takes tensors, not numbers", tree.span)
    return calculate(operator, left, right, body.session.facts, tree.span)


def _range(left: Any, right: Any, span: Span) -> Range:
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in (left, right)):
        raise Fault("T301", "a range is of two whole numbers", span)
    if left > right:
        raise Fault("T304", f"the range {left}..{right} is empty", span)
    return Range(left, right)


def _logic(operator: str, left: Any, right: Any, tree: syntax.Binary) -> Any:
    if isinstance(left, MaskValue) and isinstance(right, MaskValue):
        return functions.join_masks(operator, left, right)
    if isinstance(left, bool) and isinstance(right, bool):
        return left and right if operator == "&" else left or right
    conditions = (bool, Undecided)
    if operator == "&" and isinstance(left, conditions) and isinstance(right, conditions):
        if left is False or right is False:
            return False
        parts = [part for side in (left, right) if isinstance(side, Undecided) for part in side.parts]
        return Undecided(tuple(parts))
    raise Fault("T301", f"`{operator}` joins two masks or two conditions, not {kind_of(left)} and {kind_of(right)}", tree.span)


def _tensor_binary(body: Body, tree: syntax.Binary, left: Any, right: Any) -> Tensor:
    from tfdsl.ir.elaborate.application import node_of

    operator = tree.operator
    spans = (tree.left.span, tree.right.span)
    if operator == "@":
        tensors = [as_tensor(body, value, span) for value, span in zip((left, right), spans, strict=True)]
        return node_of(body, "matmul", [cast(body, each, "float") for each in tensors], {}, tree.span, spans)
    if operator in _LOGIC:
        op, dtype = _LOGIC[operator], "bool"
    elif operator in _COMPARISONS:
        op, dtype = _COMPARISONS[operator], None
    else:
        op, dtype = _ELEMENTWISE[operator], "float" if operator in ("/", "**") else None
    return node_of(body, op, promote(body, (left, right), spans, dtype), {}, tree.span, spans)


def promote(body: Body, values: tuple[Any, ...], spans: tuple[Span, ...], dtype: str | None) -> list[Tensor]:
    """Values as tensors of one element type: `float` if any is; numbers take the type of the tensors beside them."""
    kinds = [value.type.dtype for value in values if isinstance(value, Tensor)]
    if dtype is None:
        floats = "float" in kinds or any(isinstance(value, float) for value in values)
        dtype = "float" if floats else "bool" if all(kind == "bool" for kind in kinds) else "int"
    tensors = []
    for value, span in zip(values, spans, strict=True):
        if isinstance(value, bool) or not is_static(value):
            tensor = as_tensor(body, value, span)
        else:
            tensor = as_tensor(body, value, span, "float" if dtype == "float" else None)
        if (tensor.type.dtype == "bool") != (dtype == "bool"):
            need = "a bool tensor" if dtype == "bool" else "numbers"
            raise Fault("T403", f"{need} is needed, not {kind_of(tensor)}", span, help='cast(x, to="float") converts')
        tensors.append(cast(body, tensor, dtype))
    return tensors


def cast(body: Body, tensor: Tensor, dtype: str) -> Tensor:
    """The tensor as another element type, by a node if need be."""
    if tensor.type.dtype == dtype:
        return tensor
    return body.add("cast", (body.region.use(tensor),), {"to": dtype}, tensor.node.span)  # type: ignore[arg-type]


def _unary(body: Body, tree: syntax.Unary, hint: str | None) -> Any:
    from tfdsl.ir.elaborate.application import node_of

    value = evaluate(body, tree.operand)
    if tree.operator == "not":
        if isinstance(value, bool):
            return not value
        if isinstance(value, MaskValue):
            return MaskValue(masks.simplify(masks.Negated(value.mask)), value.operands)
        tensor = as_tensor(body, value, tree.operand.span)
        if tensor.type.dtype != "bool":
            raise Fault("T403", f"`not` takes a condition or a mask, not {kind_of(value)}", tree.operand.span)
        return node_of(body, "negate", [tensor], {}, tree.span, (tree.operand.span,))
    if is_static(value):
        return bounded(-value, tree.span)
    tensor = as_tensor(body, value, tree.operand.span)
    if tensor.type.dtype == "bool":
        raise Fault("T403", "`-` takes numbers, not a bool tensor", tree.operand.span)
    return node_of(body, "neg", [tensor], {}, tree.span, (tree.operand.span,))


def _choice(body: Body, tree: syntax.Choice, hint: str | None) -> Any:
    condition = evaluate(body, tree.condition)
    if not isinstance(condition, bool):
        help_ = "where(condition, a, b) chooses element by element" if isinstance(condition, Tensor) else ""
        raise Fault("T301", f"`if` needs true or false, not {kind_of(condition)}", tree.condition.span, help=help_)
    return evaluate(body, tree.then if condition else tree.otherwise, hint)


def _index(body: Body, tree: syntax.Index, hint: str | None) -> Any:
    base, index = evaluate(body, tree.base), evaluate(body, tree.index)
    if isinstance(base, Results):
        base = base.tensors
    if not isinstance(base, tuple):
        help_ = "select and slice take parts of a tensor" if isinstance(base, Tensor) else ""
        raise Fault("T301", f"only lists are indexed, not {kind_of(base)}", tree.base.span, help=help_)
    if isinstance(index, bool) or not isinstance(index, int):
        raise Fault("T301", f"an index is a whole number, not {kind_of(index)}", tree.index.span)
    if not -len(base) <= index < len(base):
        raise Fault("T304", f"index {index} is outside a list of {len(base)}", tree.index.span)
    return base[index]


def _list(body: Body, tree: syntax.ListOf, hint: str | None) -> Any:
    return tuple(evaluate(body, item) for item in tree.items)


# --- calls -----------------------------------------------------------------------------------------------------------


def _pipe(body: Body, tree: syntax.Pipe, hint: str | None) -> Any:
    value = evaluate(body, tree.value)
    stage = tree.stage
    if isinstance(stage, syntax.Path):
        stage = syntax.Call(stage, (), None, span=stage.span)
    return call(body, stage, hint, piped=Given(value, tree.value, body, tree.value.span))


def _call(body: Body, tree: syntax.Call, hint: str | None) -> Any:
    return call(body, tree, hint)


def call(body: Body, tree: syntax.Call, hint: str | None, piped: Given | None = None) -> Any:
    """A call: a function of numbers, a mask, an initialiser, or a layer configured or applied."""
    from tfdsl.ir.elaborate.application import SUGAR, configure

    name = tree.callee.text
    if name == "given" and not body.knows("given"):
        return _given(body, tree)
    positional = [piped] if piped else []
    keywords: dict[str, Given] = {}
    for argument in tree.arguments:
        given = Given(evaluate(body, argument.value), argument.value, body, argument.value.span)
        if argument.keyword is None:
            positional.append(given)
        elif argument.keyword.text in keywords:
            raise Fault("T302", f"`{argument.keyword.text}` is given twice", argument.keyword.span)
        else:
            keywords[argument.keyword.text] = given
    local = body.lookup(tree.callee.parts[0].text)
    if is_unknown(local) or not _callable(local, tree):
        made = _function(body, name, positional, keywords, tree)
        if made is not None:
            return made
        if name in SUGAR and body.module.find(name) is None:
            return SUGAR[name](body, positional, keywords, tree)
    return configure(body, tree, positional, keywords, hint, piped is not None)


def _callable(local: Any, tree: syntax.Call) -> bool:
    return len(tree.callee.parts) > 1 or isinstance(local, (Layer, Instance))


def _function(
    body: Body, name: str, positional: list[Given], keywords: dict[str, Given], tree: syntax.Call
) -> Any:
    """The value of a call that makes no node, or None where it is the call of a layer."""
    values = [given.value for given in positional]
    if body.module.own.get(name) or body.module.imported.get(name):
        return None
    if name in masks.KINDS:
        _no_keywords(name, keywords)
        return functions.mask(name, values, tree.span)
    if name in functions.INITIALIZERS:
        _no_keywords(name, keywords)
        return functions.initializer(name, values, tree.span)
    tensors = any(isinstance(value, (Tensor, Results)) for value in values)
    if (name in functions.NUMBERS and values and not tensors) or name == "len":
        _no_keywords(name, keywords)
        return functions.number_function(name, values, tree.span)
    return None


def _no_keywords(name: str, keywords: dict[str, Given]) -> None:
    for keyword, given in keywords.items():
        raise Fault("T302", f"{name} takes no keyword `{keyword}`", given.span)


def _given(body: Body, tree: syntax.Call) -> bool:
    argument = tree.arguments[0].value if len(tree.arguments) == 1 else None
    if not isinstance(argument, syntax.Path) or len(argument.parts) != 1:
        raise Fault("T302", "given takes the name of one input", tree.span)
    value = body.lookup(argument.parts[0].text)
    if is_unknown(value):
        raise unknown(body, argument.parts[0].text, argument.span)
    return value is not ABSENT and value is not None


def explain(body: Body, tree: syntax.Expression) -> str:
    """The two sides of a comparison in numbers, for a requirement that does not hold."""
    if not isinstance(tree, syntax.Binary) or tree.operator not in _COMPARISONS:
        return ""
    sides = [evaluate(body, side) for side in (tree.left, tree.right)]
    parts = []
    for side, value in zip((tree.left, tree.right), sides, strict=True):
        if not isinstance(side, syntax.Number):
            parts.append(f"{side.span.text} is {value}")
    return ", ".join(parts)


_EVALUATE: dict[type, Callable[[Body, Any, str | None], Any]] = {
    syntax.Number: lambda body, tree, hint: bounded(tree.value, tree.span),
    syntax.String: lambda body, tree, hint: tree.value,
    syntax.Literal: lambda body, tree, hint: tree.value,
    syntax.Path: _path,
    syntax.Call: _call,
    syntax.Index: _index,
    syntax.ListOf: _list,
    syntax.Unary: _unary,
    syntax.Binary: _binary,
    syntax.Choice: _choice,
    syntax.Pipe: _pipe,
}

__all__ = ["KEYWORDS", "DimError", "as_tensor", "evaluate", "evaluate_tensor", "weight_tensor"]
