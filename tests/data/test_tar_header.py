"""Headers made and read here are tarfile's to the byte, and what is not plain is left to it."""

import tarfile

import pytest

from ric_diffusion.data.output_shard import TarWriter
from ric_diffusion.data.tar_header import plain_header, read_plain


def theirs(name, size, form=tarfile.USTAR_FORMAT, **others):
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in others.items():
        setattr(member, field, value)
    return member.tobuf(form)


@pytest.mark.parametrize("name", ["a.jpg", "d/e f/g.h.jpg", "x" * 96 + ".jpg"])
@pytest.mark.parametrize("size", [0, 1, 511, 123_456_789, 8**11 - 1])
def test_a_plain_header_is_that_of_tarfile(name, size):
    header = plain_header(name, size)
    assert header == theirs(name, size)
    assert read_plain(header) == (name, size)


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 1), ("é.jpg", 1), ("a.jpg", 8**11)])
def test_what_takes_more_is_left_to_tarfile(name, size):
    assert plain_header(name, size) is None


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_of_others_are_read(form):
    header = theirs("a.jpg", 700, form, uid=1000, mode=0o755, mtime=1_700_000_000, uname="me")
    assert read_plain(header) == ("a.jpg", 700)


@pytest.mark.parametrize(
    "header",
    [
        theirs("d" * 90 + "/" + "x" * 60, 5),  # in two parts
        theirs("a", 0, type=tarfile.DIRTYPE),
        theirs("a", 0, type=tarfile.SYMTYPE, linkname="b"),
        theirs("a.jpg", 8**12, tarfile.GNU_FORMAT),  # not in octal digits
        theirs("é.jpg", 5, tarfile.GNU_FORMAT),
        theirs("a.jpg", 5)[:-1],
        theirs("a.jpg", 5).replace(b"a.jpg", b"b.jpg"),  # another checksum
        theirs("a.jpg", 5).replace(b"00000000005", b"00000000008"),
        bytes(512),
        b"",
    ],
)
def test_whatever_is_not_plain_is_none(header):
    assert read_plain(header) is None


@pytest.mark.parametrize(
    "name", ["a.jpg", "é.jpg", "d" * 90 + "/" + "x" * 60, "x" * 120, "ü" * 200 + "/" + "y" * 150]
)
def test_what_is_written_is_read_by_tarfile(tmp_path, name):
    files = {name: b"what it holds", f"{name}.txt": b"", "last.png": b"0" * 600}
    places = {}
    with TarWriter(tmp_path / "a.tar") as tar:
        for one, data in files.items():
            places[one] = tar.add(one, data)
    with tarfile.open(tmp_path / "a.tar") as theirs:
        assert {one.name: theirs.extractfile(one).read() for one in theirs} == files
    whole = (tmp_path / "a.tar").read_bytes()
    assert len(whole) % tarfile.RECORDSIZE == 0
    assert all(whole[places[one] :].startswith(data) for one, data in files.items())
