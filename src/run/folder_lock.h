/** @file folder_lock.h
 *  One training at a time writes in a run folder.
 */
#ifndef FN_RUN_FOLDER_LOCK_H
#define FN_RUN_FOLDER_LOCK_H

#include <fieldnet/fieldnet.h>

typedef struct fn_folder_lock fn_folder_lock;

/** Make the folder if need be and lock folder/.lock, a file that tells host and process id of its
 *  holder. The kernel gives the lock back when the holder ends, however it does, also on NFS. On
 *  file systems without locks a warning is given and *lock is NULL. One rank only.
 *  @return FN_ERR_CONFIG naming the holder when another process has it; FN_ERR_CHECKPOINT when the
 *          folder cannot be written */
fn_status fn_folder_lock_take(const char *folder, fn_folder_lock **lock);
/** Remove the file, and the folders too that were made for the lock and are still empty. NULL is
 *  allowed. */
void fn_folder_lock_give(fn_folder_lock *lock);

typedef enum fn_lock_state {
  FN_LOCK_FREE,   /**< as far as this machine sees: not every file system shows others' locks */
  FN_LOCK_HELD,   /**< a process, here or on another machine, has it */
  FN_LOCK_UNKNOWN /**< the file system does not tell */
} fn_lock_state;
/** Look without touching: another process than the caller's may have the folder locked. */
fn_lock_state fn_folder_lock_look(const char *folder);

#endif
