"""Every check of the project, each in an environment of its own: `nox -s tests lint types docs build`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
nox.options.sessions = ["tests", "lint", "types", "docs", "build"]
nox.options.error_on_missing_interpreters = True


def install(session: nox.Session, *what: str) -> None:
    """Install with the tested versions of constraints.txt, unless NEWEST is set.

    Byte-compiling all of torch takes longer than compiling what is imported.
    """
    constraints = () if os.environ.get("NEWEST") else ("-c", str(ROOT / "constraints.txt"))
    session.install("--no-compile", *constraints, *what)


def settings() -> dict[str, str]:
    """What a process of ours sees: one thread each, EGL to draw with unless MUJOCO_GL says otherwise."""
    return {"OMP_NUM_THREADS": "1", "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}


@nox.session(reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Run the tests on two processes; arguments after `--` go to pytest."""
    install(session, "-e", ".[test,gym,hub,onnx,ray,report,trackio,wandb]")
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs, env=settings())


@nox.session(reuse_venv=True)
def resume(session: nox.Session) -> None:
    """Kill and stop runs at every kind of moment, and compare them with runs that nobody stopped (an hour)."""
    install(session, "-e", ".[test,gym]")
    files = ("tests/test_resume.py", "tests/test_resume_damage.py", "tests/test_signals.py")
    session.run("pytest", "--timeout=7200", *files, *session.posargs, env={**settings(), "RESUME": "all"})


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style (ruff) and spelling (codespell)."""
    install(session, "ruff", "codespell")
    session.run("ruff", "check", ".")
    session.run("codespell")


@nox.session(reuse_venv=True)
def types(session: nox.Session) -> None:
    """Check the package's types, strictly."""
    install(session, "-e", ".[gym,types]")
    session.run("mypy")


@nox.session(reuse_venv=True)
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-b", "html", "docs", "docs/_build/html", env=settings())


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel from the sdist, install it alone and train from another folder."""
    install(session, "build")
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder, silent=True)
        (wheel,) = Path(folder).glob("*.whl")
        install(session, str(wheel))
        with session.chdir(folder):
            fit = ("python", "-m", "lightning_wm.fit")
            session.run(*fit, "--help", silent=True)
            session.run(*fit, "recipe=list")
            session.run(*fit, "recipe=quickstart", "smoke=true", f"run={folder}/run", env=settings())
