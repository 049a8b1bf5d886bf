/** @file system.h
 *  The machine: cores, threads, clocks, files, checksums.
 */
#ifndef FN_BASE_SYSTEM_H
#define FN_BASE_SYSTEM_H

#include <pthread.h>

#include <fieldnet/fieldnet.h>

#include "base/text.h"

/** allowed[c] := 1 for each core c < count that this process may run on (its affinity mask), else
 * 0. */
void fn_cores_allowed(unsigned char *allowed, int count);
enum { FN_CORES_MOST = 1024 };
/** Threads of the kernels of this process from now on (OpenMP); at least 1. */
void fn_threads_set(int threads);
int fn_threads_get(void);
/** Keep thread i of a team of `threads` on core[i count / threads]; `threads` at most `count`.
 * Threads that the calling one starts later begin on its core: they call fn_thread_unpin(). */
void fn_threads_pin(const int *core, int count, int threads);
/** Let the calling thread run on all cores that the process had before fn_threads_pin(). */
void fn_thread_unpin(void);
/** Start a thread beside the one that runs the steps, which keeps all signals but those of a
 *  thread's own doing (SIGBUS of a file that shrank, SIGSEGV ...). 0, or an error of
 *  pthread_create(). */
int fn_thread_start(pthread_t *thread, void *(*run)(void *), void *argument);
/** Initialise a condition whose waits end by fn_clock(): when the wall clock is set, none is held
 * up or ended. pthread_cond_destroy() as usual. */
void fn_cond_init(pthread_cond_t *condition);
/** Wait for a condition of fn_cond_init(), until fn_clock() is `when` at the latest. As any such
 *  wait it may end for no reason. `mutex` is held before and after. */
void fn_cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, double when);
/** Cores of the machine that are online. */
int fn_cores_online(void);
/** Monotonic seconds. */
double fn_clock(void);
/** Seconds since 1970, which jump when the clock is set: for people and for files. */
double fn_time_now(void);
/** Seconds since the process was started, to a hundredth; 0 when unknown. */
double fn_process_age(void);
/** When a process of this machine was started, in ticks since the machine was; 0: there is no such
 *  process. */
long long fn_process_start(long long process);
/** Peak and current resident memory of this process, bytes; 0 when unknown. */
size_t fn_memory_peak(void);
size_t fn_memory_now(void);
/** Bytes that this process can never go beyond: memory and swap of the machine, and the limits of
 *  its control groups (batch systems set them). SIZE_MAX when unknown. */
size_t fn_memory_limit(void);
/** Pages that this process touched for the first time so far (minor faults). */
int64_t fn_page_faults(void);
const char *fn_host_name(void);
/** What tells two machines of one name apart: the kernel's identity since it was started, 36
 *  characters; "" when unknown. */
void fn_boot_id(char *text, size_t size);

bool fn_file_exists(const char *path);
bool fn_is_directory(const char *path);
/** mkdir -p. */
fn_status fn_make_directories(const char *path);
/** Write all bytes to a temporary name beside path, flush to disk, rename, flush the directory. */
fn_status fn_file_replace(const char *path, const void *bytes, size_t count);
/** fn_file_replace() with a text; FN_ERR_MEMORY, and the file stays, when it is incomplete. */
fn_status fn_file_replace_text(const char *path, const fn_text *text);
/** Whole file, NUL-terminated, malloc'ed; *count may be NULL. */
fn_status fn_file_read(const char *path, char **bytes, size_t *count);
/** Flush a written file, or a directory entry, to disk. */
fn_status fn_file_sync(const char *path);

/** CRC-32 (zlib) continued from crc (start with 0). */
uint32_t fn_crc32(uint32_t crc, const void *bytes, size_t count);

#endif
