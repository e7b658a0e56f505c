"""A stand-in of the Hugging Face Hub's API on this machine: repositories are made and take commits."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What it holds."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        """By repository and name."""
        self.made: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.status = 200
        """Of its answers."""
        self.address = ""


@contextmanager
def hub() -> Iterator[Hub]:
    """One that answers until the block ends."""
    held = Hub()

    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def answer(self, value: object, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            held.asked.append(f"GET {self.path}")
            self.answer({"error": "not here"}, 404)

        def do_POST(self) -> None:
            held.asked.append(f"POST {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if held.status != 200:
                self.answer({"error": "Invalid credentials in Authorization header"}, held.status)
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                held.made.append(asked)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                self.answer({"url": f"{held.address}/{name}", "name": name, "id": name})
            elif self.path.endswith("/preupload/main"):
                files = json.loads(body)["files"]
                self.answer(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for f in files
                        ]
                    }
                )
            elif "/commit/" in self.path:
                repo = "/".join(self.path.split("/")[3:5])
                for line in body.decode().splitlines():
                    told = json.loads(line)
                    if told["key"] == "file":
                        content = base64.b64decode(told["value"]["content"])
                        held.files.setdefault(repo, {})[told["value"]["path"]] = content
                self.answer(
                    {
                        "commitUrl": f"{held.address}/{repo}/commit/{'a' * 40}",
                        "commitOid": "a" * 40,
                    }
                )
            else:
                self.answer({})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    held.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
