"""What is known of an experiment: pure questions to its state."""
