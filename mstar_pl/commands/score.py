"""`mstar-pl score`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mstar_pl.commands.engine import check_counts


def score(
    process_reward: str,
    questions: Path,
    responses: Path,
    out: Path,
    aggregate: Literal["min", "last", "mean", "product"] = "min",
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str = "cpu",
    shard: int = 256,
) -> None:
    """Score the steps of responses with a process reward model.

    Writes one JSON row a response to OUT: 'id', 'response', 'steps', 'step_scores' and 'process', the total.
    The responses of a prompt share one encoding of it. An interrupted run goes on where it stopped.

    Args:
        process_reward: Folder of an exported process reward model.
        questions: Prompt JSONL file.
        responses: JSONL of {"id", "response"} rows, any number of each prompt.
        out: JSONL file; its shards lie beside it in OUT.shards.
        aggregate: Score of a response from those of its steps; the paper takes the least.
        dtype: Type of the weights.
        device: Where the model runs, e.g. 'cuda'.
        shard: Prompts of one shard.
    """
    from mstar_pl.data.durable import refuse_folder
    from mstar_pl.data.jsonl import read_prompts, write_jsonl
    from mstar_pl.evaluation.scoring import read_responses, score_responses
    from mstar_pl.models.process_reward import ProcessRewardModel

    check_counts(shard=shard)
    refuse_folder(out)
    prompts = {prompt.id: prompt for prompt in read_prompts(questions)}
    grouped = read_responses(responses, prompts)
    model = ProcessRewardModel.load(process_reward, dtype=dtype)
    model.to(device)
    settings = [model.digest(), aggregate]
    folder = out.with_name(f"{out.name}.shards")
    rows = score_responses(model, prompts, grouped, aggregate, folder, settings, shard)
    print(f"wrote {write_jsonl(out, rows)} ({sum(map(len, grouped.values()))} responses)")
