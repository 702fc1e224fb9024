"""Redraws the newest frame of a camera in an artistic style."""

import numpy as np
from rclpy.publisher import Publisher
from rclpy.service import Service
from sensor_msgs.msg import Image

from muon_ad.runtime.lod import LodSettings
from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import StyleError
from muon_ad.runtime.style import StyleModel
from muon_ad_msgs.msg import TaskStatus
from muon_ad_msgs.srv import SetStyle
from muon_ad_nodes.parts import qos
from muon_ad_nodes.parts.frame_task import FrameTask
from muon_ad_nodes.parts.image_input import TRANSPORT
from muon_ad_nodes.parts.images import to_message
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.lod import chosen_variants
from muon_ad_nodes.parts.lod import level_of_detail
from muon_ad_nodes.parts.lod import LevelOfDetail
from muon_ad_nodes.parts.lod import lod_parameters
from muon_ad_nodes.parts.lod import OneLevel
from muon_ad_nodes.parts.models import describe_engine
from muon_ad_nodes.parts.models import ENGINE
from muon_ad_nodes.parts.models import engine_options
from muon_ad_nodes.parts.models import model_folder
from muon_ad_nodes.parts.parameters import Parameter

PARAMETERS = (
    Parameter(
        'model', 'style_default',
        'Model package: name of an installed one, or path of its folder.',
    ),
    Parameter(
        'style', '',
        'Style to begin with: built-in name or path of an image; empty takes the default of the '
        'package. Later changes go through the service `~/set_style`.',
    ),
    TRANSPORT,
    *ENGINE,
    *lod_parameters(LodSettings.plain, LodSettings.rich),
    Parameter(
        'lod.same_size', False,
        'Resize what smaller variants make to the size of the first one, for subscribers that '
        'cannot cope with images of changing size. False: each image has the size of its variant.',
    ),
)


class StyleTransfer(SuiteNode):
    """Subscribes `image_raw`, publishes `style/image` (rgb8) with the header of its source.

    Service `~/set_style` changes the style between two frames. Where `lod.variants` names several
    variants, each frame gets the best that is in time; `~/roi` says where to look for detail.
    """

    def __init__(self) -> None:
        super().__init__('style_transfer', PARAMETERS)
        self._model: StyleModel | None = None
        self._publisher: Publisher | None = None
        self._result: Image | None = None       # filled anew for each frame
        self._service: Service | None = None
        self._lod: LevelOfDetail | OneLevel | None = None
        self._task: FrameTask | None = None

    def build(self) -> None:
        """Load the network and the style, warm it up, and create the topics."""
        settings = self.settings
        self.monitor.deadline_ms = settings.deadline_ms
        package = load_package(model_folder(settings.model))
        variants = chosen_variants(settings, package)
        first, *lower = (variant.name for variant in variants)
        self._model = StyleModel(
            package, first, engine_options(settings), lower, settings.lod_same_size
        )
        if settings.style:
            self._model.set_style(settings.style)
        self._lod = level_of_detail(self, variants, self._stylise)
        self._publisher = self.create_publisher(Image, 'style/image', qos.PUBLISH)
        self._result = Image()
        self._service = self.create_service(SetStyle, '~/set_style', self._on_set_style)
        self._task = FrameTask(self, self._lod.infer, self._publish, settings.image_transport)

    def start(self) -> None:
        """Begin to stylise."""
        self._task.start()

    def stop(self) -> None:
        """Cease to stylise, after the frame in work."""
        self._task.stop()

    def teardown(self) -> None:
        """Destroy topics and network."""
        if self._task is not None:
            self._task.destroy()
        if self._lod is not None:
            self._lod.destroy()
        if self._service is not None:
            self.destroy_service(self._service)
        if self._publisher is not None:
            self.destroy_publisher(self._publisher)
        self._task = self._lod = self._service = self._result = None
        self._publisher = self._model = None

    def describe(self, status: TaskStatus) -> None:
        """Add model, variant, provider, style and level of detail."""
        model = self._model
        if model is not None:
            describe_engine(status, model.package, model.variant, model.engine)
            status.style = model.style
        if self._lod is not None:
            self._lod.describe(status)

    def changed(self, _name: str) -> None:
        """Take over a new deadline."""
        self.monitor.deadline_ms = self.settings.deadline_ms

    def _stylise(self, index: int, rgb: np.ndarray) -> np.ndarray:
        self._model.use(index)
        return self._model.stylise(rgb)

    def _publish(self, source: Image, stylised: np.ndarray) -> None:
        header = source.header
        self._publisher.publish(
            to_message(stylised, 'rgb8', header.stamp, header.frame_id, self._result)
        )
        self._lod.published()

    def _on_set_style(
        self, request: SetStyle.Request, response: SetStyle.Response
    ) -> SetStyle.Response:
        response.available = list(self._model.styles)
        try:
            self._model.set_style(request.style)
        except StyleError as error:
            response.message = str(error)
            self.get_logger().warning(f'style stays {self._model.style!r}: {error}')
            return response
        response.success = True
        response.message = f'style is {self._model.style!r}'
        self.get_logger().info(response.message)
        self.publish_status()
        return response


def make() -> StyleTransfer:
    """Return the node."""
    return StyleTransfer()
