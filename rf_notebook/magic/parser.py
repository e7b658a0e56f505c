"""Which sub-commands does %rapidfire have, and with which arguments?"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from IPython.core.error import UsageError

#: Arguments of ``run_fit`` that may be given in this order.
POSITIONAL = ("param_config", "create_model_fn", "train_dataset", "eval_dataset")
HELP = {
    "demo": "start the offline demo: four configs on a small model",
    "run": "start an experiment from variables, or, as %%rapidfire run NAME, from a YAML grid in the cell",
    "status": "a table of the runs",
    "devices": "which device trains and holds which runs, and its memory",
    "panel": "show the live panel here",
    "stop": "take runs out of the rotation; nothing is lost",
    "resume": "put stopped runs back; without RUN, continue after pause",
    "pause": "no run gets a turn until resume",
    "delete": "remove runs, their memory and their checkpoints",
    "clone": "a new run: a run's config with edits; several values make several clones",
    "retry": "a run that ran out of memory once more, with half its batch and twice its accumulation",
    "automate": "let a policy decide at chunk boundaries: halving, async, median, rules, a variable; off takes the wheel back",
    "label": "give runs a name, tags or a note, or, without RUN, the experiment tags or a note",
    "pin": "policies leave runs alone",
    "unpin": "the inverse of pin",
    "undo": "take back what a policy did last to a run",
    "decisions": "what policies did and why",
    "generate": "what the models of runs write to a prompt, side by side",
    "wait": "wait until no run wants to train; interrupting the cell ends the waiting, not the training",
    "log": "what happened to a run, line by line",
    "export": "write a run's adapter to a folder; with an experiment's name, a notebook, page, folder or zip of it",
    "open": "open a recorded experiment",
    "list": "the recorded experiments",
    "remove": "remove a recorded experiment from the disk; without --yes it says what would go",
    "replay": "train everything again, operations at their steps, and compare: this experiment, or that of a FILE",
    "verify": "check the experiment in a notebook, folder or zip, without training",
    "diff": "in what two experiments differ, by name or by file",
    "end": "wait for the runs, then close; --now stops at the next step and keeps everything",
    "doctor": "look whether everything is there that an experiment needs",
    "help": "this text, or that of one sub-command",
}


class _Parser(argparse.ArgumentParser):
    """argparse that raises one sentence instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"%rapidfire: {message}. See %rapidfire help{self._topic()}.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise Done(message or "")

    def _topic(self) -> str:
        words = self.prog.split()
        return f" {words[1]}" if len(words) > 1 else ""


class Done(Exception):  # noqa: N818 - no error: help was printed
    """The text of the help that was asked for."""


def parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each sub-command."""
    made_parser = _Parser(prog="%rapidfire", add_help=False)
    commands = made_parser.add_subparsers(
        dest="command", metavar="SUB-COMMAND", parser_class=_Parser
    )

    made: dict[str, argparse.ArgumentParser] = {}

    def add(name: str, *arguments: tuple[tuple[str, ...], dict[str, Any]]) -> None:
        made[name] = commands.add_parser(
            name, prog=f"%rapidfire {name}", description=HELP[name], add_help=False
        )
        for flags, options in arguments:
            made[name].add_argument(*flags, **options)

    run = (("run",), {"metavar": "RUN", "help": "an id, or best"})
    runs = (("runs",), {"metavar": "RUN", "nargs": "+", "help": "ids: 3, 3,5, 2-4, best or all"})
    add("demo", (("name",), {"nargs": "?", "default": "demo", "metavar": "NAME"}))
    add(
        "run",
        (("name",), {"metavar": "NAME", "help": "of the experiment"}),
        (
            ("variables",),
            {
                "nargs": "*",
                "metavar": "VARIABLE",
                "help": f"{' '.join(POSITIONAL)}, in this order or as name=variable",
            },
        ),
    )
    add("status")
    add("devices")
    add("panel")
    add("stop", runs)
    add("resume", (runs[0], {**runs[1], "nargs": "*"}))
    add("pause")
    add("delete", runs)
    add(
        "clone",
        run,
        (
            ("edits",),
            {
                "nargs": "*",
                "metavar": "KEY=VALUE",
                "help": "learning_rate=5e-5; several: r=8,16 or 8..32 step 8",
            },
        ),
        (
            ("--warm-start",),
            {"action": "store_true", "help": "start from the parent's adapter as it is now"},
        ),
    )
    add("retry", run)
    add(
        "automate",
        (
            ("policy",),
            {
                "metavar": "POLICY",
                "help": "halving, async, median, rules, off, or a variable that holds a policy",
            },
        ),
        (
            ("settings",),
            {"nargs": "*", "metavar": "KEY=VALUE", "help": "of a built-in one: metric=loss eta=3"},
        ),
    )
    add(
        "label",
        (runs[0], {**runs[1], "nargs": "*"}),
        (("--name",), {"help": "of one run; in quotes when it has spaces"}),
        (("--tags",), {"metavar": "A,B", "help": "all that it has from now on; '' for none"}),
        (("--note",), {"metavar": "TEXT", "help": "in quotes; '' takes it away"}),
    )
    add("pin", runs)
    add("unpin", runs)
    add("undo", run)
    add("decisions")
    add(
        "generate",
        (("runs",), {"metavar": "RUN", "help": "3, 3,5, 2-4, best or all"}),
        (("prompts",), {"nargs": "+", "metavar": "PROMPT", "help": "in quotes when it has spaces"}),
        (
            ("--tokens",),
            {"type": int, "default": 64, "help": "new tokens of each answer at most; 64"},
        ),
    )
    add("wait", (("seconds",), {"nargs": "?", "type": float, "metavar": "SECONDS"}))
    add("log", run)
    add(
        "export",
        (("run",), {"metavar": "RUN|NAME", "help": "an id or best; or the name of an experiment"}),
        (
            ("path",),
            {"metavar": "PATH", "help": "of an experiment: a new .ipynb, .html, .zip, or a folder"},
        ),
        (("--merge",), {"action": "store_true", "help": "whole weights"}),
        (
            ("--html",),
            {"action": "store_true", "help": "of an experiment: one page that needs nothing else"},
        ),
    )
    add("open", (("name",), {"metavar": "NAME"}))
    add("list")
    add(
        "remove",
        (("name",), {"metavar": "NAME"}),
        (("--yes",), {"action": "store_true", "help": "really remove it"}),
    )
    add(
        "replay",
        (
            ("what",),
            {
                "nargs": "?",
                "metavar": "FILE|NAME",
                "help": "a file to replay, or this one's new name",
            },
        ),
        (
            ("--yes",),
            {
                "action": "store_true",
                "help": "run the code of the file; without it you see what would be run",
            },
        ),
        (("--name",), {"help": "of the new experiment"}),
        (("--until",), {"metavar": "RUN@CHUNK", "help": "pause there and let me take over"}),
        (
            ("--accept-changes",),
            {"action": "store_true", "help": "also when the cells make something else now"},
        ),
    )
    add("verify", (("file",), {"metavar": "FILE"}))
    add("diff", (("first",), {"metavar": "A"}), (("second",), {"metavar": "B"}))
    add("end", (("--now",), {"action": "store_true"}))
    add(
        "doctor",
        (("--cluster",), {"metavar": "ADDRESS", "help": "of a Ray cluster to look at, too"}),
        (("--allow-unauthenticated",), {"action": "store_true", "help": "also without a token"}),
        (("--storage",), {"metavar": "ADDRESS", "help": "that the cluster's nodes are to share"}),
    )
    add("help", (("topic",), {"nargs": "?", "metavar": "SUB-COMMAND"}))
    return made_parser, made
