"""`report.html` in a real browser: headless Chromium, where it and its driver are installed."""

import json
import shutil

import pytest
from search.reporting.stored import read_run
from search.reporting.trials import ordered

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
    # Whatever the page wanted from elsewhere would fail here as on a train.
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, made):
    def opened(width=DESKTOP, scheme="light"):
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        theme = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        browser.get((made.root / "report.html").resolve().as_uri())
        return browser

    return opened


def cells(driver, column, table="#trials"):
    script = (
        "return Array.from(document.querySelector(arguments[0]).tBodies[0].rows)"
        ".filter(row => !row.hidden).map(row => row.cells[arguments[1]].textContent)"
    )
    return driver.execute_script(script, table, column)


def heading(driver, name):
    found = driver.find_elements("css selector", "#trials thead button")
    return next(button for button in found if button.text.split()[0] == name)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_and_fits_the_screen(show, made, width, scheme):
    driver = show(width, scheme)
    driver.get_log("performance")
    driver.refresh()
    assert driver.get_log("browser") == []
    asked = [
        message["params"]["request"]["url"]
        for entry in driver.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    pictures = driver.execute_script(
        "return Array.from(document.images).map(i => [i.complete, i.naturalWidth, i.alt])"
    )
    assert len(pictures) == len(list((made.root / "plots").rglob("*.png")))
    assert all(complete and width > 0 and alt for complete, width, alt in pictures)
    page = driver.execute_script("return document.documentElement.scrollWidth")
    assert page <= width
    wide = "return Array.from(document.querySelectorAll('#exports table, #questions table'))"
    regions = driver.execute_script(f"{wide}.map(t => t.closest('.scroll').clientWidth)")
    assert len(regions) == 2
    assert all(0 < region <= width for region in regions)
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in paper[4:-1].split(",")) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60
    filters = driver.execute_script(
        "return ['.plot img', '.film img'].map("
        "s => getComputedStyle(document.querySelector(s)).filter)"
    )
    assert (filters[0] != "none") == (scheme == "dark")
    assert filters[1] == "none"


def test_the_trials_are_sorted_by_a_heading_with_mouse_and_keyboard(show, made):
    from selenium.webdriver.common.keys import Keys

    driver = show()
    records = ordered(read_run(made).records, "min")
    assert cells(driver, 0) == [record.trial_id for record in records]
    button = heading(driver, "robust_loss")
    head = button.find_element("xpath", "..")
    assert head.get_attribute("aria-sort") == "none"
    button.click()
    scores = sorted(f"{r.score:.3f}" for r in records if r.score is not None)
    failed = ["–"] * sum(r.score is None for r in records)
    assert cells(driver, 6) == [*scores, *failed]
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert cells(driver, 6) == [*reversed(scores), *failed]
    assert head.get_attribute("aria-sort") == "descending"
    # Numbers by value, not as text: 1,234 is more than 987.
    other = heading(driver, "parameters")
    other.send_keys(Keys.SPACE)
    numbers = [int(text.replace(",", "")) for text in cells(driver, 9) if text != "–"]
    assert numbers == sorted(numbers)
    assert head.get_attribute("aria-sort") == "none"
    assert driver.get_log("browser") == []


def test_the_trials_are_filtered_by_words(show, made):
    driver = show(PHONE)
    field = driver.find_element("id", "filter")
    records = read_run(made).records
    field.send_keys("FAILED bold")
    failed = [r.trial_id for r in records if r.failure and "bold" in r.failure.message]
    assert failed
    assert sorted(cells(driver, 0)) == failed
    told = driver.find_element("id", "matches")
    assert told.text == f"{len(failed)} of {len(records)} shown"
    assert told.get_attribute("role") == "status"
    field.clear()
    field.send_keys(" ")
    assert len(cells(driver, 0)) == len(records)


def test_numbers_open_beside_the_pictures_where_there_is_room(show):
    opened = "return Array.from(document.querySelectorAll('details.beside')).map(d => d.open)"
    assert all(show(DESKTOP).execute_script(opened))
    driver = show(PHONE)
    assert not any(driver.execute_script(opened))
    summary = driver.find_element("css selector", "details.beside summary")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", summary)
    summary.click()
    assert driver.execute_script(opened)[0]
