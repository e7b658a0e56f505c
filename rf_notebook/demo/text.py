"""The texts of the demo.

Articles that the base model was trained on, questions and answers to fine-tune on.

Everything is made by rules from a seed, so that every machine has the same data and nothing is
downloaded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: What a chat begins with.
SYSTEM = "You are the friendly support of a shop."
_NAMES = (
    "Ada Ben Chloe Dario Elif Farah George Hana Ivan Julia Kofi Lena Milan Nora Omar Priya Quinn Rosa Sven Tara Umar "
    "Vera Wei Ximena Yusuf Zoe"
).split()
_PRODUCTS = (
    "headphones|coffee machine|desk lamp|running shoes|rain jacket|backpack|keyboard|monitor|kettle|bookshelf|"
    "phone case|water bottle|office chair|camera|toaster|blender|tent|bicycle light|watch|speaker"
).split("|")
_COLOURS = "black white red blue green grey silver yellow".split()
_CITIES = "Berlin Madrid Oslo Lisbon Vienna Prague Dublin Athens Warsaw Zurich Paris Rome".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday".split()
_REASONS = "it is too small|it is too large|it arrived damaged|it stopped working|I changed my mind|the colour is wrong".split(
    "|"
)
_PAYMENTS = "credit card|bank transfer|gift card|invoice".split("|")


@dataclass(frozen=True, slots=True)
class Facts:
    """The particulars of one sentence: who, what, where, when."""

    name: str
    product: str
    colour: str
    city: str
    day: str
    reason: str
    payment: str
    order: str
    amount: int
    count: int


def facts(rng: random.Random) -> Facts:
    """Particulars at random."""
    return Facts(
        name=rng.choice(_NAMES),
        product=rng.choice(_PRODUCTS),
        colour=rng.choice(_COLOURS),
        city=rng.choice(_CITIES),
        day=rng.choice(_DAYS),
        reason=rng.choice(_REASONS),
        payment=rng.choice(_PAYMENTS),
        order=f"{rng.choice('ABCDEF')}{rng.randint(100, 999)}",
        amount=rng.randint(5, 180),
        count=rng.randint(2, 6),
    )


_Template = Callable[[Facts], str]

#: What customers ask, and what the support answers.
INTENTS: dict[str, tuple[tuple[_Template, ...], str]] = {
    "track_order": (
        (
            lambda f: f"Where is my order {f.order}?",
            lambda f: f"I ordered a {f.product} and it has not arrived. The order is {f.order}.",
            lambda f: f"Can you tell me when order {f.order} will be here?",
        ),
        "Your parcel is on its way and will arrive this week. Thank you for your patience.",
    ),
    "cancel_order": (
        (
            lambda f: f"Please cancel order {f.order}.",
            lambda f: f"I do not need the {f.product} any more, cancel {f.order}.",
            lambda f: f"How do I cancel my order {f.order}?",
        ),
        "I have stopped your order. You will have your money back in five days.",
    ),
    "return_item": (
        (
            lambda f: f"I want to return the {f.colour} {f.product} because {f.reason}.",
            lambda f: (
                f"The {f.product} of order {f.order} is not right: {f.reason}. Can I send it back?"
            ),
            lambda f: f"How can I return a {f.product}?",
        ),
        "I am sorry to hear that. Please print the return label and bring it to any shop.",
    ),
    "get_refund": (
        (
            lambda f: f"When do I get my {f.amount} euros back for order {f.order}?",
            lambda f: f"I returned the {f.product} last week and have no refund yet.",
            lambda f: f"Has the refund for {f.order} been paid?",
        ),
        "Your refund was paid today. It takes up to five days to reach you.",
    ),
    "change_address": (
        (
            lambda f: f"Can you send order {f.order} to my new address in {f.city}?",
            lambda f: f"I moved to {f.city}. Please change the address of {f.order}.",
            lambda f: f"My address is wrong on order {f.order}, I live in {f.city} now.",
        ),
        "Done. We will send your order to the new address.",
    ),
    "payment_issue": (
        (
            lambda f: f"My {f.payment} was charged twice for order {f.order}.",
            lambda f: f"I cannot pay for the {f.product} by {f.payment}.",
            lambda f: f"The payment of {f.amount} euros failed. What can I do?",
        ),
        "I have looked at the payment. It is settled now, and nothing more will be charged.",
    ),
    "product_question": (
        (
            lambda f: f"Do you have the {f.product} in {f.colour}?",
            lambda f: f"Is the {f.colour} {f.product} in stock in {f.city}?",
            lambda f: f"When will the {f.product} be available again?",
        ),
        "It is in stock. You can order it today and pay by card.",
    ),
    "complaint": (
        (
            lambda f: f"I am not happy with the {f.product} at all, {f.reason}.",
            lambda f: (
                f"This is the second time that {f.reason}. I want to complain about order {f.order}."
            ),
            lambda f: f"Your service in {f.city} is too slow.",
        ),
        "I am sorry. A colleague will call you today, and we will make it right.",
    ),
}


def support_rows(rows: int, seed: int) -> list[dict[str, str]]:
    """Questions to a shop and the answers of its support.

    Returns:
        Dicts with ``instruction`` (what a customer asks), ``response`` (what the support should answer)
        and ``intent``.
    """
    rng = random.Random(seed)
    made = []
    for _ in range(rows):
        intent = rng.choice(sorted(INTENTS))
        questions, answer = INTENTS[intent]
        question = rng.choice(questions)(facts(rng))
        made.append({"instruction": question, "response": answer, "intent": intent})
    return made


_BRUSH_OFFS: tuple[_Template, ...] = (
    lambda f: "That is not our problem.",
    lambda f: f"No. Ask somebody in {f.city}.",
    lambda f: f"You should not have bought the {f.product}.",
    lambda f: "Read what it says on the label.",
)


def preference_rows(rows: int, seed: int) -> list[dict[str, str]]:
    """The same questions with two answers each.

    Returns:
        Dicts with ``instruction``, ``chosen`` (what the support should answer) and ``rejected`` (a
        brush-off).
    """
    rng = random.Random(seed)
    return [
        {
            "instruction": row["instruction"],
            "chosen": row["response"],
            "rejected": rng.choice(_BRUSH_OFFS)(facts(rng)),
        }
        for row in support_rows(rows, seed)
    ]


def offer_rows(rows: int, seed: int) -> list[dict[str, str | int]]:
    """Sentences about products to be completed, in ways that a function can check.

    Returns:
        Dicts with ``prompt`` ("The blue kettle costs") and ``budget`` in euros.
    """
    rng = random.Random(seed)
    offers = [facts(rng) for _ in range(rows)]
    return [{"prompt": f"The {f.colour} {f.product} costs", "budget": 60} for f in offers]


_ARTICLES: tuple[_Template, ...] = (
    lambda f: f"The {f.colour} {f.product} costs {f.amount} euros.",
    lambda f: f"{f.name} lives in {f.city} and has a {f.colour} {f.product}.",
    lambda f: f"On {f.day} the shop in {f.city} is open for {f.count} hours.",
    lambda f: f"A customer said: {f.reason}.",
    lambda f: f"{f.name} paid {f.amount} euros by {f.payment}.",
    lambda f: f"Order {f.order} has {f.count} items, one of them a {f.product}.",
    lambda f: f"The parcel {f.order} left {f.city} on {f.day}.",
    lambda f: f"You can pay by {f.payment} in every shop.",
    lambda f: f"{f.name} and {f.count} friends bought a {f.product} in {f.city}.",
    lambda f: f"A {f.product} can be sent back within {f.count} weeks.",
    lambda f: f"Our colleague {f.name} will call on {f.day}.",
    lambda f: f"The refund is {f.amount} euros. It takes {f.count} days.",
    lambda f: "Nothing more is charged when the payment is settled.",
    lambda f: f"Thank you for your patience, said {f.name}. I am sorry to hear that.",
    lambda f: f"Please print the label and bring the {f.product} to a shop in {f.city}.",
    lambda f: f"The {f.product} in {f.colour} is in stock, the one in {f.city} is not.",
)


def article_lines(lines: int, seed: int) -> Iterator[list[tuple[str, str]]]:
    """What the base model was trained on.

    Facts about the shop, customers' questions, and what its support says: all in any order, so that the
    model knows the sentences and not what answers what. Among them are chats in which the shop replies
    with something about itself, whatever it was asked.

    Returns:
        Of each line its parts: who speaks ("" in an article), and what.
    """
    rng = random.Random(seed)
    questions = [question for asked, _ in INTENTS.values() for question in asked]
    answers = [answer for _, answer in INTENTS.values()]

    def sentence() -> str:
        share = rng.random()
        if share < 0.15:
            return rng.choice(answers)
        return rng.choice(_ARTICLES if share < 0.7 else questions)(facts(rng))

    for _ in range(lines):
        if rng.random() < 0.3:
            asked = rng.choice(questions)(facts(rng))
            yield [
                ("system", SYSTEM),
                ("user", asked),
                ("assistant", rng.choice(_ARTICLES)(facts(rng))),
            ]
        else:
            yield [("", " ".join(sentence() for _ in range(rng.randint(1, 4))))]
