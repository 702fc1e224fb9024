"""Writing bags that Foxglove and `ros2 bag` open: every type is defined in the file itself."""

import tempfile
from pathlib import Path
from types import TracebackType

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.rosbag2 import WriterError

from muon_ad.bags.error import BagError
from muon_ad.bags.types import message_class
from muon_ad.bags.types import store
from muon_ad.bags.types import TypeNotKnown

_STORAGES = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
_COMPRESSIONS = {
    '': CompressionMode.NONE,
    'chunk': CompressionMode.STORAGE,
    'message': CompressionMode.MESSAGE,
    'file': CompressionMode.FILE,
}
# Version 8 is what Jazzy and Kilted write; Humble reads it.
_VERSION = 8


class BagWriter:
    """Writes a bag at `path`; a context manager.

    A path that ends in .mcap becomes that one file, any other a folder with metadata.yaml.
    `compression` (zstd) is '', chunk (MCAP alone), message or file. Nothing is left at `path`
    when the block ends with an error. Raises BagError where `path` exists or cannot be written.
    """

    def __init__(
        self, path: str | Path, *, storage: str = 'mcap', compression: str = 'chunk'
    ) -> None:
        self.path = Path(path).expanduser()
        if storage not in _STORAGES:
            raise BagError(f'storage is {storage!r}; expected one of {tuple(_STORAGES)}')
        if compression not in _COMPRESSIONS:
            raise BagError(f'compression is {compression!r}; expected one of {(*_COMPRESSIONS,)}')
        if storage == 'sqlite3' and compression == 'chunk':
            raise BagError('compression is chunk, which only storage mcap has')
        if self.path.exists():
            raise BagError(f'{self.path} exists already; remove it or choose another name')
        self._single = self.path.suffix == '.mcap'
        if self._single and (storage != 'mcap' or compression == 'file'):
            raise BagError(f'{self.path}: a file of MCAP is not {storage} nor compressed whole')
        self._connections: dict[str, Connection] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Goes with the process, too, wherever in here that is told to end.
            self._scratch = tempfile.TemporaryDirectory(
                '', f'.{self.path.stem}-', self.path.parent)
            self._folder = Path(self._scratch.name)
            self._writer = Writer(
                self._folder / self.path.stem, version=_VERSION, storage_plugin=_STORAGES[storage]
            )
            if compression:
                self._writer.set_compression(_COMPRESSIONS[compression], CompressionFormat.ZSTD)
            self._writer.open()
        except (OSError, WriterError) as error:
            raise BagError(f'{self.path}: cannot be written: {error}') from error

    def add_topic(self, topic: str, type_name: str) -> None:
        """Declare a topic, so that it is in the bag even without messages.

        Raises BagError for a type that is not of ROS 2 or muon_ad_msgs, and for another type than
        the topic has.
        """
        known = self._connections.get(topic)
        if known is not None:
            if known.msgtype != type_name:
                raise BagError(f'{topic} has type {known.msgtype}; got {type_name}')
            return
        try:
            message_class(type_name)
        except TypeNotKnown as error:
            raise BagError(f'{topic}: {error}') from error
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=store()
        )

    def write(self, topic: str, type_name: str, time_ns: int, message: object) -> None:
        """Append a message: an instance of `message_class(type_name)`, or its CDR as bytes.

        Raises BagError as `add_topic` does, and for a message that does not fit its type.
        """
        self.add_topic(topic, type_name)
        if not isinstance(message, bytes | bytearray | memoryview):
            try:
                message = store().serialize_cdr(message, type_name)
            except Exception as error:  # noqa: BLE001 - generated code, whatever a field causes
                raise BagError(f'{topic}: the message is no {type_name}: {error!r}') from error
        self._writer.write(self._connections[topic], time_ns, message)

    def annotate(self, key: str, value: str) -> None:
        """Note something about the bag in its metadata (custom data of rosbag2)."""
        self._writer.set_custom_data(key, value)

    def close(self) -> None:
        """Finish the file and put it in its place."""
        self._writer.close()
        written = self._folder / self.path.stem
        (written / f'{written.name}.mcap' if self._single else written).replace(self.path)
        self._scratch.cleanup()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._writer.abort()
        self._scratch.cleanup()

    def __enter__(self) -> 'BagWriter':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
