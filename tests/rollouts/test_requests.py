"""One submission of unlike requests against as many submissions of one."""

import random
from dataclasses import replace
from itertools import product

import pytest

from mstar_pl.data.images import load_image
from mstar_pl.data.jsonl import read_prompts
from mstar_pl.data.minivista import write_split
from mstar_pl.rollouts.engine import Request
from mstar_pl.types import InputError, SamplingConfig

SAMPLING = SamplingConfig(temperature=1.0, max_tokens=12, seed=3)
TEMPERATURES = [tenths / 10 for tenths in range(3, 17)]
TRANSFORMERS = {"batch_size": 8}
VLLM = {"max_num_batched_tokens": 512}
"""A few long prompts at a time."""


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Six questions, a picture each."""
    return read_prompts(write_split(tmp_path_factory.mktemp("minivista"), "val", 6, solutions=False))


@pytest.fixture
def fresh(vllm, transformers):
    """The vLLM engine without anything in its caches."""
    vllm.load_policy(transformers.lmm.load_model().state_dict().items(), version=2)
    return vllm


def unlike(prompts):
    """Requests that differ in everything: temperature, samples, prefix, length, iteration."""
    ways = [
        {"num_samples": 1, "temperature": 0.0},
        {"num_samples": 3, "temperature": 0.6},
        {"num_samples": 4, "temperature": 1.5, "max_tokens": 24},
        {"num_samples": 1, "temperature": 1.5, "top_p": 0.5},
    ]
    begun = ["", "The picture shows: stars 3, rings 4.\n\n", "# Answer\n\n"]
    return [
        Request(prompt=prompt, sampling=replace(SAMPLING, **way), prefix=prefix, first=2 * n, iteration=n)
        for prompt in prompts
        for n, (way, prefix) in enumerate(product(ways, begun))
    ]


def test_one_submission_of_unlike_requests_equals_one_submission_each_in_any_order(engine, questions):
    requests = unlike(questions[:2])
    alone = [engine.submit([request])[0] for request in requests]
    assert engine.submit(requests) == alone
    order = list(range(len(requests)))
    random.Random(1).shuffle(order)
    assert engine.submit([requests[at] for at in order]) == [alone[at] for at in order]
    for request, group in zip(requests, alone, strict=True):
        assert group.prompt == request.prompt
        assert group.temperature == request.sampling.temperature
        assert len(group.rollouts) == request.sampling.num_samples
    assert len({group.rollouts[0].text for group in alone}) > len(requests) / 2, "unlike in their answers"


def test_what_is_sampled_decides_the_seed_and_how_does_not(questions):
    ask = Request(prompt=questions[0], sampling=SAMPLING)
    others = [
        replace(ask, prompt=questions[1]),
        replace(ask, prefix="So "),
        replace(ask, iteration=1),
        replace(ask, sampling=replace(SAMPLING, seed=4)),
    ]
    assert len({one.seed for one in [ask, *others]}) == 5
    again = replace(SAMPLING, temperature=0.5, num_samples=9, max_tokens=3, top_p=0.9)
    assert replace(ask, sampling=again).seed == ask.seed


def test_max_tokens_counts_the_prefix(engine, questions):
    """A prefix as long as the limit, or longer, is given one token more."""
    prefix = "# Answer\n\n"
    used = len(engine.lmm.tokenizer.encode(prefix, add_special_tokens=False))
    hot = replace(SAMPLING, temperature=2.0, num_samples=16)
    for max_tokens in (used - 1, used, used + 1, used + 3):
        sampling = replace(hot, max_tokens=max_tokens)
        (group,) = engine.submit([Request(prompt=questions[0], sampling=sampling, prefix=prefix)])
        assert max(len(one.token_ids) for one in group.rollouts) == max(1, max_tokens - used)


def test_temperatures_share_their_random_numbers(engine, questions):
    """As good as the same temperature gives the same responses; a far one does not."""
    ask = Request(prompt=questions[0], sampling=replace(SAMPLING, num_samples=8))
    near, same, far = engine.submit(
        [
            replace(ask, sampling=replace(ask.sampling, temperature=temperature))
            for temperature in (1.0, 1.0 + 1e-7, 2.0)
        ]
    )
    assert near.rollouts == same.rollouts != far.rollouts


@pytest.mark.engine
def test_a_sweep_is_one_call_that_reads_and_encodes_each_image_once(fresh, questions, monkeypatch):
    """14 temperatures over five prompts with four pictures."""
    prompts = [*questions[:4], replace(questions[4], images=questions[0].images)]
    calls, pixels, read = [], [], []
    generate = fresh._llm.generate
    monkeypatch.setattr(fresh._llm, "generate", lambda *args, **kw: calls.append(1) or generate(*args, **kw))
    monkeypatch.setattr(
        "mstar_pl.rollouts.vllm_engine.load_image", lambda path: read.append(path) or load_image(path)
    )

    def watch(worker):
        tower = worker.get_model().vision_tower
        return tower.register_forward_hook(
            lambda _, args, kwargs, output: pixels.extend(kwargs["pixel_values"]), with_kwargs=True
        )

    (hook,) = fresh._llm.collective_rpc(watch)
    try:
        groups = fresh.submit(
            [
                Request(prompt=prompt, sampling=replace(SAMPLING, num_samples=2, temperature=temperature))
                for prompt in prompts
                for temperature in TEMPERATURES
            ]
        )
    finally:
        hook.remove()
    assert len(groups) == 5 * 14
    assert len(calls) == 1
    assert len(pixels) == 4, "a picture of MiniVista is one tile"
    assert sorted(read) == sorted(prompt.images[0] for prompt in questions[:4])


@pytest.mark.engine
def test_prompts_that_exceed_a_step_together_are_not_split(fresh, questions):
    """With a seed, a prompt in two steps would end the engine on a CPU."""
    long = [
        replace(
            prompt, id=f"{prompt.id}/{copy}", question=" ".join([prompt.question, *["What"] * (120 + copy)])
        )
        for copy in range(8)
        for prompt in questions
    ]
    requests = [
        Request(prompt=prompt, sampling=replace(SAMPLING, num_samples=3, max_tokens=4)) for prompt in long
    ]
    groups = fresh.submit(requests)
    assert sum(len(group.prompt_token_ids) for group in groups) > 8 * VLLM["max_num_batched_tokens"]
    assert groups[5::7] == fresh.submit(requests[5::7])


@pytest.mark.engine
def test_the_longest_request_of_a_prompt_decides_whether_it_fits(vllm, questions):
    """Whatever its place in the submission."""
    requests = [
        Request(prompt=questions[0], sampling=replace(SAMPLING, max_tokens=max_tokens))
        for max_tokens in (250, 4)
    ]
    for order in (requests, requests[::-1]):
        with pytest.raises(InputError, match=r"max_tokens 250 exceed the context of 256"):
            vllm.submit(order)


@pytest.mark.engine
def test_a_prefix_that_does_not_fit_is_refused_by_name(vllm, questions):
    ask = Request(prompt=questions[0], sampling=SAMPLING, prefix="What " * 250)
    with pytest.raises(InputError, match=f"prompt '{questions[0].id}'.*the context of 256"):
        vllm.submit([ask])
