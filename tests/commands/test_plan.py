"""The plan of a training's memory, from the command line."""

import json
from pathlib import Path

import pytest

from mstar_pl.cli import main
from mstar_pl.models import adapter_for

CONFIGS = Path(__file__).parent.parent.parent / "configs"
SFT = ["--config", str(CONFIGS / "experiments/sft.yaml"), "--trainer", str(CONFIGS / "trainer/cpu.yaml")]
SMALL = [f"--data.init_args.{size}" for size in ("batch_size=4", "micro_batch_size=2", "max_length=64")]
SCALE = [
    "--config",
    str(CONFIGS / "experiments/mstar.yaml"),
    "--config",
    str(CONFIGS / "scale/mathv360k_prm.yaml"),
    "--data.init_args.max_length=96",
]


def planned(capsys, *args):
    capsys.readouterr()
    assert main(["plan", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_recipe_is_planned_without_data_and_without_a_run(internvl_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *SFT, f"--model.init_args.lmm.init_args.path={internvl_folder}", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "| MiB on each device " in out
    assert "peak: " in out
    assert "micro-batch: 2 rows of 6" in out
    assert not list(tmp_path.iterdir())


def test_a_larger_micro_batch_takes_more_and_so_do_several_processes(internvl_folder, capsys):
    folder = f"--model.init_args.lmm.init_args.path={internvl_folder}"
    larger = ["--data.init_args.batch_size=8", "--data.init_args.micro_batch_size=4"]
    base, wide = (
        planned(capsys, *SFT, folder, *SMALL, *more)["phases"]["training"]
        for more in ([], [*larger, "--trainer.strategy=ddp", "--trainer.devices=2"])
    )
    assert 1.8 < wide["activations and batch"] / base["activations and batch"] < 2.2
    assert wide["gradients"] == base["gradients"], "they lie in DDP's buckets"


def test_low_rank_updates_of_groups_are_planned(internvl_folder, capsys):
    """A merged weight is made when it is handed over, no copy of all of them."""
    groups = '--model.init_args.lora.groups={"language": {"rank": 4}, "vision": {}, "projector": "full"}'
    recipe = ["--config", str(CONFIGS / "experiments/mstar.yaml"), *SMALL, "--data.init_args.max_length=96"]
    found = planned(capsys, *recipe, f"--model.init_args.lmm.init_args.path={internvl_folder}", groups)
    model = adapter_for(internvl_folder).load_model()
    assert found["phases"]["weight sync"]["a weight put together"] == max(
        one.nbytes for one in model.parameters()
    )
    training = found["phases"]["training"]
    for group in ("language", "vision"):
        assert training[f"weights: {group}, trained"] < training[f"weights: {group}, frozen"]
    assert "weights: projector, frozen" not in training
    trained = sum(size for part, size in training.items() if part.endswith(", trained"))
    assert training["optimizer"] == pytest.approx(2 * trained, rel=0.01), "moments of what is trained"


def test_the_scale_of_the_paper_is_planned_with_a_folder_of_the_architecture(internvl_folder, capsys):
    """A tiny model of it; the recipe says the rest: eight GPUs, FSDP2, an engine on each."""
    folder = f"--model.init_args.lmm.init_args.path={internvl_folder}"
    context = "--trainer.evolution.init_args.engine.init_args.max_model_len=1024"
    found = planned(capsys, *SCALE, folder, context, "--gpu_gib", "80")
    model = adapter_for(internvl_folder).load_model()
    size = sum(parameter.nbytes for parameter in model.parameters())
    training, sync, generation = (found["phases"][name] for name in ("training", "weight sync", "generation"))
    weights = sum(value for name, value in training.items() if name.startswith("weights: "))
    assert size / 8 <= weights <= size / 8 + 4096
    assert "weights: vision, frozen" in training
    assert training["blocks put together"] > size / 8
    assert "engine: weights" not in training, "it sleeps"
    assert sync["engine: weights"] == generation["engine: weights"] == size // 2, "in bfloat16"
    assert generation["engine: KV cache"] == 40 * 2**30 - size // 2
    judge = generation["process reward model (as large as the policy)"]
    assert judge == size // 2, "in bfloat16"
    assert found["device"] == 80 * 2**30


def test_what_keeps_a_plan_from_being_made_is_said_on_one_line(internvl_folder, capsys):
    for args, reason in (
        (SCALE, "runs/mathv360k/sft/policy: not a model folder (no config.json)"),
        ([*SFT, "--data.init_args.max_length=20"], "data.max_length 20: the smallest image"),
        ([*SFT, "--trainer.strategy=fsdp"], "trainer.strategy fsdp is not supported"),
        ([*SFT, "--trainer.precision=bf16-true"], "rotary frequencies"),
        ([*SFT, "--model.init_args.lora.quantize=nf4"], "4 bits are not reckoned"),
        ([], "required: fit.model"),
    ):
        capsys.readouterr()
        assert main(["plan", *args]) == 2
        err = capsys.readouterr().err.strip().splitlines()
        assert [line for line in err if line.startswith("mstar-pl: error: ") and reason in line], err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    assert "arguments of fit" in capsys.readouterr().out
