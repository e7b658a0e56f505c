"""How does a run's model get to the Hugging Face Hub?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import redact
from rf_notebook.views.model_card import hub_name

if TYPE_CHECKING:
    from rf_notebook.session.session import Session


def push(
    session: Session,
    repo_id: str,
    export: Callable[[Path], object],
    *,
    private: bool,
    token: str | None,
    message: str,
) -> str:
    """Export a model into the experiment's folder, upload it, and remove the export.

    Args:
        session: The experiment.
        repo_id: "user/name" or "name".
        export: Writes the model and its card to a new folder.
        private: Whether a repository that is made is private; one that is there stays as it is.
        token: The hub's; the one that the user has logged in with when None.
        message: Of the commit.

    Returns:
        The repository's address.

    Raises:
        ConfigError: when the hub refuses, and why.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    api = HfApi(token=token, library_name="rf_notebook")
    with TemporaryDirectory(dir=session.folder, prefix="upload-") as place:
        folder = Path(place) / "model"
        export(folder)
        _without_local_paths(folder)
        try:
            repo = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo.repo_id, folder_path=folder, commit_message=message)
        except HFValidationError as error:
            raise ConfigError(f"push_to_hub(repo={repo_id!r:.120}): {str(error)[:300]}") from None
        except OfflineModeIsEnabled:
            raise ConfigError(
                "push_to_hub needs the hub, and HF_HUB_OFFLINE is set; take it away and restart the kernel."
            ) from None
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            remedy = "; log in with hf auth login, or give token=" if status in (401, 403) else ""
            told = redact(" ".join(str(error).split())[:300]) or type(error).__name__
            raise ConfigError(
                f"{repo_id!r:.120} was not uploaded to the hub: {told}{remedy}."
            ) from error
    return str(repo)


def _without_local_paths(folder: Path) -> None:
    """An adapter names its base, and transformers the folder that a model was loaded from."""
    for name in ("adapter_config.json", "config.json", "tokenizer_config.json"):
        file = folder / name
        if file.exists():
            config = _on_the_hub(json.loads(file.read_text()))
            file.write_text(json.dumps(config, indent=2, sort_keys=True))


def _on_the_hub(config: Any) -> Any:
    """The config, without values of "..._path" that are no names on the hub."""
    if isinstance(config, list):
        return [_on_the_hub(one) for one in config]
    if not isinstance(config, dict):
        return config
    return {
        key: None
        if key.endswith("_path") and isinstance(value, str) and hub_name(value) is None
        else _on_the_hub(value)
        for key, value in config.items()
    }
