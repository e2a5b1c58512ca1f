"""Language models with random weights, small enough to serve on a CPU.

    python tiny_models.py text|vision FOLDER TEXT...

Run with a Python that has transformers. The tokenizer is trained on the texts, files or folders of Markdown, so that
prompts come to about as many tokens as with a real model.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
_END_OF_TEXT, _END_OF_TURN, _IMAGE = 0, 2, 3
_VOCABULARY = 4096
_CONTEXT = 32768
_PIXELS, _PATCH = 56, 14
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}<image>{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": _CONTEXT,
    "tie_word_embeddings": False,
    "bos_token_id": _END_OF_TEXT,
    "eos_token_id": _END_OF_TURN,
    "pad_token_id": _END_OF_TEXT,
}


def tokenizer(texts: list[Path]) -> Any:
    """A byte-level BPE of these texts; digits are tokens of their own."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE(fuse_unk=False))
    words = pre_tokenizers.Split(Regex(r"\d|[^\s\d]+|\s+"), behavior="isolated")
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    files = [file for text in texts for file in ([text] if text.is_file() else sorted(text.rglob("*.md")))]
    own.train([str(file) for file in files], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=own,
        eos_token=_SPECIAL[_END_OF_TURN],
        pad_token=_SPECIAL[_END_OF_TEXT],
        additional_special_tokens=[_SPECIAL[1], _SPECIAL[_IMAGE]],
    )
    fast.chat_template = _TEMPLATE
    return fast


def make_text(folder: Path, texts: list[Path]) -> None:
    """A Qwen3."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    words = tokenizer(texts)
    words.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(words), **_SHAPE))
    _ended(model).save_pretrained(folder)


def make_vision(folder: Path, texts: list[Path]) -> None:
    """A LLaVA: CLIP's vision before a Llama."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    try:
        from transformers import CLIPImageProcessorPil as Images  # without torchvision
    except ImportError:
        from transformers import CLIPImageProcessor as Images

    words = tokenizer(texts)
    LlavaProcessor(
        image_processor=Images(size={"shortest_edge": _PIXELS}, crop_size={"height": _PIXELS, "width": _PIXELS}),
        tokenizer=words,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        chat_template=_TEMPLATE,
        image_token=_SPECIAL[_IMAGE],
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    eyes = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=_PIXELS,
        patch_size=_PATCH,
        projection_dim=64,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=eyes,
            text_config=LlamaConfig(vocab_size=len(words), **_SHAPE),
            image_token_index=_IMAGE,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )
    _ended(model).save_pretrained(folder)
    # vLLM knows these weights by their older names.
    weights = folder / "model.safetensors"
    named = {
        re.sub(r"(^|\.)vision_tower\.(?!vision_model)", r"\1vision_tower.vision_model.", name): tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(named, weights, {"format": "pt"})


def _ended(model: Any) -> Any:
    model.generation_config.eos_token_id = _END_OF_TURN
    model.generation_config.pad_token_id = _END_OF_TEXT
    return model


if __name__ == "__main__":
    kind, place, *rest = sys.argv[1:]
    {"text": make_text, "vision": make_vision}[kind](Path(place), [Path(text) for text in rest])
