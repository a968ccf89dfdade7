"""Tar files: what Python's own reader finds in them is what is in the folder, and their length is known before."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from api.exports import tar_files

SIZES = (0, 1, 511, 512, 513, 2**20, 2**20 + 1, 3 * 2**20 + 700)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of whole blocks and of others, in folders, one of which has a name that needs more than a header."""
    rng = np.random.default_rng(3)
    for n, size in enumerate(SIZES):
        path = tmp_path / "cart" / ("_events" if n % 2 else "é" * 120) / f"part-{n:05}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(size))
    return tmp_path


def test_it_is_read_back_and_has_the_length_that_it_said(folder: Path) -> None:
    tar = tar_files.of_folder(folder)
    parts = list(tar.parts())
    assert sum(map(len, parts)) == tar.length
    assert all(0 < len(part) <= 2**20 for part in parts)
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts)), mode="r:") as opened:
        found = {one.name: opened.extractfile(one).read() for one in opened if one.isfile()}  # type: ignore[union-attr]
        modes = {(one.isdir(), one.mode, one.uid, one.uname) for one in opened}
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == files
    assert len(files) == len(SIZES)
    assert modes == {(True, 0o700, 0, ""), (False, 0o600, 0, "")}


def test_a_file_that_became_shorter_is_an_error(folder: Path) -> None:
    tar = tar_files.of_folder(folder)
    (longest := max(folder.rglob("*.parquet"), key=lambda path: path.stat().st_size)).write_bytes(b"short")
    with pytest.raises(OSError, match=f"{longest.name} became shorter"):
        list(tar.parts())
