"""The real engine, shared by tests."""

import gc
from contextlib import contextmanager


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
