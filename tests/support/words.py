"""A real tokenizer of few tokens: byte-level BPE, as GPT-2 and its kin have it."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = (
    "how do i bake a cake? tell me about the sea. what a wonderful, happy day! this is terrible. "
    "write a short poem. the cat sat on the mat. why is the sky blue? give me two tips."
)


def byte_level(
    special: Sequence[str], *, length: int = 128, size: int = 400, **settings: Any
) -> PreTrainedTokenizerFast:
    """The special tokens come first, in their order; any text survives it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **settings)
