"""Order: files that take minutes first, so that no process is left alone with one at the end. A real browser."""

import shutil

import pytest

LONG = ("test_pipeline", "test_resume", "test_stale", "test_trainers", "test_engine")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (tests/requirements.txt)")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (one of {', '.join(BROWSERS)})")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--disable-gpu"], timeout=120_000)
        yield started
        started.close()
