include(CTest)

# Installs scripts and resources below one folder that all modules share, each file at its path
# relative to its module's folder. Fails, as Slicer does, on an unknown argument or a missing file.
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: no NAME, or unknown arguments: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "${MODULE_NAME} lists a file that does not exist: ${file}")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/${folder}")
  endforeach()
endmacro()

function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  get_filename_component(name "${TEST_SCRIPT}" NAME_WE)
  add_test(NAME "py_${TEST_TESTNAME_PREFIX}${name}" COMMAND Slicer --testing ${TEST_SLICER_ARGS} "${TEST_SCRIPT}")
endfunction()
