from collections import Counter

import numpy as np
import pytest

from search.data.demo import FILMS, draw_planned, plan_films, write_demo
from search.data.listing import list_images
from search.data.naming import read_name
from search.errors import StorageError

FILM_PLAN = plan_films(8)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(
        "search.data.demo.FILMS",
        {folder: {"NORMAL": 2, "PNEUMONIA": 3} for folder in ("train", "val", "test")},
    )


def test_counts_are_those_announced_and_names_are_unique():
    counted = Counter(tuple(film.relative.split("/")[:2]) for film in FILM_PLAN)
    assert counted == {(f, c): n for f, classes in FILMS.items() for c, n in classes.items()}
    assert len({film.relative for film in FILM_PLAN}) == len(FILM_PLAN)


def test_names_are_the_real_ones_and_no_child_is_in_two_folders():
    folders: dict[str, set[str]] = {}
    for film in FILM_PLAN:
        parts = read_name(film.relative)
        assert parts.matched
        assert parts.subtype == film.subtype
        folders.setdefault(parts.patient, set()).add(film.relative.split("/")[0])
    assert all(len(found) == 1 for found in folders.values())
    films = Counter(read_name(film.relative).patient for film in FILM_PLAN)
    assert max(films.values()) > 1


def test_framing_goes_with_the_class_in_train_and_not_in_test():
    def distant(prefix):
        return np.mean([film.distant for film in FILM_PLAN if film.relative.startswith(prefix)])

    assert distant("train/NORMAL") > 0.85
    assert distant("train/PNEUMONIA") < 0.15
    assert abs(distant("test/NORMAL") - distant("test/PNEUMONIA")) < 0.15


def test_a_film_depends_on_the_seed_alone():
    first, second = (np.asarray(draw_planned(FILM_PLAN[0], 8)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, np.asarray(draw_planned(FILM_PLAN[0], 9)))


def test_films_of_one_child_differ():
    pair = [film for film in FILM_PLAN if film.patient == FILM_PLAN[-1].patient]
    pair += [film for film in FILM_PLAN if film.film == 1][:1]
    first = next(f for f in FILM_PLAN if f.patient == pair[-1].patient and f.film == 0)
    images = [np.asarray(draw_planned(film, 8).resize((64, 64))) for film in (first, pair[-1])]
    assert not np.array_equal(*images)


def test_disease_is_visible_in_the_lungs():
    """Opacities make lungs denser: the share of dark pixels falls, framing being equal."""

    def dark(prefix):
        films = [film for film in FILM_PLAN if film.relative.startswith(prefix)][:25]
        shares = []
        for film in films:
            image = np.asarray(draw_planned(film, 8)).astype(float)
            height, width = image.shape
            chest = image[height // 4 : height * 3 // 4, width // 5 : width * 4 // 5]
            shares.append((chest < 0.6 * np.median(image[image > 60])).mean())
        return float(np.mean(shares))

    assert dark("test/NORMAL") > 1.2 * dark("test/PNEUMONIA")


def test_it_is_written_once_in_the_kaggle_layout(tmp_path, small):
    root = write_demo(cache_dir=tmp_path, seed=8)
    assert len(list_images(root).files) == 15
    stamp = [path.stat().st_mtime_ns for path in sorted(root.rglob("*.jpeg"))]
    assert write_demo(cache_dir=tmp_path, seed=8) == root
    assert stamp == [path.stat().st_mtime_ns for path in sorted(root.rglob("*.jpeg"))]
    assert "synthetic" in (root / "README.txt").read_text()
    assert write_demo(cache_dir=tmp_path, seed=9) != root


def test_a_demo_with_films_gone_is_drawn_again(tmp_path, small):
    root = write_demo(cache_dir=tmp_path, seed=8)
    next(root.rglob("*.jpeg")).unlink()
    assert write_demo(cache_dir=tmp_path, seed=8) == root
    assert len(list_images(root).files) == 15


def test_a_failure_leaves_no_half_demo(tmp_path, small, monkeypatch):
    def fail(*_):
        raise RuntimeError("stop")

    monkeypatch.setattr("search.data.demo.draw_film", fail)
    monkeypatch.setattr("search.data.demo.draw_planned", fail)
    with pytest.raises(RuntimeError):
        write_demo(cache_dir=tmp_path, seed=8)
    assert not list(tmp_path.rglob("*.jpeg"))


def test_a_cache_that_cannot_be_written_is_told(tmp_path, small):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="--cache-dir"):
        write_demo(cache_dir=tmp_path / "cache", seed=8)
