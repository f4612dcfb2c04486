"""World models that you can plan through, in PyTorch Lightning."""
