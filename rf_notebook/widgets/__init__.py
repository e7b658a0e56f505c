"""What does a notebook show? The live panel, its static twin, and the parts of both."""
