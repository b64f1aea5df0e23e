"""Image file formats, one module each; `MedAILib.imageio` is the way in."""
