"""Lets this Python behave like one of another system: what only Unix has is gone, and files follow Windows' rules.

`become()` is for a process of its own, after the imports of others' packages: those know the systems they run on.
"""
import builtins
import io
import os
import re
import signal
import socket
import subprocess
import sys

UNIX_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop")
UNIX_FUNCTIONS = ("fork", "forkpty", "sched_getaffinity", "posix_fallocate", "sysconf", "getloadavg", "uname",
                  "getuid", "geteuid", "setsid", "killpg", "fchmod", "pread", "pwrite", "mkfifo")
UNIX_SIGNALS = ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGSTOP")
UNIX_FILES = re.compile(r"/proc/(?!\d+/)|/dev/shm|/sys/")  # psutil asks Linux about processes by their number
REFUSED_NAME = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]$')  # in the name of a file
HEAVY = ("torch", "torchvision", "fastai", "matplotlib", "pandas", "scipy", "IPython")

_open, _fsync, _kill = builtins.open, os.fsync, os.kill


def hide(*modules: str) -> None:
    "Let the import of these modules fail."
    for name in modules:
        sys.modules[name] = None


def _hide_attributes(module, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def _open_files() -> list[os.stat_result]:
    "The files that this process holds open, memory maps among them."
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.fstat(int(number)))
        except OSError:  # the folder that was listed
            pass
    return found


def _refuse_open_file(path) -> None:
    "Windows neither deletes nor replaces a file that somebody holds open."
    if not os.path.isfile(path):
        return
    wanted = os.stat(path)
    if any(os.path.samestat(wanted, held) for held in _open_files()):
        raise PermissionError(13, "the process cannot access the file because it is being used", str(path))


def _refuse_name(path) -> None:
    name = os.path.basename(os.fspath(path))
    if isinstance(name, str) and REFUSED_NAME.search(name):
        raise OSError(22, "the file name is incorrect", str(path))


def _guard(name: str, overwrites: bool = False) -> None:
    "Make a function of `os` that takes names away from files refuse what Windows refuses."
    original = getattr(os, name)

    def guarded(*paths, **options):
        if not options:  # `shutil.rmtree` works by open folders
            for path in paths:
                _refuse_open_file(path)
            _refuse_name(paths[-1])
            if len(paths) == 2 and not overwrites and os.path.exists(paths[1]):
                raise FileExistsError(17, "the file exists already", str(paths[1]))
        return original(*paths, **options)

    setattr(os, name, guarded)


def _guarded_open(file, mode="r", *args, **options):
    if isinstance(file, str | os.PathLike):
        if UNIX_FILES.match(os.fspath(file)):
            raise FileNotFoundError(2, "no such file", str(file))
        if set(mode) & set("wax"):
            _refuse_name(file)
    return _open(file, mode, *args, **options)


def _guarded_fsync(descriptor: int) -> None:
    "Windows writes through only what is open for writing."
    os.write(descriptor, b"")
    _fsync(descriptor)


def _guarded_kill(pid: int, number: int) -> None:
    assert number == signal.SIGTERM, "on Windows any other number ends a process, or the whole console"
    _kill(pid, number)


class _Popen(subprocess.Popen):
    "Windows has neither what runs between fork and exec, nor interrupts for one process."

    def __init__(self, *args, preexec_fn=None, **options) -> None:
        if preexec_fn is not None:
            raise ValueError("preexec_fn is not supported on Windows platforms")
        super().__init__(*args, **options)

    def send_signal(self, sig: int) -> None:
        if sig != signal.SIGTERM:
            raise ValueError(f"Unsupported signal: {sig}")
        super().send_signal(sig)


def become() -> None:
    "Be another system from now on."
    hide(*UNIX_MODULES)
    _hide_attributes(os, UNIX_FUNCTIONS)
    _hide_attributes(signal, UNIX_SIGNALS)
    _hide_attributes(socket, ("SO_REUSEPORT",))
    for name in ("unlink", "remove", "rename"):
        _guard(name)
    _guard("replace", overwrites=True)
    builtins.open = io.open = _guarded_open
    os.fsync, os.kill = _guarded_fsync, _guarded_kill
    subprocess.Popen = _Popen
