"""A record asks for code from the hub: only the user's own cell can allow that."""

from __future__ import annotations

import pytest

from rf_notebook.automl import RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.core.errors import ConfigError
from rf_notebook.session.models import load_model, texts_from, write_model
from rf_notebook.session.registry import forget_all
from tests.api.world import TRAINING, fit

REMOTE = {"trust_remote_code": True}


def search(**model):
    config = RFModelConfig(
        model_name="somebody/model",
        peft_config=RFLoraConfig(r=4, target_modules=["q_proj"]),
        training_args=RFSFTConfig(**TRAINING),
        **model,
    )
    return RFGridSearch(config, "SFT")


@pytest.mark.parametrize(
    "model",
    [
        {"model_kwargs": REMOTE},
        {"tokenizer_kwargs": REMOTE},
        {"model_kwargs": {"nested": [REMOTE]}},
    ],
    ids=["model", "tokenizer", "somewhere in them"],
)
def test_a_record_by_itself_runs_no_code(new, tmp_path, model):
    experiment = fit(new(), search(**model))
    assert experiment.wait(60)
    experiment.end()
    experiment.session.store.close()
    forget_all()
    session = new().session  # as somebody opens it who has the folder alone
    for use in (
        lambda: load_model(session, 1, None),
        lambda: write_model(session, 1, tmp_path / "out", merge=True, create_model=None),
        lambda: texts_from(session, [1], ["hello"], {}, None),
    ):
        with pytest.raises(ConfigError, match=r"runs code of 'somebody/model'.*create_model_fn="):
            use()
    assert not (tmp_path / "out").exists()
