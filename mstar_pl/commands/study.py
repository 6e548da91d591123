"""`mstar-pl study`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mstar_pl.types import InputError

if TYPE_CHECKING:
    from mstar_pl.evaluation.study import Step, Study


def study(
    recipe: str,
    rows: dict[str, str],
    test: str,
    out: Path = Path("runs/study"),
    seeds: tuple[int, ...] = (1, 2, 3),
    once: dict[str, str] | None = None,
    each_seed: dict[str, str] | None = None,
    baseline: str = "warmup",
    against: str | None = None,
    only: list[str] | None = None,
    jobs: int = 1,
    tables: bool = False,
) -> None:
    """Run recipes x seeds, write the tables and draw the figures.

    Steps that are complete are skipped, a training that was cut off goes on from its last checkpoint. The
    tables (OUT/tables) are written anew after every step from what is complete; OUT/versions.json tells with
    which packages it was run.

    Args:
        recipe: Command of a row: arguments of mstar-pl, in which $name is the row's name, $out the study's
            folder, $seed the seed, $run the folder of the seed and $dir the folder of the row.
        rows: Arguments to be added to it, by name of the row.
        test: Command that evaluates $policy into $dir.
        out: Folder of the study.
        seeds: One run of each row a seed.
        once: Commands by name that all seeds share, such as the data.
        each_seed: Commands by name that come before the rows of a seed, such as the warm-up.
        baseline: The step of each_seed whose policy the rows start from.
        against: A row that the tables also compare the others with.
        only: Run only these rows or other steps, and what they need.
        jobs: How many steps run at a time. CPU cores and GPUs (not tried yet) are divided among
                them.
        tables: Run nothing, write the tables.
    """
    from mstar_pl.data.durable import locked
    from mstar_pl.evaluation.figures import figures
    from mstar_pl.evaluation.study import Study
    from mstar_pl.evaluation.study_run import run_steps

    if jobs < 1:
        raise InputError(f"--jobs {jobs}: must be at least 1")
    plan = Study(
        out=out,
        seeds=seeds,
        recipe=recipe,
        rows=rows,
        test=test,
        once=once or {},
        each_seed=each_seed or {},
        baseline=baseline,
        against=against,
    )
    steps = list(plan.steps(only))
    todo = [] if tables else _undone(steps)
    if todo:
        with locked(out):
            _record_versions(out)
            run_steps(todo, jobs, after=lambda: _write(plan))
    print(_write(plan))
    try:
        print(f"tables in {out}/tables, {len(figures(plan, out / 'figures'))} figures in {out}/figures")
    except ImportError as error:
        print(f"tables in {out}/tables, no figures ({error}; pip install mstar_pl[study])")


def _undone(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that are not complete.

    Raises:
        InputError: One is complete that was made from one of them, which would be made anew.
    """
    undone: list[Step] = []
    for step in steps:
        if not step.is_done():
            undone.append(step)
        elif lacking := next((other for other in undone if step.needs(other)), None):
            made = f"{step.folder}: was made from {lacking.folder}, which is not complete"
            raise InputError(f"{made}; bring that back, or move away what was made from it")
    return undone


def _record_versions(out: Path) -> None:
    """Note in versions.json with what the study is run; a run with other versions is noted as well."""
    from mstar_pl.data.jsonl import write_json

    file = out / "versions.json"
    known: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.is_file() else []
    packages, installed = ("mstar_pl", "torch", "lightning", "transformers", "vllm"), packages_distributions()
    here: dict[str, Any] = {name: version(installed[name][0]) for name in packages if name in installed}
    here |= {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    if here not in known:
        write_json(file, {"runs": [*known, here]})


def _write(plan: Study) -> str:
    """Write the tables of what is complete, and return the main one."""
    from mstar_pl.evaluation.study_tables import collect, tables
    from mstar_pl.evaluation.table import write_tables

    found = tables(collect(plan), plan.baseline, plan.against)
    write_tables(plan.out / "tables", found)
    return found["rows.md"]
