"""See ``rf_notebook.fit``."""
