/** @file algorithms.h
 *  What was found to be the fastest engine for a shape, in memory and on disk.
 *
 *  The file has a line per shape: key, engine, knobs. Ranks and runs share it: lines are appended
 *  under a lock, and the first line of a key counts, so that all ranks choose alike.
 */
#ifndef FN_BACKEND_CUDA_ALGORITHMS_H
#define FN_BACKEND_CUDA_ALGORITHMS_H

#include <fieldnet/fieldnet.h>

enum { FN_ALGORITHM_KNOBS = 24 };

/** An engine of cuDNN with its settings. */
typedef struct fn_algorithm {
  int64_t engine;
  int knobs;
  int64_t type[FN_ALGORITHM_KNOBS], value[FN_ALGORITHM_KNOBS];
} fn_algorithm;

typedef struct fn_algorithms fn_algorithms;

/** folder: NULL keeps all in memory. A folder that cannot be made or read is no error. */
fn_status fn_algorithms_open(const char *folder, fn_algorithms **algorithms);
void fn_algorithms_close(fn_algorithms *algorithms);
/** false: not known. Keys have no tabs and no line ends. */
bool fn_algorithms_find(const fn_algorithms *algorithms, const char *key, fn_algorithm *algorithm);
/** Remember; when another process was first, *algorithm becomes what it found. */
fn_status fn_algorithms_add(fn_algorithms *algorithms, const char *key, fn_algorithm *algorithm);

#endif
