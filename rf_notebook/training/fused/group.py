"""How do several runs advance in joint steps?

Each run trains in its own greenlet until it needs the base model; when all wait, what they wait for
is done for all at once. Between two rounds no run is inside a joint pass, so runs may park, end and
fail at any of their own steps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rf_notebook.training.fused.adapters import AdapterBlock, Stacked
from rf_notebook.training.fused.passes import Graph
from rf_notebook.training.fused.request import Backward, Elsewhere, Forward, NextTokens
from rf_notebook.training.parked import ParkedStatus
from rf_notebook.training.process_state import ProcessState

if TYPE_CHECKING:
    from rf_notebook.training.aside import Aside
    from rf_notebook.training.fused.joint_model import JointModel
    from rf_notebook.training.fused.member import Member
    from rf_notebook.training.parked import ParkedRun

#: What runs that wait for something outside may take together before the group looks around.
_LOOK_SECONDS = 0.02


class FusedGroup:
    """Runs over one base model, for one turn.

    Their adapters lie side by side from its first joint step until it is left, also while the runs
    are evaluated.
    """

    def __init__(self, model: JointModel, members: Sequence[Member]) -> None:
        """Nothing is changed before it is entered."""
        self._model = model
        self._members = list(members)
        self._stacked = Stacked([], {})

    def __enter__(self) -> FusedGroup:
        """Let the members' forwards be joint ones."""
        try:
            paths = (path for member in self._members for path in member.adapter.weights)
            self._model.route(list(dict.fromkeys(paths)))
            for member in self._members:
                member.attach()
        except BaseException as error:  # noqa: BLE001 - of the group, not of a run
            self._model.break_down(error)
        return self

    def __exit__(self, *_: object) -> None:
        """Give every member what is its own."""
        try:
            self._unstack(is_mid_step=False)
        finally:
            for member in self._members:
                member.detach()

    def advance(self, until: Mapping[Member, int]) -> None:
        """Train each member until its step.

        Returns when every one stands still, has ended or has failed.

        When the group itself fails, members between two steps stay as they are and members inside
        one fail.

        The caller holds PROCESS.
        """
        self._go_on({member: member.run for member in self._members}, until)

    def do_aside(self, work: Mapping[Member, Aside]) -> None:
        """Let members that stand still do something outside their course, their forwards together.

        The caller holds PROCESS.
        """
        self._go_on(work, dict.fromkeys(work, 0))

    def _go_on(
        self, doing: Mapping[Member, ParkedRun | Aside], until: Mapping[Member, int]
    ) -> None:
        if self._model.broken is not None:
            return
        notebook = ProcessState.of_notebook()
        own = {member: member.run for member in doing}
        try:
            for member, run in doing.items():
                member.run = run
                run.begin_jointly(until[member])
            self._train(list(doing), is_aside=doing != own)
        except BaseException as error:  # noqa: BLE001 - of the group, not of a run: room for the adapters side by side, say
            self._model.break_down(error)
            for member in doing:
                if (
                    member.run.status is ParkedStatus.WAITING
                ):  # inside a step, from which only an error leads out
                    member.run.request.error = error
                    member.run.go_on()
        finally:
            self._model.let_go_of_tokens()
            if not all(member.run.is_quiet for member in doing):
                notebook.random.install()
            notebook.install_beside_streams()
            for member, run in own.items():
                member.run = run

    def _train(self, members: Sequence[Member], *, is_aside: bool) -> None:
        ready = live = list(members)
        graphs: list[Graph] = []
        while live:
            if not graphs and self._is_to_be_stacked(live, is_aside=is_aside):
                self._stack(live)
            began = time.perf_counter()
            for member in ready:
                member.run.go_on()
            self._model.counts.own_seconds += time.perf_counter() - began
            live = [member for member in live if member.run.status is ParkedStatus.WAITING]
            writing = [m.run.request for m in live if isinstance(m.run.request, NextTokens)]
            elsewhere = [m for m in live if isinstance(m.run.request, Elsewhere)]
            if writing or elsewhere:  # tokens are written meanwhile; passes wait, to be joint
                answered_writers = self._decode(writing) if writing else []
                for member in elsewhere:
                    member.run.request.seconds = 0 if writing else _LOOK_SECONDS / len(elsewhere)
                ready = [*(request.member for request in answered_writers), *elsewhere]
                continue
            forwards = [m.run.request for m in live if isinstance(m.run.request, Forward)]
            if not forwards:
                self._backward(graphs, live)
                graphs, ready = [], live
                continue
            first = min(request.urgency for request in forwards)
            chosen = [request for request in forwards if request.urgency == first]
            are_done = all(
                not isinstance(r.member.run.request, Forward) for g in graphs for r in g.requests
            )
            answered, made = self._forward(chosen, graphs if are_done else ())
            ready = [request.member for request in answered]
            graphs += made
            # for want of memory; those whose backward is done now continue when all have had theirs
            if not answered:
                self._backward(graphs, live)
                graphs = []

    def _decode(self, requests: Sequence[NextTokens]) -> list[NextTokens]:
        """One token further; runs that write are answered before all others.

        Returns those that were; the others wait for room.
        """
        try:
            return self._model.decode(requests, self._stacked)
        except BaseException as error:  # noqa: BLE001 - whatever it is, each run can write by itself
            self._model.break_down(error)
            for request in requests:
                request.is_left_alone = True
            return list(requests)

    def _forward(
        self, requests: Sequence[Forward], waiting: Sequence[Graph]
    ) -> tuple[list[Forward], list[Graph]]:
        """As the joint model's, for requests of all kinds."""
        kinds: dict[object, list[Forward]] = {}
        for request in requests:
            kinds.setdefault(request.kind, []).append(request)
        answered, graphs = list[Forward](), list[Graph]()
        for same in kinds.values():
            try:
                done, made = self._model.forward(same, self._stacked, (*waiting, *graphs))
            except BaseException as error:  # noqa: BLE001 - whatever it is, each run can do the pass by itself
                self._model.break_down(error)
                for request in same:
                    request.is_left_alone = True
                answered += same
                continue
            for graph in made:
                for request in graph.requests:
                    request.member.graphs.append(graph)
            answered += done
            graphs += made
            if len(done) < len(same):
                break
        return answered, graphs

    def _backward(self, graphs: Sequence[Graph], live: Sequence[Member]) -> None:
        for place, graph in enumerate(graphs):
            try:
                self._model.backward(graph, self._stacked, graphs[place + 1 :])
            except BaseException as error:  # noqa: BLE001 - the members' own failure; others are not in this graph
                self._model.break_down(error)
                for request in graph.requests:
                    request.error = error
            for request in graph.requests:
                waits_for = request.member.run.request
                if request.error is not None and isinstance(waits_for, Backward):
                    waits_for.error = request.error
        for member in live:
            member.graphs.clear()

    # ---- where the weights lie

    def _is_to_be_stacked(self, live: Sequence[Member], *, is_aside: bool) -> bool:
        """Whether the adapters lie otherwise than these members need it.

        Those that learn are a whole block; without gradients a part of one serves as well.
        """
        placed = self._stacked.place
        return any(member not in placed for member in live) or (
            not is_aside and len(live) != len(placed)
        )

    def _stack(self, members: Sequence[Member]) -> None:
        """Lay the adapters of these members side by side, those of equal shape in one block."""
        self._unstack(is_mid_step=True)
        shapes: dict[object, list[Member]] = {}
        for member in members:
            shapes.setdefault(member.adapter.shape(), []).append(member)
        for number, same in enumerate(shapes.values()):
            block = AdapterBlock([member.adapter for member in same])
            self._stacked.blocks.append(block)
            for row, member in enumerate(same):
                self._stacked.place[member] = (number, row)
                moments = {name: flat[row] for name, flat in block.moments.items()}
                member.update_in(block.weights[row], block.gradients[row], moments, block.changed)

    def _unstack(self, *, is_mid_step: bool) -> None:
        for member in self._stacked.place:
            member.update_alone()
        for block in self._stacked.blocks:
            block.leave(is_mid_step=is_mid_step)
        self._stacked = Stacked([], {})
