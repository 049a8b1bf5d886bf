/** @file sizes.h
 *  Sizes of a run's samples: from its data, or assumed where there are none.
 */
#ifndef FN_RUN_SIZES_H
#define FN_RUN_SIZES_H

#include "dist/dist.h"
#include "run/engine.h"

/** What a user says about sizes on the command line; zeros: nothing. */
typedef struct fn_size_options {
  bool synthetic;      /**< do not look at the data */
  int64_t edge;        /**< cells of the network's input along each axis */
  int64_t channels[2]; /**< of input and target */
  int spatial;
} fn_size_options;

/** Where sizes came from, for people: "data", or what was assumed. */
typedef struct fn_size_source {
  bool from_data;
  char text[512];
} fn_size_source;

/** Sizes of the training data (else of the test data); without data, data.crop with its pads, and 3
 *  channels unless told otherwise. With `edge`, the target takes the network's output size.
 *  Not collective. FN_ERR_CONFIG when neither data nor numbers give a size. */
fn_status fn_sizes_find(const fn_run *run, const fn_dist *dist, const fn_size_options *options,
                        fn_dataset_info *info, fn_size_source *source);

/** Samples of another stage must feed the network of the training set: the same axes and channels
 *  (a stage without targets may lack those) and, with `extents`, the same cells per sample. `key`
 *  is the other stage's setting that the message is about. FN_ERR_CONFIG. Not collective. */
fn_status fn_sizes_agree(const fn_run *run, const fn_dataset_info *train,
                         const fn_dataset_info *other, const char *key, bool extents);

#endif
