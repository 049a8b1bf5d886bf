# Every library fieldnet stands on, behind one target: fieldnet_dependencies. All are looked for
# before the first complaint, so that one run names everything that is missing.
include(GNUInstallDirs)
find_package(PkgConfig REQUIRED)
set(FIELDNET_DEPS ${CMAKE_SOURCE_DIR}/build/deps CACHE PATH "Where tools/setup puts what the system lacks")

add_library(fieldnet_dependencies INTERFACE)
set(missing "")

function(need target what packages)
  if(TARGET ${target})
    target_link_libraries(fieldnet_dependencies INTERFACE ${target})
  else()
    set(missing "${missing}\n  ${what}: install ${packages}" PARENT_SCOPE)
  endif()
endfunction()

find_package(Threads REQUIRED)
target_link_libraries(fieldnet_dependencies INTERFACE Threads::Threads m ${CMAKE_DL_LIBS})

find_package(OpenMP QUIET COMPONENTS C)
need(OpenMP::OpenMP_C "OpenMP" "gcc (libgomp)")

find_package(MPI QUIET COMPONENTS C)
need(MPI::MPI_C "MPI (any MPI-3)" "libopenmpi-dev openmpi-bin")

pkg_check_modules(YAML QUIET IMPORTED_TARGET yaml-0.1)
need(PkgConfig::YAML "libyaml" "libyaml-dev")
pkg_check_modules(CAIRO QUIET IMPORTED_TARGET cairo)
need(PkgConfig::CAIRO "cairo" "libcairo2-dev")
pkg_check_modules(FFTW QUIET IMPORTED_TARGET fftw3)
need(PkgConfig::FFTW "FFTW 3" "libfftw3-dev")
pkg_check_modules(PROTOBUFC QUIET IMPORTED_TARGET libprotobuf-c)
need(PkgConfig::PROTOBUFC "protobuf-c" "libprotobuf-c-dev protobuf-c-compiler")
find_program(PROTOC_C NAMES protoc-c protoc)
if(NOT PROTOC_C)
  set(missing "${missing}\n  protoc-c: install protobuf-c-compiler")
endif()
find_package(ZLIB QUIET)
need(ZLIB::ZLIB "zlib" "zlib1g-dev")

# Parallel HDF5: Debian names its pkg-config file hdf5-openmpi, others plain hdf5.
pkg_search_module(HDF5 QUIET IMPORTED_TARGET hdf5-openmpi hdf5-mpich hdf5-mpi hdf5)
if(TARGET PkgConfig::HDF5 AND TARGET MPI::MPI_C)
  include(CheckSymbolExists)
  set(CMAKE_REQUIRED_INCLUDES ${HDF5_INCLUDE_DIRS} ${MPI_C_INCLUDE_DIRS})
  set(CMAKE_REQUIRED_LIBRARIES ${HDF5_LINK_LIBRARIES} MPI::MPI_C)
  check_symbol_exists(H5Pset_fapl_mpio "hdf5.h" HDF5_IS_PARALLEL)
  unset(CMAKE_REQUIRED_INCLUDES)
  unset(CMAKE_REQUIRED_LIBRARIES)
  if(HDF5_IS_PARALLEL)
    target_link_libraries(fieldnet_dependencies INTERFACE PkgConfig::HDF5)
    # One meaning of versioned names (H5Ovisit) in 1.10, 1.12 and 1.14.
    target_compile_definitions(fieldnet_dependencies INTERFACE H5_USE_110_API)
  else()
    set(missing "${missing}\n  HDF5 was found without MPI support: install libhdf5-openmpi-dev")
  endif()
else()
  set(missing "${missing}\n  parallel HDF5: install libhdf5-openmpi-dev")
endif()

# oneDNN >= 3: the system's, else the wheel that tools/setup unpacked.
find_package(dnnl 3 QUIET CONFIG HINTS ${FIELDNET_DEPS}/onednn/lib/cmake)
if(NOT TARGET DNNL::dnnl AND EXISTS ${FIELDNET_DEPS}/onednn/include/dnnl.h)
  add_library(DNNL::dnnl SHARED IMPORTED)
  set_target_properties(DNNL::dnnl PROPERTIES
    IMPORTED_LOCATION ${FIELDNET_DEPS}/onednn/lib/libdnnl.so.3
    INTERFACE_INCLUDE_DIRECTORIES ${FIELDNET_DEPS}/onednn/include)
endif()
need(DNNL::dnnl "oneDNN >= 3" "a newer libdnnl-dev, or run tools/setup, which unpacks the onednn-devel-cpu-gomp wheel")

if(missing)
  message(FATAL_ERROR "fieldnet needs libraries that were not found (tools/setup installs them on Debian and Ubuntu):${missing}")
endif()
