import pytest

from tools import check_input


def test_an_existing_file_folder_and_number_pass(tmp_path):
    (tmp_path / 'a.png').touch()
    environ = {
        'INPUT': str(tmp_path), 'STYLE': str(tmp_path / 'a.png'), 'DURATION': '2.5', 'OTHER': '-'
    }
    assert check_input.problems(environ) == []
    assert check_input.problems({**environ, 'INPUT': str(tmp_path / 'a.png')}) == []


def test_unset_and_empty_variables_pass():
    assert check_input.problems({'INPUT': ''}) == []


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('INPUT', '/no/such/file.mp4', 'no such video file, folder of images or camera number'),
    ('INPUT', '987654', 'no camera /dev/video987654'),
    ('STYLE', '/no/such/picture.png', 'no such image file'),
    ('STYLE', '/', 'this is a folder'),
    ('DURATION', 'long', 'give seconds'),
    ('DURATION', '0', 'give seconds'),
    ('DURATION', 'inf', 'give seconds'),
])
def test_unusable_values_are_named(name, value, words):
    [problem] = check_input.problems({name: value})
    assert problem.startswith(f'{name}={value}: ') and words in problem


def test_an_empty_folder_is_no_input(tmp_path):
    assert 'the folder is empty' in check_input.check_input(str(tmp_path))
