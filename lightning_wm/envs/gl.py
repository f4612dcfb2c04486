"""Which OpenGL library MuJoCo draws with, decided before anything imports MuJoCo.

`MUJOCO_GL` is read when mujoco and dm_control are imported. A value whose
library is missing breaks that import even where nothing is drawn, and without
a value dm_control takes GLFW, which cannot draw without a display.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from functools import cache

OFF = ("off", "disable", "disabled", "false", "0")
PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}
EGL_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT of EGL_EXT_platform_device

_replaced: str | None = None


@cache
def egl_devices() -> tuple[bool, ...]:
    """For each EGL device of this machine whether it can be initialised; empty without libEGL."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return ()
    pointer, number = ctypes.c_void_p, ctypes.c_int
    egl.eglGetProcAddress.restype, egl.eglGetProcAddress.argtypes = pointer, [ctypes.c_char_p]
    egl.eglInitialize.restype, egl.eglInitialize.argtypes = ctypes.c_uint, [pointer] * 3
    addresses = [egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")]
    if not all(addresses):
        return ()
    query = ctypes.CFUNCTYPE(ctypes.c_uint, number, ctypes.POINTER(pointer), ctypes.POINTER(number))(addresses[0])
    display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(addresses[1])
    devices, count = (pointer * 16)(), number()
    if not query(len(devices), devices, ctypes.byref(count)):
        return ()
    displays = [display(EGL_PLATFORM_DEVICE, device, None) for device in devices[: count.value]]
    return tuple(bool(one and egl.eglInitialize(one, None, None)) for one in displays)


def _works(backend: str) -> bool:
    if backend == "egl":
        return any(egl_devices())
    if backend == "osmesa":
        return ctypes.util.find_library("OSMesa") is not None
    return True


def guard() -> None:
    """Turn drawing off where `MUJOCO_GL` names a library that cannot be loaded.

    Without this, `import torchrl` and `import dm_control` raise AttributeError.
    """
    global _replaced
    asked = os.environ.get("MUJOCO_GL", "").lower()
    if asked in PACKAGES and sys.platform == "linux" and not _works(asked):
        _replaced = asked
        os.environ["MUJOCO_GL"] = "disabled"


def prepare() -> None:
    """Choose `MUJOCO_GL` where the user did not: EGL, the display, OSMesa, or no drawing at all."""
    guard()
    if "MUJOCO_GL" not in os.environ and sys.platform == "linux":
        if _works("egl"):
            os.environ["MUJOCO_GL"] = "egl"
        elif not os.environ.get("DISPLAY"):
            os.environ["MUJOCO_GL"] = "osmesa" if _works("osmesa") else "disabled"
    if os.environ.get("MUJOCO_GL", "").lower() == "egl":
        _choose_device()


def _choose_device() -> None:
    """Give each local rank the GPU it computes on, for drawing too.

    EGL does not know CUDA_VISIBLE_DEVICES, so the rank's entry in it is the device.
    """
    rank = os.environ.get("LOCAL_RANK", "")
    if "MUJOCO_EGL_DEVICE_ID" in os.environ or not rank.isdigit():
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = visible.split(",") if visible else [str(index) for index in range(len(egl_devices()))]
    device = ids[int(rank) % len(ids)].strip() if ids else ""
    usable = egl_devices()
    if sum(usable) > 1 and device.isdigit() and int(device) < len(usable) and usable[int(device)]:
        os.environ["MUJOCO_EGL_DEVICE_ID"] = device


def rendering_problem() -> str | None:
    """Why MuJoCo cannot draw in this process and what to type, or None where it can."""
    prepare()
    chosen = _imported() or os.environ.get("MUJOCO_GL", "").lower()
    if chosen in PACKAGES:
        return None
    if chosen not in OFF and (sys.platform != "linux" or os.environ.get("DISPLAY")):
        return None
    if _replaced:
        return f"MUJOCO_GL={_replaced} was asked for and its library cannot be used; {_advice(_replaced)}"
    found = next((backend for backend in PACKAGES if _works(backend)), None)
    if found is None:
        return f"no OpenGL library was found; {_advice('egl')}, or {_advice('osmesa')}"
    state = "turns drawing off" if chosen in OFF else "needs a display and there is none"
    return f"MUJOCO_GL={chosen or 'glfw'} {state}; set MUJOCO_GL={found} before Python starts"


def _imported() -> str | None:
    """What dm_control has drawn with since its import; it never looks at the variable again."""
    module = sys.modules.get("dm_control._render")
    if module is None:
        return None
    return str(getattr(module, "BACKEND", None) or "disabled")


def _advice(backend: str) -> str:
    return f"type `apt-get install {PACKAGES[backend]}` and set MUJOCO_GL={backend}"
