"""Trains the streaming detector: `muon-ad train detector`.

From pictures and a larger detector as teacher, without any annotation (detection_data.py); from
annotated pictures in the layout of COCO or PASCAL VOC (annotations.py); or from both at once.
From scratch, or on from weights, dense or pruned.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from muon_ad.export import record_quality
from muon_ad.export import size
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.detector import for_classes
from muon_ad.networks.detector import load_detector
from muon_ad.networks.detector import save_detector
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import sha256_of
from muon_ad.scene import Scene
from muon_ad.scene import View
from muon_ad.train import steering
from muon_ad.train.annotations import DataSet
from muon_ad.train.annotations import read_coco
from muon_ad.train.annotations import read_voc
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.detection_data import library
from muon_ad.train.detector_export import export_detector
from muon_ad.train.detector_quality import against_annotations
from muon_ad.train.detector_quality import agreement
from muon_ad.train.detector_quality import by_name
from muon_ad.train.detector_trainer import COLUMNS
from muon_ad.train.detector_trainer import Lessons
from muon_ad.train.detector_trainer import RATES
from muon_ad.train.detector_trainer import Recipe
from muon_ad.train.detector_trainer import Trainer
from muon_ad.train.images import DataError
from muon_ad.train.images import hold_out
from muon_ad.train.images import load_images
from muon_ad.train.loop import learn
from muon_ad.train.teacher import make_teacher
from muon_ad.train.teacher import teacher_package
from muon_ad.train.teacher import Teachers

CLASSES = ('person', 'chair', 'couch', 'dining table', 'potted plant', 'tv', 'bottle', 'cup',
           'bed')
WEIGHTS = 'detector.safetensors'
SIDE = 400  # short side of the pictures in memory
OPTIONS = ('width', 'height', 'steps', 'batch', 'warm_up', 'average', 'mimic', 'pool', 'fresh',
           'seed', 'validate_every')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `muon-ad train detector`."""
    add_lesson_arguments(parser)
    parser.add_argument('--weights', type=Path, metavar='FILE',
                        help='start from these, dense or pruned, instead of from scratch')
    parser.add_argument('--classes', help='comma-separated, known to annotations and teacher '
                        '(default: those of --weights, else all that are annotated, else '
                        f'{",".join(CLASSES)})')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER',
                        help=f'where checkpoint.pt, log.csv, {WEIGHTS} and the model package go')
    parser.add_argument('--resume', action='store_true', help='go on from --out/checkpoint.pt')
    parser.add_argument('--checkpoint-every', type=int, default=200, metavar='STEPS')
    for name in OPTIONS:
        default = getattr(Recipe, name)
        parser.add_argument(f'--{name.replace("_", "-")}', type=type(default), default=default)
    parser.add_argument('--frozen-norms', action='store_true',
                        help='normalise as --weights do, and not by the statistics of each batch: '
                        'for short runs')
    parser.add_argument('--fp32', action='store_true',
                        help='no bfloat16, which is slow on CPUs without AVX512-BF16 or AMX')
    steering.add_arguments(parser, RATES)
    parser.add_argument('--sizes', type=size, nargs='*', default=[], metavar='WIDTHxHEIGHT',
                        help='export variants of these sizes beside that of training')
    parser.add_argument('--keep', metavar='CLASSES',
                        help='export these classes alone: those that turned out well enough')
    parser.add_argument('--name', default='detector', help='name of the model package')
    parser.add_argument('--licence', default='', help='licence of the model package')
    parser.add_argument('--threads', type=int, default=1)


def add_lesson_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options for what a detector learns from."""
    annotated = parser.add_mutually_exclusive_group()
    annotated.add_argument('--coco', type=Path, metavar='FOLDER',
                           help='learn from annotations in the layout of COCO: '
                           'annotations/instances_*.json and folders of pictures')
    annotated.add_argument('--voc', type=Path, metavar='FOLDER',
                           help='learn from annotations of a VOCdevkit: Annotations/*.xml and '
                           'JPEGImages')
    parser.add_argument('--teacher', type=Path, nargs='+', default=[], metavar='PATH',
                        help='learn from a detector in YOLOX format: a model package, or an ONNX '
                        'file as its authors export it; several are averaged')
    parser.add_argument('--images', type=Path, nargs='*', default=[], metavar='PATH',
                        help='folders, pictures and videos that the teacher looks at')
    parser.add_argument('--sequences', type=Path, nargs='*', default=[], metavar='PATH',
                        help='the same in order of time; the last --holdout of each is left out')
    parser.add_argument('--holdout', type=float, default=1 / 3)
    parser.add_argument('--scenes', type=int, default=0, metavar='N',
                        help='so many frames of the built-in rendered scene as well')
    parser.add_argument('--frames', type=int, default=93, help='frames to take of a video')
    parser.add_argument('--validate-on', type=int, default=500, metavar='N',
                        help='annotated pictures to measure the mAP on')


def run(args: argparse.Namespace) -> int:
    """Train and export as the options say; returns the exit status."""
    torch.set_num_threads(args.threads)
    start = load_detector(args.weights) if args.weights else None
    wanted = _names(args.classes) if args.classes else start[1] if start else ()
    data = annotated(args, wanted)
    classes = data.classes if data else wanted or CLASSES
    kept = _names(args.keep) if args.keep else classes
    if not set(kept) <= set(classes):
        raise ValueError(f'--keep is {kept}; expected some of {classes}')
    recipe = _recipe(args, classes)
    lessons, unseen = lessons_of(args, recipe, data)
    net = for_classes(*start, classes) if start else None
    trainer = Trainer(recipe, lessons, net)
    if args.resume:
        trainer.load(args.out / CHECKPOINT)
    learn(trainer, recipe.steps, args.out, COLUMNS, args.checkpoint_every, log_every=20)
    net = for_classes(trainer.average.module, classes, kept)
    save_detector(args.out / WEIGHTS, net, kept)
    sizes = [(recipe.width, recipe.height), *args.sizes]
    package = export_detector(net, kept, args.out / 'package', sizes,
                              _about(args, recipe, lessons, kept))
    _judge(net, package, lessons, unseen)
    print(f'weights: {args.out / WEIGHTS}\nmodel package: {package.folder}')
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(','))


def _recipe(args: argparse.Namespace, classes: tuple[str, ...]) -> Recipe:
    options = {name: getattr(args, name) for name in OPTIONS}
    if not args.teacher:
        options['mimic'] = 0.0      # there are no features to imitate
    return Recipe(
        classes, **options, optimizer=args.optimizer,
        rate=RATES[args.optimizer] if args.rate is None else args.rate,
        curriculum=args.curriculum == 'on', half=not args.fp32, frozen_norms=args.frozen_norms,
        start=sha256_of(args.weights) if args.weights else '',
    )


def annotated(args: argparse.Namespace, wanted: tuple[str, ...]) -> DataSet | None:
    """Return the annotated pictures that the options ask for, with no more than to validate on."""
    if not (args.coco or args.voc):
        return None
    data = read_coco(args.coco, wanted) if args.coco else read_voc(args.voc, wanted)
    step = max(1, -(-len(data.validation) // max(1, args.validate_on)))
    data.validation = data.validation[::step]
    print(data.summary())
    return data


def lessons_of(
    args: argparse.Namespace, recipe: Recipe, data: DataSet | None,
) -> tuple[Lessons, list[np.ndarray]]:
    """Return what to learn from, and pictures that are not learnt from."""
    if not args.teacher:
        if data is None:
            raise DataError('nothing to learn from: give --coco or --voc, or --teacher with '
                            'pictures')
        return Lessons(annotated=data), []
    teachers = [make_teacher(teacher_package(path), recipe.classes, recipe.width, recipe.height,
                             recipe.mimic > 0) for path in args.teacher]
    teacher = teachers[0] if len(teachers) == 1 else Teachers(teachers)
    pictures, unseen = _pictures(args)
    pictures, held = hold_out(pictures) if recipe.balanced else (pictures, [])
    source, held_out = (
        library(tqdm(some, desc='finding objects'), teacher.detector, recipe.classes)
        if some else None for some in (pictures, held)
    )
    print(f'{len(pictures)} pictures; objects to crop:',
          ', '.join(f'{count} {name}' for name, count in source.counts.most_common()))
    return Lessons(teacher, source, held_out, data), unseen


def _pictures(args: argparse.Namespace) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the pictures for the teacher to look at, and those held out."""
    pictures, unseen = load_images(args.images, SIDE, args.frames), []
    pictures += rendered(args.scenes, args.seed)
    for path in args.sequences:
        ordered = load_images([path], SIDE, args.frames)
        kept = round(len(ordered) * (1 - args.holdout))
        pictures += ordered[:kept]
        unseen += ordered[kept:]
    if not pictures:
        raise DataError('no pictures to learn from: give --images, --sequences or --scenes')
    return pictures, unseen


def rendered(count: int, seed: int) -> list[np.ndarray]:
    """Return frames of the built-in scene at random times, through random lenses."""
    rng = np.random.default_rng(seed)
    return [
        Scene(View.from_fov(SIDE * 4 // 3, SIDE, rng.uniform(45, 75))).rgb(rng.uniform(0, 600))
        for _ in tqdm(range(count), desc='rendering', disable=not count)
    ]


def _about(
    args: argparse.Namespace, recipe: Recipe, lessons: Lessons, kept: tuple[str, ...],
) -> dict[str, Any]:
    """Return what `model.yaml` says of the training."""
    training = {**asdict(recipe), 'classes': list(recipe.classes)}
    sources = []
    if lessons.teacher:
        sources.append(f'distilled from {" and ".join(path.stem for path in args.teacher)}')
        training |= {'crops': dict(lessons.source.counts),
                     'pictures': len(lessons.source.pictures) - lessons.source.counts.total()}
    if lessons.annotated:
        sources.append(f'trained on {len(lessons.annotated.training)} annotated pictures')
    return {'name': args.name, 'licence': args.licence, 'training': training,
            'summary': f'anchor-free detector of {len(kept)} classes, {", ".join(sources)}'}


def _judge(
    net: DetectorNet, package: ModelPackage, lessons: Lessons, unseen: list[np.ndarray],
) -> None:
    """Measure the package on what was not learnt from; print it and note it in `model.yaml`."""
    measured = {}
    if unseen:
        student = Detector(package, score_threshold=0.05)
        measured[f'average precision against the teacher, {len(unseen)} unseen pictures'] = (
            agreement(student, lessons.teacher.detector, unseen))
    if lessons.annotated and package.classes == lessons.annotated.classes:
        pictures, variant = lessons.annotated.validation, package.variant()
        found = against_annotations(
            net, package.classes, pictures, (variant.width, variant.height))
        measured[f'average precision, {len(pictures)} annotated unseen pictures'] = (
            by_name(found, package.classes))
    if measured:
        record_quality(package.folder, measured)
    for title, values in measured.items():
        print(f'{title}: {values}')
