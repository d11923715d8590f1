"""Replays a run's journal on the live view: as a picture of one moment, or played in the terminal.

    python tests/benchmarks/screen_recording.py RUN [--at 0.5] [--width 80] [--output screen.svg]
    python tests/benchmarks/screen_recording.py RUN --play 20        # twenty times as fast

RUN is a run directory, or its name under results/. The picture is an SVG of what the terminal
showed when that share of the search's events had happened; the times in it are the journal's.
`results/examples/screen.svg` was made with

    python -m search.run --data demo --image-size 32 --max-epochs 9 --workers 2 --name pair
    python tests/benchmarks/screen_recording.py pair --at 0.6 --output results/examples/screen.svg
"""

from __future__ import annotations

import argparse
import io
import re
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from search.errors import SearchError
from search.journal import EventKind
from search.reporting.facts import data_words, mapping
from search.reporting.live import LiveView
from search.reporting.progress import RunProgress
from search.reporting.screen import Screen
from search.run_directory import locate

THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (201, 209, 217),
    ],
)
"""Colours that are read on a white page as on a dark one."""


def main() -> None:
    """Make the picture, or play the journal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--at", type=float, default=0.5, help="share of the search (0.5)")
    parser.add_argument("--width", type=int, default=80, help="columns (80)")
    parser.add_argument("--height", type=int, default=24, help="lines (24)")
    parser.add_argument("--output", type=Path, default=Path("screen.svg"))
    parser.add_argument("--play", type=float, default=0.0, metavar="SPEED")
    options = parser.parse_args()
    try:
        run = locate(options.run)
        config, dataset = run.read_json("config.json"), run.read_json("dataset.json")
        events = run.events()
    except SearchError as error:
        raise SystemExit(f"error: {error}") from None
    progress = RunProgress(str(mapping(config).get("objective") or "robust_loss"))
    if options.play:
        play(events, progress, data=data_words(dataset), speed=options.play)
        return
    view = moment(events, progress, data=data_words(dataset), share=options.at)
    view = LiveView(progress=progress, now=view.now, data=view.data, height=options.height)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture(view, width=options.width), encoding="utf-8")
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")


def moment(
    events: list[dict[str, Any]], progress: RunProgress, *, data: str, share: float
) -> LiveView:
    """Replay a share of the search and return the view a second before the next event."""
    searched = [i for i, event in enumerate(events) if event["event"] == EventKind.EPOCH]
    count = searched[min(round(share * len(searched)), len(searched) - 1)]
    for event in events[:count]:
        progress.apply(event)
    return LiveView(progress=progress, now=events[count]["time"] - 0.1, data=data)


def play(events: list[dict[str, Any]], progress: RunProgress, *, data: str, speed: float) -> None:
    """Show the journal on this terminal, time-scaled."""
    begin, first = time.monotonic(), events[0]["time"]

    def now() -> float:
        return first + (time.monotonic() - begin) * speed

    def draw(height: int) -> LiveView:
        return LiveView(progress=progress, now=now(), data=data, height=height)

    screen = Screen(Console(), draw)
    screen.start()
    try:
        for event in events:
            time.sleep(max(0.0, (event["time"] - now()) / speed))
            progress.apply(event)
    except KeyboardInterrupt:
        pass
    finally:
        screen.stop()


def picture(view: LiveView, *, width: int) -> str:
    """Return the SVG, without the fonts that a page would have to fetch from elsewhere."""
    console = Console(
        width=width, file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor"
    )
    console.print(view)
    console.print()  # or the last line loses its descenders
    drawn = console.export_svg(title="python -m search.run --workers 2", theme=THEME)
    return re.sub(r"\s*@font-face \{.*?\}\s*(?=@font-face|\.)", "\n", drawn, flags=re.DOTALL)


if __name__ == "__main__":
    main()
