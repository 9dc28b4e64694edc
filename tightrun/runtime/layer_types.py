"""What a config says of its layers' attention, held against what their attention calls asked for.

A model may put a sliding window or chunks into its mask and not into the attention call, where
masks are not made. On a batch shorter than the window nothing would differ, and longer texts
would come out silently wrong.
"""

from __future__ import annotations

from typing import Any

from tightrun.policies.shape import ModelShape
from tightrun.runtime.model import ModelRefusedError

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def exact_context(name: str, config: Any, seen: ModelShape) -> int:
    """Tokens up to which attending as the calls asked (`seen`) is attending as the config says.

    Raises ModelRefusedError where a layer may do something else from the start.
    """
    context = seen.context
    if getattr(config, "attn_temperature_tuning", None) and hasattr(config, "floor_scale"):
        raise ModelRefusedError(
            f"{name} cannot be run exactly: its attention scales queries by their place in the "
            "call instead of their position (attn_temperature_tuning)"
        )
    kinds = _layer_types(config, len(seen.layers))
    for layer, (kind, window) in enumerate(
        zip(kinds, (x.window for x in seen.layers), strict=True)
    ):
        if kind == SLIDING and window is None and _window(config) < context:
            raise ModelRefusedError(
                f"{name} cannot be run exactly: layer {layer} has a sliding window that its "
                "attention call does not tell of; if the model's code knows none, remove "
                "sliding_window from config.json (with it `generate` forgets what is further back)"
            )
        if kind == FULL and window is not None and window < context:
            raise ModelRefusedError(
                f"{name} cannot be run exactly: layer {layer} asks for a sliding window, and by "
                "the model's config it has none"
            )
        if kind == CHUNKED:
            context = min(context, int(config.attention_chunk_size))
        elif kind not in (FULL, SLIDING):
            raise ModelRefusedError(
                f"{name} cannot be run: layer {layer} is of the kind {kind!r}; only full, "
                "sliding and chunked attention is supported"
            )
    return context


def _layer_types(config: Any, layers: int) -> list[str]:
    types = getattr(config, "layer_types", None)
    if types is not None:
        return list(types)
    slides = _window(config) > 0 and getattr(config, "use_sliding_window", None) is not False
    return [SLIDING if slides else FULL] * layers


def _window(config: Any) -> int:
    return int(getattr(config, "sliding_window", None) or 0)
