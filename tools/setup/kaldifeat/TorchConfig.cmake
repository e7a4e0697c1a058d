# Stands in for torch's own TorchConfig.cmake while kaldifeat is built (passed as Torch_DIR).
#
# The wheel of torch 1.13.1 on PyPI is a CUDA build, whose CMake package insists on a CUDA toolkit.
# kaldifeat has no CUDA code of its own, so the three libraries below are all it links against.
#
# Input:  TORCH_DIR, folder of the installed torch package (set by kaldifeat's cmake/torch.cmake).
# Output: target `torch` and the variables that kaldifeat reads.
if(NOT EXISTS "${TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "TORCH_DIR must hold lib/libtorch_cpu.so, but is '${TORCH_DIR}'")
endif()

set(TORCH_INCLUDE_DIRS "${TORCH_DIR}/include" "${TORCH_DIR}/include/torch/csrc/api/include")

# PyPI's torch 1.x wheels are compiled with the C++ ABI from before GCC 5; kaldifeat has to match.
set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")

# --no-as-needed: some linkers would else drop libtorch, whose symbols all live in libtorch_cpu.
add_library(torch INTERFACE IMPORTED GLOBAL)
target_include_directories(torch INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(
  torch
  INTERFACE "-Wl,--no-as-needed"
            "${TORCH_DIR}/lib/libtorch.so"
            "${TORCH_DIR}/lib/libtorch_cpu.so"
            "${TORCH_DIR}/lib/libc10.so"
)

set(TORCH_FOUND TRUE)
set(TORCH_LIBRARIES torch)
set(TORCH_LIBRARY "${TORCH_DIR}/lib/libtorch.so")
find_library(TORCH_PYTHON_LIBRARY torch_python PATHS "${TORCH_DIR}/lib" NO_DEFAULT_PATH)
