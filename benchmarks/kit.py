"""The search benchmarks' data: harder than the demo's, so that configs differ by more than chance.

The support sees a customer's file and repeats what is in it, which the base, of 0.9 million weights,
does not know how to do. Until version 0.1.0 the demo was this; ``demo/train_base.py`` of that time
(commit 698e888) made the base in ``assets``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoModelForCausalLM, AutoTokenizer

from rf_notebook.demo import format_row
from rf_notebook.demo.text import INTENTS, Facts, facts

_ASSETS = Path(__file__).parent / "assets"

_ANSWERS: dict[str, Callable[[Facts], str]] = {
    "track_order": lambda f: (
        f"Order {f.order} is on its way to {f.city} and will arrive on {f.day}. Thank you for your patience, {f.name}."
    ),
    "cancel_order": lambda f: (
        f"I have cancelled order {f.order}. The {f.amount} euros will be back on your {f.payment} by {f.day}, {f.name}."
    ),
    "return_item": lambda f: (
        f"I am sorry to hear that, {f.name}. Please print the return label for order {f.order} and bring the {f.product} to any shop within {f.count} weeks."
    ),
    "get_refund": lambda f: (
        f"The refund of {f.amount} euros for order {f.order} was sent to your {f.payment} on {f.day}. It takes up to {f.count} days, {f.name}."
    ),
    "change_address": lambda f: (
        f"Done, {f.name}. Order {f.order} will go to your new address in {f.city} and will arrive on {f.day}."
    ),
    "payment_issue": lambda f: (
        f"I have checked the {f.payment} payment of {f.amount} euros for order {f.order}. It is settled now, {f.name}, and nothing more will be charged."
    ),
    "product_question": lambda f: (
        f"Yes, {f.name}, the {f.product} in {f.colour} is in stock in our shop in {f.city}. It costs {f.amount} euros."
    ),
    "complaint": lambda f: (
        f"I am sorry, {f.name}. A colleague in {f.city} will call you on {f.day} about order {f.order}, and you get {f.amount} euros back."
    ),
}


def create_model(_config: dict[str, Any]) -> tuple[Any, Any]:
    """A create_model_fn: the base, in float32, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(_ASSETS, local_files_only=True)
    return model.float(), AutoTokenizer.from_pretrained(_ASSETS, local_files_only=True)


def train_dataset(rows: int) -> datasets.Dataset:
    """Rows to train on, as chat messages."""
    return _rows(rows, seed=1)


def eval_dataset(rows: int) -> datasets.Dataset:
    """Further rows of the same kind."""
    return _rows(rows, seed=2)


def _rows(count: int, seed: int) -> datasets.Dataset:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        intent = rng.choice(sorted(INTENTS))
        known = facts(rng)
        file = (
            f"[{known.name}, order {known.order}, {known.colour} {known.product}, {known.amount} euros by "
            f"{known.payment}, to {known.city} on {known.day}, {known.count}]"
        )
        question = rng.choice(INTENTS[intent][0])(known)
        row = {"instruction": f"{file} {question}", "response": _ANSWERS[intent](known)}
        made.append(format_row(row))
    return datasets.Dataset.from_list(made)
