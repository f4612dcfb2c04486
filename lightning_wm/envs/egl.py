"""The EGL devices of this machine, asked from libEGL itself: no simulator is imported for it."""

from __future__ import annotations

import ctypes
from functools import cache

PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT of EGL_EXT_platform_device


@cache
def egl_devices() -> tuple[bool, ...]:
    """For each EGL device whether it can be initialised; empty without libEGL."""
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
    displays = [display(PLATFORM_DEVICE, device, None) for device in devices[: count.value]]
    return tuple(bool(handle and egl.eglInitialize(handle, None, None)) for handle in displays)
