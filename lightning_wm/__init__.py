"""World models that you can plan through, in PyTorch Lightning."""

# TorchRL imports MuJoCo, which fails where MUJOCO_GL names a library that is missing: looked at first. Imports no torch.
import lightning_wm.envs  # noqa: F401
