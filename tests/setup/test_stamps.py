import pytest

from tools.setup.stamps import digest
from tools.setup.stamps import listing
from tools.setup.stamps import Stamp


@pytest.fixture
def stamp(tmp_path):
    tree = tmp_path / 'tree'
    tree.mkdir()
    (tree / 'library.so').write_text('code')
    (tree / 'link.so').symlink_to(tree / 'library.so')
    return Stamp(tree / '.setup.json', (tree,))


def test_a_step_is_new_then_unfinished_then_current(stamp):
    assert stamp.state('key') == 'new'
    stamp.begin()
    assert stamp.state('key') == 'unfinished'
    stamp.finish('key')
    assert stamp.state('key') == 'current'
    assert stamp.state('other key') == 'changed'


def test_a_lost_file_and_a_dangling_link_are_damage(stamp, tmp_path):
    stamp.finish('key')
    (tmp_path / 'tree' / 'library.so').unlink()
    assert stamp.state('key') == 'damaged'


def test_a_file_added_later_is_no_damage(stamp, tmp_path):
    stamp.finish('key')
    (tmp_path / 'tree' / 'new').touch()
    assert stamp.state('key') == 'current'


def test_a_stamp_cut_off_in_the_middle_counts_as_unfinished(stamp):
    stamp.finish('key')
    stamp.path.write_text(stamp.path.read_text()[:9])
    assert stamp.state('key') == 'unfinished'


def test_byte_code_and_dangling_links_are_not_listed(tmp_path):
    (tmp_path / '__pycache__').mkdir()
    (tmp_path / '__pycache__' / 'a.pyc').touch()
    (tmp_path / 'nowhere').symlink_to(tmp_path / 'missing')
    (tmp_path / 'a.py').touch()
    assert listing([tmp_path]) == [str(tmp_path / 'a.py')]


def test_digest_tells_parts_and_contents_apart(tmp_path):
    file = tmp_path / 'pins.txt'
    file.write_text('a')
    before = digest('x', file)
    assert digest('x', file) == before
    assert digest('x', 'ab') != digest('xa', 'b')
    file.write_text('b')
    assert digest('x', file) != before
