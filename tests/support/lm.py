"""Language models small enough for a test: real tokenizers and chat template, random weights."""

from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from support.words import byte_level

SPECIAL = ["<|begin|>", "<|end|>", "<|user|>", "<|bot|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|bot|>' }}{{ m.content }}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|bot|>' }}{% endif %}"
)


def tokenizer(template: str | None = TEMPLATE):
    made = byte_level(SPECIAL, length=512, bos_token="<|begin|>", eos_token="<|end|>")
    made.chat_template = template
    return made


def write_lm(folder: Path, *, kind: str = "llama", width: int = 32, seed: int = 0) -> Path:
    """A folder as transformers writes it."""
    words = tokenizer(TEMPLATE if kind == "llama" else None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "llama":
            config = LlamaConfig(
                vocab_size=len(words),
                hidden_size=width,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=512,
                initializer_range=0.3,
            )
            model = LlamaForCausalLM(config)
        else:
            config = GPT2Config(
                vocab_size=len(words), n_embd=width, n_layer=2, n_head=2, n_positions=512
            )
            model = GPT2LMHeadModel(config)
        model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def write_classifier(folder: Path, *, seed: int = 0) -> Path:
    """A reward model: a GPT-2 that reads 48 tokens, without a padding token, with three logits."""
    words = byte_level(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    config = GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=48, num_labels=3
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2ForSequenceClassification(config)
        for p in model.parameters():
            p.data += 0.1 * torch.randn(p.shape)
        model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
