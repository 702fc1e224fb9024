"""What reaches a node: image messages, serialised ones, parameters, and texts in them."""

import contextlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from odd import ODD_TEXTS
from rclpy.parameter import Parameter as RclpyParameter

from muon_ad.faults import FaultError
from muon_ad.faults import parse as parse_fault
from muon_ad.images import COLOR_ENCODINGS
from muon_ad.images import ENCODINGS
from muon_ad.images import ImageError
from muon_ad.images import to_array
from muon_ad.images import to_rgb
from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import read_style
from muon_ad.runtime.style import StyleError
from muon_ad.runtime.style import StyleModel
from muon_ad_nodes.document import NODES
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.parameters import Parameter
from muon_ad_nodes.parts.parameters import ParameterError
from muon_ad_nodes.parts.parameters import validate
from muon_ad_nodes.parts.serialised import SerialisedError
from muon_ad_nodes.parts.serialised import stamp_of
from muon_ad_nodes.parts.serialised import with_stamp

SIDES = st.integers(0, 9) | st.sampled_from([16384, 16385, 2**16, 2**31, 2**32 - 1])


@st.composite
def image_messages(draw) -> SimpleNamespace:
    """Messages of which most are nearly right, in what a sensor_msgs/Image can hold."""
    known = sorted({*ENCODINGS, *COLOR_ENCODINGS})
    encoding = draw(st.sampled_from([*known, 'bogus8', '']) | st.text(max_size=6))
    height, width = draw(SIDES), draw(SIDES)
    dtype, channels = ENCODINGS.get(encoding, (np.uint8, 1))
    row = width * channels * np.dtype(dtype).itemsize
    step = draw(st.sampled_from([row, row + 1, row + 4, row - 1, 0, 2**32 - 1]))
    rows = {'nv12': 3 * height // 2, 'nv21': 3 * height // 2, 'nv24': 3 * height}
    size = rows.get(encoding, height) * step
    size = max(0, size + draw(st.sampled_from([0, 0, 0, -1, 1, -step, 7])))
    data = np.arange(min(size, 100_000), dtype=np.uint8)
    bigendian = draw(st.sampled_from([0, 1, 255]))
    return SimpleNamespace(height=height, width=width, encoding=encoding, step=step,
                           is_bigendian=bigendian, data=data)  # fmt: skip


@given(image_messages())
def test_image_messages(message):
    for convert in (to_array, to_rgb):
        with contextlib.suppress(ImageError):
            pixels = convert(message)
            assert pixels.shape[:2] == (message.height, message.width)
            assert convert is to_array or (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32, np.float64, np.complex64, bool]),
    encoding=st.sampled_from([*ENCODINGS, 'bogus8']),
)
def test_arrays_to_messages_and_back(shape, dtype, encoding):
    pixels = np.ones(shape, dtype)
    with contextlib.suppress(ImageError):
        message = to_message(pixels, encoding, Time(), 'eye')
        np.testing.assert_array_equal(to_array(message), pixels.reshape(to_array(message).shape))


@given(st.binary(max_size=40), st.integers(0, 2**31 * 10**9 - 1))
def test_serialised_messages(data, stamp):
    with contextlib.suppress(SerialisedError):
        stamp_of(data)
        with contextlib.suppress(SerialisedError):
            assert stamp_of(with_stamp(data, stamp)) == stamp


WORDS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(['stall', 'unplug', 'drift', 'encoding', 'at=1', 'for=2', 'for=-1',
                         'at=nan', 'ppm=1e999', 'ppm=3', 'as=x', 'stream=depth*', 'at=', '=',
                         'at=1=2', 'for=1_0', 'percent=50', 'every=2', '\u0663', 'at=\u0663',
                         'stream=[']),
        max_size=5,
    ).map(' '.join),
)  # fmt: skip


@given(WORDS)
def test_faults(text):
    with contextlib.suppress(FaultError):
        fault = parse_fault(text)
        assert parse_fault(str(fault)) == fault
        assert isinstance(fault.concerns('depth'), bool)


def declarations() -> list[Parameter]:
    """Every parameter of every node."""
    import importlib

    return [parameter for name in NODES
            for parameter in importlib.import_module(f'muon_ad_nodes.nodes.{name}').PARAMETERS]


# What a parameter of ROS can hold.
ROS_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(),
    st.lists(st.booleans()), st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.floats()),
    st.lists(st.text()), st.lists(st.binary(min_size=1, max_size=1)),
)  # fmt: skip


@given(st.sampled_from(declarations()), ROS_VALUES, st.booleans())
def test_parameters(declared, value, configured):
    with contextlib.suppress(ParameterError):
        checked = declared.check(value)
        assert type(checked) is type(declared.default)
        assert declared.check(checked) == checked
    with contextlib.suppress(TypeError):    # rclpy itself refuses it
        change = RclpyParameter(declared.name, value=value)
        assert isinstance(validate([change], [declared], configured).successful, bool)


@pytest.fixture(scope='module')
def pictures() -> list[bytes]:
    """A small picture in several formats."""
    picture = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)
    return [cv2.imencode(ending, picture)[1].tobytes() for ending in ('.png', '.jpg', '.bmp')]


@given(
    which=st.integers(0, 2),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 400) | st.none(),
)
def test_pictures_of_styles(tmp_path, pictures, which, changes, end):
    data = bytearray(pictures[which])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / 'style.png'
    path.write_bytes(data[:end])
    with contextlib.suppress(StyleError):
        assert read_style(path).shape == (256, 256, 3)


@given(data=st.data())
def test_names_of_styles(negative_package, data):
    """Anyone can send them to the node's service."""
    model = StyleModel(load_package(negative_package))
    name = data.draw(ODD_TEXTS | st.sampled_from(['light', '~\0', str(negative_package)]))
    with contextlib.suppress(StyleError):
        model.set_style(name)
        assert model.style == name == 'light'


@given(ODD_TEXTS)
def test_profiles_of_the_realsense(text):
    sdk = pytest.importorskip('muon_ad_nodes.parts.realsense_sdk')
    from muon_ad_nodes.parts.source import SourceError

    with contextlib.suppress(SourceError):
        assert sdk.Profile.parse('color', text).width > 0
