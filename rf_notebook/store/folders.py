"""How is a folder written so that it is either whole or not there, and known again later?

Written to a temporary folder next to its place, flushed, renamed. Its manifest holds the sha256 of
every file; the sha256 of the manifest is in the event log. Nothing of a folder is read before both
agree.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.core.ports import CommitObserver, CommitPoint, unobserved
from rf_notebook.core.run import StoredFolder
from rf_notebook.core.values import digest
from rf_notebook.store import layout

#: Of the files of a folder: name to bytes and sha256.
MANIFEST = "manifest.json"
_TEMPORARY = ".writing-"
#: Bytes that are read at once.
_PIECE = 32 * 2**20
Fill = Callable[[Path], Iterable[Callable[[], None]] | None]


def write_folder(
    root: Path,
    relative: str,
    fill: Fill,
    *,
    steps: int,
    samples: int,
    observer: CommitObserver = unobserved,
) -> StoredFolder:
    """Write a folder atomically.

    Args:
        root: The experiment's folder.
        relative: Where below it, with forward slashes; nothing may be there yet.
        fill: Writes files into the folder it is given, and may give what writes the rest.
        steps: The run's steps, for the record.
        samples: The run's samples, for the record.
        observer: For the crash tests.

    Raises:
        StorageFull: when there is no room, or the disk does not take it now; nothing is left
            behind.
        FileExistsError: when something is there already: what another has written is never replaced.
    """
    return begin_folder(
        root, relative, fill, steps=steps, samples=samples, observer=observer
    ).finish()


def begin_folder(
    root: Path,
    relative: str,
    fill: Fill,
    *,
    steps: int,
    samples: int,
    observer: CommitObserver = unobserved,
) -> BegunFolder:
    """The first half of ``write_folder``: files are written, under a temporary name.

    Args and errors are those of ``write_folder``.
    """
    begun = BegunFolder(root, relative, steps, samples, observer)
    with begun.refused_by_disk():
        begun.target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(begun.temporary, ignore_errors=True)
        begun.temporary.mkdir()
        begun.rest.extend(fill(begun.temporary) or ())
    return begun


@dataclass(frozen=True, slots=True)
class BegunFolder:
    """A folder that is not at its place yet."""

    root: Path
    relative: str
    steps: int
    samples: int
    observer: CommitObserver
    rest: list[Callable[[], None]] = field(default_factory=list)
    """What writes the files that are not there yet."""

    @property
    def target(self) -> Path:
        """Its place."""
        return self.root / self.relative

    @property
    def temporary(self) -> Path:
        """Where it is until then."""
        return self.target.with_name(_TEMPORARY + self.target.name)

    def finish(self) -> StoredFolder:
        """Write the rest, hash the files, flush them, and move the folder to its place.

        In any thread that may write the rest.

        Raises:
            StorageFull: as ``write_folder``.
            FileExistsError: as ``write_folder``.
        """
        temporary = self.temporary
        with self.refused_by_disk():
            for write in self.rest:
                write()
            self.observer(CommitPoint.CHECKPOINT_WRITTEN)
            manifest = _manifest_of(temporary)
            text = json.dumps(manifest, sort_keys=True, indent=1)
            (temporary / MANIFEST).write_text(text)
            self.place()
        return StoredFolder(
            path=self.relative,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            steps=self.steps,
            samples=self.samples,
            bytes=sum(size for size, _ in manifest.values()),
            weights=_weights_digest(manifest),
        )

    def place(self) -> None:
        """Flush the files, which are all there, and move the folder to its place.

        Raises:
            FileExistsError: when something is there already.
        """
        target, temporary = self.target, self.temporary
        for file in _files(temporary):
            flush(file)
        flush(temporary)
        self.observer(CommitPoint.CHECKPOINT_SYNCED)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.relative)
        temporary.rename(target)
        flush(target.parent)
        self.observer(CommitPoint.CHECKPOINT_RENAMED)

    @contextlib.contextmanager
    def refused_by_disk(self) -> Iterator[None]:
        """Leave nothing behind when something fails; say when it was the disk."""
        try:
            yield
        except BaseException as error:
            why = _refused_by_disk(error, self.temporary)
            shutil.rmtree(self.temporary, ignore_errors=True)
            if why is not None:
                raise StorageFull(
                    f"no room to write {self.relative}: {why}. Free some disk space; training continues by itself."
                ) from error
            raise


def write_stand_in(root: Path, folder: StoredFolder, manifest: bytes) -> None:
    """Note that a folder lies elsewhere: of its files the manifest alone is here.

    Args:
        root: The experiment's folder.
        folder: What was recorded of it.
        manifest: The bytes of its manifest.

    Raises:
        CheckpointDamaged: when that is not its manifest.
        StorageFull: when there is no room.
    """
    if hashlib.sha256(manifest).hexdigest() != folder.sha256:
        raise CheckpointDamaged(f"{folder.path}/{MANIFEST} is not the one that was recorded.")
    begun = BegunFolder(root, folder.path, folder.steps, folder.samples, unobserved)
    if begun.target.exists():
        return
    with begun.refused_by_disk():
        shutil.rmtree(begun.temporary, ignore_errors=True)
        begun.temporary.mkdir(parents=True)
        (begun.temporary / MANIFEST).write_bytes(manifest)
        begun.place()


def is_stand_in(root: Path, relative: str) -> bool:
    """Whether a folder lies elsewhere, or was not brought here whole; see ``write_stand_in``."""
    path = safe_path(root, relative)
    try:
        named = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(named, dict) and not all((path / name).is_file() for name in named)


def verify_folder(root: Path, folder: StoredFolder) -> Path:
    """The folder's path, after every file was hashed again.

    Raises:
        CheckpointDamaged: naming the first file that differs.
    """
    path = safe_path(root, folder.path)
    try:
        manifest = (path / MANIFEST).read_bytes()
        if hashlib.sha256(manifest).hexdigest() != folder.sha256:
            raise CheckpointDamaged(f"{folder.path}/{MANIFEST} is not the one that was recorded.")
        found = _manifest_of(path)
    except OSError as error:
        if isinstance(error, CheckpointDamaged):
            raise
        raise CheckpointDamaged(f"{folder.path} cannot be read: {error.strerror}.") from error
    recorded = {name: tuple(entry) for name, entry in json.loads(manifest).items()}
    if recorded and not found:
        raise CheckpointDamaged(
            f"{folder.path} lies in the experiment's storage; give run_fit or Experiment its storage=."
        )
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            raise CheckpointDamaged(f"{folder.path}/{name} is not the file that was recorded.")
    return path


def safe_path(root: Path, relative: str) -> Path:
    """A path of the record below the experiment's folder.

    A record from elsewhere must not point outside.

    Raises:
        CheckpointDamaged: when it does.
    """
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise CheckpointDamaged(f"the record names a folder outside the experiment: {relative!r}.")
    return root.joinpath(*pure.parts)


def own_folder(path: Path) -> Path:
    """A folder of an experiment's folder, made where it is missing; nothing is written through a link.

    Raises:
        ConfigError: where something else has its name.
    """
    if not path.is_symlink() and (path.is_dir() or not path.exists()):
        path.mkdir(exist_ok=True)
        return path
    raise ConfigError(
        f"{path} is a link or a file, and a folder is needed there; remove it, and call run_fit again."
    )


def remove_folder(root: Path, relative: str) -> None:
    """Delete a folder.

    One that is gone already is not an error, and one behind a symbolic link stays.
    """
    path = safe_path(root, relative)
    if _is_ours(root, path):
        shutil.rmtree(path, ignore_errors=True)


def _is_ours(root: Path, path: Path) -> bool:
    """Whether a path below the experiment's folder is reached without a link, on the same disk."""
    try:
        disk = root.stat().st_dev
        place = root
        for part in path.relative_to(root).parts:
            place = place / part
            found = place.lstat()
            if stat.S_ISLNK(found.st_mode) or found.st_dev != disk:
                return False
    except OSError:
        return False
    return True


def remove_orphans(root: Path, in_use: set[str]) -> list[str]:
    """Delete folders of runs that the record does not know.

    What a kill left between writing and committing.

    Args:
        root: The experiment's folder.
        in_use: Relative paths of the record.

    Returns:
        What was deleted.
    """
    removed = []
    for folder in sorted((root / "runs").glob("*/*")):
        relative = folder.relative_to(root).as_posix()
        named = layout.is_of_a_run(folder.name.removeprefix(_TEMPORARY))
        if folder.is_dir() and named and relative not in in_use and _is_ours(root, folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(relative)
    return removed


#: What a disk says that may take the same later: no room, no quota, a hiccup of the hardware or the
#: network below.
_PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EMFILE,
        errno.ENFILE,
    }
)
#: torch and safetensors write with code of their own, whose errors carry no errno.
_FULL = re.compile(
    r"No space left on device|os error (28|122)\b|[Dd]isk quota exceeded|file write failed"
)
_PROBE_BYTES = 1 << 20


def refusal_of_disk(error: BaseException) -> str | None:
    """Why a disk did not take something, in words.

    None when the error does not say that it was the disk.
    """
    told: BaseException | None = error
    while told is not None:
        if isinstance(told, OSError) and told.errno in _PASSING:
            return told.strerror or os.strerror(told.errno or 0)
        if isinstance(told, Exception) and _FULL.search(str(told)):
            return os.strerror(errno.ENOSPC)
        told = told.__cause__ or told.__context__
    return None


def _refused_by_disk(error: BaseException, folder: Path) -> str | None:
    """As ``refusal_of_disk``, for errors that do not say it, too.

    A full disk refuses a further file.

    Args:
        error: What was raised while a folder was filled.
        folder: With what was written so far still in it, so that a full disk still is full.
    """
    why = refusal_of_disk(error)
    if why is not None or not isinstance(error, Exception):
        return why
    probe = folder / ".probe"
    try:
        with probe.open("wb", buffering=0) as stream:
            if stream.write(bytes(_PROBE_BYTES)) < _PROBE_BYTES:
                return os.strerror(errno.ENOSPC)
    except OSError as refused:
        return refused.strerror if refused.errno in (errno.ENOSPC, errno.EDQUOT) else None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(parent, name).is_file()
    )


def _manifest_of(folder: Path) -> dict[str, tuple[int, str]]:
    manifest = {}
    for file in _files(folder):
        if file.name != MANIFEST:
            manifest[file.relative_to(folder).as_posix()] = (file.stat().st_size, _sha256(file))
    return manifest


def _sha256(file: Path) -> str:
    """Of a file, in few pieces.

    After each piece this thread asks for the interpreter again, and waits for 5 ms while another one
    computes. With ``hashlib.file_digest`` and its 256 KiB that was 50 times the time of hashing.
    """
    sha = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        piece = memoryview(bytearray(max(1, min(_PIECE, file.stat().st_size))))
        while size := stream.readinto(piece):
            sha.update(piece[:size])
    return sha.hexdigest()


def _weights_digest(manifest: Mapping[str, tuple[int, str]]) -> str:
    """Of the weights alone; empty for a folder without any.

    Safetensors have one byte form for equal tensors.
    """
    weights = {name: sha for name, (_, sha) in manifest.items() if name.endswith(".safetensors")}
    return digest(weights) if weights else ""


def flush(path: Path) -> None:
    """Let the disk have a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
