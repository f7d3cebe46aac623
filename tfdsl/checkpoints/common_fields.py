"""Fields that any configuration may have and that change nothing of what a model computes, each with what it is for.

A mapping need not name them; where it does, its rule comes first.
"""

from __future__ import annotations

_FIELDS = {
    "how the file came about": "_name_or_path _commit_hash transformers_version name_or_path",
    "the element type that the weights were saved in": "dtype torch_dtype",
    "classes to load it with": "architectures auto_map",
    "ids of special tokens": "bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id "
    "unk_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id bad_words_ids",
    "what a forward pass returns, and how it runs": "use_cache cache_implementation output_attentions output_hidden_states "
    "output_past return_dict torchscript use_return_dict _attn_implementation attn_implementation chunk_size_feed_forward "
    "gradient_checkpointing pretraining_tp use_bfloat16",
    "how a text is generated": "max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty "
    "temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size num_return_sequences output_scores return_dict_in_generate suppress_tokens "
    "begin_suppress_tokens remove_invalid_values exponential_decay_length_penalty prefix",
    "how new weights are drawn": "initializer_range initializer_factor initializer_std init_std",
    "how a head is trained": "problem_type finetuning_task task_specific_params tokenizer_class",
}
COMMON = {name: why for why, names in _FIELDS.items() for name in names.split()}
