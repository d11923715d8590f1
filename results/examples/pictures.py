"""Draws the README's pictures from a run: `python results/examples/pictures.py RUN`.

`report.png` is the top of its page in headless Chromium, `screen.svg` the live view at 80 × 24 when
a third of its journal was written.
"""

import base64
import io
import shutil
import sys
from pathlib import Path

from rich.console import Console
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from search.reporting.contents import read
from search.reporting.live import LiveView
from search.reporting.progress import RunProgress
from search.run_directory import RunDirectory

HERE = Path(__file__).parent
SHARE = 0.35


def screen(run: RunDirectory) -> None:
    """Draw the live view."""
    contents = read(run)
    state = RunProgress(contents.config.objective)
    for event in contents.events[: int(SHARE * len(contents.events))]:
        state.apply(event)
    images = sum(contents.dataset.counts["train"].values())
    console = Console(width=80, height=24, record=True, file=io.StringIO(), force_terminal=True)
    view = LiveView(progress=state, now=state.last + 4, data=f"{images:,} images", height=23)
    console.print(view)
    console.save_svg(str(HERE / "screen.svg"), title=f"python -m search.watch {run.name}")


def page(run: RunDirectory) -> None:
    """Photograph the top of the report."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    size = {"width": 1280, "height": 1180, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get((run.root / "report.html").resolve().as_uri())
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
    (HERE / "report.png").write_bytes(base64.b64decode(picture))
    driver.quit()


if __name__ == "__main__":
    screen(RunDirectory(Path(sys.argv[1])))
    page(RunDirectory(Path(sys.argv[1])))
