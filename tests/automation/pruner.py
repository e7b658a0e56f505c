"""A callback as RapidFire AI's users write them, which several tests set to work."""

from __future__ import annotations

from rf_notebook.automl.callbacks import RunDecision


class Pruner:
    """In RapidFire's style: prunes what is worse than the mean so far, and replaces it twice."""

    def __init__(self, metric):
        self.metric, self.configs, self.seen, self.final = metric, {}, {}, None

    def register_runs(self, run_id_to_config):
        self.configs.update(run_id_to_config)

    def on_shard_complete(self, run_id, shard_id, metrics):
        (_, value) = metrics[self.metric][-1]
        before = self.seen.setdefault(shard_id, [])
        before.append(value)
        if len(before) > 3 and value > sum(before) / len(before):
            config = {"learning_rate": 0.3} if len(self.configs) < 10 else None
            return RunDecision("prune", config)
        return RunDecision("continue")

    def finalize(self, final_metrics):
        assert self.final is None
        self.final = final_metrics
