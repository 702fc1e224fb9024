"""Damaged bags: what is readable is read, the byte is told, nothing hangs and nothing escapes."""

import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_bags
import yaml
import zstandard
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from muon_ad.bags import BagError
from muon_ad.bags import BagWriter
from muon_ad.bags import open_bag
from muon_ad.bags.decompress import decompress
from muon_ad.bags.decompress import LIMIT
from muon_ad.bags.decompress import Unsupported

COUNT = tiny_bags.COUNT
TOTAL = COUNT + 1
MEMORY = 1 << 30
# Enough for a hang of seconds to show, and lean enough for every run of the suite.
EXAMPLES = settings(max_examples=200, deadline=5000)
RECOVERABLE = ('mcap', 'mcap_lz4', 'mcap_no_index', 'mcap_no_chunks', 'ros1', 'ros1_lz4')


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process have MEMORY bytes of address space more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def read_all(path: Path) -> tuple[list, str]:
    """All messages of a bag and its trouble."""
    with open_bag(path) as bag:
        messages = list(bag.messages())
        assert len(messages) <= sum(bag.counts.values())
        return messages, bag.trouble


@pytest.fixture(scope='module')
def bags(tmp_path_factory) -> dict[str, Path]:
    """A tiny bag of each kind."""
    return {kind: tiny_bags.write(kind, tmp_path_factory.mktemp(kind)) for kind in tiny_bags.KINDS}


CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from((b'\xff' * 8, b'\0' * 8, struct.pack('<Q', 1 << 40))),
        ),
    ),
    max_size=4,
)


@pytest.mark.parametrize('kind', tiny_bags.KINDS)
def test_any_damage_ends_in_an_error_or_in_words(bags, tmp_path_factory, kind):
    content = bags[kind].read_bytes()
    path = tmp_path_factory.mktemp('damaged') / bags[kind].name

    @EXAMPLES
    @given(changes=CHANGES, cut=st.floats(0, 1))
    def damage(changes, cut):
        data = bytearray(content)
        for where, patch in changes:
            begin = int(where * len(data))
            data[begin:begin + len(patch)] = patch
        path.write_bytes(data[:int(cut * len(data))])
        try:
            messages, trouble = read_all(path)
        except BagError as error:
            assert str(path) in str(error)
            return
        if not messages and len(data):
            assert trouble

    with little_memory():
        damage()


@pytest.mark.parametrize('kind', RECOVERABLE)
def test_a_file_that_is_cut_plays_up_to_there(bags, tmp_path, kind):
    content = bags[kind].read_bytes()
    path = tmp_path / bags[kind].name
    counts = []
    for cut in range(200, len(content), 97):
        path.write_bytes(content[:cut])
        messages, trouble = read_all(path)
        counts.append(len(messages))
        # The last bytes are an index or an end mark, without which all can still be read.
        assert trouble or len(messages) == TOTAL
        if len(messages) < TOTAL:
            assert 'stopped at byte' in trouble and f' of {cut}: ' in trouble
    assert counts == sorted(counts) and counts[-1] == TOTAL
    assert len(set(counts)) > 3


@pytest.mark.parametrize('kind', RECOVERABLE)
def test_the_byte_that_is_told_is_the_one(bags, tmp_path, kind):
    """A record whose length is nonsense: everything before it is read."""
    content = bytearray(bags[kind].read_bytes())
    path = tmp_path / bags[kind].name
    if kind.startswith('ros1'):
        begin = _record_of_ros1(content, content.rindex(b'op=\x05'))    # the last chunk
        content[begin:begin + 4] = b'\xff' * 4
    else:
        begin = _last_data_record(content)
        content[begin + 1:begin + 9] = struct.pack('<Q', 1 << 40)
    path.write_bytes(content)
    messages, trouble = read_all(path)
    assert f'stopped at byte {begin} of {len(content)}' in trouble
    assert 0 < len(messages) <= TOTAL


def _last_data_record(content: bytes) -> int:
    """Where the last chunk, or message outside chunks, of an MCAP file begins."""
    position, last = 8, 0
    while content[position] != 0x0F:    # the end of the data
        if content[position] in (0x05, 0x06):
            last = position
        position += 9 + struct.unpack_from('<Q', content, position + 1)[0]
    return last


def _record_of_ros1(content: bytes, inside: int) -> int:
    """Where the record of a ROS 1 bag begins in which the byte `inside` lies."""
    position, begin = 13, 13
    while position <= inside:
        begin = position
        header, = struct.unpack_from('<I', content, position)
        data, = struct.unpack_from('<I', content, position + 4 + header)
        position += 8 + header + data
    return begin


def test_a_database_that_is_cut_plays_up_to_there(tmp_path):
    items = [
        ('/image', tiny_bags.IMAGE, tiny_bags.START_NS + n, tiny_bags.image(n, n, (64, 64)))
        for n in range(40)
    ]
    with BagWriter(tmp_path / 'long', storage='sqlite3', compression='') as bag:
        for item in items:
            bag.write(*item)
    content = (tmp_path / 'long' / 'long.db3').read_bytes()
    path = tmp_path / 'cut.db3'
    counts = []
    for part in (0.4, 0.6, 0.8, 0.95):
        cut = int(part * len(content))
        path.write_bytes(content[:cut])
        messages, trouble = read_all(path)
        assert [int(m.data.data[0]) for m in messages] == list(range(len(messages)))
        assert f'of {cut}: ' in trouble and 'byte' in trouble
        counts.append(len(messages))
    assert counts == sorted(counts) and counts[0] > 5


def test_a_file_too_short_to_be_opened_tells_its_byte(bags, tmp_path):
    database = bags['sqlite3'].read_bytes()
    before_tables = tmp_path / 'cut.db3'
    for cut in (60, 2000, 4096, 9000):
        before_tables.write_bytes(database[:cut])
        told = f'not a bag of rosbag2: stopped near byte {cut} of {len(database)}, where the file'
        with pytest.raises(BagError, match=told):
            open_bag(before_tables)
    before_tables.write_bytes(database[:17])
    with pytest.raises(BagError, match='stopped near byte 0 of 17: file is not a database'):
        open_bag(before_tables)
    for kind, mark in (('mcap', 8), ('ros1', 13), ('sqlite3', 16)):
        path = tmp_path / f'cut.{kind}'
        for cut in range(1, mark):
            path.write_bytes(bags[kind].read_bytes()[:cut])
            with pytest.raises(BagError, match=rf'stopped at byte {cut} of {cut}: .*; expected'):
                open_bag(path)
    short = tmp_path / 'cut.mcap'
    for cut in range(8, 13):
        short.write_bytes(bags['mcap'].read_bytes()[:cut])
        assert f'stopped at byte 8 of {cut}: ' in read_all(short)[1]


def test_a_damaged_page_costs_only_what_is_on_it(tmp_path):
    with BagWriter(tmp_path / 'long', storage='sqlite3', compression='') as bag:
        for n in range(400):
            image = tiny_bags.image(n % 256, n)
            bag.write('/image', tiny_bags.IMAGE, tiny_bags.START_NS + n, image)
    path = tmp_path / 'long' / 'long.db3'
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle:middle + 64] = b'\xff' * 64
    path.write_bytes(content)
    messages, trouble = read_all(path)
    assert f'at byte {middle} of {len(content)}' in trouble
    assert 300 < len(messages) < 400
    assert messages[-1].time_ns == tiny_bags.START_NS + 399


@pytest.mark.parametrize('kind', ['mcap_file', 'sqlite3_file'])
def test_a_compressed_file_that_is_cut(tmp_path, kind):
    path = tiny_bags.write(kind, tmp_path)
    content, _ = decompress('zstd', path.read_bytes())
    packed = zstandard.ZstdCompressor(level=1).compress(content)
    path.write_bytes(packed[:-20])
    try:
        _, trouble = read_all(path)
    except BagError as error:
        trouble = str(error)
    assert f'stopped at byte {len(packed) - 20} of {len(packed) - 20}' in trouble


def test_a_damaged_message_is_left_out_and_told(tmp_path):
    items = tiny_bags.messages()
    path = tiny_bags.write_mcap(tmp_path / 'tiny.mcap', items, use_chunking=False)
    content = path.read_bytes()
    # The image's width is declared larger than its data has room for: the string 'camera'.
    path.write_bytes(content.replace(b'\x07\0\0\0camera\0', b'\xff\0\0\0camera\0', 1))
    messages, trouble = read_all(path)
    assert len(messages) == TOTAL - 1
    assert '/image: the message at byte' in trouble and 'is left out' in trouble


def test_a_chunk_with_another_checksum_is_played_and_told(tmp_path):
    path = tiny_bags.write_mcap(tmp_path / 'tiny.mcap')
    content = bytearray(path.read_bytes())
    pixel = content.index(bytes([2] * 20))
    content[pixel] = 99
    path.write_bytes(content)
    messages, trouble = read_all(path)
    assert len(messages) == TOTAL and 'checksum' in trouble and 'at byte' in trouble


def test_a_ros1_bag_that_was_not_closed(tmp_path):
    """As `.bag.active`: the messages of its last chunk lie open, and no index follows."""
    content = tiny_bags.write('ros1', tmp_path).read_bytes()
    chunk = _record_of_ros1(content, content.rindex(b'op=\x05'))
    header, = struct.unpack_from('<I', content, chunk)
    size = chunk + 4 + header
    length, = struct.unpack_from('<I', content, size)
    path = tmp_path / 'tiny.bag.active'
    path.write_bytes(content[:size] + b'\0' * 4 + content[size + 4:size + 4 + length])
    messages, trouble = read_all(path)
    assert len(messages) == TOTAL
    assert 'there is no index: the bag was not closed' in trouble


def test_what_announces_more_than_there_is_takes_no_memory(tmp_path):
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(LIMIT + LIMIT // 2))
    with little_memory():
        content, wrong = decompress('zstd', bomb)
        assert LIMIT <= len(content) < 2 * LIMIT and 'more than' in wrong
        del content
        _, wrong = decompress('', b'abc', 1 << 40)
        assert wrong == '1099511627776 bytes are announced, 3 are there'
    with pytest.raises(Unsupported, match="'lzo'; expected"):
        decompress('lzo', b'')


@EXAMPLES
@given(text=st.text(st.sampled_from('rosbag2_fileinformation:[]{}-&*!|\n ,"0a'), max_size=80))
def test_any_metadata_is_read_or_told(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp('meta')
    tiny_bags.write_mcap(folder / 'tiny.mcap')
    for content in (text, yaml.safe_dump({'rosbag2_bagfile_information': text})):
        (folder / 'metadata.yaml').write_text(content)
        messages, trouble = read_all(folder)
        assert len(messages) == TOTAL and 'metadata.yaml' in trouble
