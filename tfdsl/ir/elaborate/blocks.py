"""Blocks and models applied: signatures are unified with the caller's shapes, parameters settled, the body run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfdsl.ir.elaborate.arithmetic import is_size
from tfdsl.ir.elaborate.attributes import DTYPES
from tfdsl.ir.elaborate.body import DEEPEST_BLOCKS, Body, binders, is_unknown
from tfdsl.ir.elaborate.causes import causes
from tfdsl.ir.elaborate.expressions import as_tensor, evaluate
from tfdsl.ir.elaborate.parameters import Override, Parameters, declared_parameters
from tfdsl.ir.elaborate.values import ABSENT, Fault, Given, Layer, Place, Poisoned, Results, Tensor, kind_of
from tfdsl.ir.graph import Frame
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label, Span, did_you_mean
from tfdsl.language.modules import Declared, base_block, home


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
                faults.add(
                    no_parameter(
                        base_block(declared), variant.base.text, parameters, name, setting.name.span
                    ).diagnostic
                )
            else:
                origin = f"set by {variant.name.text}"
                found.setdefault(name, Override(setting.value, None, declared.module, setting.name.span, origin))
            seen[name] = setting.name.span
        base = declared.module.find(variant.base.text)
        assert base is not None
        declared = base
    return found


def no_parameter(block: syntax.Block, shown: str, known: Iterable[str], name: str, span: Span | None) -> Fault:
    """The fault of a setting that no parameter of a block answers to."""
    known = list(known)
    derived = next((n for each in block.body for n in binders(each) if n.text == name), None)
    others = (Label(block.name.span, "declared here"),)
    help_ = did_you_mean(name, known, "its parameters are " + ", ".join(known) if known else "it has no parameters")
    if derived is not None:
        others = (Label(derived.span, "bound here: it is derived"),)
        help_ = f"`param {name} = ...` makes it one that can be set"
    return Fault("T313", f"`{shown}` has no parameter `{name}`", span, others=others, help=help_)


def apply_block(body: Body, layer: Layer, place: Place, positional: list[Given], span: Span) -> Any:
    """Apply a block: its nodes join the caller's region under a frame of their own."""
    declared = layer.callee
    assert isinstance(declared, Declared)
    block = base_block(declared)
    if len(body.blocks) >= DEEPEST_BLOCKS:
        raise Fault("T212", f"blocks are applied inside each other more than {DEEPEST_BLOCKS} deep", span)
    body.session.reached.add(id(block))
    body.session.spend(span)
    parameters = declared_parameters(block, body.session.faults)
    inputs, settings = _sort_out(body, block, parameters, layer.given, positional, span)
    spelled = body.spellings(settings)
    defaults = {name: each.default for name, each in parameters.items() if each.default is not None}
    frame = Frame(place.path, block.name.text, {}, spelled, declared=defaults, span=span, declaration=block)
    inside = Body(
        body.session,
        home(declared).module,
        body.region,
        place,
        frame,
        (*body.frames, frame),
        blocks=(*body.blocks, block),
        statements=block.body,
        turns=body.turns,
    )
    inside.parameters = Parameters(inside, parameters, settings, overrides_of(declared, body.session.faults))
    bind_inputs(inside, block, inputs, span)
    before = len(body.session.faults.found)
    try:
        results = run_block(inside, block, span)
    except Fault as fault:
        inside.report(fault)
        raise Poisoned from None
    if len(body.session.faults.found) > before:
        raise Poisoned
    names = tuple(output.name.text if output.name else None for output in block.outputs)
    return results[0] if len(results) == 1 else Results(tuple(results), names)


def _signature(block: syntax.Block) -> Span:
    """The inputs that a block declares; its name where it declares none."""
    return block.inputs[0].span.to(block.inputs[-1].span) if block.inputs else block.name.span


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
        raise Fault(
            "T302",
            f"`{block.name.text}` takes ({names}), and is given {len(positional)} inputs",
            positional[len(block.inputs)].span,
            others=(Label(_signature(block), "declared here"),),
        )
    inputs = {each.name.text: value for each, value in zip(block.inputs, positional, strict=False)}
    settings: dict[str, Given] = {}
    for name, each in given.items():
        if name in parameters:
            settings[name] = each
        elif name in by_name:
            if name in inputs:
                raise Fault("T302", f"`{name}` is given twice", each.at, others=(Label(inputs[name].at, "first here"),))
            inputs[name] = each
        else:
            raise no_parameter(block, block.name.text, (*parameters, *by_name), name, each.at)
    for declared in block.inputs:
        if declared.name.text not in inputs and not declared.optional:
            raise Fault(
                "T302",
                f"`{block.name.text}` needs its input `{declared.name.text}`",
                span,
                others=(Label(declared.name.span, "declared here"),),
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
                raise Fault(
                    "T308",
                    f"`{each.name.text}` is given an input that is not there",
                    given.span if given else span,
                    others=(Label(each.span, "it is not optional"),),
                    help="`given(x)` asks whether an optional input is there",
                )
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


def dtype_of(declared: syntax.TensorType) -> str:
    """The element type of a shape in a signature; raises a fault for a word that is none."""
    if declared.dtype is None:
        return "float"
    if declared.dtype.text not in DTYPES:
        help_ = did_you_mean(declared.dtype.text, DTYPES, "the element types are " + ", ".join(DTYPES))
        raise Fault("T409", f"`{declared.dtype.text}` is no element type", declared.dtype.span, help=help_)
    return declared.dtype.text


def _check_dtype(declared: syntax.Input, tensor: Tensor, span: Span) -> None:
    dtype = dtype_of(declared.type)
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
        wanted = _axis_count(len(extents) - len(open_), bool(open_))
        raise Fault(
            "T402",
            f"`{declared.name.text}` has {wanted}, and {tensor.type} has {len(sizes)}",
            span,
            note=f"this is {tensor.type}",
            others=(Label(declared.type.span, "declared here"),),
        )
    if not open_:
        return list(zip(extents, sizes, strict=True))  # type: ignore[arg-type]
    at, extra = open_[0], len(sizes) - len(extents) + 1
    return list(zip((*extents[:at], *extents[at + 1 :]), (*sizes[:at], *sizes[at + extra :]), strict=True))  # type: ignore[arg-type]


def _axis_count(count: int, at_least: bool) -> str:
    return f"{count} {'or more axes' if at_least else 'axis' if count == 1 else 'axes'}"


def _bind_names(body: Body, declared: syntax.Input, tensor: Tensor, span: Span) -> None:
    for named, size in _axes(declared, tensor, span):
        if isinstance(named, syntax.Path) and len(named.parts) == 1:
            name = named.text
            if name in body.parameters or name in body.env:
                continue
            body.env[name] = size
            body.spans[name] = named.span
            body.frame.names[name] = size  # type: ignore[index]
    for position, extent in enumerate(declared.type.extents):
        if isinstance(extent, syntax.Ellipsis_):
            rest = tensor.type.dims[position : position + len(tensor.type.dims) - len(declared.type.extents) + 1]
            known = body.env.get("...")
            if known is not None and known != rest:
                raise Fault(
                    "T402",
                    f"`...` is both {_shape(known)} and {_shape(rest)}",
                    span,
                    note=f"this is {tensor.type}",
                    others=(Label(body.spans.get("...", extent.span), f"here it is {_shape(known)}"),),
                )
            body.env["..."] = rest
            body.spans.setdefault("...", span)


def _shape(sizes: Sequence[Any]) -> str:
    return "[" + ", ".join(str(size) for size in sizes) + "]"


def _check_extents(body: Body, declared: syntax.Input, tensor: Tensor, span: Span) -> None:
    for axis, (extent, size) in enumerate(_axes(declared, tensor, span)):
        wanted = evaluate(body, extent)
        if not is_size(wanted):
            raise Fault("T408", f"an axis is a size, not {kind_of(wanted)}", extent.span)
        if wanted != size:
            raise _wrong_size(body, declared, axis, extent, wanted, tensor, span)


def _wrong_size(
    body: Body, declared: syntax.Input, axis: int, extent: syntax.Expression, wanted: Any, tensor: Tensor, span: Span
) -> Fault:
    written = extent.span.text
    if isinstance(extent, syntax.Number):
        message = f"axis {axis} of `{declared.name.text}` is {wanted}, and is given {tensor.type}"
    else:
        message = f"axis {axis} of `{declared.name.text}` is `{written}`, which is {wanted}, and is given {tensor.type}"
    fault = Fault("T402", message, span, note=f"this is {tensor.type}", others=(Label(extent.span, "declared here"),))
    made = tensor.node.span
    fault.because(causes(body, extent))
    return fault.because([Label(made, "the input is made here")] if made is not None else [])


def run_block(body: Body, block: syntax.Block, span: Span) -> list[Tensor]:
    """Run the body and check what it returns against the signature."""
    statement = body.run(block.body)
    if statement is None:
        if any(isinstance(each, syntax.Return) for part in block.body for each in part.walk()):
            raise Poisoned  # it stands in a loop, which has been said
        raise Fault("T210", f"`{block.name.text}` returns nothing", block.name.span, help="end it with `return`")
    values: list[tuple[Any, Span]] = []
    for tree in statement.values:
        value = evaluate(body, tree)
        parts = value.tensors if isinstance(value, Results) else (value,)
        values += [(part, tree.span) for part in parts]
    if len(values) != len(block.outputs):
        raise Fault(
            "T302",
            f"`{block.name.text}` declares {_results(len(block.outputs))} and returns {len(values)}",
            statement.span,
            others=(Label(block.outputs[0].span.to(block.outputs[-1].span), "declared here"),),
        )
    body.initialize(block.body)
    return [_result(body, output, value, at) for output, (value, at) in zip(block.outputs, values, strict=True)]


def _results(count: int) -> str:
    return f"{count} result{'s' if count != 1 else ''}"


def _result(body: Body, output: syntax.Output, value: Any, span: Span) -> Tensor:
    tensor = as_tensor(body, value, span)
    dtype = dtype_of(output.type)
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
