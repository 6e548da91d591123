"""`mstar-pl table`."""

from __future__ import annotations

from pathlib import Path

from mstar_pl.evaluation.paper import Reference


def table(results: dict[str, Path], out: Path | None = None, reference: Reference = "minicpm") -> None:
    """Print the paper's tables of any policies: five benchmarks and their average, MathVista by task.

    Accuracies have 95 % intervals, and below each policy but the first is its difference to the first one,
    paired over the prompts that both answered. What an evaluation has otherwise than the first one (rules,
    token limit, number of prompts) is noted below.

    Args:
        results: By name of the policy, e.g. --results.base runs/base --results.mstar runs/mstar: a folder
            with results.json, or with a sub-folder for each benchmark.
        out: Folder for table.md and table.csv.
        reference: The rows of the paper to put beside them: those of MiniCPM-V-2.5, Phi-3.5-vision or
            InternVL2-2B, all or none.
    """
    from mstar_pl.evaluation.comparison_tables import compare

    show_tables(compare(results, reference), out)


def show_tables(tables: dict[str, str], out: Path | None) -> None:
    """Print what `compare` returns and, where a folder is given, write its files."""
    print(tables["table.md"])
    if out is not None:
        from mstar_pl.evaluation.table import write_tables

        write_tables(out, tables)
