"""What a trainer does to its tokenizer and embeddings belongs to its run, and goes with it."""

from __future__ import annotations

import datasets
import peft
import pytest
import torch
import trl
from transformers import AutoTokenizer, set_seed

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.core.errors import ConfigError
from rf_notebook.testing.tiny import create_tiny, prompt_rows, tiny_model, tiny_tokenizer
from tests.exactness.cases import without_clock

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
CHAT = [
    {
        "messages": [
            {"role": "user", "content": "the cat"},
            {"role": "assistant", "content": "a dog runs"},
        ]
    }
] * 16
ARGUMENTS = {
    "max_steps": 4,
    "logging_steps": 1,
    "bf16": False,
    "use_cpu": True,
    "learning_rate": 1e-2,
    "seed": 5,
}


@pytest.fixture(params=[2, 260], ids=["fewer rows", "more rows"])
def source(request, tmp_path):
    """A tokenizer with tokens of its own.

    Trl rounds the embeddings' rows to a multiple of 64, down from 512 or up.
    """
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(
        ["<|im_start|>", "<|im_end|>", *(f"<|{n}|>" for n in range(request.param))],
        special_tokens=True,
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "source")
    return str(tmp_path / "source")


def search(**training):
    args = RFSFTConfig(**ARGUMENTS | training)
    lora = RFLoraConfig(r=List([4, 8]), target_modules=["q_proj"])
    return RFGridSearch(
        RFModelConfig(model_name="tiny", peft_config=lora, training_args=args), "SFT"
    )


def fit(experiment, **training):
    experiment.run_fit(
        search(**training),
        create_tiny,
        datasets.Dataset.from_list(CHAT),
        num_chunks=2,
        display=False,
        keep="all",
    )
    return experiment


def plain(tmp_path, rank, source):
    set_seed(ARGUMENTS["seed"])
    trainer = trl.SFTTrainer(
        tiny_model(),
        trl.SFTConfig(
            output_dir=str(tmp_path / "plain"),
            report_to="none",
            save_strategy="no",
            chat_template_path=source,
            **ARGUMENTS,
        ),
        train_dataset=datasets.Dataset.from_list(CHAT),
        processing_class=tiny_tokenizer(),
        peft_config=peft.LoraConfig(r=rank, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    trainer.train()
    return trainer


def losses(experiment, run_id):
    rows = experiment.get_results()
    return rows[rows.run_id == run_id].loss.dropna().tolist()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_new_tokens_of_a_chat_template_train_in_every_run_as_in_plain_trl(new, tmp_path, source):
    experiment = fit(new(), chat_template_path=source)
    experiment.wait()
    for run, rank in zip(experiment.runs, (4, 8), strict=True):
        trainer = plain(tmp_path, rank, source)
        alone = [
            entry["loss"] for entry in without_clock(trainer.state.log_history) if "loss" in entry
        ]
        assert losses(experiment, run.id) == alone
        exported = experiment.export(run, tmp_path / f"exported {run.id}")
        model = experiment.load(run)
        want = dict(trainer.model.named_parameters())
        for name, weight in model.named_parameters():
            assert torch.equal(weight, want[name]), name
        tokenizer = AutoTokenizer.from_pretrained(exported)
        assert len(tokenizer) == len(trainer.processing_class)
        assert tokenizer.chat_template == TEMPLATE
        assert tokenizer.eos_token == "<|im_end|>"
    texts = experiment.generate([1, 2], "the cat", max_new_tokens=4)
    experiment.end()
    # and in the next kernel
    again = Experiment("test", experiment_path=tmp_path)
    assert again.generate([1, 2], "the cat", max_new_tokens=4, create_model_fn=create_tiny).equals(
        texts
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_such_runs_write_by_themselves_where_others_share_their_tokens(new, tmp_path, source):
    """Joint steps have the base model's vocabulary."""
    experiment = new()
    experiment.run_fit(
        [search(chat_template_path=source), search()],
        create_tiny,
        datasets.Dataset.from_list(CHAT),
        num_chunks=2,
        display=False,
        execution="fused",
    )
    experiment.wait()
    for _ in range(2):  # with the models of the experiment, and without
        together = experiment.generate([1, 2, 3, 4], "the cat", max_new_tokens=6)
        for run_id in (1, 2, 3, 4):
            alone = experiment.generate(run_id, "the cat", max_new_tokens=6)
            assert together[f"run {run_id}"].equals(alone[f"run {run_id}"])
        experiment.end()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_such_runs_continue_and_are_started_from(new, tmp_path, source):
    whole = fit(new("whole"), chat_template_path=source)
    whole.end()
    cut = fit(new("cut"), chat_template_path=source)
    while cut.run(1).steps < 2:
        pass
    cut.cancel_current()
    cut = fit(new("cut"), chat_template_path=source)
    cut.wait()
    assert [losses(cut, n) for n in (1, 2)] == [losses(whole, n) for n in (1, 2)]
    clone = cut.clone(1, {"learning_rate": 0.0}, warm_start=True).result()
    cut.wait()
    assert clone.error is None
    assert clone.metrics["loss"] < losses(cut, 1)[0] - 0.5
    cut.end()


def test_a_template_and_an_end_token_go_with_the_run(new, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text(
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<bos>{% endfor %}"
    )

    def create(config):
        model, tokenizer = create_tiny(config)
        tokenizer.chat_template = None
        return model, tokenizer

    experiment = new()
    given = search(chat_template_path=str(template), eos_token=List(["<bos>", "<eos>"]))
    experiment.run_fit(given, create, datasets.Dataset.from_list(CHAT), num_chunks=2, display=False)
    experiment.end()
    found = {
        AutoTokenizer.from_pretrained(
            experiment.export(run, tmp_path / str(run.id))
        ).eos_token: run.id
        for run in experiment.runs
    }
    assert found.keys() == {"<bos>", "<eos>"}
    again = Experiment("test", experiment_path=tmp_path)
    exported = again.export(1, tmp_path / "again", create_model_fn=create)
    assert AutoTokenizer.from_pretrained(exported).chat_template == template.read_text()


@pytest.mark.parametrize(
    "rows", [prompt_rows(16, 1), datasets.Dataset.from_list(CHAT)], ids=["prompts", "messages"]
)
def test_prompts_are_put_into_the_template_only_of_runs_that_trained_with_it(
    new, monkeypatch, rows
):
    """Whether the run is in training, parked, or read from its checkpoint in another kernel."""
    from rf_notebook.training import generation

    asked = []
    write = generation._generate  # noqa: SLF001 - its calls are counted

    def listening(model, tokenizer, prompts, config, **more):
        asked.append((*prompts, more["is_chat"]))
        return write(model, tokenizer, prompts, config, **more)

    monkeypatch.setattr(generation, "_generate", listening)
    experiment = new()
    experiment.run_fit(
        search(), create_tiny, rows, num_chunks=2, display=False, sample_prompts=("the cat",)
    )
    experiment.generate(1, "the cat")
    experiment.wait()
    experiment.generate(1, "the cat")
    experiment.end()
    experiment.generate(1, "the cat", create_model_fn=create_tiny)
    is_chat = "messages" in rows.column_names
    assert len(asked) >= 5
    assert set(asked) == {
        ("<user>the cat<eos><assistant>", True) if is_chat else ("the cat", False)
    }


def test_the_model_and_its_settings_may_hold_numbers_as_keys(new, tmp_path):
    given, seen = {"places": {0: "1GiB", "cpu": {1: 2}}}, []

    def create(config):
        seen.append(config["model_kwargs"])
        return create_tiny({})

    found = search()
    found.configs.model_kwargs = given
    experiment = new()
    experiment.run_fit(found, create, prompt_rows(16, 1), num_chunks=2, display=False)
    experiment.end()
    assert seen == [given]
    assert all(run.error is None for run in experiment.runs)
    with pytest.raises(ConfigError, match="begins with"):
        experiment.run_fit(
            _with_tag(search()), create, prompt_rows(16, 1), num_chunks=2, display=False
        )


def _with_tag(found):
    found.configs.model_kwargs = {"$dict": 1}
    return found
