"""How is MLflow imported without its usage reports?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import MLflow, or what imports it, without its usage reports: it decides while it is imported.

    A user who imported it already has decided; then nothing is touched.
    """
    name = "MLFLOW_DISABLE_TELEMETRY"
    if "mlflow" in sys.modules or name in os.environ:
        yield
        return
    os.environ[name] = "true"
    try:
        yield
    finally:
        os.environ.pop(name, None)
