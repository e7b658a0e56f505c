"""A Llama of a few thousand weights, its tokenizer and data of random words.

Real trainers in milliseconds.
"""

from __future__ import annotations

import random
import tempfile
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_WORDS = (
    "the a cat dog runs jumps over lazy fox moon star blue red green house tree river bird sings sleeps eats fish small "
    "big old new quickly slowly and then"
).split()
_CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 512 tokens with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(0)
    lines = [" ".join(rng.choices(_WORDS, k=12)) for _ in range(500)]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<eos>", "<bos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        model_max_length=256,
    )
    fast.chat_template = _CHAT
    return fast


def tiny_model(
    *, seed: int = 1234, hidden: int = 64, layers: int = 2, dtype: torch.dtype = torch.float32
) -> Any:
    """A Llama with random weights.

    The same for the same seed, whatever the process's random streams.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=hidden,
                intermediate_size=2 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=512,
                max_position_embeddings=256,
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=2,
                attn_implementation="sdpa",
            )
        )
    model.config._name_or_path = "tiny"  # noqa: SLF001 - transformers keeps the name so
    return model.to(dtype)


# As it was recorded in tests/records: a replay refuses a function whose text was changed.
def create_tiny(model_config: dict[str, Any]) -> tuple[Any, Any]:
    """A create_model_fn; ``model_kwargs`` may hold hidden, layers and seed, and quantised (load_in_4bit or load_in_8bit).

    The model is in evaluation mode, as transformers gives one that it loads.
    """
    kwargs = dict(model_config.get("model_kwargs") or {})
    quantised = kwargs.pop("quantised", None)
    model = tiny_model(**kwargs)
    return (model if quantised is None else _quantised(model, quantised)).eval(), tiny_tokenizer()


def _quantised(model: Any, how: str) -> Any:
    """The model as bitsandbytes loads it from a folder."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = {"quant_method": "bitsandbytes", how: True}
        return LlamaForCausalLM.from_pretrained(folder, quantization_config=config)


def text_rows(rows: int, seed: int) -> datasets.Dataset:
    """Rows with a text."""
    rng = random.Random(seed)
    return datasets.Dataset.from_dict(
        {"text": [" ".join(rng.choices(_WORDS, k=rng.randint(5, 25))) for _ in range(rows)]}
    )


def prompt_rows(rows: int, seed: int) -> datasets.Dataset:
    """Rows with a prompt and a completion."""
    rng = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(low, high)))

    pairs = [(words(3, 8), " " + words(3, 15)) for _ in range(rows)]
    return datasets.Dataset.from_dict(
        {"prompt": [p for p, _ in pairs], "completion": [c for _, c in pairs]}
    )


def preference_rows(rows: int, seed: int) -> datasets.Dataset:
    """Rows with what every method trains on.

    A prompt and a completion, the chosen and the rejected one, and a word.
    """
    rng = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(low, high)))

    made = []
    for _ in range(rows):
        chosen, rejected = " " + words(3, 12), " " + words(3, 12)
        made.append(
            {
                "prompt": words(3, 8),
                "completion": chosen,
                "chosen": chosen,
                "rejected": rejected,
                "word": rng.choice(_WORDS),
            }
        )
    return datasets.Dataset.from_list(made)
