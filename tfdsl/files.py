"""Writing outputs so that nothing half-written is ever found under a final name."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tfdsl.language.diagnostics import one

_MARK = ".tfm-"  # in the names of temporaries, so that nothing else is ever taken for one


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` with its suffix, moved there when the block ends well and removed when it does not."""
    target = Path(path)
    with _reporting(target), _temporary(target, target.suffix, folder=False) as temporary:
        yield temporary
        _give_default_mode(temporary)
        os.replace(temporary, target)


@contextmanager
def atomic_directory(path: str | os.PathLike[str], last: str | None = None) -> Iterator[Path]:
    """A temporary folder beside `path`; when the block ends well it takes the place of what was there.

    Where a folder is there already its other files stay. `last` names the file that the others are for: it is away while
    they change, so that it is never found beside files that are not its own.
    """
    target = Path(path)
    with _reporting(target):
        if target.exists() and not target.is_dir():
            raise one("T702", f"`{target}` is a file, and a folder is to be written there")
        with _temporary(target, "", folder=True) as temporary:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            _swap(temporary, target, last)


def open_empty(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for writing as `open(path, "wb")` does, but for one that is empty already, as temporaries are.

    What was written into a truncated file, some file systems (ext4) bring to the disk before they close it.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    if os.fstat(handle).st_size:
        os.ftruncate(handle, 0)
    return os.fdopen(handle, "wb")


@contextmanager
def _temporary(target: Path, suffix: str, folder: bool) -> Iterator[Path]:
    """A temporary file or folder, locked as long as it is in use, so that those of killed programs are known and go."""
    parent = _parent(target)
    prefix = f".{target.stem if suffix else target.name}{_MARK}"
    _remove_stale(parent, prefix)
    while True:
        if folder:
            name = tempfile.mkdtemp(prefix=prefix, dir=parent)
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=parent)
            os.close(handle)
        lock = _lock(name)
        if lock is not None and os.path.exists(name):
            break
        _unlock(lock)  # another program took it for a stale one before it was locked
    try:
        yield Path(name)
    finally:
        _unlock(lock)
        _remove(Path(name))


def _remove_stale(parent: Path, prefix: str) -> None:
    """Remove the temporaries of one target that no living program has locked."""
    for each in parent.glob(f"{glob.escape(prefix)}*"):
        lock = _lock(each)
        if lock is not None and lock != _UNLOCKED:
            _remove(each)
            _unlock(lock)


_UNLOCKED = -1  # where the system has no such locks: nothing is ever taken for stale


def _lock(path: str | Path) -> int | None:
    """Lock a file or folder until this process ends; None if another has, or it is gone."""
    try:
        import fcntl
    except ImportError:
        return _UNLOCKED
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:  # a file system without locks
        os.close(handle)
        return _UNLOCKED
    return handle


def _unlock(lock: int | None) -> None:
    if lock is not None and lock != _UNLOCKED:
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _reporting(target: Path) -> Iterator[None]:
    """Turn what the system refuses (no space, no permission) into a diagnostic."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise one("T701", f"cannot write `{target}`: {reason}", help="nothing was changed under that name") from None


def _parent(target: Path) -> Path:
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next((each for each in target.parents if each.exists() and not each.is_dir()), target.parent)
        raise one(
            "T701", f"cannot write `{target}`: `{file}` is a file", help="name a place below folders only"
        ) from None
    return parent


def _swap(temporary: Path, target: Path, last: str | None) -> None:
    """Put the new folder in place, file by file where a folder exists, so that other files in it stay."""
    if not target.exists():
        os.replace(temporary, target)
        return
    items = sorted(temporary.rglob("*"), key=lambda item: (item.name == last, item))
    if last is not None and len(items) > 1:
        (target / last).unlink(missing_ok=True)
    for item in items:
        destination = target / item.relative_to(temporary)
        if item.is_dir():
            destination.mkdir(exist_ok=True)
        else:
            os.replace(item, destination)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _give_default_mode(path: Path) -> None:
    """Temporary files are private; outputs get the mode that any new file would."""
    if path.exists():
        path.chmod(0o666 & ~_umask())
