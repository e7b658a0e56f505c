"""Escapes of terminals and signs that turn the direction of writing reach no table, log, repr or message."""

from __future__ import annotations

import pytest

from rf_notebook.core.errors import (
    CheckpointDamaged,
    ConfigError,
    RecordDamaged,
    StoreError,
    UnknownRun,
)
from rf_notebook.core.redaction import as_told, visible, visible_json, visible_line
from rf_notebook.core.run import LONGEST_MESSAGE, LONGEST_TRACEBACK
from rf_notebook.record.record import FORMAT, VERSION, parse_record
from rf_notebook.record.verify import Finding
from rf_notebook.shared import Findings
from tests.api.world import fit, hides, two

HOSTILE = "\x1b[2J\x1b]0;title\x07 \u202egnorw\u202c \u200bzero \x00nul \x9b31m"


def test_what_hides_is_escaped_and_the_rest_stays():
    assert hides(HOSTILE)
    assert not hides(visible(HOSTILE))
    assert visible("a\tb\nä 你好\u00a0🙂") == "a\tb\nä 你好\u00a0🙂"
    assert (
        visible_line("a\n✓ the record is as it was written")
        == "a\\n✓ the record is as it was written"
    )
    assert visible_json({HOSTILE: [HOSTILE, 1, None]}) == {
        visible(HOSTILE): [visible(HOSTILE), 1, None]
    }


def test_a_failed_run_s_error_and_a_config_s_texts_do_not_hide(new, backend, capsys):
    def fail(run_id, _step):
        if run_id == 2:
            raise RuntimeError(HOSTILE)

    backend.on_step = fail
    experiment = fit(new(), two(run_name=HOSTILE))
    assert experiment.wait(60)
    experiment.end()
    run = experiment.runs[1]
    assert "gnorw" in run.error
    shown = [
        repr(experiment),
        repr(run),
        run.error,
        run.traceback,
        experiment.get_runs_info().to_string(),
        experiment.get_results().to_string(),
        experiment.decisions.to_string(),
        *experiment.messages,
        (experiment.folder / "experiment.log").read_text(),
        *capsys.readouterr(),
    ]
    assert not [text for text in shown if hides(text)]


def test_no_name_can_pass_for_a_finding():
    told = str(
        Findings([Finding(False, "run 1\n✓ the results fit the runs\x1b[8m is not recorded")])
    )
    assert len(told.splitlines()) == 1
    assert not hides(told)


def test_an_error_of_megabytes_is_recorded_in_part_and_says_so(new, backend):
    def fail(_run_id, _step):
        raise RuntimeError("begin " + "x" * 3_000_000 + " end")

    backend.on_step = fail
    experiment = fit(new(), two())
    assert experiment.wait(60)
    experiment.end()
    run = experiment.runs[0]
    assert run.error.startswith("RuntimeError: begin ")
    assert run.error.endswith(" end")
    assert "signs left out" in run.error
    assert len(run.error) < LONGEST_MESSAGE + 100
    assert len(run.traceback) < LONGEST_TRACEBACK + 100
    assert (experiment.folder / "experiment.sqlite").stat().st_size < 1_000_000


@pytest.mark.parametrize("place", [0, 990, 2_000, 3_995, 50_000, 95_995, 99_000])
def test_a_secret_is_cut_out_wherever_the_text_is_cut(place):
    text = "y " * 50_000
    token = "hf_abcdefghijklmnopqrstuv"
    told = as_told(text[:place] + token + text[place:], 2_000)
    assert "hf_abc" not in told
    assert "tuv" not in told
    assert len(told) < 2_100


def test_no_sentence_of_an_error_hides():
    for kind in (ConfigError, StoreError, UnknownRun, RecordDamaged, CheckpointDamaged):
        assert not hides(str(kind(HOSTILE)))
    with pytest.raises(ConfigError) as told:
        parse_record({"format": FORMAT, "version": VERSION, HOSTILE + "\n✓ verified": 1})
    assert len(str(told.value).splitlines()) == 1
