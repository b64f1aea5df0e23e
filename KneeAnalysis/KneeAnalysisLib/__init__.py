"""From a knee MRI or a label map to cartilage thickness, T2 and a table."""
