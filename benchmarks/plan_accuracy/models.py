"""Random decoders of several proportions, each as numbers first: what is drawn is reckoned with
before anything is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, MixtralConfig, PretrainedConfig

from benchmarks.random_model import ensure_model

ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder in float32, which every processor multiplies well.

    With `experts`, each token goes through `routed` of them.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int = 4_000
    experts: int = 0
    routed: int = 2

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer's four projections."""
        return 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim

    @property
    def expert_parameters(self) -> int:
        """Weights of one gated feed-forward network."""
        return 3 * self.hidden * self.intermediate

    @property
    def layer_bytes(self) -> int:
        """Bytes of one layer's weights."""
        networks = self.expert_parameters * max(1, self.experts)
        router = self.hidden * self.experts
        norms = 2 * self.hidden
        return ELEMENT_BYTES * (self.attention_parameters + networks + router + norms)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all layers."""
        return self.layers * self.layer_bytes

    @property
    def outer_bytes(self) -> int:
        """Bytes of embedding and head."""
        return 2 * ELEMENT_BYTES * self.hidden * self.vocab

    @property
    def flops_per_token(self) -> float:
        """FLOPs of one token through the layers, without attention."""
        networks = self.expert_parameters * (self.routed if self.experts else 1)
        return 2.0 * self.layers * (self.attention_parameters + networks)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values over all layers."""
        return 2 * ELEMENT_BYTES * self.layers * self.kv_heads * self.head_dim

    def passing_bytes(self, rows: int) -> int:
        """Bytes that a pass of so many rows needs beside weights and KV, generously."""
        widest = max(self.intermediate, self.hidden)
        return rows * (ELEMENT_BYTES * (10 * self.hidden + 4 * widest) + 12 * self.hidden)

    def config(self, context: int) -> PretrainedConfig:
        """The config of transformers; embedding and head are two matrices."""
        told: dict[str, Any] = {
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": context,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "pad_token_id": self.vocab - 2,
            "eos_token_id": self.vocab - 1,
            "dtype": "float32",
        }
        if not self.experts:
            return LlamaConfig(architectures=["LlamaForCausalLM"], **told)
        told |= {"num_local_experts": self.experts, "num_experts_per_tok": self.routed}
        return MixtralConfig(architectures=["MixtralForCausalLM"], **told)


def ensure(shape: Shape, seed: int, workdir: Path) -> Path:
    """The folder of such a model below `workdir`, made if it is not there yet."""
    sizes = "-".join(str(size) for size in asdict(shape).values())
    folder = workdir / f"decoder-{sizes}-seed-{seed}"
    return ensure_model(folder, shape.config(context=4096), seed)
