"""Processes that have imported torch and OpenMMLab, and fork for each script that they shall run.

``python -m tests.helpers.fork_server FOLDER`` listens at ``FOLDER/full/server`` with vito_mm
imported and at ``FOLDER/bare/server`` without, prints a line for each, and ends with its standard
input. A client sends one packet with the words after ``python``, environment and folder, and the
three standard streams. It is sent the number of the process that runs them, and at its end the exit
code. The process is killed when its client is gone.

A script finds ``python`` of the same folder as ``sys.executable``, so that those that it starts are
forked as well.
"""

import atexit
import contextlib
import faulthandler
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import types


def run_python(words: list[str]) -> None:
    """Do what ``python WORD ...`` does: ``[-u] FILE``, ``-m MODULE`` or ``-c CODE``, arguments."""
    if words[0] == '-u':
        words = words[1:]
    if words[0] == '-m':
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name='__main__', alter_sys=True)
    elif words[0] == '-c':
        sys.argv, sys.path[0] = ['-c', *words[2:]], ''
        main = sys.modules['__main__'] = types.ModuleType('__main__')
        exec(compile(words[1], '<string>', 'exec'), main.__dict__)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name='__main__')


def run(job: dict, streams: list[int]) -> None:
    """Run a job in this process, and end it.

    It ends without destroying its process group: a DistributedDataParallel that is freed after its
    Gloo group waits for a thread that waits for the GIL.
    """
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    faulthandler.dump_traceback_later(600, exit=True)  # a dead-lock ends with its stacks
    os.environ.clear()
    os.environ.update(job['environment'])
    os.chdir(job['cwd'])
    for name, number in (('stdout', 1), ('stderr', 2)):
        before = getattr(sys, name)
        stream = open(number, 'w', 1, before.encoding, before.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    code = 0
    try:
        run_python(job['command'])
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def keep(listener: socket.socket, client: socket.socket) -> None:
    """Start the job of a client, tell the client its end, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, streams, *_ = socket.recv_fds(client, 1 << 20, 3)
    number = os.fork()
    if number == 0:
        listener.close()
        client.close()
        run(json.loads(text), streams)
    for stream in streams:
        os.close(stream)
    client.send(str(number).encode())
    ended = os.pidfd_open(number)
    if ended not in select.select([ended, client], [], [])[0]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(number, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    with contextlib.suppress(OSError):
        client.send(str(code).encode())
    os._exit(0)


def main(folder: str) -> None:
    """Serve until the standard input ends."""
    import mmengine.runner  # noqa: F401
    import mmpretrain.models  # noqa: F401
    import mmseg.models  # noqa: F401

    from tests.helpers.quick_mmengine import quicken

    quicken()
    kind = 'bare'
    if os.fork() == 0:
        import vito_mm.models.selfsup.vito  # noqa: F401

        kind = 'full'
    sys.executable = f'{folder}/{kind}/python'
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f'{folder}/{kind}/server')
    listener.listen()
    print('listening', flush=True)
    while True:
        ready, *_ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        client, _ = listener.accept()
        if os.fork() == 0:
            keep(listener, client)
        client.close()


if __name__ == '__main__':
    main(sys.argv[1])
