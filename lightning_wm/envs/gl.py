"""Which OpenGL library MuJoCo draws with, decided before anything imports MuJoCo.

`MUJOCO_GL`, `PYOPENGL_PLATFORM` and `MUJOCO_EGL_DEVICE_ID` are read when mujoco
and dm_control are imported. Values that do not fit break that import even where
nothing is drawn, and without a value dm_control takes GLFW, which cannot draw
without a display. So what does not fit turns drawing off, and is named where
something is to be drawn.
"""

from __future__ import annotations

import ctypes.util
import os
import sys

from lightning_wm.envs.egl import egl_devices

OFF = ("off", "disable", "disabled", "false", "0")
GLFW = ("glfw", "glx", "on", "enable", "enabled", "true", "1")
PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}
DEVICE, PLATFORM = "MUJOCO_EGL_DEVICE_ID", "PYOPENGL_PLATFORM"

_problem: str | None = None
"""Why drawing was turned off here."""


def guard() -> None:
    """Turn drawing off where the variables do not fit this machine or each other.

    Without this, `import torchrl` and `import dm_control` raise.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if sys.platform != "linux" or chosen in OFF:
        return
    if not chosen:
        os.environ.pop("MUJOCO_GL", None)
    elif misfit := _misfit(chosen):
        turn_off(misfit)
    else:  # dm_control and Gymnasium know fewer spellings than mujoco
        os.environ["MUJOCO_GL"] = "glfw" if chosen in GLFW else chosen
        if chosen in PACKAGES and os.environ.get(PLATFORM):
            os.environ[PLATFORM] = chosen


def turn_off(reason: str) -> None:
    """Draw nothing in this process; `reason` is what whoever wants to draw is told."""
    global _problem
    _problem = reason
    os.environ["MUJOCO_GL"] = "disabled"


def prepare() -> None:
    """Choose `MUJOCO_GL` where the user did not: EGL, the display, OSMesa, or no drawing at all."""
    guard()
    if "MUJOCO_GL" not in os.environ and sys.platform == "linux":
        _choose_library()
    if os.environ.get("MUJOCO_GL", "").lower() == "egl":
        _choose_device()


def _choose_library() -> None:
    present = [library for library in PACKAGES if _works(library)]
    if "egl" in present and DEVICE in os.environ:
        present = ["egl"]  # whoever names a device of EGL's wants EGL
    misfits = {library: _misfit(library) for library in present}
    fitting = [library for library, misfit in misfits.items() if misfit is None]
    if "egl" not in fitting and _display() and DEVICE not in os.environ:
        return  # dm_control tries GLFW first
    if fitting:
        os.environ["MUJOCO_GL"] = fitting[0]
    else:
        turn_off(next(iter(misfits.values()), None) or _nothing_installed())


def _choose_device() -> None:
    """Give each local rank the GPU it computes on, for drawing too.

    EGL does not know CUDA_VISIBLE_DEVICES, so the rank's entry in it is the device.
    """
    rank = os.environ.get("LOCAL_RANK", "")
    if DEVICE in os.environ or not rank.isdigit():
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = visible.split(",") if visible else [str(index) for index in range(len(egl_devices()))]
    device = ids[int(rank) % len(ids)].strip() if ids else ""
    usable = egl_devices()
    if sum(usable) > 1 and device.isdigit() and int(device) < len(usable) and usable[int(device)]:
        os.environ[DEVICE] = device


def rendering_problem() -> str | None:
    """Why MuJoCo cannot draw in this process and what to type, or None where it can."""
    prepare()
    chosen = _imported() or os.environ.get("MUJOCO_GL", "").lower()
    if chosen in PACKAGES:
        return None
    if chosen not in OFF and (sys.platform != "linux" or _display()):
        return None
    if chosen in OFF:
        return _problem or _off_or_no_display(os.environ.get("MUJOCO_GL") or chosen)
    return _off_or_no_display(chosen)


def _off_or_no_display(chosen: str) -> str:
    present = _present()
    if present is None:
        return _nothing_installed()
    state = "turns drawing off" if chosen.lower().strip() in OFF else "needs a display and there is none"
    faults = "".join(f"; {fault}" for fault in _faults(present))
    return f"MUJOCO_GL={chosen or 'glfw'} {state}; set MUJOCO_GL={present} before Python starts{faults}"


# ---- what is there, and what does not fit


def _works(library: str) -> bool:
    if library == "egl":
        return any(egl_devices())
    return ctypes.util.find_library("OSMesa") is not None


def _present() -> str | None:
    return next((library for library in PACKAGES if _works(library)), None)


def _misfit(library: str) -> str | None:
    """Why the machine or the variables do not let MuJoCo draw with `MUJOCO_GL=library`, or None where they do."""
    if library in GLFW:
        return None if _display() else _off_or_no_display(library)
    if library not in PACKAGES:
        other = _present()
        advice = f"set MUJOCO_GL={other}" if other else _advice("egl")
        return f"MUJOCO_GL={library} is none of egl, osmesa, glfw and disabled; {advice}"
    if not _works(library):
        return f"MUJOCO_GL={library} was asked for and its library cannot be used; {_advice(library)}"
    return "; ".join(_faults(library)) or None


def _faults(library: str) -> list[str]:
    """What is wrong with the other two variables."""
    faults, platform, device = [], os.environ.get(PLATFORM, ""), os.environ.get(DEVICE)
    if platform and platform.lower() != library:
        faults.append(f"{PLATFORM}={platform} does not fit MUJOCO_GL={library}; type `unset {PLATFORM}`")
    if library == "egl" and device is not None and not _is_device(device):
        usable = ", ".join(str(index) for index, works in enumerate(egl_devices()) if works)
        faults.append(
            f"{DEVICE}={device} is no EGL device of this machine, those that work are {usable}; type `unset {DEVICE}`"
        )
    return faults


def _is_device(text: str) -> bool:
    try:
        index = int(text)
    except ValueError:
        return False
    return 0 <= index < len(egl_devices()) and egl_devices()[index]


def _display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _imported() -> str | None:
    """What dm_control has drawn with since its import; it never looks at the variable again."""
    module = sys.modules.get("dm_control._render")
    return None if module is None else str(module.BACKEND or "disabled")


def _nothing_installed() -> str:
    return f"no OpenGL library was found; {_advice('egl')}, or {_advice('osmesa')}"


def _advice(library: str) -> str:
    return f"type `apt-get install {PACKAGES[library]}` and set MUJOCO_GL={library}"
