"""What all trainings share: checkpoints, the log, and the loop."""

import csv

import pytest
import torch

from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.checkpoint import load_checkpoint
from muon_ad.train.checkpoint import save_checkpoint
from muon_ad.train.log import LOG
from muon_ad.train.log import Log
from muon_ad.train.loop import check_finite
from muon_ad.train.loop import DivergedError
from muon_ad.train.loop import learn

RECIPE = {'rate': 0.1, 'steps': 10, 'classes': ('a', 'b')}


def rows(path):
    with path.open(newline='') as stream:
        return list(csv.DictReader(stream))


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, {'recipe': RECIPE, 'net': {'w': torch.arange(3.0)}, 'step': 4})
    state = load_checkpoint(path, {'recipe': RECIPE})
    assert state['step'] == 4 and torch.equal(state['net']['w'], torch.arange(3.0))
    assert [each.name for each in tmp_path.iterdir()] == [CHECKPOINT]


def test_what_cannot_be_saved_leaves_the_previous_checkpoint(tmp_path):
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, {'step': 1})
    with pytest.raises(Exception, match='pickle'):
        save_checkpoint(path, {'step': 2, 'bad': lambda: None})
    assert load_checkpoint(path, {})['step'] == 1


def test_a_checkpoint_of_another_run_names_what_differs(tmp_path):
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, {'recipe': RECIPE})
    assert load_checkpoint(path, {'recipe': {**RECIPE, 'steps': 99}}, may_differ=['steps'])
    with pytest.raises(ValueError, match=r'recipe of rate = 0.1, not 0.2; steps = 10, not 9;'):
        load_checkpoint(path, {'recipe': {**RECIPE, 'rate': 0.2, 'steps': 9}})
    with pytest.raises(ValueError, match='new = None, not 1'):
        load_checkpoint(path, {'recipe': {**RECIPE, 'new': 1}})
    with pytest.raises(ValueError, match='made with config of width = None, not 3'):
        load_checkpoint(path, {'config': {'width': 3}})


def test_files_that_are_no_checkpoint_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='start without --resume'):
        load_checkpoint(tmp_path / 'none.pt', {})
    whole = tmp_path / CHECKPOINT
    save_checkpoint(whole, {'net': torch.zeros(1000)})
    for content in (b'', b'no', whole.read_bytes()[:500]):
        (tmp_path / 'broken.pt').write_bytes(content)
        with pytest.raises(ValueError, match='broken.pt: cannot be read'):
            load_checkpoint(tmp_path / 'broken.pt', {})


def test_the_log_goes_on_where_the_run_does(tmp_path):
    path = tmp_path / LOG
    with Log(path, ('loss', 'rate'), 0) as log:
        for step in (10, 20, 30):
            log.write(step, {'loss': 1 / step})
    with path.open('a') as stream:
        stream.write('2')        # a process was killed in the middle of a row
    with Log(path, ('loss', 'rate'), 20) as log:
        log.write(30, {'loss': 7, 'rate': 1e-3})
    assert [tuple(row.values()) for row in rows(path)] == [
        ('10', '0.1', ''), ('20', '0.05', ''), ('30', '7', '0.001')]


def test_a_new_run_starts_a_new_log_and_unknown_columns_are_refused(tmp_path):
    path = tmp_path / LOG
    with Log(path, ('loss',), 0) as log:
        log.write(10, {'loss': 1})
    with Log(path, ('loss',), 0) as log, pytest.raises(ValueError, match='charm'):
        log.write(20, {'charm': 1})
    assert rows(path) == []


class Counter:
    """Learns nothing, but counts; may end early, as if killed."""

    def __init__(self, step: int = 0, end: int = 999) -> None:
        self.step, self._end = step, end

    def advance(self) -> dict[str, float]:
        if self.step == self._end:
            raise KeyboardInterrupt
        self.step += 1
        return {'loss': 1 / self.step}

    def state(self) -> dict:
        return {'step': self.step}


def test_the_loop_logs_and_saves_at_intervals_and_at_the_end(tmp_path):
    learn(Counter(), 7, tmp_path / 'out', ('loss',), save_every=100, log_every=3)
    assert [row['step'] for row in rows(tmp_path / 'out' / LOG)] == ['3', '6', '7']
    assert load_checkpoint(tmp_path / 'out' / CHECKPOINT, {})['step'] == 7


def test_a_loop_that_was_interrupted_leaves_the_same_when_it_is_resumed(tmp_path):
    learn(Counter(), 10, tmp_path / 'whole', ('loss',), save_every=4, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        learn(Counter(end=6), 10, tmp_path / 'parts', ('loss',), save_every=4, log_every=1)
    assert len(rows(tmp_path / 'parts' / LOG)) == 6
    again = Counter(load_checkpoint(tmp_path / 'parts' / CHECKPOINT, {})['step'])
    assert again.step == 4
    learn(again, 10, tmp_path / 'parts', ('loss',), save_every=4, log_every=1)
    assert (tmp_path / 'parts' / LOG).read_bytes() == (tmp_path / 'whole' / LOG).read_bytes()


def test_a_run_that_is_over_takes_no_step_and_keeps_its_log(tmp_path):
    learn(Counter(), 3, tmp_path, ('loss',), log_every=1)
    learn(Counter(3, end=3), 3, tmp_path, ('loss',), log_every=1)
    assert len(rows(tmp_path / LOG)) == 3


def test_a_loss_that_is_not_finite_names_the_step():
    check_finite(1.0, 3)
    for loss in (float('nan'), float('inf')):
        with pytest.raises(DivergedError, match='step 3: loss is (nan|inf).*lower --rate'):
            check_finite(loss, 3)
