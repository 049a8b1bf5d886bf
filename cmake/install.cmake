include(GNUInstallDirs)

# The library finds oneDNN beside itself, and what was found outside system paths where it was.
set_target_properties(fieldnet PROPERTIES INSTALL_RPATH "$ORIGIN" INSTALL_RPATH_USE_LINK_PATH ON)
set_target_properties(fieldnet_program PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)

install(TARGETS fieldnet fieldnet_program
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/fieldnet DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# oneDNN from the build tree goes with the library; the system's stays where it is.
if(EXISTS ${FIELDNET_DEPS}/onednn/lib)
  get_target_property(onednn_library DNNL::dnnl IMPORTED_LOCATION)
  if(NOT onednn_library)
    get_target_property(onednn_library DNNL::dnnl IMPORTED_LOCATION_RELEASE)
  endif()
  cmake_path(IS_PREFIX FIELDNET_DEPS "${onednn_library}" NORMALIZE onednn_is_ours)
  if(onednn_is_ours)
    # The wheel has copies in place of links: one file under the name that programs ask for.
    install(FILES ${onednn_library} DESTINATION ${CMAKE_INSTALL_LIBDIR} RENAME libdnnl.so.3)
  endif()
endif()

# Manual page and completion are printed by the program itself.
set(documents ${CMAKE_BINARY_DIR}/documents)
file(MAKE_DIRECTORY ${documents})
add_custom_command(OUTPUT ${documents}/fieldnet.1 ${documents}/fieldnet.bash
  COMMAND ${CMAKE_COMMAND} -E env ASAN_OPTIONS=detect_leaks=0
          $<TARGET_FILE:fieldnet_program> help --man > ${documents}/fieldnet.1
  COMMAND ${CMAKE_COMMAND} -E env ASAN_OPTIONS=detect_leaks=0
          $<TARGET_FILE:fieldnet_program> help --completion > ${documents}/fieldnet.bash
  DEPENDS fieldnet_program fieldnet VERBATIM)
add_custom_target(fieldnet_documents ALL DEPENDS ${documents}/fieldnet.1 ${documents}/fieldnet.bash)
install(FILES ${documents}/fieldnet.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${documents}/fieldnet.bash
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME fieldnet)

# The pkg-config file finds its prefix from where it lies, so that any --prefix will do.
set(pkgconfig ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH FIELDNET_PC_PREFIX /prefix/${pkgconfig} /prefix)
configure_file(${CMAKE_SOURCE_DIR}/cmake/fieldnet.pc.in ${CMAKE_BINARY_DIR}/fieldnet.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/fieldnet.pc DESTINATION ${pkgconfig})
