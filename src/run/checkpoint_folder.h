/** @file checkpoint_folder.h
 *  Names in a run folder: states, links, temporary files.
 */
#ifndef FN_RUN_CHECKPOINT_FOLDER_H
#define FN_RUN_CHECKPOINT_FOLDER_H

#include <fieldnet/fieldnet.h>

/** Index i of a name "state_<i>.h5", or -1. */
int64_t fn_state_index(const char *name);
/** Remove what killed saves left in the folder: state_<i>.h5.<pid>.tmp and <link>.<pid>.tmp.
 *  Whoever calls it holds the folder's lock (folder_lock.h): then every such writer is dead. */
void fn_remove_leftovers(const char *folder);
/** Epochs completed by a state written at the end of an epoch; -1: written inside one; -2: cannot
 *  be read. Takes the HDF5 lock. */
int64_t fn_state_whole_epoch(const char *path);

#endif
