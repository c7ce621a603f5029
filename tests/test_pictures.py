"""Text to image: the derived triplets, and the same two stages with one picture, at smoke size."""

import numpy as np
import pytest

from tests.test_trainers import adapter, changed, dit, root, same  # noqa: F401 (root: a fixture)
from vans.answer import predictions
from vans.data.batches import held_out
from vans.data.pictures import derive, telling
from vans.data.triplets import Triplets
from vans.models.load import load_vdm
from vans.params import load
from vans.score.metrics import METRICS
from vans.tables import pictures as small
from vans.toy.render import Scene, render_event
from vans.train import pictures


def test_the_telling_picture_is_the_one_that_differs_most():
    clip = np.zeros((9, 32, 32, 3), np.uint8)
    clip[3], clip[6] = 9, 7
    assert telling(clip) == 3 and telling(clip[:1]) == 0
    jump = render_event(Scene(shape="ball", colour="red", x=14.0), "jump")
    assert np.abs(jump[telling(jump)].astype(int) - jump[0]).mean() > 0


def test_derived_triplets_keep_all_but_the_target(root, tmp_path):  # noqa: F811
    source = Triplets(root / "triplets")
    made = Triplets(derive(root / "triplets", tmp_path / "triplets", load(root)))
    ids = list(source.frame.index)
    assert list(made.frame.index) == ids
    kept = [name for name in source.frame if not name.endswith(("_offset", "_size")) and name != "shard"]
    assert made.frame[kept].equals(source.frame[kept])
    assert (made.clips(ids[:8], "input") == source.clips(ids[:8], "input")).all()
    clips, shown = source.clips(ids[:8], "target"), made.clips(ids[:8], "target")
    assert shown.shape == (8, 1, *clips.shape[2:])
    assert all((picture[0] == clip[telling(clip)]).all() for picture, clip in zip(shown, clips, strict=True))


@pytest.fixture(scope="module")
def made(root, tmp_path_factory) -> pictures.Made:  # noqa: F811
    params, here = changed(root, tmp_path_factory.mktemp("pictures") / "root", machine={"processes": 1})
    real = load(root)
    rewards = {stage: getattr(real.rewards, stage) for stage in ("stage1", "stage2")}
    plain = {stage: {name: {k: t.weight for k, t in terms.items()} for name, terms in presets.items()}
             for stage, presets in rewards.items()}  # fmt: skip
    return pictures.train(params.with_(rewards=plain), here)


def test_both_stages_run_on_one_picture_and_leave_their_models(made, root):  # noqa: F811
    out = made.root.parents[1] / pictures.OUT
    sft = dit(out / "sft/vdm")
    base = {n: p.detach() for n, p in load_vdm(made.params, root / "models/base").dit.named_parameters()}
    assert not same(sft, base)
    assert adapter(out / "stage1/full/vlm") and dit(out / "stage2/main/vdm").keys() == sft.keys()
    assert all(made.histories[name] for name in ("sft", "stage1", "stage2"))
    assert made.params.video.frames == made.params.models.vdm.references == 1


def test_answers_are_single_pictures(made):
    ids = held_out(Triplets(made.root / "triplets"), made.params.evaluate.samples)
    given = predictions.open_folder(made.root / "predictions/main", ids)
    assert given.clips(ids, (1, 32, 32))[1] == 0 and set(given.shapes) == {(1, 32, 32)}


def test_the_small_table_has_what_a_picture_has_and_no_figure_of_the_papers(made, tmp_path):
    table = small.of(made.root / "results/scores")
    small.write(table, tmp_path)
    text = (tmp_path / "pictures.md").read_text(encoding="utf-8")
    assert "paper" not in text.split("## What each stage changes")[0]
    assert all(METRICS[name].title in text for name in small.SHOWN)
    assert {order.metric for order in table.orders} <= set(small.SHOWN)
    assert "video_event" not in made.scores["main"].summary["metrics"]["all"]  # no event is seen in one picture
    assert table.frame[table.frame["row"] == "picture_ceiling"]["rouge_l"].eq(1).all()


def test_a_new_score_trains_nothing_again(made, root, monkeypatch):  # noqa: F811
    params, here = made.params, made.root.parents[1]
    before = load(root).with_(machine={"processes": 1}, rewards=params.resolved()["rewards"])
    monkeypatch.setattr(pictures.stage2, "sde_rollout", lambda *_, **__: pytest.fail("it was trained again"))
    again = pictures.train(before, here)
    assert again.histories["stage2"] == made.histories["stage2"]
