"""The real engine, shared by tests."""

import gc
from contextlib import contextmanager

from mstar_pl.data.store import RolloutStore
from mstar_pl.rewards import AllCorrect, AnswerReward
from mstar_pl.rollouts.pipeline import RolloutPipeline
from mstar_pl.rollouts.second_chance import SecondChance
from mstar_pl.types import SamplingConfig


@contextmanager
def running(lmm, *, loaded=True, **options):
    """A vLLM engine of its own, with the weights of the adapter's folder if wanted; shut down at the end."""
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    # An engine of an earlier module that is freed later would take this one's process groups with it.
    gc.unfreeze()
    gc.collect()
    engine = VLLMEngine(lmm, **{"max_model_len": 256, "max_num_seqs": 64} | options)
    try:
        if loaded:
            engine.load_policy(lmm.load_model().state_dict().items(), version=1)
        yield engine
    finally:
        engine.close()


def fill(root, engine, prompts, processes=None):
    """Sample an iteration, with a second chance for each prompt, and return its groups."""
    store = RolloutStore(root)
    options = {"shard_prompts": 5, "second_chance": SecondChance(rounds=1), "processes": processes}
    sampling = SamplingConfig(num_samples=4, temperature=1.0, max_tokens=12, seed=3)
    RolloutPipeline(store, AnswerReward(), AllCorrect(), **options).run(
        engine, prompts, [sampling], 0, "same"
    )
    return list(store.groups(0))
