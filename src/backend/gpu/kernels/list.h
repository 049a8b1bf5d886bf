/* The kernels, to be included with FN_GPU_KERNEL(name, phases, shared bytes of a block) defined:
 * arguments are fn_NAME_args, the body is fn_NAME_body. No guard: included several times. */
FN_GPU_KERNEL(fill, 1, 0)
FN_GPU_KERNEL(swap_axes, 1, 0)
FN_GPU_KERNEL(finish, 1, 0)
FN_GPU_KERNEL(cell_sums, 2, FN_GPU_THREADS * 4)
FN_GPU_KERNEL(column_sums, 2, FN_GPU_THREADS * 4)
FN_GPU_KERNEL(conv_forward, 1, 0)
FN_GPU_KERNEL(conv_backward, 1, 0)
FN_GPU_KERNEL(conv_filter, 2, FN_GPU_THREADS * 4)
