"""The real engine, shared by tests."""

from contextlib import contextmanager

import pytest

from mstar_pl.data.store import RolloutStore
from mstar_pl.rewards import AllCorrect, AnswerReward
from mstar_pl.rollouts.pipeline import RolloutPipeline
from mstar_pl.rollouts.second_chance import SecondChance
from mstar_pl.types import SamplingConfig


@contextmanager
def running(lmm, *, loaded=True, **options):
    """A vLLM engine of its own, with the weights of the adapter's folder if wanted; shut down at the end."""
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

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


def assert_faults_are_found(engine, weights, part, prompts):
    """Give the engine all weights but one, then one twice; it says so, and refuses to generate."""
    name = next(name for name in weights if part in name)
    with pytest.raises(RuntimeError, match=r"did not reach the engine whole: .* got \d+ of \d+ values"):
        engine.load_policy([item for item in weights.items() if item[0] != name], version=1)
    with pytest.raises(RuntimeError, match="load_policy before generate"):
        engine.generate(prompts, SamplingConfig(max_tokens=12))
    with pytest.raises(RuntimeError, match="was given to the engine twice"):
        engine.load_policy([*weights.items(), (name, weights[name])], version=1)
