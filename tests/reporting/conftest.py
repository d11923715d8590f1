"""A recorded tiny run, copied so that a test may change it; see `record.py`."""

import shutil
from pathlib import Path

import pytest

from search.reporting import contents
from search.run_directory import RunDirectory

RECORDED = Path(__file__).parent / "run"


@pytest.fixture
def run(tmp_path):
    root = tmp_path / "recorded"
    shutil.copytree(RECORDED, root)
    return RunDirectory(root)


@pytest.fixture
def made(run):
    return contents.read(run)


@pytest.fixture(scope="session")
def events():
    return RunDirectory(RECORDED).events()
