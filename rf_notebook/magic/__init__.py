"""``%rapidfire`` and ``%%rapidfire``."""
