"""Where runners live: in the kernel, or in a process of their own."""
