"""Which secret is which, so that a new kernel gives each one the name that it has in the record?

The record holds names only: ``token``, ``token#2``. What tells two secrets apart is kept next to it,
in the experiment's folder: their digests under a salt, slow to compute, so that a weak password
cannot be found by trying. They never travel with a record or an export.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

_SALT_BYTES = 16
#: scrypt's cost: 16 MiB and about 50 ms for a secret.
_COST, _BLOCK, _PARALLEL, _DIGEST_BYTES = 2**14, 8, 1, 16


@dataclass(frozen=True, slots=True)
class SecretNames:
    """The names that secrets have in a record, by salted digest."""

    salt: bytes = field(default_factory=lambda: secrets.token_bytes(_SALT_BYTES))
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of a secret's text, by the secret's name."""

    def digest(self, text: str) -> str:
        """The salted digest of a secret, as 32 hexadecimal digits."""
        data = text.encode(errors="surrogatepass")
        return hashlib.scrypt(
            data, salt=self.salt, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=_DIGEST_BYTES
        ).hex()

    def name_of(self, key: str, text: str) -> str | None:
        """The recorded name of a secret; None for one that is not recorded for this argument.

        Args:
            key: The argument that it was given for.
            text: The secret.
        """
        names = [name for name in self.digests if is_of(key, name)]
        if not names:
            return None
        wanted = self.digest(text)
        return next(
            (name for name in names if secrets.compare_digest(self.digests[name], wanted)), None
        )

    def including(self, held: Mapping[str, str]) -> SecretNames:
        """The names with those of more secrets.

        Args:
            held: Texts of secrets, by name; a renewed one replaces the one before.
        """
        return SecretNames(
            self.salt, {**self.digests, **{name: self.digest(text) for name, text in held.items()}}
        )


def is_of(key: str, name: str) -> bool:
    """Whether a secret's name is one of an argument's.

    ``token`` and ``token#2`` are ``token``'s.
    """
    return name == key or name.startswith(f"{key}#")
