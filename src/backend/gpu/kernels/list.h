/* The kernels, to be included with FN_GPU_KERNEL(name, phases, shared bytes of a block) defined:
 * arguments are fn_NAME_args, the body is fn_NAME_body. No guard: included several times. */
FN_GPU_KERNEL(map, 1, 0)
FN_GPU_KERNEL(map2, 1, 0)
FN_GPU_KERNEL(transpose, 2, FN_TILE_SHARED * sizeof(float))
FN_GPU_KERNEL(pad, 1, 0)
FN_GPU_KERNEL(fold_periodic, 1, 0)
