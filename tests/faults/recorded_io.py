"""Recorded writes of a program, and the files as a power cut may leave them."""

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.ledger_script import ACKNOWLEDGED
from tests.waiting import COMMAND_PATIENCE

SECTOR = 512
HERE = Path(__file__).parent
_head = struct.Struct("<cqqq")


class Call(NamedTuple):
    """Call that was recorded: W (write), T (truncate), S (sync) or U (unlink) of a file."""

    kind: bytes
    file: str
    offset: int
    data: bytes


def library(folder: Path) -> Path:
    """The library that records calls, compiled. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("faults of the disk need Linux and a C compiler: tests are skipped")
    made = folder / "recorded_io.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(HERE / "recorded_io.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return made


def run(made: Path, folder: Path, *arguments: str) -> str:
    """What the program says, run with the library in a folder of its own."""
    folder.mkdir()
    own = {"LD_PRELOAD": str(made), "FAULTS_MATCH": "ledger.db", "FAULTS_LOG": str(folder / "io.log")}
    command = [sys.executable, "-m", "tests.faults.ledger_script", str(folder), *arguments]
    root = HERE.parents[1]
    done = subprocess.run(
        command,
        env={**os.environ, **own, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=COMMAND_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def calls(log: Path) -> Iterator[Call]:
    """Recorded calls in their order."""
    data, at, names = log.read_bytes(), 0, dict[int, str]()
    while at < len(data):
        kind, file, offset, length = _head.unpack_from(data, at)
        at += _head.size
        own = data[at : at + length] if kind in b"NW" else b""
        at += len(own)
        if kind == b"N":
            names[file] = Path(own.decode()).name
        else:
            yield Call(kind, names[file], offset, own)


class DiskState:
    """Files of a ledger during recorded calls: what is on the disk for certain, and what may be."""

    def __init__(self) -> None:
        self._synced = dict[str, bytearray]()
        self._open = dict[str, list[Call]]()
        self.acknowledged = set[int]()

    def follow(self, call: Call) -> None:
        """Take in the next call."""
        if call.file == ACKNOWLEDGED:
            if call.kind == b"W":
                self.acknowledged |= {n for (n,) in struct.iter_unpack(">Q", call.data)}
            return
        if call.kind == b"U":
            self._synced.pop(call.file, None)
            self._open.pop(call.file, None)
            return
        waiting = self._open.setdefault(call.file, [])
        if call.kind == b"S":
            for one in waiting:
                _apply(self._synced.setdefault(call.file, bytearray()), one)
            waiting.clear()
        else:
            waiting.append(call)

    def cut(self, folder: Path, chance: random.Random) -> None:
        """Write the files as a power cut now may leave them: of what was not synced, any sectors of any writes."""
        share = chance.choice((0.0, 0.5, 0.9, 1.0))
        for name in {*self._synced, *self._open}:
            content = bytearray(self._synced.get(name, b""))
            for one in self._open.get(name, ()):
                if one.kind == b"T":
                    if chance.random() < share:
                        _apply(content, one)
                    continue
                for start in range(0, len(one.data), SECTOR):
                    if chance.random() < share:
                        _apply(content, Call(b"W", name, one.offset + start, one.data[start : start + SECTOR]))
            (folder / name).write_bytes(content)


def _apply(content: bytearray, call: Call) -> None:
    if call.kind == b"T":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    content.extend(bytes(max(0, call.offset - len(content))))
    content[call.offset : call.offset + len(call.data)] = call.data
