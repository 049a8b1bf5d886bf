/** @file slabs.h
 *  Crops of a field in the order of their anchors, without reading the file once per crop: the
 *  planes along axis 0 that one row of crops needs are kept, and only new ones are read.
 */
#ifndef FN_DATA_SLABS_H
#define FN_DATA_SLABS_H

#include "field/field.h"

/** Planes of one field. Thread-safe. */
typedef struct fn_slab fn_slab;

/** `planes`: cells along axis 0 of a crop with its margins. *slab stays NULL when they would take
 *  more than `most` bytes, or when the crop is the field: then reading blocks is as good. */
fn_status fn_slab_create(const fn_field_info *info, const int64_t *extent, size_t most,
                         fn_slab **slab);
void fn_slab_destroy(fn_slab *slab);

/** As fn_field_read(), through the slab. `key` names the field (file and sample); another key, or
 *  planes further on, move the slab; planes before it are read from the file. */
fn_status fn_slab_read(fn_slab *slab, fn_field *field, int64_t key, int64_t sample,
                       const int64_t *start, const int64_t *extent, float *out);

/** Planes read from files so far, those read past the slab included. */
int64_t fn_slab_planes_read(fn_slab *slab);

#endif
