"""Writing outputs so that nothing half-written is ever found under a final name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfdsl.language.diagnostics import one


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` with its suffix, moved there when the block ends well and removed when it does not."""
    target = Path(path)
    with _reporting(target):
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=_parent(target))
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _give_default_mode(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path`; when the block ends well it takes the place of what was there."""
    target = Path(path)
    with _reporting(target):
        if target.exists() and not target.is_dir():
            raise one("T702", f"`{target}` is a file, and a folder is to be written there")
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=_parent(target)))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _reporting(target: Path) -> Iterator[None]:
    """Turn what the system refuses (no space, no permission) into a diagnostic."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise one("T701", f"cannot write `{target}`: {reason}", help="nothing was left under that name") from None


def _parent(target: Path) -> Path:
    parent = target.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _swap(temporary: Path, target: Path) -> None:
    """Put the new folder in place, file by file where a folder exists, so that other files in it stay."""
    if not target.exists():
        os.replace(temporary, target)
        return
    for item in sorted(temporary.rglob("*")):
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
