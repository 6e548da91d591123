"""What is written is read: records, prompt files, rollout stores, for whatever they hold."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mstar_pl.data.format import join_steps, split_steps
from mstar_pl.data.jsonl import read_examples, read_prompts, write_jsonl
from mstar_pl.data.step_formats import read_steps, write_steps
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.store import RolloutStore
from mstar_pl.types import Example, InputError, Prompt, Rollout, RolloutGroup, Score, ScoredGroup

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@st.composite
def prompts(draw):
    """Prompts without images, of every kind."""
    kind = draw(st.sampled_from(["text", "integer", "float", "choice", "unlabelled"]))
    fields = {
        "id": draw(TEXT),
        "question": draw(TEXT),
        "metadata": draw(st.dictionaries(TEXT, JSON, max_size=3)),
    }
    fields["unit"] = draw(st.none() | TEXT)
    if kind == "choice":
        choices = tuple(draw(st.lists(TEXT, min_size=1, max_size=5)))
        fields |= {
            "choices": choices,
            "question_type": "multi_choice",
            "answer": draw(st.sampled_from(choices)),
        }
    elif kind == "integer":
        fields |= {"answer_type": "integer", "answer": str(draw(st.integers(-(10**12), 10**12)))}
    elif kind == "float":
        number = draw(st.floats(allow_nan=False, allow_infinity=False))
        fields |= {
            "answer_type": "float",
            "answer": repr(number),
            "precision": draw(st.none() | st.integers(0, 9)),
        }
    elif kind == "text":
        fields["answer"] = draw(TEXT)
    return Prompt(**fields)


@given(prompts())
def test_a_prompt_survives_its_json(prompt):
    assert Prompt.from_json(json.loads(json.dumps(prompt.to_json()))) == prompt


@given(
    st.dictionaries(
        st.sampled_from(["id", "images", "question", "answer", "choices", "precision", "unit", "x"]), JSON
    )
)
def test_any_object_is_a_prompt_or_a_value_error(row):
    try:
        prompt = Prompt.from_json(row)
    except ValueError:
        return
    assert Prompt.from_json(prompt.to_json()) == prompt


@FILES
@given(st.lists(prompts(), min_size=1, max_size=5, unique_by=lambda prompt: prompt.id), TEXT)
def test_files_of_prompts_and_examples_are_read_as_they_were_written(tmp_path, some, response):
    path = write_jsonl(tmp_path / "p.jsonl", (prompt.to_json() for prompt in some))
    assert list(read_prompts(path)) == some
    examples = [Example(prompt=prompt, response=response) for prompt in some]
    assert list(read_examples(write_jsonl(path, (one.to_json() for one in examples)))) == examples


@FILES
@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_an_input_error(tmp_path, content):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_prompts(path)


STEPS = st.lists(st.text("abc 12+=.", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=5)


@given(STEPS)
def test_steps_are_split_where_they_were_joined(steps):
    assert split_steps(join_steps(steps)) == steps


@pytest.mark.parametrize("heading", ["# Answer\n\n6", "### Answer\n\n6", "## Answer: 6", "# Final answer: 6"])
def test_a_heading_of_any_form_begins_the_last_step(heading):
    text = "The # Answer is in the table.\n\n4 + 2 = 6."
    assert split_steps(f"{text}\n\n{heading}") == [*text.split("\n\n"), "# Answer\n\n6"]
    assert split_steps(text) == text.split("\n\n")


@FILES
@given(prompts(), STEPS, st.data())
def test_step_labels_are_read_as_they_were_written(tmp_path, prompt, steps, data):
    label = st.none() | st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
    labels = tuple(data.draw(st.lists(label, min_size=len(steps), max_size=len(steps))))
    record = StepLabels(prompt=prompt, steps=tuple(steps), labels=labels)
    assert list(read_steps(write_steps(tmp_path / "s.jsonl", [record], "mstar"))) == [record]


@st.composite
def groups(draw):
    """Scored groups with any text, tokens and scores."""
    num = draw(st.integers(1, 4))
    rollouts = tuple(
        Rollout(
            text=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=30)),
            token_ids=tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=6))),
            finish_reason=draw(st.sampled_from(["stop", "length"])),
        )
        for _ in range(num)
    )
    process = draw(st.none() | st.floats(0, 1))
    scores = tuple(
        Score(
            outcome=draw(st.sampled_from(["correct", "wrong", "undecided"])),
            extraction=draw(st.none() | TEXT),
            process=process,
        )
        for _ in range(num)
    )
    group = RolloutGroup(
        prompt=draw(prompts()),
        prompt_token_ids=tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=6))),
        rollouts=rollouts,
        weight_version=draw(st.integers(0, 10**6)),
        temperature=draw(st.floats(0, 2)),
    )
    return ScoredGroup(
        group=group, scores=scores, selected=tuple(sorted(draw(st.sets(st.integers(0, num - 1)))))
    )


@FILES
@given(st.lists(groups(), min_size=1, max_size=4, unique_by=lambda one: one.group.prompt.id))
def test_a_rollout_store_is_read_as_it_was_written(tmp_path_factory, some):
    store = RolloutStore(tmp_path_factory.mktemp("store"))
    assert store.begin(0, "f") == set()
    store.append(0, some[:2], "f")
    if some[2:]:
        store.append(0, some[2:], "f")
    store.finish(0, "f", {})
    assert list(store.groups(0)) == some
    assert store.begin(0, "f") == {one.group.prompt.id for one in some}
    selected = sorted((one.group.prompt.id, k) for one in some for k in one.selected)
    by_id = {one.group.prompt.id: one.group for one in some}
    expected = [
        Example(prompt=by_id[key].prompt, response=by_id[key].rollouts[k].text) for key, k in selected
    ]
    assert list(store.examples(0)) == expected
