/** @file builtin.h
 *  The networks and losses that come with fieldnet.
 */
#ifndef FN_MODELS_BUILTIN_H
#define FN_MODELS_BUILTIN_H

#include <fieldnet/network.h>

extern const fn_network fn_network_unet;
extern const fn_network fn_network_vnet;
extern const fn_network fn_network_racoon;
extern const fn_network fn_network_penguin;
extern const fn_network fn_network_o3;

extern const fn_loss fn_loss_mse;
extern const fn_loss fn_loss_l1;
extern const fn_loss fn_loss_huber;
extern const fn_loss fn_loss_bce_with_logits;
extern const fn_loss fn_loss_cross_entropy;

/** Network spelled in YAML (`model.layers`); see docs/networks.md. */
fn_value *fn_layers_build(fn_graph *graph, fn_value *x, int64_t out_channels,
                          const fn_options *layers);

#endif
