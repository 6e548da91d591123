"""How many tokens a prompt and its response may have, and in which type the engine computes."""

import json
import shutil

import pytest
import torch

from mstar_pl.models import adapter_for
from mstar_pl.rollouts.engine import context_of
from mstar_pl.rollouts.parity import check_parity
from mstar_pl.types import InputError
from tests.engines import running
from tests.tiny import BUILDERS


def test_the_context_is_what_the_model_has_positions_for_unless_less_is_asked_for(internvl_folder, tmp_path):
    short = adapter_for(internvl_folder)
    assert short.num_positions == 1024
    assert [context_of(short, asked) for asked in (None, 512, 1024)] == [1024, 512, 1024]
    with pytest.raises(InputError, match="max_model_len 1025 is over the 1024 tokens that"):
        context_of(short, 1025)
    folder = shutil.copytree(internvl_folder, tmp_path / "long")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 32768
    (folder / "config.json").write_text(json.dumps(config))
    assert [context_of(adapter_for(str(folder)), asked) for asked in (None, 8192)] == [4096, 8192]


@pytest.mark.engine
def test_vllm_starts_with_the_context_of_the_model_and_refuses_a_longer_one(internvl_folder):
    with running(adapter_for(internvl_folder), loaded=False, max_model_len=None) as engine:
        assert engine.max_model_len == 1024
    with (
        pytest.raises(InputError, match="max_model_len 4096 is over"),
        running(adapter_for(internvl_folder), max_model_len=4096),
    ):
        pass


@pytest.mark.engine
@pytest.mark.parametrize("family", ["internvl", "minicpmv4_6"])
def test_the_engine_may_be_narrower_than_the_training_weights(family, tmp_path, prompts):
    torch.manual_seed(0)
    lmm = adapter_for(str(BUILDERS[family](tmp_path)), question_style="plain")
    model = lmm.load_model()
    with running(lmm, dtype="bfloat16") as engine:
        gap = check_parity(engine, lmm, model, prompts, tolerance=0.5)
    assert gap > 1e-4, "rounded, so not in float32"
