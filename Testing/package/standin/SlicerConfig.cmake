# Stands in for the SlicerConfig.cmake of an installed Slicer: what the extension's CMake files use
# of it, with Slicer's layout of an installed package. Nothing is compiled and no Slicer is needed.
set(Slicer_FOUND TRUE)
set(Slicer_VERSION 5.12)
set(Slicer_USE_PYTHONQT ON)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-${Slicer_VERSION}/qt-scripted-modules")
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/GenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/ExtensionCPack.cmake")
option(BUILD_TESTING "Register the tests" ON)
