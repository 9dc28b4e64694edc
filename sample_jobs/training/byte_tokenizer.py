"""A tokenizer whose token ids are the bytes of the text, in the files transformers reads."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = 256, 257, 258
VOCABULARY = 259
SPECIALS = {BOS: "<bos>", EOS: "<eos>", PAD: "<pad>"}
LONGEST = 512


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Token id = byte value; `<bos>` is put in front of every text."""
    vocabulary = {letter: byte for byte, letter in enumerate(_byte_letters())}
    vocabulary |= {name: token for token, name in SPECIALS.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(list(SPECIALS.values()))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    untyped: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = untyped(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )
    return made


def _byte_letters() -> list[str]:
    """The visible letter that stands for each byte: itself, or one from 256 on if unprintable."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]
