"""Published architectures outside the zoo, written from the language reference: each computes what the library's model does.

They are here for their mechanisms. A new one is a spec in `tests/published` and a `Family` below.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_zoo import (
    BELOW_MODEL,
    DECODER,
    ENCODER,
    LENGTH,
    OURS,
    TIED,
    Arrays,
    Family,
    compare_family,
    decoder_inputs,
    encoder_inputs,
    image_inputs,
)

from tfdsl.check import check_file

pytest.importorskip("torch")
pytest.importorskip("transformers")

FOLDER = Path(__file__).parent / "published"
HIDDEN = {"hidden": "last_hidden_state"}
SMALL = {"vocab": 97, "width": 32, "depth": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TABLE = {**TIED, "embed_tokens": "table"}

# Names of encoders that came from BERT.
BERT_LAYER = {
    r"^encoder\.": "",
    r"intermediate\.dense": "mlp.up",
    r"(\d\.)output\.dense": r"\1mlp.down",
    r"(\d\.)output\.LayerNorm": r"\1mlp_norm",
}


def segment_inputs() -> tuple[Arrays, Arrays]:
    """Texts of two segments, without padding."""
    ours, named = decoder_inputs()
    segments = (np.arange(LENGTH) > 6).astype(np.int64)[None].repeat(2, 0)
    return {**ours, "segments": segments}, {**named, "token_type_ids": segments}


def landmark_inputs() -> tuple[Arrays, Arrays]:
    """Of a length that landmarks divide."""
    ours, named = segment_inputs()
    return {name: each[:, :24] for name, each in ours.items()}, {name: each[:, :24] for name, each in named.items()}


def sound_inputs() -> tuple[Arrays, Arrays]:
    sound = np.random.default_rng(3).normal(size=(2, 100))
    return {"sound": sound}, {"input_values": sound}


def pairs_inputs() -> tuple[Arrays, Arrays]:
    """Two texts and three images."""
    tokens = decoder_inputs()[0]["tokens"][:, :12]
    image = np.random.default_rng(3).normal(size=(3, 3, 16, 16))
    return {"tokens": tokens, "image": image}, {"input_ids": tokens, "pixel_values": image}


def perceiver_inputs() -> tuple[Arrays, Arrays]:
    tokens = np.random.default_rng(3).integers(0, 40, (2, 12))
    keep = np.arange(12) < np.array([[12], [7]])
    return {"tokens": tokens, "keep": keep}, {"inputs": tokens, "attention_mask": keep.astype(np.int64)}


def experts_apart(weights: Arrays) -> Arrays:
    """Weights of experts, which the library keeps in one tensor: gate and up together, out before in."""
    found: Arrays = {}
    for name, value in weights.items():
        match = re.fullmatch(r"(.*\.experts)\.(gate_up_proj|down_proj)", name)
        if match is None:
            found[name] = value
            continue
        for number, each in enumerate(value):
            place = f"{match[1]}.{number}"
            if match[2] == "down_proj":
                found[f"{place}.down_proj.weight"] = each
            else:
                found[f"{place}.gate_proj.weight"], found[f"{place}.up_proj.weight"] = np.split(each, 2)
    return found


def experts_transposed(weights: Arrays) -> Arrays:
    """The same with biases, gate and up side by side, and in before out."""
    found: Arrays = {}
    for name, value in weights.items():
        match = re.fullmatch(r"(.*\.experts)\.(gate_up_proj|down_proj)(_bias)?", name)
        if match is None:
            found[name] = value
            continue
        for number, each in enumerate(value):
            kind = "bias" if match[3] else "weight"
            found[f"{match[1]}.{number}.{match[2]}.{kind}"] = each if match[3] else each.T
    return found


def published(file: str, model: str, theirs: str, config: Arrays, sizes: Arrays, rules: Any, **rest: Any) -> Family:
    return Family(str(FOLDER / file), model, theirs, config, sizes, rules, **rest)


FAMILIES = [
    published(
        "bloom.tfm",
        "Bloom",
        "BloomForCausalLM",
        {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4, **IDS},
        {**SMALL, "heads": 4},
        {r"^transformer\.": "", r"word_embeddings\.": "table.", r"\.mlp\.": ".", "lm_head": None},
        inputs=encoder_inputs,
    ),
    published(
        "opt.tfm",
        "OPT",
        "OPTForCausalLM",
        {
            "vocab_size": 97,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "word_embed_proj_dim": 16,
            "max_position_embeddings": 48,
            "do_layer_norm_before": False,
        },
        {**SMALL, "context": 48, "narrow": 16, "heads": 4, "hidden": 48, "pre": False},
        {
            r"^model\.decoder\.": "",
            "lm_head": None,
            "embed_tokens": "table",
            "self_attn_layer_norm": "norm_1",
            r"(layers\.\d\.)final_layer_norm": r"\1norm_2",
            "q_proj": "query",
            "k_proj": "key",
            "v_proj": "value",
            "out_proj": "output",
        },
        inputs=lambda: encoder_inputs(pad=1),
    ),
    published(
        "gemma3.tfm",
        "Gemma3",
        "Gemma3ForCausalLM",
        {
            **DECODER,
            "head_dim": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 8,
            "query_pre_attn_scalar": 24,
        },
        {**OURS, "head": 8, "window": 8, "query_scale": 24, "every": 2},
        TABLE,
    ),
    published(
        "gpt_oss.tfm",
        "GptOss",
        "GptOssForCausalLM",
        {
            **DECODER,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "experts_implementation": "eager",
            "sliding_window": 8,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        },
        {**OURS, "head": 8, "window": 8, "experts": 4, "k": 2},
        BELOW_MODEL,
        change=experts_transposed,
    ),
    published(
        "deepseek_v3.tfm",
        "DeepseekV3",
        "DeepseekV3ForCausalLM",
        {
            **DECODER,
            "num_key_value_heads": 4,
            "num_hidden_layers": 3,
            "q_lora_rank": 12,
            "kv_lora_rank": 10,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 6,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "num_experts_per_tok": 3,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 20,
            "experts_implementation": "eager",
        },
        {
            **SMALL,
            "depth": 3,
            "dense": 1,
            "heads": 4,
            "q_rank": 12,
            "kv_rank": 10,
            "turned": 4,
            "plain": 8,
            "value": 6,
            "hidden": 48,
            "expert_hidden": 20,
            "experts": 8,
            "groups": 4,
            "chosen_groups": 2,
            "k": 3,
        },
        {**BELOW_MODEL, r"gate\.e_score_correction_bias": "bias"},
        change=experts_apart,
    ),
    published(
        "qwen3_next.tfm",
        "Qwen3Next",
        "Qwen3NextForCausalLM",
        {
            **DECODER,
            "head_dim": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 20,
            "experts_implementation": "eager",
            "layer_types": ["linear_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
        },
        {
            **SMALL,
            "every": 2,
            "heads": 4,
            "kv_heads": 2,
            "head": 16,
            "linear_groups": 2,
            "linear_heads": 4,
            "key": 6,
            "value": 8,
            "hidden": 20,
            "experts": 4,
            "k": 2,
        },
        BELOW_MODEL,
        change=experts_apart,
    ),
    published(
        "mamba.tfm",
        "Mamba",
        "MambaForCausalLM",
        {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 6, "time_step_rank": 5, **IDS},
        {**SMALL, "states": 6, "rank": 5},
        {r"^backbone\.": "", "lm_head": None, "embeddings": "table"},
    ),
    published(
        "mamba2.tfm",
        "Mamba2",
        "Mamba2ForCausalLM",
        {
            "vocab_size": 97,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 6,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 16,
            **IDS,
        },
        {**SMALL, "state": 6, "heads": 8, "groups": 2},
        {r"^backbone\.": "", r"mixer\.norm\.weight": "mixer.norm"},
    ),
    published(
        "rwkv.tfm",
        "RWKV",
        "RwkvForCausalLM",
        {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "rescale_every": 0}
        | IDS,
        SMALL,
        {r"^rwkv\.": "", r"blocks\.0\.pre_ln": "pre_ln", r"time_(mix_\w+)": r"\1.part"},
    ),
    published(
        "xlnet.tfm",
        "XLNet",
        "XLNetModel",
        {"vocab_size": 97, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, **IDS},
        {**SMALL, "heads": 4, "hidden": 48},
        {"mask_emb": None},
        inputs=segment_inputs,
        outputs=HIDDEN,
    ),
    published(
        "deberta_v2.tfm",
        "Deberta",
        "DebertaV2Model",
        {
            **ENCODER,
            "relative_attention": True,
            "position_buckets": 8,
            "max_relative_positions": 24,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
        {**SMALL, "heads": 4, "hidden": 48, "buckets": 8, "distance": 24},
        {
            r"embeddings\.LayerNorm": "embeddings_norm",
            r"^encoder\.LayerNorm": "places_norm",
            r"encoder\.rel_embeddings\.weight": "table",
            r"embeddings\.word_embeddings": "word",
            r"attention\.self\.(\w+)_proj": r"attention.\1",
            r"attention\.output\.LayerNorm": "attention_norm",
            r"attention\.output\.dense": "attention.output",
            **BERT_LAYER,
        },
        inputs=encoder_inputs,
        outputs=HIDDEN,
    ),
    published(
        "fnet.tfm",
        "FNet",
        "FNetModel",
        {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, **IDS},
        {**SMALL, "hidden": 48},
        {
            "pooler": None,
            r"embeddings\.LayerNorm": "embeddings_norm",
            r"embeddings\.projection": "projection",
            r"embeddings\.word_embeddings": "word",
            r"embeddings\.position_embeddings": "position",
            r"embeddings\.token_type_embeddings": "segment",
            r"fourier\.output\.LayerNorm": "fourier_norm",
            **BERT_LAYER,
        },
        inputs=segment_inputs,
        outputs=HIDDEN,
    ),
    published(
        "nystromformer.tfm",
        "Nystromformer",
        "NystromformerModel",
        {
            **ENCODER,
            "num_landmarks": 4,
            "segment_means_seq_len": 24,
            "max_position_embeddings": 24,
            "conv_kernel_size": 5,
        },
        {**SMALL, "context": 24, "heads": 4, "hidden": 48, "landmarks": 4, "kernel": 5},
        {
            r"embeddings\.LayerNorm": "embeddings_norm",
            r"embeddings\.(\w+)_embeddings": r"\1",
            "token_type": "segment",
            r"attention\.self": "attention",
            r"attention\.output\.LayerNorm": "attention_norm",
            r"attention\.output\.dense": "attention.output",
            **BERT_LAYER,
        },
        inputs=landmark_inputs,
        outputs=HIDDEN,
    ),
    published(
        "swin.tfm",
        "Swin",
        "SwinModel",
        {"image_size": 32, "patch_size": 2, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        {"size": 32, "patch": 2, "width": 12, "window": 4, "depths": [2, 2], "heads": [2, 4]},
        {
            "pooler": None,
            r"embeddings\.patch_embeddings\.": "",
            r"embeddings\.norm": "embeddings_norm",
            r"^encoder\.": "",
            r"layers\.0\.downsample": "layers.1.downsample",
            "blocks": "stage.blocks",
            "q_proj": "query",
            "k_proj": "key",
            "v_proj": "value",
            "o_proj": "output",
            r"relative_position_bias\.relative_position_bias_table": "table",
            "fc1": "up",
            "fc2": "down",
        },
        inputs=image_inputs,
        outputs=HIDDEN,
    ),
    published(
        "segformer.tfm",
        "SegFormer",
        "SegformerForSemanticSegmentation",
        {
            "depths": [1, 1],
            "num_encoder_blocks": 2,
            "sr_ratios": [4, 1],
            "hidden_sizes": [8, 16],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 12,
            "num_labels": 5,
        },
        {
            "size": 32,
            "widths": [8, 16],
            "depths": [1, 1],
            "patches": [7, 3],
            "strides": [4, 2],
            "heads": [1, 2],
            "reduces": [4, 1],
            "ratio": 2,
            "inner": 12,
            "classes": 5,
        },
        {
            "num_batches": None,
            r"^segformer\.stages\.(\d)\.": r"stages.\1.stage.",
            r"patch_embeddings\.proj": "proj",
            r"patch_embeddings\.layer_norm": "patch_norm",
            r"dwconv\.dwconv": "dwconv",
            r"sequence_reduction\.sequence_reduction": "sequence_reduction",
            r"sequence_reduction\.layer_norm": "reduced_norm",
            r"decode_head\.linear_projections\.(\d)\.proj": r"stages.\1.projection",
            r"decode_head\.": "",
        },
        inputs=image_inputs,
    ),
    published(
        "clip.tfm",
        "CLIP",
        "CLIPModel",
        {
            "text_config": {**ENCODER, "max_position_embeddings": 16, "eos_token_id": 2},
            "vision_config": {**ENCODER, "image_size": 16, "patch_size": 4},
            "projection_dim": 12,
        },
        {
            **SMALL,
            "context": 16,
            "heads": 4,
            "hidden": 48,
            "size": 16,
            "patch": 4,
            "image_width": 32,
            "image_depth": 2,
            "image_heads": 4,
            "image_hidden": 48,
            "shared": 12,
        },
        {
            r"embeddings\.": "",
            "q_proj": "query",
            "k_proj": "key",
            "v_proj": "value",
            "out_proj": "output",
            "fc1": "up",
            "fc2": "down",
        },
        inputs=pairs_inputs,
        outputs={"per_image": "logits_per_image", "text": "text_embeds", "picture": "image_embeds"},
    ),
    published(
        "conformer.tfm",
        "Conformer",
        "Wav2Vec2ConformerModel",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "conv_dim": [16, 16],
            "conv_kernel": [5, 3],
            "conv_stride": [3, 2],
            "num_feat_extract_layers": 2,
            "position_embeddings_type": "relative",
            "feat_extract_norm": "layer",
            "conv_depthwise_kernel_size": 5,
            "hidden_act": "gelu",
        },
        {"width": 32, "depth": 2, "heads": 4, "hidden": 48, "kernel": 5},
        {
            "masked_spec": None,
            "pos_conv": None,
            "num_batches": None,
            "feature_extractor": "stem",
            r"feature_projection\.layer_norm": "projection_norm",
            r"feature_projection\.projection": "projection",
            r"^encoder\.": "",
            r"^layers\.(\d)": r"layers.\1.Layer",
        },
        inputs=sound_inputs,
        outputs=HIDDEN,
    ),
    published(
        "perceiver.tfm",
        "Perceiver",
        "PerceiverForMaskedLM",
        {
            "vocab_size": 40,
            "d_model": 16,
            "d_latents": 24,
            "num_latents": 5,
            "num_self_attends_per_block": 2,
            "num_blocks": 2,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 2,
            "qk_channels": 8,
            "v_channels": 24,
            "max_position_embeddings": 12,
        },
        {
            "vocab": 40,
            "context": 12,
            "width": 16,
            "latents": 5,
            "latent": 24,
            "heads": 2,
            "inner": 8,
            "decoder_inner": 256,
            "decoder_heads": 8,
            "depth": 2,
            "turns": 2,
        },
        {
            r"^perceiver\.": "",
            r"input_preprocessor\.embeddings": "table",
            r"input_preprocessor\.position_embeddings": "position",
            r"embeddings\.latents": "start",
            r"encoder\.cross_attention\.attention\.": "cross.",
            r"encoder\.cross_attention\.layernorm": "cross_norm",
            r"encoder\.cross_attention\.mlp": "cross_mlp",
            r"encoder\.self_attends": "attends.self_attends",
            r"\.self\.": ".",
            r"output\.dense": "output",
            r"decoder\.output_position_encodings\.position_embeddings": "queries",
            r"decoder\.decoding_cross_attention\.attention": "decode",
            r"decoder\.decoding_cross_attention\.layernorm": "decode_norm",
            r"decoder\.decoding_cross_attention\.mlp": "decode_mlp",
            r"embedding_decoder\.bias": "bias",
        },
        inputs=perceiver_inputs,
    ),
]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_published(family: Family, tmp_path: Path) -> None:
    compare_family(family, tmp_path)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.tfm")), ids=lambda path: path.stem)
def test_sound_at_its_published_size(file: Path) -> None:
    """Every spec is compared, and reads without a fault at its defaults, which are those of the paper."""
    assert list(check_file(file).models) == [each.model for each in FAMILIES if Path(each.file) == file]
