"""Expressions to values: numbers are computed, tensors become nodes, layers wait to be applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfdsl.ir import masks
from tfdsl.ir.dims import Dim
from tfdsl.ir.elaborate import functions
from tfdsl.ir.elaborate.arithmetic import bounded, calculate, compare, is_static
from tfdsl.ir.elaborate.body import Body, is_unknown
from tfdsl.ir.elaborate.causes import applications, causes
from tfdsl.ir.elaborate.elsewhere import ELSEWHERE
from tfdsl.ir.elaborate.nodes import node_of
from tfdsl.ir.elaborate.own_weights import prepare_weights, weight_tensor
from tfdsl.ir.elaborate.values import (
    ABSENT,
    Fault,
    Given,
    Instance,
    Layer,
    MaskValue,
    Place,
    Range,
    Results,
    Tensor,
    Undecided,
    kind_of,
)
from tfdsl.ir.ops import OPS
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label, Span, did_you_mean
from tfdsl.language.modules import Declared, base_block

MOST_ITEMS = 10_000
_ITEMS_A_STEP = 100


def evaluate(body: Body, tree: syntax.Expression, hint: str | None = None) -> Any:
    """The value of an expression; `hint` is the name that it is being bound to."""
    return _EVALUATE[type(tree)](body, tree, hint)


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
    if value is ABSENT:
        declared = body.where(span.text)
        raise Fault(
            "T308",
            f"`{span.text}` is an input that was not given",
            span,
            others=(Label(declared, "it is optional"),) if declared else (),
            help="`if given(x) then ... else ...` asks whether an optional input was given",
        )
    help_ = ""
    if isinstance(value, (Layer, Instance)):
        help_ = "apply it: give it its input in parentheses, or by `|>`"
    elif isinstance(value, Results):
        help_ = f"bind its {len(value.tensors)} results to names"
    elif isinstance(value, MaskValue):
        help_ = "masks are joined with masks, and go to `mask` of attend"
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
        refuse_recursion(body, declared, tree.span)
        return Layer(declared, {}, None, tree.span)
    if name in masks.KINDS:
        return functions.mask(name, [], tree.span)
    if name in functions.INITIALIZERS:
        return functions.initializer(name, [], tree.span)
    op = OPS.get(name)
    if op is not None and not op.inner:
        return Layer(op, {}, None, tree.span)
    raise unknown(body, name, tree.parts[0].span)


def refuse_recursion(body: Body, declared: Declared, span: Span) -> None:
    """Refuse a block that names itself, directly or by way of others."""
    block = base_block(declared)
    if all(block is not each for each in body.blocks):
        return
    fault = Fault(
        "T212",
        f"`{block.name.text}` is applied inside itself",
        span,
        others=(Label(block.name.span, "declared here"),),
        help="a spec has no recursion; `repeat` says how often",
    )
    between = list(applications(body))
    raise fault.because(between[:-1] if len(between) == len(body.blocks) else between)


def unknown(body: Body, name: str, span: Span) -> Fault:
    """The fault of a name that means nothing here."""
    later, why = body.bound_elsewhere(name)
    if later is not None:
        return Fault("T201", f"nothing is called `{name}` here", span, others=(Label(later, why),))
    known = [*body.names(), *callable_names(body)]
    help_ = ELSEWHERE.get(name.lower()) or did_you_mean(name, known)
    return Fault("T201", f"nothing is called `{name}` here", span, help=help_)


def callable_names(body: Body) -> list[str]:
    from tfdsl.ir.elaborate.op_application import SUGAR

    ops = [op.name for op in OPS.values() if not op.inner]
    return [*body.module.names(), *ops, *masks.KINDS, *functions.INITIALIZERS, *functions.NUMBERS, *SUGAR, *_WORDS]


_WORDS = ("given", "len", "true", "false", "none")


def _member(body: Body, value: Any, part: syntax.Name, tree: syntax.Expression) -> Any:
    if isinstance(value, Results) and part.text in value.names:
        return value.tensors[value.names.index(part.text)]
    if isinstance(value, Results):
        known = [name for name in value.names if name]
        help_ = did_you_mean(
            part.text, known, "its results are " + ", ".join(known) if known else "its results have no names"
        )
        raise Fault("T201", f"no result is called `{part.text}`", part.span, help=help_)
    if isinstance(value, Instance):
        prepare_weights(body, value)
        return _weight_or_place(body, value.place, part, tree)
    if isinstance(value, Place):
        return _weight_or_place(body, value, part, tree)
    help_ = "bind the layer to a name first: its weights belong to that" if isinstance(value, Layer) else ""
    raise Fault("T201", f"`{part.text}` is not part of {kind_of(value)}", part.span, help=help_)


def _weight_or_place(body: Body, place: Place, part: syntax.Name, tree: syntax.Expression) -> Any:
    if part.text in place.weights:
        type_, init, _ = place.weights[part.text]
        return weight_tensor(body, place.join(part.text), type_, init, tree.span)
    child = place.child(part.text)
    if child is not None and child.has_weights():
        return child
    known = [*place.weights, *(name for name in place.children if (found := place.child(name)) and found.has_weights())]
    if not known:
        message, help_ = f"`{place.path}` has no weights yet", "a layer has its weights once it has been applied"
    else:
        message = f"`{place.path}` has no weight called `{part.text}`"
        help_ = did_you_mean(part.text, known, "it has " + ", ".join(known))
    raise Fault("T503", message, part.span, help=help_)


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
            raise Fault("T301", f"`{operator}` takes numbers and tensors, not {kind_of(value)}", side.span).because(
                causes(body, side)
            )
    if operator == "@":
        raise Fault("T301", "`@` takes tensors, not numbers", tree.span)
    if _leaves_sizes(operator, left, right) and body.makes_nodes:
        return _tensor_binary(body, tree, left, right)
    try:
        return calculate(operator, left, right, body.session.facts, tree.span)
    except Fault as fault:
        raise fault.because(causes(body, tree)) from None


def _leaves_sizes(operator: str, left: Any, right: Any) -> bool:
    """Whether arithmetic on a size that run time knows gives no size: it is then done at run time, as a tensor []."""
    if not isinstance(left, Dim) and not isinstance(right, Dim):
        return False
    return isinstance(left, float) or isinstance(right, float) or (operator == "**" and isinstance(right, Dim))


def _range(left: Any, right: Any, span: Span) -> Range:
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in (left, right)):
        raise Fault("T301", "a range is of two whole numbers", span)
    if left > right:
        raise Fault("T304", f"the range {left}..{right} is empty", span)
    return Range(left, right)


def _logic(operator: str, left: Any, right: Any, tree: syntax.Binary) -> Any:
    if isinstance(left, MaskValue) and isinstance(right, MaskValue):
        return functions.join_masks(operator, left, right, tree.span)
    if isinstance(left, bool) and isinstance(right, bool):
        return left and right if operator == "&" else left or right
    conditions = (bool, Undecided)
    if operator == "&" and isinstance(left, conditions) and isinstance(right, conditions):
        if left is False or right is False:
            return False
        parts = [part for side in (left, right) if isinstance(side, Undecided) for part in side.parts]
        return Undecided(tuple(parts))
    raise Fault(
        "T301", f"`{operator}` joins two masks or two conditions, not {kind_of(left)} and {kind_of(right)}", tree.span
    )


def _tensor_binary(body: Body, tree: syntax.Binary, left: Any, right: Any) -> Tensor:
    operator = tree.operator
    spans = (tree.left.span, tree.right.span)
    if operator == "@":
        tensors = [as_tensor(body, value, span) for value, span in zip((left, right), spans, strict=True)]
        return node_of(body, "matmul", [cast(body, each, "float") for each in tensors], {}, tree.span, spans)
    if operator in _LOGIC:
        op, dtype = _LOGIC[operator], "bool"
        _refuse_mask(operator, (left, right), spans)
    elif operator in _COMPARISONS:
        op, dtype = _COMPARISONS[operator], None
    else:
        op, dtype = _ELEMENTWISE[operator], "float" if operator in ("/", "**") else None
    tensors = promote(body, (left, right), spans, dtype)
    for side, tensor in zip((tree.left, tree.right), tensors, strict=True):
        if tensor.node.op == "constant" and tensor.region is body.region:
            tensor.node.spelled["value"] = side
    return node_of(body, op, tensors, {}, tree.span, spans)


def _refuse_mask(operator: str, values: tuple[Any, Any], spans: tuple[Span, Span]) -> None:
    """Refuse to join a mask with a tensor: which of its axes are positions, a mask constructor says."""
    if any(isinstance(value, MaskValue) for value in values):
        at, value = next((s, v) for s, v in zip(spans, values, strict=True) if not isinstance(v, MaskValue))
        raise Fault(
            "T301",
            f"`{operator}` joins two masks, and this is {kind_of(value)}",
            at,
            help="`padding(keep)` and `documents(ids)` make masks of tensors; attend takes any other as `allowed`",
        )


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
        raise Fault(
            "T301",
            f"`if` needs true or false, not {kind_of(condition)}",
            tree.condition.span,
            help=_condition_help(condition),
        )
    return evaluate(body, tree.then if condition else tree.otherwise, hint)


def _condition_help(condition: Any) -> str:
    if isinstance(condition, Tensor):
        return "where(condition, a, b) chooses element by element"
    if isinstance(condition, Undecided):
        return "a network cannot depend on sizes that only run time knows"
    return "compare it with another number: `n > 0`" if is_static(condition) else ""


def _index(body: Body, tree: syntax.Index, hint: str | None) -> Any:
    base, index = evaluate(body, tree.base), evaluate(body, tree.index)
    if isinstance(base, Results):
        base = base.tensors
    if not isinstance(base, tuple):
        help_ = "select and slice take parts of a tensor" if isinstance(base, Tensor) else ""
        if isinstance(base, (Layer, Instance)):
            help_ = "bind what the layer gives to a name first, and index that"
        raise Fault("T301", f"only lists are indexed, not {kind_of(base)}", tree.base.span, help=help_)
    if isinstance(index, bool) or not isinstance(index, int):
        raise Fault("T301", f"an index is a whole number, not {kind_of(index)}", tree.index.span)
    if not -len(base) <= index < len(base):
        raise Fault("T304", f"index {index} is outside a list of {len(base)}", tree.index.span).because(
            [*causes(body, tree.index), *_bound(body, tree.base)]
        )
    return base[index]


def _bound(body: Body, tree: syntax.Expression) -> list[Label]:
    """Where a name was bound, for an expression that is one."""
    origin = body.where(tree.text) if isinstance(tree, syntax.Path) else None
    return [Label(origin, "bound here")] if origin else []


def _member_of(body: Body, tree: syntax.Member, hint: str | None) -> Any:
    return _member(body, evaluate(body, tree.base), tree.name, tree)


def _list(body: Body, tree: syntax.ListOf, hint: str | None) -> Any:
    found: list[Any] = []
    for item in tree.items:  # no generator: a deep spec is to use Python's own stack only
        found.append(evaluate(body, item))
    items = tuple(found)
    size = _length(items, MOST_ITEMS + 1)
    if size > MOST_ITEMS:
        raise Fault("T305", f"a list of more than {MOST_ITEMS:,} items, those of lists in it counted", tree.span)
    body.session.spend(tree.span, size // _ITEMS_A_STEP)
    return items


def _length(items: tuple[Any, ...], most: int) -> int:
    """The items of a list and of all lists in it, counted as far as `most`: a list may hold another many times over."""
    total = len(items)
    for item in items:
        if total >= most:
            break
        if isinstance(item, tuple):
            total += _length(item, most - total)
    return total


# --- calls -----------------------------------------------------------------------------------------------------------


def _pipe(body: Body, tree: syntax.Pipe, hint: str | None) -> Any:
    value = evaluate(body, tree.value)
    stage = tree.stage
    if isinstance(stage, (syntax.Path, syntax.Index)):
        stage = syntax.Call(stage, (), None, span=stage.span)
    return _apply(body, stage, hint, piped=Given(value, tree.value, body, tree.value.span))


def _call(body: Body, tree: syntax.Call, hint: str | None) -> Any:
    return _apply(body, tree, hint)


def _apply(body: Body, tree: syntax.Call, hint: str | None, piped: Given | None = None) -> Any:
    """A call: a function of numbers, a mask, an initialiser, or a layer configured or applied."""
    from tfdsl.ir.elaborate.application import configure
    from tfdsl.ir.elaborate.op_application import SUGAR

    name = tree.callee.text
    if name == "given" and not body.knows("given"):
        return _given(body, tree)
    positional = [piped] if piped else []
    keywords: dict[str, Given] = {}
    for argument in tree.arguments:
        _refuse_comparison(body, argument)
        keyword = argument.keyword.span if argument.keyword else None
        given = Given(evaluate(body, argument.value), argument.value, body, argument.value.span, keyword)
        if argument.keyword is None:
            positional.append(given)
        elif argument.keyword.text in keywords:
            first = Label(keywords[argument.keyword.text].at, "first here")
            raise Fault("T302", f"`{argument.keyword.text}` is given twice", argument.keyword.span, others=(first,))
        else:
            keywords[argument.keyword.text] = given
    local = None if isinstance(tree.callee, syntax.Index) else body.lookup(tree.callee.parts[0].text)
    if is_unknown(local) or not _callable(local, tree.callee):
        made = _function(body, name, positional, keywords, tree)
        if made is not None:
            return made
        if name in SUGAR and body.module.find(name) is None:
            return SUGAR[name](body, positional, keywords, tree)
    return configure(body, tree, positional, keywords, hint)


def _refuse_comparison(body: Body, argument: syntax.Argument) -> None:
    """Refuse `linear(x, out==4)`, where one `=` was meant."""
    value = argument.value
    if argument.keyword or not isinstance(value, syntax.Binary) or value.operator != "==":
        return
    if isinstance(value.left, syntax.Path) and not body.knows(value.left.text):
        setting = f"{value.left.text}={value.right.span.text}"
        raise Fault(
            "T201",
            f"nothing is called `{value.left.text}` here",
            value.left.span,
            help=f"a setting takes one `=`: {setting}",
        )


def _callable(local: Any, callee: syntax.Path | syntax.Index) -> bool:
    return isinstance(callee, syntax.Index) or len(callee.parts) > 1 or isinstance(local, (Layer, Instance))


def _function(body: Body, name: str, positional: list[Given], keywords: dict[str, Given], tree: syntax.Call) -> Any:
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
    if len(values) == 1 and isinstance(values[0], Dim) and body.makes_nodes:
        if name == "float":
            return as_tensor(body, values[0], tree.span, "float")
        tensors = name in OPS and name not in ("abs", "floor")  # those of a size, at run time
    if (name in functions.NUMBERS and values and not tensors) or name == "len":
        _no_keywords(name, keywords)
        return functions.number_function(name, values, tree.span)
    return None


def _no_keywords(name: str, keywords: dict[str, Given]) -> None:
    for keyword, given in keywords.items():
        raise Fault(
            "T302", f"{name} takes no keyword `{keyword}`", given.at, help=f"its numbers go by position: {name}(...)"
        )


def _given(body: Body, tree: syntax.Call) -> bool:
    argument = tree.arguments[0].value if len(tree.arguments) == 1 else None
    if not isinstance(argument, syntax.Path) or len(argument.parts) != 1:
        raise Fault("T302", "given takes the name of one input", tree.span, help="given(a) & given(b) asks for two")
    value = body.lookup(argument.parts[0].text)
    if is_unknown(value):
        raise unknown(body, argument.parts[0].text, argument.span)
    return value is not ABSENT and value is not None


def explain(body: Body, tree: syntax.Expression) -> str:
    """The sides of a comparison in numbers, for a requirement that does not hold; names alone are shown elsewhere."""
    if not isinstance(tree, syntax.Binary) or tree.operator not in _COMPARISONS:
        return ""
    parts = []
    for side in (tree.left, tree.right):
        if not isinstance(side, (syntax.Number, syntax.Path)):
            parts.append(f"{side.span.text} is {evaluate(body, side)}")
    return ", ".join(parts)


_EVALUATE: dict[type, Callable[[Body, Any, str | None], Any]] = {
    syntax.Number: lambda body, tree, hint: bounded(tree.value, tree.span),
    syntax.String: lambda body, tree, hint: tree.value,
    syntax.Literal: lambda body, tree, hint: tree.value,
    syntax.Path: _path,
    syntax.Call: _call,
    syntax.Index: _index,
    syntax.Member: _member_of,
    syntax.ListOf: _list,
    syntax.Unary: _unary,
    syntax.Binary: _binary,
    syntax.Choice: _choice,
    syntax.Pipe: _pipe,
}
