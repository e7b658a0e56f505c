"""Workers on the machines of a Ray cluster.

The kernel talks to a bridge, a process beside it, and that to the cluster: nothing of Ray is imported
in the kernel. On a node an actor carries messages and files to a worker process, the same as on one
machine.
"""
