"""Several methods in one panel: what cannot be compared is said, and can be looked at apart."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CELL = """
from rf_notebook import Experiment, demo
from rf_notebook.automl import RFDPOConfig, RFGRPOConfig, RFLoraConfig, RFModelConfig, RFSFTConfig
usual = dict(per_device_train_batch_size=8, logging_steps=1, gradient_checkpointing=False, bf16=False, use_cpu=True)
def config(training, formatting, rewards=None):
    return RFModelConfig(model_name=demo.MODEL_NAME, formatting_func=formatting, reward_funcs=rewards,
        peft_config=RFLoraConfig(r=4, target_modules=["q_proj", "v_proj"]), training_args=training)
def words(completions, **kwargs):
    return [float(len(one[0]["content"].split())) for one in completions]
experiment = Experiment("mixed")
experiment.run_fit([
    config(RFSFTConfig(max_length=96, **usual), lambda row: {**demo.format_row({**row, "response": row["chosen"]})}),
    config(RFDPOConfig(max_length=96, **usual), demo.format_pair),
    config(RFGRPOConfig(num_generations=4, max_completion_length=8, **usual), lambda row: {"prompt": demo.format_pair(row)["prompt"]}, words),
], demo.create_model, demo.preference_dataset(48), num_chunks=3)
"""


def test_losses_of_several_methods_are_marked_and_looked_at_apart(notebook, screenshot):
    opened = notebook(CELL, "experiment.wait()")
    opened.run_cell(1)
    opened.page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    opened.wait_python("all(str(r.state) == 'completed' for r in experiment.runs)", timeout=120)
    opened.page.wait_for_selector(".rf-panel :text('on scales of their own')")
    screenshot("20-mixed")
    opened.panel.locator("select").filter(has_text="all methods").first.select_option("DPO")
    opened.page.wait_for_function(
        "() => { const c = document.querySelector('.rf-chart'); const names = c.data.map((t) => t.name).filter((n) => n); "
        "return names.includes('run 2') && !names.includes('run 1') && !names.includes('run 3'); }"
    )
    opened.panel.locator("button", has_text="Samples").first.click()
    opened.page.wait_for_selector(".rf-samples :text('words ')")
    screenshot("21-rewards-in-samples")
