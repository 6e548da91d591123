"""The paper's tables: hand-computed accuracies and differences, notes, refusals, the paper's rows."""

import csv
import io
import json

import pytest

from mstar_pl.cli import main
from mstar_pl.data.jsonl import write_json, write_jsonl
from mstar_pl.evaluation.benchmarks.mmbench import circular
from mstar_pl.evaluation.comparison_tables import compare
from mstar_pl.evaluation.summary import summarise
from mstar_pl.types import InputError

GPS, FQA = "geometry problem solving", "figure question answering"


def evaluated(folder, signs, task="all", responses=True, first=0, **further):
    """Write a finished evaluation: `1` is a correct answer, `0` a wrong one, `-` an undecided one."""
    outcomes = {"1": "correct", "0": "wrong", "-": "undecided"}
    rows = [
        {"id": f"{first + index}", "task": task, "outcome": outcomes[sign], "finish_reason": "stop"}
        for index, sign in enumerate(signs)
    ]
    rows = [row | {"groups": [task] if task != "all" else []} for row in rows]
    settings = {"policy": str(folder), "data": "runs/own.jsonl", "rules": "default", "num_prompts": len(rows)}
    folder.mkdir(parents=True, exist_ok=True)
    settings |= {"limit": further.pop("limit", None)}
    settings |= {"sampling": {"max_tokens": further.pop("max_tokens", 512)}}
    write_json(folder / "results.json", {"settings": settings, "accuracy": summarise(rows), **further})
    if responses:
        write_jsonl(folder / "responses.jsonl", rows)
    return folder


def lines_of(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]


def rows_of(tables):
    return list(csv.DictReader(io.StringIO(tables["table.csv"])))


def test_difference_is_paired_over_the_same_prompts(tmp_path):
    base = evaluated(tmp_path / "base", "1000" * 100)
    better = evaluated(tmp_path / "mstar", "1100" * 100)
    tables = compare({"base": base, "mstar": better})
    lines = lines_of(tables["table.md"])
    assert lines[0] == ["policy", "own"]
    assert [line[0] for line in lines[2:]] == ["base", "mstar", "less base"]
    assert lines[2][1].startswith("25.0 (")
    assert lines[4][1].startswith("+25.0 (")
    (_, gained) = rows_of(tables)
    assert float(gained["gain"]) == 0.25
    # A quarter of 400 prompts changed, all for the better: standard error sqrt(.25 * .75 / 400) = 0.0217.
    assert float(gained["gain_high"]) - float(gained["gain_low"]) == pytest.approx(2 * 1.96 * 0.0217, rel=0.1)
    assert "[1]" not in tables["table.md"]


def test_without_responses_the_difference_is_unpaired_and_says_so(tmp_path):
    base = evaluated(tmp_path / "base", "1000" * 100, responses=False)
    better = evaluated(tmp_path / "mstar", "1100" * 100)
    tables = compare({"base": base, "mstar": better})
    assert "[1] the interval of the difference is unpaired" in tables["table.md"]
    (_, gained) = rows_of(tables)
    # sqrt((.25 * .75 + .5 * .5) / 400) = 0.0331
    assert float(gained["gain_high"]) - float(gained["gain_low"]) == pytest.approx(2 * 1.96 * 0.0331, rel=0.1)


def test_average_is_over_what_is_there_and_says_so(tmp_path):
    for policy, (mathvista, ai2d) in {"base": ("1000", "1100"), "mstar": ("1100", "1110")}.items():
        evaluated(tmp_path / policy / "a", mathvista * 100, benchmark="mathvista", rules="official")
        evaluated(tmp_path / policy / "b", ai2d * 100, benchmark="ai2d", rules="ai2d")
    tables = compare({name: tmp_path / name for name in ("base", "mstar")}, "minicpm")
    head, _, base, mstar, less, *paper = lines_of(tables["table.md"].split("MathVista by task")[0])
    assert head == ["policy", "MathVista", "M3CoT", "MMStar-R", "MMBench-R", "AI2D", "average"]
    assert base[2:5] == ["-"] * 3
    assert "Rules: MathVista official, AI2D ai2d." in tables["table.md"]
    assert base[6].startswith("37.5 (")
    assert mstar[6].startswith("62.5 (")
    assert less[6].startswith("+25.0 (")
    assert "] average over MathVista, AI2D only" in tables["table.md"]
    assert "] average and its difference over MathVista, AI2D only" in tables["table.md"]
    assert "400 of 1000 prompts" in tables["table.md"]
    assert paper[-1] == ["MiniCPM-V-2.5 M-STAR (paper)", "59.5", "48.7", "50.7", "79.9", "69.1", "61.6"]
    averages = {row["policy"]: row for row in rows_of(tables) if row["benchmark"] == "average"}
    single = [row for row in rows_of(tables) if row["policy"] == "base" and row["benchmark"] != "average"]
    halves = [float(row["high"]) - float(row["accuracy"]) for row in single if row["group"] == "ALL"]
    found = float(averages["base"]["high"]) - float(averages["base"]["accuracy"])
    assert found == pytest.approx((halves[0] ** 2 + halves[1] ** 2) ** 0.5 / 2, abs=1e-5)
    assert averages["MiniCPM-V-2.5 + warm-up (paper)"]["low"] == ""


def test_averages_over_different_benchmarks_have_no_difference_and_say_so(tmp_path):
    evaluated(tmp_path / "base/a", "1000", benchmark="ai2d")
    for name in ("ai2d", "m3cot"):
        evaluated(tmp_path / "mstar" / name, "1100", benchmark=name)
    tables = compare({name: tmp_path / name for name in ("base", "mstar")}, "none")
    assert "] no difference of averages: there is none on M3CoT" in tables["table.md"]
    assert next(row for row in reversed(rows_of(tables)))["gain"] == ""


def test_all_rules_of_a_benchmark_are_in_the_heading(tmp_path):
    rows = {"a": "2024", "b": "head", "c": "2024"}
    for name, rules in rows.items():
        evaluated(tmp_path / name, "10", benchmark="ai2d", rules=rules)
    text = compare({name: tmp_path / name for name in rows}, "none")["table.md"]
    assert "Rules: AI2D 2024 or head." in text


def test_where_regraded_responses_lay_is_no_note(tmp_path):
    for name in ("base", "mstar"):
        file = evaluated(tmp_path / name, "10") / "results.json"
        results = json.loads(file.read_text())
        write_json(file, results | {"settings": results["settings"] | {"responses": f"{name}.jsonl"}})
    assert "[1]" not in compare({name: tmp_path / name for name in ("base", "mstar")}, "none")["table.md"]


def test_mathvista_by_task_beside_the_paper(tmp_path):
    folder = evaluated(tmp_path / "base", "10", task=GPS, benchmark="mathvista")
    text = compare({"base": folder}, "all")["table.md"].split("MathVista by task")[1]
    head, _, base, *paper = lines_of(text)
    assert head == ["policy", "ALL", "FQA", "GPS", "MWP", "TQA", "VQA"]
    assert base[2] == "-"
    assert base[3].startswith("50.0 (")
    assert ["InternVL2-2B M-STAR (paper)", "50.3", "49.4", "57.2", "65.0", "42.4", "35.2"] in paper
    assert len(paper) == 5


def test_headline_group_goes_into_the_table(tmp_path):
    folder = evaluated(tmp_path / "x", "1110", task="reasoning", benchmark="mmstar", headline="reasoning")
    (row, average) = rows_of(compare({"x": folder}, "none"))
    assert (row["group"], row["accuracy"], average["accuracy"]) == ("reasoning", "0.75", "0.75")


def test_difference_of_a_headline_group_is_paired_within_the_group(tmp_path):
    folders = {}
    for policy, signs in {"base": "0000", "mstar": "0110"}.items():
        folders[policy] = evaluated(tmp_path / policy, signs, benchmark="mmstar", headline="reasoning")
        file = folders[policy] / "responses.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        grouped = [row | {"groups": ["perception" if row["id"] == "0" else "reasoning"]} for row in rows]
        write_jsonl(file, grouped)
        results = json.loads((folders[policy] / "results.json").read_text())
        results["accuracy"] |= {"reasoning": summarise(grouped[1:])["all"]}
        write_json(folders[policy] / "results.json", results)
    tables = compare(folders, "none")
    assert "unpaired" not in tables["table.md"]
    gained = next(row for row in rows_of(tables) if row["policy"] == "mstar")
    assert float(gained["gain"]) == pytest.approx(2 / 3, abs=1e-6)


def test_without_a_prompt_that_both_decided_there_is_no_difference(tmp_path):
    base, other = evaluated(tmp_path / "base", "1-"), evaluated(tmp_path / "other", "-1")
    tables = compare({"base": base, "other": other}, "none")
    assert "] no prompt decided by both, other and base" in tables["table.md"]
    assert [row["gain"] for row in rows_of(tables)] == ["", ""]


def test_older_responses_are_grouped_by_their_task(tmp_path):
    for policy, signs in {"base": "1000", "mstar": "1100"}.items():
        file = evaluated(tmp_path / policy, signs, task=GPS, benchmark="mathvista") / "responses.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        write_jsonl(file, [{key: row[key] for key in row if key != "groups"} for row in rows])
    tables = compare({name: tmp_path / name for name in ("base", "mstar")}, "none")
    assert "unpaired" not in tables["table.md"]
    gained = [row["gain"] for row in rows_of(tables) if row["policy"] == "mstar" and row["group"] == "GPS"]
    assert gained == ["0.25"]


def test_a_limit_is_noted_in_the_first_row_too(tmp_path):
    text = compare({"x": evaluated(tmp_path / "x", "10", limit=2)})["table.md"]
    assert "[1] the first 2 prompts only" in text


def test_what_differs_from_the_first_row_is_noted(tmp_path):
    base = evaluated(tmp_path / "base", "1010", benchmark="ai2d", rules="ai2d")
    other = evaluated(tmp_path / "other", "11-", benchmark="ai2d", rules="lenient", max_tokens=64)
    tables = compare({"base": base, "other": other}, "none")
    for note in (
        "3 of 3088 prompts",
        "1 of 3 answers undecided and left out",
        "rules lenient, base: ai2d",
        "max_tokens 64, base: 512",
        "num_prompts 3, base: 4",
    ):
        assert f"] {note}" in tables["table.md"]
        assert note in rows_of(tables)[2]["notes"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("missing", "no results.json here or in a sub-folder"),
        ("torn", "results.json: cannot be read"),
        ("foreign", "not the results of an evaluation"),
        ("nameless", "not the results of an evaluation"),
        ("twice", "own is in"),
        ("both", r"other/results.json: .*ai2d/results.json is there, too"),
        ("strange", r"other prompts than .*base \(e.g. '12'\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, harm, message):
    base, other = evaluated(tmp_path / "base", "10"), tmp_path / "other"
    if harm == "torn":
        evaluated(other, "10")
        (other / "results.json").write_text('{"accuracy": ')
    elif harm == "foreign":
        write_json(other / "results.json", {"accuracy": 0.5})
    elif harm == "nameless":
        write_json(other / "results.json", {"accuracy": {}, "settings": {}})
    elif harm == "twice":
        evaluated(other / "a", "10")
        evaluated(other / "b", "10")
    elif harm == "both":
        evaluated(other, "10")
        evaluated(other / "ai2d", "10", benchmark="ai2d")
    elif harm == "strange":
        evaluated(other, "10", first=12)
    with pytest.raises(InputError, match=message):
        compare({"base": base, "other": other})


def test_command_prints_and_writes(tmp_path, capsys):
    base = evaluated(tmp_path / "base", "10", benchmark="mathvista")
    arguments = ["--results.my-base", str(base), "--reference", "none", "--out", str(tmp_path / "out")]
    assert main(["table", *arguments]) == 0
    assert "| my-base " in capsys.readouterr().out
    assert (tmp_path / "out/table.md").read_text().startswith("Greedy accuracy")
    assert (tmp_path / "out/table.csv").read_text().startswith("policy,benchmark,group,accuracy")
    assert main(["table", "--results.x", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no results.json" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["table", *arguments[:-1], str(tmp_path / "file")]) == 2
    assert "table.md: cannot be made (File exists); give another folder" in capsys.readouterr().err


def test_mmbench_is_paired_by_question_as_it_is_scored(tmp_path):
    """Two questions in two copies each; the second policy gets both copies of one right."""
    folders = {}
    for policy, right in {"base": {"1", "2"}, "mstar": {"1", "1000001", "2"}}.items():
        rows = [
            {"id": key, "task": "logic_reasoning", "outcome": "correct" if key in right else "wrong"}
            for key in ("1", "2", "1000001", "1000002")
        ]
        rows = [row | {"groups": ["reasoning"], "finish_reason": "stop"} for row in rows]
        folders[policy] = tmp_path / policy
        write_jsonl(folders[policy] / "responses.jsonl", rows)
        named = {"benchmark": "mmbench", "rules": "vlmevalkit-2024", "headline": "reasoning", "settings": {}}
        accuracy = summarise(circular(rows)) | {"vanilla reasoning": summarise(rows[:2])["all"]}
        write_json(folders[policy] / "results.json", named | {"accuracy": accuracy})
    tables = compare(folders, "none")
    assert "unpaired" not in tables["table.md"]
    gained = next(row for row in rows_of(tables) if row["policy"] == "mstar")
    assert (gained["accuracy"], gained["gain"], gained["num"]) == ("0.5", "0.5", "2")
    assert "without the copies, which all have to be right, 100.0" in gained["notes"]


def test_step_judges_are_in_no_table_of_policies(tmp_path):
    evaluated(tmp_path / "x/own", "10")
    judged = {"benchmark": "processbench", "settings": {}, "scores": {}}
    write_json(tmp_path / "x/processbench/results.json", judged)
    assert "processbench" not in compare({"x": tmp_path / "x"})["table.md"]
    with pytest.raises(InputError, match="no accuracy of a policy"):
        compare({"x": tmp_path / "x/processbench"})
