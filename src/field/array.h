/** @file array.h
 *  An n-dimensional array on disk, whatever its format: what field.c builds fields from.
 */
#ifndef FN_FIELD_ARRAY_H
#define FN_FIELD_ARRAY_H

#include "field/field.h"

enum { FN_ARRAY_DIMS = FN_MAX_DIMS + 2 }; /**< sample, channel, spatial axes */

typedef struct fn_array fn_array;
struct fn_array {
  int ndim;
  int64_t dim[FN_ARRAY_DIMS];
  char type[16]; /**< as numpy writes it, e.g. "<f4" */
  bool fortran;
  int64_t bytes; /**< of the values on disk */
  /** Read extent[ndim] cells from start[ndim], every axis periodic, as float32 in C order. */
  fn_status (*read)(fn_array *array, const int64_t *start, const int64_t *extent, float *out);
  fn_raw_type raw; /**< what read_raw hands out; FN_RAW_NONE: it cannot */
  /** The same without converting numbers, in the byte order of the machine. */
  fn_status (*read_raw)(fn_array *array, const int64_t *start, const int64_t *extent, void *out);
  void (*close)(fn_array *array);
  void (*forget)(fn_array *array); /**< see fn_field_forget(); may be NULL */
};

/** The file is mapped, not read. A file that shrinks or cannot be read any more makes the read fail
 *  with FN_ERR_DATA; a SIGBUS handler, installed here, sees to it. Threads that read
 *  must not block SIGBUS. */
fn_status fn_npy_open(const char *path, fn_array **array);
/** dataset "" stands for the only one of the file. Takes the HDF5 lock. */
fn_status fn_hdf5_open(const char *file, const char *dataset, fn_array **array);

/** Names of all numeric and other datasets of the file, "/group/name", sorted bytewise.
 *  Takes the HDF5 lock. */
fn_status fn_hdf5_list(const char *file, fn_arena *arena, const char ***names, int *count);

/** Position in the path of the ':' between HDF5 file and dataset, or -1: the last one after a file
 *  name ending in .h5 or .hdf5. */
int fn_dataset_colon(const char *path);

/** Which file a path named when it was opened, and how many bytes of it are needed. */
typedef struct fn_file_mark {
  uint64_t device, inode;
  int64_t bytes;
} fn_file_mark;

/** FN_ERR_DATA when the file is still there but shorter than the mark says. Readers ask after
 *  reading: what is missing reads as zeros, in a mapped page as in HDF5. A file moved or replaced
 *  is no failure, the old one stays whole for who has it open. */
fn_status fn_file_check_mark(const char *path, const fn_file_mark *mark);

/** Modulo with the sign of the divisor: first cell of a periodic axis. */
static inline int64_t fn_wrap(int64_t index, int64_t size) {
  const int64_t rest = index % size;
  return rest < 0 ? rest + size : rest;
}

/** "[3, 64, 64]" into text; returns text. */
char *fn_dims_text(int ndim, const int64_t *dim, char *text, size_t size);
/** Product of sizes times `item`; false when a size is negative or the product overflows. */
bool fn_dims_bytes(int ndim, const int64_t *dim, int64_t item, int64_t *bytes);

/** `count` values at `in` (any alignment) to out[0], out[stride], ... */
typedef void (*fn_convert)(const unsigned char *in, int64_t count, void *out, int64_t stride);
/** Converter to float32 for a numpy kind (b i u f), item size and byte order; NULL when there is
 *  none. */
fn_convert fn_convert_find(char kind, int item, bool swap);
/** The same for numbers that stay of their type: *type; FN_RAW_NONE and NULL when there is none. */
fn_convert fn_convert_find_raw(char kind, int item, bool swap, fn_raw_type *type);
/** Converter to float32 of numbers in the byte order of the machine; NULL for FN_RAW_NONE. */
fn_convert fn_convert_of_raw(fn_raw_type type);

/** What an npy header says. */
typedef struct fn_npy_header {
  char kind;
  int item; /**< bytes per value */
  bool swap;
  bool fortran;
  char type[16];
  int ndim;
  int64_t dim[FN_ARRAY_DIMS];
  int64_t offset; /**< of the first value in the file */
} fn_npy_header;

/** Parse the start of a file; `path` is for messages. */
fn_status fn_npy_parse(const char *path, const unsigned char *bytes, size_t count,
                       fn_npy_header *header);

#endif
