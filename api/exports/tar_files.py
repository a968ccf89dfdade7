"""Tar files: the files of a folder as one uncompressed tar, a part at a time, its length known before."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK = tarfile.BLOCKSIZE  # bytes
_READ = 2**20  # bytes that are read at once
_END = bytes(2 * _BLOCK)


class TarEntry(NamedTuple):
    """Entry of a tar: its header, and the file whose first `size` bytes follow (None: a folder)."""

    header: bytes
    file: Path | None
    size: int

    @property
    def padding(self) -> int:
        """Bytes that follow up to a whole block."""
        return -self.size % _BLOCK


class TarFiles(NamedTuple):
    """Tar of files as they are now: nobody may write to them while it is read."""

    entries: list[TarEntry]

    @property
    def length(self) -> int:
        """Bytes of the whole tar."""
        return sum(len(one.header) + one.size + one.padding for one in self.entries) + len(_END)

    def parts(self) -> Iterator[bytes]:
        """The tar's bytes, at least one and at most 1 MiB at a time. Raises OSError if a file cannot be read, or is
        shorter now.
        """
        for entry in self.entries:
            yield entry.header
            if entry.file is not None:
                yield from _content(entry.file, entry.size)
                if entry.padding:
                    yield bytes(entry.padding)
        yield _END


def of_folder(root: Path) -> TarFiles:
    """Tar of all that is in a folder, sorted by path, under paths from there. Owners and modes are those that whoever
    unpacks it gives to what belongs to nobody else.
    """
    return TarFiles([_entry(root, path) for path in sorted(root.rglob("*"))])


def _entry(root: Path, path: Path) -> TarEntry:
    head = tarfile.TarInfo(str(path.relative_to(root)))
    found = path.stat()
    head.mtime = int(found.st_mtime)
    if path.is_dir():
        head.type, head.mode = tarfile.DIRTYPE, 0o700
        return TarEntry(head.tobuf(tarfile.PAX_FORMAT), None, 0)
    head.size, head.mode = found.st_size, 0o600
    return TarEntry(head.tobuf(tarfile.PAX_FORMAT), path, head.size)


def _content(file: Path, size: int) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while size:
            part = opened.read(min(size, _READ))
            if not part:
                raise OSError(f"{file.name} became shorter while it was sent")
            size -= len(part)
            yield part
