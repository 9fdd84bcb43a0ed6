"""Call the command line from fixtures of any scope."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from palimpsest.cli.main import main


def call(*args: object) -> tuple[int, str, str]:
    """call("audit", "world", ...) -> (exit code, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["palimpsest", *map(str, args)])
        with pytest.raises(SystemExit) as leaving:
            main()
    return int(leaving.value.code or 0), out.getvalue(), err.getvalue()


def in_a_process(*args: object) -> tuple[int, str, str]:
    """The same in a process of its own, as a user does: without the tests' checks of shapes, which take as long as an audit."""
    process = started(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    return process.returncode, out, err


def started(*args: object, **pipes: int) -> "subprocess.Popen[str]":
    """That process, while it runs."""
    command = [sys.executable, "-m", "palimpsest.cli.main", *map(str, args)]
    return subprocess.Popen(command, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)  # type: ignore[call-overload]
