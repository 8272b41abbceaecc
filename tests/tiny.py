"""Toy checkpoints of the real architectures and formats, made in code: tokenizers of a few words, models of random
weights. Nothing is downloaded, and nothing is right about what they write but its form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    LEDConfig,
    LEDForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

CORPUS = [
    "Anthony Joshua beat Wladimir Klitschko at Wembley Stadium on Saturday.",
    "Who beat Klitschko? What did Beyoncé O'Neill pay? It was £1,000 in the U.S. and a well-known 3.5% rise.",
    "question: Where did the man live?, answer: the old house | question: When was it?, answer: 1997",
    "generate question and answer: The council approved a new bridge over the River Tay in Perth on Monday.",
]
CHARACTERS = [chr(code) for code in range(33, 127)] + ["£", "é"]
WORDS = sorted(set(re.findall(r"\w+", " ".join(CORPUS))))


def wordpiece() -> PreTrainedTokenizerFast:
    """A BERT-like uncased tokenizer with the embedded checkpoint's `<sep>` and `<hl>`."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<sep>", "<hl>"]
    pieces = [
        *special,
        *CHARACTERS,
        *(f"##{c}" for c in CHARACTERS),
        *(word.lower().replace("é", "e") for word in WORDS),
    ]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        bos_token="[CLS]", eos_token="[SEP]", mask_token="[MASK]", additional_special_tokens=["<sep>", "<hl>"],
        model_max_length=64,
    )  # fmt: skip


def byte_bpe() -> PreTrainedTokenizerFast:
    """A BART-like byte-level tokenizer that merges the words of the corpus."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<sep>"]
    merges = dict.fromkeys(
        (word[:i], word[i]) for w in WORDS if w.isascii() for word in (f"Ġ{w}",) for i in range(1, len(word))
    )
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<sep>"], model_max_length=64,
    )  # fmt: skip


def unigram() -> PreTrainedTokenizerFast:
    """A T5-like SentencePiece tokenizer; its separator is an added token that is not special, as potsawee's may be."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -5.0) for word in WORDS]
    tokenizer = Tokenizer(models.Unigram([*special, ("▁", -6.0), *words, *((c, -9.0) for c in CHARACTERS)], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_tokens([AddedToken("<sep>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )


def _bart_like(kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Any:
    """A model of the BART family at toy size."""
    return kind(
        config(
            vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, init_std=0.3,
            bos_token_id=tokenizer.bos_token_id, forced_eos_token_id=None, **settings,
        )
    )  # fmt: skip


def _t5_like(kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A model of the T5 family at toy size."""
    return kind(
        config(
            vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=4,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=1.5,
        )
    )  # fmt: skip


def _bert_to_bert(tokenizer: PreTrainedTokenizerFast) -> EncoderDecoderModel:
    """An EncoderDecoderModel of two toy BERTs."""
    part = dict(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    decoder = BertConfig(**part, is_decoder=True, add_cross_attention=True)
    config = EncoderDecoderConfig(encoder=BertConfig(**part).to_dict(), decoder=decoder.to_dict())
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model = EncoderDecoderModel(config=config)
    model.generation_config.decoder_start_token_id = 2
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 3
    return model


def _led(tokenizer: PreTrainedTokenizerFast) -> LEDForConditionalGeneration:
    """An LED: its attention has functions of its own, so it falls back to expanding the source."""
    return LEDForConditionalGeneration(
        LEDConfig(
            vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_encoder_position_embeddings=64,
            max_decoder_position_embeddings=64, attention_window=8, pad_token_id=1, eos_token_id=2, bos_token_id=0,
            decoder_start_token_id=2, init_std=0.3,
        )
    )  # fmt: skip


def checkpoint(name: str) -> tuple[Any, PreTrainedTokenizerFast]:
    """A toy model and its tokenizer by architecture: the same weights at every call."""
    torch.manual_seed(7)
    if name == "bart":
        tokenizer = wordpiece()
        return _bart_like(BartForConditionalGeneration, BartConfig, tokenizer, decoder_start_token_id=2), tokenizer
    if name == "bart-bpe":  # starts from </s> and is forced to <s>, as facebook/bart-large
        tokenizer = byte_bpe()
        model = _bart_like(BartForConditionalGeneration, BartConfig, tokenizer, decoder_start_token_id=2)
        model.generation_config.forced_bos_token_id = 0
        return model, tokenizer
    if name == "encoder-decoder":
        tokenizer = wordpiece()
        return _bert_to_bert(tokenizer), tokenizer
    if name == "led":
        tokenizer = byte_bpe()
        return _led(tokenizer), tokenizer
    tokenizer = unigram()
    if name == "t5":
        return _t5_like(T5ForConditionalGeneration, T5Config, tokenizer), tokenizer
    if name == "mt5":
        return _t5_like(MT5ForConditionalGeneration, MT5Config, tokenizer), tokenizer
    if name == "pegasus":
        extra = {"decoder_start_token_id": 0}
        return _bart_like(PegasusForConditionalGeneration, PegasusConfig, tokenizer, **extra), tokenizer
    if name == "marian":
        extra = {"decoder_start_token_id": 0}
        return _bart_like(MarianMTModel, MarianConfig, tokenizer, **extra), tokenizer
    raise ValueError(name)


SHARING = ("bart", "bart-bpe", "t5", "mt5", "pegasus", "marian", "encoder-decoder")
ARCHITECTURES = (*SHARING, "led")


PAIRS = [
    (0, "who beat klitschko?", "anthony joshua"),
    (0, "where did joshua win?", "wembley stadium"),
    (0, "when did joshua win?", "saturday"),
    (1, "what was the price?", "£1,000"),
    (1, "where was it?", "the u.s."),
    (3, "what was approved?", "a new bridge"),
    (3, "where is the bridge?", "perth"),
    (3, "when was it approved?", "monday"),
    (3, "who approved the bridge?", "the council"),
]


def train(model: Any, inputs: dict[str, torch.Tensor], steps: int, *, mode: bool) -> None:
    """Teach a toy by heart, with dropout (`mode` True) or without.

    In float64 on one thread, so that every processor makes the same toy: in float32 the order of sums, which depends on
    the processor, is another toy after some hundred steps, one that writes other things or nothing.
    """
    model.double().train(mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(steps):
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    model.float()


def trained(folder: Path) -> Path:
    """A toy BART taught for a few seconds to write the pairs above from the corpus, as a `from_pretrained` folder."""
    model, tokenizer = checkpoint("bart")
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731  (three uses, one line)
    rows = [(CORPUS[i], [*encode(q), tokenizer.convert_tokens_to_ids("<sep>"), *encode(a), 3]) for i, q, a in PAIRS]
    batch = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
    width = max(len(target) for _, target in rows)
    labels = torch.tensor([target + [-100] * (width - len(target)) for _, target in rows])
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    train(model, inputs, 150, mode=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save(name: str, folder: Path) -> Path:
    """Write a toy checkpoint as a `from_pretrained` folder."""
    model, tokenizer = checkpoint(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
