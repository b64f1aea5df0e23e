"""The one door between the MRML scene and our values: every conversion of arrays and nodes is here.

Scene and nodes are always arguments; nothing is fetched from ``slicer``'s globals. Positions are world RAS
millimetres, so nodes under linear transforms are read and written where they are seen. What fails leaves
the scene as it was. Only faces (widgets, logics, tests) import this package; it needs ``slicer`` and ``vtk``.

- `volumes`: scalar volumes
- `segmentations`: segments, their names, tags, masks and slices; `segment_edit`: writing into them;
  `label_maps`: whole segmentations; `undo`: snapshots and history
- `tables`: tables and texts; `dicom`: where a volume came from
- `nodes`: run ids, transforms; `layers` and `lattice` are the machinery underneath
"""
