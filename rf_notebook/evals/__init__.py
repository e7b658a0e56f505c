"""RapidFire AI's import paths for evaluation; see ``rf_notebook.fit``.

Nothing is evaluated here but what a training run evaluates.
"""
