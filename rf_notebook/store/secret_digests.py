"""Where are the salted digests of an experiment's secrets kept?

In a file that only its owner may read.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path

from rf_notebook.core.secret_names import SecretNames
from rf_notebook.store import layout
from rf_notebook.store.plain_files import read_plain, write_whole

_MOST_BYTES = 1 << 20


def read_secret_names(folder: Path) -> SecretNames:
    """The names that secrets have in the record.

    None where there is no file, or one that cannot be understood.

    Without it secrets are known by argument and place alone.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        read = json.loads(read_plain(layout.secrets(folder), _MOST_BYTES))
        salt, digests = bytes.fromhex(read["salt"]), read["digests"]
        if salt and all(isinstance(text, str) for pair in digests.items() for text in pair):
            return SecretNames(salt, digests)
    return SecretNames()


def keep_secret_names(folder: Path, names: SecretNames) -> None:
    """Let the next kernel know which secret is which; without the file it goes by their order."""
    if not names.digests:
        return
    try:
        write_secret_names(folder, names)
    except OSError as error:
        warnings.warn(
            f"digests of secrets could not be written ({error.strerror}); to continue, write the search's secrets in the same order.",
            stacklevel=6,
        )


def write_secret_names(folder: Path, names: SecretNames) -> None:
    """Keep them for the next kernel.

    Raises:
        OSError: when they cannot be written; what was there stays.
    """
    text = json.dumps(
        {"salt": names.salt.hex(), "digests": dict(names.digests)}, indent=1, sort_keys=True
    )
    write_whole(layout.secrets(folder), text.encode(), mode=0o600)
