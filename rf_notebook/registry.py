"""Moved to ``rf_notebook.session.registry``."""

from rf_notebook.session.registry import open_sessions as open_experiments

__all__ = ["open_experiments"]
