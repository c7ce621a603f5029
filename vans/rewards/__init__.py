"""Rewards as plugs. A term is one function of a `Rollout`; a preset in params.yaml gives terms their weights.

    # vans/rewards/terms/length.py
    from vans.rewards.rollout import Rollout, Tensor, term

    @term(needs="text")
    def length(rollout: Rollout) -> Tensor:          # [P, G]
        return torch.tensor([[float(len(c or "")) for c in row] for row in rollout.captions])

    # params.yaml
    rewards.stage1.full.length: 0.1

That is all: the stages that use the preset are run again, and only those. A weight may also name a function of your
own package (`package.module:function`), an executable (`./judge.sh`) or an HTTP endpoint: see `vans.rewards.outside`.
The same terms serve stage 1, stage 2 and all-in-one.
"""

from pathlib import Path

TERMS = Path(__file__).with_name("terms")


def names() -> list[str]:
    """The terms that ship with vans, by name; nothing heavy is imported."""
    return sorted(path.stem for path in TERMS.glob("*.py") if not path.stem.startswith("_"))
