"""The floor that torch, transformers, trl and peft live on.

Importing it next to something too old is refused.
"""

from rf_notebook.core.requirements import TRAINING, too_old

_too_old = list(too_old(*TRAINING))
if _too_old:
    raise ImportError(" ".join(_too_old))
