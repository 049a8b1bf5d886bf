/* Networks and losses by name: the built-in ones, and those a plug-in library registers. */
#include <dlfcn.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "models/builtin.h"
#include "models/models.h"

enum { MOST = 64 };

static struct {
  const fn_network *network[MOST];
  const fn_loss *loss[MOST];
  int network_count, loss_count;
  char plugin[4096]; /**< the library loaded last */
} registry;

static void add_builtin(void) {
  if (registry.network_count > 0) return;
  const fn_network *networks[] = {&fn_network_unet, &fn_network_vnet, &fn_network_racoon,
                                  &fn_network_penguin, &fn_network_o3};
  const fn_loss *losses[] = {&fn_loss_mse, &fn_loss_l1, &fn_loss_huber, &fn_loss_bce_with_logits,
                             &fn_loss_cross_entropy};
  for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++)
    registry.network[registry.network_count++] = networks[i];
  for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++)
    registry.loss[registry.loss_count++] = losses[i];
}

fn_status fn_register_network(const fn_network *network) {
  add_builtin();
  FN_CHECK(registry.network_count < MOST, FN_ERR_CONFIG, "more than %d networks", MOST);
  for (int i = 0; i < registry.network_count; i++)
    FN_CHECK(strcmp(registry.network[i]->name, network->name) != 0, FN_ERR_CONFIG,
             "a network called '%s' exists already", network->name);
  registry.network[registry.network_count++] = network;
  return FN_OK;
}

fn_status fn_register_loss(const fn_loss *loss) {
  add_builtin();
  FN_CHECK(registry.loss_count < MOST, FN_ERR_CONFIG, "more than %d losses", MOST);
  for (int i = 0; i < registry.loss_count; i++)
    FN_CHECK(strcmp(registry.loss[i]->name, loss->name) != 0, FN_ERR_CONFIG,
             "a loss called '%s' exists already", loss->name);
  registry.loss[registry.loss_count++] = loss;
  return FN_OK;
}

/** "unknown <kind> 'x'; did you mean 'y'?", or the whole list when nothing is near. */
static fn_status unknown(const char *kind, const char *name, const char *const *names, int count) {
  const char *closest = fn_text_closest(name, names, count);
  if (closest) FN_FAIL(FN_ERR_CONFIG, "unknown %s '%s'; did you mean '%s'?", kind, name, closest);
  fn_text list = {0};
  for (int i = 0; i < count; i++)
    fn_text_add(&list, "%s%s", i ? ", " : "", names[i]);
  const fn_status status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                                        "unknown %s '%s'; known are: %s", kind, name, list.data);
  fn_text_free(&list);
  return status;
}

fn_status fn_network_find(const char *name, const fn_network **network) {
  add_builtin();
  const char *names[MOST];
  for (int i = 0; i < registry.network_count; i++) {
    names[i] = registry.network[i]->name;
    if (strcmp(names[i], name) != 0) continue;
    *network = registry.network[i];
    return FN_OK;
  }
  return unknown("network", name, names, registry.network_count);
}

fn_status fn_loss_find(const char *name, const fn_loss **loss) {
  add_builtin();
  const char *names[MOST];
  for (int i = 0; i < registry.loss_count; i++) {
    names[i] = registry.loss[i]->name;
    if (strcmp(names[i], name) != 0) continue;
    *loss = registry.loss[i];
    return FN_OK;
  }
  return unknown("loss", name, names, registry.loss_count);
}

fn_status fn_plugin_load(const char *path) {
  add_builtin();
  if (strcmp(registry.plugin, path) == 0) return FN_OK;
  FN_CHECK(!registry.plugin[0], FN_ERR_CONFIG, "only one plug-in per run: %s is loaded already",
           registry.plugin);
  FN_CHECK(strlen(path) < sizeof registry.plugin, FN_ERR_CONFIG, "plug-in path too long");
  // A bare file name would be searched in the system's library path, not beside the run.
  char local[4100];
  memcpy(local, strchr(path, '/') ? "" : "./", strchr(path, '/') ? 1 : 3);
  strcat(local, path);
  void *library = dlopen(local, RTLD_NOW | RTLD_LOCAL);
  FN_CHECK(library, FN_ERR_CONFIG, "cannot load plug-in: %s", dlerror());
  void *symbol = dlsym(library, FN_PLUGIN_SYMBOL);
  FN_CHECK(symbol, FN_ERR_CONFIG, "plug-in %s does not export %s()", path, FN_PLUGIN_SYMBOL);
  fn_plugin_register entry;
  memcpy(&entry, &symbol, sizeof entry); // ISO C has no cast from object to function pointer
  FN_TRY(fn_error_context(entry(), "plug-in %s", path));
  strcpy(registry.plugin, path);
  return FN_OK;
}
