"""Holds a run directory against its manifest: what was changed since the run ended, what is gone.

The manifest lists every file of a finished run with its SHA-256. Files made from others can be made
again; of the records themselves, a change means that a report may say what was never found.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

from search.reporting.facts import mapping
from search.run_directory import RunDirectory, file_sha256

PACKAGE = "xray-search"
DERIVED = ("trials.csv", "history.csv", "report.md", "report.html", "model_card.md", "plots/")
"""Files, and a folder, that `--rebuild` makes from the records."""
WEIGHTS = "refit/"
"""Folder of the weights that retrainings kept: nothing is shown from them."""
LATER = "ablation/"
"""What is made after a run has ended; manifests of earlier versions list it all the same."""
LIGHT = "light_copy"
"""Field of the manifest of a light copy, see `light.py`."""


@dataclass(frozen=True, kw_only=True)
class Integrity:
    """What the comparison found; empty for a run without a manifest, which is still being made.

    Attributes:
        records: Records, models and other originals that are not what the manifest says.
        derived: The same of what can be made again.
        weights: The same of the weights that retrainings kept, which can be trained again.
        absent: Listed files that are not there, but for such weights: who copies a run to read it
            needs none.
        made_by: Version that made the run, "" if it is this one or unknown.
    """

    records: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    made_by: str = ""

    @property
    def sentences(self) -> list[str]:
        """Return what a person must know, with the remedy."""
        found = []
        if self.records:
            found.append(
                f"{', '.join(self.records)}: changed since the run ended, by the checksums in "
                "manifest.json; what is shown may not be what was found. Put the original back, or "
                "run again"
            )
        if self.derived:
            found.append(
                f"{', '.join(self.derived)}: changed since the run ended, by the checksums in "
                "manifest.json; --rebuild makes them again from the records"
            )
        if self.weights:
            found.append(
                f"{', '.join(self.weights)}: changed since the run ended, by the checksums in "
                "manifest.json; search.ablate trains such a network again instead of using it"
            )
        if self.absent:
            found.append(f"no longer there: {', '.join(self.absent)}")
        if self.made_by:
            found.append(
                f"made by {PACKAGE} {self.made_by} and read by {this_version()}; what only one of "
                "them knows is left out"
            )
        return found


def compare(run: RunDirectory, manifest: dict[str, Any]) -> Integrity:
    """Hash what the manifest lists and compare.

    Args:
        run: The run directory.
        manifest: The content of its `manifest.json`; {} if there is none.
    """
    records: list[str] = []
    derived: list[str] = []
    weights: list[str] = []
    absent: list[str] = []
    root = run.root.resolve()
    for name, entry in sorted(mapping(manifest.get("files")).items()):
        if name.startswith(LATER) and LIGHT not in manifest:
            continue
        path = root / name
        wanted = mapping(entry).get("sha256")
        # A manifest may have been tampered with as well; it must not lead elsewhere.
        inside = path.resolve().is_relative_to(root)
        kept = name.startswith(WEIGHTS)
        if inside and not path.exists():
            absent += [] if kept else [name]
        elif not inside or not path.is_file() or file_sha256(path) != wanted:
            remade = any(name == d or (d.endswith("/") and name.startswith(d)) for d in DERIVED)
            (weights if kept else derived if remade else records).append(name)
    version = mapping(manifest.get("versions")).get(PACKAGE)
    made_by = str(version) if version and version != this_version() else ""
    return Integrity(
        records=tuple(records),
        derived=tuple(derived),
        weights=tuple(weights),
        absent=tuple(absent),
        made_by=made_by,
    )


def this_version() -> str:
    """Return the version of this package, "unknown" for a bare checkout."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"
