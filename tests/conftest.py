"""Order: files that take minutes first, so that no process is left alone with one at the end. A real browser. A
repository whose models know nothing."""

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


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A repository whose models know nothing: as many as `vans answer` needs."""
    from tests import smoke
    from vans.models.load import vdm_options
    from vans.models.tokenizer import chat_tokenizer, text_tokenizer
    from vans.models.vdm import VDM
    from vans.models.vlm import VLM
    from vans.params import load
    from vans.toy import world

    root = tmp_path_factory.mktemp("repository")
    shutil.copyfile(smoke.ROOT / "params.yaml", root / "params.yaml")
    smoke.shrink(root / "params.yaml")
    shutil.copyfile(smoke.ROOT / "dvc.yaml", root / "dvc.yaml")
    params, words = load(root), world.vocabulary()
    vdm = VDM.scratch(params.models.vdm.config, text_tokenizer(words), 0, **vdm_options(params))
    vlm = VLM.scratch(params.models.vlm.config, chat_tokenizer(words), 0)
    vdm.save(root / "models/base/vdm")
    vlm.save(root / "models/base/vlm")
    vdm.dit.save_pretrained(root / "models/sft/vdm/transformer")
    vlm.add_lora(4, 8, 0).save_lora(root / "models/sft/vlm")
    return root


@pytest.fixture
def there(untrained, tmp_path, monkeypatch):
    """The current folder, inside of that repository, with a clip."""
    from vans.media import video
    from vans.toy import world

    folder = untrained / tmp_path.name
    folder.mkdir()
    monkeypatch.chdir(folder)
    video.write(folder / "x.avi", world.render_event(world.Scene(shape="cone", colour="blue"), "left"), 3.0)
    return folder
