"""How does a run's model get to the Hugging Face Hub?"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.store import layout
from rf_notebook.store.folders import own_folder
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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi(token=token, library_name="rf_notebook")
    folder = own_folder(layout.upload(session.folder)) / uuid.uuid4().hex
    try:
        export(folder)
        _without_local_paths(folder)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo.repo_id, folder_path=folder, commit_message=message)
    except HFValidationError as error:
        raise ConfigError(f"push_to_hub(repo={repo_id!r:.120}): {str(error)[:300]}") from None
    except OfflineModeIsEnabled:
        raise ConfigError(
            "push_to_hub needs the hub, and HF_HUB_OFFLINE is set; take it away and restart the kernel."
        ) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = "; log in with hf auth login, or give token=" if status in (401, 403) else ""
        raise ConfigError(
            f"the hub refused {repo_id!r:.120}: {str(error).strip().splitlines()[0][:300]}{remedy}."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return str(repo)


def _without_local_paths(folder: Path) -> None:
    """An adapter names its base, and transformers the folder that a model was loaded from."""
    for name, key in (
        ("adapter_config.json", "base_model_name_or_path"),
        ("config.json", "_name_or_path"),
        ("tokenizer_config.json", "name_or_path"),
    ):
        file = folder / name
        if not file.exists():
            continue
        config = json.loads(file.read_text())
        if key in config and hub_name(config[key]) is None:
            config[key] = None
            file.write_text(json.dumps(config, indent=2, sort_keys=True))
