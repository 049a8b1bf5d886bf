/* The kernels, to be included with FN_GPU_KERNEL(name, phases, shared bytes of a block) defined:
 * arguments are fn_NAME_args, the body is fn_NAME_body. No guard: included several times. */
FN_GPU_KERNEL(fill, 1, 0)
