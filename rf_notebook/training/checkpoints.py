"""Where ``store/folders`` lay before; for scripts that import it from here."""

from rf_notebook.store.folders import remove_folder, verify_folder, write_folder

__all__ = ["remove_folder", "verify_folder", "write_folder"]
