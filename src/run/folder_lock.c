/* The lock of a run folder: fcntl, because those locks reach over NFS and end with their holder. */
#include "run/folder_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"

enum { PATH_SIZE = 4096, TRIES = 10 };
static const struct timespec pause_between_tries = {.tv_nsec = 100000000};

struct fn_folder_lock {
  int file;
  size_t existed;       /**< length of the part of path that was there before */
  char path[PATH_SIZE]; /**< of the lock file; the folder is what comes before its last slash */
};

/** Remove the folders that were made for the lock and are still empty. */
static void remove_folders(fn_folder_lock *lock) {
  for (char *slash;
       (slash = strrchr(lock->path, '/')) && (size_t)(slash - lock->path) > lock->existed;) {
    *slash = '\0';
    if (rmdir(lock->path) != 0) return;
  }
}

/** Length of the longest part of the path, whole folders, that exists. */
static size_t existing_part(const char *path) {
  char part[PATH_SIZE];
  snprintf(part, sizeof part, "%s", path);
  for (char *slash; (slash = strrchr(part, '/')); *slash = '\0')
    if (fn_file_exists(part)) break;
  return fn_file_exists(part) ? strlen(part) : 0;
}

/** Whether the open file is still the one of that name: a holder that ends removes it. */
static bool is_current(const fn_folder_lock *lock) {
  struct stat open_file, named;
  return fstat(lock->file, &open_file) == 0 && stat(lock->path, &named) == 0 &&
         open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino;
}

/** One try: 0, or the reason as in errno. */
static int try_lock(fn_folder_lock *lock) {
  lock->file = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock->file < 0) return errno;
  const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  int reason = fcntl(lock->file, F_SETLK, &whole) == 0 ? 0 : errno;
  if (reason == EACCES) reason = EAGAIN; // POSIX allows both
  if (reason == 0 && !is_current(lock)) reason = EAGAIN;
  if (reason == 0) return 0;
  close(lock->file);
  lock->file = -1;
  return reason;
}

static fn_status refuse(const fn_folder_lock *lock, const char *folder) {
  char *holder = NULL;
  if (fn_file_read(lock->path, &holder, NULL) == FN_OK) holder[strcspn(holder, "\n")] = '\0';
  const fn_status status = fn_error_set(
      FN_ERR_CONFIG, __FILE__, __LINE__,
      "another run (%s) is writing in folder %s: wait for its end, stop it, or choose another "
      "folder; if it is certainly gone, remove %s",
      holder && holder[0] ? holder : "host and process unknown", folder, lock->path);
  free(holder);
  return status;
}

/** For the message of whoever is refused; the lock does not depend on it. */
static void note_holder(const fn_folder_lock *lock) {
  char text[320];
  const int length =
      snprintf(text, sizeof text, "%s, process %ld\n", fn_host_name(), (long)getpid());
  if (ftruncate(lock->file, 0) != 0 || write(lock->file, text, (size_t)length) != length ||
      fsync(lock->file) != 0)
    fn_log(FN_WARN, "%s: cannot note who holds the lock: %s", lock->path, strerror(errno));
}

static fn_status take(fn_folder_lock *lock, const char *folder, bool *without) {
  *without = false;
  // A run that was just killed may take a moment to vanish.
  int reason = EAGAIN;
  for (int i = 0; i < TRIES && reason == EAGAIN; i++) {
    if (i > 0) nanosleep(&pause_between_tries, NULL);
    reason = try_lock(lock);
  }
  if (reason == EAGAIN) return refuse(lock, folder);
  *without = reason == ENOLCK || reason == ENOSYS || reason == ENOTSUP || reason == EINVAL;
  if (*without)
    fn_log(FN_WARN,
           "%s: this file system has no locks (%s); take care that no other run writes in the "
           "folder",
           folder, strerror(reason));
  FN_CHECK(reason == 0 || *without, FN_ERR_CHECKPOINT, "cannot lock %s: %s", lock->path,
           strerror(reason));
  if (reason == 0) note_holder(lock);
  return FN_OK;
}

fn_status fn_folder_lock_take(const char *folder, fn_folder_lock **lock) {
  *lock = NULL;
  fn_folder_lock *l = calloc(1, sizeof *l);
  FN_CHECK(l, FN_ERR_MEMORY, "out of memory");
  l->file = -1;
  bool without = false;
  fn_status status = FN_OK;
  if (snprintf(l->path, sizeof l->path, "%s/.lock", folder) >= PATH_SIZE)
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "path too long: %.100s...", folder);
  l->existed = existing_part(l->path);
  if (status == FN_OK && fn_make_directories(folder) != FN_OK)
    status = FN_ERR_CHECKPOINT; // as whatever a folder refuses
  if (status == FN_OK) status = take(l, folder, &without);
  if (status == FN_OK && !without) {
    *lock = l;
    return FN_OK;
  }
  if (status != FN_OK) remove_folders(l);
  free(l);
  return status;
}

void fn_folder_lock_give(fn_folder_lock *lock) {
  if (!lock) return;
  unlink(lock->path); // while it is held: whoever waits for the old file then finds it gone
  close(lock->file);
  remove_folders(lock);
  free(lock);
}

fn_lock_state fn_folder_lock_look(const char *folder) {
  char path[PATH_SIZE];
  snprintf(path, sizeof path, "%s/.lock", folder);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno == ENOENT ? FN_LOCK_FREE : FN_LOCK_UNKNOWN;
  struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET}; // what the holder's would refuse
  const bool told = fcntl(file, F_GETLK, &whole) == 0;
  close(file);
  if (!told) return FN_LOCK_UNKNOWN;
  return whole.l_type == F_UNLCK ? FN_LOCK_FREE : FN_LOCK_HELD;
}
