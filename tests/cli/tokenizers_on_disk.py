"""A tokenizer of bytes, saved without torch or transformers."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

CHAT = (
    "{{ bos_token }}{% for message in messages %}\n"
    "    {%- if message.role == 'wizard' %}{{ raise_exception('no magic') }}{% endif %}\n"
    "    {%- generation %}[{{ message.role }}]{{ message.content | trim }}{% endgeneration %}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def save_tokenizer(folder: Path, chat: str | None = None, begin: str | None = None) -> Path:
    """tokenizer.json and its config: a token is a byte; `begin` is put before a plain text."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chat}
    if begin is not None:
        tokenizer.add_special_tokens([AddedToken(begin, special=True)])
        pair = (begin, tokenizer.token_to_id(begin))
        tokenizer.post_processor = processors.TemplateProcessing(f"{begin} $A", None, [pair])
        config["bos_token"] = begin
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
