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
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from test_zoo import DECODER, ENCODER, FAMILIES, Family, decoder_inputs, encoder_inputs, image_inputs, pair_inputs

import tfdsl
from tfdsl.checkpoints.importing import import_folder
from tfdsl.checkpoints.json_values import same
from tfdsl.checkpoints.reading import read_weights
from tfdsl.language.diagnostics import SpecError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Arrays = dict[str, Any]
Golden = Callable[[str, str], None]

BODY = {"hidden": "last_hidden_state", "pooled": "pooler_output"}
GPT2 = {"vocab_size": 97, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
BERT = {**ENCODER, "layer_norm_eps": 1e-12}
T5 = {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
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
    Family("t5.tfm", "T5", "T5ForConditionalGeneration", T5, {}, {}, pair_inputs),
    Family("vit.tfm", "ViT", "ViTForImageClassification", VIT, {}, {}, image_inputs),
    Family("vit.tfm", "ViT", "ViTForImageClassification", {**VIT, "num_labels": 2}, {}, {}, image_inputs),
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
        theirs = {name: torch.tensor(value).float() if value.dtype == np.float64 else torch.tensor(value) for name, value in named.items()}
        result = model(**theirs)
        wanted = {name: getattr(result, each).numpy() for name, each in family.outputs.items()}
        built = spec.to_torch(weights=tmp_path / "theirs").eval()
        given = [ours[name] for name in (spec.graph.node(place).attributes["name"] for place in spec.graph.inputs)]
        outputs = built(*(torch.tensor(each).float() if each.dtype == np.float64 else torch.tensor(each) for each in given))
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
    special = re.compile(r".*_token_id|_name_or_path|dtype|torch_dtype|initializer_\w+|.*drop\w*|mask_\w+|\w*suppress_tokens")
    harmless = {*NO_INFLUENCE, "label2id", "num_labels"}
    for name, value in model.config.to_dict().items():
        if name not in harmless and not special.fullmatch(name) and value is not None:
            assert again.get(name) == value, name
    import_folder(tmp_path / "back", tmp_path / "again.tfm")
    read_again = tfdsl.load(tmp_path / "again.tfm").parameters
    assert all(same(read_again[name], spec.parameters[name]) for name in read_again)


# Fields that a mapping calls ignored, so that they are not written without a source.
NO_INFLUENCE = {"max_position_embeddings", "classifier_proj_size", "sliding_window", "max_source_positions", "onnx_export"}
