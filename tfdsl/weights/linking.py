"""Artifacts that refer to the bytes of a checkpoint: which of their tensors can, and another name for its file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from tfdsl.language.diagnostics import one
from tfdsl.weights.content import Content
from tfdsl.weights.elements import NUMPY
from tfdsl.weights.source import Place

# What a system answers that cannot give a file two names: other file systems, file systems without that, guarded files.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)


def linkable(content: Content) -> Place | None:
    """Where the bytes of a tensor lie already, in order and at an address that its element type may have."""
    place = content.place
    if place is None or content.dtype not in NUMPY:
        return None
    return place if place.start % NUMPY[content.dtype]().itemsize == 0 else None


def hard_link(file: Path, name: Path) -> bool:
    """Give a file another name, in place of what has it; False where the system cannot."""
    real = Path(os.path.realpath(file))
    if name.exists() and os.path.samefile(real, name):
        return True
    temporary = name.with_name(f".{name.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(real, temporary)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    os.replace(temporary, name)
    return True


def check_linked(contents: Iterable[Content], linked: Iterable[Content]) -> int:
    """The bytes of what is linked. Raises `SpecError` where that is nothing."""
    found = sum(content.count for content in linked)
    if found:
        return found
    first = next(iter(contents), None)
    note = f"the first of them is `{first.path}`" if first is not None else ""
    raise one(
        "T717",
        "no weight lies in a checkpoint as the build needs it, so there is nothing to link to",
        note=note,
        help="give --weights a safetensors file, and --dtype its element type; or build without --link",
    )
