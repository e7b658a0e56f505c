"""The loop that gives runs their turns and obeys operations between steps."""
