import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from search.data.cache import (
    ArrayFile,
    adopt_array,
    default_cache_dir,
    locked,
    new_array,
    read_array,
)
from search.errors import StorageError

SHAPE = (3, 4, 4, 1)


def store(path: Path) -> Path:
    with new_array(path, SHAPE) as array:
        array[:] = 7
        return adopt_array(array, path).path


def flip_a_byte(path: Path) -> None:
    with open(path, "rb+") as handle:
        handle.seek(-5, os.SEEK_END)
        handle.write(b"\x00")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "checksum"),
        (lambda path: os.truncate(path, 150), "unreadable"),
        (lambda path: path.write_bytes(b""), "unreadable"),
        (lambda path: path.write_bytes(b"garbage" * 50), "unreadable"),
        (lambda path: path.unlink(), "a.npy is missing"),
        (lambda path: [path.unlink(), path.with_suffix(".json").unlink()], ""),
        (lambda path: path.with_suffix(".json").unlink(), "a.json is missing"),
        (lambda path: path.with_suffix(".json").write_text("{"), "unreadable"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "checksum"),
        (lambda path: np.save(path, np.zeros((1, 2))), "instead of uint8"),
    ],
)
def test_every_damage_is_noticed_and_what_is_not_there_is_no_damage(tmp_path, damage, reason):
    stored = store(tmp_path / "arrays/a.npy")
    assert isinstance(read_array(stored, SHAPE), ArrayFile)
    damage(stored)
    found = read_array(stored, SHAPE)
    assert isinstance(found, str)
    assert reason in found if reason else found == ""


def test_a_failure_leaves_no_file_behind(tmp_path):
    with pytest.raises(RuntimeError), new_array(tmp_path / "a.npy", SHAPE):
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_the_disk_space_is_claimed_before_the_pixels_are_written(tmp_path):
    with new_array(tmp_path / "a.npy", (64, 64, 64, 1)):
        (temporary,) = tmp_path.iterdir()
        assert temporary.stat().st_blocks * 512 >= 64**3


def test_a_full_disk_is_told_with_the_remedy(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("search.data.cache.os.posix_fallocate", full, raising=False)
    with pytest.raises(StorageError, match=r"no space left.*--cache-dir"):
        store(tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_told(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="--cache-dir"):
        store(tmp_path / "cache/a.npy")


def test_what_killed_processes_left_is_swept_after_a_day(tmp_path):
    old, fresh = tmp_path / ".a-1.tmp", tmp_path / ".a-2.tmp"
    for path in (old, fresh):
        path.write_bytes(b"")
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    with new_array(tmp_path / "a.npy", SHAPE):
        assert fresh.exists()
        assert not old.exists()


def test_a_lock_that_is_not_supported_is_done_without(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr("search.data.cache.fcntl.flock", unsupported)
    with locked(tmp_path / "a.lock"):
        pass


def test_the_cache_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "xray-search"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache/xray-search"
