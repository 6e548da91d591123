"""Paired differences of the committed study: python -m tests.evaluation.pairs > docs/study/pairs.md"""

import json
from pathlib import Path

from mstar_pl.evaluation.study_tables import Outcomes, difference
from mstar_pl.evaluation.table import markdown, signed_cell

STUDY = Path(__file__).parents[2] / "docs/study"
PAIRS = [
    ("continuous", "iterative_rft"),
    ("continuous", "rest_em"),
    ("iterative_rft", "rest_em"),
    ("continuous", "continuous_100"),
    ("continuous", "continuous_50"),
    ("continuous", "continuous_12_5"),
    ("continuous", "continuous_6_25"),
    ("continuous_6_25", "continuous_100"),
    ("continuous", "random_k"),
    ("prm_topk", "continuous"),
    ("prm_topk", "random_k"),
    ("prm_topk", "prm_threshold"),
    ("prm_topk", "prm_top1"),
    ("prm_topk", "prm_top4"),
    ("mstar", "continuous"),
    ("mstar", "prm_topk"),
    ("mstar", "temperature_by_pass"),
    ("mstar", "mstar_hard_labels"),
    ("unlabelled", "prm_topk"),
    ("unlabelled_25", "unlabelled"),
    ("unlabelled_50", "unlabelled"),
    ("unlabelled_75", "unlabelled"),
    ("unlabelled_75", "prm_topk"),
    ("unlabelled_oracle_prm", "unlabelled"),
    ("unlabelled_oracle_prm", "unlabelled_oracle"),
    ("unlabelled_oracle_prm", "prm_topk"),
    ("mstar_second_chance", "mstar"),
    ("mstar_padded", "mstar"),
    ("mstar_refreshed", "mstar"),
    ("mstar_restart", "mstar"),
    ("mstar_restart", "mstar_second_chance"),
    ("mstar_restart", "continuous"),
    ("mstar_restart", "mstar, before"),
    ("mstar_restart", "mstar, both"),
    ("continuous, both", "warmup, both"),
    ("mstar, both", "warmup, both"),
    ("mstar, both", "continuous, both"),
]
"""Rows of the study; `before` is what `earlier/` has of a row, `both` is all runs of it."""


def read_outcomes(text):
    """Return the outcomes that `Outcomes.to_json` wrote."""
    found = json.loads(text)
    runs = {
        row: {
            int(seed): {
                key: sign == "1" for key, sign in zip(found["tasks"], signs, strict=True) if sign != "-"
            }
            for seed, signs in by_seed.items()
        }
        for row, by_seed in found["runs"].items()
    }
    return Outcomes(found["tasks"], runs)


def only(outcomes, ids):
    """Return the outcomes of some of the questions."""
    runs = {
        row: {seed: {key: run[key] for key in run if key in ids} for seed, run in by_seed.items()}
        for row, by_seed in outcomes.runs.items()
    }
    return Outcomes({key: task for key, task in outcomes.tasks.items() if key in ids}, runs)


def pairs(ids=None):
    """Return the table of those of which both rows are there, of some of the questions or of all."""
    read = [read_outcomes((STUDY / folder / "outcomes.json").read_text()) for folder in ("tables", "earlier")]
    runs, earlier = ((only(found, ids) if ids else found).runs for found in read)
    found = dict(runs)
    for row, by_seed in earlier.items():
        before = {f"{seed}, before": run for seed, run in by_seed.items()}
        found |= {f"{row}, before": by_seed, f"{row}, both": runs[row] | before}
    rows = [["row", "less", "points", "by seed"]]
    for first, second in PAIRS:
        if first not in found or second not in found:
            continue
        one = found[first]
        if second.endswith("both") and not first.endswith("both"):  # each of its runs against two
            one = one | {f"{seed}, before": run for seed, run in one.items()}
        gains = [
            f"{100 * (sum(one[seed].values()) - sum(run.values())) / len(run):+.1f}"
            for seed, run in found[second].items()
        ]
        rows.append([first, second, signed_cell(difference(one, found[second])), " ".join(gains)])
    return markdown(rows)


if __name__ == "__main__":
    print(pairs())
