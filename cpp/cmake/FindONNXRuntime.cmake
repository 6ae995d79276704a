# Finds the C and C++ headers of ONNX Runtime. Headers only: the library is the one inside the
# installed onnxruntime wheel, opened at run time, so nothing is linked here.
#
# Looks in this order and takes the first that has onnxruntime_cxx_api.h:
#   1. -DONNXRUNTIME_INCLUDE_DIR=DIR         (wrong is an error, not a reason to look further)
#   2. the system's libonnxruntime-dev
#   3. .deps/onnxruntime/include, which tools/bootstrap fills
#
# Defines the imported target ONNXRuntime::headers and ONNXRuntime_API_VERSION.

set(_onnxruntime_minimum_api 21)

set(ONNXRUNTIME_INCLUDE_DIR "" CACHE PATH
    "Folder of onnxruntime_cxx_api.h; empty: the system's, else what tools/bootstrap put aside")

# The folder that holds the headers below `dir`: packages differ in how deep they nest them.
function(_onnxruntime_headers_below out dir)
  set(${out} "" PARENT_SCOPE)
  foreach(nested IN ITEMS "" /onnxruntime /onnxruntime/core/session /core/session)
    if(EXISTS "${dir}${nested}/onnxruntime_cxx_api.h" AND EXISTS "${dir}${nested}/onnxruntime_c_api.h")
      set(${out} "${dir}${nested}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

function(_onnxruntime_api_version out dir)
  file(STRINGS "${dir}/onnxruntime_c_api.h" line REGEX "^#define ORT_API_VERSION [0-9]+" LIMIT_COUNT 1)
  string(REGEX REPLACE "^#define ORT_API_VERSION ([0-9]+).*" "\\1" version "${line}")
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

set(_onnxruntime_include "")
set(_onnxruntime_too_old "")
if(ONNXRUNTIME_INCLUDE_DIR)
  _onnxruntime_headers_below(_onnxruntime_include "${ONNXRUNTIME_INCLUDE_DIR}")
  if(NOT _onnxruntime_include)
    message(FATAL_ERROR
      "ONNXRUNTIME_INCLUDE_DIR: expected a folder with onnxruntime_cxx_api.h, "
      "found ${ONNXRUNTIME_INCLUDE_DIR}")
  endif()
  _onnxruntime_api_version(ONNXRuntime_API_VERSION "${_onnxruntime_include}")
  if(ONNXRuntime_API_VERSION LESS _onnxruntime_minimum_api)
    message(FATAL_ERROR
      "ONNXRUNTIME_INCLUDE_DIR: expected headers of API ${_onnxruntime_minimum_api} or newer, "
      "found API ${ONNXRuntime_API_VERSION} in ${_onnxruntime_include}")
  endif()
else()
  foreach(_dir IN ITEMS /usr/include /usr/local/include "${PROJECT_SOURCE_DIR}/.deps/onnxruntime/include")
    _onnxruntime_headers_below(_candidate "${_dir}")
    if(_candidate)
      _onnxruntime_api_version(_version "${_candidate}")
      if(_version LESS _onnxruntime_minimum_api)
        list(APPEND _onnxruntime_too_old "${_candidate} (API ${_version})")
      else()
        set(_onnxruntime_include "${_candidate}")
        set(ONNXRuntime_API_VERSION "${_version}")
        break()
      endif()
    endif()
  endforeach()
endif()

if(_onnxruntime_too_old AND NOT _onnxruntime_include)
  set(_onnxruntime_hint " Too old: ${_onnxruntime_too_old}.")
else()
  set(_onnxruntime_hint "")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ONNXRuntime
  REQUIRED_VARS _onnxruntime_include
  VERSION_VAR ONNXRuntime_API_VERSION
  REASON_FAILURE_MESSAGE "No headers of API ${_onnxruntime_minimum_api} or newer.${_onnxruntime_hint} Run \
tools/bootstrap, which puts them aside in .deps/onnxruntime, or pass -DONNXRUNTIME_INCLUDE_DIR=DIR.")

if(ONNXRuntime_FOUND AND NOT TARGET ONNXRuntime::headers)
  add_library(ONNXRuntime::headers INTERFACE IMPORTED)
  # An imported target's include folders are system folders: its warnings are not ours.
  set_target_properties(ONNXRuntime::headers PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_onnxruntime_include}")
endif()
