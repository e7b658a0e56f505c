"""Whatever is done to an experiment, its record holds together and replays the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rf_notebook.core.events import RunAdded
from rf_notebook.engine.script import Script
from rf_notebook.record.against import (
    Standard,
    compare_with_record,
    operations_difference,
    script_of_record,
)
from rf_notebook.record.files import Shared
from rf_notebook.record.record import parse_record
from rf_notebook.record.recording import record_of
from rf_notebook.record.verify import verify
from tests.engine.test_script import KINDS, recorded_world
from tests.engine.world import World, configs
from tests.replay.test_verify import STARTED


@settings(max_examples=60, deadline=None)
@given(
    played=st.lists(
        st.tuples(st.integers(0, 120), st.sampled_from(KINDS), st.integers(1, 6)), max_size=10
    ),
)
def test_the_record_of_any_operations_holds_together_and_replays(played):
    folder = Path(tempfile.mkdtemp())
    try:
        first = configs()
        world = recorded_world(folder / "first", played, first)
        world.state.started = STARTED
        written = record_of(world.state)
        record = parse_record(written)
        assert record.as_json() == written
        findings = verify(Shared(Path("record.json"), record, None, ()))
        assert [finding.text for finding in findings if not finding.is_right] == []

        again = World(folder / "again")
        again.open(script=Script(script_of_record(record), lambda _state: "over"))
        again.engine.commit([RunAdded(run_id=i, config=c) for i, c in enumerate(first, start=1)])
        again.finish()
        differing = [
            one
            for one in compare_with_record(record, again.state, Standard(0.0, ""))
            if one.difference
        ]
        assert differing == []
        assert operations_difference(record, again.state) is None
    finally:
        shutil.rmtree(folder)
