"""Order: files that take minutes first, so that no process is left alone with one at the end."""

import pytest

LONG = ("test_pipeline", "test_resume", "test_stale", "test_trainers", "test_engine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
