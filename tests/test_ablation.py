"""What an ablation reads back of the answers it gave before."""

import json

import pytest

from search.ablation import FILE, stored_answers
from search.errors import RunDirectoryError
from search.journal import RunDirectory, write_json

VALUES = {"flip": False}
CONTENT = {
    "objective": "robust_loss",
    "repeats": 2,
    "bases": [{"base": "documented", "epochs": 3, "values": VALUES}],
    "answers": [
        {"base": "documented", "name": "flip=on", "epochs": 3, "values": {"flip": True}},
        {"base": "documented", "name": "filters=8", "failed": "out of memory"},
    ],
}


def test_answers_of_before_are_read_with_what_was_trained_for_them(tmp_path):
    directory = RunDirectory(tmp_path)
    assert stored_answers(directory) is None
    write_json(tmp_path / FILE, CONTENT)
    content, told = stored_answers(directory)
    assert content == CONTENT
    assert told == {
        "documented": (3, VALUES, "robust_loss", 2),
        "documented.flip=on": (3, {"flip": True}, "robust_loss", 2),
    }


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        "{}",
        json.dumps({**CONTENT, "bases": None}),
        json.dumps({**CONTENT, "answers": ["yes"]}),
        json.dumps({**CONTENT, "bases": [{"base": "documented"}]}),
        json.dumps({name: value for name, value in CONTENT.items() if name != "repeats"}),
    ],
)
def test_a_damaged_file_of_answers_is_a_clear_error(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunDirectoryError, match=rf"{FILE}: damaged"):
        stored_answers(RunDirectory(tmp_path))
