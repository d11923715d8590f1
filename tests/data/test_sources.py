import os
import sys
import types
from pathlib import Path

import pytest

from search.config import RunConfig
from search.data import sources
from search.data.sources import find_source
from search.errors import ConfigurationError, DataError
from search.records import Source
from tests.data.trees import make_tree, write


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A working directory, home and mount point without any images."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.delenv("CHEST_XRAY_DIR", raising=False)
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    monkeypatch.setattr(sources, "MOUNT", empty / "kaggle/input")
    return empty


@pytest.fixture
def no_drawing(monkeypatch, tmp_path):
    """The demo, without the time it takes to draw it."""
    drawn = tmp_path / "demo/chest_xray"
    monkeypatch.setattr("search.data.sources.write_demo", lambda **_: drawn)
    return drawn


def found(data: str, cache_dir: Path, **options) -> Source:
    return find_source(RunConfig(data=data, cache_dir=str(cache_dir), **options))


LAYOUTS = [
    "",
    "chest_xray",
    "chest_xray/chest_xray",
    "chest_xray/data",
    "data",
    "data/chest_xray",
    "CellData/chest_xray",
    "ZhangLabData/CellData/chest_xray",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_is_found_in_every_layout_and_not_its_duplicate_inside(tmp_path, layout):
    root = make_tree(tmp_path / "given" / layout, patients=2)
    # As the set is distributed: it holds itself once more, and what macOS leaves.
    for name in ("chest_xray", "__MACOSX/chest_xray"):
        make_tree(root / name, patients=2)
    source = found(str(tmp_path / "given"), tmp_path)
    assert (source.kind, source.root, source.synthetic) == ("folder", root, False)


@pytest.mark.parametrize("place", ["", "ham10000", "some/where/deeper"])
def test_classes_without_train_are_a_layout_and_a_table_makes_up_for_one(tmp_path, place):
    root = tmp_path / "given" / place
    for name in ("benign", "malignant"):
        write(root / name / "a.jpeg", b"x")
    assert found(str(tmp_path / "given"), tmp_path).root == root
    assert found(str(root / "benign"), tmp_path, table="labels.csv").root == root / "benign"


def test_missing_folder_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"--data .*nowhere: no such folder .*--data demo"):
        found(str(tmp_path / "nowhere"), tmp_path)


def test_train_is_found_one_level_deeper_under_any_name(tmp_path):
    make_tree(tmp_path / "given/covid-set", patients=2)
    assert found(str(tmp_path / "given"), tmp_path).root.name == "covid-set"
    make_tree(tmp_path / "given/other-set", patients=2)
    with pytest.raises(DataError, match="covid-set, other-set each hold a train/"):
        found(str(tmp_path / "given"), tmp_path)


@pytest.mark.parametrize("names", [["NORMAL"], ["test", "val"], []])
def test_a_folder_without_train_and_two_classes_is_an_error(tmp_path, names):
    for name in names:
        write(tmp_path / "given" / name / "a.jpeg", b"x")
    (tmp_path / "given").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=r"no train/ in .*no folders of two classes"):
        found(str(tmp_path / "given"), tmp_path)


@pytest.mark.parametrize("data", ["/dev/zero", "x" * 300, "~nosuchuser/x", "pipe", ""])
def test_what_is_neither_a_folder_nor_an_archive_is_one_error(tmp_path, data):
    if data == "pipe":
        os.mkfifo(tmp_path / "pipe")
        data = str(tmp_path / "pipe")
    with pytest.raises((DataError, ConfigurationError), match=r"[;:] (give|check|set)"):
        found(data, tmp_path)


def test_auto_looks_in_order_and_not_past_a_mistyped_place(
    tmp_path, nowhere, no_drawing, monkeypatch
):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "hub"))
    steps = [
        ("demo", no_drawing),
        ("kaggle", nowhere / "kaggle/input/chest-xray-pneumonia/chest_xray"),
        ("kaggle", tmp_path / "hub/datasets" / sources.HANDLE / "versions/2/chest_xray"),
        ("folder", nowhere / "data/chest_xray"),
        ("folder", nowhere / "chest_xray"),
        ("folder", tmp_path / "named"),
    ]
    for kind, root in steps:
        make_tree(root, patients=2)
        if "hub" in root.parts:
            write(root.parents[2] / "2.complete", b"")
        if root.name == "named":
            monkeypatch.setenv("CHEST_XRAY_DIR", str(root))
        source = found("auto", tmp_path)
        assert (source.kind, source.root.resolve()) == (kind, root)
        assert source.synthetic == (kind == "demo")
    assert "CHEST_XRAY_DIR" in source.origin
    monkeypatch.setenv("CHEST_XRAY_DIR", str(tmp_path / "typo"))
    with pytest.raises(DataError, match="CHEST_XRAY_DIR"):
        found("auto", tmp_path)


def test_unfinished_kaggle_download_is_passed_over(tmp_path):
    versions = Path.home() / ".cache/kagglehub/datasets" / sources.HANDLE / "versions"
    make_tree(versions / "1/chest_xray", patients=2)
    write(versions.parent / "1.complete", b"")
    make_tree(versions / "2/chest_xray", patients=2)
    assert found("auto", tmp_path).root == versions / "1/chest_xray"


def fake_kagglehub(monkeypatch, download):
    module = types.ModuleType("kagglehub")
    module.dataset_download = download
    monkeypatch.setitem(sys.modules, "kagglehub", module)


def test_kaggle_downloads_the_data_set(tmp_path, monkeypatch):
    asked = []

    def download(handle):
        asked.append(handle)
        return str(make_tree(tmp_path / "versions/2/chest_xray", patients=2).parent)

    fake_kagglehub(monkeypatch, download)
    source = found("kaggle", tmp_path)
    assert asked == ["paultimothymooney/chest-xray-pneumonia"]
    assert source.kind == "kaggle"
    assert source.root == tmp_path / "versions/2/chest_xray"


def test_kaggle_offline_takes_what_was_downloaded_before(tmp_path, monkeypatch):
    def download(handle):
        raise ConnectionError("Max retries exceeded")

    fake_kagglehub(monkeypatch, download)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "hub"))
    versions = tmp_path / "hub/datasets" / sources.HANDLE / "versions"
    make_tree(versions / "2/chest_xray", patients=2)
    with pytest.raises(DataError, match=r"Max retries exceeded.*connection.*by hand.*--data demo"):
        found("kaggle", tmp_path)
    write(versions.parent / "2.complete", b"")
    source = found("kaggle", tmp_path)
    assert source.root == versions / "2/chest_xray"
    assert source.origin.startswith("an earlier Kaggle download")


def test_kaggle_without_kagglehub_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match=r'pip install "xray-search\[kaggle\]"'):
        found("kaggle", tmp_path)
