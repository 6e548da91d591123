"""Images inside of tables: references to their cells, read by threads and processes, never held."""

import base64
import os
import random
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from zipfile import ZipFile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mstar_pl.data.images import image_bytes, image_digest, image_size, load_image, verify_images
from mstar_pl.data.tables import open_table
from mstar_pl.types import InputError, Prompt
from tests.tables import png, write_columns, write_table

PICTURES = [png(color) for color in ("red", "green", "blue")]


@pytest.fixture
def image_tables(tmp_path):
    """Tables with images inside, one in each form, and the plain image files beside them."""
    for number, picture in enumerate(PICTURES):
        (tmp_path / f"{number}.png").write_bytes(picture)
    cells = [base64.b64encode(picture).decode() for picture in PICTURES]
    rows = [{"index": str(number), "image": cell} for number, cell in enumerate(cells)]
    write_table(tmp_path / "a.tsv", rows)
    write_table(tmp_path / "a.jsonl", [{"image": f"data:image/png;base64,{cell}"} for cell in cells])
    features = datasets.Features({"index": datasets.Value("string"), "image": datasets.Image()})
    images = datasets.Dataset.from_list(
        [{"index": str(n), "image": {"bytes": one, "path": None}} for n, one in enumerate(PICTURES)], features
    )
    images.to_parquet(tmp_path / "a.parquet", batch_size=2)
    images.save_to_disk(tmp_path / "saved")
    return tmp_path


TABLES = ["a.tsv", "a.jsonl", "a.parquet", "saved"]


@pytest.mark.parametrize("name", TABLES)
def test_images_inside_a_table_are_references_to_their_cells(image_tables, name):
    table = open_table(image_tables / name)
    cells = [row["image"] for _, row in table]
    file = "saved/data-00000-of-00001.arrow" if name == "saved" else name
    assert cells == [f"{image_tables}/{file}::{place}::image" for place in range(3)]
    assert [image_bytes(cell) for cell in cells] == PICTURES
    assert [image_digest(cell) for cell in cells] == [
        image_digest(f"{image_tables}/{n}.png") for n in range(3)
    ]
    assert load_image(cells[2]).getpixel((0, 0)) == (0, 0, 255)
    assert image_size(cells[0]) == (5, 7)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(image_bytes, cells * 20)) == PICTURES * 20


@pytest.mark.parametrize("name", ["a.png", "a.zip::a.png", "a.tsv::0::image", "a.parquet::0::image"])
def test_what_was_written_anew_is_read_anew(tmp_path, name):
    image = f"{tmp_path}/{name}"
    path = Path(image.partition("::")[0])
    for picture in PICTURES[:2]:
        if path.suffix == ".zip":
            with ZipFile(path, "w") as archive:
                archive.writestr("a.png", picture)
        elif path.suffix == ".parquet":
            pq.write_table(pa.table({"image": [{"bytes": picture, "path": None}]}), path)
        elif path.suffix == ".tsv":
            write_table(path, [{"image": base64.b64encode(picture).decode()}])
        else:
            path.write_bytes(picture)
        os.utime(path, ns=(0, PICTURES.index(picture)))  # some file systems tell only ms apart
        assert image_bytes(image) == picture
        assert image_digest(image) == sha256(picture).hexdigest()


@pytest.mark.parametrize("name", TABLES)
def test_processes_read_images_independently(image_tables, name):
    cells = [row["image"] for _, row in open_table(image_tables / name)]
    assert image_bytes(cells[0]) == PICTURES[0]
    with get_context("fork").Pool(2) as pool:
        assert pool.map(image_bytes, cells * 10) == PICTURES * 10


def test_missing_and_several_images_of_a_row(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "more": datasets.List(datasets.Image())})
    several = [{"bytes": picture, "path": None} for picture in PICTURES]
    rows = [{"image": None, "more": several[:2]}, {"image": several[2], "more": []}]
    data = datasets.Dataset.from_list(rows, features)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    for table in (open_table(tmp_path / "a.parquet"), open_table(tmp_path / "saved")):
        (_, first), (_, second) = table
        assert first["image"] is None
        assert second["more"] == []
        assert [image_bytes(one) for one in (*first["more"], second["image"])] == PICTURES


def column(path, name="image"):
    return [row[name] for _, row in open_table(path)]


COLUMN_FILES = ["a.parquet", "a.arrow"]


@pytest.mark.parametrize("name", COLUMN_FILES)
def test_a_cell_that_holds_no_image_is_empty_and_one_that_names_one_is_its_path(tmp_path, name):
    (tmp_path / "beside.png").write_bytes(PICTURES[2])
    cells = [
        {"bytes": PICTURES[0], "path": "0.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": None, "path": "pictures/1.png"},
        {"bytes": None, "path": "beside.png"},
        {"bytes": None, "path": "../out.png"},
    ]
    columns = {"image": cells, "several": [cells[:2], [], None, [None, cells[3]], cells[4:5], cells[:1]]}
    path = write_columns(tmp_path / name, columns)
    references = [f"{path}::{place}::image" for place in (0, 4, 5)]
    assert column(path) == [references[0], None, None, "pictures/1.png", *references[1:]]
    assert image_bytes(references[1]) == PICTURES[2]
    with pytest.raises(ValueError, match="outside of"):
        image_bytes(references[2])
    several = f"{path}::{{}}::several::0".format
    expected = [[several(0), None], [], None, [None, "pictures/1.png"], [several(4)], [several(5)]]
    assert column(path, "several") == expected
    assert image_bytes(several(0)) == PICTURES[0]
    with pytest.raises(ValueError, match="the cell holds no image"):
        image_bytes(f"{path}::1::image")


@pytest.mark.parametrize("name", COLUMN_FILES)
def test_a_binary_column_holds_images_or_texts(tmp_path, name):
    texts, pictures = [b"", "Wie viele Bäume?".encode(), None, b"4"], [None, *PICTURES]
    columns = {"question": texts, "image": pictures, "choices": [[b"a"], [], [b"b", b"c"], None]}
    path = write_columns(tmp_path / name, columns)
    assert column(path, "question") == ["", "Wie viele Bäume?", None, "4"]
    assert column(path, "choices") == [["a"], [], ["b", "c"], None]
    assert [one and image_bytes(one) for one in column(path)] == pictures
    path = write_columns(tmp_path / name, {"question": [b"Why?", "Bäume".encode("latin-1")]})
    with pytest.raises(InputError, match="row 1: column 'question' is not UTF-8"):
        list(open_table(path))


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_images_are_not_held_in_memory(tmp_path, monkeypatch, kind):
    cells = [random.Random(number).randbytes(40_000) for number in range(300)]
    monkeypatch.setattr("mstar_pl.data.arrow_tables.BATCH_BYTES", 1 << 20)
    for empty in (None, cells[7]):  # where none is empty, the column need not be decoded at all
        cells[7] = empty
        values = [one and {"bytes": one, "path": None} for one in cells] if kind == "struct" else cells
        pq.write_table(pa.table({"image": values}), tmp_path / "a.parquet", write_batch_size=8)
        usual = pa.default_memory_pool()
        pool = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(pool)
        try:
            images = column(tmp_path / "a.parquet")
        finally:
            pa.set_memory_pool(usual)
        assert [bool(one) for one in images] == [one is not None for one in cells]
        assert pool.max_memory() < 5e6


@pytest.mark.parametrize("name", COLUMN_FILES)
def test_columns_of_one_name_are_refused(tmp_path, name):
    table = pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"])], names=["answer", "answer"])
    path = write_columns(tmp_path / name, table)
    with pytest.raises(InputError, match="two columns have the name 'answer'"):
        list(open_table(path))


def test_short_cells_that_name_another_row_stay(tmp_path):
    rows = [
        {"index": "31", "image": base64.b64encode(PICTURES[0]).decode()},
        {"index": "1000031", "image": "31"},
    ]
    table = open_table(write_table(tmp_path / "a.tsv", rows))
    assert table[1][1]["image"] == "31"


def test_a_broken_cell_is_named(tmp_path):
    path = write_table(tmp_path / "a.tsv", [{"index": "1", "image": "A" * 80}])
    (cell,) = (row["image"] for _, row in open_table(path))
    with pytest.raises(InputError, match=r"a.tsv::0::image: cannot be read as an image"):
        load_image(cell)
    with pytest.raises(InputError, match="no such image"):
        load_image(f"{path}::5::image")


def test_the_folder_of_a_table_is_that_of_its_images(image_tables):
    prompt = Prompt(id="1", question="?", images=(f"{image_tables}/a.tsv::0::image",))
    verify_images([prompt], "a.tsv", within=str(image_tables))
    with pytest.raises(InputError, match="lies outside of"):
        verify_images([prompt], "a.tsv", within=str(image_tables / "saved"))
