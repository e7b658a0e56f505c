"""Where ``core/encoding`` lay before; for scripts that import it from here."""

from rf_notebook.core.encoding import decode, encode
from rf_notebook.core.objects import Objects

__all__ = ["Objects", "decode", "encode"]
