"""All codes of diagnostics: what each means, what causes it, and what to do. `tfm explain CODE` prints an entry."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from tfdsl.language.diagnostics import did_you_mean, one

_WIDTH = 88


@dataclass(frozen=True)
class Code:
    """One kind of diagnostic: a title, why it comes about and what helps, and a small example of text that has it."""

    title: str
    explanation: str
    example: str = ""


def explain(code: str) -> str:
    """The entry of a code as text for a terminal. Raises `SpecError` for a code that there is none of."""
    name = code.strip().upper()
    known = CODES.get(name)
    if known is None:
        help_ = did_you_mean(name, CODES, "a code stands in the brackets of an error: T401")
        raise one("T903", f"there is no code `{code}`", help=help_)
    parts = [f"{name}: {known.title}", textwrap.fill(known.explanation, _WIDTH)]
    if known.example:
        parts.append(textwrap.indent(known.example, "    "))
    return "\n\n".join(parts)


_FILES = {
    "T001": Code(
        "a file cannot be read",
        "The path names nothing, a folder, a pipe, or something that may not be read. Paths in an "
        "`import` count from the folder of the file that imports.",
    ),
    "T002": Code(
        "a file is too large to be a spec",
        "A spec is text of at most a million bytes. Weights do not belong in it: they are read from safetensors files.",
    ),
    "T003": Code(
        "a file is not UTF-8 text",
        "The first byte that is no UTF-8 is shown. The file is in another encoding, or is no text at all. "
        "Save it as UTF-8.",
    ),
}
_SYNTAX = {
    "T101": Code(
        "unexpected text",
        "The text stops making sense at the place shown; `expected` lists what could have stood there. "
        "The slip may be just before: a missing comma, bracket, `=` or operator, or a misspelt keyword "
        "that was read as a name.",
        "y = linear(x out=4)      # a comma is missing",
    ),
    "T102": Code(
        "unexpected character",
        "A character that has no meaning in the language, or a string that is not closed. Strings take "
        "double quotes and end on the line that they start on; comments start with `#`; nothing ends in "
        "`;`.",
        "require batch > 0, 'no batch'",
    ),
    "T103": Code(
        "the text ends too early",
        "Something is still open at the end: a bracket, a body, or an expression. The bracket that is open is shown.",
        "model M(x: [batch, 4]) -> [batch, 4] { return x",
    ),
    "T104": Code(
        "nested too deeply",
        "Expressions nest at most 120 deep, long chains of operators and of `|>` included. Bind parts to names.",
    ),
    "T105": Code(
        "a number that cannot be",
        "A number has at most 40 characters and is finite.",
        "n = 1e999",
    ),
}
_NAMES = {
    "T201": Code(
        "an unknown name",
        "The name is not bound at this place: it is misspelt, bound only further down or inside a loop, "
        "or belongs to a file that is not imported. A parameter's default sees other parameters and the "
        "sizes of inputs, but no bindings.",
        "return x |> linaer(out=4)",
    ),
    "T202": Code(
        "a file does not declare what is imported",
        "The file was found, but declares no block or model of that name. What it imports itself it does not pass on.",
        'import Atention from "blocks.tfm"',
    ),
    "T203": Code(
        "a name is declared twice",
        "Blocks, models, plans, mappings, parameters, inputs, results and settings have one declaration "
        "each. Rename one.",
        "param width = 4\nparam width = 8",
    ),
    "T204": Code(
        "an import that is not allowed",
        "An import names a .tfm file below the folder of the file that is read (links are followed "
        "first), in `std/` or in `zoo/`. So a spec from a stranger cannot read your files. Move the file, "
        "or read the spec from further up.",
        'import MLP from "../secret.tfm"',
    ),
    "T205": Code(
        "a file imports itself",
        "Imports go round in a circle. Put what both files need into a third.",
    ),
    "T206": Code(
        "too many files",
        "One spec draws in at most 200 files.",
    ),
    "T207": Code(
        "a block cannot be extended",
        "`extends` makes a variant of a model. A block is configured where it is applied: `MLP(x, hidden=8)`.",
        "block Small(x: [batch, 4]) -> [batch, 4] { return x }\nmodel Big extends Small {}",
    ),
    "T208": Code(
        "a model extends itself",
        "Variants extend each other in a circle, or in a chain of more than 50. One must be a model with a body.",
        "model A extends B {}\nmodel B extends A {}",
    ),
    "T209": Code(
        "a name that cannot be bound again",
        "Tensors may be bound again, and a loop carries them from turn to turn. Numbers, parameters, "
        "masks and lists may not: what a name means would depend on where it stands. Use another name.",
        "n = 2\nn = n + 1",
    ),
    "T210": Code(
        "a misplaced or missing return",
        "A body ends with one `return`, and nothing follows it. A loop does not return: it carries what "
        "it binds again.",
    ),
    "T211": Code(
        "a parameter inside a loop",
        "`param` belongs to a block or a model, since it is set once for all turns. A plain binding may "
        "depend on the index.",
        "repeat h[3] {\n  param width = 4\n}",
    ),
    "T212": Code(
        "a block applied inside itself",
        "A spec has no recursion, so that reading it always ends: neither a block that names itself, by "
        "way of others or not, nor blocks nested more than 60 deep. `repeat` says how often something is "
        "done.",
        "block Tree(x: [batch, width]) -> [batch, width] { return x + Tree(x) }",
    ),
}
_VALUES = {
    "T301": Code(
        "the wrong kind of value",
        "A place wants one kind of value (a tensor, a number, true or false, a layer, a mask, an "
        "initialiser) and has another. A layer becomes a tensor when it is applied; `if` chooses by "
        "numbers that are known, `where` by tensors.",
        "y = x + linear(out=4)    # a layer that was not applied",
    ),
    "T302": Code(
        "the wrong inputs or settings",
        "Inputs are given by position, settings by keyword; `help` shows how the op is called. An unknown "
        "keyword, a missing setting, too many inputs, or results that do not match their names end here.",
        "return linear(x, 4)      # linear(x, out=4)",
    ),
    "T303": Code(
        "a number without a value",
        "Division by zero, the root or logarithm of a negative number, or `int` of a number that is not whole.",
        "n = sqrt(-1)",
    ),
    "T304": Code(
        "a number out of range",
        "A size below one, a probability of one or more, an index outside its list, a range that is "
        "empty, and the like. Where the number comes from is shown with it.",
        "y = dropout(x, p=1.5)",
    ),
    "T305": Code(
        "a number or a list that is too large",
        "Numbers are finite; whole numbers go up to 2**53, lists up to 10,000 items. No model needs more, "
        "and a spec from a stranger cannot fill the memory.",
        "n = 10 ** 10 ** 10",
    ),
    "T306": Code(
        "a number that must be known, small and whole",
        "The turns of a loop (10,000 at most, nested ones multiplied), the number of experts (100,000) and the "
        "arguments of functions of numbers are known when the spec is read. Sizes of inputs, as `batch`, are "
        "known at run time only: make it a parameter.",
        "repeat h[10 ** 9] { x = relu(x) }",
    ),
    "T307": Code(
        "a spec that takes too long to read",
        "Reading takes at most 50,000 steps. Blocks that apply others twice, which apply others twice, "
        "double the work at each level; `repeat` of equal turns costs that of one.",
    ),
    "T308": Code(
        "an optional input that was not given",
        "The body uses an input declared with `?` that the caller left out. Ask first: `if given(bias) "
        "then ... else ...`. It may be passed on to an input or operand that is optional too.",
        "block F(x: [batch, 4], bias: [4]?) -> [batch, 4] { return x + bias }",
    ),
    "T309": Code(
        "the wrong kind of parameter",
        "A parameter has the kind that it declares, or else that of its default: int, float, number, "
        "bool, string, layer, mask or list. Tensors are inputs, and stand in the signature.",
        "param heads: int = 2.5",
    ),
    "T310": Code(
        "a requirement that does not hold",
        "A `require` of the block is false for what it was given. The numbers in it are shown where they "
        "come from. What follows in the block relies on it, and is not looked at.",
        'require width % heads == 0, "heads must divide width"',
    ),
    "T311": Code(
        "a parameter that depends on itself",
        "Defaults may name each other in any order, but not in a circle. Give one of them a number.",
        "param heads = width / head\nparam head = width / heads",
    ),
    "T312": Code(
        "a parameter without a value",
        "It has no default, so whoever applies the block sets it: `Attention(x, heads=8)`; for a model, a "
        "variant or `--set heads=8`.",
        "block Attention(x: [batch, seq, width]) -> [batch, seq, width] { param heads: int return x }",
    ),
    "T313": Code(
        "an unknown parameter",
        "Only what is declared with `param` can be set: by a keyword, in a variant, or by `--set`. Plain "
        "bindings are derived; make one a `param` to set it.",
        "model Big extends Small { widht = 8 }",
    ),
    "T314": Code(
        "an unknown optional input",
        "Only inputs declared with `?` can be asked for when a model is loaded.",
    ),
    "T315": Code(
        "no such model",
        "The file declares no model of that name, none at all, or several without saying which. Name it: "
        "FILE.tfm:MODEL. Without a name, the file's one model that extends no other is meant.",
    ),
}
_SHAPES = {
    "T401": Code(
        "shapes that do not go together",
        "The op's rule refuses the shapes that it is given. The operand at fault is marked, and the "
        "places where operands come from are shown with their types. Axes are matched from the last; an "
        "axis of 1 stretches.",
        "return x + linear(x, out=8)    # x is [batch, 4]",
    ),
    "T402": Code(
        "a shape that is not the declared one",
        "A block's input or result, or a tensor that a loop carries, differs from what is declared (or "
        "from what it was before the loop). A name in a signature means one size throughout an "
        "application.",
        "block Up(x: [..., width]) -> [..., width] { return linear(x, out=2 * width) }",
    ),
    "T403": Code(
        "the wrong element type",
        "Elements are `float`, `int` or `bool`. Whole numbers become floats by themselves; `cast(x, "
        'to="int")` converts otherwise, and comparisons give `bool`.',
        "return embedding(x, size=100, dim=8)    # x is [batch, seq] of floats",
    ),
    "T404": Code(
        "a penalty that is not one number",
        "An auxiliary loss is a tensor without axes. `sum` and `mean` take one axis away each.",
        "penalty size = x * x",
    ),
    "T405": Code(
        "a size that is not known to be whole",
        "`/` on sizes is exact or an error. `//` rounds down. For a size that only run time knows, a "
        "`require` promises: after `require seq % 4 == 0`, `seq / 4` is exact.",
        "param head = width / heads    # 768 / 10",
    ),
    "T406": Code(
        "a pattern of axes at fault",
        "A pattern of `rearrange` or `einsum` names every axis once on each side: names, groups in "
        "parentheses, `1` and `...`. In a group, all sizes but one are given: `h=heads`.",
        'return rearrange(x, "b s (h d) -> b h s d")    # neither h nor d is given',
    ),
    "T407": Code(
        "a size that cannot be",
        "A weight has sizes that are known when the spec is read; axes and weights have a largest size, "
        "and none is below one.",
        "return linear(x, out=seq)    # x is [batch, seq]",
    ),
    "T408": Code(
        "a signature at fault",
        "An axis in a signature is a name, a number or arithmetic over them; `...` stands at most once in "
        "a shape, in a result only if an input has it, and never in a model, which names all its axes.",
        "model M(x: [..., 4]) -> [..., 4] { return x }",
    ),
    "T409": Code(
        "an unknown element type",
        "The element types are `float`, `int` and `bool`. How many bits they have is for a target to say.",
        "model M(x: float32[batch, 4]) -> [batch, 4] { return x }",
    ),
    "T410": Code(
        "a layer that cannot be an expert",
        "An expert of `route` sees only the rows that chose it, in no order that it may rely on. It treats each row by "
        "itself: no op in it may sum, sort or compare rows, or ask how many there are, and it has no penalties. Its "
        "weights come into being in the route, one set for each expert: a layer that was bound before has its own place.",
        "y = route(x, chosen, weight, expert=Softmax0, count=8)",
    ),
}
_WEIGHT_PATHS = {
    "T501": Code(
        "two layers at one weight path",
        "A layer's weights lie under its name: that of its binding, of `as name`, or of the op itself. "
        "Two layers with weights in one body need two names. To share the weights, bind the layer once "
        "and apply it twice.",
        "return x |> linear(out=16) |> gelu |> linear(out=4)",
    ),
    "T502": Code(
        "a pattern that matches no weight",
        "`initialize` names weights by their paths, seen from the body that it stands in: `*` is one "
        "part, `**` any number. A `?` at the end is for weights that are not always there.",
        'initialize "h.*.c_prj.weight" = normal(0.01)',
    ),
    "T503": Code(
        "no such weight",
        "`layer.weight` names a weight of a layer that is bound to a name. Most layers have their weights "
        "once they have been applied, since an input says how large they are; an embedding has its table "
        "at once.",
        "return project(x, wte.wieght)",
    ),
    "T504": Code(
        "a second name for a layer",
        "A bound layer is called after its binding, and its weights lie there; `as` names layers that are not bound.",
        "up = linear(out=4)\nreturn up(x) as down",
    ),
    "T505": Code(
        "a shared weight of two shapes",
        "A layer that is bound once and applied twice has one set of weights, which its inputs must agree on.",
        "up = linear(out=4)\nreturn up(x) + up(y)    # x is [batch, 4], y is [batch, 8]",
    ),
}
_PLANS_AND_PASSES = {
    "T601": Code(
        "no such plan",
        "The file has no plan of that name, or it is for another model. A plan for a model also serves "
        "what extends it.",
    ),
    "T602": Code(
        "an unknown pass or option",
        "There is no such pass, or it has no such option, or too many are given or one that it needs is "
        "missing. The help shows how it is called.",
        "optimize { fuse_atention() }",
    ),
    "T603": Code(
        "a value that a pass cannot take",
        "An option has a kind and bounds, which the message names; some do not go together.",
        'optimize { quantize("h.**", bits=7) }',
    ),
    "T604": Code(
        "a pattern of a pass that matches nothing",
        "A pass names weights or loops by their paths: `*` is one part, `**` any number, and a loop's "
        "index is `*`. A pass that would do nothing is an error, so that nothing is left undone in "
        "silence.",
        'optimize { prune("h.*.mpl.*", sparsity=0.5) }',
    ),
    "T605": Code(
        "a graph's text that cannot be read",
        "The text form that `tfm ir` prints is read back for tests of passes. The place shown does not "
        "follow its rules.",
    ),
    "T606": Code(
        "a model too large to unroll",
        "A target without loops has every turn written out, and so many nodes would be more than a "
        "million. Use fewer turns, or a target that keeps loops.",
    ),
    "T609": Code(
        "a graph that breaks a rule",
        "The verifier runs when a graph is made and after each pass. What it finds is a fault of the "
        "compiler, not of the spec: please report it, with the spec.",
    ),
    "T610": Code(
        "a plan of the wrong form",
        "A plan has `train`, `optimize` and `deploy`, each at most once. `train` holds settings, name = "
        "value; `optimize` holds passes in order and `deploy` targets, both written as calls. Nothing is "
        "set twice.",
        "plan fast for M { train { adamw(lr=6e-4) } }    # optimizer = adamw(lr=6e-4)",
    ),
    "T611": Code(
        "an unknown setting of training",
        "`train` knows loss, optimizer, schedule, batch, seq, steps and precision, and for the first "
        "three a list of choices with settings of their own. Nothing is ignored in silence.",
        "train { optimiser = adamw(lr=6e-4) }",
    ),
    "T612": Code(
        "a value that a plan's setting cannot have",
        "Each setting has a kind: whole numbers above zero, rates, pairs, ranges of sizes. The message says which.",
        "train { batch = 2.5 }",
    ),
    "T613": Code(
        "an unknown target in a plan",
        "The targets are torch, onnx and openvino.",
        "deploy { coreml(batch=1) }",
    ),
    "T614": Code(
        "an unknown option of a target",
        "`deploy` fixes or bounds the sizes that the model's inputs leave open, by their names: `onnx(batch=1..64)`.",
        "deploy { onnx(bacth=1) }",
    ),
    "T620": Code(
        "a name mapped twice",
        "Each of their names stands on the left of one rule of a mapping.",
    ),
    "T621": Code(
        "a placeholder or an index at fault",
        "`{i}` in their name stands for a number, and indexes a loop of ours by the same name: every "
        "placeholder is used, and every index is a placeholder or a number.",
        '"layers.{i}.weight" -> h[j].up.weight',
    ),
    "T622": Code(
        "a rule of the wrong form",
        "The right side of a rule for weights is the path of a weight, or a change of layout: transpose, "
        "permute, split, concat, stack. That of a rule for a field is a parameter, `set`, `choose`, "
        "`labels`, `one_of`, `each`, an expression, or `ignored`.",
        '"up.weight" -> tranpose(up.weight)',
    ),
    "T623": Code(
        "a rule for a weight that is not there",
        "The right side names no weight of the model. `tfm show` lists the paths; a loop's `*` is written as an index.",
        '"up.weight" -> up.wieght',
    ),
    "T624": Code(
        "a rule for a parameter that is not there",
        "The field would set a parameter that the model does not have. `tfm show` lists them.",
        '"config.hidden_size" -> widht',
    ),
    "T625": Code(
        "a rule for everything below a name, of the wrong form",
        "A left side that ends with `*` has a path of ours on the right, or `ignored`, or takes in "
        "another mapping: `like(mapping, under=path)`, and `like(mapping)` for fields. The mapping is one "
        "of the file, or imported.",
        '"bert.*" -> like(body, under=bert)',
    ),
    "T626": Code(
        "weights that the rules do not fill",
        "A mapping says of every weight of the model where it is in a checkpoint, in whole and once. Where "
        "parts of it are in several tensors (`split`), all the parts are named.",
    ),
}
_TARGETS = {
    "T701": Code(
        "a file cannot be written",
        "The system refused to write the output. Outputs are written beside their place and moved there "
        "at the end, so that nothing half-written stays behind.",
    ),
    "T702": Code(
        "an output of the wrong kind",
        "A folder is to be written where a file stands, or a file has a name that its target does not read.",
    ),
    "T703": Code(
        "an op that a target cannot hold",
        "The target has no way to say what this op does; the reason is given with its place. Another "
        "target may hold it.",
    ),
    "T704": Code(
        "a size that a build cannot have",
        "`--dim` and plans fix or bound the sizes that a model's inputs leave open, by their names, to "
        "whole numbers above zero.",
    ),
    "T705": Code(
        "inputs that do not fit the model",
        "An input is missing or unknown, has other axes or another element type than the signature says, "
        "or one size is given two values by different inputs.",
    ),
    "T706": Code(
        "sizes that the model does not allow",
        "A `require` about sizes of inputs does not hold for those that are given, or leaves none over. "
        "It is shown with its reason.",
        'require seq <= context, "sequence is longer than the position table"',
    ),
    "T707": Code(
        "an op without a result",
        "The reference was asked for a value that the op does not have for these inputs, such as a row of "
        "a table that is not there.",
    ),
    "T708": Code(
        "no sizes to try a model with",
        "`tfm verify` looks for small sizes that all the `require`s of a model allow, and found none near "
        "those it was asked for.",
    ),
    "T709": Code(
        "a name or structure that a target cannot express",
        "An output is called like an input, a layer takes a name that the target keeps for itself, or a "
        "loop or block has a form that the target cannot write. Rename it, or change what the help says.",
    ),
    "T710": Code(
        "a target that is not installed",
        "The base install has no frameworks. `pip install 'tfdsl[onnx]'` brings what a target needs, and "
        "`tfdsl[all]` all of them.",
    ),
    "T711": Code(
        "a build without weights",
        "This target stores the values of weights: `--weights FILE` reads them, `--seed N` draws initial ones.",
    ),
    "T712": Code(
        "an optimisation that needs the weights' values",
        "Pruning and quantisation are computed from the values of weights when a model is built. Give "
        "weights or a seed.",
    ),
    "T713": Code(
        "sizes given to a target without any",
        "PyTorch takes all sizes from its inputs at run time, and none can be fixed in a build for it.",
    ),
    "T714": Code(
        "an unknown target",
        "The targets are torch, onnx and openvino.",
    ),
    "T715": Code(
        "weights given twice",
        "A file of weights and a seed are two ways to the same thing. Give one of them.",
    ),
    "T716": Code(
        "an unknown element type",
        "Weights are stored as float32, float16 or bfloat16. PyTorch computes in it, ONNX in float16 too (bfloat16 "
        "weights are converted when the model is loaded), and OpenVINO in what its runtime is told.",
    ),
    "T717": Code(
        "nothing that could be linked to",
        "With `--link` an artifact refers to bytes of the checkpoint, which must be there just as the artifact needs "
        "them: in safetensors, of the element type that is asked for, in the same layout, not pruned or quantised. "
        "OpenVINO needs all of them in one file, and PyTorch under the names of the model too.",
    ),
    "T718": Code(
        "a checkpoint that cannot be linked to",
        "A hard link is another name of the same file, and the system gives it on one file system only. Build into a "
        "folder on the one where the checkpoint is, or without `--link`.",
    ),
    "T720": Code(
        "this model cannot decode position by position",
        "A cache holds what earlier positions gave, so each position may depend on those before it and on no later one. "
        "The op at fault lets positions look ahead (attention without a causal mask, a mean over the sequence, a convolution "
        "padded on both sides), asks how long the sequence is, or lays positions out so that they cannot be followed. "
        "Build the model without a cache, or change the op: `mask=causal`, padding in front only, a running sum. "
        "Rotary positions that change once a text is longer than some limit depend on later positions beyond it alone: "
        "build such a model for texts within it (`--longest N`), or, for LongRoPE, with `adaptive=false`.",
    ),
    "T721": Code(
        "an element type that is not counted",
        "The report states bytes for the element types that weights are stored at, which the help lists.",
    ),
    "T722": Code(
        "an unknown size in a report",
        "`--size NAME=N` sets a size that the model's inputs leave open, to a whole number above zero.",
    ),
    "T723": Code(
        "sizes that a report cannot be made at",
        "A `require` of the model does not hold at the sizes that are asked for, or an op would divide unevenly there.",
    ),
    "T731": Code(
        "an unknown format of a drawing",
        "The ending of the file says the format: .dot, .svg, .png or .pdf.",
    ),
    "T732": Code(
        "Graphviz is not installed",
        "Drawings other than .dot are laid out by the program `dot` of Graphviz. Install it, or write a .dot file.",
    ),
    "T733": Code(
        "Graphviz failed",
        "`dot` gave up or took too long. A .dot file shows what it was given; a smaller depth draws less.",
    ),
    "T734": Code(
        "a drawing of no depth",
        "The depth is how many levels of blocks a drawing opens: 1 or more.",
    ),
    "T735": Code(
        "a generator that cannot run the model",
        "A build with a cache can be asked for a folder that a runtime's own generator opens (`--pipeline`). "
        "Some models say what that generator has no word for: a mask or a bias that it would drop, a state that is "
        "no cache of keys and values, inputs beside the tokens. Without the option they are built all the same, "
        "and `decoder.json` says what can run them.",
    ),
    "T736": Code(
        "a tokenizer that OpenVINO cannot take",
        "openvino-genai needs the tokenizer as an OpenVINO model, which the packages `openvino_tokenizers` and "
        "`transformers` make of its files, and they failed. Without `--tokenizer`, the folder takes tokens by number.",
    ),
    "T741": Code(
        "a model that chooses no tokens",
        "Decoding takes tokens, `int[batch, seq]`, and chooses the next from an output of numbers over the "
        "vocabulary, `[batch, seq, vocab]`. The model lacks one of them.",
    ),
    "T742": Code(
        "a folder without a decoder",
        "`tfm run` opens the folder that `tfm build --cache` wrote. What is there was built without a "
        "cache, or is something else.",
    ),
    "T743": Code(
        "a broken decoder",
        "`decoder.json`, which says what a folder holds, or a file that it names is missing, is cut short, was "
        "changed by hand, or was written by another version of tfdsl. Build the folder again.",
    ),
    "T744": Code(
        "an option that does not apply",
        "Some options of a build are about decoding alone, or about one target. One that would say nothing "
        "is refused and not ignored.",
    ),
    "T746": Code(
        "no tokenizer",
        "Text needs a tokenizer: a folder with `tokenizer.json`, given to `tfm build --cache` as "
        "`--tokenizer DIR`, or `bytes` for models of bytes. Without one, tokens are given by number.",
    ),
    "T745": Code(
        "no generator of the runtime's own",
        "`--generator runtime` asks for the loop of the runtime's own package (openvino-genai, "
        "onnxruntime-genai), which is not installed, or cannot run this decoder or do what is asked: several prompts, "
        "further inputs, as many tokens, no end at its token. Ours does all of it.",
    ),
    "T747": Code(
        "a prompt that the decoder cannot take",
        "The prompt is empty, has tokens outside of the vocabulary, or comes with its new tokens to more than "
        "the model's constraints allow; or an input beside the tokens is missing or unknown.",
    ),
    "T748": Code(
        "a way of sampling that there is not",
        "A temperature is 0 (greedy) or above it, `top_k` at least 1, and `top_p` above 0 and at most 1.",
    ),
    "T749": Code(
        "logits that are no numbers",
        "The decoder computed NaN, so that no token is the most likely. Weights may be damaged, or numbers too "
        "large for the element type of the build.",
    ),
    "T750": Code(
        "a target that computes something else",
        "`tfm verify` found a difference, cut the model short until the first node that differs was found, and "
        "shows its place. It is a fault of the target or of its runtime, and no fault of the spec.",
    ),
    "T751": Code(
        "a bound on texts that there cannot be",
        "`--longest N` builds a decoder for texts of at most N positions, prompt and new tokens together. N is a whole "
        "number above zero, and no more than the model's own constraints allow.",
    ),
}
_WEIGHTS = {
    "T801": Code(
        "a weight is missing",
        "The file or mapping lacks a weight of the model. Names near it are suggested; `tfm show` lists all.",
    ),
    "T802": Code(
        "a weight too many",
        "The file or mapping has weights that the model does not have. Nothing is dropped in silence.",
    ),
    "T803": Code(
        "a weight of another shape",
        "The array is not of the shape that the model's weight has. The model's parameters may differ "
        "from the checkpoint's.",
    ),
    "T804": Code(
        "a weight of another element type",
        "Weights are floating-point numbers; what else is stored there is something else.",
    ),
    "T805": Code(
        "a file that is no safetensors file",
        "The file is cut short, damaged, or of another format.",
    ),
    "T806": Code(
        "a file that will not be opened",
        "A pickle (.bin, .pt, .pth) is a program, which runs when it is read. Save the weights as safetensors instead.",
    ),
    "T807": Code(
        "not enough memory",
        "The arrays would not fit into the memory that is free. Use a smaller model of the same "
        "structure, through `--set`.",
    ),
    "T808": Code(
        "a weight that would be stored in two forms",
        "A tied weight is pruned or quantised for one use and not for another. Let the pattern take in every use.",
    ),
    "T809": Code(
        "a number too large for its element type",
        "float16 ends at 65504. bfloat16 reaches as far as float32 does, with fewer digits.",
    ),
    "T810": Code(
        "a folder that is no checkpoint",
        "A checkpoint is a folder with a `config.json` and `model.safetensors`, or shards that "
        "`model.safetensors.index.json` lists. Something there is missing, cut short, or no JSON object.",
    ),
    "T811": Code(
        "a shard outside the folder",
        "The index of a checkpoint names a file that does not lie beside it. Nothing outside the folder is opened.",
    ),
    "T812": Code(
        "a field with a value that does not fit",
        "The configuration lacks a field, or has a value that the mapping does not know, that contradicts "
        "another field, or that the model does not have. The shipped spec cannot say this model, or the "
        "spec is not that of this checkpoint: `tfm import` writes one that is.",
    ),
    "T813": Code(
        "a field that is not understood",
        "No rule of the mapping names the field, so it might change what the model computes. If it does "
        'not, a rule says so: `"config.name" -> ignored`.',
    ),
    "T814": Code(
        "two tensors that should be one",
        "Both are the same weight of the model, a tied one for instance, and they differ; or the model computes "
        "what the checkpoint stores, sinusoids for instance, and comes to other numbers.",
    ),
    "T815": Code(
        "no mapping, or several",
        "Reading or writing a checkpoint needs the mapping of its family, which is chosen by `model_type` and "
        "by other fields that must have a value. The message lists those that are known.",
    ),
    "T816": Code(
        "a model that a configuration cannot describe",
        "A parameter has a value that no field of this family's configuration can express, so a program "
        "that loads the checkpoint would compute something else. Nothing was written.",
    ),
}
_COMMANDS = {
    "T901": Code(
        "a wrong use of the command line",
        "An option or argument is unknown, missing, or of the wrong form. `--help` lists them.",
    ),
    "T902": Code(
        "the system refused",
        "A file could not be opened or written, or there was not enough memory, outside of what other codes say.",
    ),
    "T903": Code(
        "no such code",
        "`tfm explain` takes a code as it stands in the brackets of an error: `tfm explain T401`.",
    ),
}
CODES: dict[str, Code] = {
    **_FILES,
    **_SYNTAX,
    **_NAMES,
    **_VALUES,
    **_SHAPES,
    **_WEIGHT_PATHS,
    **_PLANS_AND_PASSES,
    **_TARGETS,
    **_WEIGHTS,
    **_COMMANDS,
}
