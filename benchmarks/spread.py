"""What does a model over two devices cost, and what do runs gain that fill its stages together?"""

from __future__ import annotations

from unittest.mock import patch

from accelerate import dispatch_model

from benchmarks.real import Joint, joint, plain_of_all
from benchmarks.real_world import base_of, searched, sft_rows
from benchmarks.report import Report
from rf_notebook.core.fleet import KERNEL, DeviceFacts
from rf_notebook.planning.fusion import Execution
from rf_notebook.runners.in_kernel import KernelFleet
from rf_notebook.training.device import run_devices, spread_over
from rf_notebook.training.stages import spread, stage_map, stays_where_it_is


def model_over_two(report: Report) -> None:
    """A model over two devices: runs that fill its stages, against plain trl over the same map.

    Plain trl has accelerate's own hooks, as after ``device_map="auto"``.
    """
    spread_over(2)
    base, rows = base_of("8B"), sft_rows()
    dispatch_model(
        base,
        stage_map(base, run_devices()),
        main_device=run_devices()[0],
        skip_keys=stays_where_it_is(base),
        force_hooks=True,
    )
    sizes = {str(device): 0 for device in run_devices()}
    for weight in base.parameters():
        sizes[str(weight.device)] += weight.nbytes
    for number, size in enumerate(sizes.values()):
        report.row(f"weights of stage {number}", size / 2**30, "GiB")
    facts = [DeviceFacts(name=KERNEL, gpus=2)]
    musts = {4: 1.35, 8: 1.55}
    naive = {
        count: plain_of_all(base, rows, searched(count), gradient_checkpointing=False)
        for count in musts
    }
    base = spread(base, run_devices())

    def together(count: int) -> Joint:
        with patch.object(KernelFleet, "devices", lambda _self: facts):
            return joint(
                base,
                rows,
                searched(count),
                execution=Execution.EXACT,
                gradient_checkpointing=False,
            )

    try:
        for count, must in musts.items():
            filled = together(count)
            name = f"{count} configs over two devices"
            report.row(
                f"{name}: plain trl, one after another", naive[count] * 1000, "ms a step of all"
            )
            report.row(f"{name}: together", filled.seconds * 1000, "ms a step of all")
            report.row(
                f"{name}: against plain trl", naive[count] / filled.seconds, f"x (must {must})"
            )
            report.row(f"{name}: peak memory of both", filled.peak_gib, "GiB")
    finally:
        spread_over(1)
