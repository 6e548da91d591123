"""The port's parameters, its resampler and its positions, against statements of their own."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from mstar_pl.data.collate import collate_prompts
from mstar_pl.models.minicpmv import MiniCPMVConfig
from mstar_pl.models.minicpmv.modeling import StripEmbeddings
from mstar_pl.types import Prompt


def published_shapes():
    """Names and shapes in the published index of weights, from the model's published sizes."""
    shapes = {
        "vpm.embeddings.patch_embedding.weight": (1152, 3, 14, 14),
        "vpm.embeddings.patch_embedding.bias": (1152,),
        "vpm.embeddings.position_embedding.weight": (4900, 1152),
        "resampler.query": (96, 4096),
        "resampler.proj": (4096, 4096),
        "resampler.kv_proj.weight": (4096, 1152),
        "resampler.attn.in_proj_weight": (12288, 4096),
        "resampler.attn.in_proj_bias": (12288,),
        "resampler.attn.out_proj.weight": (4096, 4096),
        "resampler.attn.out_proj.bias": (4096,),
        "llm.model.embed_tokens.weight": (128256, 4096),
        "llm.model.norm.weight": (4096,),
        "llm.lm_head.weight": (128256, 4096),
    }
    norms = {f"resampler.ln_{name}": 4096 for name in ("q", "kv", "post")} | {"vpm.post_layernorm": 1152}
    for index in range(27):
        layer = f"vpm.encoder.layers.{index}"
        norms |= {f"{layer}.layer_norm1": 1152, f"{layer}.layer_norm2": 1152}
        linear = {f"self_attn.{name}": (1152, 1152) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        linear |= {"mlp.fc1": (4304, 1152), "mlp.fc2": (1152, 4304)}
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    for index in range(32):
        layer = f"llm.model.layers.{index}"
        for name, shape in {
            "self_attn.q_proj": (4096, 4096),
            "self_attn.k_proj": (1024, 4096),
            "self_attn.v_proj": (1024, 4096),
            "self_attn.o_proj": (4096, 4096),
            "mlp.gate_proj": (14336, 4096),
            "mlp.up_proj": (14336, 4096),
            "mlp.down_proj": (4096, 14336),
            "input_layernorm": (4096,),
            "post_attention_layernorm": (4096,),
        }.items():
            shapes[f"{layer}.{name}.weight"] = shape
    return shapes


def test_parameters_have_the_published_names_and_shapes():
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(MiniCPMVConfig())
    found = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert found == published_shapes()
    assert sum(math.prod(shape) for shape in found.values()) == pytest.approx(8.54e9, rel=0.002)
    assert model.resampler.attn.num_heads == 32


def stated_position(row, column, channels):
    """The column's sines and cosines, then the row's."""
    quarter = channels // 4
    found = []
    for place in (column, row):
        angles = [place / 10000 ** (index / quarter) for index in range(quarter)]
        found += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return found


def stated_resampler(weights, patches, height, width):
    """Cross attention of one slice in float64, head by head."""

    def norm(values, name):
        values = values - values.mean(-1, keepdims=True)
        values = values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-6)
        return values * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    values = norm(patches @ weights["kv_proj.weight"].T, "ln_kv")
    channels = values.shape[1]
    places = [stated_position(row, column, channels) for row in range(height) for column in range(width)]
    inputs = [norm(weights["query"], "ln_q"), values + np.array(places), values]
    matrices = np.split(weights["attn.in_proj_weight"], 3), np.split(weights["attn.in_proj_bias"], 3)
    query, key, value = (one @ w.T + b for one, w, b in zip(inputs, *matrices, strict=True))
    heads = []
    for start in range(0, channels, 128):
        part = slice(start, start + 128)
        scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(128))
        heads.append(scores / scores.sum(1, keepdims=True) @ value[:, part])
    out = np.concatenate(heads, 1) @ weights["attn.out_proj.weight"].T + weights["attn.out_proj.bias"]
    return norm(out, "ln_post") @ weights["proj"]


def test_resampler_equals_its_statement(minicpmv):
    resampler = minicpmv.load_model().resampler
    weights = {name: weight.double().numpy() for name, weight in resampler.state_dict().items()}
    sizes = torch.tensor([[2, 9], [7, 3], [1, 1]])
    patches = torch.randn(3, 24, 64, generator=torch.Generator().manual_seed(0))  # 24: all have padding
    with torch.no_grad():
        found = resampler(patches, sizes)
    for row, (height, width) in enumerate(sizes.tolist()):
        expected = stated_resampler(weights, patches[row, : height * width].double().numpy(), height, width)
        np.testing.assert_allclose(found[row].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_places_along_the_strip_do_not_depend_on_the_type(dtype):
    config = MiniCPMVConfig(vision_config={"hidden_size": 1, "num_attention_heads": 1}).vision_config
    embeddings = StripEmbeddings(config).to(dtype)
    embeddings.patch_embedding.weight.data.zero_()
    embeddings.patch_embedding.bias.data.zero_()
    embeddings.position_embedding.weight.data[:70, 0] = torch.arange(70.0)  # exact in bfloat16
    lengths = [1, 16, 70, 529, 1024]
    mask = torch.arange(1024) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        places = embeddings(torch.zeros(5, 3, 14, 14 * 1024, dtype=dtype), mask[:, None])[..., 0]
    for row, length in enumerate(lengths):
        expected = [math.floor(70 * index / length) for index in range(length)]
        assert places[row, :length].tolist() == expected


def test_features_of_a_slice_do_not_depend_on_its_batch_mates(minicpmv, prompts):
    model = minicpmv.load_model()
    together = collate_prompts(minicpmv, prompts)
    start = 0
    with torch.no_grad():
        found = model.get_image_features(together["pixel_values"], together["tgt_sizes"]).pooler_output
        for prompt in prompts:
            alone = collate_prompts(minicpmv, [prompt])
            expected = model.get_image_features(alone["pixel_values"], alone["tgt_sizes"]).pooler_output
            torch.testing.assert_close(found[start : start + len(expected)], expected, rtol=1e-5, atol=1e-5)
            start += len(expected)
    assert start == len(found) > len(prompts), "pictures are cut"


def test_a_missing_image_is_refused(minicpmv, prompts):
    model = minicpmv.load_model()
    inputs = collate_prompts(minicpmv, prompts[:2])
    with pytest.raises(ValueError, match="image features and image tokens do not match"):
        model(**(inputs | {key: inputs[key][:-1] for key in ("pixel_values", "tgt_sizes")}))


def test_bodies_of_process_reward_models_get_hidden_states(minicpmv):
    """The base model is the model itself, and gives what lies before its head."""
    model = minicpmv.load_model()
    inputs = collate_prompts(minicpmv, [Prompt(id="1", question="How many?")])
    with torch.no_grad():
        output = model.base_model(**inputs)
        torch.testing.assert_close(model.get_output_embeddings()(output.last_hidden_state), output.logits)
