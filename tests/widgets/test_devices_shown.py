"""Where runs train, how much their devices are at work, and what that costs."""

from __future__ import annotations

import re
from dataclasses import replace

from rf_notebook.core.events import (
    DevicesChosen,
    Recorded,
    RunAdded,
)
from rf_notebook.core.status import DeviceStatus, Status
from rf_notebook.results.frames import devices_frame
from rf_notebook.results.times import etas
from rf_notebook.testing.fake_session import (
    config,
    points,
    recorded_state,
    started,
    trained,
)
from rf_notebook.views.document import to_html
from rf_notebook.views.header import header
from rf_notebook.views.runs_table import runs_table_frame
from rf_notebook.views.schedule import schedule

OPEN = Status(open=True)


def of_two_devices():
    """Runs 1 and 2 in joint steps on one device, run 3 on another at the same time."""
    state = recorded_state([started(), *(RunAdded(run_id=n, config=config()) for n in (1, 2, 3))])
    turns = [
        DevicesChosen(devices={"cuda:0": "H200", "cuda:1": "H200"}),
        replace(trained(1, points(1, 2)), fused_with=(2,), device="cuda:0"),
        replace(trained(2, points(2, 2)), fused_with=(1,), device="cuda:0"),
        replace(trained(3, points(3, 2)), device="cuda:1", train_seconds=4.5),
    ]
    for one in turns:
        state.apply(Recorded(seq=state.last_seq + 1, at=2e9, event=one))
    return state


def test_several_devices_have_a_lane_each_and_their_time_counts_for_each():
    shown = to_html(schedule(of_two_devices()))
    for name in ("cuda:0", "cuda:1"):
        assert f">{name}</text>" in shown
    assert "run 1 on cuda:0: trained 2.00 s" in shown
    assert "5 s in all on 2 devices: 85.0% training, 15.0% evaluating" in shown
    heights = [float(one) for one in re.findall(r'height="([0-9.]+)"', shown)]
    assert sorted(set(heights)) == [7.0, 14.0], "runs of a joint turn lie one above the other"


def test_the_table_and_the_header_say_who_is_where():
    state = of_two_devices()
    frame = runs_table_frame(state)
    assert list(frame["on"]) == ["cuda:0", "cuda:0", "cuda:1"]
    assert "on" not in runs_table_frame(recorded_state([started()])).columns
    devices = [
        DeviceStatus(
            name=name,
            model="H200",
            training=(number,),
            holds=(number,),
            used_bytes=10**10 * number,
            total_bytes=10**11,
            is_gone=False,
        )
        for number, name in enumerate(state.devices, start=1)
    ]
    told = to_html(header("it", state, Status(open=True, devices=tuple(devices))))
    assert "cuda:0 <b>10 GB / 100 GB</b>" in told
    now = devices_frame(state, devices[:1]).set_index("device")
    assert now.loc["cuda:0", "training"] == [1]
    assert now.loc["cuda:0", "memory_gb"] == 10.0
    assert now.loc["cuda:1", "training"] == []
    assert list(now.chunks) == [2, 1]
    assert "host" not in now.columns
    there = devices_frame(state, [replace(devices[0], host="node-1")])
    assert list(there.host) == ["node-1", ""]


def test_the_header_tells_how_much_the_devices_were_at_work_and_what_it_costs():
    assert "at work" not in to_html(header("it", recorded_state([started()]), OPEN))
    state = of_two_devices()  # two devices, five seconds each
    told = to_html(header("it", state, OPEN))
    assert "<b>100%</b> of the time at work" in told
    assert "spent" not in told
    state.apply(
        Recorded(
            seq=state.last_seq + 1,
            at=2e9 + 10,
            event=replace(trained(3, points(3, 4)), device="cuda:1"),
        )
    )
    told = to_html(header("it", state, Status(open=True, price_per_hour=720.0)))
    spent = sum(run.train_seconds + run.overhead_seconds for run in state.runs.values())
    assert f"<b>{720 * spent / 3600:,.2f}</b> spent" in told
    left = max(etas(state).values())
    assert f"<b>{720 * 2 * left / 3600:,.2f}</b> to come" in told
    assert "<b>42%</b> of the time at work" in told, "12.5 of 30 seconds"
    state.apply(
        Recorded(
            seq=state.last_seq + 1,
            at=2e9 + 40_000,  # the next morning
            event=replace(trained(1, points(1, 4)), device="cuda:0"),
        )
    )
    told = to_html(header("it", state, OPEN))
    assert "<b>50%</b> of the time at work" in told, "one of two devices"
