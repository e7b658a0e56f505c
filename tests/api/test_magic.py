"""%rapidfire in an IPython shell, whoever trains."""

from __future__ import annotations

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rf_notebook.core.run import RunState
from rf_notebook.session.commands import Commands
from rf_notebook.session.registry import forget_all, open_sessions
from tests.api.world import create, grid, rows

GRID = """\
model_name: fake
peft_config: {r: 4, target_modules: [q_proj]}
training_args:
  per_device_train_batch_size: 2
  num_train_epochs: 1
  learning_rate: [0.001, 0.003]
create_model_fn: create
train_dataset: rows
eval_dataset: few
"""


@pytest.fixture
def shell(tmp_path, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell(config=config)
    made.run_line_magic("load_ext", "rf_notebook")
    made.user_ns.update(create=create, rows=rows(200), few=rows(6))
    yield made
    for session in list(open_sessions.values()):
        Commands(session).end(cancel=True)
    forget_all()


def say(shell, line):
    return shell.run_line_magic("rapidfire", line)


def completions(shell, text):
    with provisionalcompleter():
        return [c.text for c in shell.Completer.completions(text, len(text))]


def test_variables_by_place_and_by_name(shell):
    shell.user_ns["search"] = grid()
    experiment = say(shell, "run mine search create rows eval_dataset=few num_chunks=2 seed=7")
    assert len(experiment.runs) == 1
    assert experiment.session.state.started.num_chunks == 2


def test_running_the_launching_line_again_gives_the_same_experiment(shell):
    shell.user_ns["search"] = grid(num_train_epochs=20)
    first = say(shell, "run again search create rows few")
    assert say(shell, "run again search create rows few") is first
    assert len(first.runs) == 1
    shell.user_ns["search"] = grid(num_train_epochs=20, learning_rate=9e-3)
    with pytest.raises(
        UsageError,
        match=r"is recorded with other arguments: run 1: training_args\.learning_rate was",
    ):
        say(shell, "run again search create rows few")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("stp 3", "no sub-command 'stp'; did you mean 'stop'"),
        ("stop", "required: RUN"),
        ("status", "there is no experiment yet"),
        ("open nothing", "no experiment 'nothing' is recorded here; there are: none"),
        ("run x nowhere", "there is no variable 'nowhere'"),
        ("run x", "name the variable that holds the search"),
        (
            "run x rows num_chunk=3",
            "run_fit has no argument 'num_chunk'; did you mean 'num_chunks'",
        ),
        ("wait soon", "invalid float"),
        ("log '", "No closing quotation"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(shell, line, sentence):
    with pytest.raises(UsageError) as caught:
        say(shell, line)
    assert sentence in str(caught.value)


def test_wrong_runs_and_edits_are_refused_in_one_sentence(shell):
    shell.run_cell_magic("rapidfire", "run grid", GRID)
    for line, sentence in (
        ("stop 9", "there is no run 9; the experiment's runs are: 1, 2"),
        ("stop one", "'one' is not a run"),
        ("stop 1-9", "there is no run 9"),
        ("resume 1", "only a stopped run can be resumed"),
        ("clone 1 learning_rat=3", "did you mean 'learning_rate'"),
        ("clone 1 fast", "write key=value"),
        ("clone 1,2 r=8", "give one run, not 2"),
    ):
        with pytest.raises(UsageError) as caught:
            say(shell, line)
        assert sentence in str(caught.value)


def test_completion_of_sub_commands_runs_keys_and_variables(shell):
    assert {"stop", "status"} <= set(completions(shell, "%rapidfire st"))
    shell.run_cell_magic("rapidfire", "run grid", GRID)
    assert completions(shell, "%rapidfire stop ") == ["1", "2", "all", "best"]
    assert "learning_rate=" in completions(shell, "%rapidfire clone 1 learn")
    assert "training_args.learning_rate=" in completions(
        shell, "%rapidfire clone 1 training_args.learn"
    )
    assert "create" in completions(shell, "%rapidfire run x crea")


def test_loading_the_extension_twice_registers_it_once(shell):
    before = len(shell.Completer.custom_matchers)
    shell.run_line_magic("reload_ext", "rf_notebook")
    assert len(shell.Completer.custom_matchers) == before


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["stop 1", "resume 1"], ["StopRun", "ResumeRun"]),
        (["stop 1,2", "resume all"], ["StopRun", "StopRun", "ResumeRun", "ResumeRun"]),
        (["clone 2 learning_rate=0.5 r=8"], ["CloneRun"]),
        (["clone 1 learning_rate=0.5,0.7"], ["CloneRun", "CloneRun"]),
        (["stop 2", "delete 2"], ["StopRun", "DeleteRun"]),
    ],
)
def test_operations_are_recorded_as_the_magics(shell, lines, names):
    experiment = shell.run_cell_magic("rapidfire", "run grid", GRID)
    for line in lines:
        say(shell, line)
    found = [(type(event.operation).__name__, event.origin) for event, _ in experiment.operations]
    assert found == [(name, "magic") for name in names]


def test_everything_that_is_asked_stands_in_the_log_with_who_asked(shell):
    experiment = shell.run_cell_magic("rapidfire", "run grid", GRID)
    for line in (
        "pause",
        "pin 1",
        "automate halving",
        "automate off",
        "unpin 1",
        "generate 1 hello",
        "resume",
    ):
        say(shell, line)
    experiment.stop(2).result()
    experiment.end(cancel=True)
    said = [
        line.split(" INFO ")[1]
        for line in experiment.get_log_file_path().read_text().splitlines()
        if " INFO " in line
    ]
    assert [line for line in said if line.startswith(("magic: ", "python: "))] == [
        "magic: pause",
        "magic: pin run 1",
        "magic: automate with halving",
        "magic: no policy",
        "magic: unpin run 1",
        "magic: generate from run 1",
        "magic: resume",
        "python: stop run 2",
        "python: cancel",
    ]


def test_a_script_without_a_shell_can_run_lines(shell):
    from rf_notebook.magic.extension import run_in_namespace

    namespace = {"create": create, "rows": rows(24), "search": grid()}
    experiment = run_in_namespace(namespace, "run mine search create rows", None)
    assert experiment.experiment_name == "mine"
    assert run_in_namespace(namespace, "wait", None) is True
    assert experiment.run(1).state is RunState.COMPLETED


def test_labels(shell):
    shell.user_ns["search"] = grid()
    experiment = say(shell, "run named search create rows few")
    say(shell, "label 1 --name 'small rate' --tags keep,paper")
    say(shell, "label --note 'what is it for'")
    run = experiment.runs[0]
    assert (run.name, run.tags, experiment.note) == (
        "small rate",
        ("keep", "paper"),
        "what is it for",
    )
    assert list(say(shell, "status")["name"]) == ["small rate"]
    say(shell, "label 1 --name '' --tags ''")
    assert (run.name, run.tags) == ("run 1", ())
    with pytest.raises(UsageError, match="give a name, tags or a note"):
        say(shell, "label 1")


def test_remove_says_what_would_go_before_it_goes(shell):
    shell.user_ns["search"] = grid()
    experiment = say(shell, "run 'going soon' search create rows few")
    folder = experiment.folder
    say(shell, "end")
    told = str(say(shell, "remove 'going soon'"))
    assert str(folder) in told
    assert "%rapidfire remove 'going soon' --yes" in told
    assert folder.exists()
    assert "is removed" in str(say(shell, "remove 'going soon' --yes"))
    assert not folder.exists()
    with pytest.raises(UsageError, match="no experiment 'going soon' is recorded here"):
        say(shell, "remove 'going soon' --yes")
    with pytest.raises(UsageError, match="there is no experiment yet"):
        say(shell, "status")
