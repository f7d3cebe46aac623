"""Blocks and models applied: signatures are unified with the caller's shapes, parameters settled, the body run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfdsl.ir import dims
from tfdsl.ir.elaborate.application import base_block
from tfdsl.ir.elaborate.arithmetic import is_size
from tfdsl.ir.elaborate.body import DEEPEST_BLOCKS, Body, is_unknown
from tfdsl.ir.elaborate.expressions import as_tensor, evaluate
from tfdsl.ir.elaborate.parameters import Override, Parameters, declared_parameters
from tfdsl.ir.elaborate.values import ABSENT, Fault, Given, Layer, Place, Poisoned, Results, Tensor, kind_of
from tfdsl.ir.graph import Frame
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label, Span, did_you_mean
from tfdsl.language.modules import Declared


def overrides_of(declared: Declared, faults: Any) -> dict[str, Override]:
    """The settings of a chain of variants, the most derived first."""
    found: dict[str, Override] = {}
    parameters = declared_parameters(base_block(declared), faults)
    while isinstance(declared.item, syntax.Variant):
        variant = declared.item
        seen: dict[str, Span] = {}
        for setting in variant.settings:
            name = setting.name.text
            if name in seen:
                first = Label(seen[name], "first here")
                faults.add(Fault("T203", f"`{name}` is set twice", setting.name.span, others=(first,)).diagnostic)
            elif name not in parameters:
                help_ = did_you_mean(name, parameters, "its parameters are " + ", ".join(parameters))
                message = f"`{variant.base.text}` has no parameter `{name}`"
                faults.add(Fault("T313", message, setting.name.span, help=help_).diagnostic)
            else:
                origin = f"set by {variant.name.text}"
                found.setdefault(name, Override(setting.value, None, declared.module, setting.name.span, origin))
            seen[name] = setting.name.span
        base = declared.module.find(variant.base.text)
        assert base is not None
        declared = base
    return found


def home(declared: Declared) -> Declared:
    """The declaration whose body runs: the model at the end of a chain of variants."""
    while isinstance(declared.item, syntax.Variant):
        base = declared.module.find(declared.item.base.text)
        assert base is not None
        declared = base
    return declared


def apply_block(body: Body, layer: Layer, place: Place, positional: list[Given], span: Span) -> Any:
    """Apply a block: its nodes join the caller's region under a frame of their own."""
    declared = layer.callee
    assert isinstance(declared, Declared)
    block = base_block(declared)
    _refuse_recursion(body, declared, span)
    parameters = declared_parameters(block, body.session.faults)
    inputs, settings = _sort_out(body, block, parameters, layer.given, positional, span)
    spelled = {
        name: given.expression
        for name, given in settings.items()
        if given.expression is not None and given.body is not None and body.sees(given.body.frame)
    }
    frame = Frame(place.path, block.name.text, {}, spelled, span=span)
    inside = Body(
        body.session,
        home(declared).module,
        body.region,
        place,
        frame,
        (*body.frames, frame),
        depth=body.depth + 1,
    )
    inside.parameters = Parameters(inside, parameters, settings, overrides_of(declared, body.session.faults))
    bind_inputs(inside, block, inputs, span)
    before = len(body.session.faults.found)
    results = run_block(inside, block, span)
    if len(body.session.faults.found) > before:
        raise Poisoned
    names = tuple(output.name.text if output.name else None for output in block.outputs)
    return results[0] if len(results) == 1 else Results(tuple(results), names)


def _refuse_recursion(body: Body, declared: Declared, span: Span) -> None:
    name = base_block(declared).name
    if body.depth >= DEEPEST_BLOCKS or any(
        frame.block == name.text for frame in body.frames if _same(body, frame, declared)
    ):
        raise Fault(
            "T212",
            f"`{name.text}` is applied inside itself",
            span,
            others=(Label(name.span, "declared here"),),
            help="a spec has no recursion; `repeat` says how often",
        )


def _same(body: Body, frame: Frame, declared: Declared) -> bool:
    return frame.block == base_block(declared).name.text and body.module.find(frame.block) in (None, declared, home(declared))


def _sort_out(
    body: Body,
    block: syntax.Block,
    parameters: Mapping[str, syntax.Parameter],
    given: Mapping[str, Given],
    positional: list[Given],
    span: Span,
) -> tuple[dict[str, Given], dict[str, Given]]:
    """What was given, as inputs and as settings."""
    by_name = {each.name.text: each for each in block.inputs}
    if len(positional) > len(block.inputs):
        names = ", ".join(by_name)
        raise Fault("T302", f"`{block.name.text}` takes ({names}), and is given {len(positional)} inputs", span)
    inputs = {each.name.text: value for each, value in zip(block.inputs, positional, strict=False)}
    settings: dict[str, Given] = {}
    for name, each in given.items():
        if name in parameters:
            settings[name] = each
        elif name in by_name:
            if name in inputs:
                raise Fault("T302", f"`{name}` is given twice", each.span)
            inputs[name] = each
        else:
            known = [*parameters, *by_name]
            otherwise = "its parameters are " + ", ".join(parameters) if parameters else "it has no parameters"
            raise Fault(
                "T313",
                f"`{block.name.text}` has no parameter `{name}`",
                each.span,
                others=(Label(block.name.span, "declared here"),),
                help=did_you_mean(name, known, otherwise),
            )
    for each in block.inputs:
        if each.name.text not in inputs and not each.optional:
            raise Fault(
                "T302",
                f"`{block.name.text}` needs its input `{each.name.text}`",
                span,
                others=(Label(each.name.span, "declared here"),),
            )
    return inputs, settings


# --- signatures ------------------------------------------------------------------------------------------------------


def bind_inputs(body: Body, block: syntax.Block, inputs: Mapping[str, Given], span: Span) -> None:
    """Unify the shapes of what is given with the signature: free names are bound, all else must agree."""
    found: list[tuple[syntax.Input, Tensor, Span]] = []
    for each in block.inputs:
        given = inputs.get(each.name.text)
        body.spans[each.name.text] = each.name.span
        if given is None or given.value is ABSENT or given.value is None:
            if not each.optional:
                raise Fault("T308", f"`{each.name.text}` is not optional, and what is given may be absent", span)
            body.env[each.name.text] = ABSENT
            continue
        tensor = as_tensor(body, given.value, given.span)
        _check_dtype(each, tensor, given.span)
        body.env[each.name.text] = tensor
        body.frame.arguments[each.name.text] = body.region.use(tensor)
        found.append((each, tensor, given.span))
    for each, tensor, at in found:
        _bind_names(body, each, tensor, at)
    body.parameters.settle()
    for each, tensor, at in found:
        _check_extents(body, each, tensor, at)


def _check_dtype(declared: syntax.Input, tensor: Tensor, span: Span) -> None:
    dtype = declared.type.dtype.text if declared.type.dtype else "float"
    if tensor.type.dtype != dtype:
        raise Fault(
            "T403",
            f"`{declared.name.text}` is {dtype}, and is given {kind_of(tensor)}",
            span,
            others=(Label(declared.type.span, "declared here"),),
            help=f'cast(x, to="{dtype}") converts',
        )


def _axes(declared: syntax.Input, tensor: Tensor, span: Span) -> list[tuple[syntax.Expression, Any]]:
    """Each extent with its size; those that `...` stands for are left out."""
    extents, sizes = declared.type.extents, tensor.type.dims
    open_ = [position for position, extent in enumerate(extents) if isinstance(extent, syntax.Ellipsis_)]
    if len(open_) > 1:
        raise Fault("T408", "`...` can stand only once in a shape", extents[open_[1]].span)
    if len(sizes) < len(extents) - len(open_) or (not open_ and len(sizes) != len(extents)):
        raise Fault(
            "T402",
            f"`{declared.name.text}` has {len(extents) - len(open_)}{' or more' if open_ else ''} axes, and is given {tensor.type}",
            span,
            others=(Label(declared.type.span, "declared here"),),
        )
    if not open_:
        return list(zip(extents, sizes, strict=True))  # type: ignore[arg-type]
    at, extra = open_[0], len(sizes) - len(extents) + 1
    return list(zip((*extents[:at], *extents[at + 1 :]), (*sizes[:at], *sizes[at + extra :]), strict=True))  # type: ignore[arg-type]


def _bind_names(body: Body, declared: syntax.Input, tensor: Tensor, span: Span) -> None:
    for extent, size in _axes(declared, tensor, span):
        if isinstance(extent, syntax.Path) and len(extent.parts) == 1:
            name = extent.text
            if name in body.parameters or name in body.env:
                continue
            body.env[name] = size
            body.spans[name] = extent.span
            body.frame.names[name] = size  # type: ignore[index]
    for position, extent in enumerate(declared.type.extents):
        if isinstance(extent, syntax.Ellipsis_):
            rest = tensor.type.dims[position : position + len(tensor.type.dims) - len(declared.type.extents) + 1]
            known = body.env.get("...")
            if known is not None and known != rest:
                raise Fault("T402", f"`...` is both {_shape(known)} and {_shape(rest)}", span)
            body.env["..."] = rest


def _shape(sizes: Sequence[Any]) -> str:
    return "[" + ", ".join(str(size) for size in sizes) + "]"


def _check_extents(body: Body, declared: syntax.Input, tensor: Tensor, span: Span) -> None:
    for axis, (extent, size) in enumerate(_axes(declared, tensor, span)):
        wanted = evaluate(body, extent)
        if not is_size(wanted):
            raise Fault("T408", f"an axis is a size, not {kind_of(wanted)}", extent.span)
        if wanted != size:
            origin = body.where(extent.text) if isinstance(extent, syntax.Path) else None
            others = [Label(extent.span, f"`{extent.span.text}` is {wanted}")]
            if origin is not None and origin != extent.span:
                others.append(Label(origin, f"bound to {wanted} here"))
            made = tensor.node.span
            if made is not None and made != span:
                others.append(Label(made, f"the input is made here: {tensor.type}"))
            raise Fault(
                "T402",
                f"axis {axis} of `{declared.name.text}` is {size}, and `{extent.span.text}` is {wanted}",
                span,
                others=tuple(others),
            )


def run_block(body: Body, block: syntax.Block, span: Span) -> list[Tensor]:
    """Run the body and check what it returns against the signature."""
    statement = body.run(block.body)
    if statement is None:
        raise Fault("T210", f"`{block.name.text}` returns nothing", block.name.span, help="end it with `return`")
    values: list[tuple[Any, Span]] = []
    for tree in statement.values:
        value = evaluate(body, tree)
        parts = value.tensors if isinstance(value, Results) else (value,)
        values += [(part, tree.span) for part in parts]
    if len(values) != len(block.outputs):
        raise Fault(
            "T302",
            f"`{block.name.text}` declares {len(block.outputs)} results and returns {len(values)}",
            statement.span,
            others=(Label(block.outputs[0].span.to(block.outputs[-1].span), "declared here"),),
        )
    return [_result(body, output, value, at) for output, (value, at) in zip(block.outputs, values, strict=True)]


def _result(body: Body, output: syntax.Output, value: Any, span: Span) -> Tensor:
    tensor = as_tensor(body, value, span)
    dtype = output.type.dtype.text if output.type.dtype else "float"
    wanted: list[Any] = []
    for extent in output.type.extents:
        if isinstance(extent, syntax.Ellipsis_):
            rest = body.env.get("...")
            if rest is None:
                raise Fault("T408", "`...` stands for nothing here: no input has it", extent.span)
            wanted += rest
            continue
        if isinstance(extent, syntax.Path) and len(extent.parts) == 1 and is_unknown(body.lookup(extent.text)):
            raise Fault(
                "T201", f"no input binds `{extent.text}`", extent.span, help=did_you_mean(extent.text, body.names())
            )
        wanted.append(evaluate(body, extent))
    if tensor.type.dtype != dtype or tensor.type.dims != tuple(wanted):
        shown = f"{'' if dtype == 'float' else dtype}{_shape(wanted)}"
        raise Fault(
            "T402",
            f"the result is {tensor.type}, and {shown} is declared",
            span,
            note=f"this is {tensor.type}",
            others=(Label(output.type.span, f"declared as {shown}"),),
        )
    return tensor


__all__ = ["apply_block", "bind_inputs", "dims", "overrides_of", "run_block"]
