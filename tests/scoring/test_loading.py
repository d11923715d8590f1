import json
import zipfile

import pytest
from tiny import THRESHOLD

from search.config import ExportFormat
from search.errors import ConfigurationError, ModelError
from search.records import to_json
from search.scoring.formats import FORMATS, METADATA_VERSION, Format, format_of, require
from search.scoring.loading import METADATA_FILE, SAVED_MODEL_METADATA, load_model

ABSENT = Format(
    name="stone",
    file="model.stone",
    modules=("json", "no_such_chisel"),
    extra="stone",
    runtime="no-such-chisel",
)


def test_the_command_line_offers_exactly_the_formats_there_are():
    assert [form.value for form in ExportFormat] == list(FORMATS)
    assert all(name == form.name for name, form in FORMATS.items())


def test_a_format_whose_packages_are_missing_is_refused_with_the_command(monkeypatch):
    monkeypatch.setitem(FORMATS, "stone", ABSENT)
    require(["keras"])
    with pytest.raises(ConfigurationError, match=r"--export stone: needs no_such_chisel.*\[stone"):
        require(["keras", "stone"])


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.keras", "keras"), ("a.ONNX", "onnx"), ("b.tflite", "litert"), ("model.h5", "keras")],
)
def test_a_file_is_told_by_its_name(tmp_path, name, form):
    (tmp_path / name).write_bytes(b"")
    assert format_of(tmp_path / name).name == form


def test_a_folder_is_told_by_what_is_in_it_and_nothing_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx: no such file.*model\.tflite"):
        format_of(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="no SavedModel"):
        format_of(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert format_of(tmp_path).name == "saved_model"


def metadata(**changes):
    whole = {"version": METADATA_VERSION, "threshold": to_json(THRESHOLD), "image_size": 32}
    return json.dumps({**whole, "feed": {}, **changes})


def with_metadata(folder, form, text):
    """A file of a format whose metadata are those given and whose model is rubbish."""
    path = folder / FORMATS[form].file
    if form == "saved_model":
        (path / SAVED_MODEL_METADATA).parent.mkdir(parents=True)
        (path / SAVED_MODEL_METADATA).write_text(text)
        (path / "saved_model.pb").write_bytes(b"rubbish")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(METADATA_FILE, text)
    return path


@pytest.mark.parametrize("form", ["saved_model", "litert"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (metadata(version=METADATA_VERSION + 1), "install a newer xray-search"),
        (json.dumps({"version": 2, "feed": {}}), "image_size is missing"),
        ("{", "not a model exported by this program"),
        ("[]", "not a model exported by this program"),
    ],
    ids=["newer", "incomplete", "cut", "other"],
)
def test_metadata_that_cannot_be_used_are_reported_before_the_model_is_opened(
    tmp_path, form, text, said
):
    if FORMATS[form].missing:
        pytest.skip(FORMATS[form].missing)
    with pytest.raises(ModelError, match=said):
        load_model(with_metadata(tmp_path, form, text))


def test_a_model_whose_configuration_unpacks_to_more_than_any_is_not_read(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(65 * 2**20))
    with pytest.raises(ModelError, match=r"its config\.json has 0\.1 GB"):
        load_model(path)


@pytest.mark.parametrize(
    ("form", "about", "said"),
    [
        ("onnx", False, "cannot be loaded by"),
        ("litert", True, "cannot be loaded by"),
        ("litert", False, r"no xray_search\.json in it"),
    ],
)
def test_rubbish_is_refused_in_one_line(tmp_path, form, about, said):
    if FORMATS[form].missing:
        pytest.skip(FORMATS[form].missing)
    path = tmp_path / FORMATS[form].file
    path.write_bytes(b"rubbish")
    if about:
        path = with_metadata(tmp_path, form, metadata())
    with pytest.raises(ModelError, match=said) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_missing_runtime_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "stone", ABSENT)
    (tmp_path / "model.stone").write_bytes(b"")
    with pytest.raises(ModelError, match=r"needs no_such_chisel"):
        load_model(tmp_path / "model.stone")
