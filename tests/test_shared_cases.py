"""Every file of `shared/cases` gives what the README there says is right.

They are skipped where that folder is not at hand; each has its like, made on the spot, in the tests
of the module that it concerns (`tests/data/test_cases.py` and those named here).
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from search.config import RunConfig
from search.data.__main__ import main
from search.data.decode import UnusableImageError, decode
from search.data.listing import list_images

ROOT = Path(__file__).parents[1]
PLACES = (ROOT.parent / "shared" / "cases", ROOT.parents[1] / "shared" / "cases")
CASES = next((place for place in PLACES if place.is_dir()), PLACES[0])

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")

SIDE = 64


def image(name: str):
    return decode((CASES / name).read_bytes(), SIDE)


def gray(name: str) -> np.ndarray:
    return image(name).pixels[:, :, 0].astype(int)


def says(name: str, capsys, tmp_path, *options: str) -> tuple[int, str]:
    """Return the exit code of `search.data` on a case and all that it prints."""
    place = ["--cache-dir", str(tmp_path), "--image-size", "32"]
    code = main([str(CASES / name), *place, *options])
    return code, " ".join("".join(capsys.readouterr()).split())


def one_gray_level_apart(name):
    assert np.abs(gray("depth/max_4095.png") - gray("depth/max_4096.png")).max() <= 1
    assert image(name).brightest == int(name[-8:-4])  # from which commands say the depth is unknown


def the_same_image(name):
    """All of them are one image, kept in different ways."""
    found = image(name)
    assert np.abs(gray(name) - gray("dicom/empty_window.dcm")).max() <= 2
    assert (found.width, found.height) == (200, 160)
    assert found.turned == (name == "pixels/exif6.jpg")
    assert (found.brightest > 0) == ("16" in name)  # its depth is a guess, with a note


def damaged(name):
    with pytest.raises(UnusableImageError, match=r"damaged .*premature end of data segment"):
        image(name)


def a_third_class(name, capsys, tmp_path):
    code, said = says(name, capsys, tmp_path)
    assert code == 2
    assert all(word in said for word in ("COVID19", "NORMAL", "PNEUMONIA", "--classes"))
    code, said = says(name, capsys, tmp_path, "--classes", "NORMAL,PNEUMONIA")
    assert code == 0
    assert "COVID19 is none of the two classes" in said


def patients_folders(name, capsys, tmp_path):
    listing = list_images(CASES / name / "chest_xray", RunConfig())
    assert len(listing.files) == len(list((CASES / name).rglob("*.jpeg")))
    assert listing.left_out == ()
    assert says(name, capsys, tmp_path)[0] == 0


def names_that_are_not_utf8(name, capsys, tmp_path):
    code, said = says(name, capsys, tmp_path)
    assert code == 2
    assert "marked as UTF-8 and are not" in said


def no_augmentation_in_the_export(name, tmp_path):
    import keras

    from search.scoring.export import inference_copy

    scope: dict = {}
    exec((CASES / name).read_text().partition("export_model(\n")[0], scope)
    network = scope["network"]
    keras.saving.save_model(inference_copy(network), tmp_path / "flip.keras")
    model = keras.saving.load_model(tmp_path / "flip.keras", safe_mode=True)
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 1)).astype("float32")
    wanted = network.predict(images, verbose=0)
    for _ in range(3):
        np.testing.assert_allclose(np.asarray(model(images)), wanted, atol=1e-6)


def other_arrays_are_refused(name):
    import keras_tuner as kt

    from hypermodels import DocumentedCNN

    assert "DocumentedCNN(image_size=32)" in (CASES / name).read_text()
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 1)).astype("float32")
    hypermodel, hp = DocumentedCNN(image_size=32), kt.HyperParameters()
    model = hypermodel.build(hp)
    for changed, said in ((images / 255, "multiply by 255"), (np.repeat(images, 3, -1), "colour=")):
        with pytest.raises(ValueError, match=said):
            hypermodel.fit(hp, model, changed, np.zeros(8))


def all_searches_end(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "2"])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec((CASES / name).read_text(), {"__name__": "example", "last": "none"})
    assert "2 of 2 searches ended; 0 of 20 trials failed" in said.getvalue()


def works(name, tmp_path):
    home = (CASES / name).parent
    assert json.loads((CASES / name).read_text())["image_data_format"] == "channels_first"
    line = "run --data demo --plan --no-live --image-size 32 --workers 0 --max-epochs 1 --cache-dir"
    done = subprocess.run(
        [sys.executable, "-m", "search", *line.split(), str(tmp_path)],
        env={**os.environ, "KERAS_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


ALL = {
    "depth/max_4095.png": one_gray_level_apart,
    "depth/max_4096.png": one_gray_level_apart,
    "pixels/g16_whiteiszero.tif": the_same_image,
    "pixels/exif6.jpg": the_same_image,
    "pixels/cut50_eoi.jpg": damaged,
    "dicom/empty_window.dcm": the_same_image,
    "dicom/empty_rescale.dcm": the_same_image,
    "dicom/no_preamble.dcm": the_same_image,
    "dicom/declared16_used12.dcm": the_same_image,
    "folders/third": a_third_class,
    "folders/nested": patients_folders,
    "zips/third_class.zip": a_third_class,
    "zips/utf8flag_bad_bytes.zip": names_that_are_not_utf8,
    "flip_export.py": no_augmentation_in_the_export,
    "normalised_input.py": other_arrays_are_refused,
    "docstring_example.py": all_searches_end,
    "keras_home_channels_first/keras.json": works,
}


SLOW = (all_searches_end, works)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (ALL[n] in SLOW)) for n in ALL]
)
def test_a_case_gives_what_is_right(name, request):
    right = ALL[name]
    wanted = right.__code__.co_varnames[1 : right.__code__.co_argcount]
    right(name, **{fixture: request.getfixturevalue(fixture) for fixture in wanted})


def test_there_is_no_case_that_nothing_runs():
    files = {path.relative_to(CASES) for path in CASES.rglob("*") if path.is_file()}
    run = {file for file in files for name in ALL if file.is_relative_to(name)}
    assert files - run == {Path("README.md")}
