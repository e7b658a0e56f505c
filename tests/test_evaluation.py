"""What runs are judged by at their boundaries: trl's metrics, and texts that they generate."""

from __future__ import annotations

import pytest

import rf_notebook.training.runner  # noqa: F401 - so that no refusal is timed together with this import
from rf_notebook.automl import RFGridSearch
from rf_notebook.testing.tiny import create_tiny, prompt_rows, text_rows
from tests.experiment_world import curve, fit, model


def test_trls_own_compute_metrics_without_generation(new):
    config = model()
    config.compute_metrics = lambda prediction: {"rows": float(len(prediction.label_ids))}
    experiment = fit(new(), RFGridSearch(config, "SFT"))
    experiment.wait()
    assert experiment.run(1).metrics["eval_rows"] == 6.0, experiment.run(1).traceback


def test_generated_texts_reach_compute_metrics_and_leave_the_training_as_it_was(new):
    seen = []

    def metrics(pair):
        predictions, references = pair
        seen.append((predictions, references))
        return {"length": sum(map(len, predictions)), "rows": len(references)}

    plain, judged = model(), model()
    judged.compute_metrics = metrics
    judged.generation_config = {"max_new_tokens": 5, "temperature": 0.8, "top_k": 30}
    experiment = fit(new(), RFGridSearch([plain, judged], "SFT"))
    experiment.wait()
    assert experiment.run(2).state == "completed", experiment.run(2).traceback
    assert len(seen) == 3, "once at each boundary"
    assert all(len(p) == len(r) == 6 for p, r in seen)
    assert seen[0][1] == [row["completion"].strip() for row in prompt_rows(6, 2)]
    assert experiment.run(2).metrics["rows"] == 6
    strip = [
        {k: v for k, v in m.items() if k not in ("rows", "length")} for _, m in curve(experiment, 2)
    ]
    assert strip == [m for _, m in curve(experiment, 1)]


def test_texts_that_do_not_say_where_their_answer_begins_are_judged_whole_with_a_word(new):
    config, asked = model(), []
    config.compute_metrics = lambda pair: asked.append(pair[1]) or {"texts": len(pair[0])}
    config.generation_config = {"max_new_tokens": 2}
    experiment, rows = new(), text_rows(6, 2)
    with pytest.warns(
        UserWarning, match="no column of eval_dataset .text. is known to hold the answer"
    ):
        experiment.run_fit(RFGridSearch(config, "SFT"), create_tiny, text_rows(24, 1), rows)
    experiment.wait()
    assert experiment.run(1).metrics["texts"] == 6
    assert asked[0] == [row["text"].strip() for row in rows]
