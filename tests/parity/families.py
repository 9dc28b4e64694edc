"""Tiny configurations of the model families that are run, and of those that are refused."""

from __future__ import annotations

from typing import Any

VOCAB = 200
CONTEXT = 512
WINDOW = 8

_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": None,
}
_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": VOCAB, "n_positions": CONTEXT}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
_DEEPSEEK = {key: value for key, value in _SIZES.items() if key != "head_dim"} | {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

# name -> (model_type, what its config is made of)
RUN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _SIZES),
    "llama_yarn": (
        "llama",
        _SIZES
        | {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 128,
            }
        },
    ),
    "qwen2": ("qwen2", _SIZES),
    "qwen3": ("qwen3", _SIZES),
    "qwen3_sliding": (
        "qwen3",
        _SIZES | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "mistral": ("mistral", _SIZES | {"sliding_window": WINDOW}),
    "gemma": ("gemma", _SIZES),
    "gemma2": ("gemma2", _SIZES | {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3_text": (
        "gemma3_text",
        _SIZES | {"sliding_window": WINDOW, "query_pre_attn_scalar": 16, "layer_types": _MIXED},
    ),
    "opt": (
        "opt",
        {
            "hidden_size": 64,
            "ffn_dim": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": VOCAB,
            "max_position_embeddings": CONTEXT,
            "word_embed_proj_dim": 64,
        },
    ),
    "gpt2": ("gpt2", _GPT2),
    "gpt_bigcode": ("gpt_bigcode", _GPT2),
    "gpt_neox": ("gpt_neox", _SIZES),
    "phi": ("phi", _SIZES),
    "phi3": ("phi3", _SIZES | {"original_max_position_embeddings": CONTEXT}),
    "mixtral": ("mixtral", _SIZES | _EXPERTS),
    "gpt_oss": ("gpt_oss", _SIZES | _EXPERTS | {"sliding_window": WINDOW}),
    "olmo2": ("olmo2", _SIZES),
    "olmoe": ("olmoe", _SIZES | _EXPERTS),
    "cohere": ("cohere", _SIZES),
    "cohere2": ("cohere2", _SIZES | {"sliding_window": WINDOW, "layer_types": _MIXED}),
    "granite": ("granite", _SIZES | {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "granitemoe": ("granitemoe", _SIZES | _EXPERTS),
    "starcoder2": ("starcoder2", _SIZES | {"sliding_window": WINDOW}),
    "glm4": ("glm4", _SIZES),
    "smollm3": ("smollm3", _SIZES | {"no_rope_layer_interval": 2}),
    "exaone4": (
        "exaone4",
        _SIZES | {"sliding_window": WINDOW, "sliding_window_pattern": 2, "layer_types": _MIXED},
    ),
    "stablelm": ("stablelm", _SIZES),
    "deepseek_v3": ("deepseek_v3", _DEEPSEEK),
    "qwen3_moe": (
        "qwen3_moe",
        _SIZES | _EXPERTS | {"moe_intermediate_size": 32, "decoder_sparse_step": 1},
    ),
    "nemotron": ("nemotron", _SIZES),
    "phimoe": ("phimoe", _SIZES | _EXPERTS),
    "ministral3": (
        "ministral3",
        _SIZES
        | {
            "sliding_window": None,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 8.0,
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 64,
                "llama_4_scaling_beta": 0.5,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
        },
    ),
}

# Two rotary tables, the second from 64 tokens on; see `test_longrope`.
LONGROPE = (
    "phi3",
    _SIZES
    | {
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 64,
            "short_factor": [1.0] * 8,
            "long_factor": [2.0] * 8,
        },
    },
)

_DYNAMIC_ROPE = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}

_OLD_SIZES = {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": VOCAB}
_LONG_WINDOW = {"sliding_window": 100}

# name -> (model_type, config, words the refusal must contain)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "falcon": (
        "falcon",
        {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": VOCAB,
        },
        "attention interface 0 times",
    ),
    "mamba": ("mamba", _SIZES, "recurrent"),
    "bloom": ("bloom", _OLD_SIZES, "attention interface 0 times"),
    "mpt": (
        "mpt",
        {"d_model": 64, "n_layers": 3, "n_heads": 4, "vocab_size": VOCAB},
        "attention interface 0 times",
    ),
    "dynamic rope": ("llama", _SIZES | _DYNAMIC_ROPE, "dynamic rope"),
    "an encoder": ("bert", _SIZES, "two-way attention"),
    "linear attention": (
        "qwen3_next",
        _SIZES
        | _EXPERTS
        | {
            "num_hidden_layers": 4,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        "hybrid",
    ),
    "two attentions in a layer": ("diffllama", _SIZES, "2 times"),
    "a window in the mask alone": ("phimoe", _SIZES | _EXPERTS | _LONG_WINDOW, "sliding window"),
}

# Their attention goes through the interface from some transformers 5 on, so they may run.
RUN_OR_REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gptj": ("gptj", _GPT2 | {"rotary_dim": 8}, "attention interface 0 times"),
}
