"""A store that speaks S3, on the loopback device, which fails and is slow as it is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

#: As the environment of every machine has them that reaches it.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}


class Bucket:
    """moto's server with one bucket."""

    def __init__(self) -> None:
        self.refuses: Callable[[str, str], bool] = lambda _method, _path: False
        """Whether to answer a request with 503, by its method and path."""
        self.seconds = 0.0
        """Before every answer."""
        self.refused = 0
        self._app = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.system().create_dir("bucket")

    @property
    def address(self) -> str:
        """For ``storage=``."""
        return f"s3://bucket/exp?{self._options}"

    @property
    def _options(self) -> str:
        return (
            f"region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{self._server.server_port}"
        )

    def system(self) -> Any:
        """pyarrow's file system of it."""
        from pyarrow.fs import FileSystem

        return FileSystem.from_uri(f"s3://bucket?{self._options}&allow_bucket_creation=true")[0]

    def names(self) -> list[str]:
        """Of all that is in it."""
        from pyarrow.fs import FileSelector, FileType

        found = self.system().get_file_info(FileSelector("bucket", recursive=True))
        return sorted(one.path for one in found if one.type == FileType.File)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        time.sleep(self.seconds)
        if self.refuses(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            self.refused += 1
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        found: Iterable[bytes] = self._app(environ, start_response)
        return found
