"""Models on this machine: what they are, where their weights lie, and that the two belong together.

Importing any module of this package loads neither torch nor safetensors, h5py or huggingface_hub.
"""
