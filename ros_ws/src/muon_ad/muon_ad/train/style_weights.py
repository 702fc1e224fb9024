"""Where the networks of a style student's family are read from: packages, weights, checkpoints."""

from dataclasses import replace
from pathlib import Path

from muon_ad.networks.resize import resize_to
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.networks.weights import load_network
from muon_ad.train.checkpoint import load_checkpoint

STUDENT, ENCODER = 'style', 'style_encoder'     # kinds of weights

Networks = tuple[StyleStudent, StyleEncoder]


def load_student(path: Path) -> StyleStudent:
    """Build the student, dense or pruned, of a .safetensors file. Raises WeightsError."""
    weights = load_network(path, STUDENT)
    student = StyleStudent(StyleConfig.from_dict(weights.config))
    return resize_to(student, weights.state).eval()


def load_encoder(path: Path) -> StyleEncoder:
    """Build the style encoder of a .safetensors file. Raises WeightsError."""
    weights = load_network(path, ENCODER)
    encoder = StyleEncoder(StyleConfig.from_dict(weights.config))
    encoder.load_state_dict(weights.state)
    return encoder.eval()


def load_networks(source: Path) -> Networks:
    """Return student and encoder of a model package (its `weights` folder), of one of the files in
    that, or of a checkpoint of `muon-ad train style` or `prune style`.

    Raises FileNotFoundError, WeightsError or ValueError, naming what is missing.
    """
    if source.is_dir():
        source = weights_file(source, 'dense')
    if source.suffix == '.safetensors':
        return _fitting(load_student(source),
                        load_encoder(source.with_name('encoder.safetensors')))
    if not source.is_file():
        raise FileNotFoundError(f'{source}: no such checkpoint; `muon-ad train style` writes it')
    state = load_checkpoint(source, {})
    if not isinstance(state, dict) or not {'config', 'student', 'encoder'} <= state.keys():
        raise ValueError(f'{source}: not a checkpoint of `muon-ad train style`')
    config = StyleConfig.from_dict(state['config'])
    student, encoder = StyleStudent(config), StyleEncoder(config)
    resize_to(student, state['student'])    # of one that is being pruned, it is smaller
    encoder.load_state_dict(state['encoder'])
    return student, encoder


def _fitting(student: StyleStudent, encoder: StyleEncoder) -> Networks:
    """Leave out what a package's one encoder makes for attentive students alone."""
    if not student.config.tokens:
        encoder.config, encoder.tokens = replace(encoder.config, tokens=0), None
    return student, encoder


def weights_file(folder: Path, variant: str) -> Path:
    """Return where a package has the weights of a variant, or of its `encoder`."""
    return folder / 'weights' / f'{variant}.safetensors'
