"""What is handed to somebody else: valid, small, readable anywhere, and without secrets."""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest

from rf_notebook import ConfigError, Experiment, IllegalOperation
from rf_notebook.automl import List
from rf_notebook.core.events import LaunchRecorded
from rf_notebook.record.record import RECORD_MIME, parse_record, portable, schema
from rf_notebook.record.verify import is_definition
from rf_notebook.session import opening
from rf_notebook.session.cells import Sources
from rf_notebook.shared import SharedExperiment
from tests.experiment_world import create_tiny, grid, prompt_rows

pytestmark = pytest.mark.slow

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Sixteen runs of three chunks, launched from a cell with a secret and a home folder in it."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setattr(Path, "home", lambda: home)
    made = Experiment("sixteen", experiment_path=home / "work")
    cells = (
        f"token = '{TOKEN}'\n",
        f"data = load('{home}/data/rows.json')\nexperiment.run_fit(search)\n",
    )
    patch.setattr(opening, "sources_now", lambda: Sources(cells=cells))
    search = grid(learning_rate=List([1e-4 * i for i in range(1, 17)]))
    made.run_fit(
        search,
        create_tiny,
        prompt_rows(12, 1),
        prompt_rows(4, 2),
        num_chunks=3,
        seed=1,
        display=False,
    )
    made.wait()
    made.end()
    yield made, home
    patch.undo()


def test_the_published_schema_is_the_one_that_is_checked():
    file = Path(parse_record.__code__.co_filename).with_name("record.schema.json")
    assert json.loads(file.read_text()) == json.loads(json.dumps(schema()))


def test_a_record_holds_together_and_survives_a_browser(experiment):
    made, _ = experiment
    written = made.record()
    record = parse_record(written)
    assert record.as_json() == written
    assert record.digest_now() == record.digest
    assert isinstance(made.session.state.launch, LaunchRecorded)
    facts = record.spec.models[0].facts
    assert facts["parameters"] > 1000
    assert len(facts["weights"]) == len(facts["tokenizer"]) == 64
    assert record.spec.search[0]["configs"][0]["training_args"]["learning_rate"]["$list"][1] == 2e-4
    # What JavaScript writes of 1.0 is 1.
    in_browser = json.loads(json.dumps(written).replace("1.0,", "1,"))
    assert parse_record(in_browser).digest_now() == record.digest
    assert portable([1.0, float("nan"), -float("inf"), 2.5, True]) == [1, "nan", "-inf", 2.5, True]


def test_sixteen_runs_are_a_small_valid_notebook_without_secrets(experiment, tmp_path):
    made, home = experiment
    path = made.export_notebook(tmp_path / "sixteen.ipynb")
    assert path.stat().st_size < 300_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    text = path.read_text()
    assert TOKEN not in text
    assert str(home) not in text
    assert "~/data/rows.json" in text
    header = notebook.cells[0].source.splitlines()
    assert (header[0], header[-1]) == ("# /// script", "# ///")
    metadata = tomllib.loads(
        "\n".join(line.removeprefix("#").removeprefix(" ") for line in header[1:-1])
    )
    assert metadata["requires-python"] == ">=3.11"
    assert any(one.startswith("trl==") for one in metadata["dependencies"])
    assert all("+" not in one for one in metadata["dependencies"])
    launching = next(cell for cell in notebook.cells if cell.get("outputs"))
    data = launching.outputs[0]["data"]
    assert {RECORD_MIME, "text/html", "image/png", "text/plain"} <= set(data)
    lines = json.dumps(data[RECORD_MIME], indent=1).splitlines()
    assert max(map(len, lines)) < 400
    assert notebook.cells[-1].source == '%load_ext rf_notebook\n%rapidfire replay "sixteen.ipynb"'
    assert SharedExperiment(path).verify()


def test_a_folder_and_a_zip_hold_everything_and_a_page_needs_nothing(experiment, tmp_path):
    made, home = experiment
    folder = made.export_notebook(tmp_path / "out" / "sixteen")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["experiment.ipynb", "record.json", "report.html", "requirements.txt"]
    assert SharedExperiment(folder).verify()
    assert SharedExperiment(folder / "record.json").name == "sixteen"
    packed = made.export_notebook(tmp_path / "sixteen.zip")
    assert sorted(zipfile.ZipFile(packed).namelist()) == names
    assert SharedExperiment(packed).verify()
    page = made.export_notebook(tmp_path / "sixteen.html").read_text()
    assert page == (folder / "report.html").read_text()
    assert "<svg" in page
    assert "learning_rate" in page
    for never in ("<script", "http:", "https:", "src=", "@import", "url(", str(home), TOKEN):
        assert never not in page
    (folder / "record.json").write_text(json.dumps({**made.record(), "experiment": "another"}))
    assert [f.text for f in SharedExperiment(folder).verify() if not f.is_right] == [
        "record.json and the record in experiment.ipynb are not the same"
    ]
    with pytest.raises(ConfigError, match="is there already"):
        made.export_notebook(folder)
    with pytest.raises(ConfigError, match="has neither"):
        SharedExperiment(tmp_path)
    with pytest.raises(IllegalOperation, match="has recorded nothing"):
        Experiment("nothing", experiment_path=tmp_path).record()


def test_nbconvert_shows_the_curves(experiment, tmp_path):
    from nbconvert import HTMLExporter

    made, _ = experiment
    path = made.export_notebook(tmp_path / "sixteen.ipynb")
    body, _ = HTMLExporter().from_filename(str(path))
    assert "data:image/svg+xml;base64" in body
    assert "What was done while it trained" in body


def test_names_and_texts_stay_text_on_the_page(experiment, tmp_path):
    from rf_notebook.record.record import parse_record
    from rf_notebook.views.report import report_page
    from rf_notebook.views.series import ExperimentSeries

    made, _ = experiment
    evil = "<script>alert(1)</script>"
    record = parse_record(made.record())
    record.spec.cells[:] = [evil]
    record.spec.versions[evil] = evil
    record.spec.configs[0].training[evil] = evil
    series = ExperimentSeries()
    series.update(made.session.state)
    page = report_page(evil, record, [evil, evil], made.session.state, series)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5


def test_a_cell_of_any_length_is_exported_and_one_of_others_refused(
    experiment, tmp_path, monkeypatch
):
    from rf_notebook.core.errors import ConfigError
    from rf_notebook.record.record import parse_record
    from rf_notebook.replay import sharing

    made, _ = experiment
    written = made.record()
    written["spec"]["cells"] = [["#" * 100_001]]
    monkeypatch.setattr(sharing, "record_now", lambda _session: written)
    page = made.export_notebook(tmp_path / "long.html")
    assert "#" * 100_001 in page.read_text()
    with pytest.raises(ConfigError, match="should have at most 100000 characters"):
        parse_record(written)


def test_nothing_hides_in_a_plan(experiment, tmp_path):
    made, _ = experiment
    written = made.record()
    config = dict(
        written["spec"]["configs"][0],
        model={**written["spec"]["configs"][0]["model"], "model_name": "evil/model"},
    )
    clone = {
        "what": "clone",
        "run": 1,
        "steps": 1,
        "samples": 2,
        "run_state": None,
        "origin": "python",
        "at": 0,
        "reason": "",
    }
    written["operations"] = [{**clone, "config": config, "edits": {}, "warm_start": False}]
    written["spec"]["cells"] = [["a = 1  # \u202e\u2066 }\n", "\x1b[2Krun()\r"]]
    file = tmp_path / "record.json"
    file.write_text(json.dumps(written))
    text = str(SharedExperiment(file).plan())
    assert 'clone run 1 at its step 1 as run 17: model_name="evil/model"' in text
    assert "a = 1  # \\u202e\\u2066 }" in text
    assert "\\x1b[2Krun()\\r" in text
    assert not set("\u202e\u2066\x1b\r") & set(text)


def test_only_definitions_are_run_for_clones():
    assert is_definition(
        "reward", "@decorated\ndef reward(completions, **columns):\n    return [1.0]\n"
    )
    for name, source in [
        ("reward", "import os\ndef reward(c): return [1.0]"),
        ("reward", "experiment.clone(1, {'reward_funcs': [lambda c: 1]})"),
        ("<lambda>", "f = lambda row: row"),
        ("reward", "def other(c): return [1.0]"),
        ("reward", "def reward(:"),
    ]:
        assert not is_definition(name, source)
