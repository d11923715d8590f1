"""What trials have in common in most of these tests."""

import pytest

from search.tuning.model import Setting
from tests.tuning.fakes import TinyHyperModel, setting_of


@pytest.fixture
def setting(tiny_dataset) -> Setting:
    return setting_of(tiny_dataset, TinyHyperModel())
