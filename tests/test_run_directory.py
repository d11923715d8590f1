"""The run directory: atomic files, the lock, the manifest."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys

import pytest

from search.errors import RunDirectoryError, StorageError, storage_errors
from search.journal import EventKind
from search.run_directory import RunDirectory, atomic, file_sha256, write_text


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


def test_a_folder_is_made_whole_or_not_at_all(tmp_path):
    with atomic(tmp_path / "made") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("new")
    with contextlib.suppress(Killed), atomic(tmp_path / "made") as temporary:
        temporary.mkdir()
        raise Killed
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "a").read_text() == "new"
    with atomic(tmp_path / "deep" / "model.keras") as temporary:
        assert temporary.suffix == ".keras"  # which its writer asks for
        temporary.write_text("x")
    assert (tmp_path / "deep" / "model.keras").read_text() == "x"


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.ENOENT]
)
def test_refusals_of_the_disk_name_place_and_remedy(tmp_path, code):
    with pytest.raises(StorageError, match="--resume"), storage_errors(tmp_path):
        raise OSError(code, "refused")


def test_a_second_process_is_refused_and_told_who_holds_the_run(run):
    code = (
        "import sys, pathlib\nfrom search.run_directory import RunDirectory\n"
        "try:\n    with RunDirectory(pathlib.Path(sys.argv[1])).lock(): print('in')\n"
        "except Exception as error: print(error)"
    )

    def other() -> str:
        command = [sys.executable, "-c", code, str(run.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run.holder() is None
    with run.lock():
        assert f"process {os.getpid()}" in other()
        assert run.holder().startswith(f"process {os.getpid()} on ")
        with pytest.raises(RunDirectoryError, match="in use by process"):
            run.refuse_held()
    assert other().strip() == "in"
    run.refuse_held()
    missing = RunDirectory(run.root / "none")
    missing.refuse_held()
    assert not missing.root.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_with_the_remedy(run, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert run.holder() is None
    with pytest.raises(RunDirectoryError, match=r"has no locks .*--results-dir"), run.lock():
        pass


def test_the_manifest_lists_files_with_checksums_but_no_working_state(run):
    write_text(run.root / "a.txt", "hello")
    write_text(run.root / "plots" / "b.txt", "there")
    write_text(run.tuner_dir / "oracle.json", "{}")
    write_text(run.tuner_dir / "best.weights.h5", "of a trial")
    write_text(run.refit_dir / "documented-0-a" / "best.weights.h5", "kept")
    write_text(run.refit_dir / "documented-0-a" / "checkpoint.weights.h5", "the last epoch's")
    write_text(run.root / "ablation" / "refit" / "winner-0-b" / "best.weights.h5", "another's")
    write_text(run.root / "ablation" / "ablation.json", "{}")
    assert not run.complete
    run.write_manifest({"name": "run"})
    manifest = run.read_json("manifest.json")
    assert run.complete
    kept = "refit/documented-0-a/best.weights.h5"
    assert set(manifest["files"]) == {"a.txt", "plots/b.txt", kept}
    assert manifest["files"]["a.txt"]["sha256"] == file_sha256(run.root / "a.txt")


def test_reading_says_whether_the_run_or_only_the_file_is_missing(run, tmp_path):
    with pytest.raises(RunDirectoryError, match="there is no run here"):
        RunDirectory(tmp_path / "nothing").read_json("evaluation.json")
    run.append(EventKind.STAGE, name="a", seconds=0)
    with pytest.raises(RunDirectoryError, match="not got that far"):
        run.read_json("evaluation.json")
    (run.root / "evaluation.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="damaged"):
        run.read_json("evaluation.json")


def test_what_a_kill_leaves_is_known_from_what_others_put_there(run):
    left = (".lock", f".probe-{os.getpid()}", ".4711.tmp.config.json")
    for name in left:
        (run.root / name).touch()
    assert run.strangers() == []
    (run.root / ".bashrc").touch()
    (run.root / "thesis.tmp").touch()
    assert sorted(path.name for path in run.strangers()) == [".bashrc", "thesis.tmp"]
    assert RunDirectory(run.root / "nowhere").strangers() == []


@pytest.mark.parametrize("kill_after", range(7))
def test_a_run_that_is_half_removed_is_never_gone_on_with_and_blocks_no_name(
    run, monkeypatch, kill_after
):
    for name in ("manifest.json", "config.json", "dataset.json", "a.txt", "tuner/x", "refit/y"):
        write_text(run.root / name, "{}")
    run.append(EventKind.STAGE, name="data", seconds=0)
    removed = []

    def limited(remove):
        def wrapped(path, *args, **options):
            if len(removed) == kill_after:
                raise Killed
            removed.append(path)
            return remove(path, *args, **options)

        return wrapped

    monkeypatch.setattr(type(run.root), "unlink", limited(type(run.root).unlink))
    monkeypatch.setattr(shutil, "rmtree", limited(shutil.rmtree))
    with pytest.raises(Killed):
        run.clear()
    assert run.exists
    # Either nothing but the manifest is gone, or there is no journal to go on from.
    whole = all((run.root / name).exists() for name in ("dataset.json", "a.txt", "tuner", "refit"))
    assert whole or not run.journal_file.exists()


def test_clearing_keeps_only_the_lock(run):
    write_text(run.root / "tuner" / "x", "1")
    with run.lock():
        run.clear()
    assert [entry.name for entry in run.root.iterdir()] == [".lock"]
