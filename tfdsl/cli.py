"""The command line: one thin function a command, over the same functions that Python programs call.

Frameworks and NumPy are loaded by `build` and `verify` only; what a command needs beyond the language is imported when
it runs, so that every command answers at once.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tfdsl import __version__
from tfdsl.language.diagnostics import Diagnostic, SpecError
from tfdsl.terminal import FAULTS, Commands, say, show_faults

if TYPE_CHECKING:
    from tfdsl.model import Model

TARGETS = ("torch", "onnx", "openvino")
DTYPES = ("float32", "float16", "bfloat16")
Command = TypeVar("Command", bound=Callable[..., Any])
_MODEL = re.compile(r"(.+):([A-Za-z_]\w*)")
_TOKENS = re.compile(r"\d+(,\d+)*")
_SETTING = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)


def _settings(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """`--set name=value`, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        match = _SETTING.fullmatch(text)
        if match is None or not match[2].strip():
            raise click.BadParameter(f"`{text}` is not of the form name=value", context, option)
        if match[1] in found:
            raise click.BadParameter(f"`{match[1]}` is set twice", context, option)
        found[match[1]] = match[2].strip()
    return found


def with_settings(command: Command) -> Command:
    """The options that say what becomes of a model before anything is done with it."""
    text = "An optional input to have. Repeatable."
    inputs = click.option("--with", "inputs", multiple=True, metavar="INPUT", help=text)
    text = "Set a parameter. Repeatable."
    settings = click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", callback=_settings, help=text)
    return inputs(settings(command))


def with_model(command: Command) -> Command:
    """A model named on the command line, with its settings: `FILE[:MODEL]`."""
    return click.argument("spec", metavar="FILE[:MODEL]")(with_settings(command))


def with_passes(command: Command) -> Command:
    """The options that say which passes run."""
    plan = click.option("--plan", metavar="NAME", help="Run the passes of a plan of the file.")
    text = """Run a pass: --pass 'quantize("h.**", bits=8)'. Repeatable."""
    passes = click.option("--pass", "passes", multiple=True, metavar="CALL", help=text)
    return plan(passes(command))


def with_longest(command: Command) -> Command:
    """The option that bounds the texts of a decoder."""
    text = "Positions in a text at most, prompt and new tokens together.  [what the model takes]"
    return click.option("--longest", type=click.IntRange(1), metavar="N", help=text)(command)


def with_decoding(command: Command) -> Command:
    """The options of a build that say how a decoder is to be."""
    for option in (
        with_longest,
        click.option("--tokenizer", metavar="DIR|bytes", help="Tokenizer files to copy, or text as its UTF-8 bytes."),
        click.option("--pipeline", help="Refuse what this cannot run: stateful, paged (OpenVINO) or genai (ONNX)."),
        click.option("--logits", type=click.Choice(("last", "all")), help="Positions to have logits of.  [last]"),
        click.option("--profile", type=click.Choice(("portable", "ort")), help="Which ONNX operators to use."),
        click.option("--cache", is_flag=True, help="Build a decoder that goes on token by token."),
    ):
        command = option(command)
    return command


def with_dtype(command: Command) -> Command:
    """The option that says which numbers weights are, and computing is done with where the target can."""
    text = "The element type of weights, and of computing where the target has it."
    return click.option("--dtype", type=click.Choice(DTYPES), help=f"{text}  [float32, or the plan's]")(command)


def split_name(spec: str) -> tuple[str, str | None]:
    """`FILE:MODEL` as file and model; a file that is called just so comes first."""
    match = _MODEL.fullmatch(spec)
    if match is None or os.path.exists(spec):
        return spec, None
    return match[1], match[2]


def _load(spec: str, settings: dict[str, str], inputs: tuple[str, ...]) -> Model:
    from tfdsl.model import load

    path, name = split_name(spec)
    return load(path, name, inputs=inputs, settings=settings)


def _optimized(model: Model, plan: str | None, passes: tuple[str, ...], after: str | None = None) -> Model:
    """The model after the passes of a plan, then those given one by one; what each did is told on stderr."""
    if plan is None and not passes and after is None:
        return model
    optimized = model.optimize(*passes, plan=plan, after=after)
    for each in optimized.passes:
        say(str(each))
    return optimized


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="tfm", message="%(prog)s %(version)s")
@click.option("--traceback", is_flag=True, help="Show the whole traceback of a fault of tfm itself.")
def tfm(traceback: bool) -> None:
    """Describe a transformer once, and make everything else from that.

    A model is named FILE.tfm:MODEL, or FILE.tfm alone for the file's one model that extends no other.
    """


@tfm.command()
@click.argument("specs", nargs=-1, required=True, metavar="FILE[:MODEL]...")
@with_settings
@click.option("--json", "as_json", is_flag=True, help="Print the faults as a JSON list.")
def check(specs: tuple[str, ...], settings: dict[str, str], inputs: tuple[str, ...], as_json: bool) -> int:
    """Find every fault in files: in their text, and in all their models with and without optional inputs."""
    from tfdsl.check import check_file, check_model

    found: list[Diagnostic] = []
    for spec in specs:
        path, name = split_name(spec)
        whole = name is None and not settings and not inputs
        report = check_file(path) if whole else check_model(path, name, settings, inputs)
        found += report.faults
        if as_json:
            continue
        if report.faults:
            show_faults(report.faults)
        else:
            click.echo(f"{spec}: {report.summary()}")
    if as_json:
        _print_json([diagnostic.as_json() for diagnostic in found])
    elif found:
        say(f"\n{len(found)} error{'s' if len(found) > 1 else ''} in {', '.join(specs)}")
    return FAULTS if found else 0


@tfm.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", "only_check", is_flag=True, help="Name the files that would change, and exit 1.")
def fmt(files: tuple[str, ...], only_check: bool) -> int:
    """Write files in the one style there is."""
    from tfdsl.files import atomic_file
    from tfdsl.language.parser import read
    from tfdsl.language.printer import format_source

    status = 0
    for file in files:
        try:
            source = read(file)
            text = format_source(source)
        except SpecError as error:
            status = show_faults(error.diagnostics)
            continue
        if text == source.text and not _has_other_newlines(file):
            continue
        click.echo(f"{'would format' if only_check else 'formatted'} {file}")
        if only_check:
            status = FAULTS
            continue
        with atomic_file(file) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    return status


def _has_other_newlines(file: str) -> bool:
    """Whether a file has what reading it takes away: carriage returns, or a byte order mark."""
    with open(file, "rb") as opened:
        data = opened.read()
    return b"\r\n" in data or data.startswith(b"\xef\xbb\xbf")


@tfm.command()
@with_model
def show(spec: str, settings: dict[str, str], inputs: tuple[str, ...]) -> None:
    """Show every parameter with its value and origin, and every weight with its path and shape."""
    from tfdsl.show import describe

    click.echo(describe(_load(spec, settings, inputs)))


@tfm.command()
@with_model
@with_passes
@click.option("--after", metavar="PASS", help="Run passes up to this one: one of the plan's, or this one alone.")
def ir(
    spec: str,
    settings: dict[str, str],
    inputs: tuple[str, ...],
    plan: str | None,
    passes: tuple[str, ...],
    after: str | None,
) -> None:
    """Print the graph as text."""
    from tfdsl.ir.text import print_graph

    model = _optimized(_load(spec, settings, inputs), plan, passes, after)
    click.echo(print_graph(model.graph).rstrip("\n"))


@tfm.command()
@with_model
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="The size called batch.")
@click.option("--seq", type=click.IntRange(1), help="The size of every other axis that only run time knows.")
@click.option("--dtype", default="float32", show_default=True, help="The element type to count bytes for.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def report(
    spec: str, settings: dict[str, str], inputs: tuple[str, ...], batch: int, seq: int | None, dtype: str, as_json: bool
) -> None:
    """Count parameters, the operations of a forward pass, and bytes."""
    made = _load(spec, settings, inputs).report(batch=batch, seq=seq, dtype=dtype)
    if as_json:
        _print_json(made.as_json())
    elif sys.stdout.isatty():
        import rich

        rich.print(made)
    else:
        click.echo(str(made))


@tfm.command()
@with_model
@click.option("-o", "--output", required=True, metavar="OUT.{dot,svg,png,pdf}", help="The file to write.")
@click.option(
    "--depth", type=click.IntRange(1), default=2, show_default=True, help="How many levels of blocks to show."
)
def draw(spec: str, settings: dict[str, str], inputs: tuple[str, ...], output: str, depth: int) -> None:
    """Draw the architecture as a paper would."""
    _load(spec, settings, inputs).draw(output, depth=depth)
    say(f"wrote {output}")


@tfm.command()
@with_model
@with_passes
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="What to build.")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write into.")
@click.option("--weights", metavar="FILE|DIR", help="Weights to build with: safetensors, or a published checkpoint.")
@click.option("--seed", type=click.IntRange(0), help="Build with weights as the initialisers draw them.")
@with_dtype
@click.option("--link", is_flag=True, help="Refer to the checkpoint's own bytes where they are what is needed.")
@with_decoding
def build(
    spec: str,
    settings: dict[str, str],
    inputs: tuple[str, ...],
    plan: str | None,
    passes: tuple[str, ...],
    target: str,
    output: str,
    weights: str | None,
    seed: int | None,
    dtype: str | None,
    link: bool,
    **decoding: Any,
) -> None:
    """Build a model for a target, with weights or (for torch) without."""
    from tfdsl.progress import bar

    if weights is not None and seed is not None:
        raise click.UsageError("--weights and --seed are two ways to the same thing; give one")
    model = _optimized(_load(spec, settings, inputs), plan, passes)
    bounds = model.plan(plan).deploy.get(target, {}) if plan is not None else {}
    sizes = {name: size for name, size in bounds.items() if isinstance(size, int)}  # a range leaves a size open
    dtype = dtype or _planned_dtype(model, plan, target)
    options: dict[str, Any] = {"dims": sizes, "dtype": dtype, "link": link, **decoding}
    with bar(f"writing {output}") as report:
        built = model.build(target, output, weights=weights, seed=seed, report=report, **options)
    for path in built.files:
        click.echo(path)
    if built.left_out:
        say(f"left out, since a decoder has the first output alone: {', '.join(built.left_out)}")
    for pipeline, why in built.pipelines.items():
        say(f"pipeline `{pipeline}`: no, {why}" if why else f"pipeline `{pipeline}`: yes")
    if link:
        say(f"{built.linked:,} bytes of weights stay in {weights}, and were not copied")


def _planned_dtype(model: Model, plan: str | None, target: str) -> str:
    """The element type that a plan asks for, or float32."""
    return model.plan(plan).dtypes.get(target, DTYPES[0]) if plan is not None else DTYPES[0]


@tfm.command()
@with_model
@with_passes
@click.option("--to", "targets", type=click.Choice(TARGETS), multiple=True, help="Only these targets. Repeatable.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For weights and inputs.")
@click.option("--decode", is_flag=True, help="Compare decoders too: call by call, padded on the left, in every form.")
@with_longest
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, help="A batch to try.  [1 and 3]")
@click.option("--seq", "lengths", type=click.IntRange(1), multiple=True, help="A length to try.  [1, 6 and 33]")
@click.option("--tolerance", type=click.FloatRange(0, min_open=True), help="The largest relative error to accept.")
@with_dtype
def verify(
    spec: str,
    settings: dict[str, str],
    inputs: tuple[str, ...],
    plan: str | None,
    passes: tuple[str, ...],
    targets: tuple[str, ...],
    dtype: str | None,
    **options: Any,
) -> int:
    """Run random inputs through the reference and each target, and compare."""
    from tfdsl.verify import render

    model = _optimized(_load(spec, settings, inputs), plan, passes)
    verdict = model.verify(targets or None, dtype=dtype or DTYPES[0], **options)
    click.echo(render(verdict))
    return 0 if verdict.passed else FAULTS


def _rows(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """`--tokens 1,2,3`, each a row."""
    if bad := next((text for text in texts if not _TOKENS.fullmatch(text)), None):
        raise click.BadParameter(f"`{bad}` is not of the form 1,2,3", context, option)
    return tuple(tuple(int(number) for number in text.split(",")) for text in texts)


def _end(context: click.Context, option: click.Parameter, ids: tuple[int, ...]) -> tuple[int, ...] | None:
    """`--eos ID`, or None where the decoder's own are to be used."""
    return ids or None


@tfm.command()
@click.argument("folder", metavar="DIR")
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="Text to go on from. Repeatable: a batch.")
@click.option("--tokens", multiple=True, metavar="1,2,3", callback=_rows, help="Tokens to go on from. Repeatable.")
@click.option("--source", "source_texts", multiple=True, metavar="TEXT", help="Text for an encoder. Repeatable.")
@click.option("--source-tokens", multiple=True, metavar="1,2,3", callback=_rows, help="Tokens for an encoder.")
@click.option(
    "--input", "files", multiple=True, metavar="NAME=FILE.npy", callback=_settings, help="A further input. Repeatable."
)
@click.option("--max-new", type=click.IntRange(1), metavar="N", help="New tokens at most.  [128, or what fits]")
@click.option("--temperature", type=float, help="Sample, with logits divided by this; 0 is greedy.")
@click.option("--top-k", type=int, help="Sample from the K most likely tokens.")
@click.option("--top-p", type=float, help="Sample from the fewest tokens whose probabilities come to P.")
@click.option("--seed", type=click.IntRange(0), help="For sampling.")
@click.option("--eos", type=click.IntRange(0), multiple=True, metavar="ID", callback=_end, help="A token that ends.")
@click.option(
    "--generator",
    type=click.Choice(("auto", "runtime", "own")),
    default="auto",
    show_default=True,
    help="Whose loop: the runtime's own package, or ours.",
)
def run(
    folder: str,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    max_new: int | None,
    eos: tuple[int, ...] | None,
    generator: str,
    **given: Any,
) -> None:
    """Generate with a decoder that `tfm build --cache` made: the continuation, as it comes."""
    from tfdsl.decoding.printing import run_and_print
    from tfdsl.decoding.running import Given, open_runner
    from tfdsl.decoding.sampling import Sampling

    if (given["texts"] and given["tokens"]) or (given["source_texts"] and given["source_tokens"]):
        raise click.UsageError("give text or tokens, not both")
    sampling = Sampling(temperature, top_k, top_p, seed)
    runner = open_runner(folder, generator)
    write = partial(click.echo, nl=False)
    say(run_and_print(runner, Given(**given), write, max_new=max_new, sampling=sampling, eos=eos))


@tfm.command("import")
@click.argument("checkpoint", metavar="DIR")
@click.option("-o", "--output", required=True, metavar="SPEC.tfm", help="The spec to write.")
@click.option("--name", metavar="NAME", help="The name of the model; that of the folder, if none is given.")
def import_(checkpoint: str, output: str, name: str | None) -> None:
    """Write the spec of a published checkpoint: a folder of config.json and safetensors."""
    from tfdsl.checkpoints.importing import import_folder

    made = import_folder(checkpoint, output, name)
    say(f"{made.path}: {made.model} extends {made.base}, with {len(made.settings) or 'no'} parameters of its own")
    if not made.weights:
        say(f"{checkpoint} has no weights; the configuration alone was read")


@tfm.command()
@with_model
@click.option("--weights", required=True, metavar="FILE|DIR", help="Weights, or a checkpoint of the same family.")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write into.")
@click.option("--mapping", metavar="NAME", help="The mapping to use, where the model has several.")
def export(
    spec: str, settings: dict[str, str], inputs: tuple[str, ...], weights: str, output: str, mapping: str | None
) -> None:
    """Write a model as a published checkpoint: config.json and model.safetensors in the naming of its mapping."""
    for path in _load(spec, settings, inputs).export(output, weights=weights, mapping=mapping):
        click.echo(path)


@tfm.command()
@click.argument("code")
def explain(code: str) -> None:
    """Explain the code of an error: what causes it, and what to do."""
    from tfdsl.language.codes import explain as explanation

    click.echo(explanation(code))


def main() -> None:
    """Run the command line, and end the process."""
    # What a command makes lives until it ends: to look for cycles in it over and over is a tenth of a build's time.
    gc.set_threshold(100_000, 50, 50)
    try:
        tfm(prog_name="tfm")
    finally:
        gc.freeze()  # nor does Python then look at all of it once more when it ends


__all__ = ["main", "tfm"]
