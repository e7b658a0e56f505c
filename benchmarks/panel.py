"""What does the panel cost?

Kernel time and bytes an update, frames a second in the browser, throughput of the training.

The first two on a made-up experiment of 64 runs with 10,000 points each, in four charts that take
turns, one an update: before every update ten points are added to one run (as when runs take turns), or
to every run (as in joint steps). The browser's on the same experiment, where every run grows, in
JupyterLab and headless Chromium, whose software rendering shares the CPU with everything else. The
last with real training: one experiment, whose panel is live for two seconds and not for two.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Report
from rf_notebook.testing.fake_session import FakeSession, many_runs, points
from rf_notebook.widgets.panel import Panel

RUNS, POINTS, ADDED = 64, 10_000, 10
METRICS = ("loss", "eval_loss", "reward", "grad_norm")
UPDATES = 60
_WATCHED_SECONDS = 15
_WINDOW_SECONDS = 2.0
_WINDOWS = 5
#: Sends what is new from a thread, as training does, while the page is watched.
_CELL = """
import threading, time
from rf_notebook.testing.fake_session import FakeSession, many_runs, points
from rf_notebook.widgets.display import ExperimentDisplay
METRICS = {metrics!r}
host = FakeSession(many_runs({runs}, {points}, metrics=METRICS))
def grow():
    n = {points}
    while True:
        for run_id in range(1, {runs} + 1):
            host.add_live(run_id, points(run_id, 2, first=n + 1, metrics=METRICS))
        n += 2
        time.sleep(0.3)
threading.Thread(target=grow, daemon=True).start()
shown = ExperimentDisplay(host, host)
for _ in METRICS[1:]:
    shown.panel.curves.add.click()
shown
"""
#: The same experiment told to the sidebar alone.
_SIDEBAR_CELL = """
import threading, time
from rf_notebook.jupyterlab.link import connect
from rf_notebook.testing.fake_session import FakeExperiments, FakeSession, many_runs, points
host = FakeSession(many_runs({runs}, {points}))
fed = threading.Event()
def grow():
    n = {points}
    while True:
        fed.wait()
        for run_id in range(1, {runs} + 1):
            host.add_live(run_id, points(run_id, 2, first=n + 1))
        n += 2
        time.sleep(0.3)
threading.Thread(target=grow, daemon=True).start()
connect(lambda: FakeExperiments(host))
"""
_COUNT_FRAMES = """() => {
    window.rfFrames = {count: 0, started: performance.now(), longest: 0};
    let last = performance.now();
    const next = (now) => {
        window.rfFrames.count++;
        window.rfFrames.longest = Math.max(window.rfFrames.longest, now - last);
        last = now;
        requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
}"""


_CLICK = """(name) => {
    const found = [...document.querySelectorAll('.rf-panel button:enabled')].find((b) => b.offsetParent && b.textContent.includes(name));
    const now = Date.now() / 1000;
    found.click();
    return now;
}"""


def measure_updates(report: Report) -> None:
    """Kernel time and bytes of an update."""
    for words, is_joint in (("one run has news", False), ("every run has news", True)):
        seconds, sent = _updates(is_joint=is_joint)
        report.row(f"kernel CPU an update, {words}, median", 1e3 * statistics.median(seconds), "ms")
        report.row(f"kernel CPU an update, {words}, highest", 1e3 * max(seconds), "ms")
        report.row(f"bytes an update, {words}, median", statistics.median(sent) / 1e3, "kB")
        report.row(f"bytes an update, {words}, highest", max(sent) / 1e3, "kB")
    report.conditions = {
        "runs": RUNS,
        "points_a_run": POINTS,
        "charts": len(METRICS),
        "added_an_update": ADDED,
    }


def _updates(*, is_joint: bool) -> tuple[list[float], list[float]]:
    """CPU seconds and bytes of updates, the first few left out."""
    host = FakeSession(many_runs(RUNS, POINTS, metrics=METRICS))
    panel = Panel(host, host)
    for _ in METRICS[1:]:
        panel.curves.add.click()
    sent: list[float] = [0]

    def count(change: Any) -> None:
        if change["owner"].keys and change["name"] in change["owner"].keys:
            sent[-1] += _bytes(change["new"])

    for widget in (panel.header, panel.table, panel.toast, panel.selection_label):
        widget.observe(count)
    for one in panel.curves.charts:
        _count_messages(one.chart, sent)
    seconds = []
    for turn in range(UPDATES):
        runs = range(1, RUNS + 1) if is_joint else [turn % RUNS + 1]
        passed = turn if is_joint else turn // RUNS
        for run_id in runs:
            made = points(run_id, ADDED, first=POINTS + 1 + ADDED * passed, metrics=METRICS)
            host.add_live(run_id, made)
        sent.append(0)
        began = time.thread_time()
        panel.update_in_turn()
        seconds.append(time.thread_time() - began)
    return seconds[5:], sent[6:]


def _count_messages(chart: Any, sent: list[float]) -> None:
    """Add what a chart sends to pages, of which one has asked for the whole of it."""
    send = chart.send

    def counted(message: dict[str, Any], buffers: Any = None) -> None:
        sent[-1] += _bytes(message) + sum(map(len, buffers or []))
        send(message, buffers)

    chart.send = counted
    chart._received(chart, {"kind": "whole"}, [])  # noqa: SLF001 - as a page's message arrives


def measure_browser(report: Report) -> None:
    """Frames a second while updates come, and what the first view needs."""
    from tests.ui.lab import ANSWERING, Lab, Notebook, browser, write_notebook

    folder = Path(tempfile.mkdtemp(prefix="rf_bench_"))
    (folder / "notebooks").mkdir()
    write_notebook(
        folder / "notebooks" / "panel.ipynb",
        [ANSWERING, _CELL.format(runs=RUNS, points=POINTS, metrics=METRICS), "time.sleep(25)"],
    )
    lab = Lab(folder / "notebooks", folder, is_warm=False)
    try:
        with browser() as running:
            page = running.new_page(viewport={"width": 1300, "height": 1400})
            received = [0]

            def watch(socket: Any) -> None:
                socket.on(
                    "framereceived", lambda frame: received.__setitem__(0, received[0] + len(frame))
                )

            page.on("websocket", watch)
            opened = Notebook(lab, page, "panel.ipynb").open()
            opened.run_cell(0)
            before = received[0]
            opened.start_cell(1)
            page.wait_for_selector(".rf-panel .rf-chart .main-svg", timeout=60_000)
            report.row(
                "first view, from running the cell to the drawn chart",
                (received[0] - before) / 1e6,
                "MB",
            )
            page.wait_for_timeout(3000)
            before = received[0]
            page.evaluate(_COUNT_FRAMES)
            page.wait_for_timeout(_WATCHED_SECONDS * 1000)
            frames = page.evaluate(
                "() => ({...window.rfFrames, seconds: (performance.now() - window.rfFrames.started) / 1000})"
            )
            report.row(
                "frames a second while it updates", frames["count"] / frames["seconds"], "1/s"
            )
            report.row("longest time between two frames", frames["longest"], "ms")
            report.row(
                "received while it updates",
                (received[0] - before) / frames["seconds"] / 1e3,
                "kB/s",
            )
            opened.start_cell(2)
            page.wait_for_timeout(1000)
            late = []
            for click in range(10):
                name = "Stop" if click % 2 == 0 else "Resume"
                if click == 0:
                    opened.select(1)
                page.locator(".rf-panel button:enabled", has_text=name).first.wait_for()
                # The moment of the click itself, by the page's clock, which is this machine's.
                clicked = page.evaluate(_CLICK, name)
                opened.wait_python(f"len(host.asked_at) > {click}")
                late.append(opened.python(f"host.asked_at[{click}]") - clicked)
            report.row(
                "click to mailbox while a cell blocks, median", 1e3 * statistics.median(late), "ms"
            )
            report.row("click to mailbox while a cell blocks, highest of 10", 1e3 * max(late), "ms")
    finally:
        lab.stop()
    report.conditions = {
        "runs": RUNS,
        "points_a_run": POINTS,
        "browser": "headless Chromium, software rendering",
    }


def measure_sidebar(report: Report) -> None:
    """What the open sidebar costs the page and the kernel while an experiment updates."""
    from tests.ui.lab import ANSWERING, Lab, Notebook, browser, write_notebook

    folder = Path(tempfile.mkdtemp(prefix="rf_bench_"))
    (folder / "notebooks").mkdir()
    cells = [ANSWERING, _SIDEBAR_CELL.format(runs=RUNS, points=POINTS)]
    write_notebook(folder / "notebooks" / "sidebar.ipynb", cells)
    lab = Lab(folder / "notebooks", folder, is_warm=False)
    try:
        with browser() as running:
            page = running.new_page(viewport={"width": 1300, "height": 1400})
            opened = Notebook(lab, page, "sidebar.ipynb").open()
            opened.run_cell(0)
            opened.run_cell(1)
            page.evaluate(
                "async () => { await window.jupyterapp.commands.execute('rf-notebook:show'); }"
            )
            page.wait_for_selector(f".rfl-run[data-run='{RUNS}']")
            metrics = page.context.new_cdp_session(page)
            metrics.send(
                "Performance.enable", {"timeDomain": "threadTicks"}
            )  # CPU time, whatever else the machine does

            def busy_share() -> float:
                """Of the page's main thread, all its work counted.

                Scripts, layout, styles, painting.
                """
                before, began = _page_seconds(metrics), time.monotonic()
                page.wait_for_timeout(_WATCHED_SECONDS * 1000)
                return (_page_seconds(metrics) - before) / (time.monotonic() - began)

            rest, updating, kernel = [], [], []
            for _ in range(_WINDOWS):
                page.wait_for_timeout(3000)
                rest.append(busy_share())
                opened.python("fed.set()")
                page.wait_for_timeout(3000)
                began = opened.python("time.process_time()")
                updating.append(busy_share())
                kernel.append((opened.python("time.process_time()") - began) / _WATCHED_SECONDS)
                opened.python("fed.clear()")
            added = [new - old for new, old in zip(updating, rest, strict=True)]
            report.row(
                "the page's main thread with the sidebar at rest, median",
                100 * statistics.median(rest),
                "%",
            )
            report.row(
                "the page's main thread while it updates, median",
                100 * statistics.median(updating),
                "%",
            )
            report.row("added by the updates, median", 100 * statistics.median(added), "%")
            report.row("added by the updates, highest", 100 * max(added), "%")
            report.row(
                "kernel CPU, the made-up training included, median",
                100 * statistics.median(kernel),
                "%",
            )
    finally:
        lab.stop()
    report.conditions = {
        "runs": RUNS,
        "points_a_run": POINTS,
        "every_seconds": 2,
        "windows": _WINDOWS,
        "watched_seconds": _WATCHED_SECONDS,
        "all_runs_get_points": True,
    }


def _page_seconds(metrics: Any) -> float:
    found = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}
    return float(found["TaskDuration"])


def measure_overhead(report: Report) -> None:
    """Training with and without a live panel."""
    from rf_notebook import Experiment, demo
    from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
    from rf_notebook.session.commands import Commands

    configs = RFModelConfig(
        model_name=demo.MODEL_NAME,
        formatting_func=demo.format_row,
        peft_config=RFLoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
        training_args=RFSFTConfig(
            learning_rate=List([5e-4, 1e-3, 2e-3, 5e-3]),
            per_device_train_batch_size=8,
            num_train_epochs=1,
            max_length=128,
            logging_steps=1,
            gradient_checkpointing=False,
            bf16=False,
        ),
    )
    experiment = Experiment("overhead", experiment_path=Path(tempfile.mkdtemp(prefix="rf_bench_")))
    rows = demo.train_dataset(int(os.environ.get("RF_BENCH_ROWS", "2000")))
    experiment.run_fit(
        RFGridSearch(configs, "SFT"), demo.create_model, rows, num_chunks=4, display=False
    )
    thread = experiment.session.thread
    assert thread is not None
    panel = Panel(experiment.session, Commands(experiment.session))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    last: tuple[int, float] | None = None
    listener = thread.engine.fleet.listener

    def heard(run_id: int, progress: Any, point: Any) -> None:
        """Notes how long each step took, within a turn, and whether the panel was live then."""
        nonlocal last
        listener(run_id, progress, point)
        if point is None:
            return
        now = time.perf_counter()
        if last is not None and last[0] == run_id:
            seconds[panel.is_live].append(now - last[1])
        last = (run_id, now)

    while not any(r.steps > 5 for r in experiment.runs):
        time.sleep(0.05)
    thread.engine.fleet.listener = heard
    until = time.monotonic() + float(os.environ.get("RF_BENCH_SECONDS", "150"))
    while time.monotonic() < until and not thread.engine.mailbox.idle.is_set():
        panel.start()
        time.sleep(_WINDOW_SECONDS)
        panel.close()
        time.sleep(_WINDOW_SECONDS)
    experiment.end(cancel=True)
    # Steps that fall together with something else on the machine are as many in both; the highest
    # hundredth is left out.
    means = {
        live: statistics.fmean(sorted(steps)[: int(0.99 * len(steps))])
        for live, steps in seconds.items()
    }
    report.row("a step without a panel, mean", 1e3 * means[False], "ms")
    report.row("a step with a live panel, mean", 1e3 * means[True], "ms")
    report.row("ratio", means[True] / means[False], "x")
    report.conditions = {
        "steps": [len(seconds[False]), len(seconds[True])],
        "windows_seconds": _WINDOW_SECONDS,
        "configs": 4,
        "logging_steps": 1,
        "page_open": False,
    }


def _bytes(value: Any) -> int:
    """As a comm sends it: bytes as buffers, the rest as JSON."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict) and any(isinstance(one, bytes) for one in value.values()):
        return sum(_bytes(one) for one in value.values())
    return len(json.dumps(value))
