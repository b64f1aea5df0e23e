# Slicer writes the extension's catalogue entry here; so does this, as `key=value` lines.
set(entry "NAME=${PROJECT_NAME}\n")
foreach(key IN ITEMS HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${key})
    message(FATAL_ERROR "EXTENSION_${key} is not set")
  endif()
  string(APPEND entry "${key}=${EXTENSION_${key}}\n")
endforeach()
file(WRITE "${CMAKE_BINARY_DIR}/catalogue-entry.txt" "${entry}")
