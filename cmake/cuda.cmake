# The cuda backend: built where the CUDA toolkit (12 or newer) and cuDNN 9 are installed, else
# replaced by src/backend/cuda/absent.c. The CUDA runtime is linked statically and looks for the
# driver when a device is opened; cuDNN and cuBLASLt are opened then too. So a build made with CUDA
# runs where no library of NVIDIA's is installed.
#
# Sets FIELDNET_HAS_CUDA and the target fieldnet_cuda; appends to `sources`.
set(FIELDNET_CUDA AUTO CACHE STRING "Build the cuda backend: ON, OFF, or AUTO (where the toolkit and cuDNN 9 are found)")
set_property(CACHE FIELDNET_CUDA PROPERTY STRINGS AUTO ON OFF)
set(FIELDNET_HAS_CUDA OFF)
set(cuda_missing "")

if(FIELDNET_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # Code for A100 and H100; PTX of the latter, which the driver compiles for anything newer.
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90")
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit 12 QUIET)
  endif()
  if(NOT TARGET CUDA::cudart_static)
    set(cuda_missing "the CUDA toolkit 12 or newer (nvcc in PATH, or -DCMAKE_CUDA_COMPILER=)")
  else()
    # pip's packages of NVIDIA's libraries, those of PyTorch say: no links without a version there
    string(REGEX MATCH "^[0-9]+" cuda_major ${CUDAToolkit_VERSION})
    set(cuda_wheels "")
    find_program(cuda_python NAMES python3 python)
    if(cuda_python)
      execute_process(COMMAND ${cuda_python} -c "import importlib.util as u; s = u.find_spec('nvidia')
print(';'.join(s.submodule_search_locations) if s else '', end='')" OUTPUT_VARIABLE cuda_wheels ERROR_QUIET)
    endif()
    list(TRANSFORM cuda_wheels APPEND /cudnn OUTPUT_VARIABLE cudnn_wheels)
    list(TRANSFORM cuda_wheels APPEND /cu${cuda_major} OUTPUT_VARIABLE cublas_wheels)
    foreach(folder ${cuda_wheels})
      list(APPEND cublas_wheels ${folder}/cublas)
    endforeach()
    find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDNN_ROOT} $ENV{CUDNN_ROOT} $ENV{CUDNN_HOME}
              ${CUDAToolkit_INCLUDE_DIRS} PATHS ${cudnn_wheels} PATH_SUFFIXES include DOC "Folder of cudnn.h")
    find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDNN_ROOT} $ENV{CUDNN_ROOT} $ENV{CUDNN_HOME}
                 ${CUDAToolkit_LIBRARY_DIR} PATHS ${cudnn_wheels} PATH_SUFFIXES lib lib64 DOC "libcudnn.so")
    find_library(CUBLASLT_LIBRARY NAMES cublasLt libcublasLt.so.${cuda_major} HINTS ${CUDAToolkit_LIBRARY_DIR}
                 PATHS ${cublas_wheels} PATH_SUFFIXES lib lib64 DOC "libcublasLt.so")
    find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${cublas_wheels}
              PATH_SUFFIXES include DOC "Folder of cublasLt.h")
    find_path(NVTX_INCLUDE_DIR nvtx3/nvToolsExt.h HINTS ${CUDAToolkit_INCLUDE_DIRS}
              PATHS ${cublas_wheels} PATH_SUFFIXES include DOC "Folder of nvtx3")
    set(cudnn_major 0)
    if(CUDNN_INCLUDE_DIR AND EXISTS ${CUDNN_INCLUDE_DIR}/cudnn_version.h)
      file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h line REGEX "define CUDNN_MAJOR +[0-9]+")
      string(REGEX MATCH "[0-9]+" cudnn_major "${line}")
    endif()
    if(cudnn_major LESS 9)
      set(cuda_missing "cuDNN 9 (cudnn.h; -DCUDNN_ROOT= says where)")
    elseif(NOT CUBLASLT_INCLUDE_DIR)
      set(cuda_missing "cuBLASLt (cublasLt.h; -DCUBLASLT_INCLUDE_DIR= says where)")
    elseif(NOT NVTX_INCLUDE_DIR)
      set(cuda_missing "NVTX (nvtx3/nvToolsExt.h; -DNVTX_INCLUDE_DIR= says where)")
    endif()
  endif()
  if(NOT cuda_missing)
    set(FIELDNET_HAS_CUDA ON)
  elseif(NOT FIELDNET_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "FIELDNET_CUDA is ON but there is no ${cuda_missing}")
  endif()
endif()

if(FIELDNET_HAS_CUDA)
  message(STATUS "cuda backend: CUDA ${CUDAToolkit_VERSION}, cuDNN ${cudnn_major}, for ${CMAKE_CUDA_ARCHITECTURES}")
  list(REMOVE_ITEM sources ${CMAKE_SOURCE_DIR}/src/backend/cuda/absent.c)
  file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cu)
  list(APPEND sources ${cuda_sources})
  add_library(fieldnet_cuda INTERFACE)
  target_include_directories(fieldnet_cuda SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${CUDNN_INCLUDE_DIR}
                             ${CUBLASLT_INCLUDE_DIR} ${NVTX_INCLUDE_DIR})
  target_link_libraries(fieldnet_cuda INTERFACE CUDA::cudart_static)
  target_link_options(fieldnet_cuda INTERFACE -Wl,--exclude-libs,libcudart_static.a)
  # Looked for last, after the usual places of the dynamic loader.
  if(CUDNN_LIBRARY)
    get_filename_component(cudnn_folder ${CUDNN_LIBRARY} DIRECTORY)
  endif()
  if(CUBLASLT_LIBRARY)
    get_filename_component(cublaslt_folder ${CUBLASLT_LIBRARY} DIRECTORY)
  endif()
  target_compile_definitions(fieldnet_cuda INTERFACE
    $<$<COMPILE_LANGUAGE:C>:FIELDNET_CUDNN_FOLDER="${cudnn_folder}"
    FIELDNET_CUBLASLT_FOLDER="${cublaslt_folder}">)
  target_compile_options(fieldnet_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra -Xptxas=--warn-on-spills
    $<$<BOOL:${FIELDNET_WERROR}>:-Werror=all-warnings -Xcompiler=-Werror>>)
else()
  if(cuda_missing)
    message(STATUS "cuda backend: left out, there is no ${cuda_missing}")
  endif()
  list(FILTER sources EXCLUDE REGEX "/src/backend/cuda/")
  list(APPEND sources ${CMAKE_SOURCE_DIR}/src/backend/cuda/absent.c)
endif()
