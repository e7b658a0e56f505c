"""Makes the demo's base model and tokenizer.

``python -m rf_notebook.demo.train_base`` (about 10 minutes on 2 cores).

The result is committed in ``assets/``; this script is how it came about and how to make another.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rf_notebook.demo.text import article_lines, support_rows

ASSETS = Path(__file__).parent / "assets"
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SEED = 20
_LENGTH = 96
_BATCH = 32


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 1024 tokens that knows the articles' and the questions' words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [
        *(text for line in article_lines(4000, _SEED) for _, text in line),
        *(row["instruction"] for row in support_rows(1000, _SEED)),
    ]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", model_max_length=256
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """A Llama of 0.9 million weights, untrained."""
    torch.manual_seed(_SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=1,
            attn_implementation="sdpa",
        )
    )


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int) -> None:
    """Next-token prediction on a stream of articles, cosine schedule."""
    stream: list[int] = []
    for line in article_lines(40_000, _SEED + 1):
        for who, text in line:
            spoken = f"<|{who}|>{text}" if who else text
            stream += [*tokenizer(spoken)["input_ids"], tokenizer.eos_token_id]
    tokens_NT = torch.tensor(stream[: len(stream) // _LENGTH * _LENGTH]).view(-1, _LENGTH)
    generator = torch.Generator().manual_seed(_SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(s / 50, 1.0) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * s / steps))),
    )
    model.train()
    for step in range(steps):
        rows = torch.randint(len(tokens_NT), (_BATCH,), generator=generator)
        batch = tokens_NT[rows]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}/{steps}  loss {loss.item():.3f}", flush=True)


def main() -> None:
    """Train and write the assets."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    train(model, tokenizer, steps)
    model.to(torch.bfloat16).save_pretrained(ASSETS)
    tokenizer.save_pretrained(ASSETS)


if __name__ == "__main__":
    main()
