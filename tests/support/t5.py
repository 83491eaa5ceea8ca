"""A tokenizer of T5's kind, which no package here carries."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import T5TokenizerFast

PIECES = ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789.,-<>_", "▁red", "▁apple", "▁blue", "▁car"]


def t5_tokenizer(length: int) -> T5TokenizerFast:
    """Of letters and a few words; an end token and no beginning, as T5 has it."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -float(4 - len(piece.strip("▁")[:3]))) for piece in PIECES]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_ids=0,
        model_max_length=length,
    )
