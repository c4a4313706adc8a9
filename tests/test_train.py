"""Trainings that are killed, shared between processes, or configured in a file: what only whole processes can show."""
import json, os, signal, subprocess, sys, time
from pathlib import Path

import numpy as np, pytest
from conftest import ROOT, run_command

ARCH, NAME = 'unet:tu-resnet10t', 'smp_unet_tu-resnet10t_32'


@pytest.fixture(scope='module')
def small(tmp_path_factory) -> Path:
    "48 rooms of 32 px"
    folder = tmp_path_factory.mktemp('train')/'small rooms'
    assert run_command('seg_generate', 48, '--out', folder, '--size', 32, '--seed', 2).returncode == 0
    return folder


def arguments(data, out, *more): return ['--data', data, '--out', out, '--size', 32, '--arch', ARCH, '--bs', 4, '--precision', 'fp32', *more]


def result(out) -> dict: return json.loads((Path(out)/f'{NAME}.json').read_text())


def test_killed_ten_times(small, tmp_path):
    "kill -9 at random moments, in the middle of epochs: nothing corrupt, and in the end the history of a training that was left alone"
    def train(out): return [sys.executable, '-c', f'from nbs_lib.train import seg_train; seg_train.main({[str(a) for a in arguments(small, out, "--epochs", 12, "--ema", "--resume")]!r})']
    env = os.environ | dict(OMP_NUM_THREADS='1')
    subprocess.run(train(tmp_path/'whole'), check=True, env=env, capture_output=True)
    rng, kills = np.random.default_rng(0), 0
    while kills < 10 and not (tmp_path/'cut'/f'{NAME}.json').exists():
        table = tmp_path/'cut'/f'{NAME}.csv'
        before = table.stat().st_mtime if table.exists() else 0
        process = subprocess.Popen(train(tmp_path/'cut'), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (table.exists() and table.stat().st_mtime > before): time.sleep(.01)  # until an epoch more is done
        time.sleep(rng.uniform(0, .4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    done = subprocess.run(train(tmp_path/'cut'), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert kills >= 5, 'the machine was too fast for the test'
    whole, cut = result(tmp_path/'whole'), result(tmp_path/'cut')
    assert len(cut['history']) == 12
    np.testing.assert_allclose([[*r.values()] for r in cut['history']], [[*r.values()] for r in whole['history']], atol=1e-4)
    assert {p.name for p in (tmp_path/'cut').iterdir() if not p.name.startswith('.')} == {p.name for p in (tmp_path/'whole').iterdir()}


def test_two_processes(small, tmp_path):
    "Two processes over gloo: one set of files, metrics as one process evaluates them, Dice like that of one"
    env = os.environ | dict(OMP_NUM_THREADS='1')
    for kind in ('single_cpu', 'multi_cpu'):
        command = [Path(sys.executable).with_name('accelerate'), 'launch', '--config_file', ROOT/'config'/f'{kind}.yaml', '-m', 'nbs_lib.train', *arguments(small, tmp_path/kind, '--epochs', 3)]
        done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
    assert 'on 2 processes' in done.stdout and done.stdout.count('saved') == 1
    one, two = result(tmp_path/'single_cpu'), result(tmp_path/'multi_cpu')
    assert two['scores']['foreground_accuracy'] == pytest.approx(two['history'][-1]['foreground_accuracy'], abs=1e-6)
    assert two['scores']['dice'] == pytest.approx(two['history'][-1]['dice'], abs=1e-6)
    assert {p.name for p in (tmp_path/'single_cpu').iterdir()} == {p.name for p in (tmp_path/'multi_cpu').iterdir()}
    assert abs(one['scores']['dice'] - two['scores']['dice']) < .05
    assert sum(r['pixels'] for r in one['classes']) == sum(r['pixels'] for r in two['classes']), 'no picture scored twice'


def test_settings_from_a_file(small, tmp_path):
    config = tmp_path/'settings.yaml'
    config.write_text(f'data: {small}\nsize: 32\narch: {ARCH}\nbs: 8\nepochs: 1\nloss: cross_entropy+power_jaccard\nweigh: true\nlr: 1e-3\nout: {tmp_path}/out\n')
    done = run_command('seg_train', '--config', config)
    assert done.returncode == 0, done.stderr
    recipe = result(tmp_path/'out')['recipe']
    assert (recipe['loss'], recipe['weighed'], recipe['bs']) == ('cross_entropy+power_jaccard', True, 8)
    config.write_text('sise: 32')
    done = run_command('seg_train', '--config', config)
    assert done.returncode == 1 and "sets 'sise', which seg_train does not know" in done.stderr and 'Traceback' not in done.stderr


def test_ladder_goes_on(small, tmp_path):
    "The second call of a finished ladder does nothing but show the table"
    command = ['seg_train', '--data', small, '--out', tmp_path, '--arch', ARCH, '--bs', 4, '--ladder', '32:1', '--resume']
    assert run_command(*command).returncode == 0
    before = (tmp_path/f'{NAME}.safetensors').stat().st_mtime_ns
    again = run_command(*command)
    assert again.returncode == 0 and f'{NAME} is done' in again.stdout
    assert (tmp_path/f'{NAME}.safetensors').stat().st_mtime_ns == before


@pytest.mark.parametrize('arch', ['light:resnet18', 'unet:tu-resnet10t', 'segformer:mit_b0'])
def test_every_architecture_goes_all_the_way(small, tmp_path, arch):
    "Trained, exported and used without torch, alike"
    from nbs_lib.train import model_name
    done = run_command('seg_train', '--data', small, '--out', tmp_path, '--arch', arch, '--size', 32, '--epochs', 1, '--bs', 8)
    assert done.returncode == 0, done.stderr
    done = run_command('seg_export', tmp_path/f'{model_name(arch, 32)}.safetensors', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_command('seg_eval', tmp_path/f'{model_name(arch, 32)}.onnx', '--data', small, '--report', tmp_path/'r.json', '--valid_only')
    assert done.returncode == 0, done.stderr
    ours, torchs = json.loads((tmp_path/'r.json').read_text()), json.loads((tmp_path/f'{model_name(arch, 32)}.json').read_text())['scores']
    assert abs(ours['scores']['accuracy'] - torchs['accuracy']) < .02 if 'scores' in ours else abs(ours['accuracy'] - torchs['accuracy']) < .02
