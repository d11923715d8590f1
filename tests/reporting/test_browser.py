"""`report.html` in a real browser: headless Chromium, where it and its driver are installed."""

import json
import shutil

import pytest

from search.reporting import documents
from search.reporting.contents import read
from search.reporting.format import metric
from search.reporting.sentences import headlines

selenium = pytest.importorskip("selenium", reason="pip install selenium")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, run):
    documents.write(run)

    def opened(width=DESKTOP, scheme="light", script=True):
        height = 844 if width == PHONE else 900
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        theme = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        browser.get((run.root / "report.html").resolve().as_uri())
        return browser

    yield opened
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def texts(driver, selector):
    return [found.text for found in driver.find_elements("css selector", selector)]


@pytest.mark.parametrize(
    ("width", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")]
)
def test_it_opens_without_an_error_and_fits_the_screen(show, run, width, scheme):
    driver = show(width, scheme)
    assert driver.get_log("browser") == []
    asked = [
        message["params"]["request"]["url"]
        for entry in driver.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    wide = (
        "return Array.from(document.querySelectorAll('body *')).filter(e => !e.closest('.scroll')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert driver.execute_script(wide) == []
    drawn = driver.execute_script("return document.querySelectorAll('.panels .main-svg').length")
    assert drawn >= 8
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in paper[4:-1].split(",")) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60


def test_it_takes_six_screens_at_most(show):
    height = show().execute_script("return document.documentElement.scrollHeight")
    assert height <= 6 * 900


@pytest.mark.parametrize("script", [True, False])
def test_the_tiles_are_the_evaluation(show, run, script):
    driver = show(script=script)
    found = headlines(read(run).comparison)
    assert texts(driver, ".tile strong") == [metric(one.winner) for one in found]
    assert texts(driver, ".tile .old") == [metric(one.baseline) for one in found]


def test_a_heading_sorts_the_trials_and_a_row_adds_its_curve(show, run):
    driver = show()
    records = read(run).trials
    assert [t.split()[0] for t in texts(driver, "#trials tbody th")] == [
        r.trial_id for r in records
    ]
    button = driver.find_elements("css selector", "#trials thead button")[3]
    driver.execute_script("arguments[0].click()", button)
    scores = [t for t in texts(driver, "#trials tbody td:nth-child(4)") if t != "–"]
    assert scores == sorted(scores, key=float)
    count = "return document.querySelectorAll('[data-chart=curves] .legend .traces').length"
    before = driver.execute_script(count)
    driver.execute_script("document.querySelector('#trials tbody tr:last-child').click()")
    assert driver.execute_script(count) == before + 1


def test_brushing_an_axis_selects_configurations(show):
    from selenium.webdriver import ActionChains

    driver = show()
    axis = driver.find_elements("css selector", "#parallel-box .hit")[0]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", axis)
    drag = ActionChains(driver).move_to_element_with_offset(axis, 0, 100)
    drag.click_and_hold().move_by_offset(0, -60).release().perform()
    assert "selected" in driver.find_element("id", "selected").text
    hidden = "return document.querySelectorAll('#trials tr[hidden]').length"
    assert driver.execute_script(hidden) > 0
    ActionChains(driver).move_to_element(axis).click().perform()
    assert driver.execute_script(hidden) == 0


def test_a_folded_chart_is_drawn_when_it_is_opened(show):
    driver = show()
    driver.execute_script("document.querySelector('#retrained summary').click()")
    drawn = "return document.querySelectorAll('[data-chart=retraining] .main-svg').length"
    assert driver.execute_script(drawn) > 0
