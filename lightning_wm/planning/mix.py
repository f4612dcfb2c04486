"""How many candidates come from where."""

from __future__ import annotations

from dataclasses import asdict, astuple

from lightning_wm.config.fields import Share, settings


@settings("planner.mix")
class Mix:
    """Shares of the candidates by origin; they add up to 1."""

    policy: Share = 0.5
    """Rollouts of the policy in imagination: the first follows its mode, the others its samples."""
    previous: Share = 0.125
    """The previous plan, moved on in time; further ones have the random candidates' noise added."""
    random: Share = 0.375
    """Gaussian noise of standard deviation `init_std`."""

    def __post_init__(self) -> None:
        """Refuse shares that do not add up."""
        total = sum(astuple(self))
        if abs(total - 1) > 1e-5:
            previous = min(self.previous, 1 - self.policy)
            fitting = {"policy": self.policy, "previous": previous, "random": 1 - self.policy - previous}
            shares = " + ".join(f"{name} {share:g}" for name, share in asdict(self).items())
            typed = " ".join(f"planner.mix.{name}={share:g}" for name, share in fitting.items())
            raise ValueError(f"planner.mix: {shares} = {total:g}; expected shares that add up to 1; type e.g. {typed}")

    def counts(self, candidates: int) -> tuple[int, int, int]:
        """Candidates from the policy, from the previous plan and at random; they add up to `candidates`.

        Whole parts first, what is left by the largest remainders; the policy has one wherever its share is above 0.
        """
        exact = [share * candidates for share in astuple(self)]
        whole = [int(part + 1e-9) for part in exact]
        by_remainder = sorted(range(3), key=lambda index: whole[index] - exact[index])
        for index in by_remainder[: candidates - sum(whole)]:
            whole[index] += 1
        if self.policy > 0 and whole[0] == 0:
            whole[whole.index(max(whole))] -= 1
            whole[0] = 1
        return whole[0], whole[1], whole[2]
