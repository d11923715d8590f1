"""A finished run opened again: its configuration and where its images are.

What the workflow needs to make the same data set and HyperModel once more, see `ablation.reopen`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from search.config import RunConfig
from search.data.sources import Progress, Source, find_source
from search.errors import DataError, RunDirectoryError
from search.records import Manifest
from search.run_directory import RunDirectory, file_sha256

DERIVED = ("trials.csv", "history.csv", "report.md", "report.html", "model_card.md")
"""Files that a report makes again from the records."""


def refuse_unfinished(run: RunDirectory) -> None:
    """Refuse a run that has not ended, and say how to end it.

    Raises:
        RunDirectoryError: There is no manifest, which is written last.
    """
    if not run.complete:
        raise RunDirectoryError(
            f"{run.root}: the run is unfinished (no manifest.json, which is written last), so "
            "there is no winner yet; the command that started it, with --resume, goes on"
        )


def refuse_changed(run: RunDirectory) -> tuple[str, ...]:
    """Refuse a finished run whose records or models are not what its manifest lists.

    Returns:
        Paths of weights that retrainings kept and that were changed: they can be trained again.

    Raises:
        RunDirectoryError: A record or a model was changed, or the manifest is damaged.
    """
    weights = []
    for name, entry in sorted(run.read(Manifest, "manifest.json").files.items()):
        path = run.root / name
        if name in DERIVED or name.startswith("plots/") or not path.exists():
            continue
        if file_sha256(path) == entry.sha256:
            continue
        if not name.startswith("refit/"):
            raise RunDirectoryError(
                f"{path}: changed since the run ended, by the checksums in manifest.json; nothing "
                "is trained from it. Put the original back, or run again"
            )
        weights.append(name)
    return tuple(weights)


def stored_config(run: RunDirectory) -> RunConfig:
    """Return the configuration of a run, of this version or an earlier one.

    Raises:
        RunDirectoryError: `config.json` is missing, damaged, or has options that this version
            does not know.
        ConfigurationError: A value is out of range.
    """
    content = run.read_json("config.json")
    hints = typing.get_type_hints(RunConfig)
    names = {field.name for field in dataclasses.fields(RunConfig)}
    unknown = sorted(set(content) - names) if isinstance(content, dict) else ["no object"]
    if unknown:
        raise RunDirectoryError(
            f"{run.root / 'config.json'}: has options that this version does not know "
            f"({', '.join(unknown)}); use the version that made the run"
        )
    try:
        given = {name: _typed(hints[name], value) for name, value in content.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise RunDirectoryError(
            f"{run.root / 'config.json'}: cannot be read ({error}); use the version that made the "
            "run, or run it again"
        ) from None
    return RunConfig(**given)


def stored_source(
    run: RunDirectory, config: RunConfig, *, cache_dir: Path, progress: Progress
) -> Source:
    """Find the images of a run where they were, else where its options say.

    Args:
        run: The run.
        config: Its configuration.
        cache_dir: Where the demo is written.
        progress: Told of the demo's making.

    Raises:
        DataError: They are gone.
        RunDirectoryError: `dataset.json` is missing or damaged.
    """
    source = run.read_json("dataset.json")["source"]
    if source["synthetic"]:
        return find_source("demo", cache_dir=cache_dir, progress=progress)
    root = Path(source["root"])
    if root.is_dir():
        return find_source(
            root.as_posix(), cache_dir=cache_dir, table=config.table, progress=progress
        )
    if config.data == "auto":
        raise DataError(f"{root}: the images of {run.name} are gone; put them back")
    return find_source(config.data, cache_dir=cache_dir, table=config.table, progress=progress)


def _typed(hint: Any, value: Any) -> Any:
    """Return a value read from JSON as the type that a field has."""
    origin = typing.get_origin(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(_typed(inner, item) for item in value)
    if origin is dict:
        # Ranges among the strengths of views.
        return {k: tuple(v) if isinstance(v, list) else v for k, v in _pairs(value).items()}
    if origin is types.UnionType and value is not None:
        inner = next(kind for kind in typing.get_args(hint) if kind is not type(None))
        return _typed(inner, value)
    return value


def _pairs(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no mapping")
    return value
