"""The scalars of an iteration."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from mstar_pl.data.labelled import reveal
from mstar_pl.metrics.pass_at_k import pass_at_k
from mstar_pl.rewards.answer import grade_extraction
from mstar_pl.types import OutcomeName, ScoredGroup

FAULTS = ("truncated", "empty", "repetitive")
"""What makes a response degenerate."""


def summarise(groups: Iterable[ScoredGroup], num_samples: int | None = None) -> dict[str, float]:
    """Return the scalars of an iteration.

    Pass@1 and Pass@K (unbiased) are means over the labelled prompts with a decided response among the first K
    rollouts; undecided responses count neither as correct nor as wrong. `pseudo/agreement` is the share of
    the unlabelled prompts with a pseudo answer for which it is the true one, where that is known. Degenerate
    are responses that are empty, were cut off at the token limit, or end in a loop. All shares are of
    rollouts unless they say otherwise.

    Args:
        groups: The iteration, K rollouts a group; more of prompts that were given a second chance.
        num_samples: K; None takes the size of the smallest group.

    Returns:
        Scalars by metric name: `rollout/…` for how responses look, `reward/…` for what they are worth.
    """
    count, length = Counter[str](), 0
    labelled = Counter[tuple[OutcomeName, ...]]()
    process: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    kept, drawn = Counter[str](), Counter[str]()
    pseudo: list[bool | None] = []
    version = 0
    for scored in groups:
        rollouts, version = scored.group.rollouts, scored.group.weight_version
        outcomes = [score.outcome for score in scored.scores]
        if scored.group.prompt.answer is None:
            pseudo.append(agreement(scored))
        else:
            labelled[tuple(outcomes)] += 1
        for index, score in enumerate(scored.scores):
            if score.process is not None:
                process[score.outcome].append(score.process)
                if index in scored.selected:
                    process["selected"].append(score.process)
        count.update(outcomes)
        count["prompts"] += 1
        count["rollouts"] += len(rollouts)
        count["selected"] += len(scored.selected)
        count["trained prompts"] += bool(scored.selected)
        for rollout in rollouts:
            faults = (
                rollout.finish_reason == "length",
                not rollout.text.strip(),
                is_repetitive(rollout.token_ids),
            )
            count.update(dict(zip(FAULTS, faults, strict=True)))
            count["degenerate"] += any(faults)
        count["duplicate"] += len(rollouts) - len({rollout.text.strip() for rollout in rollouts})
        length += sum(len(rollout.token_ids) for rollout in rollouts)
        kept[scored.group.prompt.task.replace(" ", "_")] += len(scored.selected)
        drawn[scored.group.prompt.task.replace(" ", "_")] += len(rollouts)
    total = max(1, count["rollouts"])
    metrics = {
        "rollout/prompts": count["prompts"],
        "rollout/samples": count["rollouts"],
        "rollout/weight_version": version,
        "rollout/response_length": length / total,
        **{f"rollout/{fault}": count[fault] / total for fault in (*FAULTS, "degenerate")},
        "rollout/duplicate": count["duplicate"] / total,
        "reward/undecided": count["undecided"] / total,
        "reward/selected": count["selected"],
        "reward/acceptance": count["selected"] / total,
        "reward/solved_prompts": count["trained prompts"] / max(1, count["prompts"]),
    }
    metrics |= {f"reward/acceptance/{task}": kept[task] / num for task, num in sorted(drawn.items())}
    metrics |= {f"reward/process/{name}": fmean(values) for name, values in sorted(process.items())}
    if pseudo:
        known = [agrees for agrees in pseudo if agrees is not None]
        metrics |= {"pseudo/prompts": len(pseudo), "pseudo/compared": len(known)}
        metrics |= {"pseudo/agreement": fmean(known)} if known else {}
    metrics |= _passes(labelled, num_samples or min(map(len, labelled), default=0))
    return {name: float(value) for name, value in metrics.items()}


def is_repetitive(token_ids: Sequence[int], times: int = 4, least: int = 16) -> bool:
    """Tell whether a response ends in a loop: the same tokens `times` times in a row, `least` or more in all.

    >>> is_repetitive([5, 6] + [7, 8, 9, 7, 8, 9] * 3), is_repetitive([1, 2, 3] * 3), is_repetitive([1] * 12)
    (True, False, False)
    """
    for period in range(1, len(token_ids) // times + 1):
        if token_ids[-1 - period] == token_ids[-1]:
            tail = token_ids[-period * max(times, -(-least // period)) :]
            if len(tail) >= least and tail[period:] == tail[:-period]:
                return True
    return False


def _passes(labelled: Counter[tuple[OutcomeName, ...]], num_samples: int) -> dict[str, float]:
    """Return Pass@1 and Pass@K of the K samples that every prompt had; more would favour hard prompts."""
    decided = Counter[tuple[int, int]]()
    for outcomes, times in labelled.items():
        one = Counter(outcomes[:num_samples])
        if num := one.total() - one["undecided"]:
            decided[num, one["correct"]] += times
    if not decided:
        return {}
    each = (correct / num for num, correct in decided.elements())
    whole = (pass_at_k(num, correct, min(num_samples, num)) for num, correct in decided.elements())
    return {"reward/pass@1": fmean(each), f"reward/pass@{num_samples}": fmean(whole)}


def agreement(scored: ScoredGroup) -> bool | None:
    """Tell whether the pseudo answer of an unlabelled prompt is the true one; None if one is missing."""
    truth = reveal(scored.group.prompt)
    winner = next((score.extraction for score in scored.scores if score.outcome == "correct"), None)
    if winner is None or truth is None:
        return None
    return grade_extraction(winner, truth).outcome == "correct"
