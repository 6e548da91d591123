"""Names and shapes of the published parameters, and its configuration at full size on the meta device."""

import json
from math import prod

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from mstar_pl.models import adapter_for
from mstar_pl.models.phi3_v import Phi3VConfig, Phi3VForCausalLM
from mstar_pl.rollouts.engine import context_of
from mstar_pl.types import InputError

# config.json of microsoft/Phi-3.5-vision-instruct; the rotation's factors are made up.
PUBLISHED = {
    "architectures": ["Phi3VForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_phi3_v.Phi3VConfig",
        "AutoModelForCausalLM": "modeling_phi3_v.Phi3VForCausalLM",
    },
    "bos_token_id": 1,
    "embd_layer": {
        "embedding_cls": "image",
        "hd_transform_order": "sub_glb",
        "projection_cls": "mlp",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    },
    "embd_pdrop": 0.0,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "img_processor": {
        "image_dim_out": 1024,
        "model_name": "openai/clip-vit-large-patch14-336",
        "name": "clip_vision_model",
        "num_img_tokens": 144,
    },
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "model_type": "phi3_v",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "long_factor": [1.0 + i for i in range(48)],
        "short_factor": [1.0 + 0.01 * i for i in range(48)],
        "type": "su",
    },
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.1",
    "use_cache": True,
    "vocab_size": 32064,
}
TOKENS, HIDDEN, INNER, LAYERS = 32064, 3072, 8192, 32
SEEN, SEEN_INNER, SEEN_LAYERS, PATCHES = 1024, 4096, 24, (336 // 14) ** 2


def published_shapes():
    """What the published checkpoint holds, from its sizes alone."""
    shapes = {
        "lm_head.weight": (TOKENS, HIDDEN),
        "model.embed_tokens.weight": (TOKENS, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        part = f"model.layers.{layer}"
        shapes[f"{part}.self_attn.qkv_proj.weight"] = (3 * HIDDEN, HIDDEN)
        shapes[f"{part}.self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{part}.mlp.gate_up_proj.weight"] = (2 * INNER, HIDDEN)
        shapes[f"{part}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes[f"{part}.input_layernorm.weight"] = (HIDDEN,)
        shapes[f"{part}.post_attention_layernorm.weight"] = (HIDDEN,)
    images = "model.vision_embed_tokens"
    shapes[f"{images}.glb_GN"] = (1, 1, 4 * SEEN)
    shapes[f"{images}.sub_GN"] = (1, 1, 1, 4 * SEEN)
    for place, width in ((0, 4 * SEEN), (2, HIDDEN)):
        shapes[f"{images}.img_projection.{place}.weight"] = (HIDDEN, width)
        shapes[f"{images}.img_projection.{place}.bias"] = (HIDDEN,)
    tower = f"{images}.img_processor.vision_model"
    shapes[f"{tower}.embeddings.class_embedding"] = (SEEN,)
    shapes[f"{tower}.embeddings.patch_embedding.weight"] = (SEEN, 3, 14, 14)
    shapes[f"{tower}.embeddings.position_embedding.weight"] = (PATCHES + 1, SEEN)
    linear = {f"self_attn.{one}_proj": (SEEN, SEEN) for one in ("q", "k", "v", "out")}
    linear |= {"mlp.fc1": (SEEN_INNER, SEEN), "mlp.fc2": (SEEN, SEEN_INNER)}
    layers = [f"{tower}.encoder.layers.{layer}" for layer in range(SEEN_LAYERS)]
    for part in layers:
        for name, shape in linear.items():
            shapes[f"{part}.{name}.weight"], shapes[f"{part}.{name}.bias"] = shape, shape[:1]
    norms = [f"{part}.layer_norm{number}" for part in layers for number in (1, 2)]
    for norm in [*norms, f"{tower}.pre_layrnorm", f"{tower}.post_layernorm"]:
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (SEEN,)
    return shapes


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    return tmp_path


@pytest.mark.parametrize("auto", [AutoModelForImageTextToText, AutoModelForCausalLM])
def test_published_names_and_shapes_at_full_size(folder, auto):
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = auto.from_config(config)
    assert type(model) is Phi3VForCausalLM, "the code that auto_map names is not asked for"
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == published_shapes()
    assert sum(map(prod, shapes.values())) == 4_146_621_440  # 4.15B in the model card
    assert {name for name, _ in model.named_parameters()} == set(shapes)


def test_the_published_configuration_is_read_without_its_code(folder):
    config = AutoConfig.from_pretrained(folder)
    assert type(config) is Phi3VConfig
    assert config.rope_parameters["rope_type"] == "longrope"
    assert config.image_token_id == 32044
    config.save_pretrained(folder / "export")
    assert "auto_map" not in json.loads((folder / "export/config.json").read_text())
    again = AutoConfig.from_pretrained(folder / "export")
    assert again.rope_parameters["rope_type"] == "longrope"
    for factors in ("short_factor", "long_factor"):
        assert again.rope_parameters[factors] == PUBLISHED["rope_scaling"][factors]
    assert again.img_processor == PUBLISHED["img_processor"]


def test_the_last_layer_of_the_tower_and_its_norm_are_never_used(folder):
    lmm = adapter_for(str(folder))
    with torch.device("meta"):
        model = lmm.empty_model()
    lmm.freeze(model, [])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    tower = "model.vision_embed_tokens.img_processor.vision_model"
    assert len(frozen) == 18
    assert all(
        name.startswith((f"{tower}.encoder.layers.23.", f"{tower}.post_layernorm.")) for name in frozen
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"embd_layer": {"hd_transform_order": "glb_sub"}}, "embd_layer.hd_transform_order 'glb_sub'"),
        ({"img_processor": {"type_feature": "cls_patch"}}, "img_processor.type_feature 'cls_patch'"),
    ],
)
def test_another_projector_or_tower_is_refused(folder, part, message):
    (folder / "config.json").write_text(json.dumps(PUBLISHED | part))
    with pytest.raises(InputError, match=rf"config\.json: {message} is not supported, only"):
        context_of(adapter_for(str(folder)), None)
