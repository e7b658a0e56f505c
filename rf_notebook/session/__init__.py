"""What is open: one experiment in this process, how it begins, and what can be asked of it."""
