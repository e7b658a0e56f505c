"""What does the panel cost: kernel time and bytes an update, frames a second in the browser, throughput of the training?

The first two on a made-up experiment of 32 runs with 10,000 points each, to which ten points are added before every
update. The browser's on the same experiment, in JupyterLab and headless Chromium, whose software rendering shares the
CPU with everything else. The last with real training, in one process, with and without the panel in turns.
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
from rf_notebook.testing.fake_host import FakeHost, many_runs, points
from rf_notebook.widgets.panel import Panel

RUNS, POINTS, ADDED = 32, 10_000, 10
UPDATES = 60
_WATCHED_SECONDS = 15
#: Sends what is new from a thread, as training does, while the page is watched.
_CELL = """
import threading, time
from rf_notebook.testing.fake_host import FakeHost, many_runs, points
from rf_notebook.widgets.display import ExperimentDisplay
host = FakeHost(many_runs({runs}, {points}))
def grow():
    n = {points}
    while True:
        for run_id in range(1, {runs} + 1):
            host.add_live(run_id, points(run_id, 2, first=n + 1))
        n += 2
        time.sleep(0.3)
threading.Thread(target=grow, daemon=True).start()
ExperimentDisplay(host)
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


def measure_updates(report: Report) -> None:
    """Kernel time and bytes of an update."""
    host = FakeHost(many_runs(RUNS, POINTS))
    panel = Panel(host)
    sent: list[int] = []

    def count(change: Any) -> None:
        if change["owner"].keys and change["name"] in change["owner"].keys:
            sent[-1] += _bytes(change["new"])

    for widget in (panel.header, panel.table, panel.toast, panel.selection_label, panel.chart):
        widget.observe(count)
    seconds = []
    for turn in range(UPDATES):
        run_id = turn % RUNS + 1
        host.add_live(run_id, points(run_id, ADDED, first=POINTS + 1 + ADDED * (turn // RUNS)))
        sent.append(0)
        began = time.thread_time()
        panel.update()
        seconds.append(time.thread_time() - began)
    report.row("kernel CPU an update, median", 1e3 * statistics.median(seconds[5:]), "ms")
    report.row("kernel CPU an update, highest", 1e3 * max(seconds[5:]), "ms")
    report.row("bytes an update, median", statistics.median(sent[5:]) / 1e3, "kB")
    report.row("bytes an update, highest", max(sent[5:]) / 1e3, "kB")
    report.conditions = {"runs": RUNS, "points_a_run": POINTS, "added_an_update": ADDED}


def measure_browser(report: Report) -> None:
    """Frames a second while updates come, and what the first view needs."""
    from tests.ui.lab import Lab, Notebook, browser, write_notebook

    folder = Path(tempfile.mkdtemp(prefix="rf_bench_"))
    (folder / "notebooks").mkdir()
    write_notebook(folder / "notebooks" / "panel.ipynb", [_CELL.format(runs=RUNS, points=POINTS)])
    lab = Lab(folder / "notebooks", folder)
    try:
        with browser() as running:
            page = running.new_page(viewport={"width": 1300, "height": 1400})
            received = [0]

            def watch(socket: Any) -> None:
                socket.on("framereceived", lambda frame: received.__setitem__(0, received[0] + len(frame)))

            page.on("websocket", watch)
            opened = Notebook(lab, page, "panel.ipynb").open()
            before = received[0]
            opened.start_cell(0)
            page.wait_for_selector(".rf-panel .rf-chart .main-svg", timeout=60_000)
            report.row("first view, from running the cell to the drawn chart", (received[0] - before) / 1e6, "MB")
            page.wait_for_timeout(3000)
            before = received[0]
            page.evaluate(_COUNT_FRAMES)
            page.wait_for_timeout(_WATCHED_SECONDS * 1000)
            frames = page.evaluate(
                "() => ({...window.rfFrames, seconds: (performance.now() - window.rfFrames.started) / 1000})"
            )
            report.row("frames a second while it updates", frames["count"] / frames["seconds"], "1/s")
            report.row("longest time between two frames", frames["longest"], "ms")
            report.row("received while it updates", (received[0] - before) / frames["seconds"] / 1e3, "kB/s")
    finally:
        lab.stop()
    report.conditions = {"runs": RUNS, "points_a_run": POINTS, "browser": "headless Chromium, software rendering"}


def measure_overhead(report: Report) -> None:
    """Training with and without a live panel."""
    from rf_notebook import Experiment, demo
    from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
    from rf_notebook.host import Host

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
    train = demo.train_dataset(int(os.environ.get("RF_BENCH_ROWS", "512")))

    def run(number: int, *, shown: bool) -> float:
        experiment = Experiment(f"run-{number}", experiment_path=folder)
        experiment.run_fit(RFGridSearch(configs, "SFT"), demo.create_model, train, num_chunks=4, display=False)
        panel = Panel(Host(experiment)) if shown else None
        while not any(r.steps for r in experiment.runs):
            time.sleep(0.005)
        began = time.perf_counter()
        if panel is not None:
            panel.start()
        thread = experiment._thread
        assert thread is not None
        thread.engine.mailbox.idle.wait()
        seconds = time.perf_counter() - began
        if panel is not None:
            panel.close()
        experiment.end()
        return seconds

    folder = Path(tempfile.mkdtemp(prefix="rf_bench_"))
    run(0, shown=False)
    pairs = [(run(2 * i + 1, shown=False), run(2 * i + 2, shown=True)) for i in range(4)]
    report.row("training without a panel, median", statistics.median(a for a, _ in pairs), "s")
    report.row("training with a live panel, median", statistics.median(b for _, b in pairs), "s")
    report.row("ratio, median of the pairs", statistics.median(b / a for a, b in pairs), "x")
    report.conditions = {"pairs": len(pairs), "configs": 4, "page_open": False}


def _bytes(value: Any) -> int:
    """As a comm sends it: bytes as buffers, the rest as JSON."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict) and any(isinstance(one, bytes) for one in value.values()):
        return sum(_bytes(one) for one in value.values())
    return len(json.dumps(value))
