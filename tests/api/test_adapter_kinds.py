"""Kinds of adapters beside each other in the panel."""

from __future__ import annotations

from rf_notebook.automl import RFBOFTConfig, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.views.runs_table import runs_view
from rf_notebook.views.series import ExperimentSeries
from tests.api.world import fit


def test_lora_is_named_beside_other_kinds_and_only_there(new):
    def config(peft):
        training = RFSFTConfig(max_steps=4, use_cpu=True, bf16=False)
        return RFModelConfig(model_name="tiny", peft_config=peft, training_args=training)

    def kinds(name, *adapters):
        experiment = fit(new(name), RFGridSearch([config(peft) for peft in adapters], "SFT"))
        experiment.end()
        series = ExperimentSeries()
        series.update(experiment.session.state)
        view = runs_view(experiment.session.state, series, "loss")
        rows = sorted(view.rows, key=lambda row: row.run_id)
        return [
            [value for key, value in row.config.items() if key.endswith("peft_type")]
            for row in rows
        ]

    lora, boft = RFLoraConfig(r=4, target_modules=["q"]), RFBOFTConfig(target_modules=["q"])
    assert kinds("mixed", lora, boft, None) == [["LORA"], ["BOFT"], []]
    assert kinds("alike", lora, RFLoraConfig(r=8, target_modules=["q"])) == [[], []]
