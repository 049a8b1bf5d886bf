/* Which device a process takes. */
#include "backend/gpu/gpu.h"

fn_status fn_gpu_choose_device(const fn_device_choice *choice, int devices, int *index) {
  FN_CHECK(devices > 0, FN_ERR_DEVICE, "no device is visible to this process");
  FN_CHECK(choice->share || choice->node_size <= devices, FN_ERR_DEVICE,
           "%d ranks on this node and %d device%s: start at most %d rank%s per node, or let ranks "
           "share devices with compute.share_devices: true",
           choice->node_size, devices, devices > 1 ? "s" : "", devices, devices > 1 ? "s" : "");
  *index = choice->node_rank % devices;
  return FN_OK;
}
