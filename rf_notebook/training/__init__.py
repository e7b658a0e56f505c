"""Real trainers: one TRL trainer per run, parked in its own thread, over one resident base model."""
