"""What several test folders share: a tiny data set in memory and on disk."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import signal
from pathlib import Path

import pytest

from search.records import Dataset
from tests.tiny_data import tiny_data


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> Dataset:
    """Sixty 32-pixel images whose right half is brighter when the label is 1."""
    return tiny_data(tmp_path, contrast=110)


@pytest.fixture(autouse=True, scope="session")
def heard_signals():
    """Let child processes hear signals that a shell in the background has everybody ignore."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
