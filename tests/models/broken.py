"""What is done to published folders that are then to be refused."""

import pytest

from mstar_pl.types import InputError


def cut(name):
    """Return a function that cuts off a file of a folder."""

    def harm(source):
        content = (source / name).read_bytes()
        (source / name).write_bytes(content[: len(content) * 2 // 3])

    return harm


def assert_refused(convert, source, harm, message):
    """Convert a folder that was harmed: it is refused on one line, and nothing is written beside it."""
    harm(source)
    with pytest.raises(InputError, match=message) as refusal:
        convert(source, source.parent / "out")
    assert "\n" not in str(refusal.value)
    assert [path.name for path in source.parent.iterdir()] == ["source"]
