"""The tokenizer of chain problems: one token for a digit, a mark, or an operator with its operand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PADDING: Final = "<pad>"
END: Final = "<eos>"
_UNKNOWN: Final = "<unk>"
_PIECE: Final = r"[-+*][0-9]|."
_TOKENS: Final = (
    *(PADDING, END, _UNKNOWN),
    *"0123456789=#>?",
    *(f"{operator}{operand}" for operator in "+-*" for operand in range(10)),
    "<unused>",  # so that every output of the policy has a text, and none is dropped in silence
)
VOCABULARY: Final = {token: number for number, token in enumerate(_TOKENS)}


def encode(text: str) -> list[int]:
    """Token numbers of a text of the task, as the tokenizer gives them, without importing it.

    Raises:
        KeyError: the text holds something that no chain problem or derivation does.
    """
    return [VOCABULARY[token] for token in re.findall(_PIECE, text)]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; pads on the left, adds nothing to a prompt, and decodes to the exact text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        eos_token=END,
        unk_token=_UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
