# Warnings are errors, for our code and in every preset; sanitizers and fuzzing are chosen by presets.
option(VSWITCH_WERROR "Treat warnings as errors" ON)
set(VSWITCH_SANITIZE "" CACHE STRING "Sanitizers: empty, 'address,undefined' or 'thread'")
option(VSWITCH_FUZZ "Build the libFuzzer targets (clang only)" OFF)

add_library(vswitch_flags INTERFACE)
target_include_directories(vswitch_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(vswitch_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms of g++ 12 about std::string at -O3: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105651 and id=105562
  target_compile_options(vswitch_flags INTERFACE $<$<CONFIG:Release>:-Wno-restrict> $<$<CONFIG:Release>:-Wno-maybe-uninitialized>)
endif()
if(VSWITCH_WERROR)
  target_compile_options(vswitch_flags INTERFACE -Werror)
endif()
if(VSWITCH_SANITIZE)
  target_compile_options(vswitch_flags INTERFACE -fsanitize=${VSWITCH_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(vswitch_flags INTERFACE -fsanitize=${VSWITCH_SANITIZE})
endif()
if(VSWITCH_SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ warns that TSan does not model fences: ours order flags that are atomic in themselves, no data hangs on them.
  target_compile_options(vswitch_flags INTERFACE -Wno-tsan)
endif()
if(VSWITCH_FUZZ)
  target_compile_options(vswitch_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# vswitch_library(name SOURCES... LINK...): a static library of this repository with the house flags.
function(vswitch_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${name} PUBLIC vswitch_flags ${arg_LINK})
endfunction()
