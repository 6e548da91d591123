"""Images in zip archives, read by threads and processes; what does not exist is said at once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstar_pl.data.images import image_bytes, load_image, verify_images
from mstar_pl.data.jsonl import read_prompts, write_jsonl
from mstar_pl.data.references import locate
from mstar_pl.data.sources.dataset import DatasetPrompts
from mstar_pl.types import InputError, Prompt

PROMPT = Prompt(id="1", question="?")


@pytest.fixture
def archive(tmp_path):
    with ZipFile(tmp_path / "pictures.zip", "w") as file:
        for number in range(8):
            file.writestr(f"pictures/{number}.png", bytes([number]) * 50_000)
    return tmp_path / "pictures.zip"


def test_members_are_read_by_threads_and_processes(archive):
    images = [f"{archive}::pictures/{number}.png" for number in range(8)]
    expected = [bytes([number]) * 50_000 for number in range(8)]
    assert image_bytes(images[0]) == expected[0]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(image_bytes, images * 20)) == expected * 20
    with get_context("fork").Pool(2) as pool:
        assert pool.map(image_bytes, images * 20) == expected * 20


def test_a_prompt_file_may_refer_to_members(archive):
    row = {"id": "1", "question": "?", "answer": "1", "images": ["pictures.zip::pictures/3.png"]}
    (prompt,) = read_prompts(write_jsonl(archive.parent / "p.jsonl", [row]))
    assert prompt.images == (f"{archive}::pictures/3.png",)
    verify_images([prompt], "p.jsonl", within=str(archive.parent), decode=False)
    with pytest.raises(InputError, match=r"p.jsonl:1: image 'pictures.zip::9.png' does not exist"):
        read_prompts(write_jsonl(archive.parent / "p.jsonl", [row | {"images": ["pictures.zip::9.png"]}]))


def test_an_archive_stands_for_a_folder_of_its_name(archive):
    assert locate("3.png", archive) == locate("pictures/3.png", archive) == f"{archive}::pictures/3.png"
    with pytest.raises(ValueError, match=r"looked for the member 9\.png of"):
        locate("9.png", archive)


def test_broken_archives_are_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"part one")
    with pytest.raises(InputError, match="cannot be read as a zip archive"):
        locate("1.png", tmp_path / "a.zip")
    with pytest.raises(InputError, match="no such archive"):
        locate("1.png", Path(tmp_path / "b.zip"))


def test_a_folder_is_no_archive(tmp_path):
    (tmp_path / "a.zip").mkdir()
    with pytest.raises(InputError, match=r"a\.zip: cannot be read as a zip archive \(.*Is a directory"):
        locate("1.png", tmp_path / "a.zip")


def test_image_bytes_in_place_of_a_path_are_not_repeated(tmp_path):
    with pytest.raises(ValueError, match="are read from the column image") as caught:
        locate("iVBORw0K" * 9000, tmp_path)
    assert len(str(caught.value)) < 1000


def test_references_to_what_is_no_image_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"image": [b"\x89PNG"], "id": [5]}), tmp_path / "set/a.parquet")
    (tmp_path / "a.tsv").write_text("id\n5\n")
    faults = {
        "set/a.parquet::0::picture": "there is no column 'picture'",
        "set/a.parquet::0::image::0": "the cell holds no image",
        "set/a.parquet::0::id": "the cell holds no image",
        "a.tsv::0::image": "the cell holds no image",
        "set::0::image": "a cell of a folder is named by the file inside it",
    }
    for image, fault in faults.items():
        with pytest.raises(InputError, match=f"{image}: cannot be read as an image .{fault}"):
            load_image(f"{tmp_path}/{image}")


def test_damaged_and_oversized_members_are_named(archive, monkeypatch):
    image = f"{archive}::pictures/3.png"
    monkeypatch.setattr("mstar_pl.data.images.MAX_BYTES", 49_999)
    with pytest.raises(InputError, match=r"3\.png: cannot be read as an image \(the member has 50000 bytes"):
        load_image(image)
    monkeypatch.undo()
    damaged = archive.with_name("damaged.zip")
    damaged.write_bytes(archive.read_bytes().replace(bytes([3]) * 100, bytes([9]) * 100, 1))
    with pytest.raises(InputError, match=r"3\.png: cannot be read .* cannot be unpacked: Bad CRC-32"):
        load_image(f"{damaged}::pictures/3.png")


def test_a_cell_cannot_name_an_image_outside_of_the_folder_of_its_table(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for place in (tmp_path, folder):
        Image.new("RGB", (3, 2)).save(place / "1.png")
    cells = [{"bytes": None, "path": path} for path in ("1.png", "../1.png", str(tmp_path / "1.png"))]
    pq.write_table(pa.table({"image": cells}), folder / "test.parquet")
    assert load_image(f"{folder}/test.parquet::0::image").size == (3, 2)
    for row in (1, 2):
        with pytest.raises(InputError, match=r"the cell names .*1\.png, outside of"):
            load_image(f"{folder}/test.parquet::{row}::image")


def test_images_of_a_table_behind_a_link_without_a_suffix_are_found(tmp_path):
    """As in the cache of a hub client, whose snapshots are links to files that are named by their hash."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "1.png")
    rows = {
        "question": ["?"],
        "answer": ["1"],
        "image": [{"bytes": (tmp_path / "1.png").read_bytes(), "path": "1.png"}],
    }
    pq.write_table(pa.table(rows), tmp_path / "blobs/0a1b")
    table = tmp_path / "snapshot/test.parquet"
    table.symlink_to("../blobs/0a1b")
    (prompt,) = DatasetPrompts(table).load()
    assert load_image(prompt.images[0]).size == (3, 2)


def test_an_archive_elsewhere_is_not_within_a_folder(archive, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "linked.zip").symlink_to(archive)
    prompt = replace(PROMPT, images=(f"{inside}/linked.zip::pictures/3.png",))
    with pytest.raises(InputError, match="lies outside of"):
        verify_images([prompt], "p.jsonl", within=str(inside), decode=False)
