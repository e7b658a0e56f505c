"""The kernel's side of the JupyterLab extension; its twin is labextension/src."""
