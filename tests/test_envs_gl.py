"""The choice of OpenGL library, each in a process of its own: MUJOCO_GL is read at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_wm.envs import gl

ROOT = Path(__file__).parents[1]
# Makes every OpenGL library look as if it were not installed.
MISSING = """
import ctypes, ctypes.util
load, find = ctypes.CDLL.__init__, ctypes.util.find_library
def refuse(self, name, *rest, **named):
    if name and any(part in str(name) for part in ("EGL", "OSMesa", "libGL", "OpenGL")):
        raise OSError(f"{name}: cannot open shared object file")
    return load(self, name, *rest, **named)
ctypes.CDLL.__init__ = refuse
ctypes.util.find_library = lambda name: None if name in ("EGL", "OSMesa", "GL", "OpenGL") else find(name)
"""
STATE = """
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env, rendering_problem
import torchrl.data
env = make_env(TaskConfig("dmc/cartpole_swingup"), ObservationConfig("state"), 2)
print("steps", env.rollout(3)["next", "env_steps"].sum().item())
"""
PROBLEM = """
import os
from lightning_wm.envs import rendering_problem
print(rendering_problem(), os.environ["MUJOCO_GL"])
"""
PIXELS = """
from lightning_wm.errors import UserError
for draw in (lambda: env.frame(), lambda: make_env(TaskConfig("dmc/cartpole_swingup"), ObservationConfig("pixels"))):
    try:
        draw()
    except UserError as error:
        print("refused:", error)
"""


def run(code, **environment):
    """Standard output of Python code; variables that are None are unset."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_EGL_DEVICE_ID", "LOCAL_RANK"):
        variables.pop(name, None)
    variables |= environment
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("chosen", [{}, {"MUJOCO_GL": "egl"}])
def test_without_opengl_states_work_and_pixels_are_refused(chosen):
    printed = run(MISSING + STATE + PIXELS, **chosen)
    assert "steps 6" in printed
    refusals = [line for line in printed.splitlines() if line.startswith("refused: ")]
    assert len(refusals) == 2
    install = "type `apt-get install libegl1 libgl1-mesa-dri` and set MUJOCO_GL=egl"
    assert all("dmc/cartpole_swingup cannot be drawn" in line and install in line for line in refusals)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({}, "no OpenGL library was found; type `apt-get install libegl1"),
        ({"MUJOCO_GL": "egl"}, "MUJOCO_GL=egl was asked for and its library cannot be used; type `apt-get"),
        ({"MUJOCO_GL": "osmesa"}, "type `apt-get install libosmesa6` and set MUJOCO_GL=osmesa"),
        ({"MUJOCO_GL": "disabled"}, "no OpenGL library was found"),
    ],
)
def test_what_to_install(chosen, reason):
    assert reason in run(MISSING + PROBLEM, **chosen)


def test_states_work_with_drawing_turned_off():
    assert "steps 6" in run(STATE, MUJOCO_GL="disabled")


@pytest.mark.skipif(not any(gl.egl_devices()), reason="no EGL device on this machine")
@pytest.mark.parametrize(
    ("before", "chosen", "expected"),
    [
        ("", {}, "None egl"),
        ("", {"DISPLAY": ":99"}, "None egl"),
        ("", {"MUJOCO_GL": "disabled"}, "MUJOCO_GL=disabled turns drawing off; set MUJOCO_GL=egl before Python starts"),
        (
            "import warnings; warnings.simplefilter('ignore')\nfrom dm_control import suite\n",
            {},
            "MUJOCO_GL=glfw needs a display and there is none; set MUJOCO_GL=egl before Python starts",
        ),
    ],
)
def test_egl_is_chosen_unless_it_is_too_late(before, chosen, expected):
    assert expected in run(before + PROBLEM, **chosen)


def test_importing_the_package_imports_neither_torch_nor_a_simulator():
    heavy = "{'torch', 'torchrl', 'mujoco', 'dm_control', 'gymnasium'}"
    assert run(f"import sys, lightning_wm.envs\nprint(sorted({heavy} & set(sys.modules)))") == "[]\n"


@pytest.mark.parametrize(
    ("usable", "environment", "expected"),
    [
        ((True, True, True), {"LOCAL_RANK": "1"}, "1"),
        ((True, True, True), {"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "2,0"}, "0"),
        ((True, True, True), {"LOCAL_RANK": "1", "MUJOCO_EGL_DEVICE_ID": "2"}, "2"),
        ((True, True, True), {}, None),
        ((True, False), {"LOCAL_RANK": "1"}, None),
        ((True, True), {"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "GPU-5c6a"}, None),
        ((True, True), {"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "7"}, None),
    ],
)
def test_each_rank_draws_on_its_own_gpu(monkeypatch, usable, environment, expected):
    for name in ("LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"MUJOCO_GL": "egl", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gl, "egl_devices", lambda: usable)
    # Set by the code under test; monkeypatch then restores it.
    gl.prepare()
    chosen = os.environ.pop("MUJOCO_EGL_DEVICE_ID", None)
    assert chosen == expected


GYM = """
env = make_env(TaskConfig("gym/InvertedPendulum-v5"), ObservationConfig("state"), 2)
print("gym steps", env.rollout(3)["next", "env_steps"].sum().item())
try:
    env.frame()
except UserError as error:
    print("gym refused:", error)
"""
PLATFORM = "PYOPENGL_PLATFORM={} does not fit MUJOCO_GL=egl; type `unset PYOPENGL_PLATFORM`"
DEVICE = "MUJOCO_EGL_DEVICE_ID={} is no EGL device of this machine, those that work are 0"
NONE_OF = "MUJOCO_GL={} is none of egl, osmesa, glfw and disabled; set MUJOCO_GL=egl"


@pytest.mark.skipif(not any(gl.egl_devices()), reason="no EGL device on this machine")
@pytest.mark.parametrize(
    ("environment", "reasons"),
    [
        ({"PYOPENGL_PLATFORM": "osmesa"}, [PLATFORM.format("osmesa")]),
        ({"PYOPENGL_PLATFORM": "nonsense", "MUJOCO_GL": "egl"}, [PLATFORM.format("nonsense")]),
        ({"PYOPENGL_PLATFORM": "x11", "MUJOCO_GL": "disabled"}, ["MUJOCO_GL=disabled turns", PLATFORM.format("x11")]),
        ({"MUJOCO_EGL_DEVICE_ID": "abc"}, [DEVICE.format("abc"), "type `unset MUJOCO_EGL_DEVICE_ID`"]),
        ({"MUJOCO_EGL_DEVICE_ID": "99", "MUJOCO_GL": "egl"}, [DEVICE.format("99")]),
        ({"MUJOCO_EGL_DEVICE_ID": "", "DISPLAY": ":99"}, [DEVICE.format("")]),
        (
            {"PYOPENGL_PLATFORM": "glx", "MUJOCO_EGL_DEVICE_ID": "x", "LOCAL_RANK": "0"},
            [PLATFORM.format("glx"), DEVICE.format("x")],
        ),
        ({"MUJOCO_GL": "nonsense", "MUJOCO_EGL_DEVICE_ID": "x"}, [NONE_OF.format("nonsense")]),
        ({"MUJOCO_GL": "glfw"}, ["MUJOCO_GL=glfw needs a display and there is none; set MUJOCO_GL=egl"]),
    ],
)
def test_variables_that_do_not_fit_stop_only_what_draws(environment, reasons):
    pytest.importorskip("gymnasium")
    printed = run(STATE + PIXELS + GYM, **environment)
    assert "\nsteps 6\n" in f"\n{printed}"
    assert "gym steps 6\n" in printed
    refusals = [line for line in printed.splitlines() if "refused: " in line]
    assert len(refusals) == 3
    for reason in reasons:
        assert all(reason in line and "cannot be drawn" in line for line in refusals), refusals


@pytest.mark.skipif(not any(gl.egl_devices()), reason="no EGL device on this machine")
@pytest.mark.parametrize(
    "environment",
    [
        {"MUJOCO_GL": " EGL ", "PYOPENGL_PLATFORM": "EGL", "MUJOCO_EGL_DEVICE_ID": " 0"},
        {"MUJOCO_GL": "", "PYOPENGL_PLATFORM": ""},
    ],
)
def test_values_that_fit_in_another_spelling_draw(environment):
    pytest.importorskip("gymnasium")
    printed = run(STATE + PIXELS + GYM + "print(env.frame().std() > 1)", **environment)
    assert "refused: " not in printed
    assert printed.endswith("True\n")


@pytest.mark.skipif(not any(gl.egl_devices()), reason="no EGL device on this machine")
def test_a_library_that_fails_only_when_it_is_imported_stops_only_what_draws():
    spoilt = "import sys\nsys.modules['dm_control._render.pyopengl'] = None\n"
    printed = run(spoilt + STATE + PIXELS)
    assert "steps 6" in printed
    assert printed.count("cannot be drawn: MUJOCO_GL=egl cannot be used (ModuleNotFoundError: ") == 2


def test_a_dm_control_that_cannot_be_imported_is_named():
    code = """
import sys
from lightning_wm.config.schema import ObservationConfig, TaskConfig
from lightning_wm.envs import make_env
from lightning_wm.errors import UserError
sys.modules["dm_control.suite"] = None
try:
    make_env(TaskConfig("dmc/cartpole_swingup"), ObservationConfig("state"))
except UserError as error:
    print("refused:", error)
"""
    assert "refused: dm_control cannot be imported (" in run(code)


@pytest.mark.parametrize("device", ["-1", "1", "2", "1e0", "", "0x1", "one"])
def test_what_is_no_device(monkeypatch, device):
    monkeypatch.setattr(gl, "egl_devices", lambda: (True, False))
    monkeypatch.setattr(gl, "_problem", None)
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", device)
    gl.guard()
    assert os.environ["MUJOCO_GL"] == "disabled"
    assert gl._problem == (
        f"MUJOCO_EGL_DEVICE_ID={device} is no EGL device of this machine, those that work are 0; "
        "type `unset MUJOCO_EGL_DEVICE_ID`"
    )


@pytest.mark.parametrize(
    ("platform", "works", "expected"),
    [
        ("osmesa", ("egl", "osmesa"), "osmesa"),
        ("egl", ("egl", "osmesa"), "egl"),
        ("", ("osmesa",), "osmesa"),
        ("egl", ("osmesa",), "disabled"),
        ("wgl", ("egl", "osmesa"), "disabled"),
    ],
)
def test_the_library_that_pyopengl_is_told_to_use_is_chosen(monkeypatch, platform, works, expected):
    monkeypatch.setattr(gl, "_works", lambda library: library in works)
    monkeypatch.setattr(gl, "_problem", None)
    for name in ("MUJOCO_EGL_DEVICE_ID", "DISPLAY", "WAYLAND_DISPLAY", "LOCAL_RANK", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYOPENGL_PLATFORM", platform)
    gl.prepare()
    assert os.environ.pop("MUJOCO_GL") == expected
    wrong = f"PYOPENGL_PLATFORM={platform} does not fit MUJOCO_GL={works[0]}; type `unset PYOPENGL_PLATFORM`"
    assert gl._problem == (wrong if expected == "disabled" else None)
