"""The conversion of InternVL2: the same model, every weight used once, nothing left half."""

import json
import resource
import shutil
from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, GenerationConfig, InternVLForConditionalGeneration
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from mstar_pl.cli import main
from mstar_pl.data.jsonl import write_json
from mstar_pl.models import InternVL, adapter_for
from mstar_pl.models.checkpoint_files import INDEX
from mstar_pl.models.internvl2 import weights as shards
from mstar_pl.models.internvl2.configuration import check_published, native_config
from mstar_pl.models.internvl2.conversion import convert_internvl2
from mstar_pl.models.internvl2.weights import native_tensors
from mstar_pl.types import InputError
from tests.models.broken import assert_refused, cut
from tests.models.internvl2.forward import logits
from tests.tiny.internvl2 import CONFIG_2B, LLM_2B, build_published, published_shapes, random_weights

LLM_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
CONFIG_8B = CONFIG_2B | {"llm_config": LLM_2B | LLM_8B}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return build_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    return convert_internvl2(published, tmp_path_factory.mktemp("native") / "out")


@pytest.fixture
def source(published, tmp_path):
    """A copy that may be harmed."""
    return shutil.copytree(published, tmp_path / "source")


def shard(folder, index):
    return folder / f"model-{index:05d}-of-00002.safetensors"


def test_logits_are_those_of_the_published_code(published, converted):
    config = json.loads((published / "config.json").read_text())
    lmm = InternVL(str(converted))
    picture = Image.merge("RGB", [Image.effect_noise((100, 40), 90) for _ in range(3)])
    encoded = lmm.encode([lmm.chat("How many bars? 图中", 1)], [[picture]])
    assert encoded["pixel_values"].shape == (4, 3, 28, 28), "three tiles and the thumbnail"
    model = lmm.load_model()
    with torch.no_grad():
        found = model(**encoded).logits[0]
    image = lmm.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    expected = logits(random_weights(config), config, encoded["input_ids"][0], encoded["pixel_values"], image)
    assert expected.std() > 0.5
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("config", "billions"), [(CONFIG_2B, 2.21), (CONFIG_8B, 8.08)])
def test_published_names_make_exactly_the_native_model_in_full_size(config, billions):
    check_published(config, "config.json")
    native = native_config(config, 92546)
    with torch.device("meta"):
        expected = InternVLForConditionalGeneration(native).state_dict()
        weights = {name: torch.empty(shape) for name, shape in published_shapes(config).items()}
    made = [pair for name, weight in weights.items() for pair in native_tensors(name, weight, native).items()]
    assert len(made) == len(dict(made)), "each is made once"
    assert {name: weight.shape for name, weight in made} == {
        name: weight.shape for name, weight in expected.items()
    }
    assert sum(weight.numel() for weight in weights.values()) == sum(weight.numel() for _, weight in made)
    assert round(sum(weight.numel() for weight in weights.values()) / 1e9, 2) == billions


def test_native_configuration_says_what_the_published_one_means(converted):
    config = AutoModelForImageTextToText.from_pretrained(converted).config
    text = config.get_text_config()
    assert text.rope_parameters == {"rope_type": "default", "rope_theta": 1e6}
    assert not config.tie_word_embeddings
    assert config.vision_config.attention_bias
    lmm = adapter_for(str(converted))
    generation = GenerationConfig.from_pretrained(converted)
    assert generation.eos_token_id == lmm.end_token_id == lmm.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert lmm.stop_token_ids == (lmm.end_token_id, text.eos_token_id)
    assert config.image_token_id in lmm.banned_token_ids


def test_weights_are_streamed_in_shards(published, converted, tmp_path, monkeypatch):
    """No file is larger than a shard, of which one is in memory at a time."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 400_000)
    out = convert_internvl2(published, tmp_path / "out")
    files = sorted(out.glob("model-*.safetensors"))
    assert len(files) > 3
    weights = {}
    for file in files:
        part = load_file(file)
        assert sum(weight.nbytes for weight in part.values()) <= 400_000
        assert not part.keys() & weights.keys()
        weights |= part
    expected = load_file(converted / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    again = AutoModelForImageTextToText.from_pretrained(out).state_dict()
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_types_of_the_weights_and_a_single_file_are_kept(source, tmp_path):
    weights = {
        name: one.bfloat16() for index in (1, 2) for name, one in load_file(shard(source, index)).items()
    }
    for file in source.glob("model*"):
        file.unlink()
    save_file(weights, source / "model.safetensors")
    config = json.loads((source / "config.json").read_text()) | {"torch_dtype": "bfloat16"}
    (source / "config.json").write_text(json.dumps(config))
    model = AutoModelForImageTextToText.from_pretrained(
        convert_internvl2(source, tmp_path / "out"), dtype="auto"
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def removed(source):
    name = "language_model.model.layers.1.attention.wqkv.weight"
    for file in source.glob("model*.safetensors"):
        save_file({key: weight for key, weight in load_file(file).items() if key != name}, file)
    index = source / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    del listed["weight_map"][name]
    index.write_text(json.dumps(listed))


def rewritten(name, weight):
    """Put a weight into the first file, and into the index."""

    def harm(source):
        save_file(load_file(shard(source, 1)) | {name: weight}, shard(source, 1))
        index = source / "model.safetensors.index.json"
        listed = json.loads(index.read_text())
        listed["weight_map"].setdefault(name, shard(source, 1).name)
        index.write_text(json.dumps(listed))

    return harm


def without(key):
    def harm(source):
        config = json.loads((source / "config.json").read_text())
        del config["llm_config"][key]
        (source / "config.json").write_text(json.dumps(config))

    return harm


def stating(part="", **values):
    def harm(source):
        config = json.loads((source / "config.json").read_text())
        (config[part] if part else config).update(values)
        (source / "config.json").write_text(json.dumps(config))

    return harm


def cut_behind_a_piece(source):
    file = source / "tokenizer.model"
    proto = SentencePieceExtractor(str(file)).proto
    for field in ("trainer_spec", "normalizer_spec"):
        proto.ClearField(field)
    file.write_bytes(proto.SerializeToString())


QKV = "vision_model.encoder.layers.0.attn.qkv.bias"
WQKV = "language_model.model.layers.0.attention.wqkv.weight"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (removed, r"source: no weights for model\.language_model\.layers\.1\.self_attn\.q_proj"),
        (
            rewritten("vision_model.pooler.weight", torch.ones(2)),
            r"00001-.*: InternVL2 has no weight vision_m",
        ),
        (rewritten("language_model.model.layers.7.ffn_norm.weight", torch.ones(128)), r"00001-.* is surplus"),
        (rewritten(WQKV, torch.ones(255, 128)), r"00001-.*wqkv\.weight has shape \(255, 128\)"),
        (rewritten(WQKV, torch.ones(512, 128)), r"00001-.*wqkv\.weight has shape \(512, 128\)"),
        (rewritten("mlp1.3.bias", torch.ones(127)), r"00001-.*: mlp1\.3\.bias has shape \(127,\)"),
        (rewritten(QKV, torch.ones(192)), rf"00002-.*: {QKV} is in model-00001-of-00002\.safetensors, too"),
        (cut("model-00002-of-00002.safetensors"), r"00002-of-00002.*cannot be read .*; download it again"),
        (
            lambda source: shard(source, 2).unlink(),
            r"00002-of-00002\.safetensors: does not exist; download it",
        ),
        (
            lambda source: save_file(load_file(shard(source, 1)), shard(source, 2)),
            r"is in model-00001.*, too",
        ),
        (lambda source: write_json(source / INDEX, {"weight_map": {}}), "source: has no weights"),
        (lambda source: write_json(source / INDEX, {}), rf"{INDEX}: weight_map does not give a file's name"),
        (cut("tokenizer.model"), r"tokenizer\.model: cannot be read .*; download it again"),
        (cut_behind_a_piece, r"tokenizer\.model: is cut off; download it again"),
        (lambda source: (source / "tokenizer.model").write_bytes(b""), r"tokenizer\.model: is cut off"),
        (stating(downsample_ratio="0.5"), r"config\.json: cannot be used .*; download it again"),
        (
            stating(max_dynamic_patch="4"),
            r"config\.json: cannot be used .*max_dynamic_patch is '4', no whole",
        ),
        (stating("llm_config", num_attention_heads=3), r"config\.json: cannot be used .*heads \(3\)"),
        (stating("vision_config", num_attention_heads=3), r"config\.json: cannot be used .*`num_heads`: 3"),
        (stating("vision_config", patch_size=0), r"config\.json: cannot be used .*zero"),
        (stating("llm_config", rope_scaling=[2.0]), r"config\.json: cannot be used"),
        (cut("config.json"), r"config\.json: cannot be read .*; download it again"),
        (without("vocab_size"), r"config\.json: does not say 'vocab_size'"),
        (lambda source: (source / "tokenizer_config.json").unlink(), "tokenizer_config.json: does not exist"),
        (lambda source: (source / "tokenizer_config.json").write_text("{}"), "no </img>, so not InternVL2's"),
        (
            lambda source: (source / "tokenizer_config.json").write_text("[]"),
            "config.json: holds no JSON obj",
        ),
        (
            lambda source: write_json(source / "tokenizer_config.json", {"added_tokens_decoder": {"0": "a"}}),
            r"tokenizer_config\.json: cannot be used",
        ),
    ],
)
def test_a_source_that_is_not_whole_is_refused_and_nothing_is_written(source, harm, message):
    assert_refused(convert_internvl2, source, harm, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "internvl"}, "model_type is 'internvl'; only 'internvl_chat'"),
        ({"llm_config": {"model_type": "qwen2"}}, r"llm_config\.model_type is 'qwen2'.*the 2B and the 8B"),
        ({"llm_config": LLM_2B | {"rope_scaling": {"type": "linear"}}}, r"rope_scaling is .*only 'dynamic'"),
        ({"vision_config": {"norm_type": "rms_norm"}}, r"norm_type is 'rms_norm'.*InternViT-6B"),
        (
            {"vision_config": CONFIG_2B["vision_config"] | {"qk_normalization": True}},
            "qk_normalization is True",
        ),
        ({"ps_version": "v1"}, "ps_version is 'v1'"),
        ({"select_layer": -4}, "select_layer is -4"),
        ({"use_thumbnail": False}, "use_thumbnail is False"),
        ({"template": "internvl2_5"}, "template is 'internvl2_5'"),
        ({"force_image_size": 224}, r"force_image_size is 224; only vision_config\.image_size, 448, is conv"),
        ({"torch_dtype": "bf16x"}, "torch_dtype is 'bf16x'; give float32, float16 or bfloat16"),
    ],
)
def test_another_architecture_is_refused_with_the_reason(change, message):
    with pytest.raises(InputError, match=message):
        check_published(CONFIG_2B | change, "config.json")


@pytest.mark.parametrize("change", [{"force_image_size": None}, {"torch_dtype": None}])
def test_sizes_and_types_may_be_left_to_the_parts(change):
    check_published(CONFIG_2B | change, "config.json")


def test_the_command_converts_once(published, tmp_path, capsys):
    arguments = ["convert", "internvl2", str(published), str(tmp_path / "out")]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "out: exists; remove it, or give another folder" in capsys.readouterr().err


@contextmanager
def largest_file(num_bytes):
    """As on a full disk: no file may grow beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_conversion_that_breaks_off_leaves_nothing(published, tmp_path):
    with largest_file(1_000_000), pytest.raises((OSError, SafetensorError), match="File too large"):
        convert_internvl2(published, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_every_shard_has_the_format_that_transformers_asks_for(converted):
    with safe_open(converted / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
