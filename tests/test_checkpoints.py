"""Published checkpoints: imported, built, compared with the library that wrote them, and written back to the bit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_zoo import DECODER, ENCODER, FAMILIES, SPECS, Family, encoder_inputs, image_inputs, pair_inputs, wide

import tfdsl
from tfdsl.checkpoints.configuration import check_values, read_configuration, settle
from tfdsl.checkpoints.family import find_family
from tfdsl.checkpoints.fields import Ignored
from tfdsl.checkpoints.importing import import_folder
from tfdsl.checkpoints.json_values import same
from tfdsl.checkpoints.reading import read_weights
from tfdsl.language.diagnostics import Collector, SpecError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Arrays = dict[str, Any]
Golden = Callable[[str, str], None]

BODY = {"hidden": "last_hidden_state", "pooled": "pooler_output"}
GPT2 = {"vocab_size": 97, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
BERT = {**ENCODER, "layer_norm_eps": 1e-12}
T5 = {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SWITCH = {
    **T5,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "num_sparse_encoder_layers": 2,
    "num_sparse_decoder_layers": 2,
    "num_experts": 4,
    "expert_capacity": 3,
}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 5,
}


def bert_inputs() -> tuple[Arrays, Arrays]:
    return encoder_inputs(segments=True)


# What is not in the list of the zoo: (file, model, their class, configuration, inputs, outputs).
FIRST = [
    Family("gpt2.tfm", "GPT2", "GPT2LMHeadModel", GPT2, {}, {}),
    Family("gpt2.tfm", "GPT2", "GPT2LMHeadModel", {**GPT2, "n_inner": 80, "layer_norm_epsilon": 1e-3}, {}, {}),
    Family("bert.tfm", "Bert", "BertModel", BERT, {}, {}, bert_inputs, BODY),
    Family("bert.tfm", "BertForMaskedLM", "BertForMaskedLM", BERT, {}, {}, bert_inputs),
    Family(
        "bert.tfm",
        "BertForSequenceClassification",
        "BertForSequenceClassification",
        {**BERT, "num_labels": 3},
        {},
        {},
        bert_inputs,
    ),
    Family(
        "bert.tfm", "BertForSequenceClassification", "BertForSequenceClassification", BERT, {}, {}, bert_inputs
    ),  # two classes, which go without saying
    Family("llama.tfm", "Llama", "LlamaForCausalLM", {**DECODER, "rms_norm_eps": 1e-6}, {}, {}),
    *(
        Family(
            "llama.tfm",
            "Llama",
            "LlamaForCausalLM",
            {
                **DECODER,
                "rms_norm_eps": 1e-5,
                "max_position_embeddings": 16,
                "rope_parameters": {"rope_theta": 100.0, "factor": 4.0, **rope},
            },
            {},
            {},
        )
        for rope in (
            {"rope_type": "linear"},
            {"rope_type": "dynamic"},
            {"rope_type": "yarn", "original_max_position_embeddings": 8},
            {"rope_type": "yarn", "original_max_position_embeddings": 8, "beta_fast": 4, "attention_factor": 1.5},
        )
    ),
    Family(
        "qwen2.tfm",
        "Qwen2",
        "Qwen2ForCausalLM",
        {
            **DECODER,
            "rope_parameters": {
                "rope_theta": 1e6,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 8,
            },
        },
        {},
        {},
    ),
    Family("t5.tfm", "T5", "T5ForConditionalGeneration", T5, {}, {}, pair_inputs),
    Family("vit.tfm", "ViT", "ViTForImageClassification", VIT, {}, {}, image_inputs),
    Family("vit.tfm", "ViT", "ViTForImageClassification", {**VIT, "num_labels": 2}, {}, {}, image_inputs),
    Family("mixtral.tfm", "Mixtral_8x7B", "MixtralForCausalLM", {**DECODER, "num_local_experts": 4}, {}, {}),
    Family(
        "switch.tfm", "SwitchTransformer", "SwitchTransformersForConditionalGeneration", SWITCH, {}, {}, pair_inputs
    ),
]
# These are compared in the zoo with inputs that no configuration speaks of.
PLAIN_INPUTS = {
    "Longformer": lambda: encoder_inputs(pad=1, globals=1),
    "BigBird": bert_inputs,
}
EVERY = [
    *FIRST,
    *(replace(each, inputs=PLAIN_INPUTS.get(each.model, each.inputs)) for each in FAMILIES),
]


def published(family: Family, dtype: Any = None) -> Any:
    """A model of the library with random weights."""
    torch.manual_seed(7)
    cls = getattr(transformers, family.theirs)
    model = cls(cls.config_class(**family.config)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                norm = weight.dim() == 1 and name.endswith("weight")
                weight.copy_(torch.randn(weight.shape) * (0.1 if weight.dim() == 1 else 0.2) + norm)
    return model if dtype is None else model.to(dtype)


def stored(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of a folder: element type, shape and bytes."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header, data = json.loads(file.read(size)), file.read()
        for name, entry in header.items():
            if name != "__metadata__":
                start, stop = entry["data_offsets"]
                found[name] = (entry["dtype"], tuple(entry["shape"]), data[start:stop])
    return found


def config(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())


def load_with(spec: Path, inputs: Arrays) -> tfdsl.Model:
    return tfdsl.load(spec, inputs=[name for name in ("segments", "keep") if name in inputs])


def tensor(array: Any) -> Any:
    """An array as a tensor; floats in float32."""
    return torch.tensor(array, dtype=torch.float32 if array.dtype == np.float64 else None)


def compare(found: Mapping[str, Any], wanted: Arrays, keep: Any) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        assert np.abs(value).max() > 0.1, "the comparison would say nothing"
        real = ... if keep is None or value.shape[:2] != keep.shape else keep
        np.testing.assert_allclose(found[name][real], value[real], rtol=0, atol=1e-4 * np.abs(value).max())


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_a_checkpoint_is_imported_built_and_written_back(family: Family, tmp_path: Path) -> None:
    """From shards, through a spec that extends the shipped one, to the library's outputs and its very bits."""
    model = published(family)
    ours, named = family.inputs()
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    made = import_folder(tmp_path / "theirs", tmp_path / "spec.tfm")
    assert f'from "zoo/{family.file}"' in (tmp_path / "spec.tfm").read_text()
    assert made.weights
    spec = load_with(tmp_path / "spec.tfm", ours)
    with torch.no_grad():
        result = model(**{name: tensor(value) for name, value in named.items()})
        wanted = {name: getattr(result, each).numpy() for name, each in family.outputs.items()}
        built = spec.to_torch(weights=tmp_path / "theirs").eval()
        given = [ours[name] for name in (spec.graph.node(place).attributes["name"] for place in spec.graph.inputs)]
        outputs = built(*map(tensor, given))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    compare(dict(zip(wanted, (each.numpy() for each in outputs), strict=True)), wanted, ours.get("keep"))

    spec.export(tmp_path / "back", weights=tmp_path / "theirs")
    assert stored(tmp_path / "back") == stored(tmp_path / "theirs")
    assert config(tmp_path / "back") == config(tmp_path / "theirs")


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_weights_under_our_names_are_written_as_a_checkpoint(family: Family, tmp_path: Path) -> None:
    """Without the folder that they came from: the library reads what is written, and has the same model."""
    model = published(family)
    model.save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "spec.tfm")
    spec = tfdsl.load(tmp_path / "spec.tfm")
    weights = dict(read_weights(tmp_path / "theirs", spec))
    tfdsl.weights.write(tmp_path / "ours.safetensors", weights)
    spec.export(tmp_path / "back", weights=tmp_path / "ours.safetensors")
    ignored = {"model.encoder.embed_positions.weight"}  # sinusoids
    wanted = {name: each for name, each in stored(tmp_path / "theirs").items() if name not in ignored}
    assert stored(tmp_path / "back") == wanted
    again = type(model.config).from_pretrained(tmp_path / "back").to_dict()
    special = re.compile(
        r".*_token_id|_name_or_path|dtype|torch_dtype|initializer_\w+|.*drop\w*|mask_\w+|\w*suppress_tokens"
    )
    harmless = {*NO_INFLUENCE, "label2id", "num_labels"}
    for name, value in model.config.to_dict().items():
        if name not in harmless and not special.fullmatch(name) and value is not None:
            assert again.get(name) == value, name
    import_folder(tmp_path / "back", tmp_path / "again.tfm")
    read_again = tfdsl.load(tmp_path / "again.tfm").parameters
    assert all(same(read_again[name], spec.parameters[name]) for name in read_again)


# Fields that a mapping calls ignored, so that they are not written without a source.
NO_INFLUENCE = {
    "max_position_embeddings",
    "classifier_proj_size",
    "sliding_window",
    "max_source_positions",
    "onnx_export",
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("family", [FIRST[0], FIRST[13]], ids=str)
def test_files_are_written_back_to_the_bit(family: Family, dtype: Any, tmp_path: Path) -> None:
    """Transposed weights and weights in parts, in every element type: both files are those that were read."""
    published(family, dtype).save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "spec.tfm")
    tfdsl.load(tmp_path / "spec.tfm").export(tmp_path / "back", weights=tmp_path / "theirs")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("place", [0, 2, 6, 8, 12, 13])
def test_a_checkpoint_runs_on_other_targets(place: int, target: str, tmp_path: Path) -> None:
    from tfdsl.build import session

    family = FIRST[place]
    model = published(family)
    ours, named = family.inputs()
    model.save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "spec.tfm")
    spec = load_with(tmp_path / "spec.tfm", ours)
    with torch.no_grad():
        result = model(**{name: tensor(value) for name, value in named.items()})
    wanted = {name: getattr(result, each).numpy() for name, each in family.outputs.items()}
    given = {name: value.astype(np.float32) if value.dtype == np.float64 else value for name, value in ours.items()}
    found = session(spec.graph, target, read_weights(tmp_path / "theirs", spec), tmp_path)(given)
    compare(found, wanted, ours.get("keep"))


# --- old files, and what may be written in other ways ----------------------------------------------------------------


@pytest.fixture
def gpt2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small GPT-2 in `theirs`, below the folder that the test is in."""
    monkeypatch.chdir(tmp_path)
    published(FIRST[0]).save_pretrained("theirs")
    return Path("theirs")


def change_config(folder: Path, **fields: Any) -> None:
    """Set fields; those that are set to `...` are taken out."""
    found = {**config(folder), **fields}
    text = json.dumps({name: value for name, value in found.items() if value is not ...})
    (folder / "config.json").write_text(text)


def change_weights(folder: Path, change: Callable[[Arrays], Arrays]) -> None:
    path = folder / "model.safetensors"
    save_file(change(dict(load_file(path))), path)


def test_a_released_file_with_its_masks_and_copies_is_understood(gpt2: Path) -> None:
    """GPT-2 was released without a prefix, with its causal masks, and with fewer fields."""

    def as_released(weights: Arrays) -> Arrays:
        found = {name.removeprefix("transformer."): value for name, value in weights.items()}
        mask = np.tri(32, dtype=np.float32)[None, None]
        return {**found, "h.0.attn.bias": mask, "h.1.attn.bias": mask, "lm_head.weight": found["wte.weight"]}

    change_weights(gpt2, as_released)
    kept = ("model_type", "architectures", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    change_config(gpt2, **{name: ... for name in config(gpt2) if name not in kept}, n_ctx=32)
    import_folder(gpt2, "spec.tfm")
    spec = tfdsl.load("spec.tfm")
    spec.export("back", weights=gpt2)
    assert stored(Path("back")) == stored(gpt2)
    assert config(Path("back")) == config(gpt2)
    tfdsl.weights.write("ours.safetensors", read_weights(gpt2, spec))
    spec.export("plain", weights="ours.safetensors")
    assert all(name.startswith("transformer.") for name in stored(Path("plain")))
    assert config(Path("plain"))["torch_dtype"] == "float32"


def test_norms_under_their_old_names(tmp_path: Path) -> None:
    model = published(FIRST[2])
    model.save_pretrained(tmp_path / "theirs")
    renames = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def old(name: str) -> str:
        for new, before in renames.items():
            name = name.replace(new, before)
        return name

    change_weights(tmp_path / "theirs", lambda weights: {old(name): value for name, value in weights.items()})
    import_folder(tmp_path / "theirs", tmp_path / "spec.tfm")
    weights = read_weights(tmp_path / "theirs", tfdsl.load(tmp_path / "spec.tfm"))
    assert np.array_equal(weights["embeddings_norm.weight"], model.embeddings.LayerNorm.weight.detach().numpy())


def test_rotary_positions_as_they_were_written_before(tmp_path: Path) -> None:
    """`rope_theta` and `rope_scaling` of older releases say the same as `rope_parameters`."""
    family = next(each for each in FAMILIES if each.model == "Llama3_1_8B")
    published(family).save_pretrained(tmp_path / "theirs")
    rope = config(tmp_path / "theirs")["rope_parameters"]
    theta = rope.pop("rope_theta")
    import_folder(tmp_path / "theirs", tmp_path / "new.tfm")
    change_config(tmp_path / "theirs", rope_parameters=..., rope_theta=theta, rope_scaling=rope)
    import_folder(tmp_path / "theirs", tmp_path / "old.tfm")
    assert (tmp_path / "new.tfm").read_text() == (tmp_path / "old.tfm").read_text()


@pytest.mark.parametrize(
    ("model", "given", "added"),
    [
        ("Llama_1", {"type": "linear", "factor": 4.0}, {}),
        ("Llama_2", {"type": "dynamic", "factor": 4.0}, {"max_position_embeddings": 16}),
        (
            "Phi3_2",
            {"type": "su", "short_factor": [1.0, 1.1, 1.25, 1.5], "long_factor": [1.5, 3.0, 6.25, 9.0]},
            {"max_position_embeddings": 128, "original_max_position_embeddings": 16},
        ),
    ],
)
def test_longer_contexts_as_they_were_written_before(
    model: str, given: dict[str, Any], added: dict[str, Any], tmp_path: Path
) -> None:
    """The layer that is chosen, with the settings that older files have elsewhere and under other names."""
    name, _, place = model.partition("_")
    family = [each for each in EVERY if each.model == name][int(place)]
    published(family).save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "new.tfm")
    change_config(tmp_path / "theirs", rope_parameters=..., rope_theta=100.0, rope_scaling=given, **added)
    import_folder(tmp_path / "theirs", tmp_path / "old.tfm")
    new, old = (tfdsl.load(tmp_path / f"{each}.tfm").parameters for each in ("new", "old"))
    assert all(same(new[each], old[each]) for each in new)


def test_the_configuration_of_a_model_for_long_contexts_is_that_of_the_zoo(tmp_path: Path) -> None:
    rotary = tfdsl.load(SPECS / "phi3.tfm", "Phi3_Mini_128k").parameters["rotary"]
    short, long = (list(rotary.given[name].value) for name in ("short", "long"))
    (tmp_path / "128k").mkdir()
    fields = {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        **wide(3072, 32, 32, 8192, vocab_size=32_064, num_key_value_heads=32, rms_norm_eps=1e-5),
        "max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4096,
        "rope_scaling": {"long_factor": long, "short_factor": short, "type": "longrope"},
        "sliding_window": 262_144,
    }
    (tmp_path / "128k" / "config.json").write_text(json.dumps(fields))
    made = import_folder(tmp_path / "128k", tmp_path / "spec.tfm")
    assert (made.base, made.settings) == ("Phi3_Mini_128k", ())


def test_a_table_of_its_own_that_the_configuration_does_not_know(tmp_path: Path) -> None:
    """T5 1.1 as newer releases write it: tied, it says, with an output layer that is not the token table."""
    family = next(each for each in FAMILIES if each.model == "T5_v11")
    model = published(family)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(97, 32) * 0.2)
    model.save_pretrained(tmp_path / "theirs")
    assert config(tmp_path / "theirs")["tie_word_embeddings"] is True
    import_folder(tmp_path / "theirs", tmp_path / "spec.tfm")
    ours, named = family.inputs()
    spec = load_with(tmp_path / "spec.tfm", ours)
    assert spec.parameters["tied"] is False
    with torch.no_grad():
        wanted = model(**{name: tensor(value) for name, value in named.items()}).logits.numpy()
        built = spec.to_torch(weights=tmp_path / "theirs").eval()
        found = built(*(tensor(ours[spec.graph.node(place).attributes["name"]]) for place in spec.graph.inputs))
    compare({"logits": found.numpy()}, {"logits": wanted}, None)
    spec.export(tmp_path / "back", weights=tmp_path / "theirs")
    assert stored(tmp_path / "back") == stored(tmp_path / "theirs")
    assert config(tmp_path / "back") == config(tmp_path / "theirs")


def test_one_number_may_stand_for_the_windows_of_all_layers(tmp_path: Path) -> None:
    family = next(each for each in FAMILIES if each.model == "Longformer")
    published(family).save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "list.tfm")
    change_config(tmp_path / "theirs", attention_window=8)
    import_folder(tmp_path / "theirs", tmp_path / "number.tfm")
    assert (tmp_path / "list.tfm").read_text() == (tmp_path / "number.tfm").read_text()
    tfdsl.load(tmp_path / "number.tfm").export(tmp_path / "back", weights=tmp_path / "theirs")
    assert config(tmp_path / "back") == config(tmp_path / "theirs")
    change_config(tmp_path / "theirs", attention_window=[8, 16])
    with pytest.raises(SpecError, match="attention_window"):
        import_folder(tmp_path / "theirs", tmp_path / "two.tfm")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_sinusoids_must_be_those_that_are_computed(dtype: Any, tmp_path: Path) -> None:
    family = next(each for each in FAMILIES if each.model == "Whisper")
    config = {**family.config, "max_source_positions": 1500}
    model = published(replace(family, config=config), dtype)
    model.save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "spec.tfm")
    with torch.no_grad():
        model.model.encoder.embed_positions.weight[17, 3] += 0.1
    model.save_pretrained(tmp_path / "changed")
    with pytest.raises(SpecError, match=r"embed_positions.weight` is not what `sinusoidal_halves` computes"):
        import_folder(tmp_path / "changed", tmp_path / "spec.tfm")


def test_the_shortest_spec_is_written(tmp_path: Path) -> None:
    """A variant of the zoo that says more of it, and nothing besides."""
    folder = tmp_path / "llama 3.2"
    folder.mkdir()
    llama = transformers.LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=8192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )
    llama.save_pretrained(folder)
    made = import_folder(folder, tmp_path / "spec.tfm")
    assert (made.model, made.base, made.settings, made.weights) == ("llama_3_2", "Llama3_2_1B", (), False)
    assert import_folder(folder, tmp_path / "spec.tfm", "Mine").model == "Mine"
    assert tfdsl.load(tmp_path / "spec.tfm").parameters["factor"] == 32


@pytest.mark.parametrize("family", EVERY, ids=str)
def test_absence_means_what_it_means_to_the_library(family: Family, tmp_path: Path) -> None:
    """A field that a rule allows to be absent: the library's default for it says the same as absence does to us."""
    model = published(family)
    cls = type(model.config)
    model.save_pretrained(tmp_path)
    full = config(tmp_path)
    found = find_family(full)
    rules = found.rules().fields

    def parameters(fields: dict[str, Any]) -> dict[str, Any]:
        faults = Collector()
        read = read_configuration(fields, rules, found.declared, faults).parameters()
        settle(read)
        check_values(fields, rules, read, faults)
        faults.check()
        return dict(read)

    for rule in rules:
        for name in rule.path.spellings():
            if not (rule.path.optional and name in full) or isinstance(rule.form, Ignored):
                continue
            if name == "original_max_position_embeddings" and name in full["rope_parameters"]:
                continue  # the library takes what it assumes in its absence for more than what is said below
            less = {field: value for field, value in full.items() if field != name}
            absent, said = parameters(less), cls.from_dict(dict(less)).to_dict().get(name)
            present = parameters({**less, name: said})
            assert all(same(absent[each], present[each]) for each in absent), (name, said)


# --- what is refused -------------------------------------------------------------------------------------------------


def unknown_fields(folder: Path) -> None:
    change_config(folder, sparse=True, nested={"deep": [1, 2]}, scale_attn_weights=False, n_layer="two")


def unknown_weights(folder: Path) -> None:
    def added(weights: Arrays) -> Arrays:
        extra = {f"transformer.h.{i}.attn.q_norm.weight": np.ones(8, np.float32) for i in range(2)}
        del weights["transformer.wpe.weight"]
        return {**weights, **extra, "transformer.h.2.ln_1.bias": np.ones(32, np.float32)}

    change_weights(folder, added)


def misshapen(folder: Path) -> None:
    def changed(weights: Arrays) -> Arrays:
        weights["transformer.wte.weight"] = weights["transformer.wte.weight"].T.copy()
        weights["transformer.ln_f.bias"] = weights["transformer.ln_f.bias"].astype(np.int64)
        return weights

    change_weights(folder, changed)


def differing_copies(folder: Path) -> None:
    change_weights(folder, lambda weights: {**weights, "lm_head.weight": weights["transformer.wte.weight"] * 2})


def no_model_type(folder: Path) -> None:
    change_config(folder, model_type="gpt3")


def broken_configuration(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_layer": NaN}')


def fields_twice(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_layer": 2, "n_layer": 3}')


def no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


def not_divisible(folder: Path) -> None:
    change_config(folder, n_head=5)


def disagreeing_fields(folder: Path) -> None:
    change_config(folder, resid_pdrop=0.2, n_ctx=64)


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


BROKEN = [
    unknown_fields,
    unknown_weights,
    misshapen,
    differing_copies,
    no_model_type,
    broken_configuration,
    fields_twice,
    no_configuration,
    not_divisible,
    disagreeing_fields,
    cut_short,
    only_pickles,
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.__name__)
def test_a_broken_checkpoint_is_refused(broken: Callable[[Path], None], gpt2: Path, golden: Golden) -> None:
    broken(gpt2)
    with pytest.raises(SpecError) as caught:
        import_folder(gpt2, "spec.tfm")
    assert not Path("spec.tfm").exists()
    golden(f"checkpoints/{broken.__name__}.txt", f"{caught.value}\n")


def sharded(folder: Path) -> dict[str, Any]:
    published(FIRST[0]).save_pretrained(folder, max_shard_size="60KB")
    return json.loads((folder / "model.safetensors.index.json").read_text())


def write_index(folder: Path, index: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def shard_outside(folder: Path) -> None:
    index = sharded(folder)
    (folder / sorted(index["weight_map"].values())[0]).rename(folder.parent / "x.safetensors")
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../x.safetensors")
    write_index(folder, index)


def shard_cut_short(folder: Path) -> None:
    path = folder / sorted(sharded(folder)["weight_map"].values())[-1]
    path.write_bytes(path.read_bytes()[:-8])


def shard_missing(folder: Path) -> None:
    (folder / sorted(sharded(folder)["weight_map"].values())[0]).unlink()


def index_wrong(folder: Path) -> None:
    index = sharded(folder)
    first, last = sorted(index["weight_map"])[0], sorted(index["weight_map"])[-1]
    index["weight_map"][first] = index["weight_map"][last]
    index["weight_map"]["more"] = index["weight_map"].pop(last)
    write_index(folder, index)


def index_of_nothing(folder: Path) -> None:
    sharded(folder)
    write_index(folder, {"weight_map": [1, 2]})


@pytest.mark.parametrize(
    "broken",
    [shard_outside, shard_cut_short, shard_missing, index_wrong, index_of_nothing],
    ids=lambda each: each.__name__,
)
def test_broken_shards_are_refused(
    broken: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("theirs").mkdir()
    broken(Path("theirs"))
    with pytest.raises(SpecError) as caught:
        import_folder("theirs", "spec.tfm")
    golden(f"checkpoints/{broken.__name__}.txt", f"{caught.value}\n")


def test_weights_must_be_of_the_model(gpt2: Path, golden: Golden) -> None:
    """The configuration says other things than the spec; what is set from outside is so on purpose."""
    import_folder(gpt2, "spec.tfm")
    Path("spec.tfm").write_text(Path("spec.tfm").read_text().replace("heads = 4", "heads = 8\n  eps = 1e-3"))
    with pytest.raises(SpecError) as caught:
        read_weights(gpt2, tfdsl.load("spec.tfm"))
    golden("checkpoints/other_model.txt", f"{caught.value}\n")
    assert len(read_weights(gpt2, tfdsl.load("spec.tfm", heads=2, eps=1e-5))) == 28


def test_a_model_without_mapping(gpt2: Path, golden: Golden) -> None:
    Path("spec.tfm").write_text("model M(x: [batch, 4]) -> [batch, 4] {\n  return linear(x, out=4) as up\n}\n")
    with pytest.raises(SpecError) as caught:
        read_weights(gpt2, tfdsl.load("spec.tfm"))
    golden("checkpoints/no_mapping.txt", f"{caught.value}\n")


def test_a_model_that_no_configuration_describes(gpt2: Path, golden: Golden) -> None:
    """What it cannot say is an error, and never dropped."""
    family = next(each for each in FAMILIES if each.model == "Mistral")
    published(family).save_pretrained("mistral")
    import_folder("mistral", "spec.tfm")
    spec = tfdsl.load("spec.tfm", settings={"mask": "causal & window(window) & prefix(2)"})
    with pytest.raises(SpecError) as caught:
        spec.export("back", weights="mistral")
    assert not Path("back").exists()
    golden("checkpoints/not_described.txt", f"{caught.value}\n")


def test_commands(gpt2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tfdsl.cli import tfm

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            tfm.main([*arguments], prog_name="tfm")
        return ended.value.code  # type: ignore[return-value]

    assert run("import", "theirs", "-o", "spec.tfm", "--name", "Tiny") == 0
    assert "Tiny extends GPT2" in capsys.readouterr().err
    assert run("build", "spec.tfm", "--to", "torch", "--weights", "theirs", "-o", "built") == 0
    assert run("export", "spec.tfm", "--weights", "built/model.safetensors", "-o", "back") == 0
    assert stored(Path("back")) == stored(gpt2)
    assert run("export", "spec.tfm", "--weights", "theirs", "-o", "back", "--mapping", "gtp2") == 1
    assert "gpt2" in capsys.readouterr().err
    assert run("import", "theirs", "-o", "spec.tfm", "--name", "GPT2") == 1
    assert run("import", "nowhere", "-o", "spec.tfm") == 1
