"""Stands for a child of the server: PROGRAM ARGUMENT..., with the socket in RF_TEST_WARM.

It passes signals on, ends with the child's status, and takes the child along when it is killed. Run
as a script, and light: it is what a kernel's manager starts.
"""

import json
import os
import signal
import socket
import sys


def main() -> int:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["RF_TEST_WARM"])
    request = {"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}  # noqa: PTH109 - importing pathlib takes time
    socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
    answers = connection.makefile()
    child = json.loads(answers.readline())["pid"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    line = answers.readline()
    status = json.loads(line)["status"] if line else 1
    if status < 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
