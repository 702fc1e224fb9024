"""Style training on small generated images, with an untrained feature network: no weights."""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from skimage.data import astronaut
from support import kill_once_there_is
from torch.nn.functional import pixel_shuffle

from muon_ad.cli import main
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.networks.style import UpConv
from muon_ad.networks.weights import save_network
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.package import load_package
from muon_ad.runtime.style import StyleModel
from muon_ad.train import perceptual
from muon_ad.train import style as training
from muon_ad.train import style_export
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import save_checkpoint
from muon_ad.train.images import DataError
from muon_ad.train.images import hold_out
from muon_ad.train.images import load_images
from muon_ad.train.images import random_crop
from muon_ad.train.log import LOG
from muon_ad.train.loop import DivergedError
from muon_ad.train.loop import learn
from muon_ad.train.steering import RiseAndFall
from muon_ad.train.style_weights import load_networks

SHIPPED = Path(__file__).parents[2] / 'models' / 'style_default'
TINY = StyleConfig(channels=8, blocks=1, fine=4, encoder=(4, 8), hidden=8)
RECIPE = training.Recipe(steps=6, crop=32, batch=2, warm=2, ramp=2, half=False)


def picture(seed: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def make_trainer():
    torch.manual_seed(0)
    features = perceptual.Features()
    corpus = training.Corpus([picture(n, 96) for n in range(3)], [picture(7, 300)],
                             [picture(9, 256)])

    def make(recipe: training.Recipe = RECIPE) -> training.Trainer:
        return training.Trainer(corpus, features, recipe, TINY)

    return make


def train(trainer: training.Trainer, out: Path, save_every: int) -> None:
    learn(trainer, trainer.recipe.steps, out, training.COLUMNS, save_every, log_every=1)


def rows(path):
    with path.open(newline='') as stream:
        return list(csv.DictReader(stream))


def test_a_run_leaves_a_checkpoint_and_a_log_of_every_loss(make_trainer, tmp_path):
    train(make_trainer(), tmp_path, save_every=3)
    logged = rows(tmp_path / LOG)
    assert [int(row['step']) for row in logged] == [1, 2, 3, 4, 5, 6]
    assert logged[0]['copy'] and not logged[0]['style']
    assert logged[-1]['style'] and logged[-1]['palette'] and not logged[-1]['copy']
    assert not list(tmp_path.glob('*.partial'))
    student, encoder = load_networks(tmp_path / CHECKPOINT)
    assert student.config == TINY
    assert encoder.head.out_features == TINY.style_length


@pytest.mark.parametrize('settings', [{}, {'optimizer': 'adamw', 'curriculum': False}])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make_trainer, tmp_path, settings):
    recipe = replace(RECIPE, steps=7, **settings)
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    train(make_trainer(recipe), whole, save_every=2)

    class Killed(Exception):
        pass

    first = make_trainer(recipe)
    advance = first.advance

    def advance_until_killed():
        if first.step == 5:
            raise Killed
        return advance()

    first.advance = advance_until_killed
    with pytest.raises(Killed):
        train(first, parts, save_every=2)
    second = make_trainer(recipe)
    second.load(parts / CHECKPOINT)
    assert second.step == 4
    train(second, parts, save_every=2)
    assert (parts / LOG).read_text() == (whole / LOG).read_text()
    assert_same_state(whole / CHECKPOINT, parts / CHECKPOINT)


def assert_same_state(*checkpoints: Path) -> None:
    ends = [torch.load(path, weights_only=True) for path in checkpoints]
    for part in ('student', 'encoder'):
        for name, value in ends[0][part].items():
            assert torch.equal(value, ends[1][part][name]), name
    assert ends[0]['curriculum'] == ends[1]['curriculum']
    one, other = (str(end['optimizer']) for end in ends)    # tensors, all in full where small
    assert one == other


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """Arguments of `muon-ad train style` for a short run on pictures made here."""
    for name, count, side in (('photos', 9, 64), ('styles', 2, 256)):
        (tmp_path / name).mkdir()
        for index in range(count):
            cv2.imwrite(str(tmp_path / name / f'{index}.png'), picture(index, side))
    torch.manual_seed(0)
    torch.save(perceptual.Features().state_dict(), tmp_path / 'features.pth')
    return ['train', 'style', '--content', str(tmp_path / 'photos'), '--styles',
            str(tmp_path / 'styles'), '--features', str(tmp_path / 'features.pth'), '--crop', '32',
            '--batch', '2', '--steps', '6', '--checkpoint-every', '1', '--fp32']


def test_a_run_that_was_killed_goes_on_as_if_it_never_was(arguments, tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert main([*arguments, '--out', str(whole)]) == 0
    kill_once_there_is(broken / CHECKPOINT, [*arguments, '--out', str(broken)])
    assert 1 <= torch.load(broken / CHECKPOINT, weights_only=True)['step'] < 6
    assert main([*arguments, '--out', str(broken), '--resume']) == 0
    assert (broken / LOG).read_text() == (whole / LOG).read_text()
    assert_same_state(whole / CHECKPOINT, broken / CHECKPOINT)


def test_the_optimizer_brings_its_rate_and_other_settings_are_refused_on_resuming(
    arguments, tmp_path, capsys,
):
    arguments = [*arguments, '--out', str(tmp_path / 'out'), '--steps', '1', '--optimizer', 'lion',
                 '--curriculum', 'off']
    assert main(arguments) == 0
    made = torch.load(tmp_path / 'out' / CHECKPOINT, weights_only=True)['recipe']
    assert (made['optimizer'], made['rate'], made['curriculum']) == (
        'lion', training.RATES['lion'], False)
    for odd in (['--optimizer', 'sgd'], ['--rate', '0.5'], ['--curriculum', 'on']):
        assert main([*arguments, '--resume', *odd]) == 2
        assert f'checkpoint.pt: made with recipe of {odd[0][2:]} = ' in capsys.readouterr().err


def test_in_the_last_phase_the_style_encoder_is_frozen_and_the_student_learns(make_trainer):
    trainer = make_trainer(replace(RECIPE, steps=8, warm=0))
    for _ in range(4):
        trainer.advance()
    encoder = {key: value.clone() for key, value in trainer.encoder.state_dict().items()}
    stem = trainer.student.stem.weight.clone()
    for _ in range(4):
        trainer.advance()
    for key, value in trainer.encoder.state_dict().items():
        assert torch.equal(value, encoder[key])
    assert not torch.equal(trainer.student.stem.weight, stem)


def test_the_balance_follows_photographs_that_are_not_learnt_from(make_trainer):
    recipe = replace(RECIPE, steps=12, warm=0, ramp=1)
    trainer = make_trainer(recipe)
    assert len(trainer.corpus.content) == 2     # of the three there are
    logged = [trainer.advance() for _ in range(12)]
    balance = [row['lambda'] for row in logged]
    assert balance[:2] == [0.8, 0.8]
    assert len(set(balance[1:6])) == 5
    assert len(set(balance[5:])) == 1
    last, weights = logged[-1], {**training.WEIGHTS, 'copy': 0}
    style, content = balance[-1] / 0.8, (1 - balance[-1]) / 0.2
    assert last['total'] == pytest.approx(sum([
        style * (weights['style'] * last['style'] + weights['palette'] * last['palette']),
        content * (weights['content'] * last['content']
                   + weights['structure'] * last['structure']),
        weights['variation'] * last['variation'], weights['steadiness'] * last['steadiness'],
    ]), rel=1e-4)


def test_a_curriculum_needs_two_photographs():
    with pytest.raises(DataError, match='1 pictures.*--curriculum off'):
        training.Corpus([picture(0, 96)], [], [picture(9, 256)]).divided()


def test_of_each_eight_pictures_one_is_held_out():
    pictures = [np.full((1, 1, 3), number, np.uint8) for number in range(20)]
    kept, held = hold_out(pictures)
    assert [each[0, 0, 0] for each in held] == [7, 15]
    assert [each[0, 0, 0] for each in kept] == [n for n in range(20) if n not in (7, 15)]
    assert [each[0, 0, 0] for each in hold_out(pictures[:3])[1]] == [2]


def test_a_loss_that_is_not_finite_ends_the_training_and_changes_nothing(make_trainer):
    trainer = make_trainer()
    before = trainer.student.stem.weight.clone()
    trainer.student.last.conv.bias.data.fill_(float('nan'))
    with pytest.raises(DivergedError, match='step 0: loss is nan'):
        trainer.advance()
    assert torch.equal(trainer.student.stem.weight, before) and trainer.step == 0


def test_training_learns_to_copy(make_trainer):
    trainer = make_trainer(training.Recipe(steps=400, crop=32, batch=2, warm=400, half=False))
    losses = [trainer.advance()['copy'] for _ in range(100)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_only_steps_and_weights_may_change_in_a_resumed_run(make_trainer, tmp_path):
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, make_trainer().state())
    other = {**vars(RECIPE), 'steps': 60}
    make_trainer(training.Recipe(**other)).load(path)
    make_trainer(training.Recipe(**{**other, 'weights': {**training.WEIGHTS, 'style': 1.0}})).load(
        path)
    with pytest.raises(ValueError, match='made with recipe'):
        make_trainer(training.Recipe(**{**other, 'rate': 0.5})).load(path)
    with pytest.raises(FileNotFoundError, match='without --resume'):
        make_trainer().load(tmp_path / 'none.pt')


def test_loss_weights_are_read_from_the_command_line_and_checked():
    assert training.loss_weight('style=2.5') == ('style', 2.5)
    for text in ('style', 'style=', 'style=-1', 'style=inf', 'style=nan', 'charm=1'):
        with pytest.raises(argparse.ArgumentTypeError, match='NAME=VALUE'):
            training.loss_weight(text)


def test_without_a_curriculum_the_learning_rate_rises_holds_and_falls():
    plan = RiseAndFall(1000, 2e-3, rise=100, fall_from=750)
    rates = [plan.learning_rate(step) for step in (0, 99, 740, 875, 1000)]
    assert rates == pytest.approx([2e-5, 2e-3, 2e-3, 2e-3 * 0.505, 2e-5])


def test_upconv_is_interpolation_followed_by_convolution():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 7, 6)
    for mode in ('bilinear', 'nearest'):
        layer = UpConv(5, 3, mode)
        options = {'align_corners': False} if mode == 'bilinear' else {}
        doubled = torch.nn.functional.interpolate(x, scale_factor=2, mode=mode, **options)
        expected = layer.conv(doubled)[..., 1:-1, 1:-1]  # has lost a pixel at each border
        torch.testing.assert_close(layer(x)[..., 2:-2, 2:-2], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pixel_shuffle(layer.plain()(x), 2), layer(x))


def test_style_and_palette_losses_vanish_for_equal_images_and_grow_with_difference():
    features = perceptual.Features()
    one, two = (torch.from_numpy(picture(n, 64)).permute(2, 0, 1)[None] / 255 for n in (1, 2))

    def style(a, b):
        return float(perceptual.style_loss(perceptual.statistics(features(a)),
                                           perceptual.statistics(features(b))))

    assert style(one, one) < 1e-6 < style(one, two)
    assert float(perceptual.content_loss(features(one), features(one))) < 1e-9
    assert float(perceptual.structure_loss(one, one)) < 1e-9
    # A mirrored image has the same colours but is laid out otherwise.
    rng = np.random.default_rng(0)
    mirrored, other = (float(perceptual.palette_loss(one, wanted, rng, samples=4096))
                       for wanted in (one.flip(3), two))
    assert mirrored < 0.3 * other
    assert float(perceptual.structure_loss(one, one.flip(3))) > 0.1


@pytest.fixture
def networks():
    """A student and its encoder."""
    def make(config: StyleConfig) -> tuple[StyleStudent, StyleEncoder]:
        torch.manual_seed(1)
        student, encoder = StyleStudent(config), StyleEncoder(config)
        return student.eval(), encoder.eval()

    return make


@pytest.mark.parametrize('tokens', [0, 8])
@pytest.mark.parametrize('size', [(240, 320), (128, 208)])
def test_onnx_runtime_agrees_with_torch_on_a_photograph(
    networks, tmp_path, size, tokens,
):
    student, encoder = networks(StyleConfig(tokens=tokens))
    if tokens:
        torch.nn.init.normal_(student.attention.merge.weight, std=0.1)
    length = encoder.config.style_length
    style_export.export_student(student, length, tmp_path / 'transfer.onnx')
    style_export.export_encoder(encoder, tmp_path / 'encoder.onnx')
    photo = cv2.resize(astronaut(), size[::-1])[None]
    sheet = cv2.resize(astronaut(), (256, 256))[None]
    vector = Engine(tmp_path / 'encoder.onnx').run({'image': sheet})[0]
    result = Engine(tmp_path / 'transfer.onnx').run({'image': photo, 'style': vector})[0]
    with torch.no_grad():
        wanted_vector = encoder(torch.from_numpy(sheet).permute(0, 3, 1, 2) / 255)
        wanted = student(torch.from_numpy(photo).permute(0, 3, 1, 2) / 255, wanted_vector)
    assert vector.shape == (1, length)
    np.testing.assert_allclose(vector, wanted_vector.numpy(), rtol=1e-3, atol=1e-4)
    wanted = (wanted[0].permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(result[0] - wanted).max() <= 1
    assert result.std() > 1


def test_an_attention_begins_as_if_it_were_not_there(networks):
    student, _ = networks(StyleConfig(tokens=8))
    image, style = torch.rand(1, 3, 32, 48), torch.rand(1, student.config.style_length)
    with torch.no_grad():
        found = student(image, style)
        student.attention = None
        assert torch.equal(student(image, style), found)


def test_an_attention_learns_beside_style_vectors_that_stay(make_trainer, tmp_path):
    first = make_trainer()
    train(first, tmp_path / 'first', save_every=6)
    begin = load_networks(tmp_path / 'first' / CHECKPOINT)
    config = replace(TINY, tokens=4)
    second = training.Trainer(first.corpus, first.features, replace(RECIPE, warm=0, ramp=1),
                              config, begin)
    picture_of_a_style = torch.rand(1, 3, 256, 256)
    train(second, tmp_path / 'second', save_every=6)
    with torch.no_grad():
        before, after = (encoder(picture_of_a_style) for encoder in (begin[1], second.encoder))
    torch.testing.assert_close(after[:, :before.shape[1]], before)
    kept = second.encoder.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in begin[1].state_dict().items())
    assert after.shape[1] == config.style_length > before.shape[1]
    assert second.student.attention.merge.weight.any()
    assert not torch.equal(second.student.stem.weight, begin[0].stem.weight)


def test_a_pruned_student_gets_no_attention(arguments, tmp_path, capsys):
    assert main([*arguments, '--out', str(tmp_path / 'on'), '--tokens', '8', '--begin',
                 str(SHIPPED / 'weights' / 'p60.safetensors')]) == 2
    assert 'such as a pruned one' in capsys.readouterr().err


@pytest.mark.parametrize(('options', 'said'), [
    (['--tokens', '8'], '--begin is not given; expected'),
    (['--tokens', '3', '--begin', 'PACKAGE'], 'expected 1, 2, 4, 8 or 16'),
    (['--tokens', '8', '--begin', 'PACKAGE/weights/attention.safetensors'], '--begin has 8'),
    (['--begin', 'a.pt'], 'a.pt: no such checkpoint'),
])
def test_a_beginning_that_does_not_fit_is_refused(options, said, tmp_path, capsys):
    options = [text.replace('PACKAGE', str(SHIPPED)) for text in options]
    assert main(['train', 'style', '--content', 'a', '--styles', 'b', '--features', 'c', '--out',
                 str(tmp_path), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_training_goes_on_with_the_networks_of_another(make_trainer, tmp_path):
    first = make_trainer()
    train(first, tmp_path / 'first', save_every=6)
    begin = load_networks(tmp_path / 'first' / CHECKPOINT)
    second = training.Trainer(first.corpus, first.features, replace(RECIPE, warm=0, ramp=1), TINY,
                              begin)
    for ours, theirs in zip((second.student, second.encoder), (first.student, first.encoder),
                            strict=True):
        assert all(torch.equal(value, theirs.state_dict()[name])
                   for name, value in ours.state_dict().items())
    train(second, tmp_path / 'second', save_every=6)
    assert rows(tmp_path / 'second' / LOG)[0]['style']      # no copying anew
    assert not torch.equal(second.student.stem.weight, first.student.stem.weight)
    assert not torch.equal(second.encoder.head.weight, first.encoder.head.weight)


def test_a_package_can_be_trained_on(arguments, tmp_path):
    out = tmp_path / 'on'
    assert main([*arguments, '--out', str(out), '--begin', str(SHIPPED), '--steps', '1']) == 0
    assert load_networks(out / CHECKPOINT)[0].config == load_networks(SHIPPED)[0].config


@pytest.fixture
def package(make_trainer, tmp_path):
    """A package as `muon-ad export style` makes it of a training, and that training."""
    trainer = make_trainer()
    save_checkpoint(tmp_path / CHECKPOINT, trainer.state())
    styles = tmp_path / 'styles'
    styles.mkdir()
    for index, name in enumerate(('first', 'second')):
        cv2.imwrite(str(styles / f'{name}.png'), picture(index, 256))
    folder = tmp_path / 'package'
    assert main(['export', 'style', str(tmp_path / CHECKPOINT), str(folder), '--styles',
                 str(styles), '--default', 'second']) == 0
    return folder, trainer


def test_an_attentive_student_and_others_share_one_encoder(package, tmp_path):
    folder, trainer = package
    config = replace(TINY, tokens=4)
    begin = load_networks(tmp_path / CHECKPOINT)
    recipe = replace(RECIPE, warm=0, ramp=1)
    attentive = training.Trainer(trainer.corpus, trainer.features, recipe, config, begin)
    save_checkpoint(tmp_path / 'attention.pt', attentive.state())
    for source, variant in (('attention.pt', 'attention'), (CHECKPOINT, 'dense')):
        assert main(['export', 'style', str(tmp_path / source), str(folder),
                     '--variant', variant]) == 0
    assert {'attention_320x240', 'dense_320x240'} <= load_package(folder).variants.keys()
    assert load_networks(folder / 'weights' / 'attention.safetensors')[1].tokens is not None
    assert load_networks(folder)[1].tokens is None


def test_a_student_of_another_encoder_is_refused(package, make_trainer, tmp_path, capsys):
    folder, _ = package
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    other = make_trainer(replace(RECIPE, seed=1))
    save_checkpoint(tmp_path / 'other.pt', other.state())
    assert main(['export', 'style', str(tmp_path / 'other.pt'), str(folder), '--variant',
                 'p40']) == 2
    said = capsys.readouterr().err
    assert 'for which dense were made; expected another folder' in said
    assert before == {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    assert main(['export', 'style', str(tmp_path / 'other.pt'), str(folder)]) == 0


def test_a_package_may_hold_a_pruned_student_alone(package, tmp_path):
    alone = tmp_path / 'alone'
    assert main(['export', 'style', str(tmp_path / CHECKPOINT), str(alone), '--styles',
                 str(tmp_path / 'styles'), '--variant', 'p40']) == 0
    assert load_package(alone).variant().name == 'p40_320x240'


def test_an_exported_package_loads_and_runs(package):
    folder, _ = package
    loaded = load_package(folder)
    variants = list(loaded.variants.values())
    assert [(v.width, v.height) for v in variants] == [(320, 240), (640, 480)]
    assert variants[1].gflops > 3.5 * variants[0].gflops > 0
    model = StyleModel(loaded)
    assert model.style == 'second'
    assert model.stylise(picture(5, 300)).shape == (240, 240, 3)


def test_a_variant_of_weights_is_added_and_the_others_stay(package, tmp_path):
    folder, trainer = package
    before = load_package(folder).variants['dense_320x240']
    document = yaml.safe_load((folder / 'model.yaml').read_text())
    document['variants']['dense_int8_320x240'] = document['variants']['dense_320x240']
    document['quality'] = {'style_distance': 0.5}
    (folder / 'model.yaml').write_text(yaml.safe_dump(document))
    small = StyleStudent(replace(TINY, channels=4))
    for module, places in ((small.style, [0, 3, 5, 7]), (small.blocks[0].style, [8, 9, 10, 15])):
        module.scale.copy_(torch.tensor(places))
        module.shift.copy_(torch.tensor(places) + sum(TINY.modulated))
    for name in ('scale', 'shift'):
        getattr(small.fine_style, name).copy_(getattr(trainer.student.fine_style, name))
    save_network(tmp_path / 'p40.safetensors', small, 'style', TINY.to_dict())
    assert main(['export', 'style', str(tmp_path / 'p40.safetensors'), str(folder),
                 '--variant', 'p40']) == 0
    found = load_package(folder)
    assert list(found.variants) == ['dense_320x240', 'dense_640x480', 'p40_320x240',
                                    'p40_640x480', 'dense_int8_320x240']
    assert found.variants['dense_320x240'] == before
    assert found.variants['p40_320x240'].parameters < before.parameters
    assert 0 < found.variants['p40_320x240'].pruned < 1
    assert StyleModel(found, 'p40_320x240').stylise(picture(5, 300)).shape == (240, 240, 3)
    assert 'quality' not in yaml.safe_load((folder / 'model.yaml').read_text())


def test_a_style_to_start_with_that_is_not_there_is_refused(package, capsys):
    folder, _ = package
    weights = folder / 'weights' / 'dense.safetensors'
    assert main(['export', 'style', str(weights), str(folder), '--default', 'third']) == 2
    wanted = "default style is 'third'; expected one of ['first', 'second']"
    assert wanted in capsys.readouterr().err


def test_missing_weights_say_where_to_get_them(tmp_path):
    with pytest.raises(perceptual.FeatureError, match='Collaborative-Distillation.*--features'):
        perceptual.load_features(tmp_path / 'none.pth')
    torch.save({'something': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(perceptual.FeatureError, match='not these weights'):
        perceptual.load_features(tmp_path / 'other.pth')


def test_the_distilled_encoder_loads_and_tells_textures_apart(data):
    features = perceptual.load_features(data / 'weights' / 'cd_vgg19_small16x_e4.pth')
    found = features(torch.rand(1, 3, 64, 64))
    assert [x.shape[1] for x in found] == [16, 32, 64, 128]
    assert all(float(x.std()) > 0 for x in found)


def test_images_come_from_folders_files_and_videos(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), picture(1, 80))
    (folder / 'notes.txt').write_text('not read')
    video = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*'MJPG'), 10, (96, 64))
    for index in range(20):
        writer.write(np.full((64, 96, 3), index * 12, np.uint8))
    writer.release()
    images = load_images([folder, video], 48, frames=4)
    assert [image.shape for image in images] == [(48, 48, 3)] + 4 * [(48, 72, 3)]
    levels = [image.mean() for image in images[1:]]
    assert levels == sorted(levels) and levels[-1] - levels[0] > 100


def test_missing_empty_and_broken_sources_are_named(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken.png').write_bytes(b'no')
    (tmp_path / 'broken.mp4').write_bytes(b'no')
    for source, problem in (('none', 'no such'), ('empty', 'no image or video'),
                            ('broken.png', 'as an image'), ('broken.mp4', 'as a video')):
        with pytest.raises(DataError, match=problem) as caught:
            load_images([tmp_path / source], 32)
        assert str(tmp_path / source) in str(caught.value)


def test_crops_have_the_size_asked_for_and_come_from_all_over():
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 260, 3))
    rng = np.random.default_rng(0)
    crops = [random_crop([ramp], 64, rng, (1.0, 2.0)) for _ in range(60)]
    assert {crop.shape for crop in crops} == {(64, 64, 3)}
    assert min(crop.min() for crop in crops) < 15
    assert max(crop.max() for crop in crops) > 185
    assert random_crop([ramp], 300, rng).shape == (300, 300, 3)
