"""%rapidfire in a real IPython shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rf_notebook import Experiment
from rf_notebook.core.run import RunState
from tests.experiment_world import TRAINING

GRID = "\n".join(
    [
        "model_name: tiny",
        "peft_config: {r: 4, target_modules: [q_proj]}",
        "training_args:",
        *(
            f"  {key}: {str(value).lower() if isinstance(value, bool) else value}"
            for key, value in TRAINING.items()
        ),
        "create_model_fn: create_tiny",
        "train_dataset: rows",
        "eval_dataset: few",
        "num_chunks: 3",
    ]
).replace("learning_rate: 0.001", "learning_rate: [1e-3, 3e-3]")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rf_notebook.testing.tiny import create_tiny, prompt_rows

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell(config=config)
    made.run_line_magic("load_ext", "rf_notebook")
    made.user_ns.update(create_tiny=create_tiny, rows=prompt_rows(200, 1), few=prompt_rows(6, 2))
    yield made
    from rf_notebook.session.commands import Commands
    from rf_notebook.session.registry import forget_all, open_sessions

    for session in list(open_sessions.values()):
        Commands(session).end(cancel=True)
    forget_all()


def say(shell, line):
    return shell.run_line_magic("rapidfire", line)


def completions(shell, text):
    with provisionalcompleter():
        return [c.text for c in shell.Completer.completions(text, len(text))]


def test_an_experiment_from_its_yaml_to_its_end(shell):
    experiment = shell.run_cell_magic("rapidfire", "run grid", GRID)
    assert isinstance(experiment, Experiment)
    assert [run.config["training_args"]["learning_rate"] for run in experiment.runs] == [1e-3, 3e-3]
    stopped = say(shell, "stop 2")
    assert (stopped.id, stopped.state) == (2, RunState.STOPPED)
    assert say(shell, "resume all").id == 2
    clones = say(shell, "clone 1 learning_rate=1e-4,1e-5 r=8")
    assert [
        (run.config["training_args"]["learning_rate"], run.config["peft_config"]["r"])
        for run in clones
    ] == [
        (1e-4, 8),
        (1e-5, 8),
    ]
    assert [run.id for run in say(shell, "delete 3-4")] == [3, 4]
    assert [event.origin for event, _ in experiment.operations] == ["magic"] * 6
    say(shell, "pause")
    assert say(shell, "wait 0.2") is False
    say(shell, "resume")
    assert say(shell, "wait") is True
    assert say(shell, "devices").empty, "runs train in the kernel"
    frame = say(shell, "status")
    assert list(frame["state"]) == ["completed", "completed"]
    assert "step" in str(say(shell, "log best"))
    written = say(shell, "generate 1-2 'the cat' --tokens 3")
    assert (list(written.columns), list(written.index)) == (["run 1", "run 2"], ["the cat"])
    with pytest.raises(UsageError, match="cannot retry run 1: it did not run out of memory"):
        say(shell, "retry 1")
    path = say(shell, "export best adapter")
    assert (path / "adapter_config.json").exists()
    assert say(shell, "end") is None
    assert list(say(shell, "list")["experiment"]) == ["grid"]
    assert say(shell, "open grid").experiment_name == "grid"


def test_help_and_doctor(shell):
    text = str(say(shell, ""))
    for name in (
        "demo",
        "run",
        "status",
        "panel",
        "stop",
        "resume",
        "delete",
        "clone",
        "wait",
        "log",
        "export",
        "open",
    ):
        assert f"  {name} " in text
    assert "--warm-start" in str(say(shell, "help clone"))
    found = say(shell, "doctor")
    assert found.is_healthy
    assert {
        "Python",
        "torch",
        "device",
        "joint steps",
        "disk",
        "SQLite",
        "ipykernel",
        "jupyterlab",
        "front end",
        "MLflow",
    } <= {finding.part for finding in found.findings}
    assert all(finding.remedy for finding in found.findings if finding.health == "bad")


def test_an_experiment_is_exported_verified_replayed_and_compared_by_lines(
    shell, monkeypatch, tmp_path
):
    from rf_notebook.session import opening
    from rf_notebook.session.cells import Sources
    from rf_notebook.shared import Planned

    setup = (
        "%load_ext rf_notebook\nfrom rf_notebook.testing.tiny import create_tiny, prompt_rows\n"
        "rows, few = prompt_rows(24, 1), prompt_rows(6, 2)"
    )
    launching = f"%%rapidfire run grid\n{GRID}"
    monkeypatch.setattr(opening, "sources_now", lambda: Sources(cells=(setup, launching)))
    shell.run_cell(setup)
    experiment = shell.run_cell_magic("rapidfire", "run grid", GRID)
    say(shell, "stop 2")
    say(shell, "resume 2")
    say(shell, "wait")
    say(shell, "end")

    path = say(shell, "export grid out/grid.ipynb")
    assert path == Path("out/grid.ipynb")
    assert say(shell, "export grid out/page --html") == Path("out/page.html")
    assert "<svg" in Path("out/page.html").read_text()
    assert say(shell, "verify out/grid.ipynb")
    assert str(say(shell, "verify out/grid.ipynb")).count("✓") == 7
    planned = say(shell, "replay out/grid.ipynb")
    assert isinstance(planned, Planned)
    assert "%%rapidfire run grid" in str(planned)
    assert not Path("rf_experiments/grid-replay").exists()

    again = say(shell, "replay out/grid.ipynb --yes --name once-more")
    assert again.experiment_name == "once-more"
    say(shell, "wait")
    assert "is equal: 2 runs" in again.messages[-1]
    say(shell, "end")
    differences = say(shell, "diff grid once-more")
    assert set(differences.part) <= {
        "operations"
    }  # who asked is told, and it is the replay that repeats it
    assert say(shell, "diff out/grid.ipynb grid").empty
    assert [run.steps for run in again.runs] == [run.steps for run in experiment.runs]

    # A replay can be handed on, and replayed from what was handed on.
    say(shell, "export once-more out/second.zip")
    third = say(shell, "replay out/second.zip --yes --name third")
    say(shell, "wait")
    assert "is equal: 2 runs" in third.messages[-1]
    say(shell, "end")

    for line, sentence in [
        (
            "export nothing x.ipynb",
            "no experiment 'nothing' is recorded here; there are: grid, once-more, third.",
        ),
        ("export grid x.ipynb --merge", "--merge is for the adapter of a run"),
        ("export grid out/grid.ipynb", "is there already; give another name"),
        ("replay not-there.ipynb", "'not-there.ipynb' cannot be read: No such file or directory."),
        ("replay out/grid.ipynb --name third --yes", "'third' is there already"),
        ("replay another --yes", "--yes, --until and --name are for the replay of a file"),
        ("verify out/page.html", "'page.html' is not JSON that can be read"),
        ("diff grid nothing", "no experiment 'nothing' is recorded here"),
    ]:
        with pytest.raises(UsageError) as refused:
            say(shell, line)
        assert sentence in str(refused.value), line
