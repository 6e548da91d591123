"""Records are read from the file when they are asked for, whatever lies between its lines."""

import copy
import json
import pickle
import tracemalloc

import pytest

from mstar_pl.data import records
from mstar_pl.data.jsonl import read_prompts, write_jsonl
from mstar_pl.data.records import Lines, View

TEXTS = [
    b"",
    b"\n",
    b" \n\t\n",
    b"a",
    b"a\n",
    b"a\nbc",
    b"\n\na\n \nbc\n",
    b"a\r\nb\r\n",
    b" " * 9 + b"a\n" + b" " * 9,
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 20])
def test_lines_are_those_of_the_file(tmp_path, text, chunk, monkeypatch):
    monkeypatch.setattr(records, "CHUNK", chunk)
    path = tmp_path / "text"
    path.write_bytes(text)
    expected = [one for one in enumerate(text.splitlines(keepends=True), start=1) if one[1].strip()]
    lines = Lines(path)
    assert list(lines) == expected
    assert len(lines) == len(expected)
    assert [lines[place] for place in range(-len(lines), 0)] == expected
    with pytest.raises(IndexError):
        lines[len(lines)]


def rows_of(num, start=0):
    return (
        {"id": str(number), "question": "Why? " * 100, "images": [], "answer": "4"}
        for number in range(start, num)
    )


def test_records_stay_those_of_the_file_that_was_opened(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", rows_of(5))
    prompts = read_prompts(path)
    write_jsonl(path, rows_of(9, start=7))
    assert [prompt.id for prompt in prompts] == ["0", "1", "2", "3", "4"]
    assert [prompt.id for prompt in prompts[::-2]] == ["4", "2", "0"]
    assert [prompt.id for prompt in prompts[1:][1:3]] == ["2", "3"]
    assert prompts[-1].id == "4"


def test_lines_travel_to_other_processes(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", rows_of(5))
    view = View(Lines(path), [3, 1])
    for other in (pickle.loads(pickle.dumps(view)), copy.deepcopy(view)):
        assert [json.loads(line)["id"] for _, line in other] == ["3", "1"]


def test_a_prompt_of_a_file_takes_a_few_bytes_of_memory(tmp_path):
    """16 bytes a row, of which each has more than 500 in the file."""
    sizes = []
    for num in (1000, 21000):
        path = write_jsonl(tmp_path / f"{num}.jsonl", rows_of(num))
        tracemalloc.start()
        prompts = read_prompts(path)
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(prompts) == num
    assert (sizes[1] - sizes[0]) / 20000 < 20
